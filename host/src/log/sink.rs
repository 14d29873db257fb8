//! Where the bytes of a record go: one `write` or one datagram each.
//!
//! *Runs in:* every process. *Never:* waits for a datagram's receiver, dies of SIGPIPE, changes a descriptor's number after the start.

use super::settings::Target;
use crate::error::{Error, Result, io_text};
use crate::sys::descriptor;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send};
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::{Gid, Uid, fchown, write};
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};

const FILE_MODE: u32 = 0o640;

pub(super) enum Sink {
    Stderr(Stream),
    File { file: File, path: PathBuf, stream: Stream },
    Datagram { socket: UnixDatagram, path: PathBuf, protocol: Protocol },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Syslog,
    Journald,
}

/// What is behind a stream's descriptor decides how a closed reader is kept from raising SIGPIPE.
pub(super) struct Stream {
    kind: AtomicU8,
    /// The last write stopped in the middle of a line.
    torn: AtomicBool,
}

const PLAIN: u8 = 0;
const PIPE: u8 = 1;
const SOCKET: u8 = 2;

impl Sink {
    /// Opens a target, with an error while the operator's terminal is still attached.
    pub(super) fn open(target: &Target) -> Result<Self> {
        match target {
            Target::Stderr => Ok(Self::Stderr(Stream::of(std::io::stderr().as_fd()))),
            Target::File(path) => {
                let file = open_file(path, Creation::IfMissing).map_err(|error| cannot_open(path, &error))?;
                Ok(Self::File { stream: Stream::of(file.as_fd()), file, path: path.clone() })
            }
            Target::Syslog => Self::datagram(Protocol::Syslog, "/dev/log".into()),
            Target::Journald => Self::datagram(Protocol::Journald, "/run/systemd/journal/socket".into()),
        }
    }

    /// What `open` would say against a file, as far as can be known without making it, and by somebody who may not write there.
    pub(super) fn check(target: &Target) -> Result<()> {
        let Target::File(path) = target else { return Ok(()) };
        match open_file(path, Creation::Never) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound && path.parent().is_some_and(Path::is_dir) => Ok(()),
            Err(error) => Err(cannot_open(path, &error)),
        }
    }

    /// One unconnected socket, inherited by every process. The address is looked up for each datagram, so a receiver that was restarted
    /// is found again without a connection to renew, and no process has state of its own.
    pub(super) fn datagram(protocol: Protocol, path: PathBuf) -> Result<Self> {
        let name = if protocol == Protocol::Syslog { "syslog" } else { "the journal" };
        let cannot = |error: std::io::Error| {
            Error::failed(format!("cannot log to {name}"))
                .detail(format_args!("{}: {}", path.display(), io_text(&error)))
                .hint("start its daemon, or choose another log target")
        };
        let socket = UnixDatagram::unbound().map_err(cannot)?;
        socket.set_nonblocking(true).map_err(cannot)?;
        // Only to learn now what would otherwise be lost records later.
        UnixDatagram::unbound().and_then(|probe| probe.connect(&path)).map_err(cannot)?;
        Ok(Self::Datagram { socket, path, protocol })
    }

    /// The descriptor of our own, if any: 2 belongs to everyone.
    pub(super) fn descriptor(&self) -> Option<RawFd> {
        match self {
            Self::Stderr(_) => None,
            Self::File { file, .. } => Some(file.as_raw_fd()),
            Self::Datagram { socket, .. } => Some(socket.as_raw_fd()),
        }
    }

    pub(super) fn path(&self) -> Option<&Path> {
        if let Self::File { path, .. } = self { Some(path) } else { None }
    }

    /// The last record stopped in the middle: this one has to begin with a newline.
    pub(super) fn is_torn(&self) -> bool {
        match self {
            Self::Stderr(stream) | Self::File { stream, .. } => stream.torn.load(Relaxed),
            Self::Datagram { .. } => false,
        }
    }

    /// Writes one record.
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

    /// Opens the file's path again under the same descriptor number. The old file stays in place when that fails.
    pub(super) fn reopen(&self, creation: Creation, owner: Option<(Uid, Gid)>) -> std::io::Result<()> {
        let Self::File { file, path, stream } = self else { return Ok(()) };
        let new = open_file(path, creation)?;
        if let Some((uid, gid)) = owner {
            // Not a device or a pipe that the path may lead to.
            if new.metadata()?.is_file() {
                fchown(&new, Some(uid), Some(gid))?;
            }
        }
        descriptor::replace(file.as_fd(), new.into())?;
        stream.look_again(file.as_fd());
        Ok(())
    }
}

/// Who makes the file: only the process whose identity the operator expects on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Creation {
    IfMissing,
    Never,
}

fn cannot_open(path: &Path, error: &std::io::Error) -> Error {
    Error::failed("cannot open the log file")
        .detail(format_args!("{}: {}", path.display(), io_text(error)))
        .hint("its folder must exist, and the path must be that of a file that can be written")
}

fn open_file(path: &Path, creation: Creation) -> std::io::Result<File> {
    // std adds O_CLOEXEC.
    let mut options = OpenOptions::new();
    options.append(true).create(creation == Creation::IfMissing).mode(FILE_MODE).custom_flags(nix::fcntl::OFlag::O_NOCTTY.bits());
    // A pipe without a reader would make the open wait for one.
    if std::fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo()) {
        options.read(true);
    }
    options.open(path)
}

impl Stream {
    fn of(fd: BorrowedFd<'_>) -> Self {
        let stream = Self { kind: AtomicU8::new(PLAIN), torn: AtomicBool::new(false) };
        stream.look_again(fd);
        stream
    }

    fn look_again(&self, fd: BorrowedFd<'_>) {
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
                // A full disk takes a part; the next attempt then says why. Other short writes are completed by it.
                Ok(written) => rest = &rest[written..],
                Err(Errno::EINTR) => {}
                // Descriptor 2 was a socket at the start and was redirected since (daemon mode).
                Err(Errno::ENOTSOCK) => self.look_again(fd),
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
