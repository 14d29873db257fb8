//! The limit of serving datagrams: N forked workers that echo from one socket, and nothing else.
//!
//! `bare-udp rf PORT N`: one receiving and one sending call per datagram. `bare-udp mm PORT N`: up to 64 per call.

use bench::options::Options;

const BATCH: usize = 64;
const BYTES: usize = 4096;

fn main() {
    let options = Options::read(&[]);
    let (port, workers): (u16, u32) = (options.positional_number(1), options.positional_number(2));
    let batches = match options.positional[0].as_str() {
        "rf" => false,
        "mm" => true,
        mode => panic!("{mode}: rf or mm"),
    };
    let socket = bench::udp_socket(port);
    for _ in 0..workers {
        bench::fork(|| {
            // SAFETY: a plain system call.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            if batches { echo_in_batches(socket) } else { bench::echo_one_by_one(socket) }
        });
    }
    loop {
        // SAFETY: a plain system call.
        unsafe { libc::pause() };
    }
}

fn echo_in_batches(socket: libc::c_int) -> ! {
    let mut buffers = vec![[0_u8; BYTES]; BATCH];
    let mut peers = [[0_u8; 32]; BATCH];
    // SAFETY: all zeros is a valid value of these C structs.
    let (mut parts, mut headers): ([libc::iovec; BATCH], [libc::mmsghdr; BATCH]) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    for index in 0..BATCH {
        parts[index].iov_base = buffers[index].as_mut_ptr().cast();
        headers[index].msg_hdr.msg_iov = &raw mut parts[index];
        headers[index].msg_hdr.msg_iovlen = 1;
        headers[index].msg_hdr.msg_name = peers[index].as_mut_ptr().cast();
    }
    loop {
        for index in 0..BATCH {
            parts[index].iov_len = BYTES;
            headers[index].msg_hdr.msg_namelen = 32;
        }
        // SAFETY: the headers point to buffers of the lengths they state, all alive until this function returns, which it does not.
        let received = unsafe { libc::recvmmsg(socket, headers.as_mut_ptr(), BATCH as u32, libc::MSG_WAITFORONE, std::ptr::null_mut()) };
        let received = received.max(0) as usize;
        for index in 0..received {
            parts[index].iov_len = headers[index].msg_len as usize;
        }
        let mut sent = 0;
        while sent < received {
            // SAFETY: as above; `sent` is below `received`, which is at most BATCH.
            match unsafe { libc::sendmmsg(socket, headers.as_mut_ptr().add(sent), (received - sent) as u32, 0) } {
                count if count > 0 => sent += count as usize,
                _ => break,
            }
        }
    }
}
