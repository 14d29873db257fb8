//! How a struct of the binary interface is declared: once, with its name in C.

/// How a struct lies in memory.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub struct StructLayout {
    /// Name in C, after `struct`.
    pub name: &'static str,
    /// In bytes.
    pub size: usize,
    /// In bytes.
    pub align: usize,
    /// Name and offset in bytes of each field, in their order.
    pub fields: &'static [(&'static str, usize)],
}

/// The value of an empty field: zero, null, none.
pub(crate) trait Empty {
    const EMPTY: Self;
}

macro_rules! empty_numbers {
    ($($type:ty),*) => {$(
        impl Empty for $type {
            const EMPTY: $type = 0;
        }
    )*};
}
empty_numbers!(u8, u16, u32, u64, usize, i32, i64);

impl<T> Empty for *const T {
    const EMPTY: *const T = core::ptr::null();
}

impl<T> Empty for *mut T {
    const EMPTY: *mut T = core::ptr::null_mut();
}

impl<T> Empty for Option<T> {
    const EMPTY: Option<T> = None;
}

impl<T: Empty, const N: usize> Empty for [T; N] {
    const EMPTY: [T; N] = [T::EMPTY; N];
}

/// Declares a struct as it is written, and describes it:
///
/// * `LAYOUT` is its [`StructLayout`];
/// * `EMPTY` has zero, null or none in every field. Code that makes such a struct sets the fields
///   it knows and takes the others from there, so that a new field does not touch it. Structs whose
///   fields cannot be empty say `without EMPTY`.
///
/// A new field at the end touches the struct's file, `include/modhost.h`, `abi-1.0.golden`,
/// `docs/abi.md`, the host's file that fills or reads it, and the SDK's file that shows or sets it.
macro_rules! c_struct {
    ($(#[$meta:meta])* pub struct $name:ident as $c_name:ident { $($fields:tt)* }) => {
        c_struct! { $(#[$meta])* pub struct $name as $c_name without EMPTY { $($fields)* } }
        c_struct! { @empty $name $($fields)* }
    };
    ($(#[$meta:meta])* pub struct $name:ident as $c_name:ident without EMPTY { $($fields:tt)* }) => {
        $(#[$meta])*
        pub struct $name {
            $($fields)*
        }
        c_struct! { @layout $name $c_name $($fields)* }
    };
    (@layout $name:ident $c_name:ident $( $(#[$meta:meta])* pub $field:ident: $type:ty, )*) => {
        impl $name {
            #[doc(hidden)]
            pub const LAYOUT: $crate::abi::StructLayout = $crate::abi::StructLayout {
                name: ::core::stringify!($c_name),
                size: ::core::mem::size_of::<$name>(),
                align: ::core::mem::align_of::<$name>(),
                fields: &[$( (::core::stringify!($field), ::core::mem::offset_of!($name, $field)), )*],
            };
        }
    };
    (@empty $name:ident $( $(#[$meta:meta])* pub $field:ident: $type:ty, )*) => {
        impl $name {
            /// Zero, null or none in every field.
            pub const EMPTY: $name = $name { $( $field: <$type as $crate::abi::Empty>::EMPTY, )* };
        }
        impl $crate::abi::Empty for $name {
            const EMPTY: $name = $name::EMPTY;
        }
    };
}
