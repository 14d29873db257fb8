//! Bytes that are cut anywhere, and bytes that are no requests.

use proptest::prelude::*;

use super::{Peer, request, start};

#[test]
fn what_is_no_request_gets_an_error_and_the_end() {
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
        (b"*1\r\n$4\r\nPINGxx", "expected a line end behind a bulk string"),
        (b"*1\r\n$-00000000000000000000000000000000000", "too big count string"),
        (b"SET \"a\r\n", "unbalanced quotes in request"),
        (b"SET \"a\"b c\r\n", "unbalanced quotes in request"),
    ] {
        let mut peer = Peer::new(host.module());
        let reply = peer.ask_bytes(&[b"PING\r\n", bytes, b"PING\r\nPING\r\n"].concat());
        assert_eq!(reply, format!("+PONG\r\n-ERR Protocol error: {error}\r\n"), "{:?}", String::from_utf8_lossy(bytes));
        assert!(peer.replies.closed);
    }
    let mut peer = Peer::new(host.module());
    assert_eq!(peer.ask_bytes(&vec![b'x'; 70_000]), "-ERR Protocol error: too big inline request\r\n");
}

#[test]
fn nothing_is_asked_and_nothing_answered() {
    let host = start(&[]);
    let mut peer = Peer::new(host.module());
    assert_eq!(peer.ask_bytes(b"\r\n\n*0\r\n*-1\r\n   \r\nPING\n"), "+PONG\r\n");
    assert_eq!(peer.ask_bytes(&request(&[b""])), "-ERR unknown command '', with args beginning with: \r\n");
}

/// Requests of all kinds, and things that are none.
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
    fn the_same_bytes_get_the_same_replies_however_they_are_cut(
        pieces in prop::collection::vec(piece(), 0..20), cuts in prop::collection::vec(1_usize..40, 1..50), room in 1_usize..100,
    ) {
        let bytes = pieces.concat();
        let host = start(&[]);
        let mut whole = Peer::new(host.module());
        let wanted = whole.ask_bytes(&bytes);
        let ended = whole.replies.closed;
        let mut cut = Peer::new(host.module());
        cut.ask("FLUSHALL");
        // And one who reads so little that each reply has to wait for it.
        cut.replies.room = room;
        let (mut rest, mut replies, mut cuts) = (&bytes[..], String::new(), cuts.into_iter().cycle());
        while !rest.is_empty() && !cut.replies.closed {
            let (now, later) = rest.split_at(cuts.next().unwrap_or(1).min(rest.len()));
            cut.send(now);
            rest = later;
        }
        replies.push_str(&String::from_utf8_lossy(&cut.replies.bytes));
        // Times differ, by a moment, where they are told.
        prop_assert_eq!(replies, wanted);
        prop_assert_eq!(cut.replies.closed, ended);
    }

    #[test]
    fn any_bytes_are_answered_or_waited_for(bytes in prop::collection::vec(any::<u8>(), 0..500), start_with in prop::sample::select(vec!["", "*", "*2\r\n", "*1\r\n$"])) {
        let host = start(&[]);
        let mut peer = Peer::new(host.module());
        peer.send(&[start_with.as_bytes(), &bytes].concat());
    }
}

#[test]
fn a_client_that_does_not_read_is_not_answered_on_and_on() {
    let host = start(&[]);
    let kv = host.module();
    let mut peer = Peer::new(kv);
    peer.ask_bytes(&request(&[b"SET", b"a", &vec![b'x'; 100_000]]));
    let many = request(&[b"GET", b"a"]).repeat(1000);
    let mut sink = super::Replies { bytes: Vec::new(), room: 1, closed: false };
    let mut child = super::child(3);
    let mut session = crate::session::Session::new(1);
    let used = session.serve(kv, &mut child, &mut sink, &many).unwrap();
    assert_eq!(used, request(&[b"GET", b"a"]).len(), "one is answered, the others come again");
    assert_eq!(sink.bytes.len(), 100_011);
}
