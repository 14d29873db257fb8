//! The page of the `status` module: its content, its clients, and its formats.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;

use harness::setup::module;
use harness::{Attempt, Fixture, Host, PATIENCE, Setup, built, fixture};
use serde_json::Value;

use super::from_outside::wait_until;
use super::http_clients::{is_installed, text as curl};
use super::stats::own_address;

/// A listener for pages beside a listener for datagrams.
fn setup(status: Fixture) -> Setup {
    Setup::new().module(module("http")).module(module("echo")).module(status).listen_tcp("http")
}

/// Head and body of the answer to one request.
#[track_caller]
fn exchange(mut stream: impl Read + Write, request: &str) -> (String, String) {
    stream.write_all(format!("{request}\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes()).expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{request}: {answer}"));
    (format!("{head}\r\n"), body.to_owned())
}

/// The addresses of the TCP listeners, in order.
fn address(host: &Host, listener: usize) -> String {
    host.wait("the addresses of the listeners", |host| {
        let log = host.log();
        let mut addresses =
            log.lines.iter().filter_map(|line| line.text.split_once("  listener tcp ")?.1.split(' ').next().map(str::to_owned));
        addresses.nth(listener)
    })
}

#[track_caller]
fn ask(host: &Host, request: &str) -> (String, String) {
    let stream = TcpStream::connect(address(host, 0)).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    exchange(stream, request)
}

#[track_caller]
fn page(host: &Host, target: &str) -> String {
    let (head, body) = ask(host, &format!("GET {target} HTTP/1.1"));
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}{body}");
    body
}

#[track_caller]
fn json(host: &Host) -> Value {
    serde_json::from_str(&page(host, "/status?format=json")).expect("JSON")
}

/// The JSON output of a command of the host.
#[track_caller]
fn printed(host: &Host, command: &str) -> Value {
    let output =
        Command::new(host.path("modhost")).args([command, "--json", "-s"]).arg(host.path("control")).output().expect("the command");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The columns of a row that do not change while nothing happens.
fn lasting(rows: &Value) -> Vec<Value> {
    let keys = ["slot", "pid", "rank", "name", "state", "restarts"];
    let of = |row: &Value| Value::from_iter(keys.map(|key| (key, row[key].clone())));
    rows.as_array().expect("rows").iter().map(of).collect()
}

/// The cells of the first table, without its headings.
fn cells(page: &str) -> Vec<Vec<String>> {
    let table = page.split("<table>").nth(1).and_then(|rest| rest.split("</table>").next()).expect("a table");
    let text = |cell: &str| cell.split_once('>').expect("a cell").1.split("</td>").next().expect("its end").to_owned();
    table.split("<tr").skip(2).map(|row| row.split("<td").skip(1).map(text).collect()).collect()
}

fn counter(json: &Value, module: &str, name: &str) -> Option<u64> {
    json["stats"].as_array()?.iter().find(|entry| entry["module"] == module && entry["name"] == name)?["value"].as_u64()
}

#[test]
fn the_page_shows_every_process_like_ps() {
    let evil = fixture("recorder_a").script("init_f: register 2; proc_main: fork 7 <b>&\"x'");
    let host = setup(module("status")).module(evil).listen("echo", 2).control().start();
    let rows = printed(&host, "ps");
    let shown = json(&host);
    assert_eq!(lasting(&shown["processes"]), lasting(&rows));
    assert_eq!((shown["pid"].as_i64(), shown["main_pid"].as_i64()), (Some(host.pid().into()), Some(host.main_pid().into())));
    assert!(shown["uptime_ms"].as_u64().is_some() && shown["version"].as_str().is_some_and(|version| version.contains('.')), "{shown}");
    // Every running process, by its pid in the kernel.
    let mut pids: Vec<i64> = shown["processes"].as_array().expect("rows").iter().filter_map(|row| row["pid"].as_i64()).collect();
    let mut running: Vec<i64> = host.children().into_iter().chain([host.main_pid()]).map(i64::from).collect();
    pids.sort_unstable();
    running.sort_unstable();
    assert_eq!(pids, running);
    // The answering process is in a call of the module.
    let last = serde_json::json!({ "phase": "a stream handler", "module": "status" });
    assert_eq!(shown["processes"].as_array().expect("rows").iter().filter(|row| row["last"] == last).count(), 1, "{shown}");

    let page = page(&host, "/status");
    let cells = cells(&page);
    assert_eq!(cells.len(), rows.as_array().expect("rows").len());
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    for (row, cells) in rows.as_array().expect("rows").iter().zip(&cells) {
        let name = text(&row["name"]).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let name = name.replace('"', "&quot;").replace('\'', "&#39;");
        let pid = row["pid"].as_i64().map_or("-".to_owned(), |pid| pid.to_string());
        let wanted = [text(&row["slot"]), pid, text(&row["rank"]), text(&row["state"])];
        assert_eq!((&cells[..4], &cells[5], &cells[6]), (&wanted[..], &text(&row["restarts"]), &name));
    }
    assert!(page.contains("<td>&lt;b&gt;&amp;&quot;x&#39;</td>") && !page.contains("<b>"), "{page}");
    assert!(cells.iter().any(|cells| cells[3] == "free"), "the second process was registered and not forked");
    host.stop();
}

#[test]
fn the_page_shows_counters_in_three_formats() {
    let host = setup(module("status")).listen("echo", 2).control().start();
    let client = host.client();
    for round in 1..=3 {
        client.ask(b"x");
        let shown = json(&host);
        assert_eq!(counter(&shown, "echo", "answered"), Some(round));
        // The current request is counted too.
        assert_eq!(counter(&shown, "status", "answered"), Some(round));
    }
    // In the command's order and words, except for values that a request changes.
    let names = |entries: &Value| -> Vec<Value> {
        let of = |entry: &Value| Value::from_iter(["module", "name", "kind", "unit", "help"].map(|key| (key, entry[key].clone())));
        entries.as_array().expect("entries").iter().map(of).collect()
    };
    assert_eq!(names(&json(&host)["stats"]), names(&printed(&host, "stats")));
    let html = page(&host, "/status");
    assert!(html.contains("<h2>Counters of echo</h2>") && html.contains("<tr><td>answered</td><td class=\"n\">3</td>"), "{html}");
    let text = page(&host, "/status?format=prometheus");
    assert!(text.lines().any(|line| line == "modhost_echo_answered_total 3"), "{text}");
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, number) = line.split_once(' ').expect("a series and a number");
        assert!(series.starts_with("modhost_") && number.parse::<f64>().is_ok(), "{line}");
    }
    host.stop();
}

#[test]
fn a_killed_worker_is_shown_as_restarted() {
    let host = setup(module("status")).listen("echo", 1).control().expect_log("a process died and is replaced").start();
    let worker = |host: &Host| {
        let shown = json(host);
        let rows = shown["processes"].as_array().expect("rows").clone();
        rows.into_iter().find(|row| row["name"].as_str().is_some_and(|name| name.starts_with("worker 1 "))).expect("a worker")
    };
    let before = worker(&host);
    assert_eq!((before["restarts"].as_i64(), before["state"].as_str()), (Some(0), Some("serving")));
    host.kill(before["pid"].as_i64().expect("a pid") as i32);
    host.wait_for_log("a process died and is replaced");
    let mut after = before.clone();
    wait_until(&host, "the replacement", || {
        after = worker(&host);
        after["state"] == "serving" && after["pid"] != before["pid"]
    });
    assert_eq!((after["restarts"].as_i64(), &after["slot"], &after["rank"]), (Some(1), &before["slot"], &before["rank"]));
    assert!(cells(&page(&host, "/status")).iter().any(|cells| cells[5] == "1" && cells[6].starts_with("worker 1 ")));
    host.stop();
}

#[test]
fn all_kinds_of_requests_are_answered() {
    let host = setup(module("status").text("path", "/a/b")).listen("echo", 1).start();
    let (head, body) = ask(&host, "GET /a/b HTTP/1.1");
    for line in ["Content-Type: text/html; charset=utf-8", "Cache-Control: no-store", "X-Content-Type-Options: nosniff"] {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "no {line} in {head}");
    }
    assert!(head.contains("\r\nContent-Security-Policy: default-src 'none'; "), "{head}");
    assert!(body.starts_with("<!DOCTYPE html>\n") && !body.contains("http-equiv"), "{body}");
    let (head, body) = ask(&host, "HEAD /a/b HTTP/1.1");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("\r\nContent-Length: ") && body.is_empty(), "{head}{body}");
    for (request, code, holds) in [
        ("GET /a/b?refresh=7 HTTP/1.1", 200, "<meta http-equiv=\"refresh\" content=\"7\">"),
        ("GET /a/b?x=y HTTP/1.1\r\nAccept: application/json", 200, "{\"version\":"),
        ("GET /a/b?format=html HTTP/1.1\r\nAccept: application/json", 200, "<!DOCTYPE html>"),
        ("GET /a/b HTTP/1.1\r\nAccept: text/html, application/json", 200, "<!DOCTYPE html>"),
        ("GET /a/b?format=xml HTTP/1.1", 400, "format is html, json or prometheus"),
        ("GET /a/b?refresh=0 HTTP/1.1", 400, "refresh is 1 to 3600"),
        ("GET /a/b?refresh=%00 HTTP/1.1", 400, "refresh is 1 to 3600"),
        ("POST /a/b HTTP/1.1\r\nContent-Length: 0", 405, ""),
        ("DELETE /a/b HTTP/1.1", 405, ""),
        ("GET /a/b/c HTTP/1.1", 404, ""),
        ("GET /status HTTP/1.1", 404, ""),
    ] {
        let (head, body) = ask(&host, request);
        assert!(head.starts_with(&format!("HTTP/1.1 {code} ")) && body.contains(holds), "{request}\n{head}\n{body}");
    }
    let (head, _) = ask(&host, "GET /a/b?format=json HTTP/1.1");
    assert!(head.contains("\r\nContent-Type: application/json\r\n"), "{head}");
    let (head, _) = ask(&host, "GET /a/b?format=prometheus HTTP/1.1");
    assert!(head.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{head}");
    host.stop();
}

#[test]
fn only_this_machine_and_allowed_networks_are_answered() {
    let start = |allow: &str, address: IpAddr| {
        let listener = format!("tcp = \"{}\"", std::net::SocketAddr::new(address, 0));
        Setup::new()
            .module(module("http"))
            .module(module("status").param("allow", allow))
            .listen_tcp("http")
            .listen_with(&listener, "http", None)
            .listen_with("unix = \"sock\"", "http", None)
            .start()
    };
    let Some(own) = own_address() else {
        eprintln!("this machine has no address but loopback: not run");
        return;
    };
    for (allow, code) in [("[]".to_owned(), 403), ("[\"240.0.0.0/8\"]".to_owned(), 403), (format!("[\"240.0.0.0/8\", \"{own}\"]"), 200)] {
        let host = start(&allow, own);
        // The client's address is the server's, which is not loopback.
        let (head, body) = exchange(TcpStream::connect(address(&host, 1)).expect("a connection"), "GET /status?format=json HTTP/1.1");
        assert!(head.starts_with(&format!("HTTP/1.1 {code} ")), "{allow}: {head}");
        assert_eq!(body == "403 Forbidden\n", code == 403, "{body}");
        assert!(head.contains("\r\nCache-Control: no-store\r\n"), "{head}");
        // This machine and Unix sockets are always allowed.
        let local = UnixStream::connect(host.path("sock")).expect("a connection");
        assert!(exchange(local, "GET /status HTTP/1.1").0.starts_with("HTTP/1.1 200 "));
        assert_eq!(counter(&json(&host), "status", "refused"), Some(u64::from(code == 403)));
        host.stop();
    }
}

#[test]
fn the_page_works_without_fork() {
    let host = setup(module("status")).listen("echo", 1).argument("--no-fork").start();
    let shown = json(&host);
    let rows = shown["processes"].as_array().expect("rows");
    let main = i64::from(host.pid());
    assert_eq!((shown["pid"].as_i64(), shown["main_pid"].as_i64(), rows[0]["pid"].as_i64()), (Some(main), Some(main), Some(main)));
    let children: Vec<i64> = host.children_of(host.pid()).into_iter().map(i64::from).collect();
    assert_eq!(rows.iter().filter_map(|row| row["pid"].as_i64()).filter(|pid| children.contains(pid)).count(), 2, "two timers: {shown}");
    assert_eq!(rows.len(), 3);
    assert_eq!(cells(&page(&host, "/status")).len(), 3);
    host.stop();
}

#[test]
fn impossible_configurations_are_refused() {
    let attempt = Attempt::new();
    attempt.copy(&built::module("status"), "status.so");
    attempt.copy(&built::module("http"), "http.so");
    let alone = attempt.refused(2, &["run", "./status.so"]);
    alone[0].assert(
        "module \"status\" needs the interface \"http.routes\" 1.0, which no loaded module exports",
        "",
        "add the module that exports it",
    );
    for (set, what) in [
        ("status.path=status", "parameter \"path\": "),
        ("status.path=/a?b", "is not a route: a path cannot contain '?' (hint: a query is not part of it"),
        ("status.allow=all", "parameter \"allow\": \"all\" is not a network (hint: \"192.0.2.0/24\""),
        ("status.allow=192.0.2.1/24", "the bits after the first 24 must be zero"),
    ] {
        let outcome = attempt.run(&["run", "./http.so", "./status.so", "--set", set]);
        assert_eq!(outcome.code, 1, "{}", outcome.errors);
        assert!(
            outcome.errors.contains("module \"status\" failed in init_f") && outcome.errors.contains(what),
            "{set}: {}",
            outcome.errors
        );
    }
}

#[test]
fn curl_gets_the_page() {
    if !is_installed("curl") {
        return;
    }
    let host = setup(module("status")).listen("echo", 1).start();
    let url = format!("http://{}/status", address(&host, 0));
    assert!(curl(&[&url]).contains("<h2>Processes</h2>"));
    let shown: Value = serde_json::from_str(&curl(&["--header", "Accept: application/json", &url])).expect("JSON");
    assert_eq!(shown["pid"].as_i64(), Some(host.pid().into()));
    assert!(curl(&["--head", &url]).contains("\r\nContent-Type: text/html; charset=utf-8\r\n"));
    host.stop();
}
