//! Commands about the connection and the server.

use std::fmt::Write as _;
use std::sync::atomic::Ordering::Relaxed;

use super::context::{CommandContext, SYNTAX};
use super::{COMMANDS, Command, Memory, find};
use crate::reply::{Protocol, Reply, parse_number};
use crate::snapshot::{self, SaveOutcome};
use crate::store::{Eviction, now_ms};

/// The version of Redis that this module reports. Clients choose their commands by it.
const VERSION: &str = "7.0.0";
const NO_PASSWORD: &str =
    "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?";

pub fn ping(cx: &mut CommandContext<'_>) {
    match cx.arguments.len() {
        1 => cx.reply().simple("PONG"),
        2 => {
            let text = cx.argument(1);
            cx.reply().bulk(text);
        }
        _ => cx.send_wrong_argument_count("ping"),
    }
}

pub fn echo(cx: &mut CommandContext<'_>) {
    let text = cx.argument(1);
    cx.reply().bulk(text);
}

pub fn quit(cx: &mut CommandContext<'_>) {
    cx.reply().ok();
    cx.client.quits = true;
}

pub fn reset(cx: &mut CommandContext<'_>) {
    cx.client.name.clear();
    cx.client.protocol = Protocol::Resp2;
    cx.reply().simple("RESET");
}

pub fn select(cx: &mut CommandContext<'_>) {
    match parse_number(cx.argument(1)) {
        Some(0) => cx.reply().ok(),
        Some(_) => cx.send_error("ERR DB index is out of range"),
        None => cx.send_error("ERR invalid DB index"),
    }
}

pub fn auth(cx: &mut CommandContext<'_>) {
    match cx.arguments.len() {
        2 | 3 => cx.send_error(NO_PASSWORD),
        _ => cx.send_error(SYNTAX),
    }
}

/// There are no replicas to wait for.
pub fn wait(cx: &mut CommandContext<'_>) {
    cx.reply().integer(0);
}

pub fn time(cx: &mut CommandContext<'_>) {
    let now_ms = now_ms();
    let mut reply = cx.reply();
    reply.array(2);
    reply.bulk_number((now_ms / 1000).cast_signed());
    reply.bulk_number((now_ms % 1000 * 1000).cast_signed());
}

pub fn hello(cx: &mut CommandContext<'_>) {
    let mut protocol = cx.client.protocol;
    if cx.arguments.len() > 1 {
        protocol = match parse_number(cx.argument(1)) {
            Some(2) => Protocol::Resp2,
            Some(3) => Protocol::Resp3,
            Some(_) => return cx.send_error("NOPROTO unsupported protocol version"),
            None => return cx.send_error("ERR Protocol version is not an integer or out of range"),
        };
    }
    let (mut name, mut index) = (None, 2);
    while index < cx.arguments.len() {
        if cx.is(index, "SETNAME") && index + 1 < cx.arguments.len() {
            name = Some(cx.argument(index + 1));
            index += 2;
        } else if cx.is(index, "AUTH") && index + 2 < cx.arguments.len() {
            return cx.send_error(NO_PASSWORD);
        } else {
            return cx.send_error("ERR Syntax error in HELLO option");
        }
    }
    if let Some(name) = name
        && !set_name(cx, name)
    {
        return;
    }
    cx.client.protocol = protocol;
    let id = cx.client.id.cast_signed();
    let mut reply = cx.reply();
    reply.map(7);
    for (key, value) in [("server", "redis"), ("version", VERSION)] {
        reply.bulk(key.as_bytes());
        reply.bulk(value.as_bytes());
    }
    for (key, value) in [("proto", if protocol == Protocol::Resp3 { 3 } else { 2 }), ("id", id)] {
        reply.bulk(key.as_bytes());
        reply.integer(value);
    }
    for (key, value) in [("mode", "standalone"), ("role", "master")] {
        reply.bulk(key.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"modules");
    reply.array(0);
}

/// Longest name of a connection, in bytes. The name is kept until the connection is closed.
const NAME_MAX: usize = 256;

/// Names the connection. Sends an error and returns false if the name is invalid.
fn set_name(cx: &mut CommandContext<'_>, name: &[u8]) -> bool {
    let is_valid = name.len() <= NAME_MAX && name.iter().all(u8::is_ascii_graphic);
    if is_valid {
        cx.client.name = name.to_vec();
    } else {
        cx.send_error("ERR Client names cannot contain spaces, newlines or special characters.");
    }
    is_valid
}

pub fn client(cx: &mut CommandContext<'_>) {
    let count = cx.arguments.len();
    if cx.is(1, "SETNAME") && count == 3 {
        let name = cx.argument(2);
        if set_name(cx, name) {
            cx.reply().ok();
        }
    } else if cx.is(1, "GETNAME") && count == 2 {
        let mut reply = Reply { out: cx.out, protocol: cx.client.protocol };
        if cx.client.name.is_empty() {
            reply.null();
        } else {
            reply.bulk(&cx.client.name);
        }
    } else if cx.is(1, "ID") && count == 2 {
        let id = cx.client.id.cast_signed();
        cx.reply().integer(id);
    } else if cx.is(1, "SETINFO") && count == 4 {
        match cx.is(2, "LIB-NAME") || cx.is(2, "LIB-VER") {
            true => cx.reply().ok(),
            false => cx.send_error("ERR Unrecognized option"),
        }
    } else if count == 2 && (cx.is(1, "INFO") || cx.is(1, "LIST")) {
        let name = String::from_utf8_lossy(&cx.client.name);
        let protocol = if cx.client.protocol == Protocol::Resp3 { 3 } else { 2 };
        let line = format!("id={} name={name} db=0 resp={protocol}\n", cx.client.id);
        cx.reply().verbatim(&line);
    } else if count == 3 && (cx.is(1, "NO-EVICT") || cx.is(1, "NO-TOUCH")) {
        cx.reply().ok();
    } else {
        cx.send_unknown_subcommand();
    }
}

pub fn command(cx: &mut CommandContext<'_>) {
    if cx.arguments.len() == 1 {
        cx.reply().array(COMMANDS.len());
        for command in &COMMANDS {
            describe(cx.reply(), command);
        }
    } else if cx.is(1, "COUNT") && cx.arguments.len() == 2 {
        cx.reply().integer(COMMANDS.len() as i64);
    } else if cx.is(1, "DOCS") {
        cx.reply().map(0);
    } else if cx.is(1, "LIST") && cx.arguments.len() == 2 {
        cx.reply().array(COMMANDS.len());
        for command in &COMMANDS {
            cx.reply().bulk(command.name.as_bytes());
        }
    } else if cx.is(1, "INFO") {
        let count = cx.arguments.len() - 2;
        cx.reply().array(count);
        for name in cx.arguments.from(2) {
            match find(name) {
                Some(command) => describe(cx.reply(), command),
                None if cx.client.protocol == Protocol::Resp2 => cx.out.extend_from_slice(b"*-1\r\n"),
                None => cx.reply().null(),
            }
        }
    } else {
        cx.send_unknown_subcommand();
    }
}

fn describe(mut reply: Reply<'_>, command: &Command) {
    reply.array(10);
    reply.bulk(command.name.as_bytes());
    reply.integer(i64::from(command.arity));
    reply.array(1);
    reply.simple(match command.memory {
        Memory::Grows => "denyoom",
        Memory::Keeps => "fast",
    });
    let (first, last, step) = command.keys;
    for number in [first, last, step] {
        reply.integer(i64::from(number));
    }
    // ACL categories, tips, key specifications and subcommands are left empty.
    (0..4).for_each(|_| reply.array(0));
}

pub fn config(cx: &mut CommandContext<'_>) {
    if cx.is(1, "GET") && cx.arguments.len() >= 3 {
        let known = [
            ("appendonly", "no".to_owned()),
            ("databases", "1".to_owned()),
            ("maxmemory", cx.store.max_bytes.to_string()),
            ("maxmemory-policy", policy(cx.store.eviction).to_owned()),
            ("proto-max-bulk-len", cx.limits.value_bytes.to_string()),
            ("save", cx.snapshots.every.map_or_else(String::new, |every| format!("{} 1", every.as_secs().max(1)))),
        ];
        let wanted = |name: &str| cx.arguments.from(2).any(|pattern| crate::glob::matches(&pattern.to_ascii_lowercase(), name.as_bytes()));
        let found: Vec<_> = known.into_iter().filter(|(name, _)| wanted(name)).collect();
        let mut reply = cx.reply();
        reply.map(found.len());
        for (name, value) in found {
            reply.bulk(name.as_bytes());
            reply.bulk(value.as_bytes());
        }
    } else if cx.is(1, "RESETSTAT") && cx.arguments.len() == 2 {
        cx.reply().ok();
    } else {
        cx.send_unknown_subcommand();
    }
}

fn policy(eviction: Eviction) -> &'static str {
    match eviction {
        Eviction::None => "noeviction",
        Eviction::Lru => "allkeys-lru",
    }
}

pub fn info(cx: &mut CommandContext<'_>) {
    let store = cx.store;
    let keys = store.map.len();
    let wants = |section: &str| {
        cx.arguments.len() == 1
            || cx
                .arguments
                .from(1)
                .any(|wanted| ["all", "default", "everything", section].iter().any(|word| wanted.eq_ignore_ascii_case(word.as_bytes())))
    };
    let mut text = String::new();
    let mut section = |name: &str, title: &str, lines: &[(&str, String)]| {
        if wants(name) {
            let gap = if text.is_empty() { "" } else { "\r\n" };
            // Writing to a String cannot fail.
            let _ = write!(text, "{gap}# {title}\r\n");
            for (key, value) in lines {
                let _ = write!(text, "{key}:{value}\r\n");
            }
        }
    };
    section(
        "server",
        "Server",
        &[
            ("redis_version", VERSION.to_owned()),
            ("redis_mode", "standalone".to_owned()),
            ("server_name", "modhost-kv".to_owned()),
            ("kv_version", env!("CARGO_PKG_VERSION").to_owned()),
            ("process_id", std::process::id().to_string()),
        ],
    );
    section(
        "memory",
        "Memory",
        &[
            ("used_memory", store.map.bytes().to_string()),
            ("maxmemory", store.max_bytes.to_string()),
            ("maxmemory_policy", policy(store.eviction).to_owned()),
        ],
    );
    section(
        "persistence",
        "Persistence",
        &[
            ("loading", "0".to_owned()),
            ("rdb_bgsave_in_progress", u8::from(store.shared.save_wanted.load(Relaxed)).to_string()),
            ("rdb_last_save_time", store.shared.saved_at.load(Relaxed).to_string()),
            ("aof_enabled", "0".to_owned()),
        ],
    );
    section("replication", "Replication", &[("role", "master".to_owned()), ("connected_slaves", "0".to_owned())]);
    let databases = [("db0", format!("keys={keys},expires=0,avg_ttl=0"))];
    section("keyspace", "Keyspace", databases.get(..usize::from(keys > 0)).unwrap_or_default());
    cx.reply().verbatim(&text);
}

const NO_SNAPSHOT: &str = "ERR no snapshot is configured (parameter \"snapshot\")";

pub fn save(cx: &mut CommandContext<'_>) {
    match snapshot::save(cx.store, cx.snapshots) {
        Ok(SaveOutcome::Done) => cx.reply().ok(),
        Ok(SaveOutcome::Busy) => cx.send_error("ERR Background save already in progress"),
        Ok(SaveOutcome::NoPath) => cx.send_error(NO_SNAPSHOT),
        Err(error) => {
            module_api::error!("{error}");
            cx.send_error(&format!("ERR {error}"));
        }
    }
}

pub fn bgsave(cx: &mut CommandContext<'_>) {
    if cx.arguments.len() > 2 || cx.arguments.len() == 2 && !cx.is(1, "SCHEDULE") {
        cx.send_error(SYNTAX);
    } else if cx.snapshots.path.is_none() {
        cx.send_error(NO_SNAPSHOT);
    } else {
        cx.store.shared.save_wanted.store(true, Relaxed);
        cx.reply().simple("Background saving started");
    }
}

pub fn lastsave(cx: &mut CommandContext<'_>) {
    let saved_at = cx.store.shared.saved_at.load(Relaxed);
    cx.reply().integer(saved_at.cast_signed());
}
