//! The fake host's counters, with the three places of each: outside of the host's processes, the
//! thread that the host calls modules in, and other threads.

use std::ffi::{CString, c_void};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::{c_text, fake};
use crate::abi::*;

/// Where this process counts; see `stats/tests.rs`.
pub static STAT_HOME: StatHome = StatHome { thread: AtomicUsize::new(0), own: AtomicUsize::new(0), threads: AtomicUsize::new(0) };
/// Words of each of the three places of one counter.
const STAT_WORDS: usize = 1024;

pub struct FakeStat {
    name: CString,
    help: CString,
    kind: u32,
    unit: u32,
    bounds: &'static [u64],
    words: &'static [AtomicU64; 3 * STAT_WORDS],
}

#[cfg(test)]
impl super::Fake {
    /// `count` words of the `index`-th counter, after the first `skip`, as the thread that the host
    /// calls modules in has them.
    pub fn stat_words(&self, index: usize, skip: usize, count: usize) -> Vec<u64> {
        self.stats[index].words[STAT_WORDS + skip..][..count].iter().map(|word| word.load(Ordering::Relaxed)).collect()
    }
}

pub const fn fill(mut api: HostApi) -> HostApi {
    api.stat_register = stat_register;
    api.stat_info = stat_info;
    api.stat_read = stat_read;
    api
}

extern "C" fn stat_register(_: *mut c_void, spec: *const StatSpec, first: *mut *mut c_void) -> i32 {
    // SAFETY: the crate under test passes a valid pointer.
    let spec = unsafe { &*spec };
    fake(|fake| {
        if fake.stat_code != OK {
            return fake.stat_code;
        }
        let words: &'static [AtomicU64; 3 * STAT_WORDS] = Box::leak(Box::new([const { AtomicU64::new(0) }; 3 * STAT_WORDS]));
        let bounds: &[u64] = if spec.bounds.is_null() {
            &[]
        } else {
            // SAFETY: not null, and the crate under test passes as many bounds as it says.
            unsafe { std::slice::from_raw_parts(spec.bounds, spec.bound_count as usize) }
        };
        let (name, help) = (CString::new(c_text(spec.name)).unwrap(), CString::new(c_text(spec.help)).unwrap());
        fake.stats.push(FakeStat { name, help, kind: spec.kind, unit: spec.unit, bounds: bounds.to_vec().leak(), words });
        // SAFETY: the crate under test passes a valid pointer.
        unsafe { first.write(std::ptr::from_ref(words).cast_mut().cast()) };
        OK
    })
}

extern "C" fn stat_info(_: *mut c_void, index: u32, info: *mut StatInfo) -> i32 {
    fake(|fake| {
        let Some(stat) = fake.stats.get(index as usize).filter(|_| fake.stat_code == OK) else { return E_INVALID };
        let (kind, unit, bounds) = (stat.kind, stat.unit, stat.bounds);
        // SAFETY: the crate under test passes a valid pointer.
        unsafe {
            info.write(StatInfo {
                size: size_of::<StatInfo>() as u32,
                kind,
                unit,
                module: c"fake".as_ptr(),
                name: stat.name.as_ptr(),
                help: stat.help.as_ptr(),
                bounds: if bounds.is_empty() { std::ptr::null() } else { bounds.as_ptr() },
                bound_count: bounds.len() as u32,
                ..StatInfo::EMPTY
            });
        }
        OK
    })
}

extern "C" fn stat_read(_: *mut c_void, index: u32, process_no: i32, words: *mut u64, count: u32) -> i32 {
    fake(|fake| {
        let places = match process_no {
            STAT_ALL => 0..3,
            STAT_OUTSIDE => 0..1,
            _ => 1..3,
        };
        for word in 0..count as usize {
            let sum = places.clone().map(|place| fake.stats[index as usize].words[place * STAT_WORDS + word].load(Ordering::Relaxed));
            // SAFETY: the crate under test passes `count` writable words.
            unsafe { words.add(word).write(sum.fold(0, u64::wrapping_add)) };
        }
        count as i32
    })
}
