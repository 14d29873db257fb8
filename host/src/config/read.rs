//! Reads the configuration file into memory.
//!
//! *Runs in:* the supervisor, before anything is forked.
//! *Never:* reads without end, or waits for a writer that never comes.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::error::Error;

/// A configuration is some kilobytes; whatever is larger is another kind of file.
pub const FILE_MAX_BYTES: u64 = 4 << 20;

/// The text of the file. `-` and `/dev/stdin` work where the shell opens them; a folder does not.
pub fn read(path: &Path) -> Result<String, Error> {
    let failed = |detail: String| Error::config(format!("cannot read the configuration \"{}\"", path.display())).detail(detail);
    let file = File::open(path).map_err(|error| {
        let failed = failed(io_text(&error));
        if error.kind() == io::ErrorKind::NotFound { failed.hint("pass -c FILE") } else { failed }
    })?;
    let mut bytes = Vec::new();
    file.take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|error| failed(io_text(&error)))?;
    if bytes.len() as u64 > FILE_MAX_BYTES {
        return Err(failed(format!("it is larger than {} MiB", FILE_MAX_BYTES >> 20)).hint("is this the right file?"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
        failed(format!("line {line} is not UTF-8")).hint("is this the right file?")
    })
}

/// What the system said, as the rest of our texts are written: lower case, without the number.
pub fn io_text(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}
