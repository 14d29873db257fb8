//! The rules for parameters: converts a configured value to the type that the module declares, or
//! says what is wrong with it.
//!
//! The host applies them to its configuration, and [`testing`](crate::testing) to an author's test,
//! so that both accept the same values. Pure except for [`write`](write::write): no system call, no
//! clock. Not part of the interface of modules.
//!
//! *Pure:* no clock, no environment, no system call.

pub mod convert;
pub mod nearest;
mod text;
pub mod units;
pub mod write;

use std::path::PathBuf;
use std::time::Duration;

use crate::abi;

/// A parameter as a module declares it. The host reads it from the file and from the loaded table,
/// the fake host from the table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ParamDecl {
    /// Key in `[module.params]`.
    pub name: String,
    /// `PARAM_BOOL` to `PARAM_TABLE`.
    pub kind: u32,
    /// `PARAM_REQUIRED`, `PARAM_RANGE`.
    pub flags: u32,
    /// The default, as it would be written on the command line.
    pub default: Option<String>,
    /// Smallest allowed value with `PARAM_RANGE`.
    pub min: i64,
    /// Largest allowed value with `PARAM_RANGE`.
    pub max: i64,
    /// One sentence, may be empty.
    pub help: String,
    /// The words of an enum as they are declared, separated by `|`; may be empty.
    pub words: String,
    /// Kind of a list's items or a table's values, `PARAM_BOOL` to `PARAM_ENUM`.
    pub of: u32,
}

/// One parameter as configured; `P` is the type of a position in the configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting<P> {
    /// Name in `[module.params]`.
    pub name: String,
    /// Value as it was written.
    pub value: SettingValue<P>,
    /// Position of the setting.
    pub position: P,
}

/// A configured value, before it is checked against the module's declaration.
#[derive(Debug, Clone, PartialEq)]
pub enum SettingValue<P> {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number that is not whole. No parameter takes one; the error says so.
    Float(f64),
    /// A string.
    String(String),
    /// A date or a time. No parameter takes one.
    Time(String),
    /// Text of `--set` or of a default, to be read according to the parameter's kind.
    Text(String),
    /// A list, each value with its position.
    List(Vec<(SettingValue<P>, P)>),
    /// A table: keys and values, each value with its position, in the order in which they were
    /// written.
    Table(Vec<(String, SettingValue<P>, P)>),
}

/// A checked value, in the form of its target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParamValue {
    /// 0 or 1.
    Bool(u32),
    /// A whole number.
    Int(i64),
    /// Without NUL.
    Str(String),
    /// Nanoseconds.
    DurationNs(i64),
    /// Bytes, not negative.
    Size(i64),
    /// Without NUL; absolute if the folders are.
    Path(PathBuf),
    /// Index of a word of the declaration.
    Word(u32),
    /// The items, all of one kind.
    List(Vec<ParamValue>),
    /// The entries, each key once and without NUL.
    Table(Vec<(String, ParamValue)>),
}

/// The folders that relative paths start from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Folders {
    /// For paths of the configuration file, and for defaults: the file's folder, or the working
    /// directory if there is no file.
    pub file: PathBuf,
    /// For paths of the command line: the working directory.
    pub command: PathBuf,
}

/// An error in the configuration or the declaration, in the parts of an error message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint<P> {
    /// Position in the configuration, if it is about something that was written there.
    pub position: Option<P>,
    /// The fault.
    pub what: String,
    /// The reason.
    pub detail: String,
    /// What the operator can do; may be empty.
    pub hint: String,
}

/// The values that a module gets: each with the index of its declaration, in the order of the
/// declarations. A parameter that is neither set nor has a default is left out: its target keeps
/// its value.
///
/// # Errors
/// All complaints at once.
pub fn check<P: Clone>(
    module: &str,
    declared: &[ParamDecl],
    settings: &[Setting<P>],
    folders: &Folders,
) -> Result<Vec<(usize, ParamValue)>, Vec<Complaint<P>>> {
    let mut complaints = Vec::new();
    let mut chosen: Vec<Option<&Setting<P>>> = vec![None; declared.len()];
    for setting in settings {
        match declared.iter().position(|decl| decl.name == setting.name) {
            // A later setting wins: those of the command line come after the file's.
            Some(index) => chosen[index] = Some(setting),
            None => complaints.push(unknown(module, declared, setting)),
        }
    }
    let mut values = Vec::new();
    for (index, (decl, setting)) in declared.iter().zip(chosen).enumerate() {
        let name = &decl.name;
        match (setting, &decl.default) {
            (Some(setting), _) => match convert::convert(decl, &setting.value, folders) {
                Ok(value) => values.push((index, value)),
                Err(wrongs) => complaints.extend(wrongs.into_iter().map(|wrong| Complaint {
                    position: Some(wrong.position.unwrap_or_else(|| setting.position.clone())),
                    what: format!("wrong value for parameter \"{name}\" of module \"{module}\""),
                    detail: wrong.reason,
                    hint: wrong.hint.unwrap_or_else(|| decl.expected()),
                })),
            },
            (None, _) if decl.flags & abi::PARAM_REQUIRED != 0 => complaints.push(Complaint {
                position: None,
                what: format!("module \"{module}\" needs a value for parameter \"{name}\""),
                detail: decl.help.clone(),
                hint: format!("under its [[module]] write [module.params] and {name} = ..., or pass --set {module}.{name}=..."),
            }),
            (None, Some(default)) => match convert::default(decl, default, folders) {
                Ok(value) => values.push((index, value)),
                Err(reason) => complaints.push(Complaint {
                    position: None,
                    what: format!("module \"{module}\" has a wrong default for its parameter \"{name}\""),
                    detail: reason,
                    hint: "this is for the module's author to mend; until then, configure a value".to_string(),
                }),
            },
            (None, None) => {}
        }
    }
    if complaints.is_empty() { Ok(values) } else { Err(complaints) }
}

fn unknown<P: Clone>(module: &str, declared: &[ParamDecl], setting: &Setting<P>) -> Complaint<P> {
    Complaint {
        position: Some(setting.position.clone()),
        what: format!("module \"{module}\" has no parameter \"{}\"", setting.name),
        detail: String::new(),
        hint: match declared {
            [] => "it has no parameters at all".to_string(),
            _ => nearest::hint(&setting.name, declared.iter().map(|decl| decl.name.as_str())),
        },
    }
}

/// The name of a kind in help texts and errors.
pub fn kind_name(kind: u32) -> &'static str {
    match kind {
        abi::PARAM_BOOL => "bool",
        abi::PARAM_INT => "int",
        abi::PARAM_STRING => "string",
        abi::PARAM_DURATION => "duration",
        abi::PARAM_SIZE => "size",
        abi::PARAM_PATH => "path",
        abi::PARAM_ENUM => "enum",
        abi::PARAM_LIST => "list",
        abi::PARAM_TABLE => "table",
        _ => "unknown",
    }
}

impl ParamDecl {
    /// The kind of a single value: of the items of a list or table, otherwise its own.
    pub fn scalar(&self) -> u32 {
        if self.is_container() { self.of } else { self.kind }
    }

    /// Whether it is a list or a table.
    pub fn is_container(&self) -> bool {
        matches!(self.kind, abi::PARAM_LIST | abi::PARAM_TABLE)
    }

    /// The kind as `modhost inspect` shows it: `int`, `list of size`.
    pub fn kind_text(&self) -> String {
        match self.is_container() {
            true => format!("{} of {}", kind_name(self.kind), kind_name(self.of)),
            false => kind_name(self.kind).to_string(),
        }
    }

    /// The words of an enum; empty for other kinds.
    pub fn words(&self) -> Vec<&str> {
        match self.scalar() {
            abi::PARAM_ENUM if !self.words.is_empty() => self.words.split('|').collect(),
            _ => Vec::new(),
        }
    }

    /// Its range for display, if it has one.
    pub fn range(&self) -> Option<String> {
        let format = |value: i64| match self.scalar() {
            abi::PARAM_DURATION => units::format_duration(Duration::from_nanos(value.max(0).cast_unsigned())),
            abi::PARAM_SIZE => units::format_size(value.max(0).cast_unsigned()),
            _ => value.to_string(),
        };
        self.has_range().then(|| format!("{}..{}", format(self.min), format(self.max)))
    }

    /// The reason why the declaration itself is invalid, if it is.
    pub fn problem(&self) -> Option<String> {
        let name = &self.name;
        if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '.' | '=')) {
            return Some(format!("a parameter has the name {name:?}"));
        }
        if kind_name(self.kind) == "unknown" {
            return Some(format!("the parameter \"{name}\" is of kind {}; known are 1 to {}", self.kind, abi::PARAM_TABLE));
        }
        if self.is_container() && !(abi::PARAM_BOOL..=abi::PARAM_ENUM).contains(&self.of) {
            let (kind, of, last) = (kind_name(self.kind), self.of, abi::PARAM_ENUM);
            return Some(format!("the parameter \"{name}\" is a {kind} of kind {of}; known are 1 to {last}"));
        }
        if let Some(problem) = self.words_problem() {
            return Some(format!("the parameter \"{name}\" {problem}"));
        }
        if self.has_range() && self.min > self.max {
            return Some(format!("the range of parameter \"{name}\" is empty"));
        }
        let default = self.default.as_ref()?;
        let reason = convert::default(self, default, &Folders::default()).err()?;
        Some(format!("the default of parameter \"{name}\" does not fit: {reason}"))
    }

    fn words_problem(&self) -> Option<String> {
        if self.scalar() != abi::PARAM_ENUM {
            return None;
        }
        let words = self.words();
        if words.is_empty() {
            return Some("is an enum without words".to_string());
        }
        let bad =
            |word: &&str| word.is_empty() || word.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, ',' | '"' | '='));
        if let Some(word) = words.iter().find(|word| bad(word)) {
            return Some(format!("has the word {word:?}"));
        }
        let mut sorted = words.clone();
        sorted.sort_unstable();
        sorted.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| format!("has the word \"{}\" twice", pair[0]))
    }

    fn has_range(&self) -> bool {
        self.flags & abi::PARAM_RANGE != 0 && matches!(self.scalar(), abi::PARAM_INT | abi::PARAM_DURATION | abi::PARAM_SIZE)
    }

    fn expected(&self) -> String {
        let one = match self.scalar() {
            abi::PARAM_BOOL => "true or false".to_string(),
            abi::PARAM_INT => "a whole number".to_string(),
            abi::PARAM_STRING => "a string".to_string(),
            abi::PARAM_DURATION => "a duration such as \"10s\" or \"500ms\"".to_string(),
            abi::PARAM_SIZE => "a size such as \"64KiB\", or a number of bytes".to_string(),
            abi::PARAM_PATH => "the path of a file or folder, as a string".to_string(),
            abi::PARAM_ENUM => format!("one of {}", self.words().join(", ")),
            _ => return String::new(),
        };
        let what = match self.kind {
            abi::PARAM_LIST => format!("a list, each item {one}"),
            abi::PARAM_TABLE => format!("a table, each value {one}"),
            _ => one,
        };
        match self.range() {
            Some(range) => format!("expected {what}, in {range}"),
            None => format!("expected {what}"),
        }
    }
}

#[cfg(test)]
mod tests;
