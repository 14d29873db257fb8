//! The pid file: one host per file, and the truth even after a crash.
//!
//! *Runs in:* the supervisor (main in no-fork mode). *Never:* trusts the text of a file that nobody holds locked.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result, io_text};

/// A pid file that this process holds. The lock goes with the process, however it ends.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    file: File,
}

impl PidFile {
    /// Creates or takes over the file and writes this process's pid. Refuses when a live process holds it.
    pub fn claim(path: &Path) -> Result<Self> {
        let failed = |detail: String| Error::failed(format!("cannot use the pid file {}", path.display())).detail(detail);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NOCTTY | libc::O_NONBLOCK)
            .open(path)
            .map_err(|error| {
                failed(format!("open: {}", io_text(&error))).hint("its folder must exist, and the path must be that of a plain file")
            })?;
        if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
            return Err(failed("it is not a plain file".into()));
        }
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
        // Whatever a killed host left in it is stale now.
        let written = file.set_len(0).and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes()));
        let claimed = Self { path: path.to_path_buf(), file };
        if let Err(error) = written {
            claimed.remove();
            return Err(failed(format!("write: {}", io_text(&error))));
        }
        Ok(claimed)
    }

    /// The file's descriptor, which is this process's alone.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_host_per_file_and_stale_files_are_taken_over() {
        let folder = std::env::temp_dir().join(format!("modhost-pid-file-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("pid");
        fs::write(&path, "999999999999").unwrap();
        let held = PidFile::claim(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        let refused = PidFile::claim(&path).unwrap_err();
        assert!(refused.to_string().contains(&format!("process {} holds it", std::process::id())), "{refused}");
        held.remove();
        assert!(!path.exists());
        assert!(PidFile::claim(&folder).is_err());
        fs::remove_dir_all(&folder).unwrap();
    }
}
