//! What the observers and load generators share: a clock, `/proc`, and the command line.

pub mod options;
pub mod proc;

/// Monotonic time in nanoseconds.
pub fn now_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes the struct it is given.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Nanoseconds as milliseconds.
pub fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

/// Sleeps that long, more or less.
pub fn sleep_us(microseconds: u64) {
    std::thread::sleep(std::time::Duration::from_micros(microseconds));
}

/// A mapping that this process shares with all it forks, zeroed.
///
/// # Panics
/// Without memory.
pub fn shared_page() -> *mut u8 {
    // SAFETY: a new anonymous mapping touches nothing that exists.
    let page = unsafe {
        libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0)
    };
    assert!(page != libc::MAP_FAILED, "mmap");
    page.cast()
}

/// A UDP socket on the loopback address, with room for a burst.
///
/// # Panics
/// If the port is taken.
pub fn udp_socket(port: u16) -> libc::c_int {
    use std::os::fd::IntoRawFd;
    let socket = std::net::UdpSocket::bind(("127.0.0.1", port)).expect("bind").into_raw_fd();
    let bytes: libc::c_int = 4 << 20;
    // SAFETY: the option's value is an int, as its size says.
    unsafe { libc::setsockopt(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, (&raw const bytes).cast(), 4) };
    socket
}

/// Answers each datagram with itself, for ever: one receiving and one sending call for each.
pub fn echo_one_by_one(socket: libc::c_int) -> ! {
    let mut buffer = [0_u8; 4096];
    loop {
        let mut peer = [0_u8; 32];
        let mut peer_len = peer.len() as libc::socklen_t;
        // SAFETY: both buffers are valid for the lengths given; the kernel writes at most that.
        unsafe {
            let received = libc::recvfrom(socket, buffer.as_mut_ptr().cast(), buffer.len(), 0, peer.as_mut_ptr().cast(), &mut peer_len);
            if received >= 0 {
                libc::sendto(socket, buffer.as_ptr().cast(), received as usize, 0, peer.as_ptr().cast(), peer_len);
            }
        }
    }
}

/// Forks. The child never returns from `work`.
///
/// # Panics
/// When the machine has no room for another process.
pub fn fork<Never>(work: impl FnOnce() -> Never) -> libc::pid_t {
    // SAFETY: these programs have one thread.
    match unsafe { libc::fork() } {
        0 => {
            work();
            unreachable!("a worker's work has no end")
        }
        pid if pid > 0 => pid,
        _ => panic!("fork"),
    }
}

/// Binds this process, and all it starts, to one processor.
///
/// # Panics
/// If there is no such processor.
pub fn pin(cpu: usize) {
    // SAFETY: the set is plain memory of the size given.
    let pinned = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &set)
    };
    assert!(pinned == 0, "there is no processor {cpu}");
}
