//! Scripts: the actions of a recorder in each phase.
//!
//! ```text
//! script    = statement { ";" statement }
//! statement = phase [ "[" rank "]" ] [ "#" process_no ] [ "@" restarts ] ":" action { "," action }
//! ```
//! Phases: `init_f`, `proc_init`, `proc_main`, `child_init`, `post_child_init`, `handler`, `timer`,
//! `process` (a process with an entry function), `returned` (the child of a fork that returns),
//! `raw` (the child of a fork without the host), `destroy_f`. The actions are in `act.rs`.

use module_api::Result;

/// A parsed script.
pub struct Script(Vec<Statement>);

struct Statement {
    phase: String,
    rank: Option<i32>,
    process_no: Option<i32>,
    restarts: Option<u32>,
    actions: Vec<String>,
}

impl Script {
    pub fn parse(text: &str) -> Result<Script> {
        let statements = text.split(';').map(str::trim).filter(|statement| !statement.is_empty());
        Ok(Script(statements.map(Statement::parse).collect::<Result<_>>()?))
    }

    /// Whether the script contains this word instead of a statement: an action for every process.
    pub fn asks_for(&self, word: &str) -> bool {
        self.0.iter().any(|statement| statement.phase == word)
    }

    /// The actions for this moment, in the order of the script.
    pub fn actions(&self, phase: &str, rank: i32, process_no: i32, restarts: u32) -> impl Iterator<Item = &str> {
        let now = self.0.iter().filter(move |statement| {
            statement.phase == phase
                && statement.rank.is_none_or(|wanted| wanted == rank)
                && statement.process_no.is_none_or(|wanted| wanted == process_no)
                && statement.restarts.is_none_or(|wanted| wanted == restarts)
        });
        now.flat_map(|statement| statement.actions.iter().map(String::as_str))
    }
}

impl Statement {
    fn parse(text: &str) -> Result<Statement> {
        let (place, actions) = text.split_once(':').ok_or("a statement of the script has no colon")?;
        let (place, restarts) = suffix(place.trim(), '@')?;
        let (place, process_no) = suffix(place, '#')?;
        let (phase, rank) = match place.strip_suffix(']').and_then(|place| place.split_once('[')) {
            Some((phase, rank)) => (phase, Some(rank.parse()?)),
            None => (place, None),
        };
        Ok(Statement {
            phase: phase.to_owned(),
            rank,
            process_no,
            restarts: restarts.and_then(|number: i32| number.try_into().ok()),
            actions: actions.split(',').map(|action| action.trim().to_owned()).collect(),
        })
    }
}

/// The text before the sign, and the number after it.
fn suffix(text: &str, sign: char) -> Result<(&str, Option<i32>)> {
    match text.split_once(sign) {
        Some((text, number)) => Ok((text, Some(number.parse()?))),
        None => Ok((text, None)),
    }
}
