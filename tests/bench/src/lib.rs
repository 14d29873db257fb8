//! Shared by observers and load generators: a clock, `/proc`, and the command line.

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

/// Sleeps for about this long.
pub fn sleep_us(microseconds: u64) {
    std::thread::sleep(std::time::Duration::from_micros(microseconds));
}

/// Prints the result of a load generator as a line of JSON. `server_ns` is the processor time of
/// the server, if it was measured.
pub fn report<Ns: Copy + Ord + Into<u64>>(answered: u64, lost: u64, wall_ns: u64, latencies_ns: &mut [Ns], server_ns: Option<u64>) {
    latencies_ns.sort_unstable();
    let percentile = |share: f64| -> f64 {
        let last = latencies_ns.len().saturating_sub(1);
        latencies_ns.get((last as f64 * share) as usize).map_or(0.0, |ns| (*ns).into() as f64 / 1e3)
    };
    let per_request = server_ns.map_or("null".into(), |ns| format!("{:.4}", ns as f64 / 1e3 / answered.max(1) as f64));
    println!(
        "{{\"answered\": {answered}, \"lost\": {lost}, \"per_second\": {:.0}, \"p50_us\": {:.2}, \"p99_us\": {:.2}, \"server_us_per_request\": {per_request}}}",
        answered as f64 / (wall_ns as f64 / 1e9),
        percentile(0.5),
        percentile(0.99),
    );
}

/// A zeroed page that this process shares with its children.
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

/// A UDP socket on the loopback address with a large receive buffer.
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

/// Echoes datagrams for ever, with one receive and one send call for each.
pub fn echo_one_by_one(socket: libc::c_int) -> ! {
    let mut buffer = [0_u8; 4096];
    loop {
        let mut peer = [0_u8; 32];
        let mut peer_len = peer.len() as libc::socklen_t;
        // SAFETY: both buffers are valid for the given lengths, and the kernel writes no more.
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
/// If the process cannot be forked.
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

/// Binds this process and its later children to one processor.
///
/// # Panics
/// If there is no such processor.
pub fn pin(cpu: usize) {
    // SAFETY: the set is plain memory of the given size.
    let pinned = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &set)
    };
    assert!(pinned == 0, "there is no processor {cpu}");
}
