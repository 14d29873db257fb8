//! Datagrams in batches: receive many with one call, answer many with one call, allocate nothing.
//!
//! *Runs in:* every process that serves datagrams. *Never:* trusts a length it did not set itself.
//!
//! All buffers are one private mapping of this process. A page of it costs memory only once it is touched, so the layout puts what
//! every datagram needs close together and what only large ones need far behind:
//! ```text
//! headers, addresses        one page
//! small  16 × 1536 bytes    the first bytes of each datagram; most have no more
//! large  16 × 64 KiB        the whole of a datagram that does not fit
//! out    1 MiB              answers, filled from the start for each batch
//! ```

use std::cell::Cell;
use std::mem::{MaybeUninit, size_of, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd};

use module_api::abi;
use nix::errno::Errno;

use super::mapping::{Mapping, page_bytes};
use crate::error::Result;

/// Most datagrams in one batch.
pub const BATCH: usize = 16;
/// Largest payload of a UDP datagram in bytes.
pub const MAX_DATAGRAM_BYTES: usize = 65_507;

const SMALL_BYTES: usize = 1536;
const LARGE_BYTES: usize = 65_536;
const OUT_BYTES: usize = BATCH * LARGE_BYTES;
/// Room for a `sockaddr_in6`.
const ADDRESS_BYTES: usize = 32;
/// So many batches without a large datagram, and the pages that large ones touched go back to the kernel.
const BATCHES_UNTIL_RELEASE: u32 = 4096;

/// After a batch of one, so many datagrams are received one at a time before a batch is tried again.
const RECEIVE_ALONE: u32 = 15;

/// What the kernel and the module read and write; lives at the start of the mapping.
#[repr(C)]
struct Headers {
    engine: MaybeUninit<Datagrams>,
    batch: abi::UdpBatch,
    datagrams: [abi::Datagram; BATCH],
    in_headers: [libc::mmsghdr; BATCH],
    in_parts: [[libc::iovec; 2]; BATCH],
    in_addresses: [[u64; ADDRESS_BYTES / 8]; BATCH],
    out_headers: [libc::mmsghdr; BATCH],
    out_parts: [libc::iovec; BATCH],
}

/// Whether to wait for a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Until one arrives or a signal interrupts.
    Block,
    /// Not at all.
    Poll,
}

/// The buffers of one process.
#[derive(Debug)]
pub struct Datagrams {
    headers: *mut Headers,
    small: *mut u8,
    large: *mut u8,
    out: *mut u8,
    memory: Mapping,
    large_offset_bytes: usize,
    /// Number of datagrams in the batch being handled.
    received: Cell<usize>,
    queued: Cell<usize>,
    out_used_bytes: Cell<usize>,
    /// Bytes handed out by `buffer` and not yet committed.
    reserved_bytes: Cell<usize>,
    descriptor: Cell<i32>,
    batches_since_large: Cell<u32>,
    large_touched: Cell<bool>,
    /// Answers that the kernel refused.
    refused: Cell<u64>,
    /// Answers that it took.
    sent: Cell<u64>,
    /// So many times more one datagram is received at a time.
    alone: Cell<u32>,
}

impl Datagrams {
    /// Maps the buffers, itself among them; touches one page. They live as long as the process.
    pub fn new() -> Result<&'static Self> {
        let page = page_bytes();
        let headers_bytes = size_of::<Headers>().next_multiple_of(page);
        let large_offset_bytes = (headers_bytes + BATCH * SMALL_BYTES).next_multiple_of(page);
        let out_offset_bytes = large_offset_bytes + BATCH * LARGE_BYTES;
        let memory = Mapping::private(out_offset_bytes + OUT_BYTES)?;
        let start = memory.start().as_ptr();
        // SAFETY: the offsets lie inside the mapping made with their sum; its start is page-aligned, zeroed memory, and all zeros is a
        // valid `Headers` (integers, null pointers). The kernel and the module get only pointers into this mapping.
        let engine = unsafe {
            let headers = start.cast::<Headers>();
            let small = start.add(headers_bytes);
            let large = start.add(large_offset_bytes);
            for index in 0..BATCH {
                (*headers).in_parts[index] = [
                    libc::iovec { iov_base: small.add(index * SMALL_BYTES).cast(), iov_len: SMALL_BYTES },
                    libc::iovec { iov_base: large.add(index * LARGE_BYTES + SMALL_BYTES).cast(), iov_len: LARGE_BYTES - SMALL_BYTES },
                ];
                let mut header: libc::mmsghdr = zeroed();
                header.msg_hdr.msg_name = (&raw mut (*headers).in_addresses[index]).cast();
                header.msg_hdr.msg_namelen = ADDRESS_BYTES as u32;
                header.msg_hdr.msg_iov = (&raw mut (*headers).in_parts[index]).cast();
                header.msg_hdr.msg_iovlen = 2;
                (*headers).in_headers[index] = header;
                let mut answer: libc::mmsghdr = zeroed();
                answer.msg_hdr.msg_iov = &raw mut (*headers).out_parts[index];
                answer.msg_hdr.msg_iovlen = 1;
                (*headers).out_headers[index] = answer;
            }
            (*headers).batch = abi::UdpBatch {
                size: size_of::<abi::UdpBatch>() as u32,
                count: 0,
                datagrams: (&raw const (*headers).datagrams).cast(),
                stride: size_of::<abi::Datagram>() as u32,
                listener: 0,
            };
            (*headers).engine.write(Self {
                headers,
                small,
                large,
                out: start.add(out_offset_bytes),
                memory,
                large_offset_bytes,
                received: Cell::new(0),
                queued: Cell::new(0),
                out_used_bytes: Cell::new(0),
                reserved_bytes: Cell::new(0),
                descriptor: Cell::new(-1),
                batches_since_large: Cell::new(0),
                large_touched: Cell::new(false),
                refused: Cell::new(0),
                sent: Cell::new(0),
                alone: Cell::new(0),
            });
            (*headers).engine.assume_init_ref()
        };
        Ok(engine)
    }

    /// Receives up to a batch from the socket. 0: nothing there, or interrupted.
    pub fn receive(&self, socket: BorrowedFd<'_>, listener: u32, wait: Wait) -> Result<usize, Errno> {
        self.descriptor.set(socket.as_raw_fd());
        let alone = self.alone.get();
        let count = if wait == Wait::Block && alone > 0 {
            // The last ones came alone: the look for a second one, which finds nothing, is saved. Now and then it is worth it.
            self.alone.set(alone - 1);
            self.receive_one(socket)
        } else {
            let flags = if wait == Wait::Block { libc::MSG_WAITFORONE } else { libc::MSG_DONTWAIT };
            // SAFETY: the headers point to buffers of the stated lengths inside the mapping.
            let count = unsafe {
                libc::recvmmsg(socket.as_raw_fd(), (&raw mut (*self.headers).in_headers).cast(), BATCH as u32, flags, std::ptr::null_mut())
            };
            if count == 1 {
                self.alone.set(RECEIVE_ALONE);
            }
            count
        };
        if count < 0 {
            return match Errno::last() {
                Errno::EINTR | Errno::EAGAIN => Ok(0),
                errno => Err(errno),
            };
        }
        let count = (count as usize).min(BATCH);
        self.received.set(count);
        self.queued.set(0);
        self.out_used_bytes.set(0);
        let mut largest = 0;
        for index in 0..count {
            // SAFETY: index < BATCH; nobody else reads or writes the headers while this runs.
            unsafe {
                let header = &mut (*self.headers).in_headers[index];
                let length = (header.msg_len as usize).min(LARGE_BYTES);
                let data = if length > SMALL_BYTES {
                    // The tail lies where it belongs in the large buffer; put the beginning in front of it.
                    let large = self.large.add(index * LARGE_BYTES);
                    std::ptr::copy_nonoverlapping(self.small.add(index * SMALL_BYTES), large, SMALL_BYTES);
                    large
                } else {
                    self.small.add(index * SMALL_BYTES)
                };
                largest = largest.max(length);
                (*self.headers).datagrams[index] = abi::Datagram {
                    data,
                    len: length as u32,
                    peer_len: header.msg_hdr.msg_namelen.min(ADDRESS_BYTES as u32),
                    peer: (&raw const (*self.headers).in_addresses[index]).cast(),
                };
                header.msg_hdr.msg_namelen = ADDRESS_BYTES as u32;
            }
        }
        // SAFETY: as above.
        unsafe {
            (*self.headers).batch.count = count as u32;
            (*self.headers).batch.listener = listener;
        }
        self.note_size(largest);
        Ok(count)
    }

    /// Waits for one datagram. 1, or -1 with `errno` set, as `recvmmsg` has it.
    fn receive_one(&self, socket: BorrowedFd<'_>) -> i32 {
        // SAFETY: the header points to buffers of the stated lengths inside the mapping.
        unsafe {
            let header = &mut (*self.headers).in_headers[0];
            let length = libc::recvmsg(socket.as_raw_fd(), &raw mut header.msg_hdr, 0);
            if length < 0 {
                return -1;
            }
            header.msg_len = length as u32;
            1
        }
    }

    /// One burst of large datagrams must not make this process large for ever.
    fn note_size(&self, largest_bytes: usize) {
        if largest_bytes > SMALL_BYTES {
            self.large_touched.set(true);
            self.batches_since_large.set(0);
        } else if self.large_touched.get() {
            let batches = self.batches_since_large.get() + 1;
            self.batches_since_large.set(batches);
            if batches >= BATCHES_UNTIL_RELEASE {
                self.memory.release_from(self.large_offset_bytes);
                self.large_touched.set(false);
            }
        }
    }

    /// What the handler gets.
    pub fn batch(&self) -> *mut abi::UdpBatch {
        // SAFETY: takes the address of a field inside the mapping.
        unsafe { &raw mut (*self.headers).batch }
    }

    /// Queues an answer to the `index`-th datagram, read from `data` when the batch is sent. False: no such datagram, or too long.
    pub fn queue(&self, index: usize, data: *const u8, length_bytes: usize) -> Result<(), Errno> {
        if index >= self.received.get() || length_bytes > MAX_DATAGRAM_BYTES || (data.is_null() && length_bytes > 0) {
            return Err(Errno::EINVAL);
        }
        if self.queued.get() == BATCH {
            self.send_queued();
        }
        let slot = self.queued.get();
        // SAFETY: slot < BATCH, index < received <= BATCH; nobody else reads or writes the headers while this runs.
        unsafe {
            (*self.headers).out_parts[slot] = libc::iovec { iov_base: data.cast_mut().cast(), iov_len: length_bytes };
            let header = &mut (*self.headers).out_headers[slot];
            header.msg_hdr.msg_name = (&raw mut (*self.headers).in_addresses[index]).cast();
            header.msg_hdr.msg_namelen = (*self.headers).datagrams[index].peer_len;
        }
        self.queued.set(slot + 1);
        Ok(())
    }

    /// A buffer for one answer, valid until the next `buffer` or `copy`. None: too large.
    pub fn buffer(&self, size_bytes: usize) -> Option<*mut u8> {
        if size_bytes > MAX_DATAGRAM_BYTES {
            // Nor is an earlier one what the caller means to send now.
            self.reserved_bytes.set(0);
            return None;
        }
        if self.out_used_bytes.get() + size_bytes > OUT_BYTES {
            self.send_queued();
        }
        self.reserved_bytes.set(size_bytes);
        if size_bytes > SMALL_BYTES {
            self.large_touched.set(true);
        }
        // SAFETY: used + size <= OUT_BYTES, the length of this part of the mapping.
        Some(unsafe { self.out.add(self.out_used_bytes.get()) })
    }

    /// Queues the first bytes of the last `buffer`.
    pub fn commit(&self, index: usize, length_bytes: usize) -> Result<(), Errno> {
        // Good for one attempt.
        if length_bytes > self.reserved_bytes.replace(0) {
            return Err(Errno::EINVAL);
        }
        // The buffer's place survives the sending that a full queue causes only if it is at the start: send first, then queue.
        // SAFETY: inside the mapping, as `buffer` made sure.
        let data = unsafe { self.out.add(self.out_used_bytes.get()) };
        if self.queued.get() == BATCH {
            let used = self.out_used_bytes.get();
            self.send_queued();
            self.out_used_bytes.set(used);
        }
        self.queue(index, data, length_bytes)?;
        self.out_used_bytes.set((self.out_used_bytes.get() + length_bytes).next_multiple_of(8).min(OUT_BYTES));
        Ok(())
    }

    /// Queues a copy of `data`.
    pub fn copy(&self, index: usize, data: &[u8]) -> Result<(), Errno> {
        let buffer = self.buffer(data.len()).ok_or(Errno::EMSGSIZE)?;
        // SAFETY: `buffer` has room for data.len() bytes inside the mapping. The data may lie in this very mapping (a received datagram, or
        // an answer of an earlier batch), so the ranges are not assumed to be disjoint.
        unsafe { std::ptr::copy(data.as_ptr(), buffer, data.len()) };
        self.commit(index, data.len())
    }

    /// Sends all queued answers. One that the kernel refuses is counted and skipped; the others go out.
    pub fn send_queued(&self) {
        let queued = self.queued.get();
        let mut sent = 0;
        while sent < queued {
            // SAFETY: the first `queued` headers are filled in; what they point to is valid until the handler's batch ends.
            let outcome = unsafe {
                if queued == 1 {
                    let header = &(*self.headers).out_headers[0].msg_hdr;
                    let part = &(*self.headers).out_parts[0];
                    let bytes = libc::sendto(
                        self.descriptor.get(),
                        part.iov_base,
                        part.iov_len,
                        libc::MSG_NOSIGNAL,
                        header.msg_name.cast(),
                        header.msg_namelen,
                    );
                    if bytes < 0 { -1 } else { 1 }
                } else {
                    libc::sendmmsg(
                        self.descriptor.get(),
                        (&raw mut (*self.headers).out_headers[sent]).cast(),
                        (queued - sent) as u32,
                        libc::MSG_NOSIGNAL,
                    )
                }
            };
            if outcome > 0 {
                sent += outcome as usize;
                self.sent.set(self.sent.get() + outcome as u64);
            } else if Errno::last() != Errno::EINTR {
                self.refused.set(self.refused.get() + 1);
                sent += 1;
            }
        }
        self.queued.set(0);
        self.out_used_bytes.set(0);
        self.reserved_bytes.set(0);
    }

    /// Number of answers that the kernel took, and of those that it refused, since the last call.
    pub fn take_sent(&self) -> (u64, u64) {
        (self.sent.replace(0), self.refused.replace(0))
    }
}

/// Sends one datagram at once, without waiting. `peer` is a socket address of `peer_len` bytes.
///
/// # Safety
/// `peer` points to `peer_len` readable bytes.
pub unsafe fn send_to(socket: BorrowedFd<'_>, peer: *const libc::c_void, peer_len: u32, data: &[u8]) -> Result<(), Errno> {
    loop {
        // SAFETY: the caller's contract for the peer; the slice is valid; the kernel copies both before it returns.
        let sent = unsafe {
            libc::sendto(
                socket.as_raw_fd(),
                data.as_ptr().cast(),
                data.len(),
                libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT,
                peer.cast(),
                peer_len,
            )
        };
        if sent >= 0 {
            return Ok(());
        }
        match Errno::last() {
            Errno::EINTR => {}
            errno => return Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;

    fn echo(engine: &Datagrams, socket: &UdpSocket) -> usize {
        let count = engine.receive(socket.as_fd(), 3, Wait::Block).unwrap();
        for index in 0..count {
            // SAFETY: the engine filled `count` datagrams in.
            let datagram = unsafe { &*(*engine.batch()).datagrams.add(index) };
            if index % 2 == 0 {
                engine.queue(index, datagram.data, datagram.len as usize).unwrap();
            } else {
                // SAFETY: data and len describe the received bytes.
                engine.copy(index, unsafe { std::slice::from_raw_parts(datagram.data, datagram.len as usize) }).unwrap();
            }
        }
        engine.send_queued();
        count
    }

    #[test]
    fn answers_every_size_unchanged() {
        let (server, client) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        client.connect(server.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
        let engine = Datagrams::new().unwrap();
        let mut back = vec![0; 70_000];
        for length in [0, 1, SMALL_BYTES - 1, SMALL_BYTES, SMALL_BYTES + 1, 9_000, MAX_DATAGRAM_BYTES] {
            let sent: Vec<u8> = (0..length).map(|i| (i * 7 + length) as u8).collect();
            client.send(&sent).unwrap();
            assert_eq!(echo(engine, &server), 1);
            let received = client.recv(&mut back).unwrap();
            assert!(back[..received] == sent[..], "length {length}");
        }
        for round in 0..3 * BATCH {
            client.send(&[round as u8; 100]).unwrap();
        }
        let mut answered = 0;
        while answered < 3 * BATCH {
            answered += echo(engine, &server);
        }
        for round in 0..3 * BATCH {
            let received = client.recv(&mut back).unwrap();
            assert_eq!(back[..received], [round as u8; 100]);
        }
    }

    #[test]
    fn refuses_what_is_out_of_range() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let engine = Datagrams::new().unwrap();
        assert_eq!(engine.receive(socket.as_fd(), 0, Wait::Poll), Ok(0));
        assert_eq!(engine.queue(0, b"x".as_ptr(), 1), Err(Errno::EINVAL), "nothing was received");
        assert!(engine.buffer(MAX_DATAGRAM_BYTES + 1).is_none());
        assert!(engine.buffer(10).is_some());
        assert_eq!(engine.commit(0, 11), Err(Errno::EINVAL));
    }
}
