//! Buckets of histograms: the bucket of a value, and the range of values of a bucket.
//!
//! Pure.

use crate::abi;

/// Number of buckets of a histogram without bounds.
pub const LOG_LINEAR: usize = abi::STAT_BUCKETS as usize;

/// Number of buckets of a histogram with these bounds.
pub const fn count(bounds: &[u64]) -> usize {
    if bounds.is_empty() { LOG_LINEAR } else { bounds.len() + 1 }
}

/// The bucket of a value. Without bounds: 0 to 3 have one each, then every power of two has four.
#[inline]
pub fn index(bounds: &[u64], value: u64) -> usize {
    if !bounds.is_empty() {
        return bounds.iter().take_while(|bound| value > **bound).count();
    }
    if value < 4 {
        return value as usize;
    }
    let power = 63 - value.leading_zeros();
    (power as usize - 1) * 4 + ((value >> (power - 2)) & 3) as usize
}

/// The smallest value of a bucket.
pub fn lowest(bounds: &[u64], bucket: usize) -> u64 {
    if !bounds.is_empty() {
        return bucket.checked_sub(1).and_then(|before| bounds.get(before)).map_or(0, |bound| bound.saturating_add(1));
    }
    match bucket {
        0..4 => bucket as u64,
        4..LOG_LINEAR => ((4 + bucket % 4) as u64) << (bucket / 4 - 1),
        _ => u64::MAX,
    }
}

/// The largest value of a bucket.
pub fn highest(bounds: &[u64], bucket: usize) -> u64 {
    if !bounds.is_empty() {
        return bounds.get(bucket).copied().unwrap_or(u64::MAX);
    }
    if bucket + 1 < LOG_LINEAR { lowest(bounds, bucket + 1) - 1 } else { u64::MAX }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of every magnitude, and the edges between buckets.
    fn values() -> Vec<u64> {
        let mut values: Vec<u64> = (0..=300).collect();
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        for power in 0..64 {
            let edge = 1_u64 << power;
            values.extend([edge - 1, edge, edge + 1, edge | (edge >> 1), u64::MAX - edge + 1]);
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            values.push(random >> power);
        }
        values
    }

    #[test]
    fn a_value_lies_in_its_bucket_and_buckets_follow_each_other() {
        let own: [&[u64]; 4] = [&[], &[10], &[0, 1, 5, 1000], &[u64::MAX - 1, u64::MAX]];
        for bounds in own {
            for value in values() {
                let bucket = index(bounds, value);
                assert!(bucket < count(bounds), "{bounds:?} {value}");
                assert!((lowest(bounds, bucket)..=highest(bounds, bucket)).contains(&value), "{bounds:?} {value} {bucket}");
            }
        }
        for bucket in 1..LOG_LINEAR {
            assert_eq!(highest(&[], bucket - 1) + 1, lowest(&[], bucket));
        }
        assert_eq!((lowest(&[], 0), highest(&[], LOG_LINEAR - 1)), (0, u64::MAX));
    }

    #[test]
    fn a_bucket_of_the_host_is_at_most_a_quarter_wide() {
        for bucket in 0..LOG_LINEAR {
            let (low, high) = (lowest(&[], bucket), highest(&[], bucket));
            assert!(high - low <= low / 4, "{low} to {high}");
        }
    }
}
