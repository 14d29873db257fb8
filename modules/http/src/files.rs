//! Files below a folder: found without ever leaving it, small ones kept in memory.
//!
//! Runs in TCP workers. The kernel resolves each path below the folder (`openat2`), so neither `..` nor a symbolic link leads out of it.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use module_api::prelude::*;
use module_api::{StreamError, date};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat, fstat, open, openat2};
use rustix::io::Errno;

use crate::conditional::{Validators, Verdict, judge};
use crate::head::{Head, Method};
use crate::media;
use crate::reply::{Clock, Decimal, Page, Reply, Wire};

/// Files up to this are kept in memory, in bytes.
const SMALL: u64 = 64 << 10;
/// Files kept at most.
const MAX_KEPT: usize = 4096;
/// How often a path is tried that changes while it is looked at.
const TRIES: usize = 3;

/// Why a file is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    NotFound,
    Forbidden,
    /// The path is a folder's.
    Folder,
    /// The kernel has failed; the log says how.
    Failed,
}

impl Refusal {
    /// The code to answer.
    pub fn code(self) -> u16 {
        match self {
            Refusal::NotFound | Refusal::Folder => 404,
            Refusal::Forbidden => 403,
            Refusal::Failed => 500,
        }
    }
}

/// What is left of an answer: a piece of a file.
#[derive(Debug)]
pub struct Rest {
    pub file: OwnedFd,
    pub offset: u64,
    pub len: u64,
}

/// What a file was when it was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    device: u64,
    inode: u64,
    bytes: u64,
    modified_s: i64,
    modified_ns: u64,
    changed_s: i64,
    changed_ns: u64,
}

impl State {
    fn of(stat: &Stat) -> State {
        State {
            device: stat.st_dev,
            inode: stat.st_ino,
            bytes: u64::try_from(stat.st_size).unwrap_or(0),
            modified_s: stat.st_mtime,
            modified_ns: stat.st_mtime_nsec,
            changed_s: stat.st_ctime,
            changed_ns: stat.st_ctime_nsec,
        }
    }

    /// A moment before 1970, or one to come, is none that HTTP can say.
    fn modified_s(&self, now_s: u64) -> u64 {
        u64::try_from(self.modified_s).unwrap_or(0).min(now_s)
    }
}

/// The lines that identify a file.
#[derive(Debug)]
struct Identity {
    etag: Vec<u8>,
    modified_s: u64,
    /// `Last-Modified`, `ETag` and `Accept-Ranges`.
    lines: Vec<u8>,
    media_type: &'static str,
    bytes: u64,
}

impl Identity {
    fn new(state: &State, path: &[u8], now_s: u64) -> Identity {
        let etag = format!("\"{:x}-{:x}-{:x}\"", state.modified_s, state.modified_ns, state.bytes);
        let modified_s = state.modified_s(now_s);
        let modified = date::text(modified_s);
        let mut lines = b"Last-Modified: ".to_vec();
        lines.extend_from_slice(&modified);
        lines.extend_from_slice(format!("\r\nETag: {etag}\r\nAccept-Ranges: bytes\r\n").as_bytes());
        Identity { etag: etag.into_bytes(), modified_s, lines, media_type: media::of(path), bytes: state.bytes }
    }

    fn type_line(&self) -> String {
        format!("Content-Type: {}\r\n", self.media_type)
    }

    fn validators(&self) -> Validators<'_> {
        Validators { etag: &self.etag, modified_s: self.modified_s, bytes: self.bytes }
    }
}

/// A file that is kept.
#[derive(Debug)]
struct Kept {
    page: Page,
    identity: Identity,
    state: State,
    /// It was read so long after its last change that another change would show in its times.
    settled: bool,
    /// In which second it was last compared with the file, and last used.
    checked_s: u64,
    used_s: u64,
}

/// The files of one process.
#[derive(Debug)]
pub struct Files {
    kept: HashMap<Box<[u8]>, Kept>,
    kept_bytes: u64,
    max_kept_bytes: u64,
    /// The folder, and in which second it was opened: it may be replaced by another one.
    root: Option<(OwnedFd, u64)>,
    /// Whether the log was told that the kernel fails.
    complained_s: u64,
}

/// Opens the folder.
pub fn open_root(root: &Path) -> Result<OwnedFd, Errno> {
    open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Opens something below the folder, of whatever kind; never waits for a pipe's other side.
pub fn open_below(root: &OwnedFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let mut tries = 0;
    loop {
        tries += 1;
        match openat2(root, path, flags, Mode::empty(), resolve) {
            // Something was renamed meanwhile, and the kernel is not sure.
            Err(Errno::AGAIN | Errno::INTR) if tries < TRIES => {}
            outcome => return outcome,
        }
    }
}

impl Files {
    /// That many bytes are kept at most.
    pub fn new(max_kept_bytes: u64) -> Files {
        Files { kept: HashMap::new(), kept_bytes: 0, max_kept_bytes, root: None, complained_s: 0 }
    }

    /// Answers a GET or HEAD for a file. `path` has no empty part, and none that begins with a dot but the first one's `.well-known`.
    pub fn answer(
        &mut self,
        root: &Path,
        path: &[u8],
        clock: &Clock,
        head: &Head<'_>,
        wire: &mut impl Wire,
    ) -> Result<Result<(u16, Option<Rest>), Refusal>, StreamError> {
        let now_s = clock.now_s;
        if let Some(kept) = self.kept.get_mut(path)
            && kept.checked_s == now_s
        {
            return kept.answer(clock, head, wire).map(Ok);
        }
        match self.look(root, path, clock) {
            Err(refusal) => {
                self.forget(path);
                Ok(Err(refusal))
            }
            Ok(Some((file, state))) => {
                let identity = Identity::new(&state, path, now_s);
                answer_opened(file, &identity, clock, head, wire).map(Ok)
            }
            Ok(None) => match self.kept.get_mut(path) {
                Some(kept) => kept.answer(clock, head, wire).map(Ok),
                None => Ok(Err(Refusal::Failed)),
            },
        }
    }

    /// Looks at the file itself. None: it is kept, and as it was.
    fn look(&mut self, root: &Path, path: &[u8], clock: &Clock) -> Result<Option<(File, State)>, Refusal> {
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
        let state = State::of(&stat);
        let mut file = File::from(file);
        if let Some(kept) = self.kept.get_mut(path)
            && kept.state == state
            && kept.settled
        {
            kept.checked_s = now_s;
            kept.used_s = now_s;
            return Ok(None);
        }
        self.forget(path);
        if state.bytes > SMALL || state.bytes > self.max_kept_bytes {
            return Ok(Some((file, state)));
        }
        let mut body = Vec::with_capacity(state.bytes as usize + 1);
        if let Err(error) = (&mut file).take(SMALL + 1).read_to_end(&mut body) {
            warn!(error = %error, "a file cannot be read");
            return Err(Refusal::Failed);
        }
        let after = fstat(&file).map(|stat| State::of(&stat));
        if body.len() as u64 != state.bytes || after != Ok(state) {
            // It changes right now: nothing to keep.
            return Ok(Some((file, after.unwrap_or(state))));
        }
        self.keep(path, &body, state, clock);
        Ok(None)
    }

    /// What an error of the kernel means to the client. What is ours is in the log, once a second at most.
    fn refusal(&mut self, errno: Errno, root: &Path, now_s: u64) -> Refusal {
        match errno {
            // XDEV: the path leads out of the folder.
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG | Errno::XDEV | Errno::INVAL | Errno::NXIO => Refusal::NotFound,
            Errno::ACCESS | Errno::PERM => Refusal::Forbidden,
            errno => {
                if self.complained_s != now_s {
                    self.complained_s = now_s;
                    warn!(root = %root.display(), error = %errno, "a file cannot be opened");
                }
                Refusal::Failed
            }
        }
    }

    fn keep(&mut self, path: &[u8], body: &[u8], state: State, clock: &Clock) {
        let identity = Identity::new(&state, path, clock.now_s);
        let mut lines = identity.type_line().into_bytes();
        lines.extend_from_slice(&identity.lines);
        let page = Page::new(clock, 200, &lines, Some(state.bytes), body);
        let bytes = page.len() as u64;
        while !self.kept.is_empty() && (self.kept_bytes + bytes > self.max_kept_bytes.max(bytes) || self.kept.len() >= MAX_KEPT) {
            let oldest = self.kept.iter().min_by_key(|(_, kept)| kept.used_s).map(|(path, _)| path.clone());
            if let Some(oldest) = oldest {
                self.forget(&oldest);
            }
        }
        self.kept_bytes += bytes;
        let settled = u64::try_from(state.changed_s).is_ok_and(|changed_s| changed_s + 1 < clock.now_s);
        self.kept.insert(path.into(), Kept { page, identity, state, settled, checked_s: clock.now_s, used_s: clock.now_s });
    }

    fn forget(&mut self, path: &[u8]) {
        if let Some(kept) = self.kept.remove(path) {
            self.kept_bytes -= kept.page.len() as u64;
        }
    }

    /// Bytes that are kept.
    #[cfg(test)]
    pub fn kept_bytes(&self) -> u64 {
        self.kept_bytes
    }
}

impl Kept {
    #[inline]
    fn answer(&mut self, clock: &Clock, head: &Head<'_>, wire: &mut impl Wire) -> Result<(u16, Option<Rest>), StreamError> {
        if !head.conditional {
            return self.page.write(clock, head, wire).map(|code| (code, None));
        }
        let verdict = judge(head, self.identity.validators(), clock.now_s);
        match verdict {
            Verdict::Whole => self.page.write(clock, head, wire).map(|code| (code, None)),
            Verdict::Part { from, len } => {
                let part = &self.page.body()[from as usize..][..len as usize];
                write_part(&self.identity, from, len, part, clock, head, wire).map(|code| (code, None))
            }
            other => write_none(&self.identity, other, clock, head, wire).map(|code| (code, None)),
        }
    }
}

/// Answers from the file itself.
fn answer_opened(
    file: File,
    identity: &Identity,
    clock: &Clock,
    head: &Head<'_>,
    wire: &mut impl Wire,
) -> Result<(u16, Option<Rest>), StreamError> {
    let (code, offset, len) = match judge(head, identity.validators(), clock.now_s) {
        Verdict::Whole => {
            let type_line = identity.type_line();
            let fields = [type_line.as_bytes(), &identity.lines];
            let reply = Reply { code: 200, fields: &fields, length: Some(identity.bytes), body: b"" };
            (reply.write(clock, head, wire)?, 0, identity.bytes)
        }
        Verdict::Part { from, len } => (write_part(identity, from, len, b"", clock, head, wire)?, from, len),
        other => return write_none(identity, other, clock, head, wire).map(|code| (code, None)),
    };
    if head.method == Method::Head || len == 0 {
        return Ok((code, None));
    }
    match wire.write_file(file.as_fd(), offset, len) {
        Ok(()) => Ok((code, None)),
        // The head has gone out; the rest follows when there is room.
        Err(StreamError::Busy) => Ok((code, Some(Rest { file: file.into(), offset, len }))),
        Err(error) => Err(error),
    }
}

fn write_part(
    identity: &Identity,
    from: u64,
    len: u64,
    part: &[u8],
    clock: &Clock,
    head: &Head<'_>,
    wire: &mut impl Wire,
) -> Result<u16, StreamError> {
    let range = format!("Content-Range: bytes {from}-{}/{}\r\n{}", from + len - 1, identity.bytes, identity.type_line());
    let fields = [range.as_bytes(), &identity.lines];
    Reply { code: 206, fields: &fields, length: Some(len), body: part }.write(clock, head, wire)
}

/// The answers without a piece of the file.
fn write_none(identity: &Identity, verdict: Verdict, clock: &Clock, head: &Head<'_>, wire: &mut impl Wire) -> Result<u16, StreamError> {
    let mut digits = Decimal::new();
    match verdict {
        Verdict::NotModified => Reply { code: 304, fields: &[&identity.lines], length: None, body: b"" }.write(clock, head, wire),
        Verdict::Unsatisfiable => {
            let fields: [&[u8]; 3] = [b"Content-Range: bytes */", digits.of(identity.bytes), b"\r\n"];
            Reply { code: 416, fields: &fields, length: Some(0), body: b"" }.write(clock, head, wire)
        }
        _ => Reply { code: 412, fields: &[], length: Some(0), body: b"" }.write(clock, head, wire),
    }
}
