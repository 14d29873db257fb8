//! One configured value, and the declaration that it must fit.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Folders, ParamDecl, ParamValue, Value, nearest, text, units};
use crate::abi;

/// What is wrong with a value, or with an item of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong<P> {
    /// The item's place; none: that of the whole.
    pub position: Option<P>,
    /// Why.
    pub reason: String,
    /// A better hint than what the declaration expects.
    pub hint: Option<String>,
}

/// Reads a default.
pub(super) fn default(decl: &ParamDecl, default: &str, folders: &Folders) -> Result<ParamValue, String> {
    let folders = Folders { file: folders.file.clone(), command: folders.file.clone() };
    let result = convert::<()>(decl, &Value::Text(default.to_string()), &folders);
    result.map_err(|wrongs| wrongs.into_iter().map(|wrong| wrong.reason).collect::<Vec<_>>().join("; "))
}

/// Reads a value as the declaration wants it; everything that is wrong with its items at once.
pub fn convert<P: Clone>(decl: &ParamDecl, value: &Value<P>, folders: &Folders) -> Result<ParamValue, Vec<Wrong<P>>> {
    let whole = |reason: String| vec![Wrong { position: None, reason, hint: None }];
    match decl.kind {
        abi::PARAM_LIST => {
            let items: Vec<(Value<P>, Option<P>)> = match value {
                Value::List(items) => items.iter().map(|(item, place)| (item.clone(), Some(place.clone()))).collect(),
                Value::Text(text) => text::items(text).map_err(whole)?.into_iter().map(|item| (Value::Text(item), None)).collect(),
                other => return Err(whole(found(other))),
            };
            let numbered = items.iter().enumerate().map(|(index, (item, place))| (format!("item {}", index + 1), item, place));
            each(decl, numbered, folders).map(ParamValue::List)
        }
        abi::PARAM_TABLE => {
            let entries: Vec<(String, Value<P>, Option<P>)> = match value {
                Value::Table(entries) => {
                    entries.iter().map(|(key, value, place)| (key.clone(), value.clone(), Some(place.clone()))).collect()
                }
                Value::Text(text) => {
                    text::entries(text).map_err(whole)?.into_iter().map(|(key, value)| (key, Value::Text(value), None)).collect()
                }
                other => return Err(whole(found(other))),
            };
            let bad_key = entries.iter().find(|(key, _, _)| key.is_empty() || key.contains('\0'));
            if let Some((key, _, place)) = bad_key {
                return Err(vec![Wrong { position: place.clone(), reason: format!("{} is no key", shown(key)), hint: None }]);
            }
            let named = entries.iter().map(|(key, value, place)| (shown(key), value, place));
            let values = each(decl, named, folders)?;
            Ok(ParamValue::Table(entries.iter().map(|(key, _, _)| key.clone()).zip(values).collect()))
        }
        _ => one(decl, value, folders).map_err(|(reason, hint)| vec![Wrong { position: None, reason, hint }]),
    }
}

/// Every item as one value.
fn each<'v, P: Clone + 'v>(
    decl: &ParamDecl,
    items: impl Iterator<Item = (String, &'v Value<P>, &'v Option<P>)>,
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

/// A value that is neither a list nor a table. The error is the reason and, if there is a better one than usual, the hint.
fn one<P>(decl: &ParamDecl, value: &Value<P>, folders: &Folders) -> Result<ParamValue, (String, Option<String>)> {
    if let (abi::PARAM_ENUM, Value::String(text) | Value::Text(text)) = (decl.scalar(), value) {
        let words = decl.words();
        let index = words.iter().position(|word| word == text).and_then(|index| u32::try_from(index).ok());
        return index.map(ParamValue::Word).ok_or_else(|| {
            let near = nearest::nearest(text, words.iter().copied()).map(|near| format!("did you mean \"{near}\"?"));
            (format!("{} is not one of its words", shown(text)), near)
        });
    }
    scalar(decl, value, folders).map_err(|reason| (reason, None))
}

fn scalar<P>(decl: &ParamDecl, value: &Value<P>, folders: &Folders) -> Result<ParamValue, String> {
    let value = match (decl.scalar(), value) {
        (abi::PARAM_BOOL, Value::Bool(value)) => ParamValue::Bool((*value).into()),
        (abi::PARAM_BOOL, Value::Text(text)) => match text.as_str() {
            "true" | "1" | "yes" | "on" => ParamValue::Bool(1),
            "false" | "0" | "no" | "off" => ParamValue::Bool(0),
            _ => return Err(format!("{} is neither true nor false", shown(text))),
        },
        (abi::PARAM_INT, Value::Int(value)) => ParamValue::Int(*value),
        (abi::PARAM_INT, Value::Text(text)) => ParamValue::Int(parse_int(text)?),
        (abi::PARAM_STRING | abi::PARAM_PATH, Value::String(text) | Value::Text(text)) if text.contains('\0') => {
            return Err("it contains a NUL".to_string());
        }
        (abi::PARAM_STRING, Value::String(text) | Value::Text(text)) => ParamValue::Str(text.clone()),
        (abi::PARAM_PATH, Value::String(text) | Value::Text(text)) if text.is_empty() => return Err("it is empty".to_string()),
        (abi::PARAM_PATH, Value::String(text)) => ParamValue::Path(anchored(&folders.file, text)),
        (abi::PARAM_PATH, Value::Text(text)) => ParamValue::Path(anchored(&folders.command, text)),
        (abi::PARAM_DURATION, Value::String(text) | Value::Text(text)) => {
            let duration = units::parse_duration(text).map_err(|reason| format!("{}: {reason}", shown(text)))?;
            let ns = i64::try_from(duration.as_nanos()).map_err(|_| "longer than 292 years".to_string())?;
            ParamValue::DurationNs(ns)
        }
        (abi::PARAM_DURATION, Value::Int(number)) => return Err(format!("the number {number} has no unit")),
        (abi::PARAM_SIZE, Value::Int(number)) if *number >= 0 => ParamValue::Size(*number),
        (abi::PARAM_SIZE, Value::Int(number)) => return Err(format!("the number {number} is negative")),
        (abi::PARAM_SIZE, Value::String(text) | Value::Text(text)) => {
            let bytes = units::parse_size(text).map_err(|reason| format!("{}: {reason}", shown(text)))?;
            ParamValue::Size(i64::try_from(bytes).map_err(|_| format!("{}: more than 8 EiB", shown(text)))?)
        }
        (kind, Value::Text(_)) => return Err(format!("it is of the unknown kind {kind}")),
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

/// What was written, if it is of a type that does not do.
fn found<P>(value: &Value<P>) -> String {
    match value {
        Value::Bool(found) => format!("found {found}"),
        Value::Int(found) => format!("found the number {found}"),
        Value::Float(found) => format!("found the number {found}"),
        Value::String(found) | Value::Text(found) => format!("found the string {}", shown(found)),
        Value::Time(found) => format!("found the date or time {found}"),
        Value::List(_) => "found a list".to_string(),
        Value::Table(_) => "found a table".to_string(),
    }
}

/// Without the "." of "./x", which would stand in every message.
fn anchored(folder: &Path, path: &str) -> PathBuf {
    folder.join(path).components().collect()
}

/// Whole numbers as the configuration file has them: sign, underscores, 0x, 0o, 0b.
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
