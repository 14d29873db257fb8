//! Serves the files below a folder, and caches small ones in memory.
//!
//! Runs in TCP workers. The kernel resolves each path below the folder (`openat2`), so neither `..`
//! nor a symbolic link leads out of it.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use module_api::prelude::*;
use module_api::{StreamError, date};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat, fstat, open, openat2};
use rustix::io::Errno;

use crate::conditional::{Evaluation, Validators, evaluate};
use crate::media_type;
use crate::reply::{Clock, Decimal, Output, PreparedReply, Reply};
use crate::request_head::{Method, RequestHead};

/// Larger files are not cached.
const MAX_CACHED_FILE_BYTES: u64 = 64 << 10;
const MAX_CACHED_FILES: usize = 4096;
/// How often a path is tried that changes while the kernel resolves it.
const TRIES: usize = 3;

/// Why a file is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    NotFound,
    Forbidden,
    /// The path names a folder.
    Folder,
    /// A system call has failed; the error is logged.
    Failed,
}

impl Refusal {
    /// The HTTP status code.
    pub fn code(self) -> u16 {
        match self {
            Refusal::NotFound | Refusal::Folder => 404,
            Refusal::Forbidden => 403,
            Refusal::Failed => 500,
        }
    }
}

/// A part of a file that still has to be sent.
#[derive(Debug)]
pub struct FileRange {
    pub file: OwnedFd,
    /// Bytes.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

/// What tells one version of a file from another, as `fstat` reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileVersion {
    device: u64,
    inode: u64,
    bytes: u64,
    modified_s: i64,
    modified_ns: u64,
    changed_s: i64,
    changed_ns: u64,
}

impl FileVersion {
    fn of(stat: &Stat) -> FileVersion {
        FileVersion {
            device: stat.st_dev,
            inode: stat.st_ino,
            bytes: u64::try_from(stat.st_size).unwrap_or(0),
            modified_s: stat.st_mtime,
            modified_ns: stat.st_mtime_nsec,
            changed_s: stat.st_ctime,
            changed_ns: stat.st_ctime_nsec,
        }
    }

    /// The time of the last change for HTTP, which has no times before 1970 and allows none in the
    /// future.
    fn modified_s(&self, now_s: u64) -> u64 {
        u64::try_from(self.modified_s).unwrap_or(0).min(now_s)
    }
}

/// What answers say about one version of a file.
#[derive(Debug)]
struct FileMetadata {
    etag: Vec<u8>,
    /// Seconds since 1970.
    modified_s: u64,
    /// `Last-Modified`, `ETag` and `Accept-Ranges`.
    lines: Vec<u8>,
    media_type: &'static str,
    bytes: u64,
}

impl FileMetadata {
    fn new(state: &FileVersion, path: &[u8], now_s: u64) -> FileMetadata {
        let etag = format!("\"{:x}-{:x}-{:x}\"", state.modified_s, state.modified_ns, state.bytes);
        let modified_s = state.modified_s(now_s);
        let modified = date::text(modified_s);
        let mut lines = b"Last-Modified: ".to_vec();
        lines.extend_from_slice(&modified);
        lines.extend_from_slice(format!("\r\nETag: {etag}\r\nAccept-Ranges: bytes\r\n").as_bytes());
        FileMetadata { etag: etag.into_bytes(), modified_s, lines, media_type: media_type::of(path), bytes: state.bytes }
    }

    fn type_line(&self) -> String {
        format!("Content-Type: {}\r\n", self.media_type)
    }

    fn validators(&self) -> Validators<'_> {
        Validators { etag: &self.etag, modified_s: self.modified_s, bytes: self.bytes }
    }
}

#[derive(Debug)]
struct CachedFile {
    reply: PreparedReply,
    metadata: FileMetadata,
    version: FileVersion,
    /// Whether the file was read so long after its last change that a later change must show in its
    /// times.
    settled: bool,
    /// The second of the last comparison with the file on disk.
    checked_s: u64,
    /// The second of the last use. The file with the oldest one is removed first.
    used_s: u64,
}

/// The files that one process serves.
#[derive(Debug)]
pub struct Files {
    /// By decoded path.
    cached: HashMap<Box<[u8]>, CachedFile>,
    cached_bytes: u64,
    max_cached_bytes: u64,
    /// The folder, and the second in which it was opened. It is reopened each second, because its
    /// path may lead to another folder by then.
    root: Option<(OwnedFd, u64)>,
    /// The second of the last warning about a failed system call.
    warned_s: u64,
}

/// Opens the folder of files.
pub fn open_root(root: &Path) -> Result<OwnedFd, Errno> {
    open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Opens a file of any type below the folder. Never waits for the other side of a pipe.
pub fn open_below(root: &OwnedFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let mut tries = 0;
    loop {
        tries += 1;
        match openat2(root, path, flags, Mode::empty(), resolve) {
            // The kernel cannot rule out that a rename in between led out of the folder.
            Err(Errno::AGAIN | Errno::INTR) if tries < TRIES => {}
            outcome => return outcome,
        }
    }
}

impl Files {
    pub fn new(max_cached_bytes: u64) -> Files {
        Files { cached: HashMap::new(), cached_bytes: 0, max_cached_bytes, root: None, warned_s: 0 }
    }

    /// Answers a GET or HEAD for a file. `path` is one that `path::of_file` has accepted. Returns
    /// the status code and the part of the file that still has to be sent.
    pub fn answer(
        &mut self,
        root: &Path,
        path: &[u8],
        clock: &Clock,
        head: &RequestHead<'_>,
        output: &mut impl Output,
    ) -> Result<Result<(u16, Option<FileRange>), Refusal>, StreamError> {
        let now_s = clock.now_s;
        if let Some(cached) = self.cached.get_mut(path)
            && cached.checked_s == now_s
        {
            return cached.answer(clock, head, output).map(Ok);
        }
        match self.check(root, path, clock) {
            Err(refusal) => {
                self.remove(path);
                Ok(Err(refusal))
            }
            Ok(Some((file, version))) => {
                let metadata = FileMetadata::new(&version, path, now_s);
                answer_opened(file, &metadata, clock, head, output).map(Ok)
            }
            Ok(None) => match self.cached.get_mut(path) {
                Some(cached) => cached.answer(clock, head, output).map(Ok),
                None => Ok(Err(Refusal::Failed)),
            },
        }
    }

    /// Opens the file on disk and caches it if it is small. Returns `None` if the cached copy is
    /// current, otherwise the file, which is not cached.
    fn check(&mut self, root: &Path, path: &[u8], clock: &Clock) -> Result<Option<(File, FileVersion)>, Refusal> {
        let now_s = clock.now_s;
        if self.root.as_ref().is_none_or(|(_, opened_s)| *opened_s != now_s) {
            let opened = open_root(root).map_err(|errno| self.refusal(errno, root, now_s))?;
            self.root = Some((opened, now_s));
        }
        let Some((folder, _)) = &self.root else { return Err(Refusal::Failed) };
        let file = open_below(folder, path).map_err(|errno| self.refusal(errno, root, now_s))?;
        let stat = fstat(&file).map_err(|errno| self.refusal(errno, root, now_s))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {}
            FileType::Directory => return Err(Refusal::Folder),
            _ => return Err(Refusal::NotFound),
        }
        let version = FileVersion::of(&stat);
        let mut file = File::from(file);
        if let Some(cached) = self.cached.get_mut(path)
            && cached.version == version
            && cached.settled
        {
            cached.checked_s = now_s;
            cached.used_s = now_s;
            return Ok(None);
        }
        self.remove(path);
        if version.bytes > MAX_CACHED_FILE_BYTES || version.bytes > self.max_cached_bytes {
            return Ok(Some((file, version)));
        }
        let mut body = Vec::with_capacity(version.bytes as usize + 1);
        if let Err(error) = (&mut file).take(MAX_CACHED_FILE_BYTES + 1).read_to_end(&mut body) {
            warn!(error = %error, "a file cannot be read");
            return Err(Refusal::Failed);
        }
        let after = fstat(&file).map(|stat| FileVersion::of(&stat));
        if body.len() as u64 != version.bytes || after != Ok(version) {
            // The file is being changed, so it is not cached.
            return Ok(Some((file, after.unwrap_or(version))));
        }
        self.insert(path, &body, version, clock);
        Ok(None)
    }

    /// The answer for a failed system call. An error that no path explains is logged, at most once
    /// a second.
    fn refusal(&mut self, errno: Errno, root: &Path, now_s: u64) -> Refusal {
        match errno {
            // XDEV: the path leads out of the folder.
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG | Errno::XDEV | Errno::INVAL | Errno::NXIO => Refusal::NotFound,
            Errno::ACCESS | Errno::PERM => Refusal::Forbidden,
            errno => {
                if self.warned_s != now_s {
                    self.warned_s = now_s;
                    warn!(root = %root.display(), error = %errno, "a file cannot be opened");
                }
                Refusal::Failed
            }
        }
    }

    /// Caches a file, and removes others if there is no room for it.
    fn insert(&mut self, path: &[u8], body: &[u8], version: FileVersion, clock: &Clock) {
        let metadata = FileMetadata::new(&version, path, clock.now_s);
        let mut lines = metadata.type_line().into_bytes();
        lines.extend_from_slice(&metadata.lines);
        let reply = PreparedReply::new(clock, 200, &lines, Some(version.bytes), body);
        let bytes = reply.len() as u64;
        while !self.cached.is_empty()
            && (self.cached_bytes + bytes > self.max_cached_bytes.max(bytes) || self.cached.len() >= MAX_CACHED_FILES)
        {
            let oldest = self.cached.iter().min_by_key(|(_, cached)| cached.used_s).map(|(path, _)| path.clone());
            if let Some(oldest) = oldest {
                self.remove(&oldest);
            }
        }
        self.cached_bytes += bytes;
        let settled = u64::try_from(version.changed_s).is_ok_and(|changed_s| changed_s + 1 < clock.now_s);
        self.cached.insert(path.into(), CachedFile { reply, metadata, version, settled, checked_s: clock.now_s, used_s: clock.now_s });
    }

    /// Removes a file from the cache.
    fn remove(&mut self, path: &[u8]) {
        if let Some(cached) = self.cached.remove(path) {
            self.cached_bytes -= cached.reply.len() as u64;
        }
    }

    #[cfg(test)]
    pub fn cached_bytes(&self) -> u64 {
        self.cached_bytes
    }
}

impl CachedFile {
    #[inline]
    fn answer(&mut self, clock: &Clock, head: &RequestHead<'_>, output: &mut impl Output) -> Result<(u16, Option<FileRange>), StreamError> {
        if !head.conditional {
            return self.reply.write(clock, head, output).map(|code| (code, None));
        }
        let code = match evaluate(head, self.metadata.validators(), clock.now_s) {
            Evaluation::Full => self.reply.write(clock, head, output)?,
            Evaluation::Range { from, len } => {
                let part = &self.reply.body()[from as usize..][..len as usize];
                write_part(&self.metadata, from, len, part, clock, head, output)?
            }
            other => write_no_content(&self.metadata, other, clock, head, output)?,
        };
        Ok((code, None))
    }
}

/// Answers from a file that is not cached.
fn answer_opened(
    file: File,
    metadata: &FileMetadata,
    clock: &Clock,
    head: &RequestHead<'_>,
    output: &mut impl Output,
) -> Result<(u16, Option<FileRange>), StreamError> {
    let (code, offset, len) = match evaluate(head, metadata.validators(), clock.now_s) {
        Evaluation::Full => {
            let type_line = metadata.type_line();
            let fields = [type_line.as_bytes(), &metadata.lines];
            let reply = Reply { code: 200, fields: &fields, length: Some(metadata.bytes), body: b"" };
            (reply.write(clock, head, output)?, 0, metadata.bytes)
        }
        Evaluation::Range { from, len } => (write_part(metadata, from, len, b"", clock, head, output)?, from, len),
        other => return write_no_content(metadata, other, clock, head, output).map(|code| (code, None)),
    };
    if head.method == Method::Head || len == 0 {
        return Ok((code, None));
    }
    match output.write_file(file.as_fd(), offset, len) {
        Ok(()) => Ok((code, None)),
        // The head is queued. The rest follows when there is room.
        Err(StreamError::Busy) => Ok((code, Some(FileRange { file: file.into(), offset, len }))),
        Err(error) => Err(error),
    }
}

/// Answers with 206. `part` is the body, empty if it is sent from the file.
fn write_part(
    metadata: &FileMetadata,
    from: u64,
    len: u64,
    part: &[u8],
    clock: &Clock,
    head: &RequestHead<'_>,
    output: &mut impl Output,
) -> Result<u16, StreamError> {
    let range = format!("Content-Range: bytes {from}-{}/{}\r\n{}", from + len - 1, metadata.bytes, metadata.type_line());
    let fields = [range.as_bytes(), &metadata.lines];
    Reply { code: 206, fields: &fields, length: Some(len), body: part }.write(clock, head, output)
}

/// Answers with 304, 416 or 412.
fn write_no_content(
    metadata: &FileMetadata,
    evaluation: Evaluation,
    clock: &Clock,
    head: &RequestHead<'_>,
    output: &mut impl Output,
) -> Result<u16, StreamError> {
    let mut digits = Decimal::new();
    match evaluation {
        Evaluation::NotModified => Reply { code: 304, fields: &[&metadata.lines], length: None, body: b"" }.write(clock, head, output),
        Evaluation::RangeNotSatisfiable => {
            let fields: [&[u8]; 3] = [b"Content-Range: bytes */", digits.of(metadata.bytes), b"\r\n"];
            Reply { code: 416, fields: &fields, length: Some(0), body: b"" }.write(clock, head, output)
        }
        _ => Reply { code: 412, fields: &[], length: Some(0), body: b"" }.write(clock, head, output),
    }
}
