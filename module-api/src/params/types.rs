//! The types that a parameter may have, and how each is read from what the host has written.

use std::cell::UnsafeCell;
use std::collections::BTreeMap;
use std::ffi::{OsStr, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use super::ParamEnum;
use crate::abi::{self, List, Str, Table};
use crate::{Error, Result};

/// A type that a parameter may have: `bool`, `i64`, `String`, [`Duration`], [`Size`], [`PathBuf`],
/// an enum made by [`param_enum!`](crate::param_enum!), a `Vec` or a `BTreeMap<String, _>` of
/// these, or an `Option` of one of these.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a type for a parameter",
    note = "these are: bool, i64, String, Duration, Size, PathBuf, an enum of `param_enum!`, Vec or BTreeMap<String, _> of these, Option of one"
)]
pub trait ParamType: Sized + sealed::Sealed {
    #[doc(hidden)]
    const SHAPE: Shape;
    /// Type of a default in `params!`.
    #[doc(hidden)]
    type Literal;
    #[doc(hidden)]
    fn read(name: &str, cell: &ParamCell) -> Result<Self>;
}

/// A type that one value of a list or table may have.
#[doc(hidden)]
#[diagnostic::on_unimplemented(message = "`{Self}` is not a type for a parameter's value")]
pub trait ParamScalar: Sized + sealed::Sealed {
    const KIND: u32;
    const WORDS: &'static str = "";
    /// First bytes of an `Option` that the host has not written to; no value that it writes begins
    /// with them.
    const UNSET: i64 = i64::MIN;
    type Literal;
    /// Type of the target.
    type Raw: Copy;
    /// Reads the target.
    fn raw(cell: &ParamCell) -> Self::Raw;
    fn from_raw(name: &str, raw: Self::Raw) -> Result<Self>;
}

/// A type's part of a row of the table.
#[doc(hidden)]
#[derive(Clone, Copy)]
pub struct Shape {
    pub(super) kind: u32,
    pub(super) of: u32,
    /// Ends with a zero byte, or is empty.
    pub(super) words: &'static str,
    /// Of an `Option`: the first bytes of its target while the host has not written to it.
    pub(super) optional: Option<i64>,
}

mod sealed {
    use std::collections::BTreeMap;

    pub trait Sealed {}
    impl Sealed for bool {}
    impl Sealed for i64 {}
    impl Sealed for String {}
    impl Sealed for std::time::Duration {}
    impl Sealed for std::path::PathBuf {}
    impl Sealed for super::Size {}
    impl<T: super::ParamEnum> Sealed for T {}
    impl<T: super::ParamScalar> Sealed for Vec<T> {}
    impl<T: super::ParamScalar> Sealed for BTreeMap<String, T> {}
    impl<T: super::ParamScalar> Sealed for Option<T> {}
}

/// A number of bytes; in the configuration a number or a text such as `"64KiB"`. At most
/// `i64::MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Size(u64);

impl Size {
    /// The size of this many bytes.
    pub const fn new(bytes: u64) -> Size {
        Size(bytes)
    }

    /// In bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// In bytes, as a length in memory.
    pub const fn len(self) -> usize {
        self.0 as usize // 64-bit machines only; the ABI says so
    }

    /// Whether it is zero.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// The target of one parameter.
#[doc(hidden)]
#[repr(transparent)]
pub struct ParamCell(UnsafeCell<RawParam>);

#[repr(C)]
union RawParam {
    bool: u32,
    int: i64,
    string: Str,
    list: List,
    table: Table,
    nothing: [i64; 3],
}

// SAFETY: written by the host in main before any function of the module runs, read-only afterwards.
unsafe impl Sync for ParamCell {}

impl ParamCell {
    /// Zero, false or no string until the host writes; for an `Option` the value that means `None`.
    pub const fn new(shape: Shape) -> ParamCell {
        let first = match shape.optional {
            Some(unset) => unset,
            None => 0,
        };
        ParamCell(UnsafeCell::new(RawParam { nothing: [first, 0, 0] }))
    }

    /// The target for the table.
    pub const fn as_ptr(&self) -> *mut c_void {
        self.0.get().cast()
    }

    fn bool(&self) -> u32 {
        // SAFETY: the cell is initialised, every bit pattern is a `u32`, and the host no longer
        // writes.
        unsafe { (*self.0.get()).bool }
    }

    fn int(&self) -> i64 {
        // SAFETY: as above, for an `i64`.
        unsafe { (*self.0.get()).int }
    }

    fn string(&self) -> Str {
        // SAFETY: the host writes a `Str` to the cells of the kinds that read one; until then the
        // pointer is null.
        unsafe { (*self.0.get()).string }
    }

    fn list(&self) -> List {
        // SAFETY: as above, for a `List`.
        unsafe { (*self.0.get()).list }
    }

    fn table(&self) -> Table {
        // SAFETY: as above, for a `Table`.
        unsafe { (*self.0.get()).table }
    }
}

/// The types of one value: kind, literal, type of the target, its reader, what an unset `Option`
/// starts with.
macro_rules! scalars {
    ($($type:ty, $kind:ident, $literal:ty, $raw:ty, $place:ident, $unset:expr, |$name:ident, $value:ident| $from:expr;)*) => {$(
        impl ParamScalar for $type {
            const KIND: u32 = abi::$kind;
            const UNSET: i64 = $unset;
            type Literal = $literal;
            type Raw = $raw;
            fn raw(cell: &ParamCell) -> $raw {
                cell.$place()
            }
            fn from_raw($name: &str, $value: $raw) -> Result<Self> {
                $from
            }
        }
    )*};
}
scalars! {
    bool, PARAM_BOOL, bool, u32, bool, -1, |_name, value| Ok(value != 0);
    i64, PARAM_INT, i64, i64, int, i64::MIN, |_name, value| Ok(value);
    Duration, PARAM_DURATION, &'static str, i64, int, -1, |name, value| not_negative(name, value).map(Duration::from_nanos);
    Size, PARAM_SIZE, &'static str, i64, int, -1, |name, value| not_negative(name, value).map(Size);
    String, PARAM_STRING, &'static str, Str, string, 0, |name, value| text(name, value);
    PathBuf, PARAM_PATH, &'static str, Str, string, 0, |_name, value| Ok(PathBuf::from(OsStr::from_bytes(bytes(value))));
}

impl<T: ParamEnum> ParamScalar for T {
    const KIND: u32 = abi::PARAM_ENUM;
    const WORDS: &'static str = T::WORDS;
    const UNSET: i64 = -1;
    type Literal = &'static str;
    type Raw = u32;
    fn raw(cell: &ParamCell) -> u32 {
        cell.bool()
    }
    fn from_raw(name: &str, value: u32) -> Result<T> {
        let variant = usize::try_from(value).ok().and_then(|index| T::ALL.get(index));
        variant.copied().ok_or_else(|| Error::new(format_args!("parameter {name:?} is number {value} of {} words", T::ALL.len())))
    }
}

fn not_negative(name: &str, value: i64) -> Result<u64> {
    u64::try_from(value).map_err(|_| Error::new(format_args!("parameter {name:?} is negative: {value}")))
}

fn bytes(text: Str) -> &'static [u8] {
    if text.ptr.is_null() {
        return &[];
    }
    // SAFETY: the host's string is valid while the process lives and has this length.
    unsafe { std::slice::from_raw_parts(text.ptr.cast::<u8>(), text.len) }
}

fn text(name: &str, text: Str) -> Result<String> {
    let text = std::str::from_utf8(bytes(text)).map_err(|_| Error::new(format_args!("parameter {name:?} is not UTF-8")))?;
    Ok(text.to_owned())
}

/// # Safety
/// `first` points to `len` values of that type that nobody changes, or `len` is 0.
unsafe fn items<T: ParamScalar>(name: &str, first: *const c_void, len: usize) -> Result<Vec<T>> {
    // SAFETY: the caller's contract.
    (0..len).map(|index| T::from_raw(name, unsafe { first.cast::<T::Raw>().add(index).read() })).collect()
}

impl<T: ParamScalar> ParamType for T {
    const SHAPE: Shape = Shape { kind: T::KIND, of: 0, words: T::WORDS, optional: None };
    type Literal = T::Literal;
    fn read(name: &str, cell: &ParamCell) -> Result<T> {
        T::from_raw(name, T::raw(cell))
    }
}

impl<T: ParamScalar> ParamType for Option<T> {
    const SHAPE: Shape = Shape { kind: T::KIND, of: 0, words: T::WORDS, optional: Some(T::UNSET) };
    /// There is no literal: the default is `None`.
    type Literal = std::convert::Infallible;
    fn read(name: &str, cell: &ParamCell) -> Result<Option<T>> {
        // A value from the host differs from it in the first four bytes, or in the first eight if
        // its type is that long.
        let unset = match size_of::<T::Raw>() {
            4 => cell.bool() == T::UNSET as u32,
            _ => cell.int() == T::UNSET,
        };
        if unset { Ok(None) } else { T::from_raw(name, T::raw(cell)).map(Some) }
    }
}

impl<T: ParamScalar> ParamType for Vec<T> {
    const SHAPE: Shape = Shape { kind: abi::PARAM_LIST, of: T::KIND, words: T::WORDS, optional: None };
    type Literal = &'static str;
    fn read(name: &str, cell: &ParamCell) -> Result<Vec<T>> {
        let list = cell.list();
        // SAFETY: the host writes a list of the kind in the table, valid for good; until then the
        // list is empty.
        unsafe { items(name, list.items, list.len) }
    }
}

impl<T: ParamScalar> ParamType for BTreeMap<String, T> {
    const SHAPE: Shape = Shape { kind: abi::PARAM_TABLE, of: T::KIND, words: T::WORDS, optional: None };
    type Literal = &'static str;
    fn read(name: &str, cell: &ParamCell) -> Result<BTreeMap<String, T>> {
        let table = cell.table();
        // SAFETY: the host writes a table of the kind in the row, valid for good; until then it is
        // empty.
        let values = unsafe { items::<T>(name, table.values, table.len) }?;
        // SAFETY: as above; there are as many keys as values.
        let keys = unsafe { items::<String>(name, table.keys.cast(), table.len) }?;
        Ok(keys.into_iter().zip(values).collect())
    }
}
