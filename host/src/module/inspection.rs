//! One file, seen from outside: what it says of itself, and whether it may be loaded.
//!
//! *Runs in:* the supervisor and the commands `check` and `inspect`.
//! *Never:* runs one instruction of the file.

use std::mem::{offset_of, size_of};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use module_api::abi;

use super::byte_order::ByteOrder;
use super::elf::{Dynamic, Image};
use super::findings::{ElfHeader, Findings, NoteInfo, Obstacle};
use super::judge::{self, HostAbi};
use super::relocation::RelocatedFile;
use super::source::FileSource;
use super::table::{self, AbiClaim, BrokenTable, TableClaim};
use crate::error::Error;

/// Everything that was found out about one file.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// As it was given.
    pub path: PathBuf,
    /// `None` if it could not be opened.
    pub file: Option<FileInfo>,
    /// `None` if it is not an ELF file.
    pub header: Option<ElfHeader>,
    pub note: Option<NoteInfo>,
    /// The exports table, if it could be read whole.
    pub table: Option<TableClaim>,
    /// Libraries that are loaded with it.
    pub needed: Vec<String>,
    /// May it be loaded, as far as can be seen from outside; if not: what was found, what was
    /// expected, what to do.
    pub verdict: Result<(), Error>,
}

/// What the system says of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileInfo {
    pub size_bytes: u64,
    /// With `inode`, tells whether two paths lead to one file.
    pub device: u64,
    pub inode: u64,
}

impl Inspection {
    /// The reason for a refusal, with the file's path put before it.
    pub fn refusal(&self) -> Option<Error> {
        let error = self.verdict.as_ref().err()?;
        Some(Error { what: format!("module \"{}\" cannot be loaded: {}", self.path.display(), error.what), ..error.clone() })
    }

    /// Whether it is meant to be a module, good or not.
    pub fn is_module(&self) -> bool {
        self.note.is_some() || self.table.is_some()
    }

    /// The same for all paths of one file.
    pub fn identity(&self) -> Option<(u64, u64)> {
        self.file.map(|file| (file.device, file.inode))
    }
}

/// Inspects a file.
pub fn inspect(path: &Path) -> Inspection {
    let (file, findings) = match FileSource::open(path) {
        Ok((source, metadata)) => {
            let file = FileInfo { size_bytes: metadata.len(), device: metadata.dev(), inode: metadata.ino() };
            (Some(file), examine(source))
        }
        Err(obstacle) => (None, Findings { obstacle: Some(obstacle), ..Findings::default() }),
    };
    let verdict = judge::judge(&findings, HostAbi::THIS);
    let Findings { header, note, table, needed, .. } = findings;
    let table = table.and_then(Result::ok).map(|claim| *claim);
    Inspection { path: path.to_path_buf(), file, header, note, table, needed, verdict }
}

/// Reads as much as can be read.
fn examine(source: FileSource) -> Findings {
    let mut findings = Findings::default();
    findings.obstacle = examine_into(source, &mut findings).err();
    findings
}

fn examine_into(mut source: FileSource, findings: &mut Findings) -> Result<(), Obstacle> {
    let header = Image::read_header(&mut source)?;
    findings.header = Some(header);
    let mut image = Image::read(source, header)?;
    if let Some(descriptor) = image.note()? {
        match read_note(&descriptor, image.order()) {
            Some(note) => findings.note = Some(note),
            None => findings.short_note_bytes = Some(descriptor.len()),
        }
    }
    // A table of another class or byte order has another layout.
    if header.bits != 64 || header.big_endian {
        return Ok(());
    }
    if let Some(dynamic) = image.dynamic()? {
        findings.has_dynamic = true;
        findings.is_program = dynamic.is_program;
        findings.needed = image.needed(&dynamic);
        findings.table = read_table(&mut image, &dynamic).transpose();
    }
    Ok(())
}

fn read_table(image: &mut Image, dynamic: &Dynamic) -> Result<Option<Box<TableClaim>>, BrokenTable> {
    let broken = |reason| BrokenTable { header: None, reason };
    let symbol = match image.find_symbol(dynamic, abi::EXPORTS_SYMBOL).map_err(|obstacle| broken(obstacle.reason()))? {
        Some(symbol) if symbol.defined => symbol,
        _ => return Ok(None),
    };
    if symbol.kind == object::elf::STT_FUNC.0 {
        return Err(broken(format!("{} is a function, not a table", abi::EXPORTS_SYMBOL)));
    }
    table::read(&mut RelocatedFile::new(image, dynamic), symbol.address, symbol.size_bytes).map(Some)
}

fn read_note(descriptor: &[u8], order: ByteOrder) -> Option<NoteInfo> {
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
        abi: AbiClaim {
            abi_major: order.u16(descriptor, offset_of!(D, abi_major)),
            abi_minor: order.u16(descriptor, offset_of!(D, abi_minor)),
            needs_host_minor: order.u16(descriptor, offset_of!(D, needs_host_minor)),
            flags: order.u32(descriptor, offset_of!(D, flags)),
            table_bytes: order.u32(descriptor, offset_of!(D, exports_size)),
        },
        sdk: text(offset_of!(D, sdk), 32),
        compiler: text(offset_of!(D, compiler), 48),
    })
}
