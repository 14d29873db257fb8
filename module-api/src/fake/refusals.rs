//! What the fake host does in functions that it does not fake: it refuses them, and the log says
//! so.

use std::ffi::{c_char, c_int, c_void};

use crate::abi::*;
use crate::fake::fake;

/// The return of a host that refuses a call.
trait Refusal {
    const REFUSED: Self;
}

impl Refusal for () {
    const REFUSED: () = ();
}

impl Refusal for i32 {
    const REFUSED: i32 = E_FAILED;
}

impl Refusal for i64 {
    const REFUSED: i64 = E_FAILED as i64;
}

impl Refusal for u64 {
    const REFUSED: u64 = 0;
}

impl Refusal for usize {
    const REFUSED: usize = 0;
}

impl<T> Refusal for *mut T {
    const REFUSED: *mut T = std::ptr::null_mut();
}

fn refused<R: Refusal>(function: &str) -> R {
    fake(|fake| fake.log.push((LEVEL_ERROR, "fake".to_owned(), format!("the fake host has no {function}"))));
    R::REFUSED
}

macro_rules! refusals {
    ($( $(#[$meta:meta])* fn $name:ident($($args:tt)*) $(-> $ret:ty)?; )*) => {
        /// Every function refuses.
        pub const TABLE: HostApi = HostApi {
            magic: HOST_MAGIC,
            abi_major: ABI_MAJOR,
            abi_minor: ABI_MINOR,
            size: size_of::<HostApi>() as u32,
            $( $name: {
                #[allow(unused_variables, reason = "a refusal looks at no argument")]
                extern "C" fn $name(module: *mut c_void, $($args)*) $(-> $ret)? {
                    refused(stringify!($name))
                }
                $name
            }, )*
        };
    };
}
crate::__host_functions!(refusals);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_faked_is_refused_and_logged() {
        let module = std::ptr::null_mut();
        assert_eq!((TABLE.max_procs)(module), E_FAILED);
        assert!((TABLE.shm_alloc)(module, 1, 1).is_null());
        let logged = fake(|fake| std::mem::take(&mut fake.log));
        assert_eq!(logged[1], (LEVEL_ERROR, "fake".to_owned(), "the fake host has no shm_alloc".to_owned()));
    }
}
