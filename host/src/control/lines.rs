//! Bytes of a client, cut into lines of bounded length.
//!
//! *Runs in:* the control process; pure. *Never:* keeps more than one line and one read.

/// The beginning of what a client has sent, up to what was taken out of it.
#[derive(Debug)]
pub(super) struct Lines {
    limit_bytes: usize,
    bytes: Vec<u8>,
    /// No newline is before this.
    searched: usize,
    /// The line that was too long has been reported; its rest is thrown away.
    skipping: bool,
}

/// What can be taken out.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Without its newline.
    Whole(Vec<u8>),
    /// More than the limit. Reported once, whatever its length.
    TooLong,
}

impl Lines {
    pub(super) fn new(limit_bytes: usize) -> Self {
        Self { limit_bytes, bytes: Vec::new(), searched: 0, skipping: false }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next line. None: it has not arrived yet.
    pub(super) fn take(&mut self) -> Option<Line> {
        loop {
            let newline = self.bytes[self.searched..].iter().position(|byte| *byte == b'\n').map(|at| self.searched + at);
            let Some(end) = newline else {
                self.searched = self.bytes.len();
                if self.skipping {
                    self.forget(self.bytes.len());
                } else if self.bytes.len() > self.limit_bytes {
                    self.forget(self.bytes.len());
                    self.skipping = true;
                    return Some(Line::TooLong);
                }
                return None;
            };
            if std::mem::take(&mut self.skipping) {
                self.forget(end + 1);
                continue;
            }
            let line = (end <= self.limit_bytes).then(|| self.bytes[..end].to_vec());
            self.forget(end + 1);
            return Some(line.map_or(Line::TooLong, Line::Whole));
        }
    }

    /// The client sends no more: a last line need not end in a newline.
    pub(super) fn end(&mut self) {
        if !self.bytes.is_empty() && self.bytes.last() != Some(&b'\n') {
            self.bytes.push(b'\n');
        }
    }

    fn forget(&mut self, count: usize) {
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

    fn all(lines: &mut Lines) -> Vec<Line> {
        std::iter::from_fn(|| lines.take()).collect()
    }

    fn whole(text: &str) -> Line {
        Line::Whole(text.as_bytes().to_vec())
    }

    #[test]
    fn lines_come_out_whole_and_long_ones_once() {
        let mut lines = Lines::new(4);
        lines.push(b"ab");
        assert_eq!(all(&mut lines), []);
        lines.push(b"cd\n\nx\ny");
        assert_eq!(all(&mut lines), [whole("abcd"), whole(""), whole("x")]);
        lines.push(b"2345");
        assert_eq!(all(&mut lines), [Line::TooLong]);
        lines.push(b"678901234567890");
        assert_eq!(all(&mut lines), []);
        lines.push(b"12\nnext\n12345\nz");
        assert_eq!(all(&mut lines), [whole("next"), Line::TooLong]);
        lines.end();
        assert_eq!(all(&mut lines), [whole("z")]);
        lines.end();
        assert_eq!(all(&mut lines), []);
    }

    proptest! {
        #[test]
        fn however_bytes_arrive_the_lines_are_the_same(bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..200), step in 1_usize..50) {
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
            let wanted: Vec<Line> =
                wanted.into_iter().map(|line| if line.len() > 16 { Line::TooLong } else { Line::Whole(line.to_vec()) }).collect();
            prop_assert_eq!(seen, wanted);
        }
    }
}
