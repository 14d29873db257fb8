//! Typed access to the tables of a parsed TOML document. Each wrong value is reported.
//!
//! *Runs in:* the supervisor, before anything is forked. *Never:* knows what a key means.
//!
//! *Pure:* no clock, no environment, no system call.

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::document::Document;
use super::{Position, Value, nearest, units};
use crate::error::Error;

type TomlEntry<'t> = Spanned<DeValue<'t>>;

/// A table of the document.
pub struct Section<'d, 't> {
    document: &'d Document<'t>,
    /// Its name in messages, with brackets: `[host]`.
    name: String,
    table: &'d DeTable<'t>,
    /// Of the table in the text, for errors about a missing key.
    pub offset: usize,
}

/// A value and its offset in the text.
#[derive(Debug, Clone)]
pub struct Found<T> {
    pub value: T,
    pub offset: usize,
}

impl<'d, 't> Section<'d, 't> {
    pub fn root(document: &'d Document<'t>, table: &'d DeTable<'t>) -> Self {
        Self { document, name: "the configuration".to_string(), table, offset: 0 }
    }

    /// Reports every key that is not in `known`.
    pub fn only(&self, known: &[&str]) {
        for (key, _) in self.table {
            let written = key.get_ref().as_ref();
            if !known.contains(&written) {
                let error = Error::config(format!("unknown key \"{written}\" in {}", self.name))
                    .hint(nearest::hint(written, known.iter().copied()));
                self.document.report(key.span().start, error);
            }
        }
    }

    /// The table under `key`; `name` is its name in messages.
    pub fn table(&self, key: &str, name: &str) -> Option<Section<'d, 't>> {
        let entry = self.entry(key)?;
        self.as_section(key, entry, name)
    }

    /// The tables of `[[key]]`.
    pub fn tables(&self, key: &str) -> Vec<Section<'d, 't>> {
        let Some(entry) = self.entry(key) else { return Vec::new() };
        let Some(array) = entry.get_ref().as_array() else {
            let hint = format!("write [[{key}]], with two brackets, once for each");
            return self.wrong(key, entry, "a list of tables", hint).unwrap_or_default();
        };
        let name = format!("[[{key}]]");
        array.iter().filter_map(|item| self.as_section(key, item, &name)).collect()
    }

    /// The table under `key`, or the tables of `[[key]]`.
    pub fn one_or_more_tables(&self, key: &str, name: &str) -> Vec<Section<'d, 't>> {
        let Some(entry) = self.entry(key) else { return Vec::new() };
        match entry.get_ref().as_array() {
            Some(array) if !array.is_empty() => array.iter().filter_map(|item| self.as_section(key, item, name)).collect(),
            Some(_) => {
                let hint = format!("write {name} and the keys below it, or leave it out");
                self.wrong(key, entry, "a table, or tables", hint).unwrap_or_default()
            }
            None => self.as_section(key, entry, name).into_iter().collect(),
        }
    }

    fn as_section(&self, key: &str, entry: &'d TomlEntry<'t>, name: &str) -> Option<Section<'d, 't>> {
        let Some(table) = entry.get_ref().as_table() else {
            return self.wrong(key, entry, "a table", format!("write {name} and the keys below it"));
        };
        Some(Section { document: self.document, name: name.to_string(), table, offset: entry.span().start })
    }

    pub fn string(&self, key: &str) -> Option<Found<String>> {
        self.as_string(key, self.entry(key)?, "a string")
    }

    fn as_string(&self, key: &str, entry: &TomlEntry<'t>, expected: &str) -> Option<Found<String>> {
        let hint = match entry.get_ref() {
            DeValue::String(text) => return Some(Found { value: text.to_string(), offset: entry.span().start }),
            DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) => "put it in quotes",
            _ => "",
        };
        self.wrong(key, entry, expected, hint.to_string())
    }

    /// A string that `parse` accepts.
    pub fn parsed<T>(&self, key: &str, parse: impl FnOnce(&str) -> Result<T, Error>) -> Option<T> {
        let found = self.string(key)?;
        self.ok_or_report(found.offset, parse(&found.value))
    }

    /// A string that is not empty and holds no NUL: a path or the name of a user.
    pub fn text(&self, key: &str) -> Option<String> {
        self.as_text(key, self.string(key)?)
    }

    fn as_text(&self, key: &str, found: Found<String>) -> Option<String> {
        let problem = match found.value.as_str() {
            "" => "must not be empty",
            text if text.contains('\0') => "must not contain a NUL",
            _ => return Some(found.value),
        };
        self.report(found.offset, Error::config(format!("\"{key}\" in {} {problem}", self.name)));
        None
    }

    /// A list of such strings.
    pub fn texts(&self, key: &str) -> Option<Vec<String>> {
        let entry = self.entry(key)?;
        let Some(array) = entry.get_ref().as_array() else {
            let hint = entry.get_ref().as_str().map_or(String::new(), |text| format!("write [{text:?}]"));
            return self.wrong(key, entry, "a list of strings", hint);
        };
        let item = |item| self.as_text(key, self.as_string(key, item, "a list of strings")?);
        Some(array.iter().filter_map(item).collect())
    }

    /// A string, or a list of strings that is not empty.
    pub fn one_or_more(&self, key: &str) -> Option<Vec<Found<String>>> {
        let entry = self.entry(key)?;
        let Some(array) = entry.get_ref().as_array() else {
            return self.string(key).map(|found| vec![found]);
        };
        if array.is_empty() {
            let hint = "leave the key out, or put something into the list";
            return self.wrong(key, entry, "a string or a list of strings", hint.to_string());
        }
        array.iter().map(|item| self.as_string(key, item, "a list of strings")).collect()
    }

    pub fn boolean(&self, key: &str) -> Option<bool> {
        let entry = self.entry(key)?;
        entry.get_ref().as_bool().or_else(|| self.wrong(key, entry, "true or false", "without quotes".to_string()))
    }

    pub fn integer(&self, key: &str, range: RangeInclusive<u32>) -> Option<u32> {
        let entry = self.entry(key)?;
        let number = whole(entry.get_ref()).and_then(|number| u32::try_from(number).ok()).filter(|number| range.contains(number));
        let expected = || format!("a whole number from {} to {}", range.start(), range.end());
        number.or_else(|| self.wrong(key, entry, &expected(), String::new()))
    }

    pub fn duration(&self, key: &str, range: RangeInclusive<Duration>) -> Option<Duration> {
        let entry = self.entry(key)?;
        let seconds = range.contains(&Duration::from_secs(10));
        let example = if seconds { "10s".to_string() } else { units::format_duration(*range.end()) };
        let expected = &*format!("a duration such as \"{example}\"");
        let Some(text) = entry.get_ref().as_str() else {
            let hint = whole(entry.get_ref()).map_or(String::new(), |number| format!("write the unit: {key} = \"{number}s\""));
            return self.wrong(key, entry, expected, hint);
        };
        let result = units::parse_duration(text).and_then(|duration| {
            let (low, high) = (units::format_duration(*range.start()), units::format_duration(*range.end()));
            if range.contains(&duration) { Ok(duration) } else { Err(format!("it must be from {low} to {high}")) }
        });
        self.value_or_report(key, entry, result, expected)
    }

    /// A number of bytes in `range`.
    pub fn size(&self, key: &str, range: RangeInclusive<u64>) -> Option<usize> {
        let entry = self.entry(key)?;
        let expected = "a size such as \"64MiB\", or a number of bytes";
        let size = match entry.get_ref().as_str() {
            Some(text) => units::parse_size(text),
            None => match whole(entry.get_ref()) {
                Some(number) => u64::try_from(number).map_err(|_| "it must not be negative".to_string()),
                None => return self.wrong(key, entry, expected, String::new()),
            },
        };
        let result = size.and_then(|size| {
            let fits = usize::try_from(size).ok().filter(|_| range.contains(&size));
            fits.ok_or_else(|| format!("it must be from {} to {}", units::format_size(*range.start()), units::format_size(*range.end())))
        });
        self.value_or_report(key, entry, result, expected)
    }

    /// One of several words.
    pub fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let found = self.string(key)?;
        let choice = choices.iter().find(|(name, _)| *name == found.value);
        if choice.is_none() {
            let error = Error::config(format!("\"{}\" is no {key}", found.value))
                .hint(nearest::hint(&found.value, choices.iter().map(|(name, _)| *name)));
            self.document.report(found.offset, error);
        }
        choice.map(|(_, value)| *value)
    }

    /// Every key with its value and the value's offset, in the order of the file.
    pub fn settings(&self) -> Vec<(String, Value, usize)> {
        let mut settings: Vec<_> = self
            .table
            .iter()
            .filter_map(|(key, entry)| {
                let name = key.get_ref().to_string();
                let offset = entry.span().start;
                let value = match entry.get_ref() {
                    DeValue::Array(items) => {
                        let item = |item: &'d TomlEntry<'t>| Some((self.plain(&name, item)?, self.position(item.span().start)));
                        Value::List(items.iter().filter_map(item).collect())
                    }
                    DeValue::Table(table) => {
                        let entry = |(key, value): (&'d Spanned<_>, &'d TomlEntry<'t>)| {
                            let key: &Cow<'t, str> = key.get_ref();
                            Some((value.span().start, key.to_string(), self.plain(&name, value)?))
                        };
                        let mut entries: Vec<_> = table.iter().filter_map(entry).collect();
                        entries.sort_by_key(|(offset, _, _)| *offset);
                        Value::Table(entries.into_iter().map(|(offset, key, value)| (key, value, self.position(offset))).collect())
                    }
                    _ => self.plain(&name, entry)?,
                };
                Some((name, value, offset))
            })
            .collect();
        settings.sort_by_key(|(_, _, offset)| *offset);
        settings
    }

    /// A plain value. A list or a table becomes an empty one: nothing takes nested ones.
    fn plain(&self, name: &str, entry: &TomlEntry<'t>) -> Option<Value> {
        Some(match entry.get_ref() {
            DeValue::Boolean(value) => Value::Bool(*value),
            DeValue::String(text) => Value::String(text.to_string()),
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => Value::Int(number),
                Err(_) => return self.wrong(name, entry, "a whole number of at most 63 bits", String::new()),
            },
            DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Datetime(time) => Value::Time(time.to_string()),
            DeValue::Array(_) => Value::List(Vec::new()),
            DeValue::Table(_) => Value::Table(Vec::new()),
        })
    }

    pub fn value_position(&self, key: &str) -> Option<Position> {
        self.entry(key).map(|entry| self.position(entry.span().start))
    }

    pub fn report(&self, offset: usize, error: Error) {
        self.document.report(offset, error);
    }

    /// Whether the key exists, whatever its type.
    pub fn has(&self, key: &str) -> bool {
        self.entry(key).is_some()
    }

    /// The offset of the key itself; of the table if it lacks the key.
    pub fn key_offset(&self, key: &str) -> usize {
        self.table.get_key_value(key).map_or(self.offset, |(key, _)| key.span().start)
    }

    pub fn position(&self, offset: usize) -> Position {
        self.document.position(offset)
    }

    pub fn ok_or_report<T>(&self, offset: usize, result: Result<T, Error>) -> Option<T> {
        result.map_err(|error| self.report(offset, error)).ok()
    }

    fn entry(&self, key: &str) -> Option<&'d TomlEntry<'t>> {
        self.table.get(key)
    }

    fn value_or_report<T>(&self, key: &str, entry: &TomlEntry<'t>, result: Result<T, String>, expected: &str) -> Option<T> {
        result
            .map_err(|reason| {
                let found = describe(entry.get_ref());
                let error = Error::config(format!("wrong value for \"{key}\" in {}", self.name))
                    .detail(format_args!("{found}: {reason}"))
                    .hint(format!("expected {expected}"));
                self.document.report(entry.span().start, error);
            })
            .ok()
    }

    /// Reports a value of the wrong type.
    fn wrong<T>(&self, key: &str, entry: &TomlEntry<'t>, expected: &str, hint: String) -> Option<T> {
        let error = Error::config(format!("wrong value for \"{key}\" in {}", self.name))
            .detail(format_args!("expected {expected}, found {}", describe(entry.get_ref())))
            .hint(hint);
        self.report(entry.span().start, error);
        None
    }
}

fn whole(value: &DeValue<'_>) -> Option<i64> {
    let number = value.as_integer()?;
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// A value in words, short enough for one line.
fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) if text.chars().count() > 40 => format!("a string of {} characters", text.chars().count()),
        DeValue::String(text) => format!("the string {text:?}"),
        DeValue::Integer(number) => format!("the number {number}"),
        DeValue::Float(number) => format!("the number {}", number.as_str()),
        DeValue::Boolean(value) => format!("{value}"),
        DeValue::Datetime(_) => "a date or time".to_string(),
        DeValue::Array(_) => "a list".to_string(),
        DeValue::Table(_) => "a table".to_string(),
    }
}
