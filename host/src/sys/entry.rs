//! How the program begins: called by the C library, without the standard library's own preparations in between.
//!
//! Those would read `/proc/self/maps` for a message about overflowed stacks, and map a signal stack that every fork then copies:
//! a twentieth of a start in all. What of them matters here is done here. A process whose stack overflows dies of SIGSEGV, which the log says;
//! the thread that runs the program has no name in a panic's message. `std::env` gets the arguments from glibc, without those preparations.
//!
//! *Runs in:* the starting command, before anything else. *Never:* returns with output that was not written.

use std::ffi::{c_char, c_int};
use std::os::fd::IntoRawFd;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::stat::Mode;

use super::title::Arguments;
use crate::error::{Error, Result};

#[cfg(not(target_env = "gnu"))]
compile_error!("constructors must be given the program's arguments, as glibc does");

/// Runs `program` and ends the process with its exit code. It is given the arguments, or why the process cannot be used.
///
/// # Safety
/// As the C library calls `main`: once, with the arguments where `exec` has put them, in a process of one thread.
pub unsafe fn enter(argument_count: c_int, arguments: *mut *mut c_char, program: impl FnOnce(Result<Arguments>) -> u8) -> c_int {
    // SAFETY: the caller's promise.
    let code = program(prepare().map(|()| unsafe { Arguments::of_main(argument_count, arguments) }));
    // Not by returning: this flushes the standard output.
    std::process::exit(c_int::from(code))
}

fn prepare() -> Result<()> {
    // Else something that is opened later would be taken for one of them.
    occupy_standard_descriptors().map_err(|error| Error::failed("cannot open /dev/null for a closed standard descriptor").detail(error))?;
    // A pipe whose reader has gone away is an error of the call that writes.
    // SAFETY: no handler is installed.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigIgn) }.map(drop).map_err(|errno| Error::failed("cannot ignore SIGPIPE").detail(errno))
}

/// Standard descriptors that the caller has closed lead to /dev/null.
fn occupy_standard_descriptors() -> Result<(), Errno> {
    for standard in 0..=2 {
        // SAFETY: takes numbers; whether something is open there is what is asked.
        if unsafe { libc::fcntl(standard, libc::F_GETFD) } == -1 && Errno::last() == Errno::EBADF {
            // The lowest free number is this one.
            let _stays_open = open("/dev/null", OFlag::O_RDWR, Mode::empty())?.into_raw_fd();
        }
    }
    Ok(())
}

/// The program's `main`.
#[macro_export]
macro_rules! program {
    ($program:path) => {
        #[allow(unsafe_code)]
        #[unsafe(no_mangle)]
        extern "C" fn main(argument_count: std::ffi::c_int, arguments: *mut *mut std::ffi::c_char) -> std::ffi::c_int {
            // SAFETY: this is what the C library calls.
            unsafe { $crate::sys::entry::enter(argument_count, arguments, $program) }
        }
    };
}
