//! Tests of requests: what is answered, and what is refused.

use super::{NOW, Server, params};
use crate::settings::{self, Params};

fn get(lines: &str) -> String {
    format!("GET /ok HTTP/1.1\r\nHost: a\r\n{lines}\r\n")
}

#[test]
fn answers_to_the_byte() {
    let date = "Date: Sun, 22 Nov 2026 21:26:40 GMT\r\n";
    let mut server = Server::new(params());
    server.worker.set_time(1_795_382_800);
    for (request, wanted) in [
        (get(""), format!("HTTP/1.1 200 OK\r\n{date}Content-Type: text/plain\r\nContent-Length: 2\r\n\r\nok")),
        (
            "HEAD /ok?x=/old HTTP/1.1\r\nHost:\r\n\r\n".into(),
            format!("HTTP/1.1 200 OK\r\n{date}Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n"),
        ),
        (
            get("Connection: close\r\n"),
            format!("HTTP/1.1 200 OK\r\n{date}Content-Type: text/plain\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"),
        ),
        (
            "GET /ok HTTP/1.0\r\n\r\n".into(),
            format!("HTTP/1.1 200 OK\r\n{date}Content-Type: text/plain\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"),
        ),
        (
            "GET /ok HTTP/1.0\r\nConnection: x, Keep-Alive\r\n\r\n".into(),
            format!("HTTP/1.1 200 OK\r\n{date}Content-Type: text/plain\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok"),
        ),
        (
            "GET /old HTTP/1.1\r\nHost: a\r\n\r\n".into(),
            format!("HTTP/1.1 301 Moved Permanently\r\n{date}Location: /ok\r\nContent-Length: 0\r\n\r\n"),
        ),
        ("GET /none HTTP/1.1\r\nHost: a\r\n\r\n".into(), format!("HTTP/1.1 204 No Content\r\n{date}\r\n")),
        (
            "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n".into(),
            format!("HTTP/1.1 200 OK\r\n{date}Allow: GET, HEAD, OPTIONS\r\nContent-Length: 0\r\n\r\n"),
        ),
        ("OPTIONS /ok HTTP/1.1\r\nHost: a\r\n\r\n".into(), format!("HTTP/1.1 204 No Content\r\n{date}Allow: GET, HEAD, OPTIONS\r\n\r\n")),
        (
            "DELETE /ok HTTP/1.1\r\nHost: a\r\n\r\n".into(),
            format!(
                "HTTP/1.1 405 Method Not Allowed\r\n{date}Content-Type: text/plain\r\nAllow: GET, HEAD, OPTIONS\r\nContent-Length: 23\r\n\r\n\
                 405 Method Not Allowed\n"
            ),
        ),
        (
            "HEAD /nowhere HTTP/1.1\r\nHost: a\r\n\r\n".into(),
            format!("HTTP/1.1 404 Not Found\r\n{date}Content-Type: text/plain\r\nContent-Length: 14\r\n\r\n"),
        ),
    ] {
        assert_eq!(server.answer(&request), wanted, "{request}");
    }
    let mut named = Server::new(Params { server: "wire".into(), ..params() });
    for path in ["ok", "nowhere"] {
        let answer = named.answer(&format!("GET /{path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert!(answer.contains(" GMT\r\nServer: wire\r\nContent-Type: "), "{answer}");
    }
}

#[test]
fn prepared_answers_have_the_current_date() {
    let mut server = Server::new(params());
    for (second, text) in [(NOW, " 23:26:40 GMT\r\n"), (NOW + 1, " 23:26:41 GMT\r\n"), (NOW + 3600, " 00:26:40 GMT\r\n")] {
        server.worker.set_time(second);
        let answer = server.answer(&get(""));
        assert!(answer.contains(text), "{answer}");
    }
}

#[test]
fn requests_are_answered_in_order_until_one_closes_the_connection() {
    let mut server = Server::new(params());
    let requests = [
        get(""),
        "POST /ok HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nGET /".into(),
        "\r\n\r\nGET /none HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc".into(),
        "GET /busy HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n3;a=\"b\"\r\nabc\r\n0A\r\n0123456789\r\n00\r\nTrailer: x\r\n\r\n".into(),
        "FETCH /ok HTTP/1.1\r\nhOST: [::1]:80\r\n\r\n".into(),
        "GET http://example.com HTTP/1.1\r\nHost: other\r\n\r\n".into(),
        "GET HTTPS://example.com:443/ok?q HTTP/1.1\r\nHost: other\r\n\r\n".into(),
        "OPTIONS http://example.com HTTP/1.9\r\nHost: other\r\n\r\n".into(),
        get("Connection: keep-alive, close\r\n"),
        get(""),
    ];
    let client = server.send(requests.concat().as_bytes());
    let text = String::from_utf8(client.received).unwrap();
    let codes: Vec<&str> = text.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!(codes, ["200", "405", "204", "503", "501", "404", "200", "200", "200"], "{text}");
    assert!(client.is_closed, "what follows the last request is not served");
}

#[test]
fn a_client_that_expects_100_is_told_to_send_the_body() {
    let mut server = Server::new(params());
    let head = "GET /ok HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 3\r\n\r\n";
    assert_eq!(server.answer(head), "HTTP/1.1 100 Continue\r\n\r\n");
    let answer = server.answer(&format!("{head}abc{}", get("")));
    assert!(answer.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 2);
    // No 100 without a body, or to an HTTP/1.0 client, which does not know it.
    assert!(server.answer(&get("Expect: 100-continue\r\n")).starts_with("HTTP/1.1 200"));
    assert!(server.answer("GET /ok HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx").starts_with("HTTP/1.1 200"));
    // A body that is too long is refused before the client sends it.
    let answer = server.answer("GET /ok HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1001\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[test]
fn ambiguous_and_invalid_requests_are_refused_and_close_the_connection() {
    let mut server = Server::new(params());
    let chunked = "POST /ok HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (code, request) in [
        // Two statements of the length.
        (400, get("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n"),
        (400, get("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n") + "0\r\n\r\n"),
        (400, get("Content-Length: 3\r\nContent-Length: 4\r\n") + "abcd"),
        (400, get("Content-Length: 3\r\nContent-Length: 3\r\n") + "abc"),
        (400, get("Content-Length: 3, 3\r\n") + "abc"),
        (400, "GET /ok HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into()),
        // Invalid lengths.
        (400, get("Content-Length: +3\r\n") + "abc"),
        (400, get("Content-Length: -3\r\n") + "abc"),
        (400, get("Content-Length: 3 3\r\n") + "abc"),
        (400, get("Content-Length: 0x3\r\n") + "abc"),
        (400, get("Content-Length: 3_0\r\n") + "abc"),
        (400, get("Content-Length: \r\n")),
        (400, get("Content-Length: 99999999999999999999\r\n")),
        (400, get("Content-Length: 18446744073709551619\r\n")),
        // Codings.
        (501, get("Transfer-Encoding: gzip, chunked\r\n") + "0\r\n\r\n"),
        (501, get("Transfer-Encoding: identity\r\n")),
        (501, get("Transfer-Encoding: xchunked\r\n") + "0\r\n\r\n"),
        (501, get("Transfer-Encoding: chunked;q=1\r\n") + "0\r\n\r\n"),
        (501, get("Transfer-Encoding: \"chunked\"\r\n") + "0\r\n\r\n"),
        (400, get("Transfer-Encoding: chunked, chunked\r\n") + "0\r\n\r\n"),
        (400, get("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n"),
        (400, get("Transfer-Encoding:\r\n") + "0\r\n\r\n"),
        (400, get("Transfer-Encoding: \u{b}chunked\r\n") + "0\r\n\r\n"),
        (501, get("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n") + "0\r\n\r\n"),
        // Names and lines.
        (400, get("Content-Length : 3\r\n") + "abc"),
        (400, get("Content-Length\t: 3\r\n") + "abc"),
        (400, get("X: a\r\n Content-Length: 3\r\n") + "abc"),
        (400, get("X: a\r\n\tb\r\n")),
        (400, get("X: a\nContent-Length: 3\r\n") + "abc"),
        (400, get("X: a\rContent-Length: 3\r\n") + "abc"),
        (400, get("X\r: a\r\n")),
        (400, get("X\n: a\r\n")),
        (400, get("X\0Y: a\r\n")),
        (400, get("X: a\0b\r\n")),
        (400, get("X: a\u{7f}b\r\n")),
        (400, get("X: a\r\r\n")),
        (400, get("Xä: a\r\n")),
        (400, get(": a\r\n")),
        (400, get("X\r\n")),
        (400, get("X y: a\r\n")),
        (400, get("(x): a\r\n")),
        (400, " GET /ok HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (400, "GET /ok HTTP/1.1\r\n Host: a\r\n\r\n".into()),
        (400, "GET /ok HTTP/1.1\nHost: a\n\n".into()),
        (400, "\n\nGET /ok HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (400, "\r\n\r\n\r\nGET /ok HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        // The request line.
        (400, "GET  /ok HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (400, "GET /ok  HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (400, "GET\t/ok HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (400, "GET /ok HTTP/1.1 \r\nHost: a\r\n\r\n".into()),
        (400, "GET /o k HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (400, "GET /ok\r\nHost: a\r\n\r\n".into()),
        (400, "GET /ok\0 HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (400, "GET /ok#x HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (400, "GET /ä HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (400, "GET ok HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (400, "GET * HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (400, "GET /ok http/1.1\r\nHost: a\r\n\r\n".into()),
        (400, "GET /ok HTTP/1.10\r\nHost: a\r\n\r\n".into()),
        (400, "GET /ok HTTP/11\r\nHost: a\r\n\r\n".into()),
        (400, "GET /ok HTTP/1,1\r\nHost: a\r\n\r\n".into()),
        (505, "GET /ok HTTP/2.0\r\nHost: a\r\n\r\n".into()),
        (505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".replace('*', "/")),
        (400, "G@T /ok HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (400, "\x16\x03\x01\x02\x00\x01".into()),
        // Authorities.
        (400, "GET /ok HTTP/1.1\r\n\r\n".into()),
        (400, get("Host: a\r\n")),
        (400, "GET /ok HTTP/1.1\r\nHost: a b\r\n\r\n".into()),
        (400, "GET /ok HTTP/1.1\r\nHost: a/b\r\n\r\n".into()),
        (400, "GET /ok HTTP/1.1\r\nHost: u@a\r\n\r\n".into()),
        (400, "GET /ok HTTP/1.1\r\nHost: a:x\r\n\r\n".into()),
        (400, "GET /ok HTTP/1.1\r\nHost: a:1:2\r\n\r\n".into()),
        (400, "GET /ok HTTP/1.1\r\nHost: [::1\r\n\r\n".into()),
        (400, "GET /ok HTTP/1.1\r\nHost: [x]\r\n\r\n".into()),
        (400, "GET /ok HTTP/1.0\r\nHost: a, b/\r\n\r\n".into()),
        (400, "GET http://u@a/ok HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (400, "GET http:///ok HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (400, "GET ftp://a/ok HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (400, "GET http://a HTTP/1.1\r\n\r\n".into()),
        (400, "CONNECT /ok HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (400, "CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (405, "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        // Chunks.
        (400, format!("{chunked}g\r\n")),
        (400, format!("{chunked}\r\n")),
        (400, format!("{chunked}-1\r\n")),
        (400, format!("{chunked}+1\r\nx\r\n")),
        (400, format!("{chunked}0x1\r\nx\r\n")),
        (400, format!("{chunked} 1\r\nx\r\n")),
        (400, format!("{chunked}1 \r\nx\r\n")),
        (400, format!("{chunked}1\nx\n0\n\n")),
        (400, format!("{chunked}1;a\nx\r\n0\r\n\r\n")),
        (400, format!("{chunked}1;a\rx\r\n")),
        (400, format!("{chunked}1;\0\r\nx\r\n")),
        (400, format!("{chunked};a\r\n")),
        (400, format!("{chunked}1\r\nxy\r\n")),
        (400, format!("{chunked}1\r\nx\n")),
        (400, format!("{chunked}1\r\nx0\r\n\r\n")),
        (400, format!("{chunked}00000000000000001\r\nx\r\n")),
        (413, format!("{chunked}fffffffffffffff\r\n")),
        (413, format!("{chunked}3e9\r\n")),
        (413, format!("{chunked}3e8\r\n{}\r\n1\r\n", "x".repeat(1000))),
        (400, format!("{chunked}0\r\n\n")),
        (400, format!("{chunked}0\r\n a: b\r\n\r\n")),
        (400, format!("{chunked}0\r\na\r\n\r\n")),
        (400, format!("{chunked}0\r\na: b\n\r\n")),
        (400, format!("{chunked}0\r\nX: \0\r\n\r\n")),
        (400, format!("{chunked}1;{}\r\nx\r\n", "e".repeat(9000))),
        (431, format!("{chunked}0\r\nt: {}\r\n\r\n", "e".repeat(9000))),
        // Limits.
        (414, format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(256))),
        (414, format!("GET /{}", "x".repeat(256))),
        (431, get(&format!("X: {}\r\n", "x".repeat(1024)))),
        (431, format!("GET /ok HTTP/1.1\r\nX: {}", "x".repeat(1024))),
        (431, get(&"a:b\r\n".repeat(101))),
        (413, get("Content-Length: 1001\r\n")),
        (417, get("Expect: 200-ok\r\n")),
    ] {
        let (found, is_closed) = server.code(request.as_bytes());
        assert_eq!((found, is_closed), (Some(code), true), "{request:?}");
    }
}

#[test]
fn unusual_but_unambiguous_requests_are_served() {
    let mut server = Server::new(params());
    for request in [
        get("X:\r\nY:a\r\nZ: \t a b \t \r\n"),
        get("X: \u{e4}\u{20ac}\r\n"),
        get("!#$%&'*+-.^_`|~09azAZ: x\r\n"),
        get("Content-Length: 003\r\n") + "abc",
        get("content-length:3\t\r\n") + "abc",
        get("Transfer-Encoding: ,chunked,\r\n") + "0\r\n\r\n",
        get("Transfer-Encoding: CHUNKED\r\n") + "1;a=b;c=\"d\\\"\"\r\nx\r\n000\r\nA: b\r\nC:\r\n\r\n",
        get(&"a:b\r\n".repeat(99)),
        "GET /ok? HTTP/1.1\r\nHost: a-b.c_d~e%20:80\r\n\r\n".into(),
        "GET /ok HTTP/1.1\r\nHost: [2001:db8::1]\r\n\r\n".into(),
        "GET /ok HTTP/1.0\r\n\r\n".into(),
        "GET /%6f%6B HTTP/1.1\r\nHost: a\r\n\r\n".into(),
    ] {
        assert_eq!(server.code(request.as_bytes()).0, Some(200), "{request:?}");
    }
    for request in
        ["", "\r", "\r\n", "GET", "GET /ok HTTP/1.1\r\nHost: a\r\n\r", "POST /ok HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nx"]
    {
        assert_eq!(server.code(request.as_bytes()), (None, false), "{request:?}: incomplete");
    }
}

#[test]
fn routes_are_compared_as_decoded_paths() {
    let answers = [("/caf%C3%A9/%7Ex", "200 text/plain one"), ("/ab", "200 text/plain two")];
    let with = |answers: &[(&str, &str)]| {
        let routes = answers.iter().map(|(path, answer)| ((*path).to_owned(), (*answer).to_owned())).collect();
        Params { routes, ..params() }
    };
    let mut server = Server::new(with(&answers));
    for (path, wanted) in [
        ("/caf%c3%a9/~x", "one"),
        ("/%63af%C3%A9/%7ex?query", "one"),
        ("/%61b", "two"),
        ("/ab%", "404"),
        ("/ab%00", "404"),
        ("/ab%2F", "404"),
        ("/x/../ab", "404"),
        ("/x/%2e%2e/ab", "404"),
        ("/%2561b", "404"),
    ] {
        let answer = server.answer(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert!(answer.contains(wanted), "{path}: {answer}");
    }
    let same = settings::read(with(&[("/ab", "204"), ("/a%62", "204")])).err().expect("an error").to_string();
    assert!(same.contains("both mean \"/ab\""), "{same}");
    let invalid = settings::read(with(&[("/a%6", "204")])).err().expect("an error").to_string();
    assert!(invalid.contains("\"/a%6\": % must be followed by two hexadecimal digits"), "{invalid}");
}
