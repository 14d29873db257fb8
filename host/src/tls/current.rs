//! The certificates that new connections get: looked at for each of them, made anew when the supervisor has put others into the vault.
//!
//! *Runs in:* TCP workers, main in no-fork mode. *Never:* drops what works for what does not.

use std::sync::Arc;

use rustls::{ServerConfig, ServerConnection};

use super::files::{Contents, Files};
use super::judge;
use super::vault::{Unread, VaultReader};
use crate::config::TlsOptions;
use crate::error::{Error, Result};
use crate::sys::time;

/// A vault that is being written is looked at again so many times, a millisecond apart.
const ATTEMPTS: usize = 1000;

/// Where certificates come from.
#[derive(Debug)]
pub struct Source {
    /// Where they lie.
    pub reader: VaultReader,
    /// What lies there.
    pub files: Files,
}

/// See the file's head.
#[derive(Debug)]
pub struct Current {
    source: &'static Source,
    /// By the listener's place.
    options: Vec<Option<&'static TlsOptions>>,
    configs: Vec<Option<Arc<ServerConfig>>>,
    generation: u64,
}

impl Current {
    /// What is in the vault now; `options` by the listener's place.
    pub fn load(source: &'static Source, options: Vec<Option<&'static TlsOptions>>) -> Result<Self> {
        let mut current = Self { source, configs: Vec::new(), options, generation: 0 };
        for _ in 0..ATTEMPTS {
            match source.reader.newer_than(0) {
                Ok(Some((generation, contents))) => {
                    current.take(generation, &contents)?;
                    return Ok(current);
                }
                Ok(None) | Err(Unread::Busy) => time::sleep_until_ns(time::now_ns() + 1_000_000),
                Err(Unread::System(errno)) => {
                    return Err(Error::failed("cannot read the certificates").detail(format_args!("pread: {errno}")));
                }
            }
        }
        Err(Error::fault("the certificates cannot be read").detail("they are being written all the time"))
    }

    fn take(&mut self, generation: u64, contents: &Contents) -> Result<()> {
        let make =
            |options: &Option<&'static TlsOptions>| options.map(|of| judge::server_config(of, &self.source.files, contents)).transpose();
        self.configs = self.options.iter().map(make).collect::<Result<_>>()?;
        self.generation = generation;
        Ok(())
    }

    /// The beginning of a session on the listener at that place.
    pub fn session(&mut self, listener: usize) -> Result<ServerConnection> {
        match self.source.reader.newer_than(self.generation) {
            // Being written: this connection still gets the old one.
            Ok(None) | Err(Unread::Busy) => {}
            Ok(Some((generation, contents))) => match self.take(generation, &contents) {
                Ok(()) => tracing::debug!("new certificates are in use generation={generation}"),
                // They were good when the supervisor had them judged.
                Err(error) => {
                    self.generation = generation;
                    tracing::error!("the certificates stay as they were: {error}");
                }
            },
            Err(Unread::System(errno)) => tracing::error!("cannot look for new certificates: pread: {errno}"),
        }
        let config = self.configs.get(listener).cloned().flatten();
        let config = config.ok_or_else(|| Error::fault("a listener has no certificates"))?;
        ServerConnection::new(config).map_err(|error| Error::failed("cannot begin a TLS session").detail(error))
    }
}
