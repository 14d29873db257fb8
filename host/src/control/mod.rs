//! The control socket: `modhost ps`, `stop` and others ask the running host. Each line in either
//! direction is one JSON object.
//!
//! *Runs in:* `server` in the control process, `client` in the commands; both use `answers`.
//! *Never:* in main: no parser and no slow client may delay it.
//!
//! ```text
//! client ──{"id":1,"method":"stop"}──► control process ──MainOrder──► main
//!        ◄─{"id":1,"result":{...}}────      │
//!        ◄─{"id":1,"error":{...}}─────      └─ reads the process table
//! ```

pub(crate) mod answers;
pub mod client;
mod server;

pub use server::ControlServer;
