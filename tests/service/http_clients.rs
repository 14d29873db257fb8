//! The HTTP server with clients of other projects: curl and wrk, where they are installed.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use harness::setup::module;
use harness::{Host, Setup};

/// Whether a program is installed. If not, its test is skipped and says so on stderr.
pub(super) fn is_installed(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        // Written directly: the test runner hides the output of tests that pass.
        let _ = writeln!(std::io::stderr(), "{}: needs {program}: not run", std::thread::current().name().unwrap_or("a test"));
    }
    found
}

/// A server with a route and three files, and its URL.
fn start() -> (Host, String) {
    let setup = Setup::new();
    let root = setup.folder().join("files");
    fs::create_dir_all(root.join("dir")).expect("a folder");
    fs::write(root.join("large"), (0..2_000_000_u32).map(|at| (at % 251) as u8).collect::<Vec<u8>>()).expect("a file");
    fs::write(root.join("small.html"), "x".repeat(1024)).expect("a file");
    fs::write(root.join("dir/index.html"), "<p>a folder").expect("a file");
    let http = module("http").param("routes", "{ \"/ok\" = \"200 text/plain ok\" }").text("root", &root.display().to_string());
    let host = setup.module(http).listen_tcp("http").start();
    let url = format!("http://{}", host.addresses(0)[0]);
    (host, url)
}

/// The output of curl with these arguments, within ten seconds.
fn curl(arguments: &[&str]) -> Vec<u8> {
    let done = Command::new("curl").args(["--silent", "--show-error", "--max-time", "10"]).args(arguments).output().expect("curl");
    assert!(done.status.success(), "curl {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    done.stdout
}

/// The same as text.
pub fn text(arguments: &[&str]) -> String {
    String::from_utf8(curl(arguments)).expect("text")
}

#[test]
fn curl_gets_the_right_answers() {
    if !is_installed("curl") {
        return;
    }
    let (host, url) = start();
    let at = |path: &str| format!("{url}{path}");
    let (ok, large, small) = (at("/ok"), at("/large"), at("/small.html"));
    let code = ["--output", "/dev/null", "--write-out", "%{http_code}"];
    let content = fs::read(host.path("files/large")).expect("the file");
    assert_eq!(text(&[&ok]), "ok");
    assert_eq!(text(&["--http1.0", &ok]), "ok");
    assert!(curl(&[&large]) == content);
    assert!(curl(&["--range", "1500000-1600000", &large]) == content[1_500_000..=1_600_000]);
    assert!(text(&["--head", &small]).contains("Content-Type: text/html\r\n"));
    // One connection for all three.
    assert_eq!(text(&["--write-out", "%{num_connects}", &ok, &ok, &ok]), "ok1ok0ok0");
    assert_eq!(text(&["--location", &at("/dir")]), "<p>a folder");
    let with = |more: &[&str]| text(&[&code[..], more].concat());
    assert_eq!(with(&["--request", "POST", "--data", "a=b", &ok]), "405");
    assert_eq!(with(&["--request", "OPTIONS", "--request-target", "*", &ok]), "200");
    assert_eq!(with(&["--path-as-is", &at("/dir/../../../etc/passwd")]), "404");
    let (etag, copy) = (host.path("etag").display().to_string(), host.path("copy").display().to_string());
    curl(&["--etag-save", &etag, "--output", &copy, &small]);
    assert_eq!(with(&["--etag-compare", &etag, &small]), "304");
    assert_eq!(with(&["--time-cond", &copy, &small]), "304");
    // A large body is sent after `100 Continue`. A body that is too large is refused before it is
    // sent.
    let body = host.path("body");
    fs::write(&body, vec![b'x'; 900_000]).expect("a body");
    let upload = format!("@{}", body.display());
    assert_eq!(with(&["--data-binary", &upload, "--header", "Expect: 100-continue", &ok]), "405");
    assert_eq!(with(&["--data-binary", &upload, "--header", "Transfer-Encoding: chunked", &ok]), "405");
    fs::write(&body, vec![b'x'; 5_000_000]).expect("a body");
    assert_eq!(with(&["--data-binary", &upload, "--header", "Expect: 100-continue", &ok]), "413");
    assert_eq!(with(&["--header", &format!("X: {}", "x".repeat(20_000)), &ok]), "431");
    host.stop();
}

#[test]
fn wrk_sees_no_error() {
    if !is_installed("wrk") {
        return;
    }
    let (host, url) = start();
    for (path, connections) in [("/ok", "64"), ("/small.html", "16"), ("/large", "16")] {
        let done = Command::new("wrk").args(["-t1", "-d1", "-c", connections, &format!("{url}{path}")]).output().expect("wrk");
        let outcome = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success() && outcome.contains("Requests/sec:"), "{outcome}");
        assert!(!outcome.contains("Non-2xx") && !outcome.contains("Socket errors"), "{outcome}");
        assert!(!outcome.contains("\n  0 requests in"), "{outcome}");
    }
    host.stop();
}
