//! The host's log.

use std::fmt;

/// One line in text format, or any other line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// `fault`, `error`, `warn`, `info`, ...; empty for a line that is not a log record.
    pub level: String,
    /// Name and pid of the process.
    pub process: String,
    pub pid: i32,
    /// The rest of the line.
    pub text: String,
    whole: String,
}

impl Line {
    fn parse(whole: &str) -> Self {
        let record = || {
            let (time, rest) = whole.split_once(' ')?;
            let (level, rest) = rest.trim_start().split_once(' ')?;
            let (process, text) = rest.trim_start().strip_prefix('[')?.split_once("] ")?;
            let (process, pid) = process.rsplit_once(' ')?;
            time.ends_with('Z').then_some(())?;
            Some(Self {
                level: level.to_owned(),
                process: process.to_owned(),
                pid: pid.parse().ok()?,
                text: text.to_owned(),
                whole: whole.to_owned(),
            })
        };
        record().unwrap_or_else(|| Self {
            level: String::new(),
            process: String::new(),
            pid: 0,
            text: whole.to_owned(),
            whole: whole.to_owned(),
        })
    }

    /// Whether the line is no warning and no error.
    fn is_quiet(&self) -> bool {
        match self.level.as_str() {
            "info" | "debug" | "trace" => true,
            // Detail and hint of an error, whose first line counts.
            "" => self.text.starts_with("  "),
            _ => false,
        }
    }
}

/// All complete lines of a log.
#[derive(Debug, Clone, Default)]
pub struct Log {
    pub lines: Vec<Line>,
}

impl Log {
    pub fn parse(text: &str) -> Self {
        // A line without a newline is still being written.
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        Self { lines: complete.lines().map(Line::parse).collect() }
    }

    pub fn contains(&self, text: &str) -> bool {
        self.line(text).is_some()
    }

    /// The first line that contains the text.
    pub fn line(&self, text: &str) -> Option<&Line> {
        self.lines.iter().find(|line| line.whole.contains(text))
    }

    pub fn count(&self, text: &str) -> usize {
        self.lines.iter().filter(|line| line.whole.contains(text)).count()
    }

    /// Some line must contain all of these parts.
    #[track_caller]
    pub fn assert(&self, parts: &[&str]) {
        assert!(
            self.lines.iter().any(|line| parts.iter().all(|part| line.whole.contains(part))),
            "no line of the log has all of {parts:?}:\n{self}"
        );
    }

    /// Warnings, errors and other lines that contain none of the texts.
    pub fn unexpected(&self, expected: &[String]) -> Vec<&str> {
        let unexpected = self.lines.iter().filter(|line| !line.is_quiet() && !expected.iter().any(|text| line.whole.contains(text)));
        unexpected.map(|line| line.whole.as_str()).collect()
    }
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{}", line.whole))
    }
}
