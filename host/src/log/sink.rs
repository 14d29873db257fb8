//! Where the bytes of a record go: one `write` or one datagram each.
//!
//! *Runs in:* every process. *Never:* waits for a datagram's receiver, dies of SIGPIPE, changes a
//! descriptor's number after the start.

use super::settings::SinkTarget;
use crate::error::{Error, Result, io_text};
use crate::sys::descriptor;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send};
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::{Gid, Uid, fchown, write};
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};

const FILE_MODE: u32 = 0o640;

pub(super) enum LogSink {
    Stderr(Stream),
    File { file: File, path: PathBuf, stream: Stream },
    Datagram { socket: UnixDatagram, path: PathBuf, protocol: Protocol },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Syslog,
    Journald,
}

/// Its kind decides how a write to a closed reader is kept from raising SIGPIPE.
pub(super) struct Stream {
    kind: AtomicU8,
    /// The last write ended in the middle of a line.
    torn: AtomicBool,
}

const PLAIN: u8 = 0;
const PIPE: u8 = 1;
const SOCKET: u8 = 2;

impl LogSink {
    /// Opens a target early, so that an error still reaches the operator's terminal.
    pub(super) fn open(target: &SinkTarget) -> Result<Self> {
        match target {
            SinkTarget::Stderr => Ok(Self::Stderr(Stream::of(std::io::stderr().as_fd()))),
            SinkTarget::File(path) => {
                let file = open_file(path, FileCreation::IfMissing).map_err(|error| cannot_open(path, &error))?;
                Ok(Self::File { stream: Stream::of(file.as_fd()), file, path: path.clone() })
            }
            SinkTarget::Syslog => Self::datagram(Protocol::Syslog, "/dev/log".into()),
            SinkTarget::Journald => Self::datagram(Protocol::Journald, "/run/systemd/journal/socket".into()),
        }
    }

    /// The error that `open` would return for a file, as far as can be known without making it, and
    /// without the permission to write there.
    pub(super) fn check(target: &SinkTarget) -> Result<()> {
        let SinkTarget::File(path) = target else { return Ok(()) };
        match open_file(path, FileCreation::Never) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound && path.parent().is_some_and(Path::is_dir) => Ok(()),
            Err(error) => Err(cannot_open(path, &error)),
        }
    }

    /// One unconnected socket, inherited by every process. The address is looked up for each
    /// datagram: a restarted receiver is found again without a connection to renew, and no process
    /// has its own state.
    pub(super) fn datagram(protocol: Protocol, path: PathBuf) -> Result<Self> {
        let name = if protocol == Protocol::Syslog { "syslog" } else { "the journal" };
        let cannot = |error: std::io::Error| {
            Error::failed(format!("cannot log to {name}"))
                .detail(format_args!("{}: {}", path.display(), io_text(&error)))
                .hint("start its daemon, or choose another log target")
        };
        let socket = UnixDatagram::unbound().map_err(cannot)?;
        socket.set_nonblocking(true).map_err(cannot)?;
        // A probe: an error at the start, where there would be lost records later.
        UnixDatagram::unbound().and_then(|probe| probe.connect(&path)).map_err(cannot)?;
        Ok(Self::Datagram { socket, path, protocol })
    }

    pub(super) fn path(&self) -> Option<&Path> {
        if let Self::File { path, .. } = self { Some(path) } else { None }
    }

    /// The last record was written in part: the next one has to begin with a newline.
    pub(super) fn is_torn(&self) -> bool {
        match self {
            Self::Stderr(stream) | Self::File { stream, .. } => stream.torn.load(Relaxed),
            Self::Datagram { .. } => false,
        }
    }

    pub(super) fn write(&self, bytes: &[u8]) -> Result<(), Errno> {
        match self {
            Self::Stderr(stream) => stream.write(std::io::stderr().as_fd(), bytes),
            Self::File { file, stream, .. } => stream.write(file.as_fd(), bytes),
            Self::Datagram { socket, path, .. } => loop {
                match socket.send_to(bytes, path) {
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(Errno::from_raw(error.raw_os_error().unwrap_or(0))),
                    Ok(_) => return Ok(()),
                }
            },
        }
    }

    /// Opens the file's path again under the same descriptor number. After a failure the old file
    /// stays open.
    pub(super) fn reopen(&self, creation: FileCreation, owner: Option<(Uid, Gid)>) -> std::io::Result<()> {
        let Self::File { file, path, stream } = self else { return Ok(()) };
        let new = open_file(path, creation)?;
        if let Some((uid, gid)) = owner {
            // The path may lead to a device or a pipe, whose owner is not changed.
            if new.metadata()?.is_file() {
                fchown(&new, Some(uid), Some(gid))?;
            }
        }
        descriptor::replace(file.as_fd(), new.into())?;
        stream.detect_kind(file.as_fd());
        Ok(())
    }
}

/// Whether to make the file: only the process with the identity that shall own it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileCreation {
    IfMissing,
    Never,
}

fn cannot_open(path: &Path, error: &std::io::Error) -> Error {
    Error::failed("cannot open the log file")
        .detail(format_args!("{}: {}", path.display(), io_text(error)))
        .hint("its folder must exist, and the path must be that of a file that can be written")
}

fn open_file(path: &Path, creation: FileCreation) -> std::io::Result<File> {
    // std adds O_CLOEXEC.
    let mut options = OpenOptions::new();
    options.append(true).create(creation == FileCreation::IfMissing).mode(FILE_MODE).custom_flags(nix::fcntl::OFlag::O_NOCTTY.bits());
    // Opening a pipe for writing alone would wait for a reader.
    if std::fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo()) {
        options.read(true);
    }
    options.open(path)
}

impl Stream {
    fn of(fd: BorrowedFd<'_>) -> Self {
        let stream = Self { kind: AtomicU8::new(PLAIN), torn: AtomicBool::new(false) };
        stream.detect_kind(fd);
        stream
    }

    fn detect_kind(&self, fd: BorrowedFd<'_>) {
        let kind = match fstat(fd).map(|found| SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT) {
            Ok(SFlag::S_IFIFO) => PIPE,
            Ok(SFlag::S_IFSOCK) => SOCKET,
            _ => PLAIN,
        };
        self.kind.store(kind, Relaxed);
        self.torn.store(false, Relaxed);
    }

    fn write(&self, fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<(), Errno> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.write_some(fd, rest) {
                // After a short write the next one completes it or, on a full disk, says why.
                Ok(written) => rest = &rest[written..],
                Err(Errno::EINTR) => {}
                // Descriptor 2 was a socket at the start; daemon mode has redirected it.
                Err(Errno::ENOTSOCK) => self.detect_kind(fd),
                Err(errno) => {
                    if rest.len() < bytes.len() {
                        self.torn.store(true, Relaxed);
                    }
                    return Err(errno);
                }
            }
        }
        self.torn.store(false, Relaxed);
        Ok(())
    }

    fn write_some(&self, fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
        match self.kind.load(Relaxed) {
            PIPE => descriptor::write_past_sigpipe(fd, bytes),
            SOCKET => send(fd.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL),
            _ => write(fd, bytes),
        }
    }
}
