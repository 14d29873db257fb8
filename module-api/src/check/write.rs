//! Writes checked values to the targets of a module's parameters.

use std::ffi::{c_char, c_void};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::ptr;

use super::ParamValue;
use crate::abi::{List, Str, Table};

/// Writes a value. Memory that the target points to is never freed, because the module keeps the
/// pointers.
///
/// # Safety
/// `target` must be valid for a write of the target type of the value's kind, and nobody else may
/// use it meanwhile.
pub unsafe fn write(target: *mut c_void, value: &ParamValue) {
    // SAFETY: the caller's contract: a writable target of the kind's type.
    unsafe {
        match value {
            ParamValue::Bool(value) | ParamValue::Word(value) => target.cast::<u32>().write(*value),
            ParamValue::Int(value) | ParamValue::DurationNs(value) | ParamValue::Size(value) => target.cast::<i64>().write(*value),
            ParamValue::Str(text) => target.cast::<Str>().write(leak(text.as_bytes())),
            ParamValue::Path(path) => target.cast::<Str>().write(leak(path.as_os_str().as_bytes())),
            ParamValue::List(items) => target.cast::<List>().write(List { items: leak_all(items.iter()), len: items.len() }),
            ParamValue::Table(entries) => {
                let keys: Vec<Str> = entries.iter().map(|(key, _)| leak(key.as_bytes())).collect();
                target.cast::<Table>().write(Table {
                    values: leak_all(entries.iter().map(|(_, value)| value)),
                    len: entries.len(),
                    keys: if keys.is_empty() { ptr::null() } else { Vec::leak(keys).as_ptr() },
                });
            }
        }
    }
}

fn leak(text: &[u8]) -> Str {
    let bytes: &'static [u8] = Vec::leak([text, &[0]].concat());
    Str { ptr: bytes.as_ptr().cast::<c_char>(), len: text.len() }
}

/// An array of the values, which are all of one kind. Null if there are none.
fn leak_all<'v>(values: impl ExactSizeIterator<Item = &'v ParamValue>) -> *const c_void {
    let mut values = values.peekable();
    let step = match values.peek() {
        None => return ptr::null(),
        Some(ParamValue::Bool(_) | ParamValue::Word(_)) => size_of::<u32>(),
        Some(ParamValue::Int(_) | ParamValue::DurationNs(_) | ParamValue::Size(_)) => size_of::<i64>(),
        Some(_) => size_of::<Str>(),
    };
    // Allocated as words of eight bytes, whose alignment is enough for each of the three types.
    let words = vec![MaybeUninit::<u64>::zeroed(); (values.len() * step).div_ceil(size_of::<u64>())];
    let first = Vec::leak(words).as_mut_ptr().cast::<c_void>();
    for (index, value) in values.enumerate() {
        // SAFETY: there is room for that many values of `step` bytes; all are of one kind, and a
        // list has no list as an item.
        unsafe { write(first.byte_add(index * step), value) };
    }
    first
}
