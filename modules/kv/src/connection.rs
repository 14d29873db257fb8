//! A connection: parses requests, runs their commands, and sends the replies of many commands
//! together.
//!
//! Runs in TCP workers.

use module_api::Result;

use crate::commands::context::{Client, CommandContext};
use crate::request::{Parsed, Parser};
use crate::store::now_ms;
use crate::{Child, Kv};

/// Replies are sent when they have this many bytes.
const SEND_BYTES: usize = 32 << 10;
/// Memory for replies that a process keeps.
const REPLIES_KEPT_BYTES: usize = 256 << 10;

/// Where replies go.
pub trait Sink {
    /// Queues replies. Call it after `takes_more` has returned true, or if nothing was sent since
    /// the host passed the bytes.
    fn send(&mut self, replies: &[u8]) -> Result<()>;
    /// Whether more replies can be queued. If not, the host passes the unused requests again when
    /// they can.
    fn takes_more(&mut self) -> Result<bool>;
    /// Closes the connection after the queued replies.
    fn close(&mut self);
}

#[derive(Debug, Default)]
pub struct Connection {
    parser: Parser,
    client: Client,
}

impl Connection {
    /// `id` is the host's id of the connection.
    pub fn new(id: u64) -> Connection {
        Connection { parser: Parser::default(), client: Client { id, ..Client::default() } }
    }

    /// Answers the requests at the beginning of `data`. Returns how many bytes are used.
    pub fn serve(&mut self, kv: &Kv, child: &mut Child, sink: &mut impl Sink, data: &[u8]) -> Result<usize> {
        let Child { scratch, out, .. } = child;
        let now_ms = now_ms();
        let (mut used, mut commands, mut is_over) = (0, 0_u64, false);
        while let Some(rest) = data.get(used..)
            && !rest.is_empty()
        {
            match self.parser.parse(rest, kv.limits.value_bytes) {
                Parsed::Request(len) => {
                    let arguments = self.parser.arguments(rest);
                    if arguments.len() > 0 {
                        commands += 1;
                        let (client, store) = (&mut self.client, &kv.store);
                        let (limits, snapshots) = (&kv.limits, &kv.snapshots);
                        CommandContext { store, limits, snapshots, client, scratch, arguments, out, now_ms }.run();
                    }
                    self.parser.forget();
                    used += len;
                    is_over = self.client.quits;
                }
                Parsed::Incomplete => break,
                Parsed::Invalid(error) => {
                    error.write(out);
                    is_over = true;
                }
            }
            if is_over {
                // The bytes after the last request are dropped.
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
        if out.capacity() > REPLIES_KEPT_BYTES {
            *out = Vec::new();
        }
        if is_over {
            sink.close();
        }
        kv.commands.add(commands);
        for (counter, count) in [(kv.hits, &mut scratch.hits), (kv.misses, &mut scratch.misses)] {
            if *count > 0 {
                counter.add(std::mem::take(count));
            }
        }
        Ok(used)
    }
}
