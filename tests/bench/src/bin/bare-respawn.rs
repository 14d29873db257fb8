//! The lower limit of crash recovery: a parent that only waits for deaths and forks again at once.
//!
//! `bare-respawn N PORT`: the N workers echo datagrams from one socket.

use bench::options::Options;

fn main() {
    let options = Options::read(&[]);
    let (workers, port): (u32, u16) = (options.positional_number(0), options.positional_number(1));
    let socket = bench::udp_socket(port);
    // SAFETY: plain system calls of a process with one thread; the sets are initialised before use.
    unsafe {
        let mut watched: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut watched);
        libc::sigaddset(&mut watched, libc::SIGCHLD);
        libc::sigaddset(&mut watched, libc::SIGTERM);
        libc::sigprocmask(libc::SIG_BLOCK, &watched, std::ptr::null_mut());
        let start = || {
            bench::fork(|| {
                libc::sigprocmask(libc::SIG_UNBLOCK, &watched, std::ptr::null_mut());
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                bench::echo_one_by_one(socket)
            })
        };
        for _ in 0..workers {
            start();
        }
        while libc::sigwaitinfo(&watched, std::ptr::null_mut()) != libc::SIGTERM {
            while libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) > 0 {
                start();
            }
        }
    }
}
