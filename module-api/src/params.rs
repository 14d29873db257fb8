//! Parameters: the macros `params!` and `param_enum!`, and the table that they make.
//!
//! The host writes the values in main before `init_f`; the SDK reads them once, right before the
//! author's `init`. Nobody writes afterwards.

mod types;

use std::ffi::c_char;
use std::ptr;

use crate::abi::{self, Param};
use crate::{Result, bound};

pub use types::{ParamCell, ParamScalar, ParamType, Shape, Size};

/// The parameters of a module: a struct made by [`params!`](crate::params!), or `()` for none.
///
/// # Safety
/// The targets in `TABLE` must be valid for the host to write values of their kind to. Implemented
/// by the macro only.
pub unsafe trait ParamSet: Sized + 'static {
    /// The rows for the exports table.
    #[doc(hidden)]
    const TABLE: &'static [Param];
    /// Reads the values that the host has written.
    #[doc(hidden)]
    fn read() -> Result<Self>;
}

// SAFETY: there are no targets.
unsafe impl ParamSet for () {
    const TABLE: &'static [Param] = &[];
    fn read() -> Result<()> {
        Ok(())
    }
}

/// An enum that [`param_enum!`](crate::param_enum!) made.
pub trait ParamEnum: Copy + 'static {
    /// The words, separated by `|`, with a zero byte at the end.
    #[doc(hidden)]
    const WORDS: &'static str;
    /// The variants in the order of their words.
    #[doc(hidden)]
    const ALL: &'static [Self];
}

/// One row of the table, from the parts that the macro has parsed. `name`, `default` and `help` end
/// with a zero byte.
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
        // The smallest number means `None`.
        (min, max) = (i64::MIN + 1, i64::MAX);
        flags |= abi::PARAM_RANGE;
    }
    // A doc comment's text starts with the blank after the slashes.
    let blanks = if !help.is_empty() && help.as_bytes()[0] == b' ' { 1 } else { 0 };
    let help = if help.len() > 1 { c_text(help, blanks) } else { ptr::null() };
    let words = if words.is_empty() { ptr::null() } else { c_text(words, 0) };
    Param { name: c_text(name, 0), kind, flags, target: cell.as_ptr(), default_text, min, max, help, words, of, ..Param::EMPTY }
}

/// `text` must end with its only zero byte.
const fn c_text(text: &'static str, skip: usize) -> *const c_char {
    let bytes = text.as_bytes().split_at(skip).1;
    let mut at = 0;
    while at < bytes.len() {
        assert!((bytes[at] == 0) == (at + 1 == bytes.len()), "a zero byte inside a text of a parameter");
        at += 1;
    }
    bytes.as_ptr().cast()
}

/// Declares the parameters of a module: the keys of its `[module.params]`.
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
/// * `= literal` is its default (for a `bool` and an `i64` a literal of that type, for all others
///   text as after `--set`: `"1s"`, `"a, b"`, `"key = value, other = value"`); without a default
///   the configuration must set it,
/// * `in min..=max` is the range of an `i64`, a duration or a size (`in "1ms"..="1h"`), or of each
///   item of a list or table of these; the host refuses other values, with the position in the
///   file.
///
/// The host checks and stores the values before [`Module::init`](crate::Module::init), which gets
/// the struct.
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
///         /// File with the answers; if there is none, the built-in ones.
///         pub answers_from: Option<std::path::PathBuf>,
///         /// Peers that may ask.
///         pub peers: Vec<String> = "localhost, \"::1\"",
///         /// Time limit of each peer.
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
/// Nor a range in another unit, or an empty one:
/// ```compile_fail,E0080
/// module_api::params! { struct Params { pause: module_api::Duration = "1s" in "1KiB"..="1MiB" } }
/// ```
/// ```compile_fail,E0080
/// module_api::params! { struct Params { pause: module_api::Duration = "1s" in "1s"..="999ms" } }
/// ```
/// Nor a default for an `Option`:
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
            struct ParamCells {
                $( $field: $crate::params::ParamCell, )*
            }
            static CELLS: ParamCells = ParamCells {
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
            // Checked here, so that it is not left to the crate that exports a module.
            const _: &[$crate::abi::Param] = <$name as $crate::params::ParamSet>::TABLE;
        };
    };
}

/// Declares an enum for a parameter: the configuration has one of its words. The host refuses other
/// words and proposes the nearest one.
///
/// ```
/// module_api::param_enum! {
///     /// The peer that gets the next request.
///     pub enum Choice {
///         /// In turn.
///         RoundRobin = "round-robin",
///         /// Any.
///         Random = "random",
///     }
/// }
/// module_api::params! {
///     struct Params {
///         /// The peer that gets the next request.
///         choice: Choice = "random",
///     }
/// }
/// assert_eq!(Choice::RoundRobin.word(), "round-robin");
/// ```
///
/// It is `Copy`, and can be compared and printed. A word has no blank, comma, quote, `=` or `|`;
/// the host refuses a module with such a word.
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
            /// Its word in the configuration.
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
