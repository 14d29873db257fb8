//! What keys and values of a map may be, and how they lie in shared memory.

use super::ShmSafe;

/// What can be a key of a [`ShmMap`](crate::ShmMap): `[u8]`, `str`, integers, and arrays of bytes.
///
/// Keys are the same if their bytes are.
#[diagnostic::on_unimplemented(message = "`{Self}` cannot be a key of a `ShmMap`", note = "keys are `[u8]`, `str`, integers and `[u8; N]`")]
pub trait MapKey: sealed::Key {}

/// What can be a value of a [`ShmMap`](crate::ShmMap): `[u8]`, `str`, and every sized [`ShmSafe`] type without a destructor.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a value of a `ShmMap`",
    note = "values are `[u8]`, `str`, numbers, atomics, arrays of them, and structs declared with `shm_struct!`"
)]
pub trait MapValue: sealed::Value {}

impl<K: sealed::Key + ?Sized> MapKey for K {}
impl<V: sealed::Value + ?Sized> MapValue for V {}

/// Bytes of any length with a tag of a fixed size in front: a value of a [`ShmMap`](crate::ShmMap). What is atomic in the tag can be
/// changed in place, by who looks at the entry.
///
/// ```
/// # use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
/// # use module_api::{Tagged, prelude::*};
/// fn use_it(pages: &ShmMap<str, Tagged<AtomicU64>>) -> Result<u64> {
///     pages.insert("/", (AtomicU64::new(0), b"hello"))?;
///     Ok(pages.get("/", |page| page.map_or(0, |page| page.tag.fetch_add(1, Relaxed)))?)
/// }
/// ```
#[repr(C)]
pub struct Tagged<T: ShmSafe> {
    /// The tag.
    pub tag: T,
    /// The bytes.
    pub bytes: [u8],
}

pub(super) mod sealed {
    use super::{ShmSafe, Tagged};

    pub trait Key {
        fn with_bytes<R>(&self, take: impl FnOnce(&[u8]) -> R) -> R;
        /// Only for bytes that `with_bytes` gave.
        fn with_key<R>(bytes: &[u8], take: impl FnOnce(&Self) -> R) -> R;
    }

    /// # Safety
    /// `bytes` is what `write` will write, and what it wrote can be read in every process.
    pub unsafe trait Value {
        /// How a value is handed in.
        type In<'v>;
        const ALIGN: usize;
        /// None: too large.
        fn bytes(value: &Self::In<'_>) -> usize;
        /// # Safety
        /// `to` has room for `bytes` and is aligned.
        unsafe fn write(value: Self::In<'_>, to: *mut u8);
        /// # Safety
        /// `write` wrote `bytes` bytes there, and they stay as they are for the life of the reference.
        unsafe fn read<'v>(from: *const u8, bytes: usize) -> &'v Self;
    }

    impl Key for [u8] {
        #[inline]
        fn with_bytes<R>(&self, take: impl FnOnce(&[u8]) -> R) -> R {
            take(self)
        }

        #[inline]
        fn with_key<R>(bytes: &[u8], take: impl FnOnce(&[u8]) -> R) -> R {
            take(bytes)
        }
    }

    impl Key for str {
        #[inline]
        fn with_bytes<R>(&self, take: impl FnOnce(&[u8]) -> R) -> R {
            take(self.as_bytes())
        }

        #[inline]
        fn with_key<R>(bytes: &[u8], take: impl FnOnce(&str) -> R) -> R {
            // SAFETY: the bytes of a `str`, as this function asks for.
            take(unsafe { std::str::from_utf8_unchecked(bytes) })
        }
    }

    impl<const N: usize> Key for [u8; N] {
        #[inline]
        fn with_bytes<R>(&self, take: impl FnOnce(&[u8]) -> R) -> R {
            take(self)
        }

        #[inline]
        fn with_key<R>(bytes: &[u8], take: impl FnOnce(&[u8; N]) -> R) -> R {
            take(bytes.try_into().unwrap_or(&[0; N]))
        }
    }

    macro_rules! integer_keys {
        ($($kind:ty),*) => {$(
            impl Key for $kind {
                #[inline]
                fn with_bytes<R>(&self, take: impl FnOnce(&[u8]) -> R) -> R {
                    take(&self.to_ne_bytes())
                }

                #[inline]
                fn with_key<R>(bytes: &[u8], take: impl FnOnce(&$kind) -> R) -> R {
                    take(&<$kind>::from_ne_bytes(bytes.try_into().unwrap_or_default()))
                }
            }
        )*};
    }
    integer_keys!(u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize);

    // SAFETY: bytes as they are.
    unsafe impl Value for [u8] {
        type In<'v> = &'v [u8];
        const ALIGN: usize = 1;

        #[inline]
        fn bytes(value: &&[u8]) -> usize {
            value.len()
        }

        #[inline]
        unsafe fn write(value: &[u8], to: *mut u8) {
            // SAFETY: the caller's contract.
            unsafe { to.copy_from_nonoverlapping(value.as_ptr(), value.len()) };
        }

        #[inline]
        unsafe fn read<'v>(from: *const u8, bytes: usize) -> &'v [u8] {
            // SAFETY: the caller's contract.
            unsafe { std::slice::from_raw_parts(from, bytes) }
        }
    }

    // SAFETY: bytes as they are.
    unsafe impl Value for str {
        type In<'v> = &'v str;
        const ALIGN: usize = 1;

        #[inline]
        fn bytes(value: &&str) -> usize {
            value.len()
        }

        #[inline]
        unsafe fn write(value: &str, to: *mut u8) {
            // SAFETY: the caller's contract.
            unsafe { to.copy_from_nonoverlapping(value.as_ptr(), value.len()) };
        }

        #[inline]
        unsafe fn read<'v>(from: *const u8, bytes: usize) -> &'v str {
            // SAFETY: the caller's contract: `write` took them from a `str`.
            unsafe { std::str::from_utf8_unchecked(std::slice::from_raw_parts(from, bytes)) }
        }
    }

    // SAFETY: a `ShmSafe` type, and bytes as they are. The map's blocks end where the alignment of the tag says, as a `Tagged` does.
    unsafe impl<T: ShmSafe + Send + Sync> Value for Tagged<T> {
        type In<'v> = (T, &'v [u8]);
        const ALIGN: usize = align_of::<T>();

        #[inline]
        fn bytes(value: &(T, &[u8])) -> usize {
            const { assert!(!std::mem::needs_drop::<T>(), "a value of a ShmMap cannot have a destructor") };
            size_of::<T>() + value.1.len()
        }

        #[inline]
        unsafe fn write((tag, bytes): (T, &[u8]), to: *mut u8) {
            // SAFETY: the caller's contract; `bytes` stands behind `tag` without a gap, for it has the alignment 1.
            unsafe {
                to.cast::<T>().write(tag);
                to.add(size_of::<T>()).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            }
        }

        #[inline]
        unsafe fn read<'v>(from: *const u8, bytes: usize) -> &'v Tagged<T> {
            let value = std::ptr::slice_from_raw_parts(from, bytes - size_of::<T>()) as *const Tagged<T>;
            // SAFETY: the caller's contract; the length of the slice is that of the last field.
            unsafe { &*value }
        }
    }

    // SAFETY: `ShmSafe` types mean the same in every process, and are reached from several of them, thus `Send` and `Sync`.
    unsafe impl<T: ShmSafe + Send + Sync> Value for T {
        type In<'v> = T;
        const ALIGN: usize = align_of::<T>();

        #[inline]
        fn bytes(_: &T) -> usize {
            const { assert!(!std::mem::needs_drop::<T>(), "a value of a ShmMap cannot have a destructor") };
            size_of::<T>()
        }

        #[inline]
        unsafe fn write(value: T, to: *mut u8) {
            // SAFETY: the caller's contract.
            unsafe { to.cast::<T>().write(value) };
        }

        #[inline]
        unsafe fn read<'v>(from: *const u8, _: usize) -> &'v T {
            // SAFETY: the caller's contract.
            unsafe { &*from.cast::<T>() }
        }
    }
}
