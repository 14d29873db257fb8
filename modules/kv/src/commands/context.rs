//! The context of one command: its arguments, its client, and the replies that most commands need.

use super::find;
use crate::Limits;
use crate::reply::{Protocol, Reply, parse_number};
use crate::request::Arguments;
use crate::snapshot::Snapshots;
use crate::store::{Quota, Store, StoreError, Stored, Value};

/// What a connection keeps between commands.
#[derive(Debug, Default)]
pub struct Client {
    /// The host's id of the connection.
    pub id: u64,
    /// The name that the client has given its connection; empty for none.
    pub name: Vec<u8>,
    pub protocol: Protocol,
    /// Whether the client has sent QUIT.
    pub quits: bool,
}

/// What a process keeps between commands.
#[derive(Debug)]
pub struct Scratch {
    pub quota: Quota,
    /// Buffer for a value or a reply while it is made.
    pub bytes: Vec<u8>,
    /// Added to the counter `hits` at the end of `Connection::serve`.
    pub hits: u64,
    /// Added to the counter `misses` at the end of `Connection::serve`.
    pub misses: u64,
}

/// Memory that `Scratch::bytes` keeps after a longer value or reply.
pub const SCRATCH_KEPT_BYTES: usize = 64 << 10;

/// What a command is called with.
pub struct CommandContext<'c> {
    pub store: &'c Store,
    pub limits: &'c Limits,
    pub snapshots: &'c Snapshots,
    pub client: &'c mut Client,
    pub scratch: &'c mut Scratch,
    /// The command's name is the first one.
    pub arguments: Arguments<'c>,
    /// Replies are appended here.
    pub out: &'c mut Vec<u8>,
    /// Unix milliseconds, the same for all commands of one `Connection::serve`.
    pub now_ms: u64,
}

// Clients know these texts.
pub const SYNTAX: &str = "ERR syntax error";
pub const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";
pub const TOO_LONG: &str = "ERR string exceeds maximum allowed size (max_value)";
const FULL: &str = "OOM command not allowed when used memory > 'maxmemory'.";

impl<'c> CommandContext<'c> {
    /// Finds the command and runs it.
    #[inline]
    pub fn run(&mut self) {
        let Some(command) = find(self.arguments.at(0)) else { return self.send_unknown_command() };
        let given = i32::try_from(self.arguments.len()).unwrap_or(i32::MAX);
        if given == command.arity || command.arity < 0 && given >= -command.arity {
            (command.run)(self);
        } else {
            self.send_wrong_argument_count(command.name);
        }
    }

    /// Writes a reply.
    #[inline]
    pub fn reply(&mut self) -> Reply<'_> {
        Reply { out: self.out, protocol: self.client.protocol }
    }

    #[inline]
    pub fn argument(&self, index: usize) -> &'c [u8] {
        self.arguments.at(index)
    }

    /// Parses an argument as a number. Sends an error if it is not one.
    pub fn number(&mut self, index: usize) -> Option<i64> {
        let number = parse_number(self.argument(index));
        if number.is_none() {
            self.send_error(NOT_AN_INTEGER);
        }
        number
    }

    /// Whether an argument is this word, in upper or lower case.
    pub fn is(&self, index: usize, word: &str) -> bool {
        self.argument(index).eq_ignore_ascii_case(word.as_bytes())
    }

    #[cold]
    pub fn send_error(&mut self, text: &str) {
        self.reply().error(text);
    }

    #[cold]
    pub fn send_store_error(&mut self, error: StoreError) {
        match error {
            StoreError::Full => self.send_error(FULL),
            StoreError::Broken(error) => {
                module_api::error!("a key cannot be reached: {error}");
                self.send_error(&format!("ERR the store cannot be reached: {error}"));
            }
        }
    }

    /// Sends a value; a null if there is none.
    #[inline]
    pub fn send_value(&mut self, found: Option<&Stored>) {
        write_value(self.reply(), found);
    }

    /// Replaces a reply that begins at `start` by an error if it is longer than `max_reply`.
    /// Returns whether it is.
    pub fn refuse_long_reply(&mut self, start: usize) -> bool {
        let is_too_long = self.out.len() - start > self.limits.reply_bytes;
        if is_too_long {
            self.out.truncate(start);
            self.send_error("ERR the reply is longer than max_reply");
        }
        is_too_long
    }

    #[cold]
    fn send_unknown_command(&mut self) {
        let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes.get(..bytes.len().min(128)).unwrap_or_default()).into_owned();
        let mut text = format!("ERR unknown command '{}', with args beginning with: ", shown(self.argument(0)));
        for argument in self.arguments.from(1) {
            if text.len() > 256 {
                break;
            }
            text += &format!("'{}' ", shown(argument));
        }
        self.send_error(&text);
    }

    /// Sends that a command has too few or too many arguments.
    #[cold]
    pub fn send_wrong_argument_count(&mut self, name: &str) {
        self.send_error(&format!("ERR wrong number of arguments for '{name}' command"));
    }

    /// Sends that the command has no such subcommand.
    #[cold]
    pub fn send_unknown_subcommand(&mut self) {
        let text = String::from_utf8_lossy(self.argument(1)).chars().take(128).collect::<String>();
        self.send_error(&format!("ERR unknown subcommand or wrong number of arguments for '{text}'"));
    }
}

/// Writes a value; a null if there is none.
#[inline]
pub fn write_value(mut reply: Reply<'_>, found: Option<&Stored>) {
    match found.map(Value::stored) {
        Some(Value::Text(text)) => reply.bulk(text),
        Some(Value::Number(number)) => reply.bulk_number(number),
        None => reply.null(),
    }
}
