//! Parameters: the `params!` macro and the cells that the host writes configured values to.
//!
//! The host writes in main before `init_f`; the SDK reads once, right before the author's `init`. Nobody writes afterwards.

use std::cell::UnsafeCell;
use std::ffi::{c_char, c_void};
use std::ptr;
use std::time::Duration;

use crate::abi::{self, Param, Str};
use crate::{Error, Result};

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

/// A type that a parameter may have: `bool`, `i64`, `String` or [`Duration`].
pub trait ParamType: Sized + sealed::Sealed {
    #[doc(hidden)]
    const KIND: u32;
    /// What a default is written as.
    #[doc(hidden)]
    type Literal;
    #[doc(hidden)]
    fn read(name: &str, cell: &ParamCell) -> Result<Self>;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for bool {}
    impl Sealed for i64 {}
    impl Sealed for String {}
    impl Sealed for std::time::Duration {}
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
}

// SAFETY: written by the host in main before any function of the module runs, read-only afterwards.
unsafe impl Sync for ParamCell {}

impl ParamCell {
    /// Zero, false or no string, until the host writes.
    #[allow(clippy::new_without_default)]
    pub const fn new() -> ParamCell {
        ParamCell(UnsafeCell::new(Value { string: Str { ptr: ptr::null(), len: 0 } }))
    }

    /// The target for the table.
    pub const fn as_ptr(&self) -> *mut c_void {
        self.0.get().cast()
    }

    fn int(&self) -> i64 {
        // SAFETY: the cell is initialised, every bit pattern is an `i64`, and the host does not write any more.
        unsafe { (*self.0.get()).int }
    }
}

impl ParamType for bool {
    const KIND: u32 = abi::PARAM_BOOL;
    type Literal = bool;
    fn read(_: &str, cell: &ParamCell) -> Result<bool> {
        // SAFETY: as in `ParamCell::int`.
        Ok(unsafe { (*cell.0.get()).bool } != 0)
    }
}

impl ParamType for i64 {
    const KIND: u32 = abi::PARAM_INT;
    type Literal = i64;
    fn read(_: &str, cell: &ParamCell) -> Result<i64> {
        Ok(cell.int())
    }
}

impl ParamType for Duration {
    const KIND: u32 = abi::PARAM_DURATION;
    type Literal = &'static str;
    fn read(name: &str, cell: &ParamCell) -> Result<Duration> {
        let ns = cell.int();
        let ns = u64::try_from(ns).map_err(|_| Error::new(format_args!("parameter {name:?} is a negative duration: {ns} ns")))?;
        Ok(Duration::from_nanos(ns))
    }
}

impl ParamType for String {
    const KIND: u32 = abi::PARAM_STRING;
    type Literal = &'static str;
    fn read(name: &str, cell: &ParamCell) -> Result<String> {
        // SAFETY: the host writes a `Str` to the cells of this kind, and until then it is the null one of `ParamCell::new`.
        let Str { ptr, len } = unsafe { (*cell.0.get()).string };
        if ptr.is_null() {
            return Ok(String::new());
        }
        // SAFETY: the host's string is valid while the process lives and has this length.
        let bytes = unsafe { std::slice::from_raw_parts(ptr.cast::<u8>(), len) };
        let text = std::str::from_utf8(bytes).map_err(|_| Error::new(format_args!("parameter {name:?} is not UTF-8")))?;
        Ok(text.to_owned())
    }
}

/// One row of the table, from what the macro could parse. `name`, `default` and `help` end with a zero byte.
#[doc(hidden)]
pub const fn row(
    name: &'static str,
    kind: u32,
    default: &[&'static str],
    range: &[(i64, i64)],
    help: &'static str,
    cell: &'static ParamCell,
) -> Param {
    let mut flags = 0;
    let mut default_text = ptr::null();
    if let [text] = default {
        default_text = c_text(text, 0);
    } else {
        flags |= abi::PARAM_REQUIRED;
    }
    let (mut min, mut max) = (0, 0);
    if let [(low, high)] = range {
        assert!(kind == abi::PARAM_INT, "only an i64 parameter can have a range");
        assert!(*low <= *high, "the range of a parameter is empty");
        (min, max) = (*low, *high);
        flags |= abi::PARAM_RANGE;
    }
    // A doc comment's text starts with the blank after the slashes.
    let blanks = if !help.is_empty() && help.as_bytes()[0] == b' ' { 1 } else { 0 };
    let help = if help.len() > 1 { c_text(help, blanks) } else { ptr::null() };
    Param { name: c_text(name, 0), kind, flags, target: cell.as_ptr(), default_text, min, max, help }
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
/// A field is a `bool`, an `i64`, a `String` or a [`Duration`](std::time::Duration), and
/// * its doc comment is the text that `modhost inspect` shows,
/// * `= literal` is its default (for a duration, text as in the configuration); without a default the configuration must set it,
/// * `in min..=max` is the range of an `i64`; the host refuses other values, with the position in the file.
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
#[macro_export]
macro_rules! params {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident {
            $(
                $(#[doc = $help:literal])*
                $field_vis:vis $field:ident : $($kind:ident)::+ $(= $default:literal)? $(in $min:literal ..= $max:literal)?
            ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        $vis struct $name {
            $( $(#[doc = $help])* $field_vis $field: $($kind)::+, )*
        }

        const _: () = {
            #[allow(non_upper_case_globals)]
            mod cells {
                $( pub(super) static $field: $crate::params::ParamCell = $crate::params::ParamCell::new(); )*
            }
            // Each default is a literal of its parameter's type.
            $( const _: &[<$($kind)::+ as $crate::params::ParamType>::Literal] = &[$($default)?]; )*

            // SAFETY: each target is a cell of this table and large enough for every kind.
            unsafe impl $crate::params::ParamSet for $name {
                const TABLE: &'static [$crate::abi::Param] = &[$(
                    $crate::params::row(
                        ::core::concat!(::core::stringify!($field), "\0"),
                        <$($kind)::+ as $crate::params::ParamType>::KIND,
                        &[$(::core::concat!($default, "\0"))?],
                        &[$(($min, $max))?],
                        ::core::concat!($($help,)* "\0"),
                        &cells::$field,
                    )
                ),*];

                fn read() -> $crate::Result<Self> {
                    ::core::result::Result::Ok($name {
                        $( $field: <$($kind)::+ as $crate::params::ParamType>::read(::core::stringify!($field), &cells::$field)?, )*
                    })
                }
            }
            // Checked here and not only in a module that is exported.
            const _: &[$crate::abi::Param] = <$name as $crate::params::ParamSet>::TABLE;
        };
    };
}
