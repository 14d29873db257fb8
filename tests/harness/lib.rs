//! The harness of the black-box tests. It starts the real host with real modules in a temporary
//! folder, waits for events, and checks at the end that no process is left and that the log has no
//! unexpected warning.
//!
//! The harness names no type of the host. It does not fork and does not sleep: each wait ends with
//! an event or at its deadline.
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

pub use attempt::{Attempt, Complaint, Outcome};
pub use client::Client;
pub use log::Log;
pub use record::{Record, Records};
pub use running::{Ended, Host};
pub use setup::{Fixture, Setup, fixture};
pub use watch::{Deadline, PATIENCE};

/// Whether this test runs as root. If not, a test that needs root is skipped and says so on stderr.
pub fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        // Written directly: the test runner hides the output of tests that pass.
        let _ = writeln!(std::io::stderr(), "{}: needs root: not run", std::thread::current().name().unwrap_or("a test"));
    }
    root
}
