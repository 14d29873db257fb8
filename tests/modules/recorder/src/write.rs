//! The records of a recorder: one line and one `write` for each, so that lines of several processes
//! never mix.

use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::Write as _;

use crate::act::{self, api, handle};
use crate::world;

/// A call by the host. `rank`: the argument of `init_child_f`.
pub fn call(event: &str, rank: Option<i32>) {
    line(&format!("{event} {}", identity(rank)));
}

/// The result of an action.
pub fn outcome(action: &str, result: impl Display) {
    let (word, rest) = action.split_once(' ').unwrap_or((action, ""));
    line(&format!("did action={word} with={} result={result} {}", rest.replace(' ', "+"), identity(None)));
}

/// An event with other fields.
pub fn event(event: &str, fields: &str) {
    line(&format!("{event} {fields} {}", identity(None)));
}

/// The identity of this process, as the kernel and the host report it, and the values set before.
pub fn identity(rank: Option<i32>) -> String {
    let info = act::process_info();
    // SAFETY: calls without arguments that cannot fail.
    let (ppid, sid, pgid, uid, gid) = unsafe { (libc::getppid(), libc::getsid(0), libc::getpgid(0), libc::getuid(), libc::getgid()) };
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a writable struct.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    let shared = act::shared();
    format!(
        "module={} pid={} ppid={ppid} sid={sid} pgid={pgid} uid={uid} gid={gid} rank={} process_no={} restarts={} host_pid={} host_rank={} \
         variable={} shared={:#x} shared_value={} t_ns={}",
        world().module,
        std::process::id(),
        rank.unwrap_or(info.rank),
        info.process_no,
        info.restarts,
        info.pid,
        info.rank,
        act::variable(),
        shared.map_or(0, |shared| std::ptr::from_ref(shared) as usize),
        shared.map_or(-1, |shared| shared.load(std::sync::atomic::Ordering::SeqCst) as i64),
        time.tv_sec as i128 * 1_000_000_000 + time.tv_nsec as i128,
    )
}

fn line(text: &str) {
    // Opened for each record: an open descriptor would be inherited, and some tests compare
    // descriptors.
    let file = OpenOptions::new().append(true).open(&world().record);
    let written = file.and_then(|mut file| file.write_all(format!("{text}\n").as_bytes()));
    if let Err(error) = written {
        let text = format!("cannot write to the record: {error}");
        (api().log)(handle(), module_api::abi::LEVEL_ERROR, std::ptr::null(), 0, text.as_ptr(), text.len());
    }
}
