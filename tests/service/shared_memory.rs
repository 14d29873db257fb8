//! Shared memory and its locks, from two processes: each listener has one worker.

use std::process::Command;

use harness::{Client, Host, Setup, built, fixture, processes};

use super::from_outside::wait_until;

const E_BUSY: &str = "-7";
const E_DEADLOCK: &str = "-8";
const E_NOT_RECOVERABLE: &str = "-9";
const OWNER_DIED: &str = "1";

/// Two workers that a test can address one at a time.
fn two_workers(setup: Setup, module: &str) -> Setup {
    setup.listen(&format!("{module}:serve"), 1).listen(&format!("{module}:serve"), 1)
}

fn clients(host: &Host) -> (Client, Client) {
    (Client::of(host.address(0)), Client::of(host.address(1)))
}

fn worker(host: &Host, rank: i32) -> i32 {
    host.records().child_inits(rank).last().unwrap().pid()
}

#[test]
fn a_lock_is_held_by_one_process() {
    let host = two_workers(Setup::new().module(fixture("recorder_a").script("init_f: mutex")), "recorder_a").start();
    let (first, second) = clients(&host);
    assert_eq!(first.ask_text("lock"), "0");
    assert_eq!(second.ask_text("try_lock"), E_BUSY);
    assert_eq!(first.ask_text("lock"), E_DEADLOCK);
    assert_eq!(second.ask_text("unlock"), "-3", "this process does not own it");
    second.send(b"lock");
    host.wait_for_records("the order to lock", 5, |record| record.event == "handler");
    assert_eq!(first.ask_text("unlock"), "0");
    assert_eq!(second.receive(), b"0", "the waiting process has the lock");
    assert_eq!(first.ask_text("try_lock"), E_BUSY);
    assert_eq!(first.ask_text("bad_lock"), "-303", "a lock outside shared memory is refused");
    host.stop();
}

#[test]
fn the_next_owner_is_told_who_died() {
    let setup = two_workers(Setup::new().module(fixture("recorder_a").script("init_f: mutex")), "recorder_a");
    let host = setup.expect_log("a process died holding a lock").expect_log("a process died and is replaced").start();
    let (first, second) = clients(&host);
    let owner = worker(&host, 1);
    assert_eq!(first.ask_text("lock"), "0");
    host.kill(owner);
    assert_eq!(second.ask_text("lock"), OWNER_DIED);
    let told = host.wait_for_record("the news", |record| record.event == "owner_died");
    assert_eq!((told.number("dead_pid"), told.number("dead_process_no")), (i64::from(owner), 1));
    host.log().assert(&["warn", "a process died holding a lock", &format!("pid={owner}"), "process_no=1"]);
    assert_eq!(second.ask_text("repaired"), "0");
    assert_eq!(second.ask_text("unlock"), "0");
    // Fully usable again, for the replacement too.
    assert_eq!(first.ask_text("lock"), "0");
    assert_eq!(first.ask_text("unlock"), "0");
    host.stop();
}

#[test]
fn a_process_waiting_for_a_lock_is_told_too() {
    let setup = two_workers(Setup::new().module(fixture("recorder_a").script("init_f: mutex")), "recorder_a");
    let host = setup.expect_log("a process died holding a lock").expect_log("a process died and is replaced").start();
    let (first, second) = clients(&host);
    assert_eq!(first.ask_text("lock"), "0");
    second.send(b"lock");
    host.wait_for_records("the order to lock", 2, |record| record.event == "handler");
    host.kill(worker(&host, 1));
    assert_eq!(second.receive(), OWNER_DIED.as_bytes());
    assert_eq!(second.ask_text("repaired"), "0");
    host.wait_for_log("a process died and is replaced");
    host.stop();
}

#[test]
fn an_unrepaired_lock_is_unusable_for_all() {
    let setup = two_workers(Setup::new().module(fixture("recorder_a").script("init_f: mutex")), "recorder_a");
    let host = setup.expect_log("a process died holding a lock").expect_log("a process died and is replaced").start();
    let (first, second) = clients(&host);
    assert_eq!(first.ask_text("lock"), "0");
    host.kill(worker(&host, 1));
    assert_eq!(second.ask_text("lock"), OWNER_DIED);
    assert_eq!(second.ask_text("unlock"), "0");
    for client in [&first, &second] {
        assert_eq!(client.ask_text("lock"), E_NOT_RECOVERABLE);
        assert_eq!(client.ask_text("try_lock"), E_NOT_RECOVERABLE);
    }
    host.stop();
}

#[test]
fn books_balance_after_deaths_within_a_booking() {
    let host = two_workers(Setup::new().module(fixture("ledger")), "ledger")
        .expect_log("a process died holding a lock")
        .expect_log("ledger: repairs what a dead process has left process_no=1")
        .expect_log("a process died and is replaced")
        .expect_log("panicked: in the middle of it")
        .expect_log("a datagram handler panicked module=\"ledger\" handler=\"serve\"")
        .start();
    let (first, second) = clients(&host);
    assert_eq!(first.ask_text("book 5"), "debit=5 credit=5 booked=1 repairs=0");
    first.send(b"abort 7");
    host.wait_for_log("was killed by SIGABRT");
    assert_eq!(second.ask_text("book 1"), "debit=6 credit=6 booked=2 repairs=1");
    // A panic does not release the lock while data is half changed.
    first.send(b"panic 9");
    host.wait_for_log("exited with status 70");
    assert_eq!(second.ask_text("sums"), "debit=6 credit=6 booked=2 repairs=2");
    assert_eq!(first.ask_text("book 1"), "debit=7 credit=7 booked=3 repairs=2", "the replacement continues in its predecessor's cell");
    host.log().assert(&["last=\"in a datagram handler of module \\\"ledger\\\""]);
    host.stop();
}

#[test]
fn no_booking_is_lost_between_processes() {
    let host = Setup::new().module(fixture("ledger")).listen("ledger:serve", 4).start();
    let clients: Vec<Client> = (0..20).map(|_| host.client()).collect();
    for _ in 0..20 {
        clients.iter().for_each(|client| client.send(b"book 1"));
        clients.iter().for_each(|client| drop(client.receive()));
    }
    assert_eq!(clients[0].ask_text("sums"), "debit=400 credit=400 booked=400 repairs=0");
    host.stop();
}

#[test]
fn an_exhausted_arena_names_the_module_and_the_remedy() {
    let host = Setup::new()
        .host("shared_memory", "\"1MiB\"")
        .module(fixture("recorder_a").script("init_f: shm_only 600000, shm_only 600000, shm_only 64; proc_init: shm_only 2000000"))
        .module(fixture("recorder_b").script("init_f: shm_only 300000; proc_init: shm_only 300000"))
        .expect_log("module \"recorder_a\" cannot get 600000 bytes of shared memory")
        .expect_log("module \"recorder_a\" cannot get 2000000 bytes of shared memory")
        .expect_log("module \"recorder_b\" cannot get 300000 bytes of shared memory")
        .start();
    host.log().assert(&[
        "cannot get 600000 bytes",
        "of 1048576 bytes are in use",
        "module \"recorder_a\" has most: 602",
        "raise host.shared_memory",
    ]);
    let records = host.stop().records;
    assert_eq!(records.outcomes("recorder_a", "shm_only"), [1, 0, 1, 0], "an allocation that fits succeeds");
    assert_eq!(records.outcomes("recorder_b", "shm_only"), [1, 0]);
}

#[test]
fn shm_malloc_is_refused_after_the_fork() {
    let setup = Setup::new()
        .module(fixture("recorder_a").script("init_f: timer fast tick 0 0; timer_tick: shm_only 8; proc_main: shm_only 8"))
        .listen("recorder_a:serve", 1);
    let phases = ["a datagram handler", "a timer function", "init_child_f(PROC_MAIN)"];
    let lines: Vec<String> = phases.iter().map(|phase| format!("module \"recorder_a\" called shm_malloc in {phase}")).collect();
    let host = lines.iter().fold(setup, |setup, line| setup.expect_log(line)).start();
    assert_eq!(host.client().ask_text("shm_only 8"), "0");
    lines.iter().for_each(|line| host.wait_for_log(line));
    assert!(host.stop().records.outcomes("recorder_a", "shm_only").iter().all(|outcome| *outcome == 0));
}

#[test]
fn impossible_allocations_are_refused() {
    let script = "init_f: shm_only 8 4096, shm_only 8 8192, shm_only 8 3, shm_only 0 8, shm_only 9223372036854775807 8";
    let host =
        Setup::new().module(fixture("recorder_a").script(script)).expect_log("impossible shared memory").allow_log("cannot get").start();
    assert_eq!(host.stop().records.outcomes("recorder_a", "shm_only"), [1, 0, 0, 0, 0]);
}

/// The output of `modhost shm`.
fn usage(host: &Host) -> serde_json::Value {
    let output = Command::new(built::host()).args(["shm", "--json", "-s"]).arg(host.path("control")).output().expect("the host's program");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn blocks(host: &Host, module: &str) -> u64 {
    let usage = usage(host);
    let shares = usage["modules"].as_array().expect("a list");
    shares.iter().find(|share| share["module"] == module).map_or(0, |share| share["blocks"].as_u64().expect("a number"))
}

#[test]
fn workers_dying_while_allocating_leave_shared_memory_consistent() {
    let host = Setup::new()
        .module(fixture("churn"))
        .listen("churn:serve", 8)
        .control()
        .expect_log("a process died and is replaced")
        .allow_log("a process died holding a lock")
        .allow_log("a process keeps dying")
        .start();
    assert_eq!(host.client().ask_text("empty"), "0");
    let before = blocks(&host, "churn");
    let main = host.main_pid();
    let workers = || -> Vec<i32> { host.children_of(main).into_iter().filter(|pid| processes::title(*pid).contains("worker")).collect() };
    // Kept to the end: later answers to these clients would go to the next sockets with their
    // ports.
    let mut clients = Vec::new();
    for round in 1..=16 {
        let client = host.client();
        (0..24).for_each(|_| client.send(b"churn 300"));
        // One answer, so that the other requests are in progress.
        client.receive();
        clients.push(client);
        host.kill(workers()[round % 8]);
        wait_until(&host, "the replacement", || workers().len() == 8);
    }
    let client = host.client();
    assert!(client.ask_text("churn 1000").parse::<u64>().is_ok());
    // A dead process may have owned a box, and one text that was in no list at that moment. The
    // other workers may still run earlier requests and refill what was emptied, so count after they
    // are done.
    let left = before..=before + 3 * 16;
    wait_until(&host, "that all that is in nobody's list is what the dead had", || {
        client.ask_text("empty") == "0" && left.contains(&blocks(&host, "churn"))
    });
    host.stop();
}

#[test]
fn threads_and_foreign_processes_allocate() {
    let host = Setup::new().module(fixture("allocates")).listen("allocates:serve", 1).control().start();
    let client = host.client();
    let before = blocks(&host, "allocates");
    for order in ["here 20000", "threads 20000", "outside 20000", "threads 20000", "here 20000"] {
        assert_eq!(client.ask_text(order), "0", "{order}");
        assert_eq!(blocks(&host, "allocates"), before + 1, "{order} leaves one block");
    }
    assert_eq!(client.ask_text("empty"), "0");
    assert_eq!(blocks(&host, "allocates"), before);
    host.stop();
}

#[test]
fn no_fork_main_and_foreign_processes_allocate() {
    // There is no control process in this mode, so the test measures by exhaustion: leaked memory
    // would soon be used up. 20,000 blocks would not fit; the blocks alive at a time and one span
    // of each size, for main and for the others, do.
    let setup = Setup::new().host("shared_memory", "\"4MiB\"").module(fixture("allocates")).listen("allocates:serve", 1);
    let host = setup.argument("--no-fork").start();
    let client = host.client();
    for order in ["here 20000", "outside 2000", "here 20000", "empty", "outside 2000", "here 20000"] {
        assert_eq!(client.ask_text(order), "0", "{order}");
    }
    host.stop();
}
