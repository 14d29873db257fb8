//! The table of commands, and the search for the one that a request names.

pub mod context;
mod keys;
mod server;
mod strings;

use Memory::{Grows, Keeps};
use context::CommandContext;

pub struct Command {
    /// In lower case.
    pub name: &'static str,
    /// Number of arguments, the name included; negative for at least that number.
    pub arity: i32,
    pub memory: Memory,
    /// The arguments that are keys: the first, the last (negative: from the end), and the step;
    /// zeros for none.
    pub keys: (i32, i32, i32),
    pub run: fn(&mut CommandContext<'_>),
}

/// Whether a command can need more memory for values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    Grows,
    Keeps,
}

const fn command(name: &'static str, arity: i32, memory: Memory, keys: (i32, i32, i32), run: fn(&mut CommandContext<'_>)) -> Command {
    Command { name, arity, memory, keys, run }
}

const NONE: (i32, i32, i32) = (0, 0, 0);
const ONE: (i32, i32, i32) = (1, 1, 1);
const ALL: (i32, i32, i32) = (1, -1, 1);

/// Sorted by name for the binary search.
const TABLE: [Command; 53] = [
    command("append", 3, Grows, ONE, strings::append),
    command("auth", -2, Keeps, NONE, server::auth),
    command("bgsave", -1, Keeps, NONE, server::bgsave),
    command("client", -2, Keeps, NONE, server::client),
    command("command", -1, Keeps, NONE, server::command),
    command("config", -2, Keeps, NONE, server::config),
    command("dbsize", 1, Keeps, NONE, keys::dbsize),
    command("decr", 2, Grows, ONE, strings::decr),
    command("decrby", 3, Grows, ONE, strings::decrby),
    command("del", -2, Keeps, ALL, keys::del),
    command("echo", 2, Keeps, NONE, server::echo),
    command("exists", -2, Keeps, ALL, keys::exists),
    command("expire", -3, Keeps, ONE, keys::expire),
    command("expireat", -3, Keeps, ONE, keys::expireat),
    command("expiretime", 2, Keeps, ONE, keys::expiretime),
    command("flushall", -1, Keeps, NONE, keys::flush),
    command("flushdb", -1, Keeps, NONE, keys::flush),
    command("get", 2, Keeps, ONE, strings::get),
    command("getdel", 2, Keeps, ONE, strings::getdel),
    command("getex", -2, Keeps, ONE, strings::getex),
    command("getrange", 4, Keeps, ONE, strings::getrange),
    command("getset", 3, Grows, ONE, strings::getset),
    command("hello", -1, Keeps, NONE, server::hello),
    command("incr", 2, Grows, ONE, strings::incr),
    command("incrby", 3, Grows, ONE, strings::incrby),
    command("info", -1, Keeps, NONE, server::info),
    command("keys", 2, Keeps, NONE, keys::keys),
    command("lastsave", 1, Keeps, NONE, server::lastsave),
    command("mget", -2, Keeps, ALL, strings::mget),
    command("mset", -3, Grows, (1, -1, 2), strings::mset),
    command("persist", 2, Keeps, ONE, keys::persist),
    command("pexpire", -3, Keeps, ONE, keys::pexpire),
    command("pexpireat", -3, Keeps, ONE, keys::pexpireat),
    command("pexpiretime", 2, Keeps, ONE, keys::pexpiretime),
    command("ping", -1, Keeps, NONE, server::ping),
    command("psetex", 4, Grows, ONE, strings::psetex),
    command("pttl", 2, Keeps, ONE, keys::pttl),
    command("quit", -1, Keeps, NONE, server::quit),
    command("reset", 1, Keeps, NONE, server::reset),
    command("save", 1, Keeps, NONE, server::save),
    command("scan", -2, Keeps, NONE, keys::scan),
    command("select", 2, Keeps, NONE, server::select),
    command("set", -3, Grows, ONE, strings::set),
    command("setex", 4, Grows, ONE, strings::setex),
    command("setnx", 3, Grows, ONE, strings::setnx),
    command("strlen", 2, Keeps, ONE, strings::strlen),
    command("substr", 4, Keeps, ONE, strings::getrange),
    command("time", 1, Keeps, NONE, server::time),
    command("touch", -2, Keeps, ALL, keys::touch),
    command("ttl", 2, Keeps, ONE, keys::ttl),
    command("type", 2, Keeps, ONE, keys::kind),
    command("unlink", -2, Keeps, ALL, keys::del),
    command("wait", 3, Keeps, NONE, server::wait),
];

/// Every command, sorted by name.
pub static COMMANDS: [Command; TABLE.len()] = TABLE;

/// The names as `word` makes them.
static WORDS: [u128; TABLE.len()] = {
    let mut words = [0; TABLE.len()];
    let mut index = 0;
    while index < TABLE.len() {
        words[index] = word(TABLE[index].name.as_bytes());
        index += 1;
    }
    words
};

/// Makes a number of a name of at most 16 bytes. Ignores case, and keeps the alphabetical order.
#[inline]
const fn word(name: &[u8]) -> u128 {
    let mut word = 0;
    let mut index = 0;
    while index < name.len() {
        word = word << 8 | name[index].to_ascii_lowercase() as u128;
        index += 1;
    }
    word << (8 * (16 - name.len()))
}

/// Finds a command by its name, in upper or lower case.
#[inline]
pub fn find(name: &[u8]) -> Option<&'static Command> {
    if name.is_empty() || name.len() > 16 {
        return None;
    }
    let found = WORDS.binary_search(&word(name)).ok()?;
    // A name with zero bytes at its end makes the same number.
    COMMANDS.get(found).filter(|command| command.name.len() == name.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_found_by_its_name() {
        assert!(WORDS.is_sorted());
        for command in &COMMANDS {
            assert_eq!(find(command.name.as_bytes()).unwrap().name, command.name);
            assert_eq!(find(command.name.to_uppercase().as_bytes()).unwrap().name, command.name);
            let mut longer = command.name.to_owned();
            longer.push('x');
            assert!(find(longer.as_bytes()).is_none());
        }
        for name in ["", "g", "geu", "ge\0", "averylongnameofacommand", "get\0"] {
            assert!(find(name.as_bytes()).is_none(), "{name:?}");
        }
    }
}
