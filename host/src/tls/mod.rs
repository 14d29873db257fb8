//! Certificates and keys: how they are read, handed on, judged, and used.
//!
//! *Runs in:* see each file. *Never:* leaves a private key in a process that has no use for it.
//!
//! ```text
//! supervisor, at the start and on SIGHUP        TCP worker
//! read the files ── bytes ──► child: judge      for each new connection:
//!        └─ good ──► vault (memfd) ───────────► a new generation? parse it
//! ```
//!
//! The supervisor reads, because it is the one process that keeps the starting identity: keys are often for root alone. It does not
//! look into what it has read. Main never has the bytes, and neither has any child of it but the TCP workers.

pub mod current;
pub mod files;
pub mod judge;
pub mod validity;
pub mod vault;

pub use current::{Current, Source};
pub use files::{Contents, Files};
pub use vault::{Vault, VaultReader};
