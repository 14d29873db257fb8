//! May this file be loaded, and if not, why, and what is to be done.
//!
//! *Runs in:* the supervisor and the commands `check` and `inspect`, over what was found; pure.
//! *Never:* looks at the file itself; says yes to what the loader would have to refuse if it can be seen from here.

use std::collections::HashSet;

use module_api::abi;
use object::elf;

use super::elf::{Header, Obstacle};
use super::inspection::{Findings, NoteInfo, Verdict};
use super::interface;
use super::table::{EXPORTS_BYTES_1_0, Table, TableHeader, TableInfo};
use crate::config::is_name;
use crate::error::Error;

const FLAGS_KNOWN: u32 = abi::FLAG_RUST | abi::FLAG_PANIC_ABORT | abi::FLAG_WANTS_POSTCHILDINIT | abi::FLAG_NO_CHILD_INIT;
const VERSION_MAX_BYTES: usize = 31;

/// What the host can load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Host {
    /// `EM_*`.
    pub machine: u16,
    /// `abi::ABI_MAJOR`.
    pub abi_major: u16,
    /// `abi::ABI_MINOR`.
    pub abi_minor: u16,
}

impl Host {
    /// The host that runs this.
    pub const THIS: Self = Self { machine: MACHINE, abi_major: abi::ABI_MAJOR, abi_minor: abi::ABI_MINOR };
}

#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = elf::EM_X86_64.0;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = elf::EM_AARCH64.0;

/// Judges. The first reason found is the one given: what comes after it may be its consequence.
pub fn judge(findings: &Findings, host: Host) -> Verdict {
    match check(findings, host) {
        Ok(()) => Verdict::Ok,
        Err(error) => Verdict::Refused(error),
    }
}

fn check(findings: &Findings, host: Host) -> Result<(), Error> {
    // Before any obstacle: nobody asks for the missing bytes of a file that would not do anyway.
    if let Some(header) = &findings.header {
        check_file(header, host)?;
    }
    if let Some(obstacle) = &findings.obstacle {
        return Err(explain(obstacle));
    }
    if findings.is_program {
        return Err(refused("it is a program, not a shared object").hint("link it with -shared, or as a cdylib"));
    }
    if let Some(bytes) = findings.short_note_bytes {
        let want = size_of::<abi::NoteDescriptor>();
        return Err(refused("its modhost note is too short").detail(format_args!("{bytes} bytes, expected {want}")).hint(REBUILD));
    }
    if let Some(note) = &findings.note {
        check_abi(note.into(), host)?;
    }
    match &findings.table {
        Table::Read(info) => {
            check_abi((&info.header).into(), host)?;
            check_flags(&info.header, host)?;
            check_table(info)
        }
        Table::Foreign(header) => check_foreign(header, host),
        Table::Broken { header, reason } => {
            if let Some(header) = header {
                check_abi(header.into(), host)?;
            }
            Err(refused("its exports table cannot be right").detail(reason).hint(REBUILD))
        }
        Table::Absent if !findings.has_dynamic => {
            Err(refused("it is not a shared object").detail("it has no dynamic section").hint("link it with -shared, or as a cdylib"))
        }
        Table::Absent if findings.note.is_some() => Err(refused("it has a modhost note, but no exports table")
            .detail(format_args!("the dynamic symbol \"{}\" is missing", abi::EXPORTS_SYMBOL))
            .hint("make the symbol visible: no version script or -fvisibility may hide it")),
        Table::Absent => Err(refused("it is not a modhost module")
            .detail(format_args!("it has neither a modhost note nor the dynamic symbol \"{}\"", abi::EXPORTS_SYMBOL))
            .hint("a Rust module declares itself with module-api, a C module with MODULE_EXPORTS of modhost.h")),
    }
}

const REBUILD: &str = "rebuild the module against the module-api or modhost.h of this host";

fn refused(what: impl Into<String>) -> Error {
    Error::config(what)
}

fn check_file(header: &Header, host: Host) -> Result<(), Error> {
    let want = machine_name(host.machine);
    if elf::Machine(header.machine) != elf::Machine(host.machine) || header.bits != 64 || header.big_endian {
        let order = if header.big_endian { " big-endian" } else { "" };
        return Err(refused("it is for another machine")
            .detail(format_args!("found {} {}-bit{order}, this host is {want} 64-bit", machine_name(header.machine), header.bits))
            .hint(format!("build the module for {want}")));
    }
    let found = match elf::FileType(header.file_type) {
        elf::ET_DYN => return Ok(()),
        elf::ET_REL => "an object file that is not linked yet",
        elf::ET_EXEC => "a program",
        elf::ET_CORE => "a core dump",
        _ => "an unknown kind of ELF file",
    };
    Err(refused("it is not a shared object").detail(format_args!("it is {found}")).hint("link it with -shared, or as a cdylib"))
}

fn explain(obstacle: &Obstacle) -> Error {
    match obstacle {
        Obstacle::Unreadable(reason) => refused("it cannot be read").detail(reason).hint("check its path and permissions"),
        Obstacle::NotAFile(kind) => refused(format!("it is {kind}")).detail("expected a file").hint(match *kind {
            "a directory" => "to load every module of a folder use --load-all DIR",
            _ => "give the path of a shared object",
        }),
        Obstacle::Empty => refused("it is empty").detail("0 bytes").hint("build or copy it again"),
        Obstacle::NotElf(found) => {
            refused("it is not an ELF file").detail(found).hint("give the path of a shared object, as in target/release/libNAME.so")
        }
        Obstacle::Truncated { have_bytes, need_bytes } => refused("it is truncated")
            .detail(format_args!("it has {have_bytes} bytes of at least {need_bytes}"))
            .hint("build or copy it again; replace a module by renaming, never by writing over it"),
        Obstacle::Malformed(reason) => refused("it is damaged").detail(reason).hint("build or copy it again"),
    }
}

/// The numbers that note and table have in common.
#[derive(Debug, Clone, Copy)]
struct Claim {
    abi_major: u16,
    abi_minor: u16,
    needs_host_minor: u16,
    flags: u32,
    size_bytes: u32,
}

impl From<&NoteInfo> for Claim {
    fn from(note: &NoteInfo) -> Self {
        let NoteInfo { abi_major, abi_minor, needs_host_minor, flags, exports_size_bytes: size_bytes, .. } = *note;
        Self { abi_major, abi_minor, needs_host_minor, flags, size_bytes }
    }
}

impl From<&TableHeader> for Claim {
    fn from(header: &TableHeader) -> Self {
        let TableHeader { abi_major, abi_minor, needs_host_minor, flags, size_bytes, .. } = *header;
        Self { abi_major, abi_minor, needs_host_minor, flags, size_bytes }
    }
}

fn check_abi(claim: Claim, host: Host) -> Result<(), Error> {
    let Claim { abi_major, abi_minor, needs_host_minor, .. } = claim;
    let have = format!("{}.{}", host.abi_major, host.abi_minor);
    if abi_major != host.abi_major {
        let hint = if abi_major > host.abi_major {
            format!("run it with a host of module ABI {abi_major}.x, or rebuild it against module-api {}.x", host.abi_major)
        } else {
            REBUILD.to_string()
        };
        return Err(refused("it was built for another module ABI")
            .detail(format_args!("the module has {abi_major}.{abi_minor}, this host has {have}"))
            .hint(hint));
    }
    if needs_host_minor > host.abi_minor {
        return Err(refused("it needs a newer host")
            .detail(format_args!("it needs module ABI {abi_major}.{needs_host_minor}, this host has {have}"))
            .hint(format!("upgrade modhost, or build the module without what {abi_major}.{needs_host_minor} added")));
    }
    if claim.flags & abi::FLAG_PANIC_ABORT != 0 {
        return Err(refused("it was built with panic = \"abort\"")
            .detail("a panic in it would end the process instead of failing one call")
            .hint("set panic = \"unwind\" in the profile it is built with"));
    }
    if claim.size_bytes < EXPORTS_BYTES_1_0 {
        return Err(refused("its exports table is too small")
            .detail(format_args!("{} bytes; that of module ABI 1.0 has {EXPORTS_BYTES_1_0}", claim.size_bytes))
            .hint(REBUILD));
    }
    Ok(())
}

fn check_foreign(header: &TableHeader, host: Host) -> Result<(), Error> {
    if header.magic != abi::MODULE_MAGIC {
        return Err(refused(format!("its symbol \"{}\" is not a modhost exports table", abi::EXPORTS_SYMBOL))
            .detail(format_args!("it begins with {:#018x}, expected {:#018x}", header.magic, abi::MODULE_MAGIC))
            .hint("is it a module of another program? a C module writes MODULE_EXPORTS of modhost.h"));
    }
    check_abi(header.into(), host)?;
    // What is left to make it foreign has been ruled out above.
    Err(refused("its exports table cannot be right").hint(REBUILD))
}

/// A newer minor may use bits that this host may ignore; in our own or an older one they are noise.
fn check_flags(header: &TableHeader, host: Host) -> Result<(), Error> {
    let unknown = header.flags & !FLAGS_KNOWN;
    if unknown != 0 && header.abi_minor <= host.abi_minor {
        return Err(refused("its exports table has unknown flags").detail(format_args!("{unknown:#x}")).hint(REBUILD));
    }
    Ok(())
}

fn check_table(info: &TableInfo) -> Result<(), Error> {
    let author = |what: &str, detail: String| Err(refused(what).detail(detail).hint("this is for the module's author to mend"));
    if !is_name(&info.name) {
        return author("its name is not one", format!("found {:?}, expected 1 to 31 of a-z, 0-9, _ and -", info.name));
    }
    if info.version.is_empty() || info.version.len() > VERSION_MAX_BYTES {
        return author("its version is not one", format!("found {:?}, expected 1 to {VERSION_MAX_BYTES} bytes", info.version));
    }
    let repeated = repeat(info.params.iter().map(|param| param.name.as_str())).map(|name| format!("two parameters are called \"{name}\""));
    if let Some(problem) = info.params.iter().find_map(|param| param.problem()).or(repeated) {
        return author("it declares a parameter that cannot be", problem);
    }
    let handler = info.handlers.iter().find_map(|handler| match () {
        () if !is_name(&handler.name) => Some(format!("a handler is called {:?}, expected 1 to 31 of a-z, 0-9, _ and -", handler.name)),
        () if !matches!(handler.kind, abi::HANDLER_UDP | abi::HANDLER_STREAM) => Some(format!(
            "the handler \"{}\" is of kind {}; known are {} and {}",
            handler.name,
            handler.kind,
            abi::HANDLER_UDP,
            abi::HANDLER_STREAM
        )),
        () => None,
    });
    let repeated =
        repeat(info.handlers.iter().map(|handler| handler.name.as_str())).map(|name| format!("two handlers are called \"{name}\""));
    if let Some(problem) = handler.or(repeated) {
        return author("it declares a handler that cannot be", problem);
    }
    let depend = info.depends.iter().find_map(|depend| match depend.kind {
        _ if !is_name(&depend.name) => Some(format!("the module needed is called {:?}", depend.name)),
        abi::DEPEND_REQUIRED | abi::DEPEND_OPTIONAL => None,
        kind => Some(format!("the dependency on \"{}\" is of kind {kind}; known are 1 and 2", depend.name)),
    });
    if let Some(problem) = depend {
        return author("it declares a dependency that cannot be", problem);
    }
    if let Some(problem) = interface::problem(&info.interfaces, &info.binds) {
        return author("it declares an interface that cannot be", problem);
    }
    match info.problems.as_slice() {
        [] => Ok(()),
        problems => author("its exports table cannot be used", problems.join(", ")),
    }
}

fn repeat<'n>(names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let mut seen = HashSet::new();
    names.into_iter().find(|name| !seen.insert(*name))
}

/// What people call a machine.
pub fn machine_name(machine: u16) -> String {
    let name = match elf::Machine(machine) {
        elf::EM_X86_64 => "x86-64",
        elf::EM_AARCH64 => "aarch64",
        elf::EM_386 => "x86",
        elf::EM_ARM => "arm",
        elf::EM_RISCV => "riscv",
        elf::EM_PPC64 => "ppc64",
        elf::EM_S390 => "s390",
        elf::EM_LOONGARCH => "loongarch",
        elf::EM_MIPS => "mips",
        _ => return format!("machine {machine}"),
    };
    name.to_string()
}
