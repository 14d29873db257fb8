//! The lower limit of serving HTTP: N forked workers wait with epoll and answer every read with the
//! same bytes.
//!
//! `bare-http keep PORT N` keeps connections open. `bare-http close PORT N` closes each after its
//! answer.

use std::net::TcpListener;
use std::os::fd::IntoRawFd;

use bench::options::Options;

const EVENTS: usize = 256;
const BYTES: usize = 64 << 10;
const KEEP: &[u8] = b"HTTP/1.1 200 OK\r\nDate: Sun, 22 Nov 2026 12:00:00 GMT\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok";
const CLOSE: &[u8] =
    b"HTTP/1.1 200 OK\r\nDate: Sun, 22 Nov 2026 12:00:00 GMT\r\nContent-Type: text/plain\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";

fn main() {
    let options = Options::read(&[]);
    let (port, workers): (u16, u32) = (options.positional_number(1), options.positional_number(2));
    let closes = match options.positional[0].as_str() {
        "keep" => false,
        "close" => true,
        mode => panic!("{mode}: keep or close"),
    };
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("bind");
    listener.set_nonblocking(true).expect("a socket that does not wait");
    let listener = listener.into_raw_fd();
    for _ in 0..workers {
        bench::fork(|| {
            // SAFETY: a plain system call.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            serve(listener, closes)
        });
    }
    loop {
        // SAFETY: a plain system call.
        unsafe { libc::pause() };
    }
}

fn serve(listener: libc::c_int, closes: bool) -> ! {
    let answer = if closes { CLOSE } else { KEEP };
    let mut buffer = vec![0_u8; BYTES];
    // SAFETY: plain system calls; the events are valid memory of the given length.
    unsafe {
        let epoll = libc::epoll_create1(0);
        let watch = |socket: libc::c_int, flags: libc::c_int| {
            let mut event = libc::epoll_event { events: flags as u32, u64: socket as u64 };
            assert!(libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, socket, &mut event) == 0, "epoll_ctl");
        };
        watch(listener, libc::EPOLLIN | libc::EPOLLEXCLUSIVE);
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        loop {
            let count = libc::epoll_wait(epoll, events.as_mut_ptr(), EVENTS as i32, -1).max(0) as usize;
            for event in &events[..count] {
                let socket = event.u64 as libc::c_int;
                if socket == listener {
                    let socket = libc::accept4(listener, std::ptr::null_mut(), std::ptr::null_mut(), libc::SOCK_NONBLOCK);
                    if socket >= 0 {
                        let on: libc::c_int = 1;
                        libc::setsockopt(socket, libc::IPPROTO_TCP, libc::TCP_NODELAY, (&raw const on).cast(), 4);
                        watch(socket, libc::EPOLLIN | libc::EPOLLET);
                    }
                    continue;
                }
                let read = libc::read(socket, buffer.as_mut_ptr().cast(), BYTES);
                let ended = read == 0 || (read < 0 && *libc::__errno_location() != libc::EAGAIN);
                if read > 0 {
                    libc::send(socket, answer.as_ptr().cast(), answer.len(), libc::MSG_NOSIGNAL);
                }
                if ended || (read > 0 && closes) {
                    libc::close(socket);
                }
            }
        }
    }
}
