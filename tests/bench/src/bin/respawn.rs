//! The time from a worker's SIGKILL until its replacement waits for work. Kills idle workers one
//! after the other.
//!
//! `respawn --in CALLS --kills N [--depth D] [--cpu C] [--step-us S] PID` prints a JSON list of
//! milliseconds. PID is the started process, its descendant at depth D forks the workers, and CALLS
//! are the system calls in which they wait for work. The observer polls every S microseconds,
//! without a pause if S is 0. With `--list` it kills nothing and prints the pids of the idle
//! workers.

use bench::options::Options;
use bench::{ms, now_ns, proc, sleep_us};

const LIMIT_NS: u64 = 5_000_000_000;

fn main() {
    let options = Options::read(&["list"]);
    let calls = proc::call_numbers(options.text("in").expect("--in"));
    let (kills, step_us) = (options.number("kills", 1_u32), options.number("step-us", 0_u64));
    let pid = options.positional_number(0);
    let master = proc::master(pid, options.number("depth", 0)).expect("a process that forks");
    if let Some(cpu) = options.text("cpu") {
        bench::pin(cpu.parse().expect("--cpu needs a number"));
    }
    if options.has("list") {
        let idle: Vec<i32> =
            proc::children(master).unwrap_or_default().into_iter().filter(|child| proc::waits_in(*child, &calls)).collect();
        println!("{idle:?}");
        return;
    }
    let took: Vec<String> = (0..kills).map(|_| format!("{:.4}", ms(one(master, &calls, step_us)))).collect();
    println!("[{}]", took.join(", "));
}

/// Kills the oldest idle worker, so that no slot dies twice before every slot has died once.
fn one(master: i32, calls: &[i64], step_us: u64) -> u64 {
    let before = proc::children(master).expect("the master is gone");
    let victim = *before.iter().filter(|child| proc::waits_in(**child, calls)).min().expect("an idle worker");
    let killed_ns = now_ns();
    // SAFETY: a plain system call; the pid is that of an idle worker.
    unsafe { libc::kill(victim, libc::SIGKILL) };
    loop {
        let now = proc::children(master).unwrap_or_else(|| panic!("the master ended after a worker was killed"));
        if now.iter().any(|child| !before.contains(child) && proc::waits_in(*child, calls)) {
            let took_ns = now_ns() - killed_ns;
            // Let the server settle before the next kill.
            sleep_us(20_000);
            return took_ns;
        }
        assert!(now_ns() - killed_ns < LIMIT_NS, "no replacement within 5 s");
        if step_us > 0 {
            sleep_us(step_us);
        }
    }
}
