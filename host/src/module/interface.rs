//! Interfaces: the tables of functions that modules export and import, and which module gets which.
//!
//! *Runs in:* the supervisor and the commands `check` and `inspect` over what files say, main over
//! what it loaded. *Never:* touches a table; it knows names, versions, sizes and descriptions.
//!
//! *Pure:* no clock, no environment, no system call.

use std::collections::HashSet;

use module_api::abi;

use crate::error::Error;

const NAME_MAX_BYTES: usize = 63;
/// The smallest table: one function.
const SIZE_MIN_BYTES: u32 = 8;
const SIZE_MAX_BYTES: u32 = 65_536;

/// An interface as its exporter or its importer knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceShape {
    /// One part or several with dots between them: `http.routes`.
    pub name: String,
    /// Another major number is another interface.
    pub major: u16,
    /// Grows with each addition.
    pub minor: u16,
    pub size_bytes: u32,
    /// One line per function, if it is known.
    pub layout: Option<String>,
}

/// An interface that a module imports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportRequest {
    /// As the importer knows it.
    pub shape: InterfaceShape,
    /// `BIND_*`.
    pub kind: u32,
}

impl ImportRequest {
    /// Whether the importer cannot be loaded without it.
    pub fn is_required(&self) -> bool {
        self.kind == abi::BIND_REQUIRED
    }
}

impl std::fmt::Display for InterfaceShape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}.{}", self.name, self.major, self.minor)
    }
}

/// A module and the interfaces that it exports.
#[derive(Debug, Clone, Copy)]
pub struct Exporter<'e> {
    pub module: &'e str,
    pub interfaces: &'e [InterfaceShape],
}

/// What cannot be right in the declarations of one module.
pub fn problem(exports: &[InterfaceShape], imports: &[ImportRequest]) -> Option<String> {
    let shapes = || exports.iter().chain(imports.iter().map(|import| &import.shape));
    if let Some(shape) = shapes().find(|shape| !is_interface_name(&shape.name)) {
        return Some(format!("it is called {:?}, expected a-z, 0-9, _, - and dots between, at most {NAME_MAX_BYTES} bytes", shape.name));
    }
    let odd =
        |shape: &&InterfaceShape| !(SIZE_MIN_BYTES..=SIZE_MAX_BYTES).contains(&shape.size_bytes) || !shape.size_bytes.is_multiple_of(8);
    if let Some(shape) = shapes().find(odd) {
        return Some(format!("the table of \"{shape}\" has {} bytes, expected pointers to functions", shape.size_bytes));
    }
    if let Some(import) = imports.iter().find(|import| !matches!(import.kind, abi::BIND_REQUIRED | abi::BIND_OPTIONAL)) {
        return Some(format!("the import of \"{}\" is of kind {}; known are 1 and 2", import.shape, import.kind));
    }
    if let Some(shape) = repeated(exports.iter()) {
        return Some(format!("it exports \"{}\" {}.x twice", shape.name, shape.major));
    }
    let shape = repeated(imports.iter().map(|import| &import.shape))?;
    Some(format!("it imports \"{}\" {}.x twice", shape.name, shape.major))
}

fn repeated<'s>(mut shapes: impl Iterator<Item = &'s InterfaceShape>) -> Option<&'s InterfaceShape> {
    let mut seen = HashSet::new();
    shapes.find(|shape| !seen.insert((&shape.name, shape.major)))
}

fn is_interface_name(name: &str) -> bool {
    name.len() <= NAME_MAX_BYTES && name.split('.').all(crate::config::is_name)
}

/// The exporter of the interface that `module` imports: index of the exporter, and of the interface
/// among those it exports.
///
/// # Errors
/// In the operator's words, if no module exports it in a version that will do.
pub fn find(module: &str, import: &ImportRequest, exporters: &[Exporter<'_>]) -> Result<(usize, usize), Error> {
    let wanted = &import.shape;
    let exported = || {
        let each = exporters.iter().enumerate();
        each.flat_map(|(at, exporter)| exporter.interfaces.iter().enumerate().map(move |(nth, shape)| (at, exporter.module, nth, shape)))
            .filter(|(_, _, _, shape)| shape.name == wanted.name)
    };
    let what = || format!("module \"{module}\" needs the interface \"{}\" {}.{}", wanted.name, wanted.major, wanted.minor);
    let Some((at, exporter, nth, found)) = exported().find(|(_, _, _, shape)| shape.major == wanted.major) else {
        let others: Vec<String> =
            exported().map(|(_, exporter, _, shape)| format!("module \"{exporter}\" exports {}.{}", shape.major, shape.minor)).collect();
        return Err(match others.as_slice() {
            [] => Error::config(format!("{}, which no loaded module exports", what()))
                .hint("add the module that exports it; \"modhost inspect\" shows what a module exports"),
            others => Error::config(format!("{}, which is there in another version", what()))
                .detail(others.join(", "))
                .hint(format!("a change of the first number breaks users: rebuild \"{module}\" for the other version")),
        });
    };
    if found.minor < wanted.minor {
        return Err(Error::config(format!("{}, which is there in an older version", what()))
            .detail(format_args!("module \"{exporter}\" exports {}.{}", found.major, found.minor))
            .hint(format!("use a newer \"{exporter}\", or an older \"{module}\"")));
    }
    if let Some(difference) = difference(found, wanted) {
        return Err(Error::config(format!("modules \"{exporter}\" and \"{module}\" do not mean the same by the interface \"{wanted}\""))
            .detail(difference)
            .hint(format!("build \"{exporter}\" and \"{module}\" from the same declaration of it")));
    }
    Ok((at, nth))
}

/// How the exporter's table differs from the one that the importer knows. Appended functions are no
/// difference.
fn difference(found: &InterfaceShape, wanted: &InterfaceShape) -> Option<String> {
    if let (Some(found), Some(wanted)) = (&found.layout, &wanted.layout) {
        let mut theirs = found.lines();
        for line in wanted.lines() {
            let their = theirs.next().unwrap_or("no such function");
            if their != line {
                return Some(format!("exported is {their}, wanted is {line}"));
            }
        }
    }
    let longer = wanted.size_bytes > found.size_bytes || found.minor == wanted.minor && wanted.size_bytes != found.size_bytes;
    longer.then(|| format!("the exported table has {} bytes, the wanted one {}", found.size_bytes, wanted.size_bytes))
}

/// An interface that two modules export: index of the later exporter, of the earlier one, and the
/// interface.
pub fn duplicate<'e>(exporters: &[Exporter<'e>]) -> Option<(usize, usize, &'e InterfaceShape)> {
    let mut seen: Vec<(usize, &InterfaceShape)> = Vec::new();
    for (at, exporter) in exporters.iter().enumerate() {
        for shape in exporter.interfaces {
            match seen.iter().find(|(_, other)| (&other.name, other.major) == (&shape.name, shape.major)) {
                Some((first, _)) => return Some((at, *first, shape)),
                None => seen.push((at, shape)),
            }
        }
    }
    None
}

/// The error for what [`duplicate`] finds.
pub fn exported_twice(second: &str, first: &str, shape: &InterfaceShape) -> Error {
    Error::config(format!("modules \"{first}\" and \"{second}\" both export the interface \"{}\" {}.x", shape.name, shape.major))
        .detail("a module that imports it could get either")
        .hint("leave one of them out")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(name: &str, major: u16, minor: u16, layout: &str) -> InterfaceShape {
        let layout = layout.replace(' ', "\n");
        let size_bytes = 8 * layout.lines().count().max(1) as u32;
        InterfaceShape { name: name.into(), major, minor, size_bytes, layout: (!layout.is_empty()).then_some(layout) }
    }

    fn import(minor: u16, layout: &str) -> ImportRequest {
        ImportRequest { shape: shape("a.b", 1, minor, layout), kind: abi::BIND_REQUIRED }
    }

    #[test]
    fn each_mismatch_has_its_message() {
        let good = [shape("a.c", 1, 9, "f()"), shape("a.b", 1, 1, "f() g(u32)")];
        let other = [shape("a.b", 2, 0, "f()")];
        for (interfaces, wanted, expected) in [
            (&good[..], import(1, "f() g(u32)"), Ok((0, 1))),
            (&good, import(0, "f()"), Ok((0, 1))),
            // Without a description the sizes count.
            (&good, ImportRequest { shape: InterfaceShape { layout: None, ..import(0, "f()").shape }, ..import(0, "f()") }, Ok((0, 1))),
            (&good, import(2, "f()"), Err("older version")),
            (&good, import(0, "f() g(u64)"), Err("exported is g(u32), wanted is g(u64)")),
            (&good, import(1, "f() g(u32) h()"), Err("exported is no such function, wanted is h()")),
            (&good, import(1, ""), Err("has 16 bytes, the wanted one 8")),
            (&other, import(0, "f()"), Err("module \"e\" exports 2.0")),
            (&[], import(0, "f()"), Err("no loaded module exports")),
        ] {
            let found = find("u", &wanted, &[Exporter { module: "e", interfaces }]);
            match (found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected),
                (Err(error), Err(part)) => {
                    assert!(error.to_string().contains(part), "{error}");
                    assert!(!error.hint.is_empty());
                }
                (found, expected) => panic!("{found:?}, expected {expected:?}"),
            }
        }
    }

    #[test]
    fn two_majors_of_an_interface_are_two_interfaces() {
        let [first, second] =
            [[shape("a.b", 1, 0, "f()"), shape("a.b", 2, 0, "f()")], [shape("a.d", 1, 0, "f()"), shape("a.b", 2, 5, "f()")]];
        let exporters = [Exporter { module: "x", interfaces: &first }, Exporter { module: "y", interfaces: &second }];
        assert_eq!(duplicate(&exporters[..1]), None);
        let (late, early, shape) = duplicate(&exporters).unwrap();
        assert_eq!((late, early, shape.to_string().as_str()), (1, 0, "a.b 2.5"));
    }

    #[test]
    fn impossible_declarations_are_reported() {
        let sized = |size_bytes| InterfaceShape { size_bytes, ..shape("a.b", 1, 0, "f()") };
        for (exports, imports, part) in [
            (vec![shape("A", 1, 0, "")], vec![], "is called \"A\""),
            (vec![shape("a..b", 1, 0, "")], vec![], "is called"),
            (vec![shape(&"a".repeat(64), 1, 0, "")], vec![], "is called"),
            (vec![sized(0)], vec![], "has 0 bytes"),
            (vec![sized(12)], vec![], "has 12 bytes"),
            (vec![sized(1 << 20)], vec![], "has 1048576 bytes"),
            (vec![], vec![ImportRequest { kind: 3, ..import(0, "f()") }], "kind 3"),
            (vec![shape("a.b", 1, 0, ""), shape("a.b", 1, 1, "")], vec![], "exports \"a.b\" 1.x twice"),
            (vec![], vec![import(0, "f()"), import(1, "f()")], "imports \"a.b\" 1.x twice"),
        ] {
            let problem = problem(&exports, &imports).unwrap_or_default();
            assert!(problem.contains(part), "{problem:?} lacks {part:?}");
        }
        assert_eq!(problem(&[shape("a", 1, 0, ""), shape("a.b", 2, 0, "f()")], &[import(0, "f()")]), None);
    }
}
