//! May this module be loaded, and if not, why, and what is to be done. The same rules hold for what
//! its file says and for what its table says once it is loaded.
//!
//! *Runs in:* the supervisor and the commands `check` and `inspect` over files, main over what it
//! loaded. *Never:* reads the file itself; accepts what the loader would have to refuse, if it can
//! be seen in the file.
//!
//! *Pure:* no clock, no environment, no system call.

use std::collections::HashSet;

use module_api::abi;
use object::elf;

use super::findings::Findings;
use super::findings::{ElfHeader, Obstacle};
use super::interface;
use super::table::{AbiClaim, BrokenTable, EXPORTS_BYTES_1_0, HandlerClaim, Pointer, TableClaim, TableHeader};
use crate::config::is_name;
use crate::error::Error;

const FLAGS_KNOWN: u32 = abi::FLAG_RUST | abi::FLAG_PANIC_ABORT | abi::FLAG_WANTS_POSTCHILDINIT | abi::FLAG_NO_CHILD_INIT;
const VERSION_MAX_BYTES: usize = 31;

/// What a host can load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostAbi {
    /// `EM_*`.
    pub machine: u16,
    pub abi_major: u16,
    pub abi_minor: u16,
}

impl HostAbi {
    /// This program.
    pub const THIS: Self = Self { machine: MACHINE, abi_major: abi::ABI_MAJOR, abi_minor: abi::ABI_MINOR };
}

#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = elf::EM_X86_64.0;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = elf::EM_AARCH64.0;

/// Judges a file. The first reason found is the one reported: what comes after it may be its
/// consequence.
pub fn judge(findings: &Findings, host: HostAbi) -> Result<(), Error> {
    // Before any obstacle: that bytes are missing does not matter in a file that would not do
    // anyway.
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
        check_abi(note.abi, host)?;
    }
    match &findings.table {
        Some(Ok(claim)) => judge_claim(claim, host),
        Some(Err(broken)) => Err(explain_table(broken, host)),
        None if !findings.has_dynamic => {
            Err(refused("it is not a shared object").detail("it has no dynamic section").hint("link it with -shared, or as a cdylib"))
        }
        None if findings.note.is_some() => Err(refused("it has a modhost note, but no exports table")
            .detail(format_args!("the dynamic symbol \"{}\" is missing", abi::EXPORTS_SYMBOL))
            .hint("make the symbol visible: no version script or -fvisibility may hide it")),
        None => Err(refused("it is not a modhost module")
            .detail(format_args!("it has neither a modhost note nor the dynamic symbol \"{}\"", abi::EXPORTS_SYMBOL))
            .hint("a Rust module declares itself with module-api, a C module with MODULE_EXPORTS of modhost.h")),
    }
}

const REBUILD: &str = "rebuild the module against the module-api or modhost.h of this host";

fn refused(what: impl Into<String>) -> Error {
    Error::config(what)
}

fn check_file(header: &ElfHeader, host: HostAbi) -> Result<(), Error> {
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

/// The error for a table that could not be read, or is not ours.
pub fn explain_table(table: &BrokenTable, host: HostAbi) -> Error {
    let of_header = table.header.as_ref().and_then(|header| judge_header(header, host).err());
    of_header.unwrap_or_else(|| refused("its exports table cannot be right").detail(&table.reason).hint(REBUILD))
}

/// Judges the first fields of a table, before anything else of it is read.
pub fn judge_header(header: &TableHeader, host: HostAbi) -> Result<(), Error> {
    if header.magic != abi::MODULE_MAGIC {
        return Err(refused(format!("its symbol \"{}\" is not a modhost exports table", abi::EXPORTS_SYMBOL))
            .detail(format_args!("it begins with {:#018x}, expected {:#018x}", header.magic, abi::MODULE_MAGIC))
            .hint("is it a module of another program? a C module writes MODULE_EXPORTS of modhost.h"));
    }
    check_abi(header.abi, host)
}

fn check_abi(claim: AbiClaim, host: HostAbi) -> Result<(), Error> {
    let AbiClaim { abi_major, abi_minor, needs_host_minor, flags, table_bytes } = claim;
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
    if flags & abi::FLAG_PANIC_ABORT != 0 {
        return Err(refused("it was built with panic = \"abort\"")
            .detail("a panic in it would end the process instead of failing one call")
            .hint("set panic = \"unwind\" in the profile it is built with"));
    }
    if table_bytes < EXPORTS_BYTES_1_0 {
        return Err(refused("its exports table is too small")
            .detail(format_args!("{table_bytes} bytes; that of module ABI 1.0 has {EXPORTS_BYTES_1_0}"))
            .hint(REBUILD));
    }
    Ok(())
}

/// Judges what a table says.
pub fn judge_claim(claim: &TableClaim, host: HostAbi) -> Result<(), Error> {
    check_abi(claim.abi, host)?;
    // A newer minor may use bits that this host may ignore; in its own or an older one they are
    // noise.
    let unknown = claim.abi.flags & !FLAGS_KNOWN;
    if unknown != 0 && claim.abi.abi_minor <= host.abi_minor {
        return Err(refused("its exports table has unknown flags").detail(format_args!("{unknown:#x}")).hint(REBUILD));
    }
    let author = |what: &str, detail: String| Err(refused(what).detail(detail).hint("this is for the module's author to mend"));
    if !is_name(&claim.name) {
        return author("its name is not one", format!("found {:?}, expected 1 to 31 of a-z, 0-9, _ and -", claim.name));
    }
    if claim.version.is_empty() || claim.version.len() > VERSION_MAX_BYTES {
        return author("its version is not one", format!("found {:?}, expected 1 to {VERSION_MAX_BYTES} bytes", claim.version));
    }
    let problems = [
        ("it declares a parameter that cannot be", param_problem(claim)),
        ("it declares a handler that cannot be", handler_problem(claim)),
        ("it declares a dependency that cannot be", depend_problem(claim)),
        ("it declares an interface that cannot be", interface::problem(&claim.interfaces, &claim.imports)),
        ("its exports table cannot be used", pointer_problems(claim)),
    ];
    match problems.into_iter().find_map(|(what, problem)| Some((what, problem?))) {
        Some((what, problem)) => author(what, problem),
        None => Ok(()),
    }
}

fn param_problem(claim: &TableClaim) -> Option<String> {
    let repeated = || repeat(claim.params.iter().map(|param| &param.name)).map(|name| format!("two parameters are called \"{name}\""));
    claim.params.iter().find_map(|param| param.problem()).or_else(repeated)
}

fn handler_problem(claim: &TableClaim) -> Option<String> {
    let problem = |handler: &HandlerClaim| {
        let HandlerClaim { name, kind, .. } = handler;
        match *kind {
            _ if !is_name(name) => Some(format!("a handler is called {name:?}, expected 1 to 31 of a-z, 0-9, _ and -")),
            abi::HANDLER_UDP | abi::HANDLER_STREAM => None,
            kind => Some(format!("the handler \"{name}\" is of kind {kind}; known are {} and {}", abi::HANDLER_UDP, abi::HANDLER_STREAM)),
        }
    };
    let repeated = || repeat(claim.handlers.iter().map(|handler| &handler.name)).map(|name| format!("two handlers are called \"{name}\""));
    claim.handlers.iter().find_map(problem).or_else(repeated)
}

fn depend_problem(claim: &TableClaim) -> Option<String> {
    claim.depends.iter().find_map(|depend| match depend.kind {
        _ if !is_name(&depend.name) => Some(format!("the module needed is called {:?}", depend.name)),
        abi::DEPEND_REQUIRED | abi::DEPEND_OPTIONAL => None,
        kind => Some(format!("the dependency on \"{}\" is of kind {kind}; known are 1 and 2", depend.name)),
    })
}

/// What the loader would trip over.
fn pointer_problems(claim: &TableClaim) -> Option<String> {
    let pointers = &claim.pointers;
    let mut problems: Vec<String> = unwritable(pointers.host_slot, format_args!("host_slot")).into_iter().collect();
    for (param, target) in claim.params.iter().zip(&pointers.param_targets) {
        problems.extend(unwritable(*target, format_args!("the target of parameter \"{}\"", param.name)));
    }
    for (HandlerClaim { name, .. }, handler) in claim.handlers.iter().zip(&pointers.handlers) {
        if !handler.entry.is_set() {
            problems.push(format!("the handler \"{name}\" has no function"));
        } else if !handler.required.is_set() {
            problems.push(format!("the stream handler \"{name}\" has no function for data"));
        }
    }
    for (shape, table) in claim.interfaces.iter().zip(&pointers.interface_tables) {
        if !table.is_set() || !table.is_aligned() {
            problems.push(format!("the interface \"{}\" has no table", shape.name));
        }
    }
    for (import, slot) in claim.imports.iter().zip(&pointers.import_slots) {
        let what = format_args!("the slot of interface \"{}\"", import.shape.name);
        problems.extend(unwritable(*slot, what));
        problems.extend((!slot.is_aligned()).then(|| format!("{what} is not aligned")));
    }
    (!problems.is_empty()).then(|| problems.join(", "))
}

fn unwritable(pointer: Pointer, what: std::fmt::Arguments<'_>) -> Option<String> {
    match pointer {
        Pointer::Null => Some(format!("{what} is null")),
        Pointer::ReadOnly => Some(format!("{what} is not in writable memory")),
        _ => None,
    }
}

fn repeat<'n>(mut names: impl Iterator<Item = &'n String>) -> Option<&'n String> {
    let mut seen = HashSet::new();
    names.find(|name| !seen.insert(*name))
}

/// The usual name of a machine (`EM_*`).
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
