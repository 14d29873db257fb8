//! Converts one configured value according to the parameter's declaration.
//!
//! *Pure:* no clock, no environment, no system call.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Folders, ParamDecl, ParamValue, SettingValue, nearest, text, units};
use crate::abi;

/// An error in a value, or in an item of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong<P> {
    /// Position of the item; none: the position of the whole value.
    pub position: Option<P>,
    /// The reason, to follow a colon.
    pub reason: String,
    /// A better hint than the one that the declaration gives.
    pub hint: Option<String>,
}

/// Reads a default.
pub(super) fn default(decl: &ParamDecl, default: &str, folders: &Folders) -> Result<ParamValue, String> {
    let folders = Folders { file: folders.file.clone(), command: folders.file.clone() };
    let result = convert::<()>(decl, &SettingValue::Text(default.to_string()), &folders);
    result.map_err(|wrongs| wrongs.into_iter().map(|wrong| wrong.reason).collect::<Vec<_>>().join("; "))
}

/// Reads a value according to the declaration.
///
/// # Errors
/// The errors of all items at once.
pub fn convert<P: Clone>(decl: &ParamDecl, value: &SettingValue<P>, folders: &Folders) -> Result<ParamValue, Vec<Wrong<P>>> {
    let whole = |reason: String| vec![Wrong { position: None, reason, hint: None }];
    match decl.kind {
        abi::PARAM_LIST => {
            let items: Vec<(SettingValue<P>, Option<P>)> = match value {
                SettingValue::List(items) => items.iter().map(|(item, place)| (item.clone(), Some(place.clone()))).collect(),
                SettingValue::Text(text) => {
                    text::items(text).map_err(whole)?.into_iter().map(|item| (SettingValue::Text(item), None)).collect()
                }
                other => return Err(whole(found(other))),
            };
            let numbered = items.iter().enumerate().map(|(index, (item, place))| (format!("item {}", index + 1), item, place));
            each(decl, numbered, folders).map(ParamValue::List)
        }
        abi::PARAM_TABLE => {
            let entries: Vec<(String, SettingValue<P>, Option<P>)> = match value {
                SettingValue::Table(entries) => {
                    entries.iter().map(|(key, value, place)| (key.clone(), value.clone(), Some(place.clone()))).collect()
                }
                SettingValue::Text(text) => {
                    text::entries(text).map_err(whole)?.into_iter().map(|(key, value)| (key, SettingValue::Text(value), None)).collect()
                }
                other => return Err(whole(found(other))),
            };
            let bad_key = entries.iter().find(|(key, _, _)| key.is_empty() || key.contains('\0'));
            if let Some((key, _, place)) = bad_key {
                return Err(vec![Wrong { position: place.clone(), reason: format!("{} is not a valid key", shown(key)), hint: None }]);
            }
            let named = entries.iter().map(|(key, value, place)| (shown(key), value, place));
            let values = each(decl, named, folders)?;
            Ok(ParamValue::Table(entries.iter().map(|(key, _, _)| key.clone()).zip(values).collect()))
        }
        _ => one(decl, value, folders).map_err(|(reason, hint)| vec![Wrong { position: None, reason, hint }]),
    }
}

/// Converts every item as a single value.
fn each<'v, P: Clone + 'v>(
    decl: &ParamDecl,
    items: impl Iterator<Item = (String, &'v SettingValue<P>, &'v Option<P>)>,
    folders: &Folders,
) -> Result<Vec<ParamValue>, Vec<Wrong<P>>> {
    let (mut values, mut wrongs) = (Vec::new(), Vec::new());
    for (name, value, place) in items {
        match one(decl, value, folders) {
            Ok(value) => values.push(value),
            Err((reason, hint)) => wrongs.push(Wrong { position: place.clone(), reason: format!("{name}: {reason}"), hint }),
        }
    }
    if wrongs.is_empty() { Ok(values) } else { Err(wrongs) }
}

/// Converts a value that is neither a list nor a table. The error is the reason and, if there is a
/// better hint than usual, the hint.
fn one<P>(decl: &ParamDecl, value: &SettingValue<P>, folders: &Folders) -> Result<ParamValue, (String, Option<String>)> {
    if let (abi::PARAM_ENUM, SettingValue::String(text) | SettingValue::Text(text)) = (decl.scalar(), value) {
        let words = decl.words();
        let index = words.iter().position(|word| word == text).and_then(|index| u32::try_from(index).ok());
        return index.map(ParamValue::Word).ok_or_else(|| {
            let near = nearest::nearest(text, words.iter().copied()).map(|near| format!("did you mean \"{near}\"?"));
            (format!("{} is not one of its words", shown(text)), near)
        });
    }
    scalar(decl, value, folders).map_err(|reason| (reason, None))
}

fn scalar<P>(decl: &ParamDecl, value: &SettingValue<P>, folders: &Folders) -> Result<ParamValue, String> {
    let value = match (decl.scalar(), value) {
        (abi::PARAM_BOOL, SettingValue::Bool(value)) => ParamValue::Bool((*value).into()),
        (abi::PARAM_BOOL, SettingValue::Text(text)) => match text.as_str() {
            "true" | "1" | "yes" | "on" => ParamValue::Bool(1),
            "false" | "0" | "no" | "off" => ParamValue::Bool(0),
            _ => return Err(format!("{} is neither true nor false", shown(text))),
        },
        (abi::PARAM_INT, SettingValue::Int(value)) => ParamValue::Int(*value),
        (abi::PARAM_INT, SettingValue::Text(text)) => ParamValue::Int(parse_int(text)?),
        (abi::PARAM_STRING | abi::PARAM_PATH, SettingValue::String(text) | SettingValue::Text(text)) if text.contains('\0') => {
            return Err("it contains a NUL".to_string());
        }
        (abi::PARAM_STRING, SettingValue::String(text) | SettingValue::Text(text)) => ParamValue::Str(text.clone()),
        (abi::PARAM_PATH, SettingValue::String(text) | SettingValue::Text(text)) if text.is_empty() => {
            return Err("it is empty".to_string());
        }
        (abi::PARAM_PATH, SettingValue::String(text)) => ParamValue::Path(anchored(&folders.file, text)),
        (abi::PARAM_PATH, SettingValue::Text(text)) => ParamValue::Path(anchored(&folders.command, text)),
        (abi::PARAM_DURATION, SettingValue::String(text) | SettingValue::Text(text)) => {
            let duration = units::parse_duration(text).map_err(|reason| format!("{}: {reason}", shown(text)))?;
            let ns = i64::try_from(duration.as_nanos()).map_err(|_| "longer than 292 years".to_string())?;
            ParamValue::DurationNs(ns)
        }
        (abi::PARAM_DURATION, SettingValue::Int(number)) => return Err(format!("the number {number} has no unit")),
        (abi::PARAM_SIZE, SettingValue::Int(number)) if *number >= 0 => ParamValue::Size(*number),
        (abi::PARAM_SIZE, SettingValue::Int(number)) => return Err(format!("the number {number} is negative")),
        (abi::PARAM_SIZE, SettingValue::String(text) | SettingValue::Text(text)) => {
            let bytes = units::parse_size(text).map_err(|reason| format!("{}: {reason}", shown(text)))?;
            ParamValue::Size(i64::try_from(bytes).map_err(|_| format!("{}: more than 8 EiB", shown(text)))?)
        }
        (kind, SettingValue::Text(_)) => return Err(format!("it is of the unknown kind {kind}")),
        (_, other) => return Err(found(other)),
    };
    match value {
        ParamValue::Int(number) | ParamValue::DurationNs(number) | ParamValue::Size(number)
            if decl.has_range() && !(decl.min..=decl.max).contains(&number) =>
        {
            let found = match value {
                ParamValue::DurationNs(ns) => units::format_duration(Duration::from_nanos(ns.cast_unsigned())),
                ParamValue::Size(bytes) => units::format_size(bytes.cast_unsigned()),
                _ => number.to_string(),
            };
            Err(format!("{found} is out of range"))
        }
        value => Ok(value),
    }
}

/// Describes a written value of a type that the parameter does not take.
fn found<P>(value: &SettingValue<P>) -> String {
    match value {
        SettingValue::Bool(found) => format!("found {found}"),
        SettingValue::Int(found) => format!("found the number {found}"),
        SettingValue::Float(found) => format!("found the number {found}"),
        SettingValue::String(found) | SettingValue::Text(found) => format!("found the string {}", shown(found)),
        SettingValue::Time(found) => format!("found the date or time {found}"),
        SettingValue::List(_) => "found a list".to_string(),
        SettingValue::Table(_) => "found a table".to_string(),
    }
}

/// Without the "." of "./x", which would appear in every message.
fn anchored(folder: &Path, path: &str) -> PathBuf {
    folder.join(path).components().collect()
}

/// A whole number in the syntax of the configuration file: sign, underscores, 0x, 0o, 0b.
fn parse_int(text: &str) -> Result<i64, String> {
    let (sign, digits) = match text.as_bytes().first() {
        Some(b'-') => ("-", &text[1..]),
        Some(b'+') => ("", &text[1..]),
        _ => ("", text),
    };
    let (radix, digits) = match digits.get(..2) {
        Some("0x") => (16, &digits[2..]),
        Some("0o") => (8, &digits[2..]),
        Some("0b") => (2, &digits[2..]),
        _ => (10, digits),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix) || c == '_') {
        return Err(format!("{} is not a whole number", shown(text)));
    }
    i64::from_str_radix(&format!("{sign}{}", digits.replace('_', "")), radix).map_err(|_| format!("{} does not fit 64 bits", shown(text)))
}

/// Quoted, and short enough for one line.
fn shown(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("\"{}...\"", text[..end].escape_debug()),
        None => format!("\"{}\"", text.escape_debug()),
    }
}
