//! What was found in a module's file, before it is judged.
//!
//! *Runs in:* the supervisor and the commands `check` and `inspect`. *Never:* reads a file.
//!
//! *Pure:* no clock, no environment, no system call.

use super::table::{AbiClaim, BrokenTable, TableClaim};

/// The ELF note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteInfo {
    pub abi: AbiClaim,
    /// SDK and its version.
    pub sdk: String,
    /// Compiler and its version.
    pub compiler: String,
}

/// What was found in a file, before it is judged.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Findings {
    /// Why nothing more was read.
    pub obstacle: Option<Obstacle>,
    pub header: Option<ElfHeader>,
    /// It says it is a program.
    pub is_program: bool,
    /// It can be linked at run time at all.
    pub has_dynamic: bool,
    pub note: Option<NoteInfo>,
    /// Length of a note that is too short.
    pub short_note_bytes: Option<usize>,
    /// `None` without the symbol.
    pub table: Option<Result<Box<TableClaim>, BrokenTable>>,
    /// Libraries that are loaded with it.
    pub needed: Vec<String>,
}

/// Why nothing more can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// What the system said.
    Unreadable(String),
    /// What it is instead: a directory, a pipe ...
    NotAFile(&'static str),
    Empty,
    /// What its first bytes look like.
    NotElf(String),
    /// It ends before it should.
    Truncated {
        have_bytes: u64,
        /// At least.
        need_bytes: u64,
    },
    /// It contradicts itself.
    Malformed(String),
}

impl Obstacle {
    pub fn malformed(reason: impl Into<String>) -> Self {
        Self::Malformed(reason.into())
    }

    /// In words, to be put after a colon.
    pub fn reason(self) -> String {
        match self {
            Self::Malformed(reason) | Self::Unreadable(reason) | Self::NotElf(reason) => reason,
            Self::NotAFile(kind) => format!("it is {kind}"),
            Self::Empty => "it is empty".into(),
            Self::Truncated { have_bytes, need_bytes } => format!("it has {have_bytes} bytes of at least {need_bytes}"),
        }
    }
}

/// The first bytes of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ElfHeader {
    /// 32 or 64.
    pub bits: u8,
    pub big_endian: bool,
    /// `EM_*`.
    pub machine: u16,
    /// `ET_*`.
    pub file_type: u16,
}
