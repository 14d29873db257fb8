//! The open descriptors of each kind of process, compared with `golden/descriptors.txt`; and its
//! signals.
//!
//! `MODHOST_GOLDEN=write cargo test -p modhost-tests --test operation descriptors` regenerates the
//! file.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use harness::processes::Process;
use harness::setup::module;
use harness::{Deadline, Host, PATIENCE, Setup, built, fixture, processes};

/// A host that uses everything which opens a descriptor.
fn service() -> Host {
    let script = "init_f: register 2; proc_main: fork 7 entry 1, fork_return 8 returning; returned: hang";
    let host = Setup::new()
        .pid_file()
        .control()
        .log_file()
        .module(fixture("recorder_a").script(script))
        .listen("recorder_a:serve", 1)
        .listen("recorder_a:echo", 1)
        .module(module("echo"))
        .host("workers", "1")
        .listen_tcp("echo:bytes")
        .start();
    host.wait_for_module_processes(2);
    // Some open and close descriptors after they have reported that they serve.
    for pid in host.children() {
        Process::open(pid).unwrap().wait_until_asleep(Deadline::after(PATIENCE));
    }
    host
}

/// The names of the sockets that have one. The key is the target of the link in `/proc/PID/fd`.
fn sockets(host: &Host) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    for listener in 0..3 {
        let address: std::net::SocketAddr = host.addresses(listener)[0].parse().unwrap();
        let port = format!(":{:04X}", address.port());
        let table = if listener < 2 { "/proc/net/udp" } else { "/proc/net/tcp" };
        for line in fs::read_to_string(table).unwrap().lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if fields[1].ends_with(&port) {
                names.insert(format!("socket:[{}]", fields[9]), format!("listener {listener}"));
            }
        }
    }
    for line in fs::read_to_string("/proc/net/unix").unwrap().lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if fields.get(7).is_some_and(|path| path.starts_with(host.folder().to_str().unwrap())) {
            names.insert(format!("socket:[{}]", fields[6]), "control socket".to_owned());
        }
    }
    names
}

#[test]
fn golden_descriptors() {
    let host = service();
    let (folder, sockets) = (host.folder().to_path_buf(), sockets(&host));
    // Descriptors that every process inherits from the test runner.
    let inherited = processes::descriptors(std::process::id() as i32);
    let mut rows: Vec<(String, Vec<String>)> = Vec::new();
    for pid in host.processes() {
        let mut held: Vec<String> = processes::descriptors(pid)
            .into_iter()
            .filter(|(number, path)| *number <= 2 || inherited.get(number) != Some(path))
            .map(|(number, path)| {
                let text =
                    path.strip_prefix(&folder).map_or_else(|_| path.display().to_string(), |path| format!("file {}", path.display()));
                let text = sockets.get(&text).cloned().unwrap_or(text);
                let text = if text.starts_with("socket:") { "link".to_owned() } else { text };
                if number <= 2 { format!("{number} {text}") } else { format!("  {text}") }
            })
            .collect();
        held.sort();
        let title = processes::title(pid);
        let name = title.trim_start_matches("modhost: ").split(" udp ").next().unwrap().to_owned();
        rows.push((name, held));
    }
    host.stop();
    rows.sort();
    let mut text = String::new();
    for (name, held) in rows {
        let _ = writeln!(text, "{name}");
        for line in held {
            let _ = writeln!(text, "    {line}");
        }
    }
    let path = built::root().join("tests/golden/descriptors.txt");
    if std::env::var_os("MODHOST_GOLDEN").is_some_and(|wish| wish == "write") {
        fs::write(&path, &text).expect("the golden file");
    }
    assert!(text == fs::read_to_string(&path).unwrap_or_default(), "{} differs; now:\n{text}", path.display());
}

#[test]
fn a_replacement_has_the_same_descriptors() {
    let host = service();
    let kinds = |pid: i32| -> Vec<String> {
        let mut kinds: Vec<String> =
            processes::descriptors(pid).values().map(|path| path.display().to_string().split(':').next().unwrap().to_owned()).collect();
        kinds.sort();
        kinds
    };
    let worker = host.records().child_inits(1)[0].pid();
    let before = kinds(worker);
    host.kill(worker);
    let again = host.wait_for_record("the replacement", |record| record.is_child_init(1) && record.number("restarts") == 1);
    host.client().ask(b"info");
    assert_eq!(kinds(again.pid()), before);
    let _ = host.allowing("a process died and is replaced").stop();
}

#[test]
fn children_have_default_signal_handling() {
    let host = service();
    for pid in host.children() {
        let (status, title) = (processes::status(pid), processes::title(pid));
        let bits = |key: &str| u64::from_str_radix(&status[key], 16).unwrap();
        assert_eq!(bits("SigBlk"), 0, "{title}");
        // The C library uses 32 and 33.
        assert_eq!(bits("SigIgn") & 0x7fff_ffff, 1 << 12, "{title} ignores other signals than SIGPIPE");
        assert_eq!(status["NoNewPrivs"], "0", "{title}: a module may start programs that change the user");
        assert_eq!(status["Threads"], "1", "{title}");
    }
    assert_eq!(processes::status(host.main_pid())["Threads"], "1");
    assert_eq!(processes::status(host.pid())["Threads"], "1");
    host.stop();
}

#[test]
fn titles_and_short_names() {
    let host = service();
    let address = host.address(0);
    let mut names: Vec<(String, String)> =
        host.processes().into_iter().map(|pid| (processes::title(pid), processes::status(pid)["Name"].clone())).collect();
    names.sort();
    let titles: Vec<&str> = names.iter().map(|(title, _)| title.as_str()).collect();
    assert!(titles.contains(&format!("modhost: worker 1 udp {address}").as_str()), "{titles:?}");
    for (title, name) in &names {
        let expected = match title.trim_start_matches("modhost: ").split(' ').next().unwrap() {
            "main" => "modhost-main",
            "worker" => "modhost-worker",
            "timer" | "slow" => "modhost-timer",
            "control" => "modhost-control",
            "entry" | "returning" => "modhost-module",
            "TCP" if title.contains("main") => "modhost-tcpmain",
            "TCP" => "modhost-tcp",
            _ => "modhost",
        };
        assert_eq!(name, expected, "{title}");
    }
    host.stop();
}
