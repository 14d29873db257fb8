//! Which commands there are, and finding the one that a request names.

use crate::call::Call;
use crate::{keys, server, strings};

/// A command.
pub struct Command {
    /// In small letters.
    pub name: &'static str,
    /// Number of arguments with the name; negative: at least so many.
    pub arity: i32,
    /// Whether it can store more than there was.
    pub writes: bool,
    /// Which arguments are keys: the first, the last (negative: from the end), and the distance; zeros for none.
    pub keys: (i32, i32, i32),
    /// What it does.
    pub run: fn(&mut Call<'_>),
}

const fn command(name: &'static str, arity: i32, writes: bool, keys: (i32, i32, i32), run: fn(&mut Call<'_>)) -> Command {
    Command { name, arity, writes, keys, run }
}

const NONE: (i32, i32, i32) = (0, 0, 0);
const ONE: (i32, i32, i32) = (1, 1, 1);
const ALL: (i32, i32, i32) = (1, -1, 1);

/// In the order of the names, because they are searched by halving.
const TABLE: [Command; 53] = [
    command("append", 3, true, ONE, strings::append),
    command("auth", -2, false, NONE, server::auth),
    command("bgsave", -1, false, NONE, server::bgsave),
    command("client", -2, false, NONE, server::client),
    command("command", -1, false, NONE, server::command),
    command("config", -2, false, NONE, server::config),
    command("dbsize", 1, false, NONE, keys::dbsize),
    command("decr", 2, true, ONE, strings::decr),
    command("decrby", 3, true, ONE, strings::decrby),
    command("del", -2, false, ALL, keys::del),
    command("echo", 2, false, NONE, server::echo),
    command("exists", -2, false, ALL, keys::exists),
    command("expire", -3, false, ONE, keys::expire),
    command("expireat", -3, false, ONE, keys::expireat),
    command("expiretime", 2, false, ONE, keys::expiretime),
    command("flushall", -1, false, NONE, keys::flush),
    command("flushdb", -1, false, NONE, keys::flush),
    command("get", 2, false, ONE, strings::get),
    command("getdel", 2, false, ONE, strings::getdel),
    command("getex", -2, false, ONE, strings::getex),
    command("getrange", 4, false, ONE, strings::getrange),
    command("getset", 3, true, ONE, strings::getset),
    command("hello", -1, false, NONE, server::hello),
    command("incr", 2, true, ONE, strings::incr),
    command("incrby", 3, true, ONE, strings::incrby),
    command("info", -1, false, NONE, server::info),
    command("keys", 2, false, NONE, keys::keys),
    command("lastsave", 1, false, NONE, server::lastsave),
    command("mget", -2, false, ALL, strings::mget),
    command("mset", -3, true, (1, -1, 2), strings::mset),
    command("persist", 2, false, ONE, keys::persist),
    command("pexpire", -3, false, ONE, keys::pexpire),
    command("pexpireat", -3, false, ONE, keys::pexpireat),
    command("pexpiretime", 2, false, ONE, keys::pexpiretime),
    command("ping", -1, false, NONE, server::ping),
    command("psetex", 4, true, ONE, strings::psetex),
    command("pttl", 2, false, ONE, keys::pttl),
    command("quit", -1, false, NONE, server::quit),
    command("reset", 1, false, NONE, server::reset),
    command("save", 1, false, NONE, server::save),
    command("scan", -2, false, NONE, keys::scan),
    command("select", 2, false, NONE, server::select),
    command("set", -3, true, ONE, strings::set),
    command("setex", 4, true, ONE, strings::setex),
    command("setnx", 3, true, ONE, strings::setnx),
    command("strlen", 2, false, ONE, strings::strlen),
    command("substr", 4, false, ONE, strings::getrange),
    command("time", 1, false, NONE, server::time),
    command("touch", -2, false, ALL, keys::touch),
    command("ttl", 2, false, ONE, keys::ttl),
    command("type", 2, false, ONE, keys::kind),
    command("unlink", -2, false, ALL, keys::del),
    command("wait", 3, false, NONE, server::wait),
];

/// All of them.
pub static COMMANDS: [Command; TABLE.len()] = TABLE;

static WORDS: [u128; TABLE.len()] = {
    let mut words = [0; TABLE.len()];
    let mut index = 0;
    while index < TABLE.len() {
        words[index] = word(TABLE[index].name.as_bytes());
        index += 1;
    }
    words
};

/// A name of at most 16 bytes as a number, without a difference between large and small letters, in the order of the alphabet.
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

/// The command of that name.
#[inline]
pub fn find(name: &[u8]) -> Option<&'static Command> {
    if name.is_empty() || name.len() > 16 {
        return None;
    }
    let found = WORDS.binary_search(&word(name)).ok()?;
    // A name that ends with zeros is the same number.
    COMMANDS.get(found).filter(|command| command.name.len() == name.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_found_by_its_name() {
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
