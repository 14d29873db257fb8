//! The HTTP server on real sockets: requests in pieces, slow, greedy and vanished clients, and
//! files.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use harness::setup::module;
use harness::{Fixture, Host, PATIENCE, Setup};

/// The module with a route and, if given, a folder.
fn http(root: Option<&Path>) -> Fixture {
    let http = module("http").param("routes", "{ \"/ok\" = \"200 text/plain ok\" }");
    match root {
        Some(root) => http.text("root", &root.display().to_string()),
        None => http,
    }
}

fn start(http: Fixture, keys: &str) -> Host {
    Setup::new().module(http).listen_with(&format!("tcp = \"127.0.0.1:0\"\n{keys}"), "http", None).start()
}

fn address(host: &Host) -> SocketAddr {
    host.addresses(0)[0].parse().expect("an address")
}

fn connect(host: &Host) -> TcpStream {
    let stream = TcpStream::connect(address(host)).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// An answer from a stream: head and body.
fn answer(stream: &mut impl Read) -> (String, Vec<u8>) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        let count = stream.read(&mut byte).expect("a byte of an answer");
        assert_eq!(count, 1, "closed after {:?}", String::from_utf8_lossy(&head));
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("text");
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).map_or(0, |length| length.parse().expect("a length"));
    let mut body = vec![0; length];
    stream.read_exact(&mut body).expect("a body");
    (head, body)
}

/// Everything until the connection ends.
fn rest(stream: &mut impl Read) -> String {
    let mut rest = Vec::new();
    // A reset is an end too.
    let _ = stream.read_to_end(&mut rest);
    String::from_utf8(rest).expect("text")
}

fn is_served(host: &Host) {
    let mut stream = connect(host);
    stream.write_all(b"GET /ok HTTP/1.1\r\nHost: a\r\n\r\n").expect("a request");
    assert_eq!(answer(&mut stream).1, b"ok");
}

#[test]
fn pipelined_requests_in_pieces_of_any_size() {
    let host = start(http(None), "");
    let one = "GET /ok HTTP/1.1\r\nHost: a\r\n\r\nPOST /ok HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n\
               HEAD /none HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nabcd";
    let all = one.repeat(40) + "GET /ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let mut seen: Option<String> = None;
    for piece in [1, 2, 3, 7, 61, 1000, all.len()] {
        let mut stream = connect(&host);
        stream.set_nodelay(true).expect("no delay");
        for part in all.as_bytes().chunks(piece) {
            stream.write_all(part).expect("a piece");
        }
        // Only the date differs between answers.
        let text: String =
            rest(&mut stream).lines().filter(|line| !line.starts_with("Date: ")).map(|line| line.to_owned() + "\n").collect();
        assert_eq!(text.matches("HTTP/1.1 ").count(), 121, "{piece}");
        match &seen {
            Some(seen) => assert!(*seen == text, "in pieces of {piece}:\n{text}"),
            None => seen = Some(text),
        }
    }
    host.stop();
}

#[test]
fn unfinished_heads_end_the_connection() {
    let host = start(http(None), "read_timeout = \"200ms\"");
    // Too slow: the connection ends without an answer, and others are served meanwhile.
    let mut slow = connect(&host);
    slow.write_all(b"GET /ok HTTP/1.1\r\nHost:").expect("half a head");
    is_served(&host);
    let started = Instant::now();
    assert_eq!(rest(&mut slow), "");
    assert!(started.elapsed() < Duration::from_secs(5), "closed after {:?}", started.elapsed());
    // Too long.
    let mut long = connect(&host);
    let lines = "X: y\r\n".repeat(50) + &format!("X-Long: {}\r\n", "y".repeat(20_000));
    // The server may refuse it before it is all sent.
    let _ = long.write_all(format!("GET /ok HTTP/1.1\r\nHost: a\r\n{lines}").as_bytes());
    let refused = rest(&mut long);
    assert!(refused.starts_with("HTTP/1.1 431 ") && refused.contains("\r\nConnection: close\r\n"), "{refused}");
    let mut long = connect(&host);
    let _ = long.write_all(format!("GET /{}", "x".repeat(20_000)).as_bytes());
    assert!(rest(&mut long).starts_with("HTTP/1.1 414 "));
    is_served(&host);
    host.stop();
}

#[test]
fn a_client_that_does_not_read_is_ended_and_delays_no_other() {
    let setup = Setup::new();
    let root = setup.folder().join("files");
    fs::create_dir(&root).expect("a folder");
    fs::write(root.join("large"), vec![b'x'; 4 << 20]).expect("a file");
    let http = http(Some(&root));
    let host = setup.host("workers", "1").module(http).listen_with("tcp = \"127.0.0.1:0\"\nidle_timeout = \"500ms\"", "http", None).start();
    let mut greedy = connect(&host);
    greedy.write_all("GET /large HTTP/1.1\r\nHost: a\r\n\r\n".repeat(500).as_bytes()).expect("requests");
    for _ in 0..20 {
        is_served(&host);
    }
    // The listener's limit ends both this connection, opened later, and the greedy one.
    assert_eq!(rest(&mut connect(&host)), "");
    // Bytes that were already in the kernel arrive, far fewer than two gigabytes.
    let mut received = 0;
    let mut buffer = vec![0; 1 << 16];
    loop {
        match greedy.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => received += count,
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
                break;
            }
        }
    }
    assert!(received < 500 << 20, "{received} bytes");
    is_served(&host);
    host.stop();
}

#[test]
fn a_body_of_a_hundred_megabytes() {
    let host = start(http(None).text("max_body", "200MiB"), "");
    let mut stream = connect(&host);
    let piece = vec![b'G'; 1 << 20];
    stream.write_all(b"POST /ok HTTP/1.1\r\nHost: a\r\nContent-Length: 104857600\r\n\r\n").expect("a head");
    for _ in 0..100 {
        stream.write_all(&piece).expect("a piece of a body");
    }
    assert!(answer(&mut stream).0.starts_with("HTTP/1.1 405 "));
    stream.write_all(b"GET /ok HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").expect("a head");
    for _ in 0..100 {
        stream.write_all(b"100000\r\n").and_then(|()| stream.write_all(&piece)).and_then(|()| stream.write_all(b"\r\n")).expect("a chunk");
    }
    stream.write_all(b"0\r\n\r\n").expect("the end");
    assert_eq!(answer(&mut stream).1, b"ok");
    host.stop();
    // Too large a body is refused at once. The client gets the answer even if it sends some more.
    let host = start(http(None), "");
    let mut stream = connect(&host);
    stream.write_all(b"POST /ok HTTP/1.1\r\nHost: a\r\nContent-Length: 104857600\r\n\r\n").expect("a head");
    let _ = stream.write_all(&piece);
    let (head, _) = answer(&mut stream);
    assert!(head.starts_with("HTTP/1.1 413 ") && head.contains("\r\nConnection: close\r\n"), "{head}");
    is_served(&host);
    host.stop();
}

#[test]
fn resets_at_every_byte_of_a_request() {
    let host = start(http(None), "");
    let request =
        b"POST /ok HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\nabcdGET /ok HTTP/1.1\r\nHost: a\r\n\r\n";
    for len in 0..=request.len() {
        let mut stream = connect(&host);
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).expect("an option");
        stream.write_all(&request[..len]).expect("a part");
    }
    // The same with an orderly end at every point.
    for len in 0..=request.len() {
        let mut stream = connect(&host);
        stream.write_all(&request[..len]).expect("a part");
        stream.shutdown(Shutdown::Write).expect("the end");
        let complete = [b"abcd".len(), 0].map(|more| len + more >= request.len());
        let text = rest(&mut stream);
        assert_eq!(text.contains("HTTP/1.1 200 "), complete[1], "{len}: {text}");
    }
    is_served(&host);
    host.stop();
}

#[test]
fn files_are_served_with_conditions_and_ranges() {
    let setup = Setup::new();
    let root = setup.folder().join("files");
    fs::create_dir(&root).expect("a folder");
    let content: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    fs::write(root.join("large.bin"), &content).expect("a file");
    fs::write(root.join("small.txt"), "small").expect("a file");
    let http = http(Some(&root));
    let host = setup.module(http).listen_tcp("http").listen_with("unix = \"sock\"", "http", None).start();
    let mut stream = connect(&host);
    let mut ask = |text: &str| {
        stream.write_all(format!("{text}\r\nHost: a\r\n\r\n").as_bytes()).expect("a request");
        if text.starts_with("HEAD") {
            // This answer has a length and no body: the next one follows its head.
            stream.write_all(b"GET /small.txt HTTP/1.1\r\nHost: a\r\n\r\n").expect("a request");
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") {
                stream.read_exact(&mut byte).expect("a byte");
                head.push(byte[0]);
            }
            assert_eq!(answer(&mut stream).1, b"small");
            return (String::from_utf8(head).expect("text"), Vec::new());
        }
        answer(&mut stream)
    };
    let (head, body) = ask("GET /large.bin HTTP/1.1");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && body == content, "{head}");
    let etag = head.lines().find_map(|line| line.strip_prefix("ETag: ")).expect("a tag").to_owned();
    let (head, _) = ask("HEAD /large.bin HTTP/1.1");
    assert!(head.contains("\r\nContent-Length: 3000000\r\n"), "{head}");
    let (head, body) = ask("GET /large.bin HTTP/1.1\r\nRange: bytes=1000000-1999999");
    assert!(head.starts_with("HTTP/1.1 206 ") && head.contains("\r\nContent-Range: bytes 1000000-1999999/3000000\r\n"), "{head}");
    assert!(body == content[1_000_000..2_000_000]);
    assert!(ask(&format!("GET /large.bin HTTP/1.1\r\nIf-None-Match: {etag}")).0.starts_with("HTTP/1.1 304 "));
    assert!(ask("GET /large.bin HTTP/1.1\r\nIf-Match: \"other\"").0.starts_with("HTTP/1.1 412 "));
    assert!(ask("GET /large.bin HTTP/1.1\r\nRange: bytes=3000000-").0.starts_with("HTTP/1.1 416 "));
    assert_eq!(ask("GET /small.txt HTTP/1.1\r\nRange: bytes=-2").1, b"ll");
    assert!(ask("GET /../../../../etc/passwd HTTP/1.1").0.starts_with("HTTP/1.1 404 "));
    let mut local = UnixStream::connect(host.path("sock")).expect("a connection");
    local.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    local.write_all(b"GET /small.txt HTTP/1.1\r\nHost:\r\n\r\n").expect("a request");
    assert_eq!(answer(&mut local).1, b"small");
    host.stop();
}

#[test]
fn requests_are_logged_if_configured() {
    let host = start(http(None).text("access_log", "info"), "");
    let mut stream = connect(&host);
    stream.write_all(b"GET /no?secret HTTP/1.1\r\nHost: a\r\n\r\n\0").expect("requests");
    assert!(rest(&mut stream).contains("HTTP/1.1 400 "));
    host.wait_for_log("answered peer=");
    host.wait_for_log("method=- path=- code=400");
    let log = host.log();
    let line = log.lines.iter().find(|line| line.text.contains("code=404")).expect("a line");
    assert!(line.text.contains("method=GET path=/no code=404"), "{}", line.text);
    host.stop();
}

#[test]
fn another_module_answers_requests() {
    let pages = harness::fixture("pages");
    let host = Setup::new().module(http(None)).module(pages).listen_tcp("http");
    let host = host.listen_with("unix = \"sock\"", "http", None).start();
    let host = host.allowing("a route of another module has failed");
    let mut stream = connect(&host);
    let told = "POST /told/you?so HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
    stream.write_all(told.as_bytes()).expect("half a request");
    stream.write_all(b"2\r\nde\r\n0\r\n\r\nGET /told HTTP/1.1\r\nHost: b\r\n\r\n").expect("the rest of the request, and another request");
    let (head, body) = answer(&mut stream);
    assert!(head.starts_with("HTTP/1.1 201 Created\r\n") && head.contains("\r\nContent-Type: text/x-told\r\n"), "{head}");
    assert_eq!(body, b"POST /told/you so a 5");
    assert_eq!(answer(&mut stream).1, b"GET /told  b 0");
    stream.write_all(b"GET /peer HTTP/1.1\r\nHost: a\r\n\r\n").expect("a request");
    assert_eq!(answer(&mut stream).1, stream.local_addr().expect("an address").to_string().as_bytes());
    let mut local = UnixStream::connect(host.path("sock")).expect("a connection");
    local.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    local.write_all(b"GET /peer HTTP/1.1\r\nHost: a\r\n\r\n").expect("a request");
    assert_eq!(answer(&mut local).1, b"nobody");
    // Paths are compared and passed on in decoded form.
    for (request, told) in [
        ("GET /t%6fld/%41%2541", "GET /told/A%41  a 0"),
        ("GET /%63af%c3%a9", "GET /café  a 0"),
        ("PATCH /", "PATCH /  a 0"),
        ("PATCH /any/where", "PATCH /any/where  a 0"),
    ] {
        stream.write_all(format!("{request} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).expect("a request");
        assert_eq!(String::from_utf8(answer(&mut stream).1).expect("text"), told);
    }
    for (request, code) in [
        ("GET /toldyou", "404"),
        ("GET /told/%2e%2e/fails", "404"),
        ("GET /told%2F", "404"),
        ("GET /fails", "500"),
        ("POST /fails", "405"),
        ("GET /ok", "200"),
    ] {
        stream.write_all(format!("{request} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).expect("a request");
        assert_eq!(&answer(&mut stream).0[9..12], code, "{request}");
    }
    host.stop();
}

#[test]
fn a_c_module_answers_requests() {
    let pages = harness::fixture("pages_c");
    let host = Setup::new().module(http(None)).module(pages).listen_tcp("http").start();
    let host = host.allowing("a route of another module has failed");
    host.wait_for_log("is not a route: a path has no part");
    let mut stream = connect(&host);
    stream.write_all(b"POST /c/%64?q HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody").expect("a request");
    let (head, body) = answer(&mut stream);
    assert!(head.starts_with("HTTP/1.1 202 ") && head.contains("\r\nContent-Type: text/x-told\r\n"), "{head}");
    assert_eq!(String::from_utf8(body).expect("text"), "POST /c/d q body a in C");
    stream.write_all(b"GET /c/fails HTTP/1.1\r\nHost: a\r\n\r\n").expect("a request");
    assert!(answer(&mut stream).0.starts_with("HTTP/1.1 500 "));
    host.wait_for_log("in C: 8");
    is_served(&host);
    host.stop();
}
