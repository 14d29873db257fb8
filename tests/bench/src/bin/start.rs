//! Starts a server, reports when it is ready, stops it by SIGTERM, and reports whether anything is
//! left. Time starts just before the program is executed.
//!
//! `start [OPTIONS] -- COMMAND...` prints one line of JSON when the server is ready, and one when
//! it has stopped.
//!
//! | option | meaning |
//! | --- | --- |
//! | `--ready byte` | ready when it writes to its standard output |
//! | `--ready notify` | ready when it sends READY=1 to NOTIFY_SOCKET |
//! | `--ready waiting` | ready when N children wait in one of some system calls, seen in /proc |
//! | `--workers N --in CALLS --depth D` | for `waiting`: the number of workers, their system calls, and the depth of their parent (0: the started process) |
//! | `--hold` | stop it when standard input ends, not at once |
//! | `--term-after-us T` | do not wait until it is ready; stop it this long after its start |
//! | `--lines` | a line of JSON in between: each line of its log (standard error) with its time |

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bench::options::Options;
use bench::{ms, now_ns, proc, sleep_us};

const READY_LIMIT_NS: u64 = 60_000_000_000;
const STOP_LIMIT_NS: u64 = 5_000_000_000;
/// A ready server is left alone this long before it is stopped, because not every server can be
/// stopped at once.
const SETTLE_US: u64 = 100_000;
/// The shortest pause between two looks into /proc.
const STEP_NS: u64 = 200_000;

fn main() {
    let options = Options::read(&["hold", "lines"]);
    // Processes that the server leaves become children of this one, which then sees them.
    // SAFETY: a plain system call.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
    let (program, arguments) = options.command.split_first().expect("a command after --");
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let ready = options.text("ready").unwrap_or("");
    let notified = (ready == "notify").then(Notified::new);
    if let Some(notified) = &notified {
        command.env("NOTIFY_SOCKET", &notified.path);
    }
    if ready == "byte" {
        command.stdout(Stdio::piped());
    }
    if options.has("lines") {
        command.stderr(Stdio::piped());
    }

    let started_ns = now_ns();
    let mut server = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"));
    let pid = server.id() as i32;
    let lines = server.stderr.take().map(|log| std::thread::spawn(move || stamped_lines(log, started_ns)));
    if let Some(microseconds) = options.text("term-after-us") {
        sleep_us(microseconds.parse().expect("--term-after-us needs a number"));
    } else {
        match ready {
            "byte" => server.stdout.take().expect("a pipe").read_exact(&mut [0]).expect("the server ended"),
            "notify" => notified.expect("a socket").wait(),
            "waiting" => wait_for_workers(pid, &options, started_ns),
            _ => panic!("--ready byte, notify or waiting"),
        }
        println!("{{\"pid\": {pid}, \"ready_ms\": {:.3}}}", ms(now_ns() - started_ns));
        if options.has("hold") {
            std::io::stdout().flush().expect("somebody who reads this");
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
        } else {
            sleep_us(SETTLE_US);
        }
    }
    let stopped = stop(&mut server);
    if let Some(lines) = lines {
        println!("{{\"lines\": [{}]}}", lines.join().expect("the log's reader").join(", "));
    }
    println!("{stopped}");
}

/// The socket of the service manager.
struct Notified {
    path: String,
    socket: UnixDatagram,
}

impl Notified {
    fn new() -> Notified {
        let path = format!("{}/bench-notify-{}", std::env::temp_dir().display(), std::process::id());
        let _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).expect("a socket in the temporary folder");
        socket.set_read_timeout(Some(Duration::from_nanos(READY_LIMIT_NS))).expect("a timeout");
        Notified { path, socket }
    }

    fn wait(&self) {
        let mut message = [0; 4096];
        loop {
            let length = self.socket.recv(&mut message).expect("no READY=1 came");
            if message[..length].split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
                return;
            }
        }
    }
}

impl Drop for Notified {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Polls each worker until it was seen waiting once; idle workers continue to wait. The server
/// needs the processors too, so the polls run when a processor would be idle, which is the case at
/// the latest when all workers wait.
fn wait_for_workers(pid: i32, options: &Options, started_ns: u64) {
    // In another thread: only root could leave that scheduling policy again.
    let observe = || {
        let parameters = libc::sched_param { sched_priority: 0 };
        // SAFETY: a plain system call for this thread.
        let set = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &parameters) };
        assert_eq!(set, 0, "sched_setscheduler: {}", std::io::Error::last_os_error());
        look_for_workers(pid, options, started_ns);
    };
    std::thread::scope(|scope| scope.spawn(observe).join()).expect("what it says above");
}

fn look_for_workers(pid: i32, options: &Options, started_ns: u64) {
    let calls = proc::call_numbers(options.text("in").expect("--in"));
    let (wanted, depth) = (options.number("workers", 1_usize), options.number("depth", 0_u32));
    let mut waiting = std::collections::HashSet::new();
    while now_ns() - started_ns < READY_LIMIT_NS {
        let looked_ns = now_ns();
        // Each worker as soon as it exists: the first look at a process is slow, and 64 of them
        // would add to the measured time.
        for child in proc::master(pid, depth).and_then(proc::children).unwrap_or_default() {
            if !waiting.contains(&child) && proc::waits_in(child, &calls) {
                waiting.insert(child);
            }
        }
        if waiting.len() >= wanted {
            return;
        }
        // At most half of the time: reading /proc takes locks that a fork needs.
        sleep_us((now_ns() - looked_ns).max(STEP_NS) / 1000);
    }
    panic!("only {} of {wanted} workers became ready", waiting.len());
}

/// Asks the server to stop and waits until it and its processes are gone. Kills the rest after the
/// limit.
fn stop(server: &mut Child) -> String {
    let pid = server.id() as i32;
    // SAFETY: a plain system call; the process is our child and not yet reaped.
    let exit_event = unsafe { OwnedFd::from_raw_fd(libc::syscall(libc::SYS_pidfd_open, pid, 0) as i32) };
    let asked_ns = now_ns();
    // SAFETY: as above.
    unsafe { libc::kill(pid, libc::SIGTERM) };
    let mut watched = libc::pollfd { fd: exit_event.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one descriptor, as the count says.
    let ended = unsafe { libc::poll(&mut watched, 1, (STOP_LIMIT_NS / 1_000_000) as i32) } == 1;
    let stop_ns = now_ns() - asked_ns;
    let left_at_exit = proc::tree(std::process::id() as i32).len() - 1 - usize::from(proc_exists(pid));
    let mut gone_ns = stop_ns;
    let mut left = left_at_exit;
    let exit = ended.then(|| server.wait().expect("the server's status"));
    while left > 0 && now_ns() - asked_ns < STOP_LIMIT_NS {
        reap();
        left = proc::tree(std::process::id() as i32).len() - 1;
        gone_ns = now_ns() - asked_ns;
        sleep_us(200);
    }
    for pid in proc::tree(std::process::id() as i32).into_iter().skip(1) {
        // SAFETY: a plain system call; all of these were started by the server.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
    use std::os::unix::process::ExitStatusExt;
    let exit = exit.map_or("null".into(), |exit| exit.code().or(exit.signal().map(|signal| 128 + signal)).unwrap_or(-1).to_string());
    format!(
        "{{\"ended\": {ended}, \"exit\": {exit}, \"stop_ms\": {:.3}, \"left_at_exit\": {left_at_exit}, \"gone_ms\": {:.3}, \"left\": {left}}}",
        ms(stop_ns),
        ms(gone_ns)
    )
}

/// Whether the process exists, even as a zombie.
fn proc_exists(pid: i32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

/// Reaps every child that has ended.
fn reap() {
    // SAFETY: a plain system call.
    while unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } > 0 {}
}

/// Each line with the time at which it arrived.
fn stamped_lines(log: impl Read, started_ns: u64) -> Vec<String> {
    BufReader::new(log)
        .lines()
        .map_while(Result::ok)
        .map(|line| {
            let text = line.replace('\\', "\\\\").replace('"', "\\\"").replace(|c: char| c.is_control(), " ");
            format!("[{:.3}, \"{text}\"]", ms(now_ns() - started_ns))
        })
        .collect()
}
