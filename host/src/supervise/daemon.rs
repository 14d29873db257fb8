//! Daemon mode: the starting command waits until the service is ready, and reports the outcome to
//! the operator.
//!
//! *Runs in:* the starting command and the supervisor it forks. *Never:* reports success before
//! everything runs.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::OFlag;
use nix::sys::wait::waitpid;
use nix::unistd::{pipe2, setsid};

use crate::error::{EXIT_FAILED, EXIT_OK, Error, Result};
use crate::sys::descriptor;
use crate::sys::process::fork::{Side, alone, fork};

/// The supervisor's end of the pipe to the starting command.
#[derive(Debug)]
pub struct Starter {
    pipe: File,
}

/// The process that `detach` returns in.
#[derive(Debug)]
pub enum Detached {
    /// The starting command, once the service is ready or has failed.
    Starter(Result<()>),
    /// The supervisor, leader of a new session without a terminal.
    Supervisor(Starter),
}

/// Forks into the background.
#[inline(never)]
pub fn detach() -> Result<Detached> {
    let failed = |call: &str, errno: nix::errno::Errno| Error::failed("cannot go into daemon mode").detail(format!("{call}: {errno}"));
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).map_err(|errno| failed("pipe", errno))?;
    match fork(&alone()?)? {
        Side::Parent(supervisor) => {
            drop(writer);
            let outcome = read_report(File::from(reader));
            if outcome.is_err() {
                // The supervisor ends after its report: nothing is left when this command returns.
                let _ = waitpid(supervisor, None);
            }
            Ok(Detached::Starter(outcome))
        }
        Side::Child => {
            drop(reader);
            // The child of a command is never a group leader, so `setsid` succeeds, and the
            // session's id is this pid.
            setsid().map_err(|errno| failed("setsid", errno))?;
            leave_terminal(&writer)?;
            std::env::set_current_dir("/")
                .map_err(|error| Error::failed("cannot go into daemon mode").detail(format!("chdir to /: {error}")))?;
            Ok(Detached::Supervisor(Starter { pipe: File::from(writer) }))
        }
    }
}

/// Waits for the report. A pipe that closes without one means that the supervisor died.
fn read_report(mut pipe: File) -> Result<()> {
    let mut report = Vec::new();
    pipe.read_to_end(&mut report).map_err(|error| Error::failed("cannot hear from the service").detail(format!("read: {error}")))?;
    match report.split_first() {
        None => Err(Error::failed("the service died while starting").hint("see its log")),
        Some((&EXIT_OK, _)) => Ok(()),
        Some((&exit, text)) => {
            let text = String::from_utf8_lossy(text).into_owned();
            let mut parts = text.splitn(3, '\0').map(str::to_owned);
            let mut next = || parts.next().unwrap_or_default();
            Err(Error { what: next(), detail: next(), hint: next(), exit })
        }
    }
}

impl Starter {
    /// Reports the outcome of the start.
    pub fn report(mut self, outcome: Result<(), &Error>) {
        let bytes = match outcome {
            Ok(()) => vec![EXIT_OK],
            Err(error) => {
                let mut bytes = vec![if error.exit == EXIT_OK { EXIT_FAILED } else { error.exit }];
                bytes.extend_from_slice(format!("{}\0{}\0{}", error.what, error.detail, error.hint).as_bytes());
                bytes
            }
        };
        if let Err(error) = self.pipe.write_all(&bytes) {
            tracing::warn!("cannot report to the starting command: {error}");
        }
        if outcome.is_err() {
            // Left open until this process ends: the starting command returns when the pipe closes,
            // and nothing of the service is left then.
            std::mem::forget(self.pipe);
        }
    }

    /// The pipe. Only the supervisor may have it.
    pub fn pipe(&self) -> &File {
        &self.pipe
    }
}

/// Redirects standard input, output and error to /dev/null and closes everything else that the
/// command inherited: a terminal or a pipe that waits for its end must not wait for the service's.
fn leave_terminal(keep: &OwnedFd) -> Result<()> {
    let failed = |error: std::io::Error| Error::failed("cannot leave the terminal").detail(error);
    descriptor::close_others(keep.as_fd()).map_err(|errno| failed(errno.into()))?;
    let nowhere = OpenOptions::new().read(true).write(true).open("/dev/null").map_err(failed)?;
    for stream in [std::io::stdin().as_fd(), std::io::stdout().as_fd(), std::io::stderr().as_fd()] {
        descriptor::replace_standard(stream, nowhere.as_fd()).map_err(|errno| failed(errno.into()))?;
    }
    Ok(())
}
