//! The control socket: `modhost ps`, `stop` and others ask the running host. Each line in either
//! direction is one JSON object.
//!
//! *Runs in:* `server` in the control process, `client` in the commands; `answers` is what both agree
//! on. *Never:* in main: no parser and no slow client may delay it.
//!
//! ```text
//! client ──{"id":1,"method":"ps"}──────────► control process ──Order::Stop──► main
//!        ◄─{"id":1,"result":[...]}──────────      │
//!        ◄─{"id":1,"error":{"what",...}}────      └─ reads the process table
//! ```

pub mod answers;
pub mod client;
mod server;

pub use server::ControlServer;
