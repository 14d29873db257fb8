//! The ELF note that lets the host judge a file before any of its code runs. Little-endian, aligned
//! to 4 bytes.

/// Owner name in the note that marks a file as a modhost module.
pub const NOTE_NAME: &str = "modhost";
/// Type of the note.
pub const NOTE_TYPE: u32 = 1;

c_struct! {
    /// Descriptor of the note.
    #[repr(C)]
    #[derive(Debug, Clone, Copy)]
    pub struct NoteDescriptor as modhost_note_descriptor {
        /// [`ABI_MAJOR`](super::ABI_MAJOR).
        pub abi_major: u16,
        /// [`ABI_MINOR`](super::ABI_MINOR).
        pub abi_minor: u16,
        /// As in [`Header`](super::Header).
        pub needs_host_minor: u16,
        /// Zero.
        pub reserved: u16,
        /// `FLAG_RUST`, `FLAG_PANIC_ABORT`.
        pub flags: u32,
        /// Size of the exports table in bytes.
        pub exports_size: u32,
        /// SDK and its version, padded with NUL: `module-api 1.0.0`, `modhost.h 1.0`.
        pub sdk: [u8; 32],
        /// Compiler and its version, padded with NUL: `rustc 1.95.0`, `gcc 12.2.0`.
        pub compiler: [u8; 48],
    }
}

c_struct! {
    /// The whole content of section `.note.modhost`.
    #[repr(C, align(4))]
    #[derive(Debug, Clone, Copy)]
    pub struct Note as modhost_note {
        /// Length in bytes of the name with its NUL: 8.
        pub name_size: u32,
        /// Length of the descriptor in bytes: 96.
        pub descriptor_size: u32,
        /// [`NOTE_TYPE`].
        pub note_type: u32,
        /// [`NOTE_NAME`] and a NUL.
        pub name: [u8; 8],
        /// What the note says.
        pub descriptor: NoteDescriptor,
    }
}
