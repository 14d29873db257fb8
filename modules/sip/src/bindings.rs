//! The format of the bindings of one address-of-record in shared memory. They are read in place,
//! and every change writes a new list.
//!
//! Pure. Any bytes can be read: a damaged list ends at the first binding that is not complete.
//!
//! ```text
//! until u32 | cseq u32 | call u64 | transaction u32 | q u16 | uri length u16 | params length u16
//! uri | params
//! ```
//! in the machine's byte order, without gaps, in order of preference.

/// Bytes of a binding without its texts.
const FIXED: usize = 26;

/// A contact of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding<'s> {
    /// When it expires, in seconds of the server's clock.
    pub until: u32,
    /// CSeq number of the REGISTER that made it.
    pub cseq: u32,
    /// Hash of that request's Call-ID.
    pub call: u64,
    /// Hash that identifies that request's transaction.
    pub transaction: u32,
    /// Preference in thousandths; `NO_Q` if the client gave none.
    pub q: u16,
    pub uri: &'s [u8],
    /// Parameters other than `q` and `expires`, each with its semicolon.
    pub params: &'s [u8],
}

/// No preference given. Counts as the highest.
pub const NO_Q: u16 = u16::MAX;

/// Iterates over the bindings that have not expired at `now`, in seconds of the server's clock.
#[derive(Debug, Clone)]
pub struct Bindings<'s> {
    bytes: &'s [u8],
    now: u32,
}

impl<'s> Bindings<'s> {
    pub fn at(bytes: &'s [u8], now: u32) -> Bindings<'s> {
        Bindings { bytes, now }
    }
}

impl<'s> Iterator for Bindings<'s> {
    type Item = Binding<'s>;

    #[inline]
    fn next(&mut self) -> Option<Binding<'s>> {
        loop {
            let (binding, length) = read(self.bytes)?;
            self.bytes = &self.bytes[length..];
            if binding.until > self.now {
                return Some(binding);
            }
        }
    }
}

fn part<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

fn read(bytes: &[u8]) -> Option<(Binding<'_>, usize)> {
    let uri_end = FIXED + usize::from(u16::from_ne_bytes(part(bytes, 22)?));
    let end = uri_end + usize::from(u16::from_ne_bytes(part(bytes, 24)?));
    let binding = Binding {
        until: u32::from_ne_bytes(part(bytes, 0)?),
        cseq: u32::from_ne_bytes(part(bytes, 4)?),
        call: u64::from_ne_bytes(part(bytes, 8)?),
        transaction: u32::from_ne_bytes(part(bytes, 16)?),
        q: u16::from_ne_bytes(part(bytes, 20)?),
        uri: bytes.get(FIXED..uri_end)?,
        params: bytes.get(uri_end..end)?,
    };
    Some((binding, end))
}

/// Appends a binding. `None` if a text is longer than 65,535 bytes.
pub fn write(bytes: &mut Vec<u8>, binding: &Binding<'_>) -> Option<()> {
    let (uri_length, params_length) = (u16::try_from(binding.uri.len()).ok()?, u16::try_from(binding.params.len()).ok()?);
    bytes.extend_from_slice(&binding.until.to_ne_bytes());
    bytes.extend_from_slice(&binding.cseq.to_ne_bytes());
    bytes.extend_from_slice(&binding.call.to_ne_bytes());
    bytes.extend_from_slice(&binding.transaction.to_ne_bytes());
    bytes.extend_from_slice(&binding.q.to_ne_bytes());
    bytes.extend_from_slice(&uri_length.to_ne_bytes());
    bytes.extend_from_slice(&params_length.to_ne_bytes());
    bytes.extend_from_slice(binding.uri);
    bytes.extend_from_slice(binding.params);
    Some(())
}

/// Copies all bindings of `from` in order of preference. Equal ones keep their order.
pub fn write_sorted(bytes: &mut Vec<u8>, from: &[u8]) {
    let mut below = u32::from(NO_Q) + 1;
    while let Some(highest) = Bindings::at(from, 0).map(|binding| u32::from(binding.q)).filter(|q| *q < below).max() {
        for binding in Bindings::at(from, 0).filter(|binding| u32::from(binding.q) == highest) {
            write(bytes, &binding);
        }
        below = highest;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn binding(until: u32, q: u16, uri: &'static [u8]) -> Binding<'static> {
        Binding { until, cseq: 7, call: u64::MAX - 1, transaction: 9, q, uri, params: b";x=y" }
    }

    #[test]
    fn bindings_are_read_as_they_were_written() {
        let (one, two, three) = (binding(10, 500, b"sip:1"), binding(20, NO_Q, b"sip:2"), binding(30, 500, b""));
        let mut bytes = Vec::new();
        for binding in [&one, &two, &three] {
            write(&mut bytes, binding).unwrap();
        }
        assert!(Bindings::at(&bytes, 0).eq([one, two, three]));
        assert!(Bindings::at(&bytes, 10).eq([two, three]), "a binding has expired at `until`");
        let mut sorted = Vec::new();
        write_sorted(&mut sorted, &bytes);
        assert!(Bindings::at(&sorted, 0).eq([two, one, three]));
        assert_eq!(write(&mut bytes, &Binding { uri: &[0; 65_536], ..one }), None);
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_read(bytes in proptest::collection::vec(any::<u8>(), 0..200), now: u32) {
            let read: usize = Bindings::at(&bytes, now).map(|binding| FIXED + binding.uri.len() + binding.params.len()).sum();
            prop_assert!(read <= bytes.len());
            let mut sorted = Vec::new();
            write_sorted(&mut sorted, &bytes);
            prop_assert!(sorted.len() <= bytes.len());
        }
    }
}
