//! The actions of scripts. They call the host without the SDK's types, so that they can be called
//! in any phase.

use std::ffi::{CString, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicI64, AtomicPtr, AtomicU64};
use std::time::Duration;

use module_api::abi::{self, HostApi};
use module_api::{Address, Error, Result};

use crate::{world, write};

/// An ordinary variable of the module.
static VARIABLE: AtomicI64 = AtomicI64::new(0);
/// The counter in shared memory, once allocated.
static SHARED: AtomicPtr<AtomicU64> = AtomicPtr::new(ptr::null_mut());
/// The lock in shared memory, once created.
static LOCK: AtomicPtr<abi::Mutex> = AtomicPtr::new(ptr::null_mut());

/// The longest that a process waits for the others.
const AWAIT_MAX: Duration = Duration::from_secs(15);

/// The host's functions.
pub fn api() -> &'static HostApi {
    // SAFETY: the loader filled the slot before it called any function of the module, and the table
    // lives as long as the process.
    unsafe { &*(*module_api::export::SLOT.as_ptr()).api }
}

/// The handle by which the host knows this module.
pub fn handle() -> *mut c_void {
    // SAFETY: as above.
    unsafe { (*module_api::export::SLOT.as_ptr()).module }
}

pub fn process_info() -> abi::ProcessInfo {
    let mut info = abi::ProcessInfo { size: size_of::<abi::ProcessInfo>() as u32, process_no: -2, ..abi::ProcessInfo::default() };
    (api().process_info)(handle(), &mut info);
    info
}

pub fn variable() -> i64 {
    VARIABLE.load(SeqCst)
}

pub fn shared() -> Option<&'static AtomicU64> {
    // SAFETY: null, or a block that the host allocated for good.
    unsafe { SHARED.load(SeqCst).as_ref() }
}

/// How a script continues.
enum Flow {
    Next,
    /// The calling function returns to the host at once, with success.
    Leave,
}

/// Runs the actions for this phase and process.
pub fn run(phase: &str) -> Result<()> {
    let info = process_info();
    for action in world().script.actions(phase, info.rank, info.process_no, info.restarts) {
        match act(action)?.0 {
            Flow::Next => {}
            Flow::Leave => return Ok(()),
        }
    }
    Ok(())
}

/// Runs one action for a client. The result is the answer.
pub fn order(action: &str) -> Result<String> {
    Ok(act(action)?.1)
}

fn act(action: &str) -> Result<(Flow, String)> {
    let words: Vec<&str> = action.split_whitespace().collect();
    let word = words.first().copied().unwrap_or("");
    let rest = action.split_once(' ').map_or("", |(_, rest)| rest);
    let text = |index: usize| words.get(index).copied().unwrap_or("");
    let number = |index: usize| -> Result<i64> { Ok(text(index).parse()?) };
    let result: i64 = match word {
        // Ends of a call.
        "fail" => return Err(Error::new(if rest.is_empty() { "as the script says" } else { rest })),
        "panic" => panic!("{}", if rest.is_empty() { "as the script says" } else { rest }),
        "abort" => std::process::abort(),
        "segv" => segv(),
        "overflow" => i64::from(overflow(1)),
        "kill" => signal_self(libc::SIGKILL),
        // SAFETY: ends the process.
        "exit" => unsafe { libc::_exit(number(1)? as i32) },
        "hang" => pause_for_ever(),
        "hang_hard" => {
            ignore(libc::SIGTERM);
            pause_for_ever()
        }
        "leave" => return Ok((Flow::Leave, String::new())),
        "ignore_term" => ignore(libc::SIGTERM),
        "thread" => {
            let (started, wait) = std::sync::mpsc::channel();
            std::thread::spawn(move || {
                let _ = started.send(());
                pause_for_ever()
            });
            wait.recv()?;
            0
        }
        // Processes.
        "register" => (api().register_procs)(handle(), number(1)? as i32).into(),
        "max_procs" => (api().max_procs)(handle()).into(),
        "fork" => fork_with_entry(number(1)? as i32, text(2), number(3).unwrap_or(0) as u32).into(),
        "fork_return" => match fork_returning(number(1)? as i32, text(2)) {
            0 => {
                write::call("returned", None);
                run("returned")?;
                return Ok((Flow::Leave, String::new()));
            }
            pid => pid.into(),
        },
        "fork_raw" => match fork_raw() {
            None => {
                write::call("raw", None);
                run("raw")?;
                return Ok((Flow::Leave, String::new()));
            }
            Some(status) => status,
        },
        "fork_raw_stubborn" => fork_stubborn().into(),
        "children" => children(),
        // Values.
        "set" => {
            VARIABLE.store(number(1)?, SeqCst);
            0
        }
        "shm" => allocate(number(1).unwrap_or(8) as usize),
        "shm_only" => i64::from(!(api().shm_alloc)(handle(), number(1)? as usize, number(2).unwrap_or(8) as usize).is_null()),
        "add" => shared().ok_or("no shared memory")?.fetch_add(1, SeqCst) as i64 + 1,
        "value" => shared().ok_or("no shared memory")?.load(SeqCst) as i64,
        "await" => await_shared(number(1)? as u64)?,
        "await_file" => await_file(text(1))?,
        "await_time" => {
            std::thread::park_timeout(Duration::from_millis(number(1)? as u64));
            0
        }
        // Locks.
        "mutex" => make_lock(),
        "lock" => lock()?,
        "try_lock" => (api().mutex_trylock)(handle(), LOCK.load(SeqCst), ptr::null_mut()).into(),
        "repaired" => (api().mutex_repaired)(handle(), LOCK.load(SeqCst)).into(),
        "unlock" => (api().mutex_unlock)(handle(), LOCK.load(SeqCst)).into(),
        // Timers and listeners.
        "timer" => add_timer(text(1), text(2), number(3)? as u64, number(4)? as u64).into(),
        "listen" => listen(text(1), number(2).unwrap_or(0) as u32).into(),
        "find" => (api().listener_find)(handle(), number(1)? as u32).into(),
        "send" => send(number(1)? as u32, text(2), text(3))?.into(),
        // Privileges, descriptors, random numbers.
        "bad_lock" => {
            let mut outside = abi::Mutex { opaque: [0; 8] };
            i64::from((api().mutex_init)(handle(), &mut outside)) * 100
                + i64::from((api().mutex_lock)(handle(), &mut outside, ptr::null_mut()))
        }
        "fail_if_file" => {
            if std::path::Path::new(text(1)).exists() {
                return Err(Error::new("the file is there"));
            }
            0
        }
        "send_bytes" => send(number(1)? as u32, text(2), &"x".repeat(number(3)? as usize))?.into(),
        "bind" => bind(text(1)),
        "read" => i64::from(std::fs::read(text(1)).is_ok()),
        // SAFETY: changes the identity of this process, or fails.
        "become_root" => unsafe { libc::setresuid(0, 0, 0) }.into(),
        "open" => open_socket()?,
        "random" => return random().map(|random| (Flow::Next, random)),
        "log" => {
            let level = number(1)? as u32;
            let rest = rest.split_once(' ').map_or("", |(_, rest)| rest);
            (api().log)(handle(), level, ptr::null(), 0, rest.as_ptr(), rest.len());
            0
        }
        "chatter" => {
            for line in 0..number(1)? {
                let text = format!("line {line} {}", "x".repeat(number(2).unwrap_or(10) as usize));
                (api().log)(handle(), abi::LEVEL_INFO, ptr::null(), 0, text.as_ptr(), text.len());
            }
            0
        }
        _ => return Err(Error::new(format_args!("the script asks for something unknown: {action:?}"))),
    };
    write::outcome(action, result);
    Ok((Flow::Next, result.to_string()))
}

fn segv() -> ! {
    // SAFETY: deliberately none: the write must crash. Volatile, so that it is not optimised away.
    unsafe { ptr::null_mut::<u8>().wrapping_add(8).write_volatile(1) };
    pause_for_ever()
}

/// Overflows the stack.
#[expect(unconditional_recursion, reason = "the end of the stack is the point")]
fn overflow(depth: u8) -> u8 {
    let page = std::hint::black_box([depth; 4096]);
    overflow(page[1]) ^ page[2]
}

fn signal_self(signal: i32) -> ! {
    // SAFETY: ends this process.
    unsafe { libc::kill(libc::getpid(), signal) };
    pause_for_ever()
}

fn ignore(signal: i32) -> i64 {
    // SAFETY: no handler is involved.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
    0
}

fn pause_for_ever() -> ! {
    loop {
        // SAFETY: no arguments.
        unsafe { libc::pause() };
    }
}

/// The entry function of a process: its script, then a wait until it is stopped.
extern "C" fn entry(_: *mut c_void) -> i32 {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        write::call("process", None);
        let info = process_info();
        for action in world().script.actions("process", info.rank, info.process_no, info.restarts) {
            match act(action) {
                Ok((Flow::Next, _)) => {}
                Ok((Flow::Leave, _)) => return abi::OK,
                Err(error) => {
                    (api().set_error)(handle(), error.text().as_ptr(), error.text().len());
                    return abi::E_FAILED;
                }
            }
        }
        pause_for_ever()
    }));
    outcome.unwrap_or(abi::E_PANIC)
}

fn fork_with_entry(rank: i32, name: &str, flags: u32) -> i32 {
    let name = CString::new(name).expect("a name");
    let spec = abi::ForkSpec {
        size: size_of::<abi::ForkSpec>() as u32,
        flags,
        rank,
        name: name.as_ptr(),
        entry: Some(entry),
        ..abi::ForkSpec::EMPTY
    };
    (api().fork_process_entry)(handle(), &spec)
}

fn fork_returning(rank: i32, name: &str) -> i32 {
    let name = CString::new(name).expect("a name");
    (api().fork_process)(handle(), rank, name.as_ptr(), 0)
}

/// Forks without the host. In the parent: the child's exit code, or 128 plus its signal.
fn fork_raw() -> Option<i64> {
    // SAFETY: wrong in a module, and deliberate; this process has one thread.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        return None;
    }
    let mut status = 0;
    // SAFETY: the status is writable.
    if pid < 0 || unsafe { libc::waitpid(pid, &mut status, 0) } != pid {
        return Some(-1);
    }
    Some(if libc::WIFEXITED(status) { libc::WEXITSTATUS(status).into() } else { i64::from(128 + libc::WTERMSIG(status)) })
}

/// Forks without the host a process that ignores SIGTERM, and does not wait for it. Its pid.
fn fork_stubborn() -> i32 {
    // SAFETY: as above.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        ignore(libc::SIGTERM);
        pause_for_ever();
    }
    pid
}

fn allocate(bytes: usize) -> i64 {
    let memory = (api().shm_alloc)(handle(), bytes.max(8), 64);
    if !memory.is_null() {
        SHARED.store(memory.cast(), SeqCst);
    }
    i64::from(!memory.is_null())
}

/// Waits until the shared counter has reached a value. There is no event for that, so it polls.
fn await_shared(value: u64) -> Result<i64> {
    let started = std::time::Instant::now();
    while shared().ok_or("no shared memory")?.load(SeqCst) < value {
        if started.elapsed() > AWAIT_MAX {
            return Err("the others did not come".into());
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
    Ok(0)
}

/// Waits until a file exists, also by polling.
fn await_file(path: &str) -> Result<i64> {
    let started = std::time::Instant::now();
    while !std::path::Path::new(path).exists() {
        if started.elapsed() > AWAIT_MAX {
            return Err("the file was not made".into());
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
    Ok(0)
}

/// Number of this process's children.
fn children() -> i64 {
    let parent = format!("PPid:\t{}\n", std::process::id());
    let folders = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    folders.filter(|entry| std::fs::read_to_string(entry.path().join("status")).is_ok_and(|status| status.contains(&parent))).count() as i64
}

fn make_lock() -> i64 {
    let lock: *mut abi::Mutex = (api().shm_alloc)(handle(), size_of::<abi::Mutex>(), 64).cast();
    LOCK.store(lock, SeqCst);
    (api().mutex_init)(handle(), lock).into()
}

fn lock() -> Result<i64> {
    let mut dead = abi::DeadOwner::default();
    let code = (api().mutex_lock)(handle(), LOCK.load(SeqCst), &mut dead);
    if code == abi::OWNER_DIED {
        write::event("owner_died", &format!("dead_pid={} dead_process_no={}", dead.pid, dead.process_no));
    }
    Ok(code.into())
}

/// A timer function: records the call and runs its script.
extern "C" fn on_timer(data: *mut c_void, expirations: u64) -> i32 {
    // SAFETY: `add_timer` passed a leaked string.
    let name: &'static String = unsafe { &*data.cast::<String>() };
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        write::event("timer", &format!("name={name} expirations={expirations}"));
        run(&format!("timer_{name}"))
    }));
    match outcome {
        Ok(Ok(())) => abi::OK,
        Ok(Err(error)) => {
            (api().set_error)(handle(), error.text().as_ptr(), error.text().len());
            abi::E_FAILED
        }
        Err(_) => abi::E_PANIC,
    }
}

fn add_timer(process: &str, name: &str, first_ms: u64, period_ms: u64) -> i32 {
    let label = CString::new(name).expect("a name");
    let spec = abi::TimerSpec {
        size: size_of::<abi::TimerSpec>() as u32,
        process: if process == "slow" { abi::TIMER_SLOW } else { abi::TIMER_FAST },
        name: label.as_ptr(),
        first_ns: first_ms * 1_000_000,
        period_ns: period_ms * 1_000_000,
        function: Some(on_timer),
        data: ptr::from_mut(Box::leak(Box::new(name.to_owned()))).cast(),
    };
    (api().timer_add)(handle(), &spec)
}

fn listen(address: &str, workers: u32) -> i32 {
    let address = CString::new(address).expect("an address");
    let spec = abi::ListenSpec {
        size: size_of::<abi::ListenSpec>() as u32,
        kind: abi::HANDLER_UDP,
        address: address.as_ptr(),
        workers,
        ..abi::ListenSpec::EMPTY
    };
    (api().listen)(handle(), &spec)
}

/// Parses an address as configuration and log write it.
pub fn local(text: &str) -> Result<Address<'static>> {
    Ok(match (text.strip_prefix('@'), text.starts_with('/')) {
        (Some(name), _) => Address::Abstract(name.as_bytes().to_vec().into()),
        (None, true) => std::path::PathBuf::from(text).into(),
        (None, false) => text.parse::<std::net::SocketAddr>()?.into(),
    })
}

/// Sends a text from a listener to an IPv4 address.
fn send(listener: u32, peer: &str, text: &str) -> Result<i32> {
    let peer: std::net::SocketAddrV4 = peer.parse()?;
    // SAFETY: all zeros is a valid address.
    let mut address: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    address.sin_family = libc::AF_INET as u16;
    address.sin_port = peer.port().to_be();
    address.sin_addr.s_addr = u32::from_ne_bytes(peer.ip().octets());
    let length = size_of_val(&address) as u32;
    Ok((api().udp_send)(handle(), listener, ptr::from_ref(&address).cast(), length, text.as_ptr(), text.len()))
}

/// Binds a TCP port and closes it again. Returns 0 or the errno.
fn bind(address: &str) -> i64 {
    match std::net::TcpListener::bind(address) {
        Ok(_) => 0,
        Err(error) => error.raw_os_error().unwrap_or(-1).into(),
    }
}

/// Opens a socket and keeps it. Returns its inode, which no other socket has.
fn open_socket() -> Result<i64> {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
    let link = std::fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&socket)))?;
    std::mem::forget(socket);
    let digits: String = link.to_string_lossy().chars().filter(char::is_ascii_digit).collect();
    Ok(digits.parse()?)
}

/// Random bytes from the host, and a number from the SDK's generator.
fn random() -> Result<String> {
    let mut bytes = [0_u8; 16];
    let code = (api().random)(handle(), bytes.as_mut_ptr(), bytes.len());
    if code != abi::OK {
        return Err(Error::new(format_args!("random: {code}")));
    }
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    write::event("random", &format!("host={hex}"));
    Ok(hex)
}
