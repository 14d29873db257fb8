//! The black box's handles: starts the real host with real modules in a folder of its own, waits for what it does, and checks at the end
//! that nothing of it is left and that its log holds no warning that the test did not expect.
//!
//! Nothing here knows a type of the host. Nothing here forks by hand, and nothing pauses: each wait ends with an event or its deadline.
//!
//! ```text
//! Setup ──start()──► Host ──stop()──► Ended
//!       ──fails()───────────────────► Ended
//! ```

use std::io::Write as _;

pub mod attempt;
pub mod built;
pub mod client;
pub mod log;
pub mod processes;
pub mod record;
pub mod running;
pub mod setup;
pub mod watch;

pub use attempt::{Attempt, Complaint, Said};
pub use client::Client;
pub use log::Log;
pub use record::{Record, Records};
pub use running::{Ended, Host};
pub use setup::{Fixture, Setup, fixture};
pub use watch::{Deadline, PATIENCE};

/// Whether this test runs as root. A test that needs it is not run otherwise, and this says so on stderr.
pub fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        // Past the test runner, which keeps what a passing test prints to itself.
        let _ = writeln!(std::io::stderr(), "{}: needs root: not run", std::thread::current().name().unwrap_or("a test"));
    }
    root
}
