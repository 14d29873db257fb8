//! A module with the right version numbers and with other structs than the host's.

use module_api::RUST_INFO;
use module_api::abi::{ABI_MAJOR, ABI_MINOR, FLAG_RUST, Header, HostSlot, MODULE_MAGIC, ModuleExports, NOTE_TYPE, Note, NoteDescriptor};

#[allow(non_upper_case_globals)]
static mut SLOT: HostSlot = HostSlot::EMPTY;

#[used]
#[unsafe(link_section = ".note.modhost")]
static NOTE: Note = Note {
    name_size: 8,
    descriptor_size: size_of::<NoteDescriptor>() as u32,
    note_type: NOTE_TYPE,
    name: *b"modhost\0",
    descriptor: NoteDescriptor {
        abi_major: ABI_MAJOR,
        abi_minor: ABI_MINOR,
        flags: FLAG_RUST,
        exports_size: size_of::<ModuleExports>() as u32,
        ..NoteDescriptor::EMPTY
    },
};

#[allow(non_upper_case_globals)]
#[unsafe(no_mangle)]
pub static module_exports: ModuleExports = ModuleExports {
    header: Header {
        magic: MODULE_MAGIC,
        abi_major: ABI_MAJOR,
        abi_minor: ABI_MINOR,
        size: size_of::<ModuleExports>() as u32,
        flags: FLAG_RUST,
        rust: (&raw const RUST_INFO).cast(),
        ..Header::EMPTY
    },
    host_slot: &raw mut SLOT,
    name: c"changed_layout".as_ptr(),
    version: c"1.0.0".as_ptr(),
    ..ModuleExports::EMPTY
};
