//! A module with the right version numbers and with other structs than the host's.

use core::ptr;

use module_api::RUST_INFO;
use module_api::abi::{ABI_MAJOR, ABI_MINOR, FLAG_RUST, Header, HostSlot, MODULE_MAGIC, ModuleExports, NOTE_TYPE, Note, NoteDescriptor};

#[allow(non_upper_case_globals)]
static mut SLOT: HostSlot = HostSlot { api: ptr::null(), module: ptr::null_mut(), log_level: ptr::null(), stat_home: ptr::null() };

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
        needs_host_minor: 0,
        reserved: 0,
        flags: FLAG_RUST,
        exports_size: size_of::<ModuleExports>() as u32,
        sdk: [0; 32],
        compiler: [0; 48],
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
        needs_host_minor: 0,
        reserved: 0,
        rust: (&raw const RUST_INFO).cast(),
    },
    host_slot: &raw mut SLOT,
    name: c"changed_layout".as_ptr(),
    version: c"1.0.0".as_ptr(),
    summary: ptr::null(),
    params: ptr::null(),
    param_count: 0,
    param_stride: 0,
    handlers: ptr::null(),
    handler_count: 0,
    handler_stride: 0,
    depends: ptr::null(),
    depend_count: 0,
    depend_stride: 0,
    init_f: None,
    init_child_f: None,
    destroy_f: None,
    interfaces: ptr::null(),
    interface_count: 0,
    interface_stride: 0,
    binds: ptr::null(),
    bind_count: 0,
    bind_stride: 0,
};
