//! Interfaces: tables of functions that one module offers to others, as safe calls on both sides.
//!
//! [`interface!`](crate::interface!) declares one, in a crate that both sides use: this crate for
//! interfaces of general use (see [`interfaces`](crate::interfaces)), or a third party's small
//! crate. The exporter implements the declared trait and names the interface in `exports` of
//! [`export_module!`](crate::export_module!). The importer names it in `binds` or
//! `binds_if_present` and gets it in `init`.
//!
//! ```standalone_crate
//! # use module_api::prelude::*;
//! module_api::interface! {
//!     /// Adds things up.
//!     pub interface Sums "example.sums" 1.0, exported by ExportSums {
//!         /// The sum so far, with `value` added under that name.
//!         fn add(name: &str, value: u64) -> u64;
//!         /// Forgets a name.
//!         fn forget(name: &str);
//!     }
//! }
//!
//! struct Counts { sums: Sums }
//! impl Module for Counts {
//!     type Params = ();
//!     type Child = ();
//!     fn init(cx: &mut ModInit<'_, Self>, _: ()) -> Result<Self> {
//!         let sums: Sums = cx.interface()?;
//!         sums.add("started", 1)?;
//!         Ok(Counts { sums })
//!     }
//!     fn child_init(&self, _: &mut ChildInit<'_>) -> Result<()> {
//!         self.sums.add("processes", 1).map(drop)
//!     }
//! }
//! module_api::export_module! { Counts, name: "counts", binds: [Sums] }
//! # fn main() {}
//! ```
//!
//! Every call goes from one library into another: the exporter's guard turns an error or a panic
//! into a code, and the importer's side turns the code into an [`Error`]. After a panic the process
//! is not used any more, whatever the importer does with the error. While the exporter works, a
//! crash is blamed on it. A call costs a few nanoseconds.

mod values;

use std::cell::UnsafeCell;
use std::ffi::{CStr, c_char, c_void};
use std::marker::PhantomData;
use std::ptr;

use crate::export::ModuleCell;
use crate::guard::guard;
use crate::host::host;
use crate::phase::NotSend;
use crate::{Error, Module, Result, abi};

pub use values::{Arg, Bytes, Callback, RawCallback, ReturnValue, Subject};

/// A declared interface. Implemented by [`interface!`](crate::interface!) only.
///
/// # Safety
/// The table is `repr(C)` and holds optional `extern "C"` functions only, in the order of the
/// layout.
pub unsafe trait Interface: Copy + 'static {
    /// The table of functions, as both sides and C know it.
    type Table: 'static;
    /// Such as `http.routes`.
    const NAME: &'static str;
    /// A different major number is a different interface.
    const MAJOR: u16;
    /// Grows with each addition.
    const MINOR: u16;
    #[doc(hidden)]
    fn slot() -> &'static TableSlot<Self::Table>;
    #[doc(hidden)]
    fn of(imported: Imported<Self::Table>) -> Self;
}

/// Where the host writes the address of the exporter's table. One per interface and module: every
/// module links its own copy.
#[doc(hidden)]
#[repr(transparent)]
pub struct TableSlot<T: 'static>(UnsafeCell<*const T>);

// SAFETY: written by the host only, before any code of the module runs.
unsafe impl<T> Sync for TableSlot<T> {}

impl<T> TableSlot<T> {
    #[allow(clippy::new_without_default)]
    pub const fn new() -> TableSlot<T> {
        TableSlot(UnsafeCell::new(ptr::null()))
    }

    pub const fn as_ptr(&self) -> *mut *const c_void {
        self.0.get().cast()
    }

    fn get(&self) -> Option<Imported<T>> {
        // SAFETY: the host writes before any code of the module runs. It writes null, or the
        // address of a table that lives as long as the process and has at least the fields of `T`,
        // which the host has checked.
        let table = unsafe { (*self.0.get()).as_ref() }?;
        Some(Imported { table, thread: PhantomData })
    }
}

/// A table of another module.
#[doc(hidden)]
pub struct Imported<T: 'static> {
    pub table: &'static T,
    thread: PhantomData<NotSend>,
}

impl<T> Clone for Imported<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Imported<T> {}

/// The interface, if the module imports it and another module exports it.
pub(crate) fn find<I: Interface>() -> Option<I> {
    I::slot().get().map(I::of)
}

pub(crate) fn required<I: Interface>() -> Result<I> {
    find().ok_or_else(|| {
        Error::new(format_args!(
            "the interface \"{}\" {}.{} is not there: it must be in binds of export_module!",
            I::NAME,
            I::MAJOR,
            I::MINOR
        ))
    })
}

/// The module that a library exports. Implemented by [`export_module!`](crate::export_module!)
/// only.
///
/// # Safety
/// The cell belongs to the library's own module.
#[doc(hidden)]
pub unsafe trait Home: 'static {
    type Module: Module;
    fn cell() -> &'static ModuleCell<Self::Module>;
}

/// Runs the body of an exported function.
#[doc(hidden)]
pub fn serve<H: Home>(body: impl FnOnce(&H::Module) -> Result<()>) -> i32 {
    blamed(|| H::cell().with_made(body))
}

/// Runs a call that another module makes: under the guard, and with this module to blame.
pub(crate) fn blamed(body: impl FnOnce() -> Result<()>) -> i32 {
    let host = host();
    let outer = (host.api.interface_enter)(host.module);
    let code = guard(body);
    (host.api.interface_leave)(host.module, outer, code);
    code
}

/// The result of a call of another module's function, with the text that goes with a failure.
#[doc(hidden)]
#[inline]
pub fn outcome(interface: &str, function: &str, code: i32) -> Result<()> {
    if code >= 0 { Ok(()) } else { Err(failure(interface, function, code)) }
}

#[cold]
fn failure(interface: &str, function: &str, code: i32) -> Error {
    let mut buffer = [0; 1024];
    let host = host();
    let len = (host.api.error_text)(host.module, buffer.as_mut_ptr(), buffer.len()).min(buffer.len());
    match len {
        0 => Error::from_code(&format!("{interface} {function}"), code),
        len => Error::new(format_args!("{interface} {function}: {}", String::from_utf8_lossy(&buffer[..len]))),
    }
}

#[doc(hidden)]
#[cold]
pub fn no_function(interface: &str, function: &str) -> Error {
    Error::new(format_args!("{interface} {function}: the module that exports it left it out"))
}

/// Writes what a function returns to the caller's memory.
///
/// # Safety
/// `out` is null or points to memory for the value.
#[doc(hidden)]
pub unsafe fn give<V: ReturnValue>(out: *mut V::Raw, value: V) -> Result<()> {
    if out.is_null() || !out.is_aligned() {
        return Err("another module left no room for the result".into());
    }
    // SAFETY: the caller's contract.
    unsafe { out.write(value.lower()) };
    Ok(())
}

/// Largest size in bytes of a layout's text, its NUL included.
#[doc(hidden)]
pub const LAYOUT_BYTES: usize = 4096;

/// The text of a layout, padded with NUL. Stops the build if it is too long.
#[doc(hidden)]
pub const fn layout(pieces: &[&str]) -> [u8; LAYOUT_BYTES] {
    let mut bytes = [0; LAYOUT_BYTES];
    let (mut at, mut piece) = (0, 0);
    while piece < pieces.len() {
        let text = pieces[piece].as_bytes();
        // The comma after the last argument.
        if text.len() == 1 && text[0] == b')' && at > 0 && bytes[at - 1] == b',' {
            at -= 1;
        }
        let mut next = 0;
        while next < text.len() {
            assert!(at + 1 < LAYOUT_BYTES, "the interface has too many functions");
            bytes[at] = text[next];
            at += 1;
            next += 1;
        }
        piece += 1;
    }
    bytes
}

/// Stops the build for a name that the host would refuse.
#[doc(hidden)]
pub const fn checked_interface(name: &str) -> &str {
    assert!(!name.is_empty() && name.len() <= 63, "an interface's name must have 1 to 63 bytes");
    let (mut at, mut part) = (0, 0);
    while at < name.len() {
        let byte = name.as_bytes()[at];
        part = if byte == b'.' { 0 } else { part + 1 };
        let allowed = matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.');
        assert!(allowed, "an interface's name may only contain a-z, 0-9, _, - and dots");
        let ends_with_dot = byte == b'.' && (at == 0 || at + 1 == name.len() || name.as_bytes()[at - 1] == b'.');
        assert!(!ends_with_dot && part <= 31, "an interface's name has parts of 1 to 31 bytes with dots between them");
        at += 1;
    }
    name
}

/// An element of the `binds` array.
#[doc(hidden)]
pub const fn bind<T>(name: *const c_char, version: (u16, u16), kind: u32, slot: &'static TableSlot<T>, layout: &'static CStr) -> abi::Bind {
    let (major, minor) = version;
    abi::Bind { name, major, minor, size: size_of::<T>() as u32, kind, slot: slot.as_ptr(), layout: layout.as_ptr(), ..abi::Bind::EMPTY }
}

/// The layout's text without its padding.
#[doc(hidden)]
pub const fn layout_text(bytes: &'static [u8; LAYOUT_BYTES]) -> &'static CStr {
    match CStr::from_bytes_until_nul(bytes) {
        Ok(text) => text,
        Err(_) => panic!("a layout without an end"),
    }
}

/// Declares an interface between modules; see [`interface`](mod@crate::interface).
///
/// Makes a type with one method per function, for importers, and the trait that an exporter
/// implements for its module. The arguments of each function are [`Arg`]s; it returns nothing or a
/// [`ReturnValue`], and it can fail. A later minor version adds functions at the end; any other
/// change is another major version. There is room for about 100 functions.
#[macro_export]
macro_rules! interface {
    (
        $(#[$meta:meta])*
        $vis:vis interface $name:ident $text:literal $version:literal, exported by $export:ident { $($body:tt)* }
    ) => {
        $crate::__interface! {
            [$(#[$meta])*] $vis $name $text
            ($crate::interface::version(stringify!($version)).0, $crate::interface::version(stringify!($version)).1)
            $export $($body)*
        }
    };
}

/// The two numbers of `1.0`.
#[doc(hidden)]
pub const fn version(text: &str) -> (u16, u16) {
    let bytes = text.as_bytes();
    let (mut numbers, mut which, mut at) = ([0_u16; 2], 0, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'.' if which == 0 && at > 0 && at + 1 < bytes.len() => which = 1,
            digit @ b'0'..=b'9' => numbers[which] = numbers[which] * 10 + (digit - b'0') as u16,
            _ => panic!("the version of an interface is two numbers with a dot between them: 1.0"),
        }
        at += 1;
    }
    assert!(which == 1, "the version of an interface is two numbers with a dot between them: 1.0");
    (numbers[0], numbers[1])
}

#[doc(hidden)]
#[macro_export]
macro_rules! __interface {
    (
        [$($meta:tt)*] $vis:vis $name:ident $text:literal ($major:expr, $minor:expr) $export:ident
        $( $(#[$fn_meta:meta])* fn $function:ident($($arg:ident: $type:ty),* $(,)?) $(-> $ret:ty)?; )+
    ) => {
        $($meta)*
        #[derive(Clone, Copy)]
        $vis struct $name($crate::interface::Imported<<$name as $crate::interface::Interface>::Table>);

        #[doc = concat!("Implemented by a module that exports `", $text, "`.")]
        ///
        /// Called in every process, main included, once the exporter's `init` has returned.
        $vis trait $export: $crate::Module {
            $(
                $(#[$fn_meta])*
                ///
                /// # Errors
                /// The exporter's own.
                fn $function(&self, $($arg: $type),*) -> $crate::Result<$crate::__ret!($($ret)?)>;
            )+
        }

        const _: () = {
            #[allow(unused_imports)] // a table may have no argument or no result
            use $crate::interface::{Arg, Home, Imported, Interface, LAYOUT_BYTES, ReturnValue, TableSlot};

            #[repr(C)]
            pub struct FunctionTable {
                $( $function: ::core::option::Option<extern "C" fn($(<$type as Arg>::Raw,)* $(*mut <$ret as ReturnValue>::Raw)?) -> i32>, )+
            }

            static SLOT: TableSlot<FunctionTable> = TableSlot::new();
            static LAYOUT: [u8; LAYOUT_BYTES] = $crate::interface::layout(&[$(
                stringify!($function), "(", $(<$type as Arg>::NAME, ",",)* ")", $("->", <$ret as ReturnValue>::NAME,)? "\n",
            )+]);

            // SAFETY: the table above, and the layout of the same functions.
            unsafe impl Interface for $name {
                type Table = FunctionTable;
                const NAME: &'static str = $crate::interface::checked_interface($text);
                const MAJOR: u16 = $major;
                const MINOR: u16 = $minor;
                fn slot() -> &'static TableSlot<FunctionTable> {
                    &SLOT
                }
                fn of(imported: Imported<FunctionTable>) -> $name {
                    $name(imported)
                }
            }

            impl $name {
                $(
                    $(#[$fn_meta])*
                    ///
                    /// # Errors
                    /// The exporter's own; a panic in it is one.
                    #[allow(clippy::too_many_arguments)]
                    pub fn $function(&self, $($arg: $type),*) -> $crate::Result<$crate::__ret!($($ret)?)> {
                        let ::core::option::Option::Some(function) = self.0.table.$function else {
                            return ::core::result::Result::Err($crate::interface::no_function($text, stringify!($function)));
                        };
                        $( let mut out = <$ret as ReturnValue>::Raw::default(); )?
                        let code = function($(<$type as Arg>::lower($arg),)* $(&raw mut out as *mut <$ret as ReturnValue>::Raw)?);
                        $crate::interface::outcome($text, stringify!($function), code)?;
                        ::core::result::Result::Ok($crate::__value!($(<$ret as ReturnValue>::lift(out))?))
                    }
                )+

                #[doc(hidden)]
                pub const fn exported<H: Home>() -> $crate::abi::Interface
                where
                    H::Module: $export,
                {
                    $crate::abi::Interface {
                        name: $crate::__c_text!($text),
                        major: $major,
                        minor: $minor,
                        size: ::core::mem::size_of::<FunctionTable>() as u32,
                        table: const {
                            $(
                                extern "C" fn $function<H: Home>(
                                    $($arg: <$type as Arg>::Raw,)* $(out: *mut <$ret as ReturnValue>::Raw)?
                                ) -> i32
                                where
                                    H::Module: $export,
                                {
                                    $crate::interface::serve::<H>(|module| {
                                        // SAFETY: the arguments came from another module, which
                                        // keeps them valid for the call.
                                        let value = <H::Module as $export>::$function(module, $(unsafe { <$type as Arg>::lift($arg)? }),*)?;
                                        // SAFETY: as above: memory for the result, or null.
                                        $( unsafe { $crate::interface::give::<$ret>(out, value)? }; )?
                                        $crate::__ignore!(value $($ret)?);
                                        ::core::result::Result::Ok(())
                                    })
                                }
                            )+
                            let table: *const FunctionTable =
                                &FunctionTable { $( $function: ::core::option::Option::Some($function::<H>), )+ };
                            table as *const ::core::ffi::c_void
                        },
                        layout: $crate::interface::layout_text(&LAYOUT).as_ptr(),
                    }
                }

                #[doc(hidden)]
                pub const fn bind(kind: u32) -> $crate::abi::Bind {
                    let layout = $crate::interface::layout_text(&LAYOUT);
                    $crate::interface::bind::<FunctionTable>($crate::__c_text!($text), ($major, $minor), kind, &SLOT, layout)
                }
            }
        };
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __ret {
    () => {
        ()
    };
    ($ret:ty) => {
        $ret
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __value {
    () => {
        ()
    };
    ($value:expr) => {
        $value
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __ignore {
    ($value:ident) => {
        let () = $value;
    };
    ($value:ident $ret:ty) => {};
}
