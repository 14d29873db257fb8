//! The certificate and key files that listeners name, and their contents as one run of bytes.
//!
//! *Runs in:* the supervisor (reading), TCP workers (decoding), main in no-fork mode (both).
//! *Never:* parses a file's contents.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use zeroize::Zeroizing;

use crate::config::{Position, TlsOptions};
use crate::error::{Error, Result, io_text};

/// Certificates and keys have some kilobytes, a bundle of authorities some hundred.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// Each path once, with the position of its first mention in the configuration.
#[derive(Debug, Clone, Default)]
pub struct Files(Vec<(PathBuf, Position)>);

/// The contents of [`Files`], in the same order. Wiped when dropped.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Contents(Vec<Zeroizing<Vec<u8>>>);

impl Files {
    pub(crate) fn of<'o>(listeners: impl Iterator<Item = &'o TlsOptions>) -> Self {
        let mut files: Vec<(PathBuf, Position)> = Vec::new();
        for options in listeners {
            let of_client_ca = options.client_ca.iter().map(|path| (path, &options.position));
            let certificates = options.certificates.iter();
            let named = certificates.flat_map(|files| [(&files.certificate, &files.position), (&files.key, &files.position)]);
            for (path, position) in named.chain(of_client_ca) {
                if !files.iter().any(|(known, _)| known == path) {
                    files.push((path.clone(), position.clone()));
                }
            }
        }
        Self(files)
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Reads all files, with the permissions of this process.
    pub(crate) fn read(&self) -> Result<Contents> {
        self.0.iter().map(|(path, position)| read(path, position)).collect::<Result<_>>().map(Contents)
    }

    /// The contents of the file with that path.
    pub(super) fn find<'c>(&self, contents: &'c Contents, path: &Path) -> Option<&'c [u8]> {
        let place = self.0.iter().position(|(known, _)| known == path)?;
        contents.0.get(place).map(|bytes| bytes.as_slice())
    }
}

fn read(path: &Path, position: &Position) -> Result<Zeroizing<Vec<u8>>> {
    let failed = |detail: String| Error::config(format!("{position}: cannot read \"{}\"", path.display())).detail(detail);
    // Opening a pipe would wait for a writer.
    let opened = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
    let mut file: File =
        opened.map_err(|error| failed(io_text(&error)).hint("certificates and keys are read as the user that starts the host"))?;
    let metadata = file.metadata().map_err(|error| failed(io_text(&error)))?;
    if !metadata.is_file() {
        return Err(failed("it is not a regular file".into()));
    }
    if metadata.size() > FILE_MAX_BYTES {
        return Err(failed(format!("it is larger than {} MiB", FILE_MAX_BYTES >> 20)).hint("is this the right file?"));
    }
    // All at once: a vector that grows leaves copies of a key in freed memory. One byte more than
    // the size, to see the end.
    let mut bytes = Zeroizing::new(vec![0; metadata.size() as usize + 1]);
    let mut length = 0;
    while length < bytes.len() {
        match file.read(&mut bytes[length..]) {
            Ok(0) => {
                bytes.truncate(length);
                return Ok(bytes);
            }
            Ok(count) => length += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(io_text(&error))),
        }
    }
    Err(failed("it grew while it was being read".into()).hint("write another file and rename it to this name"))
}

impl Contents {
    /// One run of bytes: each file's contents after its length.
    pub(super) fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut run = Zeroizing::new(Vec::with_capacity(self.0.iter().map(|bytes| 4 + bytes.len()).sum()));
        for bytes in &self.0 {
            run.extend_from_slice(&(bytes.len() as u32).to_ne_bytes());
            run.extend_from_slice(bytes);
        }
        run
    }

    /// Reverses `encode`; none if the run is incomplete.
    pub(super) fn decode(mut run: &[u8]) -> Option<Self> {
        let mut contents = Vec::new();
        while !run.is_empty() {
            let (length, rest) = run.split_first_chunk::<4>()?;
            let (bytes, rest) = rest.split_at_checked(u32::from_ne_bytes(*length) as usize)?;
            contents.push(Zeroizing::new(bytes.to_vec()));
            run = rest;
        }
        Some(Self(contents))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn contents(files: &[&[u8]]) -> Contents {
        Contents(files.iter().map(|bytes| Zeroizing::new(bytes.to_vec())).collect())
    }

    #[test]
    fn contents_survive_encoding_and_a_cut_run_has_whole_files_only() {
        let all = contents(&[b"certificate", b"", b"key"]);
        let run = all.encode();
        assert_eq!(Contents::decode(&run), Some(all));
        let shorter = (0..run.len()).filter_map(|length| Contents::decode(&run[..length])).map(|contents| contents.0.len());
        assert_eq!(shorter.collect::<Vec<_>>(), [0, 1, 2], "whole files only");
    }

    #[test]
    fn errors_name_the_file_and_its_position() {
        let at = Position::CommandLine("");
        let folder = std::env::temp_dir();
        let large = folder.join(format!("modhost-large-{}", std::process::id()));
        File::create(&large).unwrap().set_len(FILE_MAX_BYTES + 1).unwrap();
        for (path, part) in [
            (Path::new("/nonexistent/x.pem"), "no such file"),
            (folder.as_path(), "it is not a regular file"),
            (large.as_path(), "larger than 1 MiB"),
        ] {
            let error = Files(vec![(path.to_path_buf(), at.clone())]).read().unwrap_err().to_string();
            assert!(error.starts_with(&format!("command line: cannot read \"{}\"", path.display())) && error.contains(part), "{error}");
        }
        std::fs::remove_file(&large).unwrap();
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_decoded(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(contents) = Contents::decode(&bytes) {
                prop_assert_eq!(&*contents.encode(), &bytes);
            }
        }
    }
}
