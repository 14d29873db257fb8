//! The certificates for new connections: parsed again when the vault has a new version.
//!
//! *Runs in:* TCP workers, main in no-fork mode. *Never:* replaces certificates that work with ones
//! that do not.

use std::sync::Arc;

use rustls::{ServerConfig, ServerConnection};

use super::files::{Contents, Files};
use super::judge;
use super::vault::{Unread, VaultReader};
use crate::config::TlsOptions;
use crate::error::{Error, Result};
use crate::sys::time;

/// How often a vault that is being written is read again, at intervals of one millisecond.
const ATTEMPTS: usize = 1000;

/// Where a process gets certificates and keys from.
#[derive(Debug)]
pub struct CertificateSource {
    pub(crate) reader: VaultReader,
    /// The files whose contents are in the vault.
    pub(crate) files: Files,
}

/// The TLS configurations of all listeners.
#[derive(Debug)]
pub struct CurrentCertificates {
    source: &'static CertificateSource,
    /// By the listener's index, as `configs` are.
    options: Vec<Option<&'static TlsOptions>>,
    configs: Vec<Option<Arc<ServerConfig>>>,
    /// Of the vault.
    version: u64,
}

impl CurrentCertificates {
    /// Parses the vault's present contents; `options` by the listener's index.
    pub(crate) fn load(source: &'static CertificateSource, options: Vec<Option<&'static TlsOptions>>) -> Result<Self> {
        let mut current = Self { source, configs: Vec::new(), options, version: 0 };
        for _ in 0..ATTEMPTS {
            match source.reader.newer_than(0) {
                Ok(Some((version, contents))) => {
                    current.take(version, &contents)?;
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

    fn take(&mut self, version: u64, contents: &Contents) -> Result<()> {
        let make =
            |options: &Option<&'static TlsOptions>| options.map(|of| judge::server_config(of, &self.source.files, contents)).transpose();
        self.configs = self.options.iter().map(make).collect::<Result<_>>()?;
        self.version = version;
        Ok(())
    }

    /// Begins the session of a connection to the listener with that index.
    pub(crate) fn session(&mut self, listener: usize) -> Result<ServerConnection> {
        match self.source.reader.newer_than(self.version) {
            // Being written: this connection still gets the old certificates.
            Ok(None) | Err(Unread::Busy) => {}
            Ok(Some((version, contents))) => match self.take(version, &contents) {
                Ok(()) => tracing::debug!("new certificates are in use version={version}"),
                // Unexpected: the supervisor had them judged before it put them into the vault.
                Err(error) => {
                    self.version = version;
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
