//! What functions of an interface take and return: the types, and their form in C.

use std::ffi::c_void;
use std::marker::PhantomData;

use super::outcome;
use crate::Result;
use crate::phase::NotSend;

/// Types of the arguments of an interface's function: integers, `bool`, `f64`, `&str`, `&[u8]`, and
/// [`Callback`].
///
/// # Safety
/// C can hold a `Raw` with any content, and two types of the same `NAME` have the same `Raw`.
pub unsafe trait Arg: Sized {
    /// The C type that is passed.
    type Raw: Copy;
    /// The type's name in the layout.
    const NAME: &'static str;
    /// Makes the C value.
    fn lower(self) -> Self::Raw;
    /// Reads the C value.
    ///
    /// # Errors
    /// If it cannot be this type: a text that is not UTF-8.
    ///
    /// # Safety
    /// It came from another module that keeps to the rules: its pointers lead to as many readable
    /// bytes as it says, for as long as the result is used.
    unsafe fn lift(raw: Self::Raw) -> Result<Self>;
}

/// Types that an interface's function can return: integers, `bool`, `f64`.
///
/// # Safety
/// As for [`Arg`].
pub unsafe trait ReturnValue: Sized {
    /// The C type that is passed.
    type Raw: Copy + Default;
    /// The type's name in the layout.
    const NAME: &'static str;
    /// Makes the C value.
    fn lower(self) -> Self::Raw;
    /// Reads the C value.
    fn lift(raw: Self::Raw) -> Self;
}

macro_rules! plain {
    ($($type:ident),*) => {$(
        // SAFETY: a number in C, too.
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
        unsafe impl ReturnValue for $type {
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

// SAFETY: a `u32` in C; every value of it is read as one of the two.
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
unsafe impl ReturnValue for bool {
    type Raw = u32;
    const NAME: &'static str = "bool";
    fn lower(self) -> u32 {
        self.into()
    }
    fn lift(raw: u32) -> bool {
        raw != 0
    }
}

c_struct! {
    /// Borrowed bytes, valid for the length of the call. Not followed by a NUL.
    #[repr(C)]
    #[derive(Debug, Clone, Copy)]
    pub struct Bytes as modhost_bytes {
        /// First byte; any value if `len` is 0.
        pub ptr: *const u8,
        /// Length in bytes.
        pub len: usize,
    }
}

impl Bytes {
    /// Borrows `bytes`; the caller must not use the result after them.
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

// SAFETY: a struct in C.
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

// SAFETY: a struct in C.
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

/// The argument of a [`Callback`]: a C struct, and its view in Rust.
///
/// # Safety
/// `NAME` belongs to one `Raw`, in all versions of the interface.
pub unsafe trait Subject {
    /// The C struct that is passed.
    type Raw;
    /// What the function of the callback gets.
    type View<'a>;
    /// The name in the layout.
    const NAME: &'static str;
    /// A view of the struct.
    ///
    /// # Safety
    /// `raw` comes from the module that calls back, and nothing else uses it during `'a`.
    unsafe fn view<'a>(raw: *mut Self::Raw) -> Self::View<'a>;
}

/// A function of one module that another module calls: in any process, in the thread in which the
/// host calls modules.
///
/// Made by `callback` of [`ModInit`](crate::ModInit) and [`ProcInit`](crate::ProcInit).
pub struct Callback<S: Subject> {
    function: extern "C" fn(data: *mut c_void, subject: *mut S::Raw) -> i32,
    data: *mut c_void,
    thread: PhantomData<NotSend>,
}

impl<S: Subject> Clone for Callback<S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S: Subject> Copy for Callback<S> {}

impl<S: Subject> Callback<S> {
    /// # Safety
    /// The function may be called with this data in every process from now on, with subjects that
    /// are valid for the call.
    pub(crate) unsafe fn new(function: extern "C" fn(*mut c_void, *mut S::Raw) -> i32, data: *mut c_void) -> Self {
        Callback { function, data, thread: PhantomData }
    }

    /// Calls it.
    ///
    /// # Errors
    /// The error of the called module.
    ///
    /// # Safety
    /// The subject is valid, and nothing else uses it during the call.
    pub unsafe fn call(&self, subject: *mut S::Raw) -> Result<()> {
        outcome("callback", S::NAME, (self.function)(self.data, subject))
    }
}

/// A [`Callback`] in C: one struct for each subject, such as `struct modhost_http_callback`.
#[repr(C)]
pub struct RawCallback<R> {
    /// Called with `data` and the subject. A negative return is failure.
    pub function: Option<extern "C" fn(data: *mut c_void, subject: *mut R) -> i32>,
    /// Passed to `function`.
    pub data: *mut c_void,
}

impl<R> Clone for RawCallback<R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for RawCallback<R> {}

// SAFETY: a struct in C, one for each name of a subject.
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
