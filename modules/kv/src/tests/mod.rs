//! The store as a client sees it, without a network.

mod commands;
mod model;
mod requests;
mod snapshots;

use module_api::Result;
use module_api::testing::{Host, Running};

use crate::session::{Session, Sink};
use crate::{Child, Kv};

/// A host with the module, parameters given.
pub fn start(params: &[(&str, &str)]) -> Running<Kv> {
    let host = Host::new().shared_memory(64 << 20).param("shards", "4");
    params.iter().fold(host, |host, (name, text)| host.param(name, text)).start::<Kv>().unwrap()
}

/// What a process has for itself, made by hand so that a test can have it mutably.
pub fn child(seed: u64) -> Child {
    use crate::call::Work;
    let work = Work { room: crate::store::Room::new(seed), bytes: Vec::new(), hits: 0, misses: 0 };
    Child { work, out: Vec::new(), sweep: crate::store::Sweep::default(), unsaved_s: 0 }
}

/// Takes replies, at most so many bytes at a time.
pub struct Replies {
    pub bytes: Vec<u8>,
    pub room: usize,
    pub closed: bool,
}

impl Sink for Replies {
    fn send(&mut self, replies: &[u8]) -> Result<()> {
        assert!(self.room > 0 && !self.closed, "sent when there is no room, or after the end");
        self.room = self.room.saturating_sub(replies.len());
        self.bytes.extend_from_slice(replies);
        Ok(())
    }

    fn takes_more(&mut self) -> Result<bool> {
        Ok(self.room > 0)
    }

    fn close(&mut self) {
        self.closed = true;
    }
}

/// A connection.
pub struct Peer<'k> {
    kv: &'k Kv,
    child: Child,
    session: Session,
    unused: Vec<u8>,
    pub replies: Replies,
}

impl<'k> Peer<'k> {
    pub fn new(kv: &'k Kv) -> Peer<'k> {
        let replies = Replies { bytes: Vec::new(), room: usize::MAX, closed: false };
        Peer { kv, child: child(1), session: Session::new(7), unused: Vec::new(), replies }
    }

    /// Sends bytes, as a host would pass them on.
    pub fn send(&mut self, bytes: &[u8]) {
        self.unused.extend_from_slice(bytes);
        while !self.replies.closed && !self.unused.is_empty() {
            let used = self.session.serve(self.kv, &mut self.child, &mut self.replies, &self.unused).unwrap();
            assert!(used <= self.unused.len());
            self.unused.drain(..used);
            if self.replies.room > 0 {
                break;
            }
            self.replies.room = 1;
        }
    }

    /// Sends a line of words and returns what came back.
    pub fn ask(&mut self, line: &str) -> String {
        self.ask_bytes(format!("{line}\r\n").as_bytes())
    }

    /// Sends bytes and returns what came back.
    pub fn ask_bytes(&mut self, bytes: &[u8]) -> String {
        self.send(bytes);
        String::from_utf8_lossy(&std::mem::take(&mut self.replies.bytes)).into_owned()
    }
}

/// A request as clients send it.
pub fn request(arguments: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        bytes.extend_from_slice(argument);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}
