//! Interfaces: tables of functions that one module offers to others, as safe calls on both sides.
//!
//! [`interface!`](crate::interface!) declares one, in a crate that both sides use: this one, for what is of general use (see
//! [`interfaces`](crate::interfaces)), or a small one of a third party. The exporter implements the trait of the declaration and names it in
//! `exports` of [`export_module!`](crate::export_module!); the user names it in `binds` or `binds_if_present` and gets it in `init`.
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
//! Every call crosses two libraries: the exporter's guard turns an error or a panic into a code, and the user's side makes an [`Error`] of it.
//! After a panic the process that it happened in is not used any more, whatever the user makes of the error. While the exporter works it is
//! the one to blame for a crash. A call costs a few nanoseconds.

use std::cell::UnsafeCell;
use std::ffi::{CStr, c_char, c_void};
use std::marker::PhantomData;
use std::ptr;

use crate::export::ModuleCell;
use crate::guard::guard;
use crate::host::host;
use crate::{Error, Module, Result, abi};

/// Makes what contains it neither `Send` nor `Sync`: a module is called in the one thread that the host calls modules in.
type NotSend = PhantomData<*const ()>;

/// A declared interface. Implemented by [`interface!`](crate::interface!) only.
///
/// # Safety
/// The table is `repr(C)` and holds optional `extern "C"` functions only, in the order of the layout.
pub unsafe trait Interface: Copy + 'static {
    /// The table of functions, as both sides and C know it.
    type Table: 'static;
    /// `http.routes`.
    const NAME: &'static str;
    /// Another major number is another interface.
    const MAJOR: u16;
    /// Grows with each addition.
    const MINOR: u16;
    /// Where the host puts the table.
    #[doc(hidden)]
    fn slot() -> &'static Slot<Self::Table>;
    #[doc(hidden)]
    fn of(bound: Bound<Self::Table>) -> Self;
}

/// Where the host puts the exporter's table. One per interface and module: every module links its own copy.
#[doc(hidden)]
#[repr(transparent)]
pub struct Slot<T: 'static>(UnsafeCell<*const T>);

// SAFETY: written by the host only, before any code of the module runs.
unsafe impl<T> Sync for Slot<T> {}

impl<T> Slot<T> {
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Slot<T> {
        Slot(UnsafeCell::new(ptr::null()))
    }

    pub const fn as_ptr(&self) -> *mut *const c_void {
        self.0.get().cast()
    }

    fn get(&self) -> Option<Bound<T>> {
        // SAFETY: the host writes before any code of the module runs, and puts there null or a table that lives as long as the process and
        // starts with all that `T` has, which it has checked.
        let table = unsafe { (*self.0.get()).as_ref() }?;
        Some(Bound { table, thread: PhantomData })
    }
}

/// A table of another module.
#[doc(hidden)]
pub struct Bound<T: 'static> {
    pub table: &'static T,
    thread: NotSend,
}

impl<T> Clone for Bound<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Bound<T> {}

/// The interface, if the module binds it and it is there.
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

/// The module that a library exports. Implemented by [`export_module!`](crate::export_module!) only.
///
/// # Safety
/// The cell is that of the library's own module.
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

/// A call that another module makes: behind the guard, and with this module to blame.
pub(crate) fn blamed(body: impl FnOnce() -> Result<()>) -> i32 {
    let host = host();
    let outer = (host.api.interface_enter)(host.module);
    let code = guard(body);
    (host.api.interface_leave)(host.module, outer, code);
    code
}

/// What a call of another module's function says, with the text that goes with a failure.
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

/// What can be passed to a function of an interface: integers, `bool`, `f64`, `&str`, `&[u8]`, and [`Callback`].
///
/// # Safety
/// `Raw` is what C can hold, and `NAME` stands for it: two types with one name have the same `Raw`.
pub unsafe trait Arg: Sized {
    /// As it crosses the line.
    type Raw: Copy;
    /// As it stands in the layout.
    const NAME: &'static str;
    /// The form that crosses the line.
    fn lower(self) -> Self::Raw;
    /// What came across the line.
    ///
    /// # Errors
    /// For what cannot be: a text that is not UTF-8.
    ///
    /// # Safety
    /// It came from another module that keeps to the rules: pointers lead to as many readable bytes, for as long as the result is used.
    unsafe fn lift(raw: Self::Raw) -> Result<Self>;
}

/// What a function of an interface can return: integers, `bool`, `f64`.
///
/// # Safety
/// As for [`Arg`].
pub unsafe trait Value: Sized {
    /// As it crosses the line.
    type Raw: Copy + Default;
    /// As it stands in the layout.
    const NAME: &'static str;
    /// The form that crosses the line.
    fn lower(self) -> Self::Raw;
    /// What came across the line.
    fn lift(raw: Self::Raw) -> Self;
}

macro_rules! plain {
    ($($type:ident),*) => {$(
        // SAFETY: a number of C.
        unsafe impl Arg for $type {
            type Raw = $type;
            const NAME: &'static str = stringify!($type);
            fn lower(self) -> $type {
                self
            }
            unsafe fn lift(raw: $type) -> Result<$type> {
                Ok(raw)
            }
        }
        // SAFETY: as above.
        unsafe impl Value for $type {
            type Raw = $type;
            const NAME: &'static str = stringify!($type);
            fn lower(self) -> $type {
                self
            }
            fn lift(raw: $type) -> $type {
                raw
            }
        }
    )*};
}
plain!(u8, i8, u16, i16, u32, i32, u64, i64, usize, isize, f64);

// SAFETY: a u32, of which every value stands for one of the two.
unsafe impl Arg for bool {
    type Raw = u32;
    const NAME: &'static str = "bool";
    fn lower(self) -> u32 {
        self.into()
    }
    unsafe fn lift(raw: u32) -> Result<bool> {
        Ok(raw != 0)
    }
}

// SAFETY: as above.
unsafe impl Value for bool {
    type Raw = u32;
    const NAME: &'static str = "bool";
    fn lower(self) -> u32 {
        self.into()
    }
    fn lift(raw: u32) -> bool {
        raw != 0
    }
}

/// Borrowed bytes: `struct modhost_bytes` in C, valid for the length of the call. Not followed by a NUL.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Bytes {
    /// First byte; anything if there are none.
    pub ptr: *const u8,
    /// Length in bytes.
    pub len: usize,
}

impl Bytes {
    /// Those.
    pub fn of(bytes: &[u8]) -> Bytes {
        Bytes { ptr: bytes.as_ptr(), len: bytes.len() }
    }

    /// # Safety
    /// As for [`Arg::lift`].
    pub(crate) unsafe fn slice<'a>(self) -> &'a [u8] {
        if self.ptr.is_null() || self.len == 0 || self.len > isize::MAX as usize {
            return &[];
        }
        // SAFETY: the caller's contract.
        unsafe { std::slice::from_raw_parts(self.ptr, self.len) }
    }
}

// SAFETY: a struct of C.
unsafe impl Arg for &[u8] {
    type Raw = Bytes;
    const NAME: &'static str = "bytes";
    fn lower(self) -> Bytes {
        Bytes::of(self)
    }
    unsafe fn lift(raw: Bytes) -> Result<Self> {
        // SAFETY: the caller's contract.
        Ok(unsafe { raw.slice() })
    }
}

// SAFETY: a struct of C.
unsafe impl Arg for &str {
    type Raw = Bytes;
    const NAME: &'static str = "str";
    fn lower(self) -> Bytes {
        Bytes::of(self.as_bytes())
    }
    unsafe fn lift(raw: Bytes) -> Result<Self> {
        // SAFETY: the caller's contract.
        std::str::from_utf8(unsafe { raw.slice() }).map_err(|_| "a text of another module is not UTF-8".into())
    }
}

/// What a [`Callback`] is called about: a struct of C, and what it looks like in Rust.
///
/// # Safety
/// `NAME` stands for one `Raw`, of all versions of the interface.
pub unsafe trait Subject {
    /// The struct that crosses the line.
    type Raw;
    /// What the function of the callback gets.
    type View<'a>;
    /// As it stands in the layout.
    const NAME: &'static str;
    /// A view of it.
    ///
    /// # Safety
    /// `raw` comes from the other side of the line and is its alone for `'a`.
    unsafe fn view<'a>(raw: *mut Self::Raw) -> Self::View<'a>;
}

/// A function of the module that passes it, for the module that gets it to call: in any process, in the thread that the host calls modules in.
///
/// Made by `callback` of [`ModInit`](crate::ModInit) and [`ProcInit`](crate::ProcInit).
pub struct Callback<S: Subject> {
    function: extern "C" fn(data: *mut c_void, subject: *mut S::Raw) -> i32,
    data: *mut c_void,
    thread: NotSend,
}

impl<S: Subject> Clone for Callback<S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S: Subject> Copy for Callback<S> {}

impl<S: Subject> Callback<S> {
    /// # Safety
    /// The function may be called with this data in every process from now on, with subjects that are valid for the call.
    pub(crate) unsafe fn new(function: extern "C" fn(*mut c_void, *mut S::Raw) -> i32, data: *mut c_void) -> Self {
        Callback { function, data, thread: PhantomData }
    }

    /// Calls it.
    ///
    /// # Errors
    /// Those of the other module.
    ///
    /// # Safety
    /// The subject is valid, and not used otherwise during the call.
    pub unsafe fn call(&self, subject: *mut S::Raw) -> Result<()> {
        outcome("callback", S::NAME, (self.function)(self.data, subject))
    }
}

/// A [`Callback`] as it crosses the line: `struct modhost_callback` in C, with the second argument's type.
#[repr(C)]
pub struct RawCallback<R> {
    /// What to call: with `data` and what it is about. Negative is failure.
    pub function: Option<extern "C" fn(data: *mut c_void, subject: *mut R) -> i32>,
    /// Passed through.
    pub data: *mut c_void,
}

impl<R> Clone for RawCallback<R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for RawCallback<R> {}

// SAFETY: a struct of C, which the subject's name stands for.
unsafe impl<S: Subject> Arg for Callback<S> {
    type Raw = RawCallback<S::Raw>;
    const NAME: &'static str = S::NAME;
    fn lower(self) -> Self::Raw {
        RawCallback { function: Some(self.function), data: self.data }
    }
    unsafe fn lift(raw: Self::Raw) -> Result<Self> {
        let function = raw.function.ok_or("another module passed no function to call back")?;
        // SAFETY: the caller's contract.
        Ok(unsafe { Callback::new(function, raw.data) })
    }
}

/// Puts what a function returns where the other side wants it.
///
/// # Safety
/// Null, or room for the value.
#[doc(hidden)]
pub unsafe fn give<V: Value>(out: *mut V::Raw, value: V) -> Result<()> {
    if out.is_null() || !out.is_aligned() {
        return Err("another module left no room for the result".into());
    }
    // SAFETY: the caller's contract.
    unsafe { out.write(value.lower()) };
    Ok(())
}

/// Most bytes of a layout's text, its NUL included.
#[doc(hidden)]
pub const LAYOUT_BYTES: usize = 4096;

/// The text of a layout, with NULs behind it. Stops the build if it is too long.
#[doc(hidden)]
pub const fn layout(pieces: &[&str]) -> [u8; LAYOUT_BYTES] {
    let mut bytes = [0; LAYOUT_BYTES];
    let (mut at, mut piece) = (0, 0);
    while piece < pieces.len() {
        let text = pieces[piece].as_bytes();
        // The comma behind the last argument.
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
pub const fn bind<T>(name: *const c_char, version: (u16, u16), kind: u32, slot: &'static Slot<T>, layout: &'static CStr) -> abi::Bind {
    let (major, minor) = version;
    abi::Bind { name, major, minor, size: size_of::<T>() as u32, kind, reserved: 0, slot: slot.as_ptr(), layout: layout.as_ptr() }
}

/// The layout's text without what is behind it.
#[doc(hidden)]
pub const fn layout_text(bytes: &'static [u8; LAYOUT_BYTES]) -> &'static CStr {
    match CStr::from_bytes_until_nul(bytes) {
        Ok(text) => text,
        Err(_) => panic!("a layout without an end"),
    }
}

/// Declares an interface between modules; see [`interface`](crate::interface).
///
/// Makes a type with one method per function, for users, and the trait that an exporter implements for its module. Each function takes what
/// is an [`Arg`] and returns nothing or a [`Value`]; all can fail. A later minor version adds functions at the end; anything else is another
/// major version. At most some 100 functions.
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
        $vis struct $name($crate::interface::Bound<<$name as $crate::interface::Interface>::Table>);

        #[doc = concat!("What a module that exports `", $text, "` does. It is called in every process, main included, from its own `init` on.")]
        $vis trait $export: $crate::Module {
            $(
                $(#[$fn_meta])*
                ///
                /// # Errors
                /// Whatever the exporter fails with.
                fn $function(&self, $($arg: $type),*) -> $crate::Result<$crate::__ret!($($ret)?)>;
            )+
        }

        const _: () = {
            #[allow(unused_imports)] // a table may have no argument or no result
            use $crate::interface::{Arg, Bound, Home, Interface, LAYOUT_BYTES, Slot, Value};

            #[repr(C)]
            pub struct Table {
                $( $function: ::core::option::Option<extern "C" fn($(<$type as Arg>::Raw,)* $(*mut <$ret as Value>::Raw)?) -> i32>, )+
            }

            static SLOT: Slot<Table> = Slot::new();
            static LAYOUT: [u8; LAYOUT_BYTES] = $crate::interface::layout(&[$(
                stringify!($function), "(", $(<$type as Arg>::NAME, ",",)* ")", $("->", <$ret as Value>::NAME,)? "\n",
            )+]);

            // SAFETY: the table above, and the layout of the same functions.
            unsafe impl Interface for $name {
                type Table = Table;
                const NAME: &'static str = $crate::interface::checked_interface($text);
                const MAJOR: u16 = $major;
                const MINOR: u16 = $minor;
                fn slot() -> &'static Slot<Table> {
                    &SLOT
                }
                fn of(bound: Bound<Table>) -> $name {
                    $name(bound)
                }
            }

            impl $name {
                $(
                    $(#[$fn_meta])*
                    ///
                    /// # Errors
                    /// Those of the module that exports it; a panic in it is one.
                    #[allow(clippy::too_many_arguments)]
                    pub fn $function(&self, $($arg: $type),*) -> $crate::Result<$crate::__ret!($($ret)?)> {
                        let ::core::option::Option::Some(function) = self.0.table.$function else {
                            return ::core::result::Result::Err($crate::interface::no_function($text, stringify!($function)));
                        };
                        $( let mut out = <$ret as Value>::Raw::default(); )?
                        let code = function($(<$type as Arg>::lower($arg),)* $(&raw mut out as *mut <$ret as Value>::Raw)?);
                        $crate::interface::outcome($text, stringify!($function), code)?;
                        ::core::result::Result::Ok($crate::__value!($(<$ret as Value>::lift(out))?))
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
                        size: ::core::mem::size_of::<Table>() as u32,
                        table: const {
                            $(
                                extern "C" fn $function<H: Home>(
                                    $($arg: <$type as Arg>::Raw,)* $(out: *mut <$ret as Value>::Raw)?
                                ) -> i32
                                where
                                    H::Module: $export,
                                {
                                    $crate::interface::serve::<H>(|module| {
                                        // SAFETY: these came from another module, which keeps them valid for the call.
                                        let value = <H::Module as $export>::$function(module, $(unsafe { <$type as Arg>::lift($arg)? }),*)?;
                                        // SAFETY: as above: room for the result, or null.
                                        $( unsafe { $crate::interface::give::<$ret>(out, value)? }; )?
                                        $crate::__ignore!(value $($ret)?);
                                        ::core::result::Result::Ok(())
                                    })
                                }
                            )+
                            &Table { $( $function: ::core::option::Option::Some($function::<H>), )+ } as *const Table as *const ::core::ffi::c_void
                        },
                        layout: $crate::interface::layout_text(&LAYOUT).as_ptr(),
                    }
                }

                #[doc(hidden)]
                pub const fn bind(kind: u32) -> $crate::abi::Bind {
                    let layout = $crate::interface::layout_text(&LAYOUT);
                    $crate::interface::bind::<Table>($crate::__c_text!($text), ($major, $minor), kind, &SLOT, layout)
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
