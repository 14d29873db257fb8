//! The `modhost` command.
//!
//! *Runs in:* the starting command, the supervisor, main and its children. *Never:* does anything
//! itself.
#![deny(unsafe_code)]

fn main() -> std::process::ExitCode {
    modhost::program::main()
}
