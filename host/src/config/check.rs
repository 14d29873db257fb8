//! What can only be wrong between two entries: the same address or the same module twice.
//!
//! *Runs in:* the supervisor, after parsing and again after merging the command line.
//! *Never:* looks at the file system; two paths of one file are found when modules are resolved.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::{Config, ListenAddress};
use crate::error::Error;

/// Reports each listener and module that repeats an earlier one, with both positions.
pub fn check_duplicates(config: &Config) -> Vec<Error> {
    let mut errors = Vec::new();
    let mut modules = HashMap::new();
    for module in &config.modules {
        match modules.entry(&module.source) {
            Entry::Vacant(place) => {
                place.insert(&module.position);
            }
            Entry::Occupied(first) => errors.push(
                Error::config(format!("{}: the module \"{}\" is configured twice", module.position, module.source))
                    .detail(format_args!("first at {}", first.get()))
                    .hint("keep one of them; each module is loaded once"),
            ),
        }
    }
    let mut listeners = HashMap::new();
    for listener in config.listeners.iter().filter(|listener| !is_any_port(&listener.address)) {
        match listeners.entry(&listener.address) {
            Entry::Vacant(place) => {
                place.insert(&listener.position);
            }
            Entry::Occupied(first) => errors.push(
                Error::config(format!("{}: {} is listened on twice", listener.position, listener.address))
                    .detail(format_args!("first at {}", first.get()))
                    .hint("one listener has one handler; for more processes set its \"workers\""),
            ),
        }
    }
    errors
}

/// With port 0 the kernel chooses, differently each time.
fn is_any_port(address: &ListenAddress) -> bool {
    match address {
        ListenAddress::Udp(address) | ListenAddress::Tcp(address) => address.port() == 0,
        ListenAddress::Unix(_) => false,
    }
}
