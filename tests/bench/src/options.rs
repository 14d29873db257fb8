//! A command line of `--name value`, `--flag`, positional arguments, and a command after `--`.

use std::collections::HashMap;

/// A parsed command line.
pub struct Options {
    named: HashMap<String, String>,
    /// Arguments without a name.
    pub positional: Vec<String>,
    /// The arguments after `--`.
    pub command: Vec<String>,
}

impl Options {
    /// Reads the command line. `flags` are the names that take no value.
    ///
    /// # Panics
    /// If a value is missing.
    pub fn read(flags: &[&str]) -> Options {
        let mut options = Options { named: HashMap::new(), positional: Vec::new(), command: Vec::new() };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.strip_prefix("--") {
                Some("") => options.command = arguments.by_ref().collect(),
                Some(name) if flags.contains(&name) => drop(options.named.insert(name.into(), String::new())),
                Some(name) => {
                    let value = arguments.next().unwrap_or_else(|| panic!("--{name} needs a value"));
                    options.named.insert(name.into(), value);
                }
                None => options.positional.push(argument),
            }
        }
        options
    }

    /// Whether a flag or an option was given.
    pub fn has(&self, name: &str) -> bool {
        self.named.contains_key(name)
    }

    /// An option's text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.named.get(name).map(String::as_str)
    }

    /// An option's number, or the default.
    ///
    /// # Panics
    /// If it is not a number.
    pub fn number<T: std::str::FromStr>(&self, name: &str, default: T) -> T {
        self.text(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("--{name} needs a number, not {text:?}")))
    }

    /// A positional number.
    ///
    /// # Panics
    /// If it is missing or not a number.
    pub fn positional_number<T: std::str::FromStr>(&self, index: usize) -> T {
        let text = self.positional.get(index).unwrap_or_else(|| panic!("argument {} is missing", index + 1));
        text.parse().unwrap_or_else(|_| panic!("argument {} must be a number, not {text:?}", index + 1))
    }
}
