//! Connections: the TCP main process accepts them, the TCP workers serve them, and every process
//! can send on them.
//!
//! *Runs in:* TCP main (`tcp_main`), TCP workers (`server`), main in no-fork mode (`server`).
//! *Never:* interprets what a connection carries.
//!
//! ```text
//! TCP main                         TCP worker 1 .. n
//! accept a batch
//! choose the least loaded worker
//! descriptors ── link ───────────► open, read, handler, send, close
//!
//! process with a link
//! bytes for a connection ─ link ─► TCP main ─ link ─► its worker: queued
//!              ◄─ link ─ answer ◄─ TCP main ◄─ link ─ answer
//! ```
//!
//! Main keeps both ends of every link, so each of these processes can be replaced without the
//! others noticing: the successor reads what is in its links.

mod connection;
pub mod directory;
pub(crate) mod handler_call;
mod inbox;
mod messages;
mod output;
pub(crate) mod sender;
pub(crate) mod server;
pub(crate) mod tcp_main;
mod tls;
