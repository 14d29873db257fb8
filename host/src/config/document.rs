//! The text of a configuration: its positions, and the errors found in it so far.
//!
//! *Runs in:* the supervisor, before anything is forked. *Never:* stops at the first error.
//!
//! *Pure:* no clock, no environment, no system call.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;

use super::Position;
use crate::error::Error;

pub struct Document<'t> {
    text: &'t str,
    file: Arc<Path>,
    line_starts: Vec<usize>,
    errors: RefCell<Vec<(usize, Error)>>,
}

impl<'t> Document<'t> {
    pub fn new(text: &'t str, file: &Path) -> Self {
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, file: Arc::from(file), line_starts, errors: RefCell::default() }
    }

    /// The position of a byte offset.
    pub fn position(&self, offset: usize) -> Position {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        let line = self.line_starts.partition_point(|start| *start <= offset).max(1);
        let column = self.text[self.line_starts[line - 1]..offset].chars().count() + 1;
        Position::File { file: Arc::clone(&self.file), line: saturate(line), column: saturate(column) }
    }

    /// Adds an error; its position is put before what failed.
    pub fn report(&self, offset: usize, mut error: Error) {
        error.what = format!("{}: {}", self.position(offset), error.what);
        self.errors.borrow_mut().push((offset, error));
    }

    /// In the order of the file.
    pub fn into_errors(self) -> Vec<Error> {
        let mut errors = self.errors.into_inner();
        errors.sort_by_key(|(offset, _)| *offset);
        errors.into_iter().map(|(_, error)| error).collect()
    }
}

fn saturate(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
