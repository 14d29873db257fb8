//! The pid file: one host per file, and correct even after a crash, because its owner holds a lock
//! on it.
//!
//! *Runs in:* the supervisor (main in no-fork mode), and `modhost check`, which only looks.
//! *Never:* trusts the text of a file that nobody has locked.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use crate::error::{Error, Result, io_text};

/// A pid file that this process holds. The kernel releases the lock when the process ends, however
/// it ends.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    file: File,
}

impl PidFile {
    /// Creates or takes over the file and writes this process's pid. Refuses when a live process
    /// holds it.
    pub fn claim(path: &Path) -> Result<Self> {
        let file = open(path, PidFileCreation::IfMissing).map_err(|error| cannot_open(path, &error))?;
        let mut file = plain(path, file)?;
        let failed = |detail: String| cannot_use(path).detail(detail);
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                let owner = match file.read_to_string(&mut pid) {
                    Ok(_) if !pid.trim().is_empty() => format!("process {} holds it", pid.trim().escape_default()),
                    _ => "another process holds it".to_owned(),
                };
                return Err(failed(owner).hint("the host is running already; stop it first, or use another pid file"));
            }
            Err(TryLockError::Error(error)) => return Err(failed(format!("flock: {error}"))),
        }
        // What a killed host left in the file is stale.
        let written = file.set_len(0).and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes()));
        let claimed = Self { path: path.to_path_buf(), file };
        if let Err(error) = written {
            claimed.remove();
            return Err(failed(format!("write: {}", io_text(&error))));
        }
        Ok(claimed)
    }

    /// Whether `claim` could succeed, as far as that can be known without writing. Whether a live
    /// process holds the file, and whether its user may write there, cannot be known.
    pub fn check(path: &Path) -> Result<()> {
        match open(path, PidFileCreation::Never) {
            Ok(file) => plain(path, file).map(drop),
            Err(error) if error.kind() == ErrorKind::PermissionDenied || is_missing(path) => Ok(()),
            Err(error) => Err(cannot_open(path, &error)),
        }
    }

    /// The file. Only this process may have its descriptor.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Removes the file, if it is still the one that was claimed.
    pub fn remove(self) {
        let ours = self.file.metadata().map(|metadata| (metadata.dev(), metadata.ino()));
        let there = fs::symlink_metadata(&self.path).map(|metadata| (metadata.dev(), metadata.ino()));
        match (ours, there) {
            (Ok(ours), Ok(there)) if ours == there => {
                if let Err(error) = fs::remove_file(&self.path) {
                    tracing::warn!("cannot remove the pid file {}: {error}", self.path.display());
                }
            }
            _ => tracing::warn!("the pid file is not the one that was written, it stays path={}", self.path.display()),
        }
    }
}

/// Whether the file is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PidFileCreation {
    IfMissing,
    Never,
}

fn open(path: &Path, creation: PidFileCreation) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(creation == PidFileCreation::IfMissing).truncate(false).mode(0o644);
    options.custom_flags((OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NOCTTY | OFlag::O_NONBLOCK).bits()).open(path)
}

fn cannot_open(path: &Path, error: &std::io::Error) -> Error {
    let hint = "its folder must exist, and the path must be that of a plain file";
    cannot_use(path).detail(format!("open: {}", io_text(error))).hint(hint)
}

fn plain(path: &Path, file: File) -> Result<File> {
    if file.metadata().is_ok_and(|metadata| metadata.is_file()) { Ok(file) } else { Err(cannot_use(path).detail("it is not a plain file")) }
}

/// Nothing has that name, and its folder exists.
fn is_missing(path: &Path) -> bool {
    let nothing = fs::symlink_metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound);
    nothing && path.parent().is_some_and(Path::is_dir)
}

fn cannot_use(path: &Path) -> Error {
    Error::failed(format!("cannot use the pid file {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_host_per_file_takes_over_stale_files() {
        let folder = std::env::temp_dir().join(format!("modhost-pid-file-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("pid");
        fs::write(&path, "999999999999").unwrap();
        let held = PidFile::claim(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        let refused = PidFile::claim(&path).unwrap_err();
        assert!(refused.to_string().contains(&format!("process {} holds it", std::process::id())), "{refused}");
        assert_eq!(PidFile::check(&path), Ok(()), "a later look may find it free");
        held.remove();
        assert!(!path.exists());
        assert_eq!(PidFile::check(&path), Ok(()));
        assert!(!path.exists(), "nothing is written");
        assert!(PidFile::claim(&folder).is_err());
        fs::remove_dir_all(&folder).unwrap();
    }
}
