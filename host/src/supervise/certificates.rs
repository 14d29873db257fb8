//! The files of certificates and keys: read with the starting identity, checked in a child, and put
//! where the TCP workers find them.
//!
//! *Runs in:* the supervisor; main in no-fork mode. *Never:* parses what it has read, except in
//! no-fork mode, where there is no other process; never gives up working certificates for broken
//! ones.

use nix::errno::Errno;
use nix::sys::wait::waitpid;
use nix::unistd::{alarm, getpid};

use super::protocol::{FromMain, MainLink, SupervisorLink};
use crate::config::TlsOptions;
use crate::error::{EXIT_FAILED, EXIT_OK, Error, Result};
use crate::sys::process::exit;
use crate::sys::process::fork::{self, Side};
use crate::sys::socket::seqpacket::Link;
use crate::sys::time;
use crate::tls::{Contents, Files, Vault, judge};

/// Time limit of the child that checks; it needs milliseconds.
const JUDGE_LIMIT_S: u32 = 10;

/// The process that checks the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judge {
    /// A child, so that a malicious file cannot harm this process, and no key stays in it.
    Child,
    /// This process.
    Here,
}

/// The certificates of all listeners that have one.
#[derive(Debug)]
pub struct Certificates {
    listeners: Vec<TlsOptions>,
    files: Files,
    vault: Vault,
    judge: Judge,
}

impl Certificates {
    /// Reads them for the first time. None if no listener has a certificate.
    pub fn of(listeners: Vec<TlsOptions>, judge: Judge) -> Result<Option<Self>> {
        if listeners.is_empty() {
            return Ok(None);
        }
        let files = Files::of(listeners.iter());
        let mut certificates = Self { listeners, files, vault: Vault::new()?, judge };
        certificates.read()?;
        Ok(Some(certificates))
    }

    fn read(&mut self) -> Result<()> {
        let contents = self.files.read()?;
        match self.judge {
            Judge::Here => self.judge(&contents)?,
            Judge::Child => self.judge_in_child(&contents)?,
        }
        self.vault.put(&contents)
    }

    /// Reads them again. New connections get the new ones; if something is wrong with these, they
    /// get the old ones.
    pub fn read_again(&mut self) {
        match self.read() {
            Ok(()) => tracing::info!("certificates read again files={}", self.files.count()),
            Err(error) => tracing::error!("the certificates stay as they were: {error}"),
        }
    }

    /// The memory that holds them.
    pub fn vault(&self) -> &Vault {
        &self.vault
    }

    /// The list of files in that memory.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Checks the contents and logs warnings.
    fn judge(&self, contents: &Contents) -> Result<()> {
        let warnings = judge::judge(&self.listeners, &self.files, contents, time::wall_s()).map_err(|mut errors| errors.remove(0))?;
        warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        Ok(())
    }

    fn judge_in_child(&self, contents: &Contents) -> Result<()> {
        let (ours, theirs) = Link::pair()?;
        let parent = getpid();
        let child = match fork::fork(&fork::alone()?)? {
            Side::Child => {
                drop(ours);
                alarm::set(JUDGE_LIMIT_S);
                let code = match fork::die_with_parent(parent).and_then(|()| self.judge(contents)) {
                    Ok(()) => EXIT_OK,
                    // If the message gets lost, the parent sees the exit code.
                    Err(error) => SupervisorLink(theirs).tell(&FromMain::Failed(error)).map_or(EXIT_FAILED, |()| EXIT_FAILED),
                };
                exit::leave_now(code)
            }
            Side::Parent(child) => child,
        };
        drop(theirs);
        let status = loop {
            match waitpid(child, None) {
                Err(Errno::EINTR) => {}
                Ok(status) => break status,
                Err(errno) => {
                    return Err(Error::failed("cannot wait for the judge of certificates").detail(format_args!("waitpid: {errno}")));
                }
            }
        };
        match (MainLink(ours).poll()?, status) {
            (Some(FromMain::Failed(error)), _) => Err(error),
            (_, nix::sys::wait::WaitStatus::Exited(_, 0)) => Ok(()),
            (_, status) => Err(Error::fault("the process that judges certificates has died").detail(format_args!("{status:?}"))),
        }
    }
}
