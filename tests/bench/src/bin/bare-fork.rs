//! The lower limit of a start: map a shared page and fork N children that each report. No modules,
//! no sockets, no restarts.
//!
//! `bare-fork N` writes one byte to its output when all N have reported, and ends them on SIGTERM.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use bench::options::Options;

static STOP: AtomicU32 = AtomicU32::new(0);

extern "C" fn on_stop(_signal: libc::c_int) {
    STOP.store(1, SeqCst);
}

fn main() {
    let wanted: u32 = Options::read(&[]).positional_number(0);
    // SAFETY: zeroed shared memory, large enough, valid for the life of the process.
    let reported = unsafe { &*bench::shared_page().cast::<AtomicU32>() };
    // SAFETY: the handler stores to an atomic. The signal is blocked outside sigsuspend, so that
    // none is missed.
    let unblocked = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_stop as *const () as usize;
        libc::sigaction(libc::SIGTERM, &action, std::ptr::null_mut());
        let (mut stop, mut before) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigemptyset(&mut stop);
        libc::sigaddset(&mut stop, libc::SIGTERM);
        libc::sigprocmask(libc::SIG_BLOCK, &stop, &mut before);
        before
    };
    let children: Vec<_> = (0..wanted)
        .map(|_| {
            bench::fork(|| {
                // SAFETY: plain system calls of a process with one thread.
                unsafe {
                    libc::signal(libc::SIGTERM, libc::SIG_DFL);
                    libc::sigprocmask(libc::SIG_SETMASK, &unblocked, std::ptr::null_mut());
                    if reported.fetch_add(1, SeqCst) + 1 == wanted {
                        libc::syscall(libc::SYS_futex, reported, libc::FUTEX_WAKE, 1, 0, 0, 0);
                    }
                    loop {
                        libc::pause();
                    }
                }
            })
        })
        .collect();
    // SAFETY: plain system calls; the futex word is an aligned word of shared memory.
    unsafe {
        loop {
            let now = reported.load(SeqCst);
            if now == wanted {
                break;
            }
            libc::syscall(libc::SYS_futex, reported, libc::FUTEX_WAIT, now, 0, 0, 0);
        }
        libc::write(1, b"R".as_ptr().cast(), 1);
        while STOP.load(SeqCst) == 0 {
            libc::sigsuspend(&unblocked);
        }
        for child in &children {
            libc::kill(*child, libc::SIGTERM);
        }
        for child in &children {
            libc::waitpid(*child, std::ptr::null_mut(), 0);
        }
    }
}
