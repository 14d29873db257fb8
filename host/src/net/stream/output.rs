//! What is queued on a connection: bytes, and pieces of files that the kernel sends by itself.
//!
//! *Runs in:* TCP workers, main in no-fork mode. *Never:* waits.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use nix::errno::Errno;

/// A vector that has grown past this is not extended any more: the next bytes start another one.
const SEGMENT_BYTES: usize = 256 << 10;

/// Where the queue goes.
pub trait Sink {
    /// Sends the beginning of `bytes`. `more`: something else follows at once.
    fn send(&mut self, bytes: &[u8], more: bool) -> Result<usize, Errno>;
    /// Sends the beginning of a piece of a file and moves `offset`. 0: the file is shorter than it was.
    fn send_file(&mut self, file: &OwnedFd, offset: &mut u64, bytes: u64) -> Result<usize, Errno>;
}

/// A part of the queue.
#[derive(Debug)]
pub enum Segment {
    /// Bytes from `from` on.
    Bytes {
        /// The bytes, those that are sent already included.
        bytes: Vec<u8>,
        /// How many are sent.
        from: usize,
    },
    /// A piece of a file.
    File {
        /// The file.
        file: OwnedFd,
        /// Where the piece begins.
        offset: u64,
        /// How long it is.
        left: u64,
    },
}

/// The queue.
#[derive(Debug, Default)]
pub struct Output {
    segments: VecDeque<Segment>,
    queued_bytes: u64,
}

impl Output {
    /// Whether nothing is queued.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Bytes queued.
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
        self.segments.push_back(Segment::Bytes { bytes: more.to_vec(), from: 0 });
    }

    /// Queues a piece of a file.
    pub fn push_file(&mut self, file: OwnedFd, offset: u64, left: u64) {
        if left > 0 {
            self.queued_bytes += left;
            self.segments.push_back(Segment::File { file, offset, left });
        }
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Sends what the sink takes. True: nothing is left. An error, also a file that has become shorter (`ENODATA`), ends the connection.
    pub fn drain(&mut self, sink: &mut impl Sink) -> Result<bool, Errno> {
        loop {
            let more = self.segments.len() > 1;
            let Some(first) = self.segments.front_mut() else { return Ok(true) };
            let (outcome, done) = match first {
                Segment::Bytes { bytes, from } => {
                    let outcome = sink.send(&bytes[*from..], more);
                    *from += *outcome.as_ref().unwrap_or(&0);
                    (outcome, *from == bytes.len())
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

    /// Takes so many bytes at a time, and nothing each third time.
    struct Slow {
        received: Vec<u8>,
        calls: usize,
        at_once: usize,
    }

    impl Slow {
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

    impl Sink for Slow {
        fn send(&mut self, bytes: &[u8], _: bool) -> Result<usize, Errno> {
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
    fn everything_arrives_in_order_however_slowly() {
        let text: Vec<u8> = (0..1000_u32).map(|byte| byte as u8).collect();
        let path = std::env::temp_dir().join(format!("modhost-output-{}", std::process::id()));
        std::fs::write(&path, &text).unwrap();
        let mut output = Output::default();
        output.push(&text[..10]);
        output.push(&text[10..300]);
        output.push_file(File::open(&path).unwrap().into(), 300, 400);
        output.push(&text[700..]);
        output.push(&[]);
        assert_eq!(output.queued_bytes(), 1000);
        let mut sink = Slow { received: Vec::new(), calls: 0, at_once: 7 };
        while !output.drain(&mut sink).unwrap() {}
        assert!(sink.received == text);
        assert!(output.is_empty() && output.queued_bytes() == 0);
        // The file has fewer bytes than were promised.
        output.push_file(File::open(&path).unwrap().into(), 990, 20);
        let end = loop {
            match output.drain(&mut sink) {
                Ok(done) => assert!(!done),
                Err(errno) => break errno,
            }
        };
        assert_eq!(end, Errno::ENODATA);
        std::fs::remove_file(&path).unwrap();
    }
}
