//! Certificates and keys: reading, checking, passing on, use.
//!
//! *Runs in:* see each file. *Never:* leaves a private key in a process that has no use for it.
//!
//! ```text
//! supervisor, at the start and on SIGHUP        TCP worker
//! read the files ── bytes ──► child: judge      for each new connection:
//!        └─ good ──► vault (memfd) ───────────► a new version? parse it
//! ```
//!
//! The supervisor reads the files, because it alone keeps the starting identity: often only root
//! may read keys. It does not parse them. Of main and its children, only TCP workers have the
//! bytes.

mod current;
mod files;
pub(crate) mod judge;
mod validity;
mod vault;

pub use current::{CertificateSource, CurrentCertificates};
pub(crate) use files::{Contents, Files};
pub(crate) use vault::Vault;
