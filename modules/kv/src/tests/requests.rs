//! Tests of requests: invalid ones, incomplete ones, and a client that does not read.

use proptest::prelude::*;

use super::{Peer, request, start};

#[test]
fn invalid_requests_get_an_error_and_close_the_connection() {
    let host = start(&[]);
    for (bytes, error) in [
        (&b"*x\r\n"[..], "invalid multibulk length"),
        (b"*1048577\r\n", "invalid multibulk length"),
        (b"*99999999999999999999999\r\n", "invalid multibulk length"),
        (b"*0000000000000000000000000000000000000000001\r\n", "invalid multibulk length"),
        (b"*1\r\n:1\r\n", "expected '$', got ':'"),
        (b"*1\r\n*1\r\n", "expected '$', got '*'"),
        (b"*1\r\n\x00", "expected '$', got '?'"),
        (b"*1\r\n$-1\r\n", "invalid bulk length"),
        (b"*1\r\n$104857600\r\n", "invalid bulk length"),
        (b"*1\r\n$9223372036854775807\r\n", "invalid bulk length"),
        (b"*1\r\n$-9223372036854775808\r\n", "invalid bulk length"),
        (b"*1\r\n$x\r\n", "invalid bulk length"),
        (b"*1\r\n$\r\n", "invalid bulk length"),
        (b"*1\r\n$4\r\nPINGxx", "expected a line end after a bulk string"),
        (b"*1\r\n$-00000000000000000000000000000000000", "too big count string"),
        (b"SET \"a\r\n", "unbalanced quotes in request"),
        (b"SET \"a\"b c\r\n", "unbalanced quotes in request"),
    ] {
        let mut peer = Peer::new(host.module());
        let reply = peer.ask_bytes(&[b"PING\r\n", bytes, b"PING\r\nPING\r\n"].concat());
        assert_eq!(reply, format!("+PONG\r\n-ERR Protocol error: {error}\r\n"), "{:?}", String::from_utf8_lossy(bytes));
        assert!(peer.replies.is_closed);
    }
    let mut peer = Peer::new(host.module());
    assert_eq!(peer.ask_bytes(&vec![b'x'; 70_000]), "-ERR Protocol error: too big inline request\r\n");
}

#[test]
fn empty_requests_get_no_reply() {
    let host = start(&[]);
    let mut peer = Peer::new(host.module());
    assert_eq!(peer.ask_bytes(b"\r\n\n*0\r\n*-1\r\n   \r\nPING\n"), "+PONG\r\n");
    assert_eq!(peer.ask_bytes(&request(&[b""])), "-ERR unknown command '', with args beginning with: \r\n");
}

/// Requests of all kinds, and random bytes.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        prop::sample::select(vec![
            "GET", "SET", "INCR", "DEL", "MGET", "APPEND", "EX", "10", "a", "b", "*", "hello", "SCAN", "TTL", "0", "CLIENT", "COMMAND",
            "HELLO", "3"
        ])
        .prop_map(|word| word.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..30),
    ];
    prop_oneof![
        8 => prop::collection::vec(word, 1..6).prop_map(|words| request(&words.iter().map(Vec::as_slice).collect::<Vec<_>>())),
        2 => Just(b"GET a\r\n".to_vec()),
        1 => Just(b"SET b \"x\\x41\"\r\n".to_vec()),
        1 => Just(b"*0\r\n\r\n".to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..20),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn replies_do_not_depend_on_cuts_or_a_slow_reader(
        pieces in prop::collection::vec(piece(), 0..20), cuts in prop::collection::vec(1_usize..40, 1..50), room in 1_usize..100,
    ) {
        let bytes = pieces.concat();
        let host = start(&[]);
        let mut whole = Peer::new(host.module());
        let wanted = whole.ask_bytes(&bytes);
        let ended = whole.replies.is_closed;
        let mut cut = Peer::new(host.module());
        cut.ask("FLUSHALL");
        // This client also reads so little that each reply waits for room.
        cut.replies.room = room;
        let (mut rest, mut replies, mut cuts) = (&bytes[..], String::new(), cuts.into_iter().cycle());
        while !rest.is_empty() && !cut.replies.is_closed {
            let (now, later) = rest.split_at(cuts.next().unwrap_or(1).min(rest.len()));
            cut.send(now);
            rest = later;
        }
        replies.push_str(&String::from_utf8_lossy(&cut.replies.bytes));
        prop_assert_eq!(replies, wanted);
        prop_assert_eq!(cut.replies.is_closed, ended);
    }

    #[test]
    fn random_bytes_cause_no_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..500), start_with in prop::sample::select(vec!["", "*", "*2\r\n", "*1\r\n$"]),
    ) {
        let host = start(&[]);
        let mut peer = Peer::new(host.module());
        peer.send(&[start_with.as_bytes(), &bytes].concat());
    }
}

#[test]
fn a_client_that_does_not_read_gets_no_more_replies() {
    let host = start(&[]);
    let kv = host.module();
    let mut peer = Peer::new(kv);
    peer.ask_bytes(&request(&[b"SET", b"a", &vec![b'x'; 100_000]]));
    let many = request(&[b"GET", b"a"]).repeat(1000);
    let mut sink = super::Replies { bytes: Vec::new(), room: 1, is_closed: false };
    let mut child = super::child(3);
    let mut connection = crate::connection::Connection::new(1);
    let used = connection.serve(kv, &mut child, &mut sink, &many).unwrap();
    assert_eq!(used, request(&[b"GET", b"a"]).len(), "one request is answered, the others stay unused");
    assert_eq!(sink.bytes.len(), 100_011);
}
