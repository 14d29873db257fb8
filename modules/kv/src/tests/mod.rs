//! Tests of the store as a client sees it, without a network.

mod commands;
mod model;
mod requests;
mod snapshots;

use module_api::Result;
use module_api::testing::{Host, Running};

use crate::commands::context::Scratch;
use crate::connection::{Connection, Sink};
use crate::store::{Quota, Sweep};
use crate::{Child, Kv};

/// Starts the module with these parameters.
pub fn start(params: &[(&str, &str)]) -> Running<Kv> {
    let host = Host::new().shared_memory(64 << 20).param("shards", "4");
    params.iter().fold(host, |host, (name, text)| host.param(name, text)).start::<Kv>().unwrap()
}

/// The state of a process, made without `child_init` so that a test can change it.
pub fn child(seed: u64) -> Child {
    let scratch = Scratch { quota: Quota::new(seed), bytes: Vec::new(), hits: 0, misses: 0 };
    Child { scratch, out: Vec::new(), sweep: Sweep::default(), unsaved_s: 0 }
}

/// Receives replies.
pub struct Replies {
    pub bytes: Vec<u8>,
    /// Bytes until the output queue is full.
    pub room: usize,
    pub is_closed: bool,
}

impl Sink for Replies {
    fn send(&mut self, replies: &[u8]) -> Result<()> {
        assert!(self.room > 0 && !self.is_closed, "sent to a full queue, or after the end");
        self.room = self.room.saturating_sub(replies.len());
        self.bytes.extend_from_slice(replies);
        Ok(())
    }

    fn takes_more(&mut self) -> Result<bool> {
        Ok(self.room > 0)
    }

    fn close(&mut self) {
        self.is_closed = true;
    }
}

/// A client with its connection.
pub struct Peer<'k> {
    kv: &'k Kv,
    child: Child,
    connection: Connection,
    /// Sent bytes that the connection has not used.
    unused: Vec<u8>,
    pub replies: Replies,
}

impl<'k> Peer<'k> {
    pub fn new(kv: &'k Kv) -> Peer<'k> {
        let replies = Replies { bytes: Vec::new(), room: usize::MAX, is_closed: false };
        Peer { kv, child: child(1), connection: Connection::new(7), unused: Vec::new(), replies }
    }

    /// Sends bytes, and passes unused ones again when there is room, as the host does.
    pub fn send(&mut self, bytes: &[u8]) {
        self.unused.extend_from_slice(bytes);
        while !self.replies.is_closed && !self.unused.is_empty() {
            let used = self.connection.serve(self.kv, &mut self.child, &mut self.replies, &self.unused).unwrap();
            assert!(used <= self.unused.len());
            self.unused.drain(..used);
            if self.replies.room > 0 {
                break;
            }
            self.replies.room = 1;
        }
    }

    /// Sends a line of words and returns the replies.
    pub fn ask(&mut self, line: &str) -> String {
        self.ask_bytes(format!("{line}\r\n").as_bytes())
    }

    /// Sends bytes and returns the replies.
    pub fn ask_bytes(&mut self, bytes: &[u8]) -> String {
        self.send(bytes);
        String::from_utf8_lossy(&std::mem::take(&mut self.replies.bytes)).into_owned()
    }
}

/// A request in the format that clients send: an array of bulk strings.
pub fn request(arguments: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        bytes.extend_from_slice(argument);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}
