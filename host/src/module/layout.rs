//! The structural comparison of a Rust module's ABI types with the host's.
//!
//! *Runs in:* main (and `modhost check`), before any `init_f`. *Never:* touches a layout before its
//! header was compared.
//!
//! abi_stable compares in one direction: every field of the *interface*, its first argument, must
//! be found in the *implementation*, its second, which may have more fields at the end. So the
//! older of the two, by its minor number, is the interface: a module of an older minor has fewer
//! fields than the host, one of a newer minor more. With equal numbers both have the same fields; a
//! copy of module-api with an added field is detected, unless it calls itself newer.

use std::cmp::Ordering;

use abi_stable::abi_stability::abi_checking::{
    AbiInstability, AbiInstabilityError, CheckingGlobals, ExpectedFound, check_layout_compatibility_with_globals,
};
use abi_stable::type_layout::{TLField, TLFieldOrFunction, TypeLayout};
use module_api::abi;

use crate::error::{Error, Result};

/// Structs that begin with their size, or are passed with a stride: a later minor may append
/// fields.
const GROWING: &[&str] = &[
    "Param",
    "Handler",
    "Dependency",
    "Interface",
    "Bind",
    "StreamFunctions",
    "Stream",
    "Datagram",
    "UdpBatch",
    "ProcessInfo",
    "ProcessRow",
    "HostInfo",
    "ForkSpec",
    "TimerSpec",
    "ListenSpec",
    "StatSpec",
    "StatInfo",
    #[cfg(test)]
    "SampleHandler",
];

/// The older one of two minors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Older {
    /// Or both are the same.
    Module,
    Host,
}

/// Compares the layouts that a Rust module's header points to with the host's.
///
/// # Safety
/// `info` is what the header of a module with `FLAG_RUST` points to, and not null.
pub unsafe fn check(info: *const abi::RustInfo, module_minor: u16) -> Result<()> {
    // SAFETY: a header with FLAG_RUST points to a RustInfo constant, which starts with the version
    // of the description.
    let header = unsafe { (*info).abi_stable };
    if !header.is_compatible(&module_api::layout::ABI_HEADER) {
        return Err(Error::config("its type description has another version").hint("rebuild the module against module-api 1.x"));
    }
    // SAFETY: the header's major number and FLAG_RUST say that this is a RustInfo of ABI 1.
    let (source, exports, host) = unsafe { ((*info).source, &raw const (*info).exports, &raw const (*info).host) };
    // The usual case: built with the host's module-api. Comparing would take longer than loading
    // the module.
    if source == module_api::layout::SOURCE {
        return Ok(());
    }
    // SAFETY: the version of the description is ours, so these are references to layouts of our
    // form.
    let (exports, host) = unsafe { (*exports, *host) };
    let older = if module_minor > abi::ABI_MINOR { Older::Host } else { Older::Module };
    let mut lines = differences(exports, module_api::layout::exports_layout(), older);
    lines.extend(differences(host, module_api::layout::host_layout(), older));
    if lines.is_empty() {
        return Ok(());
    }
    Err(Error::config("what it was built with differs from this host's module-api")
        .detail(lines.join("\n"))
        .hint(format!("rebuild the module against module-api {}.x", abi::ABI_MAJOR)))
}

/// One line per difference that matters.
fn differences(module: &'static TypeLayout, ours: &'static TypeLayout, older: Older) -> Vec<String> {
    let (interface, implementation) = match older {
        Older::Module => (module, ours),
        Older::Host => (ours, module),
    };
    // Not the process-wide ones: with these, abi_stable compares newer modules with each other,
    // which never meet.
    let globals = CheckingGlobals::new();
    let Err(report) = check_layout_compatibility_with_globals(interface, implementation, &globals) else {
        return Vec::new();
    };
    let mut lines: Vec<String> = Vec::new();
    for error in report.errors.iter().filter(|error| !is_growth(error)) {
        for line in describe(error, older) {
            // A type that is used twice is reported twice.
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
    }
    lines
}

/// Whether the only difference is that a struct which may grow has more fields at its end.
fn is_growth(error: &AbiInstabilityError) -> bool {
    let grows = match error.stack_trace.last().map(|level| level.expected) {
        Some(TLFieldOrFunction::Field(field)) => GROWING.contains(&field.layout().name()),
        _ => false,
    };
    grows
        && error.errs.iter().all(|difference| match difference {
            AbiInstability::FieldCountMismatch(counts) => counts.expected < counts.found,
            AbiInstability::Size(sizes) => sizes.expected < sizes.found,
            _ => false,
        })
}

/// The lines for one place: `init_child_f(rank): the module was built with i64, this host has i32`.
/// A place that differs only because something inside it does has none.
fn describe(error: &AbiInstabilityError, older: Older) -> Vec<String> {
    let place = place(&error.stack_trace);
    let layout = error.stack_trace.last().and_then(|level| match (level.expected, level.found) {
        (TLFieldOrFunction::Field(expected), TLFieldOrFunction::Field(found)) => Some((expected.layout(), found.layout())),
        _ => None,
    });
    // Names say more than a count, and fields more than a size, if there are any.
    let explained = error.errs.iter().any(|difference| {
        matches!(
            difference,
            AbiInstability::UnexpectedField(_)
                | AbiInstability::FieldCountMismatch(_)
                | AbiInstability::MismatchedPrimitive(_)
                | AbiInstability::MismatchedPrefixSize(_)
        )
    });
    let mut lines = Vec::new();
    for difference in &error.errs {
        let text = match difference {
            AbiInstability::Size(_) | AbiInstability::Alignment(_) if explained => continue,
            AbiInstability::Name(types) => sides(older, &types.expected, &types.found),
            AbiInstability::UnexpectedField(fields) => {
                let at = |field: &TLField| format!("field \"{}\"", field.name());
                sides(older, &at(&fields.expected), &at(&fields.found))
            }
            AbiInstability::FieldCountMismatch(counts) => match layout.and_then(|(expected, found)| surplus(expected, found, older)) {
                Some(text) => text,
                None => sides(older, &format!("{} fields", counts.expected), &format!("{} fields", counts.found)),
            },
            AbiInstability::Size(sizes) => sides(older, &format!("{} bytes", sizes.expected), &format!("{} bytes", sizes.found)),
            AbiInstability::Alignment(bytes) => {
                sides(older, &format!("alignment {}", bytes.expected), &format!("alignment {}", bytes.found))
            }
            AbiInstability::Package(names) => sides(older, &names.expected, &names.found),
            AbiInstability::PackageVersion(versions) => {
                let version = |version: &abi_stable::sabi_types::VersionStrings| format!("a type of version {version}");
                sides(older, &version(&versions.expected), &version(&versions.found))
            }
            AbiInstability::MismatchedPrefixSize(counts) => {
                let count = |count: u8| format!("{count} fields of the first minor");
                sides(older, &count(counts.expected), &count(counts.found))
            }
            AbiInstability::MismatchedPrimitive(types) => {
                sides(older, &format!("{:?}", types.expected).to_lowercase(), &format!("{:?}", types.found).to_lowercase())
            }
            AbiInstability::GenericParamCount(types) => sides(older, &types.expected, &types.found),
            AbiInstability::FnQualifierMismatch(functions) => sides(older, &functions.expected, &functions.found),
            AbiInstability::ReprAttr(attributes) => sides(older, &format!("{:?}", attributes.expected), &format!("{:?}", attributes.found)),
            AbiInstability::TLDataDiscriminant(kinds) => {
                let kind = |kind: &dyn std::fmt::Debug| format!("a type of kind {kind:?}");
                sides(older, &kind(&kinds.expected), &kind(&kinds.found))
            }
            AbiInstability::MismatchedConstParam(values) => {
                sides(older, &format!("length {:?}", values.expected), &format!("length {:?}", values.found))
            }
            AbiInstability::UnexpectedVariant(names) => sides(older, &names.expected, &names.found),
            AbiInstability::NonZeroness(_) => "one side has a value that the other excludes, such as null".to_owned(),
            AbiInstability::FieldLifetimeMismatch(_) | AbiInstability::FnLifetimeMismatch(_) => "lifetimes differ".to_owned(),
            // Kinds of types that the interface does not have.
            _ => "the types differ".to_owned(),
        };
        let text = one_line(&text);
        lines.push(if place.is_empty() { text } else { format!("{place}: {text}") });
    }
    lines
}

/// Names the two sides as the operator knows them.
fn sides(older: Older, expected: &impl std::fmt::Display, found: &impl std::fmt::Display) -> String {
    let (module, host): (&dyn std::fmt::Display, &dyn std::fmt::Display) = match older {
        Older::Module => (expected, found),
        Older::Host => (found, expected),
    };
    format!("the module was built with {module}, this host has {host}")
}

/// The fields that only one side has.
fn surplus(expected: &'static TypeLayout, found: &'static TypeLayout, older: Older) -> Option<String> {
    let names = |layout: &'static TypeLayout| -> Option<Vec<String>> {
        // A prefix type keeps its fields elsewhere, but its names here.
        Some(layout.mono_type_layout().field_names().map(str::to_owned).collect::<Vec<_>>()).filter(|names| !names.is_empty())
    };
    let (expected, found) = (names(expected)?, names(found)?);
    let (module, host) = match older {
        Older::Module => (expected, found),
        Older::Host => (found, expected),
    };
    let (whose, more, fewer) = match module.len().cmp(&host.len()) {
        Ordering::Greater => ("the module", &module, &host),
        Ordering::Less => ("this host", &host, &module),
        Ordering::Equal => return None,
    };
    let missing: Vec<String> = more.iter().filter(|name| !fewer.contains(name)).map(|name| format!("\"{name}\"")).collect();
    let other = if whose == "the module" { "this host" } else { "the module" };
    (!missing.is_empty()).then(|| format!("{whose} has {}, {other} has not", missing.join(", ")))
}

/// The place of a difference, as one would write it: `params.target`, `init_child_f(rank)`.
fn place(stack: &[ExpectedFound<TLFieldOrFunction>]) -> String {
    let mut place = String::new();
    let mut in_function = false;
    for level in stack {
        match level.found {
            TLFieldOrFunction::Function(_) => in_function = true,
            TLFieldOrFunction::Field(field) => {
                // References, pointers, and what a field's type is wrapped in.
                // The last parameter of a function may come with its comma.
                let name = field.name().trim_end_matches(',');
                if name == "__returns" {
                    place.push_str("()");
                } else if in_function {
                    place.push_str(&format!("({name})"));
                } else if !is_wrapping(name) {
                    if !place.is_empty() {
                        place.push('.');
                    }
                    place.push_str(name);
                }
                in_function = false;
            }
        }
    }
    place
}

/// Names that abi_stable gives, not an author.
fn is_wrapping(name: &str) -> bool {
    name.starts_with("__") || name.bytes().all(|byte| byte.is_ascii_digit())
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
