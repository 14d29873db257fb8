//! The output queue of a connection: bytes, and pieces of files.
//!
//! *Runs in:* TCP workers, main in no-fork mode. *Never:* waits.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use crate::sys::socket::accept::SendHint;
use nix::errno::Errno;

/// A segment of bytes does not grow past this; the next bytes begin another one.
const SEGMENT_BYTES: usize = 256 << 10;

/// Takes a queue's output. Both functions send a beginning and return its length.
pub trait OutputSink {
    fn send(&mut self, bytes: &[u8], hint: SendHint) -> Result<usize, Errno>;
    /// Advances `offset`. 0: the file is shorter than it was.
    fn send_file(&mut self, file: &OwnedFd, offset: &mut u64, bytes: u64) -> Result<usize, Errno>;
}

#[derive(Debug)]
enum Segment {
    Bytes {
        bytes: Vec<u8>,
        /// How many of them are sent.
        sent: usize,
    },
    File {
        file: OwnedFd,
        offset: u64,
        /// Bytes that are not sent.
        left: u64,
    },
}

#[derive(Debug, Default)]
pub struct OutputQueue {
    segments: VecDeque<Segment>,
    queued_bytes: u64,
}

impl OutputQueue {
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    #[inline]
    pub fn queued_bytes(&self) -> u64 {
        self.queued_bytes
    }

    /// Queues a copy.
    pub fn push(&mut self, more: &[u8]) {
        if more.is_empty() {
            return;
        }
        self.queued_bytes += more.len() as u64;
        if let Some(Segment::Bytes { bytes, .. }) = self.segments.back_mut()
            && bytes.len() + more.len() <= SEGMENT_BYTES
        {
            bytes.extend_from_slice(more);
            return;
        }
        self.segments.push_back(Segment::Bytes { bytes: more.to_vec(), sent: 0 });
    }

    /// Queues a piece of a file.
    pub fn push_file(&mut self, file: OwnedFd, offset: u64, left: u64) {
        if left > 0 {
            self.queued_bytes += left;
            self.segments.push_back(Segment::File { file, offset, left });
        }
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Sends as much as the sink takes. True: nothing is left.
    ///
    /// # Errors
    /// Each ends the connection. `ENODATA`: a file has become shorter.
    pub fn flush(&mut self, sink: &mut impl OutputSink) -> Result<bool, Errno> {
        loop {
            let hint = if self.segments.len() > 1 { SendHint::MoreFollows } else { SendHint::Complete };
            let Some(first) = self.segments.front_mut() else { return Ok(true) };
            let (outcome, done) = match first {
                Segment::Bytes { bytes, sent } => {
                    let outcome = sink.send(&bytes[*sent..], hint);
                    *sent += *outcome.as_ref().unwrap_or(&0);
                    (outcome, *sent == bytes.len())
                }
                Segment::File { file, offset, left } => {
                    let outcome = sink.send_file(file, offset, *left);
                    if outcome == Ok(0) {
                        return Err(Errno::ENODATA);
                    }
                    *left -= *outcome.as_ref().unwrap_or(&0) as u64;
                    (outcome, *left == 0)
                }
            };
            match outcome {
                Ok(sent) => self.queued_bytes -= sent as u64,
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => return Ok(false),
                Err(errno) => return Err(errno),
            }
            if done {
                self.segments.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use super::*;

    /// Takes `at_once` bytes at a time, and nothing each third time.
    struct SlowSink {
        received: Vec<u8>,
        calls: usize,
        at_once: usize,
    }

    impl SlowSink {
        fn take(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
            self.calls += 1;
            if self.calls.is_multiple_of(3) {
                return Err(Errno::EAGAIN);
            }
            let count = bytes.len().min(self.at_once);
            self.received.extend_from_slice(&bytes[..count]);
            Ok(count)
        }
    }

    impl OutputSink for SlowSink {
        fn send(&mut self, bytes: &[u8], _: SendHint) -> Result<usize, Errno> {
            self.take(bytes)
        }

        fn send_file(&mut self, file: &OwnedFd, offset: &mut u64, bytes: u64) -> Result<usize, Errno> {
            let mut piece = vec![0; (bytes as usize).min(100)];
            let count = File::from(file.try_clone().unwrap()).read_at(&mut piece, *offset).unwrap();
            let taken = self.take(&piece[..count])?;
            *offset += taken as u64;
            Ok(taken)
        }
    }

    #[test]
    fn a_slow_sink_gets_everything_in_order() {
        let text: Vec<u8> = (0..1000_u32).map(|byte| byte as u8).collect();
        let path = std::env::temp_dir().join(format!("modhost-output-{}", std::process::id()));
        std::fs::write(&path, &text).unwrap();
        let mut output = OutputQueue::default();
        output.push(&text[..10]);
        output.push(&text[10..300]);
        output.push_file(File::open(&path).unwrap().into(), 300, 400);
        output.push(&text[700..]);
        output.push(&[]);
        assert_eq!(output.queued_bytes(), 1000);
        let mut sink = SlowSink { received: Vec::new(), calls: 0, at_once: 7 };
        while !output.flush(&mut sink).unwrap() {}
        assert!(sink.received == text);
        assert!(output.is_empty() && output.queued_bytes() == 0);
        // The file has fewer bytes than were promised.
        output.push_file(File::open(&path).unwrap().into(), 990, 20);
        let end = loop {
            match output.flush(&mut sink) {
                Ok(done) => assert!(!done),
                Err(errno) => break errno,
            }
        };
        assert_eq!(end, Errno::ENODATA);
        std::fs::remove_file(&path).unwrap();
    }
}
