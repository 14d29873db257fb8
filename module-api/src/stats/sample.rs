//! Counters as they are read: names, values, quantiles.
//!
//! Pure. Used by modules and by the host, so that both show the same.

use crate::abi;
use crate::stats::buckets;

/// Unit of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unit {
    /// A number of things.
    One,
    /// Bytes.
    Bytes,
    /// Nanoseconds.
    Nanoseconds,
}

impl Unit {
    pub(crate) fn number(self) -> u32 {
        match self {
            Unit::One => abi::UNIT_NONE,
            Unit::Bytes => abi::UNIT_BYTES,
            Unit::Nanoseconds => abi::UNIT_NS,
        }
    }

    /// The unit of a `UNIT_*`; none for an unknown number.
    pub fn from_number(number: u32) -> Option<Unit> {
        match number {
            abi::UNIT_NONE => Some(Unit::One),
            abi::UNIT_BYTES => Some(Unit::Bytes),
            abi::UNIT_NS => Some(Unit::Nanoseconds),
            _ => None,
        }
    }

    /// Its name in JSON: `bytes`, `ns`, or nothing.
    pub fn name(self) -> &'static str {
        match self {
            Unit::One => "",
            Unit::Bytes => "bytes",
            Unit::Nanoseconds => "ns",
        }
    }
}

/// Counter, gauge or histogram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// [`Counter`](crate::Counter).
    Counter,
    /// [`Gauge`](crate::Gauge).
    Gauge,
    /// [`Histogram`](crate::Histogram).
    Histogram,
}

impl Kind {
    /// The kind of a `STAT_*`; none for an unknown number.
    pub fn from_number(number: u32) -> Option<Kind> {
        match number {
            abi::STAT_COUNTER => Some(Kind::Counter),
            abi::STAT_GAUGE => Some(Kind::Gauge),
            abi::STAT_HISTOGRAM => Some(Kind::Histogram),
            _ => None,
        }
    }

    /// Its name in JSON and in Prometheus.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// A counter, gauge or histogram as it was registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Description {
    /// Name of the module that registered it; `host` for the host's own.
    pub module: &'static str,
    /// Name without the module's.
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// Unit of its value.
    pub unit: Unit,
    /// Of a histogram with its author's bounds: the largest value of each bucket but the last.
    /// Empty otherwise.
    pub bounds: &'static [u64],
}

impl Description {
    /// `module.name`.
    pub fn full_name(&self) -> String {
        format!("{}.{}", self.module, self.name)
    }

    /// Whether the full name begins with `prefix`.
    pub fn starts_with(&self, prefix: &str) -> bool {
        match prefix.strip_prefix(self.module) {
            Some(rest) => rest.is_empty() || rest.strip_prefix('.').is_some_and(|rest| self.name.starts_with(rest)),
            None => self.module.starts_with(prefix),
        }
    }

    /// Number of words that hold its value.
    pub fn words(&self) -> usize {
        match self.kind {
            Kind::Counter | Kind::Gauge => 1,
            Kind::Histogram => 1 + buckets::count(self.bounds),
        }
    }
}

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Of a counter.
    Counter(u64),
    /// Of a gauge.
    Gauge(i64),
    /// Of a histogram.
    Histogram(Distribution),
}

/// The values that a histogram has recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distribution {
    sum: u64,
    counts: Vec<u64>,
    bounds: &'static [u64],
}

/// A value with its description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Module, name and meaning.
    pub what: Description,
    /// The value at the time of reading.
    pub value: Value,
}

impl Sample {
    /// From words of shared memory, into which a faulty module may have written anything.
    pub fn from_words(what: Description, words: &[u64]) -> Sample {
        let first = words.first().copied().unwrap_or(0);
        let value = match what.kind {
            Kind::Counter => Value::Counter(first),
            Kind::Gauge => Value::Gauge(first as i64),
            Kind::Histogram => {
                let mut counts = words.get(1..).unwrap_or_default().to_vec();
                counts.resize(buckets::count(what.bounds), 0);
                Value::Histogram(Distribution { sum: first, counts, bounds: what.bounds })
            }
        };
        Sample { what, value }
    }

    /// Whether the value is zero, or the histogram empty.
    pub fn is_zero(&self) -> bool {
        match &self.value {
            Value::Counter(value) => *value == 0,
            Value::Gauge(value) => *value == 0,
            Value::Histogram(distribution) => distribution.count() == 0,
        }
    }
}

impl Distribution {
    /// The sum of all values.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// Number of values.
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The buckets that are not empty: the largest value that belongs in each, and the number of
    /// values in it.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> {
        let all = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        all.map(|(bucket, count)| (buckets::highest(self.bounds, bucket), *count))
    }

    /// Number of values up to `value`, which must be the largest value of a bucket.
    pub(crate) fn count_up_to(&self, value: u64) -> u64 {
        self.buckets().take_while(|(highest, _)| *highest <= value).fold(0, |sum, (_, count)| sum.saturating_add(count))
    }

    /// An estimate of the value that `percent` (0 to 100) of all values do not exceed; 0 if there
    /// are none. It lies in the same bucket as the exact one: without bounds it is off by a quarter
    /// at most, and by an eighth on average. For values beyond the last bound it is the last bound.
    pub fn quantile(&self, percent: u32) -> u64 {
        let count = u128::from(self.count());
        let rank = (count * u128::from(percent.min(100))).div_ceil(100).max(1);
        let mut before = 0_u128;
        for (bucket, in_bucket) in self.counts.iter().enumerate() {
            let in_bucket = u128::from(*in_bucket);
            if in_bucket > 0 && before + in_bucket >= rank {
                let low = buckets::lowest(self.bounds, bucket);
                if let (Some(last), true) = (self.bounds.last(), bucket >= self.bounds.len()) {
                    return *last;
                }
                let width = u128::from(buckets::highest(self.bounds, bucket) - low);
                // The values are taken to be spread evenly over the bucket, each in the middle of
                // its share.
                let place = width * (2 * (rank - before) - 1) / (2 * in_bucket);
                return low.saturating_add(u64::try_from(place).unwrap_or(u64::MAX));
            }
            before += in_bucket;
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) const TOOK: Description =
        Description { module: "m", name: "took", help: "h", kind: Kind::Histogram, unit: Unit::One, bounds: &[] };

    fn distribution(bounds: &'static [u64], values: &[u64]) -> Distribution {
        let mut words = vec![0; 1 + buckets::count(bounds)];
        for value in values {
            words[0] += value;
            words[1 + buckets::index(bounds, *value)] += 1;
        }
        match Sample::from_words(Description { bounds, ..TOOK }, &words).value {
            Value::Histogram(distribution) => distribution,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn quantiles_are_near_the_exact_ones() {
        let mut random = 88_172_645_463_325_252_u64;
        for (values, spread) in [(1_usize, 10), (7, 20), (100, 6), (1000, 30), (1000, 50), (5000, 63)] {
            let mut seen: Vec<u64> = (0..values)
                .map(|_| {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    (random >> (64 - spread)) >> (random % 8)
                })
                .collect();
            let sum = seen.iter().fold(0_u64, |sum, value| sum.wrapping_add(*value));
            let mut words = vec![0; 1 + buckets::LOG_LINEAR];
            seen.iter().for_each(|value| words[1 + buckets::index(&[], *value)] += 1);
            words[0] = sum;
            let Value::Histogram(distribution) = Sample::from_words(TOOK, &words).value else { panic!() };
            seen.sort_unstable();
            assert_eq!((distribution.count(), distribution.sum()), (values as u64, sum));
            for percent in [0, 1, 50, 90, 99, 100, 101] {
                let rank = (values * percent.min(100)).div_ceil(100).max(1);
                let (exact, estimate) = (seen[rank - 1], distribution.quantile(percent as u32));
                assert!(exact.abs_diff(estimate) <= exact / 4, "p{percent} of {values}: {estimate}, exactly {exact}");
                assert_eq!(buckets::index(&[], exact), buckets::index(&[], estimate));
            }
        }
    }

    #[test]
    fn small_numbers_are_exact_and_the_empty_histogram_is_zero() {
        let few = distribution(&[], &[0, 1, 1, 2, 3]);
        assert_eq!([0, 20, 21, 60, 61, 80, 81, 100].map(|percent| few.quantile(percent)), [0, 0, 1, 1, 2, 2, 3, 3]);
        assert_eq!((distribution(&[], &[]).quantile(50), distribution(&[], &[]).count()), (0, 0));
        let own = distribution(&[10, 20], &[5, 15, 10_000, 10_001]);
        assert_eq!((own.quantile(25), own.quantile(50), own.quantile(99)), (5, 15, 20));
        assert_eq!(own.buckets().collect::<Vec<_>>(), [(10, 1), (20, 1), (u64::MAX, 2)]);
        assert_eq!([9, 10, 20, u64::MAX].map(|value| own.count_up_to(value)), [0, 1, 2, 4]);
    }

    #[test]
    fn garbage_in_shared_memory_is_numbers() {
        let words = [u64::MAX; 1 + buckets::LOG_LINEAR];
        for kind in [Kind::Counter, Kind::Gauge, Kind::Histogram] {
            for words in [&words[..], &words[..1], &[]] {
                let sample = Sample::from_words(Description { kind, ..TOOK }, words);
                if let Value::Histogram(distribution) = &sample.value {
                    let quantiles = [0, 50, 100].map(|percent| distribution.quantile(percent));
                    assert!(quantiles.is_sorted(), "{quantiles:?}");
                }
            }
        }
    }

    #[test]
    fn prefixes_are_of_the_full_name() {
        for (prefix, fits) in
            [("", true), ("m", true), ("m.", true), ("m.to", true), ("m.took", true), ("m.tookx", false), ("mt", false), ("took", false)]
        {
            assert_eq!(TOOK.starts_with(prefix), fits, "{prefix}");
            assert_eq!(TOOK.full_name().starts_with(prefix), fits, "{prefix}");
        }
    }
}
