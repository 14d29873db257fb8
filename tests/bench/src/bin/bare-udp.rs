//! The lower limit of serving datagrams: N forked workers that echo from one socket.
//!
//! `bare-udp rf PORT N` makes one receive and one send call per datagram. `bare-udp mm PORT N`
//! handles up to 64 per call. `bare-udp sip PORT N` is like `rf` and sends the least that a SIP
//! client accepts as an answer.

use bench::options::Options;

const BATCH: usize = 64;
const BYTES: usize = 4096;

fn main() {
    let options = Options::read(&[]);
    let (port, workers): (u16, u32) = (options.positional_number(1), options.positional_number(2));
    let work: fn(libc::c_int) -> ! = match options.positional[0].as_str() {
        "rf" => bench::echo_one_by_one,
        "mm" => echo_in_batches,
        "sip" => answer_sip,
        mode => panic!("{mode}: rf, mm or sip"),
    };
    let socket = bench::udp_socket(port);
    for _ in 0..workers {
        bench::fork(|| {
            // SAFETY: a plain system call.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            work(socket)
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
        // SAFETY: the headers point to buffers of the stated lengths. All live until this function
        // returns, which it never does.
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

/// Receives, makes the answer with `sip_answer` and sends, one call per datagram.
fn answer_sip(socket: libc::c_int) -> ! {
    let mut request = [0_u8; BYTES];
    let mut answer = [0_u8; 2 * BYTES];
    loop {
        let mut peer = [0_u8; 32];
        let mut peer_len = peer.len() as libc::socklen_t;
        // SAFETY: both buffers are valid for the given lengths, and the kernel writes no more.
        let received = unsafe { libc::recvfrom(socket, request.as_mut_ptr().cast(), BYTES, 0, peer.as_mut_ptr().cast(), &mut peer_len) };
        let Ok(received) = usize::try_from(received) else { continue };
        let length = sip_answer(&request[..received], &mut answer);
        // SAFETY: the answer has `length` bytes, and the kernel wrote the address.
        unsafe { libc::sendto(socket, answer.as_ptr().cast(), length, 0, peer.as_ptr().cast(), peer_len) };
    }
}

/// Copies the lines that an answer repeats, without parsing them. Adds a tag to each To.
fn sip_answer(request: &[u8], answer: &mut [u8]) -> usize {
    let mut used = 0;
    let mut put = |bytes: &[u8]| {
        answer[used..used + bytes.len()].copy_from_slice(bytes);
        used += bytes.len();
    };
    put(b"SIP/2.0 200 OK\r\n");
    for line in request.split_inclusive(|byte| *byte == b'\n').skip(1) {
        let starts_with = |name: &[u8]| line.len() > name.len() && line[..name.len()].eq_ignore_ascii_case(name);
        if line.len() <= 2 {
            break;
        } else if starts_with(b"To:") {
            put(&line[..line.len() - 2]);
            put(b";tag=0123abcd\r\n");
        } else if starts_with(b"Via:") || starts_with(b"From:") || starts_with(b"Call-ID:") || starts_with(b"CSeq:") {
            put(line);
        }
    }
    put(b"Content-Length: 0\r\n\r\n");
    used
}
