//! Parameters: how a module declares them, and the form in which it gets their values.

use core::ffi::{c_char, c_void};

#[cfg(feature = "layout")]
use abi_stable::StableAbi;

/// [`Param::kind`]: the target is a `u32`, 0 or 1.
pub const PARAM_BOOL: u32 = 1;
/// [`Param::kind`]: the target is an `i64`.
pub const PARAM_INT: u32 = 2;
/// [`Param::kind`]: the target is a [`Str`].
pub const PARAM_STRING: u32 = 3;
/// [`Param::kind`]: the target is an `i64` in nanoseconds.
pub const PARAM_DURATION: u32 = 4;
/// [`Param::kind`]: the target is an `i64` in bytes, never negative.
pub const PARAM_SIZE: u32 = 5;
/// [`Param::kind`]: the target is a [`Str`], an absolute path.
pub const PARAM_PATH: u32 = 6;
/// [`Param::kind`]: the target is a `u32`, the index of the word in [`Param::words`].
pub const PARAM_ENUM: u32 = 7;
/// [`Param::kind`]: the target is a [`List`] of values of the kind [`Param::of`].
pub const PARAM_LIST: u32 = 8;
/// [`Param::kind`]: the target is a [`Table`] of values of the kind [`Param::of`].
pub const PARAM_TABLE: u32 = 9;
/// [`Param::flags`]: the configuration must set it.
pub const PARAM_REQUIRED: u32 = 1;
/// [`Param::flags`]: `min` and `max` hold (inclusive, in the target's unit; for each item of a list
/// or table).
pub const PARAM_RANGE: u32 = 2;

c_struct! {
    /// A borrowed string: `len` bytes, followed by a NUL that `len` does not count.
    #[repr(C)]
    #[cfg_attr(feature = "layout", derive(StableAbi))]
    #[derive(Debug, Clone, Copy)]
    pub struct Str as modhost_str {
        /// First byte; never null once parameters are applied.
        pub ptr: *const c_char,
        /// Length in bytes.
        pub len: usize,
    }
}

c_struct! {
    /// The value of a list. Its items are valid while the process lives.
    #[repr(C)]
    #[derive(Debug, Clone, Copy)]
    pub struct List as modhost_list {
        /// Array of `len` targets of the kind [`Param::of`]; null if there are none.
        pub items: *const c_void,
        /// Number of items.
        pub len: usize,
    }
}

c_struct! {
    /// The value of a table, in the order of the file. Its keys and values are valid while the
    /// process lives.
    #[repr(C)]
    #[derive(Debug, Clone, Copy)]
    pub struct Table as modhost_table {
        /// Array of `len` targets of the kind [`Param::of`]; null if there are none.
        pub values: *const c_void,
        /// Number of values, and of keys.
        pub len: usize,
        /// The keys, each once; null if there are none.
        pub keys: *const Str,
    }
}

c_struct! {
    /// One parameter of a module. The host checks the configured value and writes it to `target`
    /// before `init_f`.
    #[repr(C)]
    #[cfg_attr(feature = "layout", derive(StableAbi))]
    #[derive(Debug)]
    pub struct Param as modhost_param {
        /// Key in `[module.params]`.
        pub name: *const c_char,
        /// `PARAM_BOOL` to `PARAM_TABLE`.
        pub kind: u32,
        /// `PARAM_REQUIRED`, `PARAM_RANGE`.
        pub flags: u32,
        /// Where the host writes the value.
        pub target: *mut c_void,
        /// The default as it would be written after `--set` (`"10"`, `"1s"`, `"text"`); null: the
        /// target keeps its value.
        pub default_text: *const c_char,
        /// Smallest allowed value with `PARAM_RANGE`, in the target's unit.
        pub min: i64,
        /// Largest allowed value with `PARAM_RANGE`, in the target's unit.
        pub max: i64,
        /// One sentence for `modhost inspect`; may be null.
        pub help: *const c_char,
        /// The words of a `PARAM_ENUM`, or of a list or table of them, separated by `|`:
        /// `"first|random"`. Null otherwise.
        pub words: *const c_char,
        /// Kind of each item of a `PARAM_LIST` and of each value of a `PARAM_TABLE`: `PARAM_BOOL`
        /// to `PARAM_ENUM`. 0 otherwise.
        pub of: u32,
        /// Zero.
        pub reserved: u32,
    }
}
