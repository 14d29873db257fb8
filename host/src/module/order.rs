//! The order in which modules are loaded and initialised: as configured, except that what a module
//! needs is moved to just before it.
//!
//! *Runs in:* the supervisor, before anything is forked. *Never:* knows of files; names and indices
//! only.
//!
//! *Pure:* no clock, no environment, no system call.

use std::collections::HashMap;

/// A module to be ordered.
#[derive(Debug, Clone, Copy)]
pub struct Node<'n> {
    pub name: &'n str,
    pub wants: &'n [Want],
}

/// What a module wants loaded before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// Name of the other module.
    pub name: String,
    pub need: Need,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It must be there.
    Required,
    /// If it is there, it comes first.
    IfPresent,
}

/// Why there is no order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conflict {
    /// A required module that is not there.
    Missing {
        /// Index of the module that requires it.
        by: usize,
        name: String,
    },
    /// Indices of modules of which each needs the next, and the last one the first.
    Cycle(Vec<usize>),
}

/// Every required name that no node has.
pub fn missing(nodes: &[Node<'_>]) -> Vec<Conflict> {
    let by_name = index(nodes);
    let lacks = |(by, node): (usize, &Node<'_>)| {
        let names = node.wants.iter().filter(|want| want.need == Need::Required && !by_name.contains_key(want.name.as_str()));
        names.map(|want| Conflict::Missing { by, name: want.name.clone() }).collect::<Vec<_>>()
    };
    nodes.iter().enumerate().flat_map(lacks).collect()
}

/// The indices in load order, or every conflict. Modules that want nothing and are not wanted keep
/// their order; what a module wants is moved to just before it.
pub fn order(nodes: &[Node<'_>]) -> Result<Vec<usize>, Vec<Conflict>> {
    let mut conflicts = missing(nodes);
    let by_name = index(nodes);
    let mut states = vec![VisitState::Fresh; nodes.len()];
    let mut ordered = Vec::with_capacity(nodes.len());
    for start in 0..nodes.len() {
        if states[start] != VisitState::Fresh {
            continue;
        }
        // A path of (node, index of its next want), kept here and not on the call stack: a chain
        // may be as long as the list.
        let mut path = vec![(start, 0)];
        states[start] = VisitState::OnPath;
        while let Some((node, next)) = path.last_mut() {
            let node = *node;
            let Some(want) = nodes[node].wants.get(*next) else {
                states[node] = VisitState::Placed;
                ordered.push(node);
                path.pop();
                continue;
            };
            *next += 1;
            let Some(&wanted) = by_name.get(want.name.as_str()) else { continue };
            match states[wanted] {
                VisitState::Placed => {}
                VisitState::Fresh => {
                    states[wanted] = VisitState::OnPath;
                    path.push((wanted, 0));
                }
                VisitState::OnPath => {
                    let from = path.iter().position(|(node, _)| *node == wanted).unwrap_or(0);
                    conflicts.push(Conflict::Cycle(path[from..].iter().map(|(node, _)| *node).collect()));
                }
            }
        }
    }
    if conflicts.is_empty() { Ok(ordered) } else { Err(conflicts) }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum VisitState {
    Fresh,
    OnPath,
    Placed,
}

fn index<'n>(nodes: &[Node<'n>]) -> HashMap<&'n str, usize> {
    // Of two with the same name the first counts; `resolve` reports the second.
    nodes.iter().enumerate().rev().map(|(index, node)| (node.name, index)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `"a:b,?c"`: a requires b and, if it is there, c.
    fn try_order(text: &str) -> Result<String, String> {
        let parsed: Vec<(&str, Vec<Want>)> = text
            .split_whitespace()
            .map(|node| {
                let (name, wants) = node.split_once(':').unwrap_or((node, ""));
                let want = |want: &str| match want.strip_prefix('?') {
                    Some(name) => Want { name: name.to_string(), need: Need::IfPresent },
                    None => Want { name: want.to_string(), need: Need::Required },
                };
                (name, wants.split(',').filter(|want| !want.is_empty()).map(want).collect())
            })
            .collect();
        let nodes: Vec<Node<'_>> = parsed.iter().map(|(name, wants)| Node { name, wants }).collect();
        let names = |indices: &[usize]| indices.iter().map(|index| nodes[*index].name).collect::<Vec<_>>().join(" ");
        order(&nodes).map(|indices| names(&indices)).map_err(|conflicts| {
            let text = |conflict: &Conflict| match conflict {
                Conflict::Missing { by, name } => format!("{} lacks {name}", nodes[*by].name),
                Conflict::Cycle(cycle) => format!("cycle {}", names(cycle)),
            };
            conflicts.iter().map(text).collect::<Vec<_>>().join("; ")
        })
    }

    #[test]
    fn wanted_modules_come_first_and_the_others_keep_their_order() {
        for (text, want) in [
            ("", Ok("")),
            ("c b a", Ok("c b a")),
            ("a:c b c", Ok("c a b")),
            ("a:b b:c c", Ok("c b a")),
            ("a:?c b c", Ok("c a b")),
            ("a:?x b", Ok("a b")),
            ("a:c,b b c", Ok("c b a")),
            ("a b:a c:a,b", Ok("a b c")),
            ("a:d b:d c d", Ok("d a b c")),
            ("a:x b:y,x", Err("a lacks x; b lacks y; b lacks x")),
            ("a:a", Err("cycle a")),
            ("a:b b:c c:a", Err("cycle a b c")),
            ("x:a a:b b:?a", Err("cycle a b")),
            ("a:b b:a c:d d:c e:z", Err("e lacks z; cycle a b; cycle c d")),
        ] {
            assert_eq!(try_order(text), want.map(str::to_string).map_err(str::to_string), "{text}");
        }
    }

    #[test]
    fn a_long_chain_needs_no_stack() {
        let wants: Vec<Vec<Want>> = (0..50_000).map(|n: usize| vec![Want { name: (n + 1).to_string(), need: Need::IfPresent }]).collect();
        let names: Vec<String> = (0..50_000).map(|n: usize| n.to_string()).collect();
        let nodes: Vec<Node<'_>> = names.iter().zip(&wants).map(|(name, wants)| Node { name, wants }).collect();
        assert_eq!(order(&nodes).unwrap()[0], 49_999);
    }
}
