//! Connections: the TCP main process accepts them, the TCP workers serve them, and every process can name them.
//!
//! *Runs in:* TCP main (`hub`), TCP workers (`server`), main in no-fork mode (both). *Never:* looks into what a connection carries.
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
//! Main keeps both ends of every link, so that any of these processes can be replaced without the others noticing: what stands in a link
//! is read by the successor.

pub mod connection;
pub mod directory;
pub mod exchange;
pub mod hub;
pub mod link;
pub mod output;
pub mod sender;
pub mod server;
pub mod tls;
