//! Answers each datagram with its parameters, one of each kind. Proves that a module gets what the
//! configuration says. `c_kinds` is the same in C.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::PathBuf;

use module_api::prelude::*;

param_enum! {
    /// Selection of the next peer.
    pub enum Choice {
        /// In turn.
        First = "first",
        /// Any.
        Any = "any",
        /// The other end.
        Last = "last",
    }
}

params! {
    struct Params {
        /// Longest answer.
        longest: Size = "8KiB" in "1KiB"..="64KiB",
        /// A file.
        file: PathBuf = "default.db",
        /// Selection of the next peer.
        choice: Choice = "any",
        /// Allowed clients.
        names: Vec<String> = "",
        /// Ports to ask.
        ports: Vec<i64> = "5060, 5061" in 1..=65535,
        /// Selections, in order.
        choices: Vec<Choice> = "last",
        /// Files.
        files: Vec<PathBuf> = "",
        /// Timeouts by peer.
        waits: BTreeMap<String, Duration> = "\"any one\" = 1s" in "1ms"..="1h",
        /// Targets by name.
        routes: BTreeMap<String, String> = "",
        /// Another file.
        other: Option<PathBuf>,
    }
}

struct Kinds(String);

impl Module for Kinds {
    type Params = Params;
    type Child = ();

    fn init(_cx: &mut ModInit<'_, Self>, params: Params) -> Result<Self> {
        let Params { longest, file, choice, names, ports, choices, files, waits, routes, other } = params;
        let all = [
            longest.bytes().to_string(),
            file.display().to_string(),
            choice.word().to_string(),
            list(names),
            list(ports),
            list(choices.into_iter().map(Choice::word)),
            list(files.iter().map(|file| file.display())),
            list(waits.iter().map(|(name, wait)| format!("{name}>{}", wait.as_nanos()))),
            list(routes.iter().map(|(name, route)| format!("{name}>{route}"))),
            other.map_or_else(|| "-".to_string(), |other| other.display().to_string()),
        ];
        Ok(Kinds(all.join(" ")))
    }

    fn child_init(&self, _cx: &mut ChildInit<'_>) -> Result<()> {
        Ok(())
    }
}

fn list(items: impl IntoIterator<Item = impl Display>) -> String {
    format!("[{}]", items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join("|"))
}

impl Kinds {
    fn tell(&self, _child: &mut (), batch: &Batch<'_>) -> Result<()> {
        for datagram in batch {
            datagram.reply(self.0.as_bytes())?;
        }
        Ok(())
    }
}

export_module! {
    Kinds,
    name: "kinds",
    summary: "answers with its parameters",
    udp: { "tell" => Kinds::tell },
}
