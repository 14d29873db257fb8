//! Reads the configuration file.
//!
//! *Runs in:* the supervisor, before anything is forked. *Never:* reads without limit,
//! or waits for a pipe that has no writer.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::error::{Error, io_text};

/// A configuration has some kilobytes; a larger file is the wrong one.
const FILE_MAX_BYTES: u64 = 4 << 20;

/// Enough for most files. Without it the first bytes would be read in small pieces.
const FIRST_READ_BYTES: usize = 4 << 10;

/// The text of the file, which can be a pipe such as `/dev/stdin`.
pub fn read(path: &Path) -> Result<String, Error> {
    let failed = |detail: String| Error::config(format!("cannot read the configuration \"{}\"", path.display())).detail(detail);
    // Without O_NONBLOCK, opening a pipe waits for a writer.
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path).map_err(|error| {
        let failed = failed(io_text(&error));
        if error.kind() == io::ErrorKind::NotFound { failed.hint("pass -c FILE") } else { failed }
    })?;
    // A pipe that has a writer is read to its end.
    fcntl(&file, FcntlArg::F_SETFL(OFlag::empty())).map_err(|errno| failed(format!("fcntl: {errno}")))?;
    let is_pipe = file.metadata().is_ok_and(|metadata| metadata.file_type().is_fifo());
    let mut bytes = Vec::with_capacity(FIRST_READ_BYTES);
    file.take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|error| failed(io_text(&error)))?;
    if bytes.is_empty() && is_pipe {
        return Err(failed("it is a pipe that nobody writes to".into()).hint("is this the right file?"));
    }
    if bytes.len() as u64 > FILE_MAX_BYTES {
        return Err(failed(format!("it is larger than {} MiB", FILE_MAX_BYTES >> 20)).hint("is this the right file?"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
        failed(format!("line {line} is not UTF-8")).hint("is this the right file?")
    })
}
