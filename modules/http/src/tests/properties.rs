//! Property tests: answers depend neither on the pieces in which bytes arrive nor on how fast they
//! are read; no input panics; another parser agrees about requests.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::{Server, params};
use crate::request_head::{self, Limits, Parsed};
use crate::settings::Params;

static ROOT: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("small.txt"), "a small file").unwrap();
    std::fs::write(root.path().join("large"), (0..100_000_u32).map(|at| at as u8).collect::<Vec<u8>>()).unwrap();
    root
});

/// Requests, parts of requests, and random bytes.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let texts: Vec<&[u8]> = vec![
        b"GET /ok HTTP/1.1\r\nHost: a\r\n\r\n",
        b"HEAD /page HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /small.txt HTTP/1.1\r\nHost: a\r\nRange: bytes=2-6\r\n\r\n",
        b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /large HTTP/1.1\r\nHost: a\r\nRange: bytes=-1\r\n\r\n",
        b"GET /large HTTP/1.0\r\n\r\n",
        b"POST /ok HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\nGET / HTTP/1",
        b"POST /ok HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /none HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
        b"a;ext\r\n0123456789\r\n",
        b"0\r\n\r\n",
        b"0\r\nTrailer: x\r\n\r\n",
        b"GET /ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"GET /ok HTTP/1.1\r\nHost: ",
        b"\r\n",
        b"\r",
        b"\n",
        b" ",
        b":",
        b"Content-Length: 5",
        b"Transfer-Encoding: gzip",
        b"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    ];
    let part = prop_oneof![
        6 => prop::sample::select(texts).prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 0..20),
    ];
    prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
}

fn server() -> Server {
    Server::new(Params { root: Some(ROOT.path().to_owned()), max_head: module_api::Size::new(512), ..params() })
}

proptest! {
    #[test]
    fn answers_do_not_depend_on_cuts_or_a_slow_reader(
        bytes in pieces(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8), limit in 1_u64..300,
    ) {
        let whole = server().converse([&bytes[..]], None);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.push(bytes.len());
        cuts.sort_unstable();
        let starts = std::iter::once(0).chain(cuts.clone());
        let cut: Vec<&[u8]> = starts.zip(cuts.clone()).map(|(from, to)| &bytes[from..to]).collect();
        let in_pieces = server().converse(cut, None);
        prop_assert!(whole.received == in_pieces.received && whole.is_closed == in_pieces.is_closed, "cut at {cuts:?}");
        let byte_by_byte = server().converse(bytes.chunks(1), None);
        prop_assert!(whole.received == byte_by_byte.received && whole.is_closed == byte_by_byte.is_closed, "byte by byte");
        let slowly = server().converse(bytes.chunks(97), Some(limit));
        prop_assert!(whole.received == slowly.received && whole.is_closed == slowly.is_closed, "with a queue of {limit}");
    }

    #[test]
    fn random_bytes_are_refused_or_incomplete(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        let client = server().send(&bytes);
        prop_assert!(client.received.is_empty() || client.received.starts_with(b"HTTP/1.1 "));
    }

    #[test]
    fn another_parser_agrees(bytes in pieces()) {
        if let Parsed::Whole(head) = request_head::parse(&bytes, Limits { head: 4096, target: 2048 }) {
            let mut fields = [httparse::EMPTY_HEADER; 100];
            let mut request = httparse::Request::new(&mut fields);
            prop_assert_eq!(request.parse(&bytes), Ok(httparse::Status::Complete(head.len)));
            prop_assert_eq!(request.method.map(str::as_bytes), Some(head.method_name));
            prop_assert_eq!(request.version, Some(head.minor));
            let theirs: Vec<(&[u8], &[u8])> = request.headers.iter().map(|field| (field.name.as_bytes(), field.value)).collect();
            prop_assert_eq!(request_head::fields(head.fields).collect::<Vec<_>>(), theirs);
        }
    }

    #[test]
    fn text_run_finds_the_same_end_as_a_loop_over_bytes(
        bytes in prop::collection::vec(prop_oneof![9 => b' '..=0xff, 1 => 0..=0xff_u8, 1 => Just(b'\t')], 0..100),
    ) {
        let one_by_one = bytes.iter().position(|byte| !crate::syntax::is_text(*byte)).unwrap_or(bytes.len());
        prop_assert_eq!(crate::syntax::text_run(&bytes), one_by_one);
    }
}
