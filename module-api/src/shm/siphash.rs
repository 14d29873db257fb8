//! SipHash-1-3: a hash that one who does not know the seed cannot aim at.
//!
//! Pure. The standard library has it without a way to choose the seed, which must be the same in every process of a host and differ
//! from host to host.

/// The hash of `bytes`.
#[inline]
pub(super) fn hash(seed: [u64; 2], bytes: &[u8]) -> u64 {
    let mut state = [
        seed[0] ^ 0x736f_6d65_7073_6575,
        seed[1] ^ 0x646f_7261_6e64_6f6d,
        seed[0] ^ 0x6c79_6765_6e65_7261,
        seed[1] ^ 0x7465_6462_7974_6573,
    ];
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        // A chunk of eight has eight bytes.
        absorb(&mut state, u64::from_le_bytes(word.try_into().unwrap_or_default()));
    }
    let last = words.remainder().iter().rev().fold(bytes.len() as u64, |word, byte| word << 8 | u64::from(*byte));
    // The length's lowest byte comes on top.
    let rest = words.remainder().len() as u32 * 8;
    let last = last & ((1_u64 << rest) - 1) | (bytes.len() as u64) << 56;
    absorb(&mut state, last);
    state[2] ^= 0xff;
    for _ in 0..3 {
        round(&mut state);
    }
    state[0] ^ state[1] ^ state[2] ^ state[3]
}

#[inline(always)]
fn absorb(state: &mut [u64; 4], word: u64) {
    state[3] ^= word;
    round(state);
    state[0] ^= word;
}

#[inline(always)]
fn round(state: &mut [u64; 4]) {
    let [a, b, c, d] = state;
    *a = a.wrapping_add(*b);
    *b = b.rotate_left(13) ^ *a;
    *a = a.rotate_left(32);
    *c = c.wrapping_add(*d);
    *d = d.rotate_left(16) ^ *c;
    *a = a.wrapping_add(*d);
    *d = d.rotate_left(21) ^ *a;
    *c = c.wrapping_add(*b);
    *b = b.rotate_left(17) ^ *c;
    *c = c.rotate_left(32);
}

#[cfg(test)]
mod tests {
    use std::hash::{DefaultHasher, Hasher};

    use super::*;

    #[test]
    fn agrees_with_the_standard_library_where_that_has_a_seed() {
        let bytes: Vec<u8> = (0..200_u16).map(|number| (number * 7) as u8).collect();
        for length in 0..bytes.len() {
            let mut hasher = DefaultHasher::new();
            hasher.write(&bytes[..length]);
            assert_eq!(hash([0, 0], &bytes[..length]), hasher.finish(), "{length}");
        }
    }

    #[test]
    fn another_seed_is_another_hash() {
        assert_ne!(hash([0, 0], b"key"), hash([1, 0], b"key"));
        assert_ne!(hash([0, 0], b"key"), hash([0, 1], b"key"));
    }
}
