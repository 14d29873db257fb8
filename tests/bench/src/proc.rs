//! State of other processes in `/proc`. Reading it neither stops nor wakes them.

use std::fs;

/// The direct children of a process, oldest first. None if it has ended.
pub fn children(pid: i32) -> Option<Vec<i32>> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    Some(text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect())
}

/// A process and all its descendants.
pub fn tree(pid: i32) -> Vec<i32> {
    let mut all = vec![pid];
    let mut next = 0;
    while let Some(pid) = all.get(next) {
        all.extend(children(*pid).unwrap_or_default());
        next += 1;
    }
    all
}

/// The process that forks the workers: the started one at `depth` 0, its first child at 1.
pub fn master(pid: i32, depth: u32) -> Option<i32> {
    (0..depth).try_fold(pid, |pid, _| children(pid)?.first().copied())
}

/// Whether a process waits inside one of these system calls right now.
pub fn waits_in(pid: i32, calls: &[i64]) -> bool {
    let Ok(text) = fs::read_to_string(format!("/proc/{pid}/syscall")) else { return false };
    // "running", or the number of the call first.
    text.split_ascii_whitespace().next().and_then(|number| number.parse().ok()).is_some_and(|number: i64| calls.contains(&number))
}

/// The number of a system call on this architecture.
///
/// # Panics
/// If no server here waits in it.
pub fn call_number(name: &str) -> i64 {
    match name {
        "recvfrom" => libc::SYS_recvfrom,
        "recvmsg" => libc::SYS_recvmsg,
        "recvmmsg" => libc::SYS_recvmmsg,
        "epoll_wait" => EPOLL_WAIT,
        "rt_sigsuspend" => libc::SYS_rt_sigsuspend,
        "pause" => PAUSE,
        _ => panic!("add the number of {name} here"),
    }
}

#[cfg(target_arch = "x86_64")]
const EPOLL_WAIT: i64 = libc::SYS_epoll_wait;
#[cfg(target_arch = "x86_64")]
const PAUSE: i64 = libc::SYS_pause;
#[cfg(not(target_arch = "x86_64"))]
const EPOLL_WAIT: i64 = libc::SYS_epoll_pwait;
#[cfg(not(target_arch = "x86_64"))]
const PAUSE: i64 = libc::SYS_ppoll;

/// The numbers of several, separated by commas.
pub fn call_numbers(names: &str) -> Vec<i64> {
    names.split(',').map(call_number).collect()
}

/// Processor time of a process and its descendants so far, all threads included, in nanoseconds.
pub fn cpu_ns(pid: i32) -> u64 {
    let of_thread = |path: std::path::PathBuf| -> Option<u64> {
        fs::read_to_string(path.join("schedstat")).ok()?.split_ascii_whitespace().next()?.parse().ok()
    };
    let threads = tree(pid).into_iter().filter_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).ok()).flatten();
    threads.filter_map(|thread| of_thread(thread.ok()?.path())).sum()
}
