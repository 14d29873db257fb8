//! A connection: takes requests apart, runs them, and sends the replies of many together.

use module_api::Result;

use crate::call::{Call, Client};
use crate::request::{Parsed, Parser};
use crate::store::now_ms;
use crate::{Child, Kv};

/// Replies are handed over when they are so many bytes.
const SEND_BYTES: usize = 32 << 10;
/// Room for replies that a process keeps.
const KEPT_BYTES: usize = 256 << 10;

/// Where replies go.
pub trait Sink {
    /// Takes replies. It has said that it takes more, or nothing was sent in this call.
    fn send(&mut self, replies: &[u8]) -> Result<()>;
    /// Whether it will take more. If not, the rest of the requests comes again when it does.
    fn takes_more(&mut self) -> Result<bool>;
    /// Nothing follows.
    fn close(&mut self);
}

/// See the file's head.
#[derive(Debug, Default)]
pub struct Session {
    parser: Parser,
    client: Client,
}

impl Session {
    /// For the connection of this number.
    pub fn new(id: u64) -> Session {
        Session { parser: Parser::default(), client: Client { id, ..Client::default() } }
    }

    /// Answers the requests at the beginning of `data`. Returns how many bytes they are.
    pub fn serve(&mut self, kv: &Kv, child: &mut Child, sink: &mut impl Sink, data: &[u8]) -> Result<usize> {
        let Child { work, out, .. } = child;
        let now_ms = now_ms();
        let (mut used, mut commands, mut ends) = (0, 0_u64, false);
        while let Some(rest) = data.get(used..)
            && !rest.is_empty()
        {
            match self.parser.parse(rest, kv.limits.value_bytes) {
                Parsed::Request(len) => {
                    let arguments = self.parser.arguments(rest);
                    if arguments.len() > 0 {
                        commands += 1;
                        let (client, store) = (&mut self.client, &kv.store);
                        Call { store, limits: &kv.limits, saving: &kv.saving, client, work, arguments, out, now_ms }.run();
                    }
                    self.parser.forget();
                    used += len;
                    ends = self.client.quits;
                }
                Parsed::Incomplete => break,
                Parsed::Wrong(wrong) => {
                    wrong.say(out);
                    ends = true;
                }
            }
            if ends {
                // What follows is nobody's.
                used = data.len();
                break;
            }
            if out.len() >= SEND_BYTES {
                sink.send(out)?;
                out.clear();
                if !sink.takes_more()? {
                    break;
                }
            }
        }
        if !out.is_empty() {
            let sent = sink.send(out);
            out.clear();
            sent?;
        }
        if out.capacity() > KEPT_BYTES {
            *out = Vec::new();
        }
        if ends {
            sink.close();
        }
        kv.commands.add(commands);
        for (counter, count) in [(kv.hits, &mut work.hits), (kv.misses, &mut work.misses)] {
            if *count > 0 {
                counter.add(std::mem::take(count));
            }
        }
        Ok(used)
    }
}
