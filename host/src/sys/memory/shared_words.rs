//! Words of memory that every process forked from here on shares.
//!
//! *Runs in:* the first process, before any fork. *Never:* unmaps what it handed out, or takes a lock.

use std::sync::atomic::AtomicU32;

use crate::error::Result;
use crate::sys::memory::mapping::Mapping;

/// Maps `N` zeroed words that stay shared across every later `fork`, for the rest of the program.
///
/// What another process wrote there is an untrusted number: any child may have stored anything.
///
/// # Errors
/// That of the mapping: out of memory, or over `RLIMIT_AS`.
pub fn shared_words<const N: usize>() -> Result<&'static [AtomicU32; N]> {
    let mapping = Mapping::shared(size_of::<[AtomicU32; N]>())?;
    // SAFETY: the range is page-aligned, at least as large as the array, zeroed (a valid AtomicU32), and never unmapped;
    // atomics are the only view of it in any process.
    Ok(unsafe { mapping.start().cast::<[AtomicU32; N]>().as_ref() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn words_start_at_zero_and_the_mapping_is_a_shared_one() {
        let words = shared_words::<1024>().unwrap();
        assert!(words.iter().all(|word| word.load(Ordering::Relaxed) == 0));
        let start = format!("{:x}-", words.as_ptr() as usize);
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        // Neighbouring mappings of the same kind may have been merged in the listing; then the line starts lower.
        if let Some(line) = maps.lines().find(|line| line.starts_with(&start)) {
            assert!(line.contains("rw-s"), "{line}");
        }
    }
}
