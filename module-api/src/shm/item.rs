//! Types of a map's keys and values, and their form in shared memory.

use super::ShmSafe;

/// Types of a key of a [`ShmMap`](crate::ShmMap): `[u8]`, `str`, integers, and arrays of bytes.
///
/// Two keys are equal if their bytes are.
#[diagnostic::on_unimplemented(message = "`{Self}` cannot be a key of a `ShmMap`", note = "keys are `[u8]`, `str`, integers and `[u8; N]`")]
pub trait MapKey: sealed::StoredKey {}

/// Types of a value of a [`ShmMap`](crate::ShmMap): `[u8]`, `str`, [`Tagged`], and every sized
/// [`ShmSafe`] type without a destructor.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a value of a `ShmMap`",
    note = "values are `[u8]`, `str`, numbers, atomics, arrays of them, and structs declared with `shm_struct!`"
)]
pub trait MapValue: sealed::StoredValue {}

impl<K: sealed::StoredKey + ?Sized> MapKey for K {}
impl<V: sealed::StoredValue + ?Sized> MapValue for V {}

/// A tag of a fixed size, then bytes of any length: a value of a [`ShmMap`](crate::ShmMap). A
/// reader of the entry can change atomics in the tag in place.
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
    /// Plain numbers and atomics.
    pub tag: T,
    /// Never changed in place.
    pub bytes: [u8],
}

pub(super) mod sealed {
    use super::{ShmSafe, Tagged};

    pub trait StoredKey {
        fn with_bytes<R>(&self, take: impl FnOnce(&[u8]) -> R) -> R;
        /// `bytes` must come from `with_bytes`.
        fn with_key<R>(bytes: &[u8], take: impl FnOnce(&Self) -> R) -> R;
    }

    /// # Safety
    /// `write` writes `bytes` bytes, and every process can read them.
    pub unsafe trait StoredValue {
        /// Type of a value that is passed in.
        type In<'v>;
        const ALIGN: usize;
        /// Number of bytes that `write` will write.
        fn bytes(value: &Self::In<'_>) -> usize;
        /// # Safety
        /// `to` has room for `bytes` bytes and is aligned.
        unsafe fn write(value: Self::In<'_>, to: *mut u8);
        /// # Safety
        /// `write` wrote `bytes` bytes there, and they do not change for the lifetime of the
        /// reference.
        unsafe fn read<'v>(from: *const u8, bytes: usize) -> &'v Self;
    }

    impl StoredKey for [u8] {
        #[inline]
        fn with_bytes<R>(&self, take: impl FnOnce(&[u8]) -> R) -> R {
            take(self)
        }

        #[inline]
        fn with_key<R>(bytes: &[u8], take: impl FnOnce(&[u8]) -> R) -> R {
            take(bytes)
        }
    }

    impl StoredKey for str {
        #[inline]
        fn with_bytes<R>(&self, take: impl FnOnce(&[u8]) -> R) -> R {
            take(self.as_bytes())
        }

        #[inline]
        fn with_key<R>(bytes: &[u8], take: impl FnOnce(&str) -> R) -> R {
            // SAFETY: the bytes come from `with_bytes`, and so from a `str`.
            take(unsafe { std::str::from_utf8_unchecked(bytes) })
        }
    }

    impl<const N: usize> StoredKey for [u8; N] {
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
            impl StoredKey for $kind {
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

    // SAFETY: written and read unchanged.
    unsafe impl StoredValue for [u8] {
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

    // SAFETY: written and read unchanged.
    unsafe impl StoredValue for str {
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
            // SAFETY: the caller's contract; `write` copied the bytes of a `str`.
            unsafe { std::str::from_utf8_unchecked(std::slice::from_raw_parts(from, bytes)) }
        }
    }

    // SAFETY: a `ShmSafe` type and unchanged bytes. The size of the map's blocks is rounded up to
    // the tag's alignment, as is the size of a `Tagged`.
    unsafe impl<T: ShmSafe + Send + Sync> StoredValue for Tagged<T> {
        type In<'v> = (T, &'v [u8]);
        const ALIGN: usize = align_of::<T>();

        #[inline]
        fn bytes(value: &(T, &[u8])) -> usize {
            const { assert!(!std::mem::needs_drop::<T>(), "a value of a ShmMap cannot have a destructor") };
            size_of::<T>() + value.1.len()
        }

        #[inline]
        unsafe fn write((tag, bytes): (T, &[u8]), to: *mut u8) {
            // SAFETY: the caller's contract; `bytes` follows `tag` without a gap, because its
            // alignment is 1.
            unsafe {
                to.cast::<T>().write(tag);
                to.add(size_of::<T>()).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            }
        }

        #[inline]
        unsafe fn read<'v>(from: *const u8, bytes: usize) -> &'v Tagged<T> {
            let value = std::ptr::slice_from_raw_parts(from, bytes - size_of::<T>()) as *const Tagged<T>;
            // SAFETY: the caller's contract; the length of the slice is the length of the last
            // field.
            unsafe { &*value }
        }
    }

    // SAFETY: `ShmSafe` types mean the same in every process. Several threads use them, hence
    // `Send` and `Sync`.
    unsafe impl<T: ShmSafe + Send + Sync> StoredValue for T {
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
