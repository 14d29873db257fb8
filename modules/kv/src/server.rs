//! Commands about the connection and the server.

use std::fmt::Write as _;
use std::sync::atomic::Ordering::Relaxed;

use crate::call::{Call, SYNTAX};
use crate::command::{self, COMMANDS, Command};
use crate::reply::{Protocol, Reply, parse_number};
use crate::snapshot;
use crate::store::Eviction;

/// What clients decide by which commands they use.
const VERSION: &str = "7.0.0";
const NO_PASSWORD: &str =
    "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?";

pub fn ping(call: &mut Call<'_>) {
    match call.arguments.len() {
        1 => call.reply().simple("PONG"),
        2 => {
            let text = call.argument(1);
            call.reply().bulk(text);
        }
        _ => call.wrong_number_of("ping"),
    }
}

pub fn echo(call: &mut Call<'_>) {
    let text = call.argument(1);
    call.reply().bulk(text);
}

pub fn quit(call: &mut Call<'_>) {
    call.reply().ok();
    call.client.quits = true;
}

pub fn reset(call: &mut Call<'_>) {
    call.client.name.clear();
    call.client.protocol = Protocol::Resp2;
    call.reply().simple("RESET");
}

pub fn select(call: &mut Call<'_>) {
    match parse_number(call.argument(1)) {
        Some(0) => call.reply().ok(),
        Some(_) => call.error("ERR DB index is out of range"),
        None => call.error("ERR invalid DB index"),
    }
}

pub fn auth(call: &mut Call<'_>) {
    match call.arguments.len() {
        2 | 3 => call.error(NO_PASSWORD),
        _ => call.error(SYNTAX),
    }
}

/// There are no replicas to wait for.
pub fn wait(call: &mut Call<'_>) {
    call.reply().integer(0);
}

pub fn time(call: &mut Call<'_>) {
    let now_ms = crate::store::now_ms();
    let mut reply = call.reply();
    reply.array(2);
    reply.bulk_number((now_ms / 1000).cast_signed());
    reply.bulk_number((now_ms % 1000 * 1000).cast_signed());
}

pub fn hello(call: &mut Call<'_>) {
    let mut protocol = call.client.protocol;
    if call.arguments.len() > 1 {
        protocol = match parse_number(call.argument(1)) {
            Some(2) => Protocol::Resp2,
            Some(3) => Protocol::Resp3,
            Some(_) => return call.error("NOPROTO unsupported protocol version"),
            None => return call.error("ERR Protocol version is not an integer or out of range"),
        };
    }
    let (mut name, mut index) = (None, 2);
    while index < call.arguments.len() {
        if call.is(index, "SETNAME") && index + 1 < call.arguments.len() {
            name = Some(call.argument(index + 1));
            index += 2;
        } else if call.is(index, "AUTH") && index + 2 < call.arguments.len() {
            return call.error(NO_PASSWORD);
        } else {
            return call.error("ERR Syntax error in HELLO option");
        }
    }
    if let Some(name) = name
        && !set_name(call, name)
    {
        return;
    }
    call.client.protocol = protocol;
    let id = call.client.id.cast_signed();
    let mut reply = call.reply();
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

/// Longest name of a connection: it stays as long as the connection does.
const NAME_MAX: usize = 256;

fn set_name(call: &mut Call<'_>, name: &[u8]) -> bool {
    let good = name.len() <= NAME_MAX && name.iter().all(u8::is_ascii_graphic);
    if good {
        call.client.name = name.to_vec();
    } else {
        call.error("ERR Client names cannot contain spaces, newlines or special characters.");
    }
    good
}

pub fn client(call: &mut Call<'_>) {
    let count = call.arguments.len();
    if call.is(1, "SETNAME") && count == 3 {
        let name = call.argument(2);
        if set_name(call, name) {
            call.reply().ok();
        }
    } else if call.is(1, "GETNAME") && count == 2 {
        let mut reply = Reply { out: call.out, protocol: call.client.protocol };
        if call.client.name.is_empty() {
            reply.nothing();
        } else {
            reply.bulk(&call.client.name);
        }
    } else if call.is(1, "ID") && count == 2 {
        let id = call.client.id.cast_signed();
        call.reply().integer(id);
    } else if call.is(1, "SETINFO") && count == 4 {
        match call.is(2, "LIB-NAME") || call.is(2, "LIB-VER") {
            true => call.reply().ok(),
            false => call.error("ERR Unrecognized option"),
        }
    } else if count == 2 && (call.is(1, "INFO") || call.is(1, "LIST")) {
        let name = String::from_utf8_lossy(&call.client.name);
        let protocol = if call.client.protocol == Protocol::Resp3 { 3 } else { 2 };
        let line = format!("id={} name={name} db=0 resp={protocol}\n", call.client.id);
        call.reply().text(&line);
    } else if count == 3 && (call.is(1, "NO-EVICT") || call.is(1, "NO-TOUCH")) {
        call.reply().ok();
    } else {
        call.unknown_subcommand();
    }
}

pub fn command(call: &mut Call<'_>) {
    if call.arguments.len() == 1 {
        call.reply().array(COMMANDS.len());
        for command in &COMMANDS {
            describe(call.reply(), command);
        }
    } else if call.is(1, "COUNT") && call.arguments.len() == 2 {
        call.reply().integer(COMMANDS.len() as i64);
    } else if call.is(1, "DOCS") {
        call.reply().map(0);
    } else if call.is(1, "LIST") && call.arguments.len() == 2 {
        call.reply().array(COMMANDS.len());
        for command in &COMMANDS {
            call.reply().bulk(command.name.as_bytes());
        }
    } else if call.is(1, "INFO") {
        let count = call.arguments.len() - 2;
        call.reply().array(count);
        for name in call.arguments.from(2) {
            match command::find(name) {
                Some(command) => describe(call.reply(), command),
                None if call.client.protocol == Protocol::Resp2 => call.out.extend_from_slice(b"*-1\r\n"),
                None => call.reply().nothing(),
            }
        }
    } else {
        call.unknown_subcommand();
    }
}

fn describe(mut reply: Reply<'_>, command: &Command) {
    reply.array(10);
    reply.bulk(command.name.as_bytes());
    reply.integer(i64::from(command.arity));
    reply.array(1);
    reply.simple(if command.writes { "denyoom" } else { "fast" });
    let (first, last, step) = command.keys;
    for number in [first, last, step] {
        reply.integer(i64::from(number));
    }
    // Groups of rights, hints, more about keys, subcommands: nothing is said of them.
    (0..4).for_each(|_| reply.array(0));
}

pub fn config(call: &mut Call<'_>) {
    if call.is(1, "GET") && call.arguments.len() >= 3 {
        let known = [
            ("appendonly", "no".to_owned()),
            ("databases", "1".to_owned()),
            ("maxmemory", call.store.max_bytes.to_string()),
            ("maxmemory-policy", policy(call.store.eviction).to_owned()),
            ("proto-max-bulk-len", call.limits.value_bytes.to_string()),
            ("save", call.saving.every.map_or_else(String::new, |every| format!("{} 1", every.as_secs().max(1)))),
        ];
        let wanted =
            |name: &str| call.arguments.from(2).any(|pattern| crate::glob::matches(&pattern.to_ascii_lowercase(), name.as_bytes()));
        let found: Vec<_> = known.into_iter().filter(|(name, _)| wanted(name)).collect();
        let mut reply = call.reply();
        reply.map(found.len());
        for (name, value) in found {
            reply.bulk(name.as_bytes());
            reply.bulk(value.as_bytes());
        }
    } else if call.is(1, "RESETSTAT") && call.arguments.len() == 2 {
        call.reply().ok();
    } else {
        call.unknown_subcommand();
    }
}

fn policy(eviction: Eviction) -> &'static str {
    match eviction {
        Eviction::None => "noeviction",
        Eviction::Lru => "allkeys-lru",
    }
}

pub fn info(call: &mut Call<'_>) {
    let store = call.store;
    let keys = store.map.len();
    let wants = |section: &str| {
        call.arguments.len() == 1
            || call
                .arguments
                .from(1)
                .any(|wanted| ["all", "default", "everything", section].iter().any(|word| wanted.eq_ignore_ascii_case(word.as_bytes())))
    };
    let mut text = String::new();
    let mut section = |name: &str, title: &str, lines: &[(&str, String)]| {
        if wants(name) {
            let gap = if text.is_empty() { "" } else { "\r\n" };
            let _ = write!(text, "{gap}# {title}\r\n"); // a String takes everything
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
    call.reply().text(&text);
}

const NO_SNAPSHOT: &str = "ERR no snapshot is configured (parameter \"snapshot\")";

pub fn save(call: &mut Call<'_>) {
    match snapshot::save(call.store, call.saving) {
        Ok(snapshot::Saved::Done) => call.reply().ok(),
        Ok(snapshot::Saved::Busy) => call.error("ERR Background save already in progress"),
        Ok(snapshot::Saved::NoPath) => call.error(NO_SNAPSHOT),
        Err(error) => {
            module_api::error!("{error}");
            call.error(&format!("ERR {error}"));
        }
    }
}

pub fn bgsave(call: &mut Call<'_>) {
    if call.arguments.len() > 2 || call.arguments.len() == 2 && !call.is(1, "SCHEDULE") {
        call.error(SYNTAX);
    } else if call.saving.path.is_none() {
        call.error(NO_SNAPSHOT);
    } else {
        call.store.shared.save_wanted.store(true, Relaxed);
        call.reply().simple("Background saving started");
    }
}

pub fn lastsave(call: &mut Call<'_>) {
    let saved_at = call.store.shared.saved_at.load(Relaxed);
    call.reply().integer(saved_at.cast_signed());
}
