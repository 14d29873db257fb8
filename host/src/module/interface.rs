//! Interfaces: the tables of functions that modules offer to each other, and who gets which.
//!
//! *Runs in:* the supervisor and the commands `check` and `inspect` over what files say, and main over what was loaded; pure.
//! *Never:* touches a table; it knows names, versions, sizes and descriptions of them.

use std::collections::HashSet;

use module_api::abi;

use crate::error::Error;

const NAME_MAX_BYTES: usize = 63;
/// The smallest table: one function.
const SIZE_MIN_BYTES: u32 = 8;
const SIZE_MAX_BYTES: u32 = 65_536;

/// What either side says of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// One part or several with dots between them: `http.routes`.
    pub name: String,
    /// Another major number is another interface.
    pub major: u16,
    /// Grows with each addition.
    pub minor: u16,
    /// Size of the table.
    pub size_bytes: u32,
    /// One line per function, if it is known.
    pub layout: Option<String>,
}

/// An interface that a module wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// As the module that wants it knows it.
    pub shape: Shape,
    /// `BIND_*`.
    pub kind: u32,
}

impl Wish {
    /// Whether the module cannot do without.
    pub fn is_required(&self) -> bool {
        self.kind == abi::BIND_REQUIRED
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}.{}", self.name, self.major, self.minor)
    }
}

/// One module, as far as interfaces are concerned.
#[derive(Debug, Clone, Copy)]
pub struct Party<'p> {
    /// Its name.
    pub module: &'p str,
    /// What it exports.
    pub offers: &'p [Shape],
}

/// What cannot be in these declarations of one module.
pub fn problem(offers: &[Shape], wishes: &[Wish]) -> Option<String> {
    let shapes = || offers.iter().chain(wishes.iter().map(|wish| &wish.shape));
    if let Some(shape) = shapes().find(|shape| !is_interface_name(&shape.name)) {
        return Some(format!("it is called {:?}, expected a-z, 0-9, _, - and dots between, at most {NAME_MAX_BYTES} bytes", shape.name));
    }
    let odd = |shape: &&Shape| !(SIZE_MIN_BYTES..=SIZE_MAX_BYTES).contains(&shape.size_bytes) || !shape.size_bytes.is_multiple_of(8);
    if let Some(shape) = shapes().find(odd) {
        return Some(format!("the table of \"{shape}\" has {} bytes, expected pointers to functions", shape.size_bytes));
    }
    if let Some(wish) = wishes.iter().find(|wish| !matches!(wish.kind, abi::BIND_REQUIRED | abi::BIND_OPTIONAL)) {
        return Some(format!("the wish for \"{}\" is of kind {}; known are 1 and 2", wish.shape, wish.kind));
    }
    let mut seen = HashSet::new();
    let twice = offers.iter().find(|offer| !seen.insert((&offer.name, offer.major)));
    if let Some(offer) = twice {
        return Some(format!("it exports \"{}\" {}.x twice", offer.name, offer.major));
    }
    let mut seen = HashSet::new();
    let twice = wishes.iter().find(|wish| !seen.insert((&wish.shape.name, wish.shape.major)));
    twice.map(|wish| format!("it binds \"{}\" {}.x twice", wish.shape.name, wish.shape.major))
}

fn is_interface_name(name: &str) -> bool {
    name.len() <= NAME_MAX_BYTES && name.split('.').all(crate::config::is_name)
}

/// Who exports what is wanted: index of the module, and of the interface among those it exports.
///
/// # Errors
/// In the operator's words, if nobody does, or not in a form that will do.
pub fn find(module: &str, wish: &Wish, parties: &[Party<'_>]) -> Result<(usize, usize), Error> {
    let wanted = &wish.shape;
    let offers = || {
        let each = parties.iter().enumerate();
        each.flat_map(|(at, party)| party.offers.iter().enumerate().map(move |(nth, offer)| (at, party.module, nth, offer)))
            .filter(|(_, _, _, shape)| shape.name == wanted.name)
    };
    let what = || format!("module \"{module}\" needs the interface \"{}\" {}.{}", wanted.name, wanted.major, wanted.minor);
    let Some((at, exporter, nth, found)) = offers().find(|(_, _, _, shape)| shape.major == wanted.major) else {
        let others: Vec<String> =
            offers().map(|(_, exporter, _, shape)| format!("module \"{exporter}\" exports {}.{}", shape.major, shape.minor)).collect();
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

/// In what the exporter's table is not the one that the other side knows; what was appended is none.
fn difference(found: &Shape, wanted: &Shape) -> Option<String> {
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

/// An interface that two modules export: the later of them, the earlier, and what.
pub fn duplicate<'p>(parties: &[Party<'p>]) -> Option<(usize, usize, &'p Shape)> {
    let mut seen: Vec<(usize, &Shape)> = Vec::new();
    for (at, party) in parties.iter().enumerate() {
        for shape in party.offers {
            match seen.iter().find(|(_, other)| (&other.name, other.major) == (&shape.name, shape.major)) {
                Some((first, _)) => return Some((at, *first, shape)),
                None => seen.push((at, shape)),
            }
        }
    }
    None
}

/// The error of two modules that export the same.
pub fn twice(second: &str, first: &str, shape: &Shape) -> Error {
    Error::config(format!("modules \"{first}\" and \"{second}\" both export the interface \"{}\" {}.x", shape.name, shape.major))
        .detail("whoever binds it could get either")
        .hint("leave one of them out")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(name: &str, major: u16, minor: u16, layout: &str) -> Shape {
        let layout = layout.replace(' ', "\n");
        let size_bytes = 8 * layout.lines().count().max(1) as u32;
        Shape { name: name.into(), major, minor, size_bytes, layout: (!layout.is_empty()).then_some(layout) }
    }

    fn offer(name: &str, major: u16, minor: u16, layout: &str) -> Shape {
        shape(name, major, minor, layout)
    }

    fn wish(minor: u16, layout: &str) -> Wish {
        Wish { shape: shape("a.b", 1, minor, layout), kind: abi::BIND_REQUIRED }
    }

    #[test]
    fn each_mismatch_has_its_words() {
        let good = [offer("a.c", 1, 9, "f()"), offer("a.b", 1, 1, "f() g(u32)")];
        let other = [offer("a.b", 2, 0, "f()")];
        for (offers, wish, expected) in [
            (&good[..], wish(1, "f() g(u32)"), Ok((0, 1))),
            (&good, wish(0, "f()"), Ok((0, 1))),
            // Without a description the sizes count.
            (&good, Wish { shape: Shape { layout: None, ..wish(0, "f()").shape }, ..wish(0, "f()") }, Ok((0, 1))),
            (&good, wish(2, "f()"), Err("older version")),
            (&good, wish(0, "f() g(u64)"), Err("exported is g(u32), wanted is g(u64)")),
            (&good, wish(1, "f() g(u32) h()"), Err("exported is no such function, wanted is h()")),
            (&good, wish(1, ""), Err("has 16 bytes, the wanted one 8")),
            (&other, wish(0, "f()"), Err("module \"e\" exports 2.0")),
            (&[], wish(0, "f()"), Err("no loaded module exports")),
        ] {
            let found = find("u", &wish, &[Party { module: "e", offers }]);
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
            [[offer("a.b", 1, 0, "f()"), offer("a.b", 2, 0, "f()")], [offer("a.d", 1, 0, "f()"), offer("a.b", 2, 5, "f()")]];
        let parties = [Party { module: "x", offers: &first }, Party { module: "y", offers: &second }];
        assert_eq!(duplicate(&parties[..1]), None);
        let (late, early, shape) = duplicate(&parties).unwrap();
        assert_eq!((late, early, shape.to_string().as_str()), (1, 0, "a.b 2.5"));
    }

    #[test]
    fn declarations_that_cannot_be() {
        let sized = |size_bytes| Shape { size_bytes, ..shape("a.b", 1, 0, "f()") };
        for (offers, wishes, part) in [
            (vec![offer("A", 1, 0, "")], vec![], "is called \"A\""),
            (vec![offer("a..b", 1, 0, "")], vec![], "is called"),
            (vec![offer(&"a".repeat(64), 1, 0, "")], vec![], "is called"),
            (vec![sized(0)], vec![], "has 0 bytes"),
            (vec![sized(12)], vec![], "has 12 bytes"),
            (vec![sized(1 << 20)], vec![], "has 1048576 bytes"),
            (vec![], vec![Wish { kind: 3, ..wish(0, "f()") }], "kind 3"),
            (vec![offer("a.b", 1, 0, ""), offer("a.b", 1, 1, "")], vec![], "exports \"a.b\" 1.x twice"),
            (vec![], vec![wish(0, "f()"), wish(1, "f()")], "binds \"a.b\" 1.x twice"),
        ] {
            let problem = problem(&offers, &wishes).unwrap_or_default();
            assert!(problem.contains(part), "{problem:?} lacks {part:?}");
        }
        assert_eq!(problem(&[offer("a", 1, 0, ""), offer("a.b", 2, 0, "f()")], &[wish(0, "f()")]), None);
    }
}
