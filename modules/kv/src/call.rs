//! One command that runs: what it is called with, and what most of them need.

use crate::command::{self, Command};
use crate::reply::{Protocol, Reply};
use crate::request::Arguments;
use crate::store::{Refused, Room, Store, Stored, Value};
use crate::{Limits, Saving};

/// What a connection has said of itself.
#[derive(Debug, Default)]
pub struct Client {
    /// Names the connection.
    pub id: u64,
    /// What it wants to be called.
    pub name: Vec<u8>,
    /// What it speaks.
    pub protocol: Protocol,
    /// It has said that it wants to end.
    pub quits: bool,
}

/// What a process keeps between commands.
#[derive(Debug)]
pub struct Work {
    /// See there.
    pub room: Room,
    /// For values that are made from others.
    pub bytes: Vec<u8>,
    /// Hits and misses, until they are counted.
    pub hits: u64,
    /// See `hits`.
    pub misses: u64,
}

/// See the file's head.
pub struct Call<'c> {
    /// The keys.
    pub store: &'c Store,
    /// See there.
    pub limits: &'c Limits,
    /// How snapshots are made.
    pub saving: &'c Saving,
    /// Who asks.
    pub client: &'c mut Client,
    /// See there.
    pub work: &'c mut Work,
    /// With what.
    pub arguments: Arguments<'c>,
    /// Where replies go.
    pub out: &'c mut Vec<u8>,
    /// Unix milliseconds.
    pub now_ms: u64,
}

/// What clients know these by.
pub const SYNTAX: &str = "ERR syntax error";
pub const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";
pub const TOO_LONG: &str = "ERR string exceeds maximum allowed size (max_value)";
const FULL: &str = "OOM command not allowed when used memory > 'maxmemory'.";

impl<'c> Call<'c> {
    /// Finds the command and runs it.
    #[inline]
    pub fn run(&mut self) {
        let Some(command) = command::find(self.arguments.at(0)) else { return self.unknown() };
        let given = i32::try_from(self.arguments.len()).unwrap_or(i32::MAX);
        if given == command.arity || command.arity < 0 && given >= -command.arity {
            (command.run)(self);
        } else {
            self.wrong_number(command);
        }
    }

    /// The reply.
    #[inline]
    pub fn reply(&mut self) -> Reply<'_> {
        Reply { out: self.out, protocol: self.client.protocol }
    }

    /// An argument.
    #[inline]
    pub fn argument(&self, index: usize) -> &'c [u8] {
        self.arguments.at(index)
    }

    /// An argument that is a number; an error has been sent if it is not.
    pub fn number(&mut self, index: usize) -> Option<i64> {
        let number = crate::reply::parse_number(self.argument(index));
        if number.is_none() {
            self.error(NOT_AN_INTEGER);
        }
        number
    }

    /// Whether an argument is this word.
    pub fn is(&self, index: usize, word: &str) -> bool {
        self.argument(index).eq_ignore_ascii_case(word.as_bytes())
    }

    /// Sends an error.
    #[cold]
    pub fn error(&mut self, text: &str) {
        self.reply().error(text);
    }

    /// Sends why the store has refused.
    #[cold]
    pub fn refused(&mut self, refused: Refused) {
        match refused {
            Refused::Full => self.error(FULL),
            Refused::Broken(error) => {
                module_api::error!("a key cannot be reached: {error}");
                self.error(&format!("ERR the store cannot be reached: {error}"));
            }
        }
    }

    /// Sends a value, or that there is none.
    #[inline]
    pub fn send_value(&mut self, found: Option<&Stored>) {
        let mut reply = self.reply();
        match found.map(Value::stored) {
            Some(Value::Text(text)) => reply.bulk(text),
            Some(Value::Number(number)) => reply.bulk_number(number),
            None => reply.nothing(),
        }
    }

    /// Ends a reply that began at `start` with an error if it has become longer than `max_reply`. True: it has.
    pub fn is_too_long(&mut self, start: usize) -> bool {
        let too_long = self.out.len() - start > self.limits.reply_bytes;
        if too_long {
            self.out.truncate(start);
            self.error("ERR the reply is longer than max_reply");
        }
        too_long
    }

    #[cold]
    fn unknown(&mut self) {
        let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes.get(..bytes.len().min(128)).unwrap_or_default()).into_owned();
        let mut text = format!("ERR unknown command '{}', with args beginning with: ", shown(self.argument(0)));
        for argument in self.arguments.from(1) {
            if text.len() > 256 {
                break;
            }
            text += &format!("'{}' ", shown(argument));
        }
        self.error(&text);
    }

    #[cold]
    fn wrong_number(&mut self, command: &Command) {
        self.wrong_number_of(command.name);
    }

    /// Sends that a command was called with too few or too many arguments.
    #[cold]
    pub fn wrong_number_of(&mut self, name: &str) {
        self.error(&format!("ERR wrong number of arguments for '{name}' command"));
    }

    /// Sends that there is no such thing under a command.
    #[cold]
    pub fn unknown_subcommand(&mut self) {
        let text = String::from_utf8_lossy(self.argument(1)).chars().take(128).collect::<String>();
        self.error(&format!("ERR unknown subcommand or wrong number of arguments for '{text}'"));
    }
}
