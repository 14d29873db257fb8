//! A small fast random generator, seeded by the host in the process that uses it.
//!
//! Not for keys, tokens or anything that an attacker must not guess: `fill_random` is for those.

use crate::Result;
use crate::host::host;

/// Random numbers for spreading, sampling and identifiers: xoshiro256++, seeded from the kernel
/// through the host.
///
/// Make one in [`Module::child_init`](crate::Module::child_init) with `cx.rng()` and keep it in the
/// child state: then every process, and every restart of one, has its own sequence.
///
/// # Why not a generator of another crate
/// A fork copies the process, and the state of its random generators with it. `rand`'s thread
/// generator, once used in main, gives *the same numbers in every worker*. So do the keys of the
/// standard library's `RandomState`, which decide the order and the collisions of every `HashMap`.
/// The SDK cannot reseed those. A generator that is made in `child_init` does not have the problem.
/// For the same reason `Rng` is not `Clone`, and one that a module keeps from `init` cannot be used
/// after the fork, because the module is frozen by then.
#[derive(Debug)]
pub struct Rng {
    state: [u64; 4],
}

impl Rng {
    pub(crate) fn from_host() -> Result<Rng> {
        let mut seed = [0_u8; 32];
        host().fill_random(&mut seed)?;
        let mut state = [0_u64; 4];
        for (word, bytes) in state.iter_mut().zip(seed.chunks_exact(8)) {
            *word = bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        }
        Ok(Rng::from_state(state))
    }

    fn from_state(mut state: [u64; 4]) -> Rng {
        // The generator would never leave the state of all zeros.
        state[0] |= u64::from(state == [0; 4]);
        Rng { state }
    }

    /// The next 64 bits.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let next = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        next
    }

    /// A number from 0 up to, but not including, `limit`, all equally likely; 0 for a limit of 0.
    #[inline]
    pub fn below(&mut self, limit: u64) -> u64 {
        // Lemire's multiplication; rejecting the surplus makes all numbers equally likely.
        let mut product = u128::from(self.next_u64()) * u128::from(limit);
        if (product as u64) < limit {
            let reject = limit.wrapping_neg() % limit;
            while (product as u64) < reject {
                product = u128::from(self.next_u64()) * u128::from(limit);
            }
        }
        (product >> 64) as u64
    }

    /// Fills `buffer`.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            chunk.copy_from_slice(&self.next_u64().to_le_bytes()[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reference_sequence() {
        // The first outputs of the authors' C program for the state 1, 2, 3, 4.
        let mut rng = Rng::from_state([1, 2, 3, 4]);
        let expected = [41943041, 58720359, 3588806011781223, 3591011842654386, 9228616714210784205];
        assert_eq!(expected, std::array::from_fn(|_| rng.next_u64()));
    }

    #[test]
    fn bounds() {
        let mut rng = Rng::from_state([0; 4]);
        for limit in [1, 2, 3, 10, u64::MAX] {
            for _ in 0..200 {
                assert!(rng.below(limit) < limit);
            }
        }
        assert_eq!(rng.below(0), 0);
        let mut seen = [false; 6];
        (0..200).for_each(|_| seen[rng.below(6) as usize] = true);
        assert_eq!(seen, [true; 6]);
        for len in 0..20 {
            let mut buffer = vec![0; len];
            rng.fill(&mut buffer);
        }
    }
}
