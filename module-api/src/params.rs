//! Parameters: the `params!` macro and the cells that the host writes configured values to.
//!
//! The host writes in main before `init_f`; the SDK reads once, right before the author's `init`. Nobody writes afterwards.

use std::cell::UnsafeCell;
use std::collections::BTreeMap;
use std::ffi::{OsStr, c_char, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::ptr;
use std::time::Duration;

use crate::abi::{self, List, Param, Str, Table};
use crate::{Error, Result, bound};

/// The parameters of a module: a struct made by [`params!`](crate::params!), or `()` for none.
///
/// # Safety
/// The targets in `TABLE` must be valid for the host to write values of their kind to. Implemented by the macro only.
pub unsafe trait ParamSet: Sized + 'static {
    /// What the exports table points to.
    #[doc(hidden)]
    const TABLE: &'static [Param];
    /// What the host has written.
    #[doc(hidden)]
    fn read() -> Result<Self>;
}

// SAFETY: no targets.
unsafe impl ParamSet for () {
    const TABLE: &'static [Param] = &[];
    fn read() -> Result<()> {
        Ok(())
    }
}

/// A type that a parameter may have: `bool`, `i64`, `String`, [`Duration`], [`Size`], [`PathBuf`], an enum made by
/// [`param_enum!`](crate::param_enum!), a `Vec` or a `BTreeMap<String, _>` of these, or an `Option` of one of these.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no type of a parameter",
    note = "these are: bool, i64, String, Duration, Size, PathBuf, an enum of `param_enum!`, Vec or BTreeMap<String, _> of these, Option of one"
)]
pub trait ParamType: Sized + sealed::Sealed {
    #[doc(hidden)]
    const SHAPE: Shape;
    /// What a default is written as.
    #[doc(hidden)]
    type Literal;
    #[doc(hidden)]
    fn read(name: &str, cell: &ParamCell) -> Result<Self>;
}

/// A type that one value of a list or table may have.
#[doc(hidden)]
#[diagnostic::on_unimplemented(message = "`{Self}` is no type of a parameter's value")]
pub trait ParamScalar: Sized + sealed::Sealed {
    const KIND: u32;
    const WORDS: &'static str = "";
    /// What no value that the host writes begins with.
    const UNSET: i64 = i64::MIN;
    type Literal;
    /// What the host writes.
    type Raw: Copy;
    /// The raw value's place in a cell.
    fn raw(cell: &ParamCell) -> Self::Raw;
    fn from_raw(name: &str, raw: Self::Raw) -> Result<Self>;
}

/// What the table says of a type.
#[doc(hidden)]
#[derive(Clone, Copy)]
pub struct Shape {
    kind: u32,
    of: u32,
    /// Ends with a zero byte, or is empty.
    words: &'static str,
    optional: Option<i64>,
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

/// A number of bytes, in the configuration a number or a text such as `"64KiB"`. Never more than `i64::MAX`.
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

    /// In bytes, as the length of something in memory.
    pub const fn len(self) -> usize {
        self.0 as usize // 64-bit machines only; the ABI says so
    }

    /// Whether it is zero.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// An enum that [`param_enum!`](crate::param_enum!) made.
pub trait ParamEnum: Copy + 'static {
    /// The words, `|` between two and a zero byte at the end.
    #[doc(hidden)]
    const WORDS: &'static str;
    /// The variants in the order of their words.
    #[doc(hidden)]
    const ALL: &'static [Self];
}

/// Room for one value as the host writes it.
#[doc(hidden)]
#[repr(transparent)]
pub struct ParamCell(UnsafeCell<Value>);

#[repr(C)]
union Value {
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
    /// Zero, false or no string, until the host writes; for an `Option` what stands for `None`.
    pub const fn new(shape: Shape) -> ParamCell {
        let first = match shape.optional {
            Some(unset) => unset,
            None => 0,
        };
        ParamCell(UnsafeCell::new(Value { nothing: [first, 0, 0] }))
    }

    /// The target for the table.
    pub const fn as_ptr(&self) -> *mut c_void {
        self.0.get().cast()
    }

    fn bool(&self) -> u32 {
        // SAFETY: the cell is initialised, every bit pattern is a `u32`, and the host does not write any more.
        unsafe { (*self.0.get()).bool }
    }

    fn int(&self) -> i64 {
        // SAFETY: as above, for an `i64`.
        unsafe { (*self.0.get()).int }
    }

    fn string(&self) -> Str {
        // SAFETY: the host writes a `Str` to the cells of the kinds that read one, and until then it is a null one.
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

/// The types of one value: kind, what it is in Rust and at the line, what an `Option` of it starts as.
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
/// `first` leads to `len` values of that type which nobody changes, or `len` is 0.
unsafe fn items<T: ParamScalar>(name: &str, first: *const c_void, len: usize) -> Result<Vec<T>> {
    // SAFETY: by the caller's word.
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
    /// Without a default it is `None`; there is no other.
    type Literal = std::convert::Infallible;
    fn read(name: &str, cell: &ParamCell) -> Result<Option<T>> {
        // What the host writes differs from it in the first four bytes or, for the kinds of eight, in the first eight.
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
        // SAFETY: the host writes lists of the kind that the table says, for good; until then the list is empty.
        unsafe { items(name, list.items, list.len) }
    }
}

impl<T: ParamScalar> ParamType for BTreeMap<String, T> {
    const SHAPE: Shape = Shape { kind: abi::PARAM_TABLE, of: T::KIND, words: T::WORDS, optional: None };
    type Literal = &'static str;
    fn read(name: &str, cell: &ParamCell) -> Result<BTreeMap<String, T>> {
        let table = cell.table();
        // SAFETY: the host writes tables of the kind that the table says, for good; until then it is empty.
        let values = unsafe { items::<T>(name, table.values, table.len) }?;
        // SAFETY: as above; there are as many keys as values.
        let keys = unsafe { items::<String>(name, table.keys.cast(), table.len) }?;
        Ok(keys.into_iter().zip(values).collect())
    }
}

/// One row of the table, from what the macro could parse. `name`, `default` and `help` end with a zero byte.
#[doc(hidden)]
pub const fn row(
    name: &'static str,
    shape: Shape,
    default: &[&'static str],
    range: &[(&str, &str)],
    help: &'static str,
    cell: &'static ParamCell,
) -> Param {
    let Shape { kind, of, words, optional } = shape;
    let mut flags = 0;
    let mut default_text = ptr::null();
    if let [text] = default {
        default_text = c_text(text, 0);
    } else if optional.is_none() {
        flags |= abi::PARAM_REQUIRED;
    }
    let (mut min, mut max) = (0, 0);
    if let [(low, high)] = range {
        let scalar = if of == 0 { kind } else { of };
        (min, max) = (bound::parse(scalar, low), bound::parse(scalar, high));
        assert!(min <= max, "the range of a parameter is empty");
        flags |= abi::PARAM_RANGE;
    } else if optional.is_some() && kind == abi::PARAM_INT {
        // The smallest number stands for none.
        (min, max) = (i64::MIN + 1, i64::MAX);
        flags |= abi::PARAM_RANGE;
    }
    // A doc comment's text starts with the blank after the slashes.
    let blanks = if !help.is_empty() && help.as_bytes()[0] == b' ' { 1 } else { 0 };
    let help = if help.len() > 1 { c_text(help, blanks) } else { ptr::null() };
    let words = if words.is_empty() { ptr::null() } else { c_text(words, 0) };
    Param { name: c_text(name, 0), kind, flags, target: cell.as_ptr(), default_text, min, max, help, words, of, reserved: 0 }
}

/// `text` must end with its only zero byte.
const fn c_text(text: &'static str, skip: usize) -> *const c_char {
    let bytes = text.as_bytes().split_at(skip).1;
    let mut at = 0;
    while at < bytes.len() {
        assert!((bytes[at] == 0) == (at + 1 == bytes.len()), "a zero byte inside of a text of a parameter");
        at += 1;
    }
    bytes.as_ptr().cast()
}

/// Declares the parameters of a module: what may stand in its `[module.params]`.
///
/// A field is one of
///
/// | type | in the configuration |
/// | --- | --- |
/// | `bool` | `true` |
/// | `i64` | `5060` |
/// | `String` | `"text"` |
/// | [`Duration`](std::time::Duration) | `"1m30s"` |
/// | [`Size`](crate::Size) | `"64KiB"`, or a number of bytes |
/// | [`PathBuf`](std::path::PathBuf) | `"routes.db"`; relative to the folder of the configuration file, and absolute when `init` gets it |
/// | an enum made by [`param_enum!`](crate::param_enum!) | one of its words, in quotes |
/// | `Vec` of these | `["a", "b"]` |
/// | `BTreeMap<String, _>` of these | a table, `[module.params.NAME]` with keys that the operator chooses |
/// | `Option` of one of the first seven | as above, or nothing |
///
/// and
/// * its doc comment is the text that `modhost inspect` shows,
/// * `= literal` is its default (for a `bool` and an `i64` a literal of that type, for all others text as behind `--set`: `"1s"`, `"a, b"`,
///   `"key = value, other = value"`); without a default the configuration must set it,
/// * `in min..=max` is the range of an `i64`, a duration or a size (`in "1ms"..="1h"`), and of each of a list or table of these; the host
///   refuses other values, with the position in the file.
///
/// The host checks and stores the values before [`Module::init`](crate::Module::init), which gets the struct.
///
/// ```
/// module_api::params! {
///     /// What the configuration can change.
///     #[derive(Debug)]
///     pub struct Params {
///         /// Text put before each answer.
///         pub prefix: String = "",
///         /// Time between two ticks.
///         pub period: module_api::Duration = "1s",
///         /// Number of answers per datagram.
///         pub answers: i64 = 3 in 1..=100,
///         /// Whether to answer at all.
///         pub enabled: bool = true,
///         /// Name of the peer; the configuration must set it.
///         pub peer: String,
///         /// Longest answer.
///         pub longest: module_api::Size = "8KiB" in "1KiB"..="64KiB",
///         /// Where the answers are; the host's own if there is none.
///         pub answers_from: Option<std::path::PathBuf>,
///         /// Who may ask.
///         pub peers: Vec<String> = "localhost, \"::1\"",
///         /// How long each of them may take.
///         pub limits: std::collections::BTreeMap<String, module_api::Duration> = "localhost = 1s",
///     }
/// }
/// ```
///
/// A default of another type does not compile:
/// ```compile_fail,E0308
/// module_api::params! { struct Params { answers: i64 = "3" } }
/// ```
/// Nor does another type:
/// ```compile_fail,E0277
/// module_api::params! { struct Params { ratio: f64 = 0.5 } }
/// ```
/// Nor a range for something that is not a number:
/// ```compile_fail,E0080
/// module_api::params! { struct Params { name: String = "x" in 1..=2 } }
/// ```
/// Nor a range of another unit, or one that is empty:
/// ```compile_fail,E0080
/// module_api::params! { struct Params { pause: module_api::Duration = "1s" in "1KiB"..="1MiB" } }
/// ```
/// ```compile_fail,E0080
/// module_api::params! { struct Params { pause: module_api::Duration = "1s" in "1s"..="999ms" } }
/// ```
/// Nor a default for what may be missing:
/// ```compile_fail,E0308
/// module_api::params! { struct Params { name: Option<String> = "x" } }
/// ```
/// Nor lists of lists:
/// ```compile_fail,E0277
/// module_api::params! { struct Params { names: Vec<Vec<String>> = "x" } }
/// ```
#[macro_export]
macro_rules! params {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident {
            $(
                $(#[doc = $help:literal])*
                $field_vis:vis $field:ident : $($kind:ident)::+ $(< $($of:ty),+ >)? $(= $default:literal)? $(in $min:literal ..= $max:literal)?
            ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        $vis struct $name {
            $( $(#[doc = $help])* $field_vis $field: $($kind)::+ $(< $($of),+ >)?, )*
        }

        const _: () = {
            // The host writes to them through pointers only.
            struct Cells {
                $( $field: $crate::params::ParamCell, )*
            }
            static CELLS: Cells = Cells {
                $( $field: $crate::params::ParamCell::new(
                    <$($kind)::+ $(< $($of),+ >)? as $crate::params::ParamType>::SHAPE,
                ), )*
            };
            // Each default is a literal of its parameter's type.
            $( const _: &[<$($kind)::+ $(< $($of),+ >)? as $crate::params::ParamType>::Literal] = &[$($default)?]; )*

            // SAFETY: each target is a cell of this table and large enough for every kind.
            unsafe impl $crate::params::ParamSet for $name {
                const TABLE: &'static [$crate::abi::Param] = &[$(
                    $crate::params::row(
                        ::core::concat!(::core::stringify!($field), "\0"),
                        <$($kind)::+ $(< $($of),+ >)? as $crate::params::ParamType>::SHAPE,
                        &[$(::core::concat!($default, "\0"))?],
                        &[$((::core::concat!($min), ::core::concat!($max)))?],
                        ::core::concat!($($help,)* "\0"),
                        &CELLS.$field,
                    )
                ),*];

                fn read() -> $crate::Result<Self> {
                    ::core::result::Result::Ok($name {
                        $( $field: <$($kind)::+ $(< $($of),+ >)? as $crate::params::ParamType>::read(
                            ::core::stringify!($field),
                            &CELLS.$field,
                        )?, )*
                    })
                }
            }
            // Checked here and not only in a module that is exported.
            const _: &[$crate::abi::Param] = <$name as $crate::params::ParamSet>::TABLE;
        };
    };
}

/// Declares an enum that a parameter may be: the configuration says one of its words, and the host refuses others and proposes the nearest.
///
/// ```
/// module_api::param_enum! {
///     /// Which peer gets the next request.
///     pub enum Choice {
///         /// In turn.
///         RoundRobin = "round-robin",
///         /// Any.
///         Random = "random",
///     }
/// }
/// module_api::params! {
///     struct Params {
///         /// Which peer gets the next request.
///         choice: Choice = "random",
///     }
/// }
/// assert_eq!(Choice::RoundRobin.word(), "round-robin");
/// ```
///
/// It is `Copy`, and can be compared and printed. A word has no blank, comma, quote, `=` or `|`; the host refuses a module with such a one.
#[macro_export]
macro_rules! param_enum {
    (
        $(#[$meta:meta])*
        $vis:vis enum $name:ident {
            $( $(#[$variant_meta:meta])* $variant:ident = $word:literal ),+ $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        $vis enum $name {
            $( $(#[$variant_meta])* $variant, )+
        }

        impl $name {
            /// The word that stands for it in the configuration.
            #[allow(dead_code)]
            $vis const fn word(self) -> &'static str {
                match self {
                    $( $name::$variant => $word, )+
                }
            }
        }

        impl $crate::ParamEnum for $name {
            const WORDS: &'static str = ::core::concat!($( "|", $word, )+ "\0").split_at(1).1;
            const ALL: &'static [Self] = &[$( $name::$variant, )+];
        }
    };
}
