//! Configured values against declared parameters: kind, range, required, unknown names.
//!
//! *Runs in:* the supervisor over what the file declares, main over what the loaded table declares, the commands `check` and `inspect`.
//! *Never:* stops at the first error, or writes a value anywhere.

use module_api::abi;

use crate::config::{ParamSetting, Value, nearest, units};
use crate::error::Error;

/// A parameter as a module declares it, whoever read the declaration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamDecl {
    /// Its name.
    pub name: String,
    /// `PARAM_BOOL` ...
    pub kind: u32,
    /// `PARAM_REQUIRED`, `PARAM_RANGE`.
    pub flags: u32,
    /// The default, as it would stand in the configuration.
    pub default: Option<String>,
    /// Smallest allowed value with `PARAM_RANGE`.
    pub min: i64,
    /// Largest allowed value with `PARAM_RANGE`.
    pub max: i64,
    /// One sentence, may be empty.
    pub help: String,
}

/// A checked value, as its target wants it.
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
}

/// The values that a module gets: each with the index of its declaration, in the order of the declarations.
/// A parameter that is neither set nor has a default is left out: its target keeps what it has.
pub fn check(module: &str, declared: &[ParamDecl], settings: &[ParamSetting]) -> Result<Vec<(usize, ParamValue)>, Vec<Error>> {
    let mut errors = Vec::new();
    let mut chosen: Vec<Option<&ParamSetting>> = vec![None; declared.len()];
    for setting in settings {
        match declared.iter().position(|decl| decl.name == setting.name) {
            // A later one wins: the command line stands behind the file.
            Some(index) => chosen[index] = Some(setting),
            None => errors.push(unknown(module, declared, setting)),
        }
    }
    let mut values = Vec::new();
    for (index, (decl, setting)) in declared.iter().zip(chosen).enumerate() {
        match (setting, &decl.default) {
            (Some(setting), _) => match convert(decl, &setting.value) {
                Ok(value) => values.push((index, value)),
                Err(reason) => errors.push(
                    Error::config(format!("{}: wrong value for parameter \"{}\" of module \"{module}\"", setting.position, decl.name))
                        .detail(reason)
                        .hint(decl.expected()),
                ),
            },
            (None, _) if decl.flags & abi::PARAM_REQUIRED != 0 => errors.push(
                Error::config(format!("module \"{module}\" needs a value for parameter \"{}\"", decl.name)).detail(&decl.help).hint(
                    format!("under its [[module]] write [module.params] and {} = ..., or pass --set {module}.{}=...", decl.name, decl.name),
                ),
            ),
            (None, Some(default)) => match convert(decl, &Value::Text(default.clone())) {
                Ok(value) => values.push((index, value)),
                Err(reason) => errors.push(
                    Error::config(format!("module \"{module}\" has a wrong default for its parameter \"{}\"", decl.name))
                        .detail(reason)
                        .hint("this is for the module's author to mend; until then, configure a value"),
                ),
            },
            (None, None) => {}
        }
    }
    if errors.is_empty() { Ok(values) } else { Err(errors) }
}

impl ParamDecl {
    /// The kind's name, as help and errors call it.
    pub fn kind_name(&self) -> &'static str {
        match self.kind {
            abi::PARAM_BOOL => "bool",
            abi::PARAM_INT => "int",
            abi::PARAM_STRING => "string",
            abi::PARAM_DURATION => "duration",
            _ => "unknown",
        }
    }

    /// Its range for people, if it has one.
    pub fn range(&self) -> Option<String> {
        let format = |value: i64| match self.kind {
            abi::PARAM_DURATION => units::format_duration(std::time::Duration::from_nanos(value.max(0).cast_unsigned())),
            _ => value.to_string(),
        };
        self.has_range().then(|| format!("{}..{}", format(self.min), format(self.max)))
    }

    /// Why the declaration itself cannot be right.
    pub fn problem(&self) -> Option<String> {
        let name = &self.name;
        if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '.' | '=')) {
            return Some(format!("a parameter is called {name:?}"));
        }
        if self.kind_name() == "unknown" {
            return Some(format!("the parameter \"{name}\" is of kind {}; known are 1 to {}", self.kind, abi::PARAM_DURATION));
        }
        if self.has_range() && self.min > self.max {
            return Some(format!("the range of parameter \"{name}\" is empty"));
        }
        let default = self.default.as_ref()?;
        let reason = convert(self, &Value::Text(default.clone())).err()?;
        Some(format!("the default of parameter \"{name}\" does not fit: {reason}"))
    }

    fn has_range(&self) -> bool {
        self.flags & abi::PARAM_RANGE != 0 && matches!(self.kind, abi::PARAM_INT | abi::PARAM_DURATION)
    }

    fn expected(&self) -> String {
        let what = match self.kind {
            abi::PARAM_BOOL => "true or false",
            abi::PARAM_INT => "a whole number",
            abi::PARAM_STRING => "a string",
            abi::PARAM_DURATION => "a duration such as \"10s\" or \"500ms\"",
            _ => return String::new(),
        };
        match self.range() {
            Some(range) => format!("expected {what}, in {range}"),
            None => format!("expected {what}"),
        }
    }
}

fn convert(decl: &ParamDecl, value: &Value) -> Result<ParamValue, String> {
    let value = match (decl.kind, value) {
        (abi::PARAM_BOOL, Value::Bool(value)) => ParamValue::Bool((*value).into()),
        (abi::PARAM_BOOL, Value::Text(text)) => match text.as_str() {
            "true" | "1" | "yes" | "on" => ParamValue::Bool(1),
            "false" | "0" | "no" | "off" => ParamValue::Bool(0),
            _ => return Err(format!("{} is neither true nor false", shown(text))),
        },
        (abi::PARAM_INT, Value::Int(value)) => ParamValue::Int(*value),
        (abi::PARAM_INT, Value::Text(text)) => ParamValue::Int(parse_int(text)?),
        (abi::PARAM_STRING, Value::String(text) | Value::Text(text)) if text.contains('\0') => return Err("it contains a NUL".to_string()),
        (abi::PARAM_STRING, Value::String(text) | Value::Text(text)) => ParamValue::Str(text.clone()),
        (abi::PARAM_DURATION, Value::String(text) | Value::Text(text)) => {
            let duration = units::parse_duration(text).map_err(|reason| format!("{}: {reason}", shown(text)))?;
            let ns = i64::try_from(duration.as_nanos()).map_err(|_| "longer than 292 years".to_string())?;
            ParamValue::DurationNs(ns)
        }
        (abi::PARAM_DURATION, Value::Int(number)) => return Err(format!("the number {number} has no unit")),
        (_, Value::Bool(found)) => return Err(format!("found {found}")),
        (_, Value::Int(found)) => return Err(format!("found the number {found}")),
        (_, Value::Float(found)) => return Err(format!("found the number {found}")),
        (_, Value::String(found)) => return Err(format!("found the string {}", shown(found))),
        (kind, Value::Text(_)) => return Err(format!("it is of the unknown kind {kind}")),
    };
    match value {
        ParamValue::Int(number) | ParamValue::DurationNs(number) if decl.has_range() && !(decl.min..=decl.max).contains(&number) => {
            let found = match value {
                ParamValue::DurationNs(ns) => units::format_duration(std::time::Duration::from_nanos(ns.cast_unsigned())),
                _ => number.to_string(),
            };
            Err(format!("{found} is out of range"))
        }
        value => Ok(value),
    }
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

fn unknown(module: &str, declared: &[ParamDecl], setting: &ParamSetting) -> Error {
    let error = Error::config(format!("{}: module \"{module}\" has no parameter \"{}\"", setting.position, setting.name));
    match declared {
        [] => error.hint("it has no parameters at all"),
        _ => error.hint(nearest::hint(&setting.name, declared.iter().map(|decl| decl.name.as_str()))),
    }
}

/// Quoted, and short enough for one line.
fn shown(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("\"{}...\"", text[..end].escape_debug()),
        None => format!("\"{}\"", text.escape_debug()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Position;

    fn decl(kind: u32, flags: u32, default: Option<&str>) -> ParamDecl {
        ParamDecl { name: "p".into(), kind, flags, default: default.map(str::to_string), min: -5, max: 2_000_000_000, help: String::new() }
    }

    #[test]
    fn values_become_what_the_declaration_says() {
        use ParamValue::{Bool, DurationNs, Int, Str};
        let (text, string) = (|text: &str| Value::Text(text.into()), |text: &str| Value::String(text.into()));
        let (bool_, int, string_, duration) = (abi::PARAM_BOOL, abi::PARAM_INT, abi::PARAM_STRING, abi::PARAM_DURATION);
        let range = abi::PARAM_RANGE;
        for (kind, flags, value, want) in [
            (bool_, 0, Value::Bool(true), Ok(Bool(1))),
            (bool_, 0, text("off"), Ok(Bool(0))),
            (bool_, 0, text("TRUE"), Err("neither true nor false")),
            (bool_, 0, Value::Int(1), Err("found the number 1 (hint: expected true or false)")),
            (int, 0, Value::Int(-7), Ok(Int(-7))),
            (int, range, Value::Int(-5), Ok(Int(-5))),
            (int, range, Value::Int(-6), Err("-6 is out of range (hint: expected a whole number, in -5..2000000000)")),
            (int, 0, Value::Float(1.5), Err("found the number 1.5")),
            (int, 0, string("1"), Err("found the string \"1\"")),
            (int, 0, text("0x_ff"), Ok(Int(255))),
            (int, 0, text("-9223372036854775808"), Ok(Int(i64::MIN))),
            (int, 0, text("9223372036854775808"), Err("does not fit 64 bits")),
            (int, 0, text("--1"), Err("is not a whole number")),
            (int, 0, text("é"), Err("is not a whole number")),
            (int, 0, text(""), Err("is not a whole number")),
            (string_, range, string("é"), Ok(Str("é".into()))),
            (string_, 0, text(""), Ok(Str(String::new()))),
            (string_, 0, string("a\0b"), Err("contains a NUL")),
            (string_, 0, Value::Int(1), Err("expected a string")),
            (duration, 0, string("1m"), Ok(DurationNs(60_000_000_000))),
            (duration, range, text("2s"), Ok(DurationNs(2_000_000_000))),
            (duration, range, text("3s"), Err("3s is out of range (hint: expected a duration such as \"10s\" or \"500ms\", in 0s..2s)")),
            (duration, 0, Value::Int(5), Err("the number 5 has no unit")),
            (77, 0, text("x"), Err("unknown kind 77")),
        ] {
            let setting = ParamSetting { name: "p".into(), value: value.clone(), position: Position::CommandLine("--set") };
            let found = check("m", &[decl(kind, flags, None)], &[setting]);
            match (found, want) {
                (Ok(values), Ok(want)) => assert_eq!(values, [(0, want)], "{value:?}"),
                (Err(errors), Err(part)) => {
                    assert!(errors[0].to_string().contains(part), "{value:?} without {part:?}: {}", errors[0]);
                    assert!(errors[0].what.starts_with("command line, --set: "), "{}", errors[0]);
                }
                (found, want) => panic!("{value:?}: {found:?}, expected {want:?}"),
            }
        }
    }

    #[test]
    fn defaults_requirements_and_the_last_setting() {
        let declared = [decl(abi::PARAM_INT, 0, Some("7"))];
        assert_eq!(check("m", &declared, &[]), Ok(vec![(0, ParamValue::Int(7))]));
        assert_eq!(check("m", &[decl(abi::PARAM_INT, 0, None)], &[]), Ok(vec![]));
        let errors = check("m", &[decl(abi::PARAM_INT, abi::PARAM_REQUIRED, None)], &[]).unwrap_err();
        assert!(
            errors[0].to_string().contains("needs a value for parameter \"p\"") && errors[0].hint.contains("--set m.p="),
            "{}",
            errors[0]
        );
        let errors = check("m", &[decl(abi::PARAM_INT, 0, Some("x"))], &[]).unwrap_err();
        assert!(errors[0].to_string().contains("wrong default"), "{}", errors[0]);
        let set = |number| ParamSetting { name: "p".into(), value: Value::Int(number), position: Position::CommandLine("") };
        assert_eq!(check("m", &declared, &[set(1), set(2)]), Ok(vec![(0, ParamValue::Int(2))]));
        for (bad, part) in [
            (decl(9, 0, None), "kind 9"),
            (decl(abi::PARAM_DURATION, 0, Some("5")), "5 has no unit"),
            (ParamDecl { name: "a.b".into(), ..decl(abi::PARAM_INT, 0, None) }, "a.b"),
            (ParamDecl { min: 3, max: 2, ..decl(abi::PARAM_INT, abi::PARAM_RANGE, None) }, "is empty"),
        ] {
            assert!(bad.problem().unwrap().contains(part), "{bad:?}");
        }
    }
}
