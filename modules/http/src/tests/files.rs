//! Tests of files: which are served, preconditions, ranges, and the cache.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, SystemTime};

use super::{NOW, Server, params};
use crate::settings::{self, Params};

/// Modification time of the files: Thu, 01 Jan 2026 00:00:00 GMT.
const MODIFIED_S: u64 = 1_767_225_600;

fn folder() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &[u8]| {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        let file = fs::File::options().append(true).open(&path).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(MODIFIED_S)).unwrap();
    };
    write("index.html", b"<p>home");
    write("a.txt", b"0123456789");
    write("empty", b"");
    write("dir/index.html", b"<p>dir");
    write("bare/x", b"x");
    write(".hidden", b"secret");
    write(".well-known/acme", b"token");
    write("a b", b"blank");
    write("large", &(0..100_000_u32).map(|at| (at % 251) as u8).collect::<Vec<u8>>());
    symlink("a.txt", root.path().join("inside")).unwrap();
    symlink("/etc/passwd", root.path().join("outside")).unwrap();
    symlink("..", root.path().join("up")).unwrap();
    symlink("loop", root.path().join("loop")).unwrap();
    root
}

fn request(method: &str, path: &str, lines: &[&str]) -> String {
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    format!("{method} {path} HTTP/1.1\r\nHost: a\r\n{lines}\r\n")
}

/// Status code, body and one field of an answer.
fn parts<'a>(answer: &'a str, name: &str) -> (&'a str, &'a str, Option<&'a str>) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let field = head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    (&answer[9..12], body, field)
}

#[test]
fn only_files_below_the_folder_are_served() {
    let root = folder();
    let mut server = Server::with_files(root.path());
    for (path, code, body) in [
        ("/", "200", "<p>home"),
        ("/a.txt", "200", "0123456789"),
        ("/a.txt?b=/..", "200", "0123456789"),
        ("/%61.txt", "200", "0123456789"),
        ("/a%20b", "200", "blank"),
        ("/empty", "200", ""),
        ("/dir/", "200", "<p>dir"),
        ("/dir", "301", ""),
        ("/bare/", "404", "404 Not Found\n"),
        ("/bare/x", "200", "x"),
        ("/bare/x/", "404", "404 Not Found\n"),
        ("/.well-known/acme", "200", "token"),
        ("/inside", "200", "0123456789"),
        ("/outside", "404", "404 Not Found\n"),
        ("/up/", "404", "404 Not Found\n"),
        ("/up/etc/passwd", "404", "404 Not Found\n"),
        ("/loop", "404", "404 Not Found\n"),
        ("/.hidden", "404", "404 Not Found\n"),
        ("/%2ehidden", "404", "404 Not Found\n"),
        ("/dir/../a.txt", "404", "404 Not Found\n"),
        ("/dir%2f..%2fa.txt", "404", "404 Not Found\n"),
        ("/..%00/", "400", "400 Bad Request\n"),
        ("/nothing", "404", "404 Not Found\n"),
        ("/ok", "200", "ok"),
    ] {
        // The second answer comes from the cache.
        for _ in 0..2 {
            let answer = server.answer(&request("GET", path, &[]));
            let (found, text, length) = parts(&answer, "Content-Length");
            assert_eq!((found, text, length), (code, body, Some(body.len().to_string().as_str())), "{path}: {answer}");
        }
    }
    assert_eq!(parts(&server.answer(&request("GET", "/dir?q=1", &[])), "Location").2, Some("/dir/?q=1"));
    let head = server.answer(&request("HEAD", "/large", &[]));
    assert_eq!(parts(&head, "Content-Length"), ("200", "", Some("100000")));
}

#[test]
fn preconditions() {
    let root = folder();
    let mut server = Server::with_files(root.path());
    let (same, older, newer) = ("Thu, 01 Jan 2026 00:00:00 GMT", "Wed, 31 Dec 2025 23:59:59 GMT", "Thu, 01 Jan 2026 00:00:01 GMT");
    let plain = server.answer(&request("GET", "/a.txt", &[]));
    assert_eq!(parts(&plain, "Last-Modified").2, Some(same));
    let etag = parts(&plain, "ETag").2.unwrap().to_owned();
    assert_eq!(etag, format!("\"{MODIFIED_S:x}-0-a\""));
    let tagged = |format: &str| format.replace('@', &etag);
    for (code, body, lines) in [
        ("304", "", vec![tagged("If-None-Match: @")]),
        ("304", "", vec![tagged("If-None-Match: \"x\", W/@")]),
        ("304", "", vec!["If-None-Match: \"x\"".into(), tagged("If-None-Match: @")]),
        ("304", "", vec!["If-None-Match: *".into()]),
        ("200", "0123456789", vec!["If-None-Match: \"x\", \"y\"".into()]),
        ("200", "0123456789", vec!["If-None-Match: \"x".into()]),
        ("200", "0123456789", vec!["If-None-Match: \"x\"".into(), format!("If-Modified-Since: {newer}")]),
        ("304", "", vec![format!("If-Modified-Since: {same}")]),
        ("304", "", vec![format!("If-Modified-Since: {newer}")]),
        ("200", "0123456789", vec![format!("If-Modified-Since: {older}")]),
        ("200", "0123456789", vec!["If-Modified-Since: yesterday".into()]),
        ("200", "0123456789", vec![tagged("If-Match: \"x\", @")]),
        ("200", "0123456789", vec!["If-Match: *".into()]),
        ("412", "", vec!["If-Match: \"x\"".into()]),
        ("412", "", vec![tagged("If-Match: W/@")]),
        ("200", "0123456789", vec![tagged("If-Match: @"), format!("If-Unmodified-Since: {older}")]),
        ("412", "", vec![format!("If-Unmodified-Since: {older}")]),
        ("200", "0123456789", vec![format!("If-Unmodified-Since: {same}")]),
        ("304", "", vec![tagged("If-Match: @"), tagged("If-None-Match: @"), "Range: bytes=0-1".into()]),
        ("206", "01", vec!["Range: bytes=0-1".into(), tagged("If-Range: @")]),
        ("206", "01", vec!["Range: bytes=0-1".into(), format!("If-Range: {same}")]),
        ("200", "0123456789", vec!["Range: bytes=0-1".into(), format!("If-Range: {newer}")]),
        ("200", "0123456789", vec!["Range: bytes=0-1".into(), tagged("If-Range: W/@")]),
        ("200", "0123456789", vec!["Range: bytes=0-1".into(), "If-Range: \"x\"".into()]),
    ] {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let answer = server.answer(&request("GET", "/a.txt", &lines));
        assert_eq!((parts(&answer, "").0, parts(&answer, "").1), (code, body), "{lines:?}: {answer}");
        if code == "304" {
            assert_eq!(parts(&answer, "ETag").2, Some(etag.as_str()));
            assert_eq!(parts(&answer, "Content-Length").2, None);
        }
    }
}

#[test]
fn ranges() {
    let root = folder();
    let mut server = Server::with_files(root.path());
    for (range, wanted) in [
        ("bytes=0-0", Some("0-0")),
        ("bytes=3-5", Some("3-5")),
        ("Bytes=3-5", Some("3-5")),
        ("bytes= 3-5", Some("3-5")),
        ("bytes=3-", Some("3-9")),
        ("bytes=3-99999999999999999999999", Some("3-9")),
        ("bytes=-3", Some("7-9")),
        ("bytes=-30", Some("0-9")),
        ("bytes=9-", Some("9-9")),
        ("bytes=10-", Some("*")),
        ("bytes=99999999999999999999999-", Some("*")),
        ("bytes=-0", Some("*")),
        ("bytes=5-3", None),
        ("bytes=-", None),
        ("bytes=a-b", None),
        ("bytes=+1-2", None),
        ("bytes=1-2-3", None),
        ("bytes=1", None),
        ("bytes", None),
        ("lines=1-2", None),
        ("bytes=0-1,3-4", None),
    ] {
        let answer = server.answer(&request("GET", "/a.txt", &[&format!("Range: {range}")]));
        let (code, body, found) = parts(&answer, "Content-Range");
        match wanted {
            None => assert_eq!((code, body, found), ("200", "0123456789", None), "{range}"),
            Some("*") => assert_eq!((code, body, found), ("416", "", Some("bytes */10")), "{range}"),
            Some(wanted) => {
                let (from, to) = wanted.split_once('-').map(|(from, to)| (from.parse().unwrap(), to.parse::<usize>().unwrap())).unwrap();
                let part = &"0123456789"[from..=to];
                assert_eq!((code, body, found), ("206", part, Some(format!("bytes {wanted}/10").as_str())), "{range}");
            }
        }
    }
    // A HEAD ignores ranges. A large file has ranges. No range of an empty file can be satisfied.
    assert_eq!(parts(&server.answer(&request("HEAD", "/a.txt", &["Range: bytes=0-1"])), "Content-Length"), ("200", "", Some("10")));
    let large: Vec<u8> = (0..100_000_u32).map(|at| (at % 251) as u8).collect();
    let client = server.send(request("GET", "/large", &["Range: bytes=70000-99998"]).as_bytes());
    assert!(client.received.starts_with(b"HTTP/1.1 206 ") && client.received.ends_with(&large[70_000..99_999]));
    assert_eq!(parts(&server.answer(&request("GET", "/empty", &["Range: bytes=0-"])), "Content-Range"), ("416", "", Some("bytes */0")));
}

#[test]
fn a_changed_file_is_served_after_a_second_at_most() {
    let root = folder();
    let mut server = Server::with_files(root.path());
    let path = root.path().join("a.txt");
    let body = |server: &mut Server| parts(&server.answer(&request("GET", "/a.txt", &[])), "").1.to_owned();
    assert_eq!(body(&mut server), "0123456789");
    fs::write(&path, "new").unwrap();
    assert_eq!(body(&mut server), "0123456789", "compared once a second");
    server.worker.set_time(NOW + 1);
    assert_eq!(body(&mut server), "new");
    // Of the same size, and possibly with the same times.
    fs::write(&path, "old").unwrap();
    server.worker.set_time(NOW + 2);
    assert_eq!(body(&mut server), "old");
    fs::remove_file(&path).unwrap();
    server.worker.set_time(NOW + 3);
    assert_eq!(body(&mut server), "404 Not Found\n");
    // The folder itself is replaced.
    let other = folder();
    fs::write(other.path().join("a.txt"), "other").unwrap();
    let current = root.path().join("current");
    symlink(root.path(), &current).unwrap();
    let mut server = Server::with_files(&current);
    assert_eq!(body(&mut server), "404 Not Found\n");
    fs::remove_file(&current).unwrap();
    symlink(other.path(), &current).unwrap();
    server.worker.set_time(NOW + 1);
    assert_eq!(body(&mut server), "other");
}

#[test]
fn the_cache_stays_below_its_limit() {
    let root = tempfile::tempdir().unwrap();
    for number in 0..100 {
        fs::write(root.path().join(number.to_string()), vec![b'x'; 10_000]).unwrap();
    }
    let cache = module_api::Size::new(200_000);
    let mut server = Server::new(Params { root: Some(root.path().to_owned()), cache, ..params() });
    for round in 0..3 {
        for number in 0..100 {
            server.worker.set_time(NOW + round);
            let answer = server.answer(&request("GET", &format!("/{number}"), &[]));
            assert_eq!(parts(&answer, "Content-Length").2, Some("10000"));
            assert!(server.worker.files().cached_bytes() <= 200_000);
        }
    }
    assert!(server.worker.files().cached_bytes() > 150_000, "the cache is used");
    let cache = module_api::Size::new(0);
    let mut server = Server::new(Params { root: Some(root.path().to_owned()), cache, ..params() });
    assert!(server.answer(&request("GET", "/1", &[])).ends_with("xxx"));
    assert_eq!(server.worker.files().cached_bytes(), 0);
}

#[test]
fn invalid_parameters_are_refused() {
    let with = |change: fn(&mut Params)| {
        let mut params = params();
        change(&mut params);
        settings::read(params).err().expect("refused").to_string()
    };
    assert!(with(|params| params.root = Some("/nowhere/at/all".into())).contains("the folder \"/nowhere/at/all\" cannot be opened"));
    assert!(with(|params| params.root = Some("/etc/passwd".into())).contains("cannot be opened"));
    assert!(with(|params| params.index = "../x".into()).contains("not the name of a file"));
    assert!(with(|params| params.index = String::new()).contains("not the name of a file"));
    assert!(with(|params| params.server = "a\r\nb".into()).contains("\"server\" has characters"));
    assert!(with(|params| params.max_target = params.max_head).contains("\"max_target\" must be below"));
}
