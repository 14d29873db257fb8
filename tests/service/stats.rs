//! Counters: the sum over processes, across deaths, threads and processes that the host did not
//! fork; and the output formats.

use std::process::Command;

use harness::setup::module;
use harness::{Client, Host, Setup, fixture};
use serde_json::Value;

use super::from_outside::wait_until;

const E_PHASE: &str = "-2";

/// The output of `modhost stats` for that host.
#[track_caller]
fn printed(host: &Host, arguments: &[&str]) -> String {
    let output = Command::new(host.path("modhost")).arg("stats").arg("-s").arg(host.path("control")).args(arguments).output().unwrap();
    let (text, errors) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success() && errors.is_empty(), "{errors}\n{}", host.report());
    text
}

#[track_caller]
fn all(host: &Host, arguments: &[&str]) -> Value {
    serde_json::from_str(&printed(host, &[&["--json"], arguments].concat())).unwrap()
}

/// One entry by its full name.
#[track_caller]
fn entry(host: &Host, name: &str) -> Value {
    let found = all(host, &[name, "--per-process"]);
    found.as_array().unwrap().iter().find(|entry| name == format!("{}.{}", text(entry, "module"), text(entry, "name"))).unwrap().clone()
}

fn text<'v>(entry: &'v Value, key: &str) -> &'v str {
    entry[key].as_str().unwrap()
}

#[track_caller]
fn value(host: &Host, name: &str) -> i64 {
    entry(host, name)["value"].as_i64().unwrap()
}

/// Sends a command to the fixture. Returns the pid of the process that handled it.
#[track_caller]
fn order(client: &Client, order: &str) -> u64 {
    let answer = client.ask_text(order);
    let (process_no, code) = answer.split_once(' ').unwrap();
    assert_eq!(code, "0", "{order}");
    process_no.parse().unwrap()
}

/// The count of the fixture in main before any fork.
const IN_MAIN: i64 = 1_000_001;

fn counts(workers: u32) -> Setup {
    Setup::new().module(fixture("counts")).listen("counts:serve", workers).control()
}

#[test]
fn the_sum_covers_all_workers() {
    let host = counts(4).start();
    let clients: Vec<Client> = (0..40).map(|_| host.client()).collect();
    let mut by_slot = [0_i64; 16];
    for round in 1..=10_i64 {
        clients.iter().for_each(|client| client.send(format!("count {round}").as_bytes()));
        for client in &clients {
            let answer = String::from_utf8(client.receive()).unwrap();
            let (slot, code) = answer.split_once(' ').unwrap();
            assert_eq!(code, "0");
            by_slot[slot.parse::<usize>().unwrap()] += round;
        }
    }
    by_slot[0] = IN_MAIN;
    let entry = entry(&host, "counts.counted");
    assert_eq!(entry["value"].as_i64(), Some(IN_MAIN + 40 * 55));
    let parts = entry["processes"].as_array().unwrap();
    for part in parts {
        assert_eq!(part["value"].as_i64(), Some(by_slot[part["slot"].as_u64().unwrap() as usize]), "{entry}");
    }
    assert_eq!(parts.len(), by_slot.iter().filter(|sum| **sum > 0).count());
    // The host's counters: workers received every datagram and answered every one.
    assert_eq!((value(&host, "host.received"), value(&host, "host.sent"), value(&host, "host.refused")), (400, 400, 0));
    assert!((1..=400).contains(&value(&host, "host.batches")));
    host.stop();
}

#[test]
fn counters_outlive_their_process_and_gauges_do_not() {
    let host = counts(1).expect_log("a process died and is replaced").start();
    let client = host.client();
    for death in 1..=3 {
        for text in ["count 10", "own 5", "shared 7", "took 3"] {
            assert_eq!(order(&client, text), 1);
        }
        assert_eq!((value(&host, "counts.own"), value(&host, "counts.shared")), (5, 7 * death));
        let worker = host.children().into_iter().find(|pid| harness::processes::title(*pid).contains("worker 1")).unwrap();
        host.kill(worker);
        host.wait_for_log_lines("a process died and is replaced", death as usize);
        assert_eq!(value(&host, "counts.counted"), IN_MAIN + 10 * death, "the sum never shrinks");
        assert_eq!((value(&host, "counts.own"), value(&host, "counts.shared")), (0, 7 * death));
        let took = entry(&host, "counts.took");
        assert_eq!((took["count"].as_i64(), took["sum"].as_i64(), took["p50"].as_i64()), (Some(death), Some(3 * death), Some(3)));
        assert_eq!(value(&host, "host.restarts"), death);
    }
    order(&client, "count 1");
    assert_eq!(value(&host, "counts.counted"), IN_MAIN + 31, "the replacement continues in the same cell");
    host.stop();
}

#[test]
fn a_c_module_reads_the_process_table() {
    let host = counts(1).start();
    let client = host.client();
    let ask = |order: &str| client.ask_text(order).split_once(' ').map(|(_, code)| code.parse::<i32>().unwrap()).unwrap();
    assert_eq!(ask("row 0"), host.main_pid());
    assert!(host.children().contains(&ask("row 1")));
    assert_eq!(ask("row_in_thread 1"), ask("row 1"));
    assert_eq!(ask("row 1000"), -1, "past the end, the fixture says so in its error");
    assert_eq!(ask("host"), host.pid());
    host.stop();
    let host = Setup::new().module(fixture("counts")).listen("counts:serve", 1).argument("--no-fork").start();
    assert_eq!(host.client().ask_text("host"), format!("0 {}", host.pid()));
    assert_eq!(host.client().ask_text("row 0"), format!("0 {}", host.pid()));
    host.stop();
}

#[test]
fn threads_and_foreign_processes_lose_no_count() {
    let host = counts(1).start();
    let client = host.client();
    order(&client, "threads 100000");
    assert_eq!(value(&host, "counts.counted"), IN_MAIN + 300_000);
    order(&client, "outside 100000");
    let entry_now = entry(&host, "counts.counted");
    assert_eq!(entry_now["value"].as_i64(), Some(IN_MAIN + 500_000));
    let outside = entry_now["processes"].as_array().unwrap().iter().find(|part| part["slot"].is_null()).unwrap().clone();
    assert_eq!(outside["value"].as_i64(), Some(200_000));
    assert_eq!(value(&host, "counts.own"), 2);
    order(&client, "set -9");
    assert_eq!(value(&host, "counts.own"), -7, "this process's count, and that of the others");
    host.stop();
}

#[test]
fn impossible_registrations_are_refused_and_named() {
    let start = Setup::new()
        .module(fixture("counts").param("misuse", "true"))
        .listen("counts:serve", 1)
        .expect_log("module \"counts\" cannot count as \"counted\": it has that name already")
        .expect_log("module \"counts\" cannot count as \"Big\": it is not a valid name")
        .expect_log("module \"counts\" cannot count as \"flags\": unknown flags 0x8")
        .expect_log("module \"counts\" cannot count as \"descending\": its bounds do not ascend")
        .expect_log("module \"counts\" called stat_info in init_f")
        .expect_log("module \"counts\" called stat_register in a datagram handler")
        .start();
    assert_eq!(start.client().ask_text("late"), format!("1 {E_PHASE}"));
    start.log().assert(&["called stat_register in a datagram handler", "hint: stat_register works in init_f and init_child_f(PROC_INIT)"]);
    start.stop();
}

#[test]
fn overwritten_cells_are_shown_as_numbers() {
    let host = counts(2).start();
    let client = host.client();
    for byte in [255, 1, 128] {
        order(&client, &format!("garbage {byte}"));
        let entries = all(&host, &["counts", "--per-process"]);
        assert_eq!(entries.as_array().unwrap().len(), 6);
        printed(&host, &["--prometheus"]);
        printed(&host, &["--per-process"]);
    }
    order(&client, "count 1");
    assert_eq!(value(&host, "counts.counted"), IN_MAIN + 1);
    host.stop();
}

#[test]
fn counters_work_without_fork() {
    let host = Setup::new()
        .module(fixture("counts"))
        .module(module("stats"))
        .module(module("echo"))
        .listen("counts:serve", 1)
        .listen("stats", 1)
        .listen("echo", 1)
        .argument("--no-fork")
        .start();
    let (counting, asking, echoing) = (Client::of(host.address(0)), Client::of(host.address(1)), Client::of(host.address(2)));
    assert_eq!(order(&counting, "count 5"), 0);
    order(&counting, "threads 1000");
    echoing.ask(b"once");
    assert_eq!(asking.ask_text("counts.c"), format!("counts.counted {}\n", IN_MAIN + 3005));
    assert_eq!(asking.ask_text("echo"), "echo.answered 1\n");
    host.stop();
}

#[test]
fn output_as_text_table_json_and_prometheus() {
    let host = counts(1).start();
    let client = host.client();
    for text in ["took 5", "took 50", "took 5000000000", "set -3"] {
        order(&client, text);
    }
    let table = printed(&host, &["counts", "host.re"]);
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    let names: Vec<&str> = lines.iter().map(|line| line[0]).collect();
    let counts = ["name", "counts.counted", "counts.in_proc_init", "counts.own", "counts.shared", "counts.sizes", "counts.took"].as_slice();
    assert_eq!(names, [counts, &["host.received", "host.refused", "host.restarts"]].concat());
    assert_eq!(lines[3], ["counts.own", "-3", "bytes"]);
    assert_eq!(lines[6][..4], ["counts.took", "3", "ns", "5000000055"]);
    assert_eq!(printed(&host, &["nothing_like_that"]).lines().count(), 1);
    assert_eq!(all(&host, &["nothing_like_that"]), serde_json::json!([]));

    let sizes = entry(&host, "counts.sizes");
    assert_eq!(sizes["buckets"], serde_json::json!([[10, 1], [100, 1], [u64::MAX, 1]]));
    assert_eq!((text(&sizes, "kind"), text(&sizes, "unit"), text(&sizes, "help")), ("histogram", "bytes", "sizes"));

    let prometheus = printed(&host, &["--prometheus"]);
    let mut families = Vec::new();
    for line in prometheus.lines() {
        let mut words = line.split(' ');
        match (words.next(), words.next()) {
            (Some("#"), Some("TYPE")) => families.push(words.next().unwrap().to_owned()),
            (Some("#"), Some(word)) => assert_eq!(word, "HELP", "{line}"),
            (Some(series), Some(number)) => {
                let family = families.last().unwrap();
                assert!(series.starts_with(family.as_str()), "{line} is not of {family}");
                assert!(number.parse::<f64>().is_ok() && words.next().is_none(), "{line}");
            }
            _ => panic!("{line}"),
        }
    }
    assert!(families.is_sorted(), "{families:?}");
    for line in [
        "# HELP modhost_counts_counted_total what it was told to count",
        "# TYPE modhost_counts_counted_total counter",
        "modhost_counts_own_bytes -3",
        "modhost_counts_sizes_bytes_bucket{le=\"100\"} 2",
        "modhost_counts_sizes_bytes_bucket{le=\"+Inf\"} 3",
        "modhost_counts_took_seconds_sum 5.000000055",
        "modhost_counts_took_seconds_count 3",
        "modhost_host_received_total 4",
    ] {
        assert!(prometheus.lines().any(|found| found == line), "no {line} in\n{prometheus}");
    }
    host.stop();
}

#[test]
fn the_stats_module_answers_good_and_bad_requests() {
    let host = Setup::new()
        .module(module("echo"))
        .module(module("stats").param("max_bytes", "700"))
        .listen("echo", 2)
        .listen("stats:query", 2)
        .control()
        .start();
    let (echo, asking) = (Client::of(host.address(0)), Client::of(host.address(1)));
    (0..7).for_each(|_| drop(echo.ask(b"x")));
    assert_eq!(asking.ask_text("echo"), "echo.answered 7\n");
    let everything = asking.ask_text("");
    assert!(everything.starts_with("echo.answered 7\nhost.batches ") && everything.contains("\nstats.answered 1\n"), "{everything}");
    let json: Value = serde_json::from_str(&asking.ask_text("echo json\n")).unwrap();
    assert_eq!((json["stats"][0]["value"].as_i64(), json["left_out"].as_i64()), (Some(7), Some(0)));
    assert_eq!(json["stats"], all(&host, &["echo"]));
    assert!(asking.ask_text("echo prometheus").ends_with("\nmodhost_echo_answered_total 7\n"));
    // More than fits: whole entries, and a note.
    for format in ["json", "prometheus"] {
        let answer = asking.ask(format.as_bytes());
        assert!(answer.len() <= 700, "{}", answer.len());
        assert!(String::from_utf8(answer).unwrap().contains(if format == "json" { "\"left_out\":" } else { "# left out: " }));
    }
    for garbage in [&b"\xff\xfe"[..], b"a b c d", b"../../etc json", b"\0\0\0", &[b'%'; 60_000], b"ECHO"] {
        assert!(asking.ask_text_of(garbage).starts_with("error: ask with "));
    }
    assert_eq!(value(&host, "stats.answered"), 12);
    assert_eq!(value(&host, "stats.refused"), 0);
    host.stop();
}

#[test]
fn only_this_machine_is_answered_by_default() {
    // An address of this machine other than loopback, if there is one.
    let Some(address) = own_address() else {
        eprintln!("this machine has no address but loopback: not run");
        return;
    };
    for (allow, answered) in [("false", false), ("true", true)] {
        let host = Setup::new()
            .module(module("stats").param("allow_remote", allow))
            .listen_at(&format!("{address}:0"), "stats", Some(1))
            .listen("stats", 1)
            .control()
            .start();
        let socket = std::net::UdpSocket::bind((address, 0)).unwrap();
        socket.set_read_timeout(Some(harness::PATIENCE)).unwrap();
        socket.send_to(b"stats", host.address(0)).unwrap();
        if answered {
            let mut buffer = [0; 2000];
            assert!(socket.recv_from(&mut buffer).unwrap().0 > 0);
        } else {
            // A refused request is counted.
            wait_until(&host, "the refusal", || value(&host, "stats.refused") == 1);
            assert_eq!(value(&host, "stats.answered"), 0);
        }
        assert!(Client::of(host.address(1)).ask_text("stats.r").starts_with("stats.refused"));
        host.stop();
    }
}

/// The source address of datagrams to other machines. Nothing is sent.
pub fn own_address() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|address| !address.is_loopback() && !address.is_unspecified())
}

#[test]
fn the_stats_module_logs_changed_counters() {
    let setup = Setup::new().module(module("echo")).module(module("stats").text("log_every", "20ms")).listen("echo", 1).control();
    // On a busy machine a timer call may take longer than its period.
    let host = setup.allow_log("a timer function is slower than its period").start();
    host.client().ask(b"x");
    host.wait_for_log("stats: counted counter=echo.answered total=1");
    host.client().ask(b"x");
    host.wait_for_log("stats: counted counter=echo.answered total=2 per_s=");
    wait_until(&host, "runs of the timer", || value(&host, "host.timer_runs") > 2);
    let reports = host.stop().log.lines.iter().filter(|line| line.text.contains("echo.answered")).count();
    assert_eq!(reports, 2, "unchanged counters are not reported");
}
