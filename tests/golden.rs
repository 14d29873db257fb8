//! The observed lifecycle, compared with `golden/lifecycle.txt`, which the documentation shows.
//!
//! `MODHOST_GOLDEN=write cargo test -p modhost-tests --test golden` regenerates the file; review
//! the diff.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use harness::setup::module;
use harness::{Record, Setup, built, fixture, processes};

#[test]
fn golden_lifecycle() {
    let transcript = transcript();
    let path = built::root().join("tests/golden/lifecycle.txt");
    if std::env::var_os("MODHOST_GOLDEN").is_some_and(|wish| wish == "write") {
        fs::write(&path, &transcript).expect("the golden file");
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert!(transcript == golden, "{} differs; now:\n{transcript}", path.display());
}

/// Two modules, the second with the flag for `PROC_POSTCHILDINIT`. Two workers, control, one TCP
/// worker with the TCP main process, and two processes of the first module: one with an entry
/// function and one that returns.
fn transcript() -> String {
    let host = Setup::new()
        .module(fixture("recorder_a").script("init_f: register 2; proc_main: fork 7 reader, fork_return 8 writer; returned: hang"))
        .module(fixture("recorder_b"))
        .module(module("echo"))
        .host("workers", "1")
        .listen("recorder_a:serve", 2)
        .listen_tcp("echo:bytes")
        .control()
        .start();
    host.wait_for_module_processes(2);
    let main = host.main_pid();
    let names: BTreeMap<i32, String> = host.processes().into_iter().map(|pid| (pid, name(pid))).collect();
    let records = host.stop().records;

    let mut by_process: BTreeMap<i32, Vec<&Record>> = BTreeMap::new();
    for record in records.iter() {
        by_process.entry(record.process_no()).or_default().push(record);
    }
    let mut text = String::new();
    for (process_no, calls) in by_process {
        let parent = if calls[0].number("ppid") == i64::from(main) { "main" } else { "the supervisor" };
        let _ = writeln!(text, "process {process_no}: {}, child of {parent}", names[&calls[0].pid()]);
        for record in &calls {
            assert_eq!(record.number("ppid"), calls[0].number("ppid"));
            let _ = writeln!(text, "    {:<12}{}", record.module(), what(record, &names));
        }
    }
    text
}

/// From the title, without the address, which differs between runs.
fn name(pid: i32) -> String {
    let title = processes::title(pid);
    let name = title.trim_start_matches("modhost: ");
    name.split(" udp ").next().unwrap_or(name).to_owned()
}

fn what(record: &Record, names: &BTreeMap<i32, String>) -> String {
    match record.event.as_str() {
        "init_child_f" => format!("init_child_f({})", rank(record.rank())),
        "process" => "its entry function runs".to_owned(),
        "returned" => "fork_process has returned 0 to it".to_owned(),
        "did" => {
            let (action, with, result) = (record.text("action"), record.text("with").replace('+', " "), record.number("result"));
            match action {
                "register" => format!("  register_procs({with}) = {result}"),
                "fork" | "fork_return" => {
                    let child = names.get(&(result as i32)).map_or_else(|| result.to_string(), |name| format!("pid of {name}"));
                    let (rank, name) = with.split_once(' ').expect("a rank and a name");
                    let call = if action == "fork" { "fork_process_entry" } else { "fork_process" };
                    format!("  {call}({rank}, \"{name}\") = {child}")
                }
                other => format!("  {other}({with}) = {result}"),
            }
        }
        other => other.to_owned(),
    }
}

/// The rank's name in C.
fn rank(rank: i32) -> String {
    match rank {
        0 => "PROC_MAIN".to_owned(),
        -1 => "PROC_TIMER".to_owned(),
        -2 => "PROC_RPC".to_owned(),
        -4 => "PROC_TCP_MAIN".to_owned(),
        -126 => "PROC_POSTCHILDINIT".to_owned(),
        -127 => "PROC_INIT".to_owned(),
        other => other.to_string(),
    }
}
