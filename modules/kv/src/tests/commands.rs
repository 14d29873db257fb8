//! Tests of commands: their replies and errors.

use super::{Peer, request, start};

/// Checks the reply to each line. `|` is a line end.
fn check(peer: &mut Peer<'_>, cases: &[(&str, &str)]) {
    for (line, wanted) in cases {
        assert_eq!(peer.ask(line).replace("\r\n", "|"), *wanted, "{line}");
    }
}

#[test]
fn commands_about_values() {
    let host = start(&[]);
    let mut peer = Peer::new(host.module());
    check(
        &mut peer,
        &[
            ("PING", "+PONG|"),
            ("ping hello", "$5|hello|"),
            ("ECHO \"a\\x00b\"", "$3|a\0b|"),
            ("GET a", "$-1|"),
            ("SET a one", "+OK|"),
            ("GET a", "$3|one|"),
            ("SET a two NX", "$-1|"),
            ("SET b two XX", "$-1|"),
            ("SET a two XX GET", "$3|one|"),
            ("SET new x GET", "$-1|"),
            ("SET new y NX GET", "$1|x|"),
            ("GET new", "$1|x|"),
            ("GETDEL a", "$3|two|"),
            ("GETDEL a", "$-1|"),
            ("MSET a 1 b 2 c three", "+OK|"),
            ("MGET a b c d", "*4|$1|1|$1|2|$5|three|$-1|"),
            ("STRLEN c", ":5|"),
            ("STRLEN a", ":1|"),
            ("STRLEN none", ":0|"),
            ("INCR a", ":2|"),
            ("INCRBY a 40", ":42|"),
            ("DECRBY a 2", ":40|"),
            ("DECR a", ":39|"),
            ("GET a", "$2|39|"),
            ("INCR fresh", ":1|"),
            ("APPEND a 0", ":3|"),
            ("INCR a", ":391|"),
            ("APPEND c !", ":6|"),
            ("APPEND nothing x", ":1|"),
            ("GETRANGE c 1 2", "$2|hr|"),
            ("GETRANGE c -2 -1", "$2|e!|"),
            ("GETRANGE c 5 1", "$0||"),
            ("GETRANGE c 0 100", "$6|three!|"),
            ("GETSET c 4", "$6|three!|"),
            ("SETNX c 5", ":0|"),
            ("SETNX d 5", ":1|"),
            ("EXISTS a b b zzz", ":3|"),
            ("DEL a b b zzz", ":2|"),
            ("UNLINK c", ":1|"),
            ("TYPE d", "+string|"),
            ("TYPE c", "+none|"),
            ("SET zero 007", "+OK|"),
            ("GET zero", "$3|007|"),
            ("INCR zero", "-ERR value is not an integer or out of range|"),
            ("SET zero ''", "+OK|"),
            ("GET zero", "$0||"),
        ],
    );
}

#[test]
fn numbers_at_their_limits() {
    let host = start(&[]);
    let mut peer = Peer::new(host.module());
    check(
        &mut peer,
        &[
            ("SET a 9223372036854775807", "+OK|"),
            ("INCR a", "-ERR increment or decrement would overflow|"),
            ("GET a", "$19|9223372036854775807|"),
            ("SET a -9223372036854775808", "+OK|"),
            ("DECR a", "-ERR increment or decrement would overflow|"),
            ("GET a", "$20|-9223372036854775808|"),
            ("DECRBY a -9223372036854775808", "-ERR decrement would overflow|"),
            ("INCRBY a 9223372036854775808", "-ERR value is not an integer or out of range|"),
            ("INCRBY a 1.5", "-ERR value is not an integer or out of range|"),
            ("SET a 9223372036854775808", "+OK|"),
            ("INCR a", "-ERR value is not an integer or out of range|"),
        ],
    );
}

#[test]
fn keys_expire() {
    let host = start(&[]);
    let mut peer = Peer::new(host.module());
    check(
        &mut peer,
        &[
            ("TTL a", ":-2|"),
            ("SET a 1", "+OK|"),
            ("TTL a", ":-1|"),
            ("EXPIRE a 100", ":1|"),
            ("TTL a", ":100|"),
            ("EXPIRE a 50 GT", ":0|"),
            ("EXPIRE a 50 LT", ":1|"),
            ("EXPIRE a 50 NX", ":0|"),
            ("PERSIST a", ":1|"),
            ("PERSIST a", ":0|"),
            ("EXPIRE a 50 XX", ":0|"),
            ("EXPIRE a 50 GT", ":0|"),
            ("EXPIRE a 50 LT", ":1|"),
            ("SET a 2 KEEPTTL", "+OK|"),
            ("TTL a", ":50|"),
            ("INCR a", ":3|"),
            ("TTL a", ":50|"),
            ("SET a 2", "+OK|"),
            ("TTL a", ":-1|"),
            ("EXPIRE a 0", ":1|"),
            ("EXISTS a", ":0|"),
            ("SET a 2 EX 0", "-ERR invalid expire time in 'set' command|"),
            ("SET a 2 PX -1", "-ERR invalid expire time in 'set' command|"),
            ("SET a 2 EX 9223372036854775807", "-ERR invalid expire time in 'set' command|"),
            ("SETEX a 0 x", "-ERR invalid expire time in 'setex' command|"),
            ("SETEX a 10 x", "+OK|"),
            ("EXPIRE a 9223372036854775807", "-ERR invalid expire time in 'expire' command|"),
            ("EXPIRE a x", "-ERR value is not an integer or out of range|"),
            ("EXPIRE a 1 YY", "-ERR Unsupported option YY|"),
            ("EXPIRE a 1 NX GT", "-ERR NX and XX, GT or LT options at the same time are not compatible|"),
            ("EXPIREAT a 4102444800", ":1|"),
            ("EXPIRETIME a", ":4102444800|"),
            ("PEXPIRETIME a", ":4102444800000|"),
            ("GETEX a PERSIST", "$1|x|"),
            ("PTTL a", ":-1|"),
            ("GETEX a EX 20", "$1|x|"),
            ("TTL a", ":20|"),
            ("PEXPIREAT a 1", ":1|"),
            ("GET a", "$-1|"),
            ("PSETEX a 1 x", "+OK|"),
        ],
    );
    // An expired key is gone before the sweep removes it.
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while peer.ask("EXISTS a") != ":0\r\n" {
        assert!(std::time::Instant::now() < end, "it does not expire");
    }
    assert_eq!(peer.ask("SET a y NX"), "+OK\r\n", "an expired key does not exist");
}

#[test]
fn the_sweep_removes_expired_keys_and_rests_when_none_can_expire() {
    let host = start(&[]);
    let mut peer = Peer::new(host.module());
    for number in 0..3000 {
        peer.ask(&format!("SET stays{number} x"));
        peer.ask(&format!("SET ends{number} x PX 1"));
    }
    let mut timer = host.timer().unwrap();
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while peer.ask("DBSIZE") != ":3000\r\n" {
        assert!(std::time::Instant::now() < end, "{}", peer.ask("DBSIZE"));
        timer.fire_timer("sweep", 1).unwrap();
    }
    for _ in 0..1000 {
        timer.fire_timer("sweep", 1).unwrap();
    }
    assert!(!host.module().store.shared.may_expire.load(std::sync::atomic::Ordering::Relaxed));
    peer.ask("SET a x PX 100000");
    assert!(host.module().store.shared.may_expire.load(std::sync::atomic::Ordering::Relaxed));
}

#[test]
fn lists_of_keys() {
    let host = start(&[]);
    let mut peer = Peer::new(host.module());
    for number in 0..1000 {
        peer.ask(&format!("SET key:{number} x"));
    }
    peer.ask("SET other x");
    assert_eq!(peer.ask("DBSIZE"), ":1001\r\n");
    assert_eq!(peer.ask("KEYS o*r"), "*1\r\n$5\r\nother\r\n");
    assert!(peer.ask("KEYS *").starts_with("*1001\r\n"));
    assert!(peer.ask("KEYS key:?").starts_with("*10\r\n"));
    let mut seen = std::collections::BTreeSet::new();
    let (mut cursor, mut calls) = ("0".to_owned(), 0);
    loop {
        let reply = peer.ask(&format!("SCAN {cursor} MATCH key:* COUNT 50"));
        let lines: Vec<&str> = reply.split("\r\n").collect();
        seen.extend(lines.iter().filter(|line| line.starts_with("key:")).map(|line| (*line).to_owned()));
        (cursor, calls) = (lines[2].to_owned(), calls + 1);
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(seen.len(), 1000);
    assert!((15..=40).contains(&calls), "{calls} calls for 1,000 keys, 50 at a time");
    check(
        &mut peer,
        &[
            ("SCAN x", "-ERR invalid cursor|"),
            ("SCAN -1", "-ERR invalid cursor|"),
            ("SCAN 99999999999999999999", "-ERR invalid cursor|"),
            ("SCAN 18446744073709551615", "*2|$1|0|*0|"),
            ("SCAN 0 COUNT 0", "-ERR syntax error|"),
            ("SCAN 0 COUNT x", "-ERR value is not an integer or out of range|"),
            ("SCAN 0 MATCH", "-ERR syntax error|"),
            ("SCAN 0 TYPE list COUNT 100000", "*2|$1|0|*0|"),
            ("FLUSHALL NOW", "-ERR syntax error|"),
            ("FLUSHALL ASYNC", "+OK|"),
            ("DBSIZE", ":0|"),
            ("KEYS *", "*0|"),
            ("SCAN 0", "*2|$1|0|*0|"),
        ],
    );
}

#[test]
fn commands_about_the_connection() {
    let host = start(&[]);
    let mut peer = Peer::new(host.module());
    check(
        &mut peer,
        &[
            ("CLIENT ID", ":7|"),
            ("CLIENT GETNAME", "$-1|"),
            ("CLIENT SETNAME me", "+OK|"),
            ("CLIENT GETNAME", "$2|me|"),
            ("CLIENT SETNAME \"a b\"", "-ERR Client names cannot contain spaces, newlines or special characters.|"),
            ("CLIENT SETINFO LIB-NAME x", "+OK|"),
            ("CLIENT SETINFO OTHER x", "-ERR Unrecognized option|"),
            ("CLIENT LIST", "$25|id=7 name=me db=0 resp=2\n|"),
            ("CLIENT KILL x", "-ERR unknown subcommand or wrong number of arguments for 'KILL'|"),
            ("SELECT 0", "+OK|"),
            ("SELECT 1", "-ERR DB index is out of range|"),
            ("SELECT x", "-ERR invalid DB index|"),
            ("COMMAND COUNT", &format!(":{}|", crate::commands::COMMANDS.len())),
            ("COMMAND DOCS", "*0|"),
            ("COMMAND INFO get nope", "*2|*10|$3|get|:2|*1|+fast|:1|:1|:1|*0|*0|*0|*0|*-1|"),
            ("CONFIG GET maxmem*", "*4|$9|maxmemory|$1|0|$16|maxmemory-policy|$10|noeviction|"),
            ("HELLO 4", "-NOPROTO unsupported protocol version|"),
            ("HELLO x", "-ERR Protocol version is not an integer or out of range|"),
            ("HELLO 3 AUTH default", "-ERR Syntax error in HELLO option|"),
            (
                "HELLO 3 SETNAME you",
                "%7|$6|server|$5|redis|$7|version|$5|7.0.0|$5|proto|:3|$2|id|:7|$4|mode|$10|standalone|$4|role|$6|master|$7|modules|*0|",
            ),
            ("GET none", "_|"),
            ("CLIENT GETNAME", "$3|you|"),
            ("RESET", "+RESET|"),
            ("GET none", "$-1|"),
            ("GET", "-ERR wrong number of arguments for 'get' command|"),
            ("get a b", "-ERR wrong number of arguments for 'get' command|"),
            ("MSET a", "-ERR wrong number of arguments for 'mset' command|"),
            ("MSET a 1 b", "-ERR wrong number of arguments for 'mset' command|"),
            ("SET a b XX NX", "-ERR syntax error|"),
            ("SET a b EX 1 PX 1", "-ERR syntax error|"),
            ("SET a b EX", "-ERR syntax error|"),
            ("LPUSH a \"b\\nc\"", "-ERR unknown command 'LPUSH', with args beginning with: 'a' 'b c' |"),
            ("SAVE", "-ERR no snapshot is configured (parameter \"snapshot\")|"),
            ("LASTSAVE", ":0|"),
            ("QUIT", "+OK|"),
        ],
    );
    assert!(peer.replies.is_closed);
}

#[test]
fn without_memory_the_reply_is_an_oom_error() {
    let host = start(&[("maxmemory", "64KiB")]);
    let mut peer = Peer::new(host.module());
    let value = "x".repeat(1000);
    let mut stored = 0;
    let refused = loop {
        let reply = peer.ask(&format!("SET key{stored} {value}"));
        if reply != "+OK\r\n" {
            break reply;
        }
        stored += 1;
    };
    assert_eq!(refused, "-OOM command not allowed when used memory > 'maxmemory'.\r\n");
    assert!((55..=65).contains(&stored), "{stored}");
    // Commands that need no memory still work.
    assert!(peer.ask("GET key0").starts_with("$1000"));
    assert_eq!(peer.ask("EXPIRE key0 100"), ":1\r\n");
    for number in 0..stored {
        assert_eq!(peer.ask(&format!("DEL key{number}")), ":1\r\n");
    }
    assert_eq!(peer.ask(&format!("SET again {value}")), "+OK\r\n");
    assert_eq!(
        peer.ask_bytes(&request(&[b"SET", b"big", &vec![b'x'; 100_000]])),
        "-OOM command not allowed when used memory > 'maxmemory'.\r\n"
    );
}

#[test]
fn eviction_keeps_recently_used_keys() {
    let host = start(&[("maxmemory", "256KiB"), ("eviction", "lru")]);
    let kv = host.module();
    let mut peer = Peer::new(kv);
    let value = "x".repeat(1000);
    (0..20).for_each(|number| assert_eq!(peer.ask(&format!("SET hot{number} {value}")), "+OK\r\n"));
    for number in 0..3000 {
        assert_eq!(peer.ask(&format!("SET cold{number} {value}")), "+OK\r\n");
        // Uses are counted in milliseconds: these keys must always be among the newest.
        (0..20).for_each(|number| drop(peer.ask(&format!("GET hot{number}"))));
    }
    let hot = (0..20).filter(|number| peer.ask(&format!("EXISTS hot{number}")) == ":1\r\n").count();
    assert!(hot >= 15, "{hot} of 20 frequently used keys are left");
    assert!(kv.store.map.bytes() <= 256 << 10, "{}", kv.store.map.bytes());
    assert!(kv.store.map.len() > 200, "{}", kv.store.map.len());
    assert_eq!(
        peer.ask_bytes(&request(&[b"SET", b"big", &vec![b'x'; 300_000]])),
        "-OOM command not allowed when used memory > 'maxmemory'.\r\n"
    );
}

#[test]
fn long_values_and_long_replies_are_refused() {
    let host = start(&[("max_value", "1KiB"), ("max_reply", "64KiB")]);
    let mut peer = Peer::new(host.module());
    let value = vec![b'x'; 1024];
    assert_eq!(peer.ask_bytes(&request(&[b"SET", b"a", &value])), "+OK\r\n");
    assert_eq!(peer.ask("APPEND a x"), "-ERR string exceeds maximum allowed size (max_value)\r\n");
    assert_eq!(peer.ask("STRLEN a"), ":1024\r\n");
    let many = vec![&b"a"[..]; 100];
    assert_eq!(peer.ask_bytes(&request(&[&[&b"MGET"[..]][..], &many].concat())), "-ERR the reply is longer than max_reply\r\n");
    for number in 0..2000 {
        peer.ask(&format!("SET {}{number} x", "k".repeat(100)));
    }
    assert_eq!(peer.ask("KEYS *"), "-ERR the reply is longer than max_reply\r\n");
    assert_eq!(peer.ask("KEYS nothing"), "*0\r\n");
    assert_eq!(peer.ask_bytes(b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1025\r\n"), "-ERR Protocol error: invalid bulk length\r\n");
    assert!(peer.replies.is_closed);
}
