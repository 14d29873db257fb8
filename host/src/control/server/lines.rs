//! Cuts the bytes of a client into lines of bounded length.
//!
//! *Runs in:* the control process. *Never:* keeps more than one line and the bytes of one read.
//! *Pure:* no clock, no environment, no system call.

/// The bytes of a client that have not been taken as lines yet.
#[derive(Debug)]
pub(super) struct Lines {
    limit_bytes: usize,
    bytes: Vec<u8>,
    /// Bytes at the beginning that hold no newline.
    searched: usize,
    /// A line that is too long has been reported; the rest of it is discarded.
    skipping: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum ReceivedLine {
    /// Without its newline.
    Whole(Vec<u8>),
    /// Longer than the limit. Reported once, whatever its length.
    TooLong,
}

impl Lines {
    pub(super) fn new(limit_bytes: usize) -> Self {
        Self { limit_bytes, bytes: Vec::new(), searched: 0, skipping: false }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next line. None: its end has not arrived yet.
    pub(super) fn take(&mut self) -> Option<ReceivedLine> {
        loop {
            let newline = self.bytes[self.searched..].iter().position(|byte| *byte == b'\n').map(|at| self.searched + at);
            let Some(end) = newline else {
                self.searched = self.bytes.len();
                if self.skipping {
                    self.discard(self.bytes.len());
                } else if self.bytes.len() > self.limit_bytes {
                    self.discard(self.bytes.len());
                    self.skipping = true;
                    return Some(ReceivedLine::TooLong);
                }
                return None;
            };
            if std::mem::take(&mut self.skipping) {
                self.discard(end + 1);
                continue;
            }
            let line = (end <= self.limit_bytes).then(|| self.bytes[..end].to_vec());
            self.discard(end + 1);
            return Some(line.map_or(ReceivedLine::TooLong, ReceivedLine::Whole));
        }
    }

    /// Called when the client sends no more: its last line may lack the newline.
    pub(super) fn end(&mut self) {
        if !self.bytes.is_empty() && self.bytes.last() != Some(&b'\n') {
            self.bytes.push(b'\n');
        }
    }

    fn discard(&mut self, count: usize) {
        self.bytes.drain(..count);
        self.searched = 0;
        // An idle client keeps no buffer.
        if self.bytes.is_empty() {
            self.bytes = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(lines: &mut Lines) -> Vec<ReceivedLine> {
        std::iter::from_fn(|| lines.take()).collect()
    }

    fn whole(text: &str) -> ReceivedLine {
        ReceivedLine::Whole(text.as_bytes().to_vec())
    }

    #[test]
    fn lines_are_whole_and_long_ones_are_reported_once() {
        let mut lines = Lines::new(4);
        lines.push(b"ab");
        assert_eq!(all(&mut lines), []);
        lines.push(b"cd\n\nx\ny");
        assert_eq!(all(&mut lines), [whole("abcd"), whole(""), whole("x")]);
        lines.push(b"2345");
        assert_eq!(all(&mut lines), [ReceivedLine::TooLong]);
        lines.push(b"678901234567890");
        assert_eq!(all(&mut lines), []);
        lines.push(b"12\nnext\n12345\nz");
        assert_eq!(all(&mut lines), [whole("next"), ReceivedLine::TooLong]);
        lines.end();
        assert_eq!(all(&mut lines), [whole("z")]);
        lines.end();
        assert_eq!(all(&mut lines), []);
    }

    proptest! {
        #[test]
        fn the_lines_do_not_depend_on_how_bytes_arrive(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..200),
            step in 1_usize..50,
        ) {
            let mut lines = Lines::new(16);
            let mut seen = Vec::new();
            for chunk in bytes.chunks(step) {
                lines.push(chunk);
                seen.extend(all(&mut lines));
                prop_assert!(lines.bytes.len() <= 16);
            }
            lines.end();
            seen.extend(all(&mut lines));
            let mut wanted: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
            if wanted.last().is_some_and(|last| last.is_empty()) {
                wanted.pop();
            }
            let wanted: Vec<ReceivedLine> =
                wanted.into_iter().map(|line| if line.len() > 16 { ReceivedLine::TooLong } else { ReceivedLine::Whole(line.to_vec()) }).collect();
            prop_assert_eq!(seen, wanted);
        }
    }
}
