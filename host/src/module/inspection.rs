//! One file, looked at from outside: what it says of itself, and whether it may be loaded.
//!
//! *Runs in:* the supervisor and the commands `check` and `inspect`.
//! *Never:* runs one instruction of the file.

use std::mem::{offset_of, size_of};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use module_api::abi;

use super::elf::{Header, Image, Obstacle, Order};
use super::judge::{self, Host};
use super::source::Source;
use super::table::{self, Table, TableInfo};
use crate::error::Error;

/// Everything that was found out about one file.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// As it was given.
    pub path: PathBuf,
    /// What the system says of it; `None` if it could not be opened.
    pub file: Option<FileInfo>,
    /// Its first bytes, if they are an ELF file's.
    pub header: Option<Header>,
    /// The modhost note.
    pub note: Option<NoteInfo>,
    /// The exports table, if it could be read whole.
    pub table: Option<TableInfo>,
    /// Libraries that come with it.
    pub needed: Vec<String>,
    /// May it be loaded.
    pub verdict: Verdict,
}

/// What the system says of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FileInfo {
    /// Its size.
    pub size_bytes: u64,
    /// With `inode`, tells whether two paths lead to one file.
    pub device: u64,
    /// See `device`.
    pub inode: u64,
}

/// The ELF note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteInfo {
    /// Interface the module was built with.
    pub abi_major: u16,
    /// Its minor number.
    pub abi_minor: u16,
    /// Oldest host that will do.
    pub needs_host_minor: u16,
    /// `FLAG_*`.
    pub flags: u32,
    /// Size of the exports table.
    pub exports_size_bytes: u32,
    /// SDK and its version.
    pub sdk: String,
    /// Compiler and its version.
    pub compiler: String,
}

/// May it be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// As far as can be seen from outside.
    Ok,
    /// Why not: what was found, what was expected, what to do.
    Refused(Error),
}

/// What was found, before it is judged.
#[derive(Debug, Clone, PartialEq)]
pub struct Findings {
    /// What kept from reading on.
    pub obstacle: Option<Obstacle>,
    /// The first bytes.
    pub header: Option<Header>,
    /// It says it is a program.
    pub is_program: bool,
    /// It can be linked at run time at all.
    pub has_dynamic: bool,
    /// The modhost note.
    pub note: Option<NoteInfo>,
    /// The note is there but too short: its length.
    pub short_note_bytes: Option<usize>,
    /// The exports table.
    pub table: Table,
    /// Libraries that come with it.
    pub needed: Vec<String>,
}

impl Default for Findings {
    fn default() -> Self {
        Self {
            obstacle: None,
            header: None,
            is_program: false,
            has_dynamic: false,
            note: None,
            short_note_bytes: None,
            table: Table::Absent,
            needed: Vec::new(),
        }
    }
}

impl Inspection {
    /// The reason for a refusal, with the file's path put before it.
    pub fn refusal(&self) -> Option<Error> {
        match &self.verdict {
            Verdict::Ok => None,
            Verdict::Refused(error) => {
                Some(Error { what: format!("module \"{}\" cannot be loaded: {}", self.path.display(), error.what), ..error.clone() })
            }
        }
    }

    /// Whether it means to be a module, good or not.
    pub fn is_module(&self) -> bool {
        self.note.is_some() || self.table.is_some()
    }

    /// Two paths of one file have the same.
    pub fn identity(&self) -> Option<(u64, u64)> {
        self.file.map(|file| (file.device, file.inode))
    }
}

/// Looks at a file, for the host that runs this.
pub fn inspect(path: &Path) -> Inspection {
    let (file, findings) = match Source::open(path) {
        Ok((source, metadata)) => {
            let file = FileInfo { size_bytes: metadata.len(), device: metadata.dev(), inode: metadata.ino() };
            (Some(file), examine(source))
        }
        Err(obstacle) => (None, Findings { obstacle: Some(obstacle), ..Findings::default() }),
    };
    conclude(path, file, findings)
}

/// The same over bytes in memory, for tests.
pub fn inspect_bytes(path: &Path, bytes: Vec<u8>) -> Inspection {
    let file = FileInfo { size_bytes: bytes.len() as u64, ..FileInfo::default() };
    conclude(path, Some(file), examine(Source::from_bytes(bytes)))
}

fn conclude(path: &Path, file: Option<FileInfo>, findings: Findings) -> Inspection {
    let verdict = judge::judge(&findings, Host::THIS);
    let table = match findings.table {
        Table::Read(info) => Some(*info),
        _ => None,
    };
    let Findings { header, note, needed, .. } = findings;
    Inspection { path: path.to_path_buf(), file, header, note, table, needed, verdict }
}

/// Reads as much as can be read.
fn examine(source: Source) -> Findings {
    let mut findings = Findings::default();
    findings.obstacle = examine_into(source, &mut findings).err();
    findings
}

fn examine_into(mut source: Source, findings: &mut Findings) -> Result<(), Obstacle> {
    let header = Image::read_header(&mut source)?;
    findings.header = Some(header);
    let mut image = Image::read(source, header)?;
    if let Some(descriptor) = image.note()? {
        match read_note(&descriptor, image.order()) {
            Some(note) => findings.note = Some(note),
            None => findings.short_note_bytes = Some(descriptor.len()),
        }
    }
    // The layout of the table of another class or byte order is not ours.
    if header.bits != 64 || header.big_endian {
        return Ok(());
    }
    if let Some(dynamic) = image.dynamic()? {
        findings.has_dynamic = true;
        findings.is_program = dynamic.is_program;
        findings.needed = image.needed(&dynamic);
        findings.table = table::read(&mut image, &dynamic);
    }
    Ok(())
}

fn read_note(descriptor: &[u8], order: Order) -> Option<NoteInfo> {
    use abi::NoteDescriptor as D;
    if descriptor.len() < size_of::<D>() {
        return None;
    }
    let text = |at: usize, len: usize| {
        let field = &descriptor[at..at + len];
        let end = field.iter().position(|byte| *byte == 0).unwrap_or(len);
        String::from_utf8_lossy(&field[..end]).into_owned()
    };
    Some(NoteInfo {
        abi_major: order.u16(descriptor, offset_of!(D, abi_major)),
        abi_minor: order.u16(descriptor, offset_of!(D, abi_minor)),
        needs_host_minor: order.u16(descriptor, offset_of!(D, needs_host_minor)),
        flags: order.u32(descriptor, offset_of!(D, flags)),
        exports_size_bytes: order.u32(descriptor, offset_of!(D, exports_size)),
        sdk: text(offset_of!(D, sdk), 32),
        compiler: text(offset_of!(D, compiler), 48),
    })
}
