//! Datagrams in batches: receive many with one system call, answer many with one, allocate nothing.
//!
//! *Runs in:* every process that serves datagrams. *Never:* trusts a length it did not set itself.
//!
//! A worker calls [`Datagrams::receive`], passes [`Datagrams::batch`] to the handler, and then
//! calls [`Datagrams::send_queued`]. Meanwhile the handler queues its answers: from its own memory
//! (`queue`), as a copy (`copy`), or written into a buffer of the host (`buffer`, `commit`).

use std::cell::Cell;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

use module_api::abi;
use nix::errno::Errno;

use super::buffers::{ADDRESS_BYTES, ALL_LARGE_BYTES, BATCH, Buffers, LARGE_BYTES, MAX_DATAGRAM_BYTES, OUT_BYTES, SMALL_BYTES};
use super::packet_info::PacketInfo;
use super::socket::{BoundTo, Socket};
use crate::error::Result;

/// After this many batches without a large datagram, the pages that large ones have touched are
/// returned to the kernel.
const BATCHES_UNTIL_RELEASE: u32 = 4096;

/// After a batch of one datagram, this many are received one at a time before a batch is tried
/// again.
const SINGLE_RECEIVES: u32 = 15;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiveWait {
    /// Until one arrives or a signal interrupts.
    Block,
    Poll,
}

/// The batch of one process: the received datagrams, and the answers to them.
#[derive(Debug)]
pub struct Datagrams {
    buffers: Buffers,
    /// Number of datagrams in the batch that is being handled.
    received: Cell<usize>,
    /// Number of answers that wait to be sent.
    queued: Cell<usize>,
    out_used_bytes: Cell<usize>,
    /// Bytes returned by `buffer` and not yet committed.
    reserved_bytes: Cell<usize>,
    /// Of the socket that the batch was received from.
    descriptor: Cell<i32>,
    /// The kind of socket that the headers are prepared for.
    prepared_for: Cell<BoundTo>,
    batches_since_large: Cell<u32>,
    large_touched: Cell<bool>,
    single_receives_left: Cell<u32>,
    /// Answers that the kernel took.
    sent: Cell<u64>,
    /// Answers that the kernel refused.
    refused: Cell<u64>,
    /// Datagrams that were longer than the buffers. Only Unix sockets have such.
    too_long: Cell<u32>,
}

impl Datagrams {
    /// Takes this process's buffers and prepares their headers. Touches one page. They live as long
    /// as the process.
    pub fn new() -> Result<&'static Self> {
        let buffers = Buffers::take()?;
        let Buffers { headers, small, large, .. } = buffers;
        // SAFETY: the pointers lead to the parts of one mapping, zeroed and page-aligned, and all
        // zeros is a valid `Headers` (integers, null pointers). The kernel and the module get only
        // pointers into this mapping.
        unsafe {
            for index in 0..BATCH {
                (*headers).parts[index] = [
                    libc::iovec { iov_base: small.add(index * SMALL_BYTES).cast(), iov_len: SMALL_BYTES },
                    libc::iovec { iov_base: large.add(index * LARGE_BYTES + SMALL_BYTES).cast(), iov_len: LARGE_BYTES - SMALL_BYTES },
                ];
                let mut message: libc::mmsghdr = zeroed();
                message.msg_hdr.msg_name = (&raw mut (*headers).addresses[index]).cast();
                message.msg_hdr.msg_namelen = ADDRESS_BYTES as u32;
                message.msg_hdr.msg_iov = (&raw mut (*headers).parts[index]).cast();
                message.msg_hdr.msg_iovlen = 2;
                (*headers).messages[index] = message;
            }
            (*headers).batch = abi::UdpBatch {
                size: size_of::<abi::UdpBatch>() as u32,
                count: 0,
                datagrams: (&raw const (*headers).received).cast(),
                stride: size_of::<abi::Datagram>() as u32,
                listener: 0,
            };
            (*headers).datagrams.write(Self {
                buffers,
                received: Cell::new(0),
                queued: Cell::new(0),
                out_used_bytes: Cell::new(0),
                reserved_bytes: Cell::new(0),
                descriptor: Cell::new(-1),
                prepared_for: Cell::new(BoundTo::OneAddress),
                batches_since_large: Cell::new(0),
                large_touched: Cell::new(false),
                single_receives_left: Cell::new(0),
                sent: Cell::new(0),
                refused: Cell::new(0),
                too_long: Cell::new(0),
            });
            Ok((*headers).datagrams.assume_init_ref())
        }
    }

    /// Receives up to a batch from the socket. 0: no datagram is there, or a signal interrupted.
    #[inline]
    pub fn receive(&self, socket: &Socket, listener: u32, wait: ReceiveWait) -> Result<usize, Errno> {
        self.descriptor.set(socket.as_fd().as_raw_fd());
        if self.prepared_for.get() != socket.bound_to {
            self.prepare_headers(socket.bound_to);
        }
        let singles = self.single_receives_left.get();
        let received = if wait == ReceiveWait::Block && singles > 0 {
            // The last datagrams came singly. `recvmmsg` would look for a second one and find none.
            self.single_receives_left.set(singles - 1);
            self.receive_one()
        } else {
            self.receive_many(wait)
        };
        let count = match received {
            Ok(count) => count.min(BATCH),
            Err(Errno::EINTR | Errno::EAGAIN) => return Ok(0),
            Err(errno) => return Err(errno),
        };
        self.queued.set(0);
        self.out_used_bytes.set(0);
        let (count, largest_bytes) = match socket.bound_to {
            BoundTo::OneAddress => self.describe(count, socket),
            _ => self.describe_with_packet_info(count, socket),
        };
        self.received.set(count);
        // SAFETY: inside the mapping; nobody else uses the batch while this runs.
        unsafe {
            let batch = &mut *self.batch();
            batch.count = count as u32;
            batch.listener = listener;
        }
        self.note_size(largest_bytes);
        Ok(count)
    }

    /// Receives one datagram, waiting for it. Returns 1, the number of datagrams.
    fn receive_one(&self) -> Result<usize, Errno> {
        // SAFETY: the header points to buffers of the stated lengths inside the mapping.
        unsafe {
            let message = &mut (*self.buffers.headers).messages[0];
            let length = libc::recvmsg(self.descriptor.get(), &raw mut message.msg_hdr, 0);
            message.msg_len = Errno::result(length)? as u32;
        }
        Ok(1)
    }

    fn receive_many(&self, wait: ReceiveWait) -> Result<usize, Errno> {
        let flags = if wait == ReceiveWait::Block { libc::MSG_WAITFORONE } else { libc::MSG_DONTWAIT };
        // SAFETY: the headers point to buffers of the stated lengths inside the mapping.
        let received = unsafe {
            let messages = (&raw mut (*self.buffers.headers).messages).cast();
            libc::recvmmsg(self.descriptor.get(), messages, BATCH as u32, flags, ptr::null_mut())
        };
        if received == 1 {
            self.single_receives_left.set(SINGLE_RECEIVES);
        }
        Errno::result(received).map(|received| received as usize)
    }

    /// Fills in the batch from a socket that is bound to one address. Returns the number of
    /// datagrams and the length of the largest.
    #[inline]
    fn describe(&self, count: usize, socket: &Socket) -> (usize, usize) {
        let mut largest_bytes = 0;
        for index in 0..count {
            // SAFETY: index < BATCH; nobody else reads or writes the headers while this runs.
            unsafe {
                let (data, length) = self.payload(index);
                largest_bytes = largest_bytes.max(length);
                let headers = self.buffers.headers;
                let header = &mut (*headers).messages[index].msg_hdr;
                (*headers).received[index] = abi::Datagram {
                    data,
                    len: length as u32,
                    peer_len: header.msg_namelen.min(ADDRESS_BYTES as u32) as u16,
                    local_len: socket.name.len_bytes(),
                    peer: (&raw const (*headers).addresses[index]).cast(),
                    local: socket.name.as_ptr(),
                };
                header.msg_namelen = ADDRESS_BYTES as u32;
            }
        }
        (count, largest_bytes)
    }

    /// As `describe`, for other sockets. Leaves out what was truncated: a handler never sees a part
    /// of a datagram.
    #[inline(never)]
    fn describe_with_packet_info(&self, count: usize, socket: &Socket) -> (usize, usize) {
        let (mut kept, mut largest_bytes) = (0, 0);
        for index in 0..count {
            // SAFETY: as above; `prepare_headers` has prepared each header with the packet info,
            // and it is prepared again below.
            unsafe {
                let (data, length) = self.payload(index);
                largest_bytes = largest_bytes.max(length);
                let headers = self.buffers.headers;
                let header = &mut (*headers).messages[index].msg_hdr;
                if header.msg_flags & libc::MSG_TRUNC == 0 && length <= MAX_DATAGRAM_BYTES {
                    let ends = PacketInfo::record(self.buffers.packet_info, index, kept, header, socket);
                    (*headers).received[kept] = abi::Datagram {
                        data,
                        len: length as u32,
                        peer_len: ends.peer_len,
                        local_len: ends.local_len,
                        peer: ends.peer,
                        local: ends.local,
                    };
                    kept += 1;
                } else {
                    self.too_long.set(self.too_long.get() + 1);
                }
                PacketInfo::prepare_header(self.buffers.packet_info, index, header);
            }
        }
        (kept, largest_bytes)
    }

    /// The bytes of a received datagram, in one piece: start and length.
    ///
    /// # Safety
    /// `index` is below `BATCH`, and nobody else uses the buffers.
    #[inline(always)]
    unsafe fn payload(&self, index: usize) -> (*const u8, usize) {
        // SAFETY: the caller's contract; the buffers have the lengths that their offsets are
        // computed with.
        unsafe {
            let length = ((*self.buffers.headers).messages[index].msg_len as usize).min(LARGE_BYTES);
            let small = self.buffers.small.add(index * SMALL_BYTES);
            if length <= SMALL_BYTES {
                return (small, length);
            }
            // The rest is already at its place in the large buffer; copy the beginning in front of
            // it.
            let large = self.buffers.large.add(index * LARGE_BYTES);
            ptr::copy_nonoverlapping(small, large, SMALL_BYTES);
            (large, length)
        }
    }

    /// Prepares the headers for sockets of another kind. A process that serves one socket does this
    /// at most once.
    #[cold]
    fn prepare_headers(&self, bound_to: BoundTo) {
        let Buffers { headers, answers, packet_info, .. } = self.buffers;
        for index in 0..BATCH {
            // SAFETY: index < BATCH; what the headers point to is in this mapping and lives as
            // long.
            unsafe {
                let header = &mut (*headers).messages[index].msg_hdr;
                if bound_to == BoundTo::OneAddress {
                    header.msg_name = (&raw mut (*headers).addresses[index]).cast();
                    header.msg_namelen = ADDRESS_BYTES as u32;
                    header.msg_control = ptr::null_mut();
                    header.msg_controllen = 0;
                } else {
                    PacketInfo::prepare_header(packet_info, index, header);
                }
                let answer = &mut (*answers).messages[index].msg_hdr;
                answer.msg_control = ptr::null_mut();
                answer.msg_controllen = 0;
            }
        }
        self.prepared_for.set(bound_to);
    }

    /// Returns the memory of large datagrams when none has come for a while: one burst must not
    /// make this process large for ever.
    fn note_size(&self, largest_bytes: usize) {
        if largest_bytes > SMALL_BYTES {
            self.large_touched.set(true);
            self.batches_since_large.set(0);
        } else if self.large_touched.get() {
            let batches = self.batches_since_large.get() + 1;
            self.batches_since_large.set(batches);
            if batches >= BATCHES_UNTIL_RELEASE {
                self.buffers.memory.release_first(ALL_LARGE_BYTES + OUT_BYTES);
                self.large_touched.set(false);
            }
        }
    }

    /// The argument of the handler.
    pub fn batch(&self) -> *mut abi::UdpBatch {
        // SAFETY: takes the address of a field inside the mapping.
        unsafe { &raw mut (*self.buffers.headers).batch }
    }

    /// Queues an answer to the datagram with that index. `data` is read when the batch is sent.
    ///
    /// # Errors
    /// `EINVAL`: no such datagram, or the answer is too long. `EDESTADDRREQ`: the sender has no
    /// name.
    pub fn queue(&self, index: usize, data: *const u8, length_bytes: usize) -> Result<(), Errno> {
        if index >= self.received.get() || length_bytes > MAX_DATAGRAM_BYTES || (data.is_null() && length_bytes > 0) {
            return Err(Errno::EINVAL);
        }
        if self.queued.get() == BATCH {
            self.send_queued();
        }
        let queued = self.queued.get();
        let Buffers { headers, answers, packet_info, .. } = self.buffers;
        // SAFETY: queued < BATCH, index < received <= BATCH; nobody else reads or writes the
        // headers while this runs.
        unsafe {
            (*answers).parts[queued] = libc::iovec { iov_base: data.cast_mut().cast(), iov_len: length_bytes };
            let header = &mut (*answers).messages[queued].msg_hdr;
            (header.msg_iov, header.msg_iovlen) = (&raw mut (*answers).parts[queued], 1);
            if self.prepared_for.get() == BoundTo::OneAddress {
                header.msg_name = (&raw mut (*headers).addresses[index]).cast();
                header.msg_namelen = (*headers).received[index].peer_len.into();
            } else {
                let destination = PacketInfo::reply_destination(packet_info, index).ok_or(Errno::EDESTADDRREQ)?;
                (header.msg_name, header.msg_namelen) = (destination.name, destination.name_len);
                (header.msg_control, header.msg_controllen) = (destination.control, destination.control_len);
            }
        }
        self.queued.set(queued + 1);
        Ok(())
    }

    /// A buffer for one answer, valid until the next `buffer` or `copy`. None: too large.
    pub fn buffer(&self, size_bytes: usize) -> Option<*mut u8> {
        if size_bytes > MAX_DATAGRAM_BYTES {
            // The next `commit` must not send an earlier buffer.
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
        Some(self.out())
    }

    /// Queues the first bytes of the last `buffer`, as `queue` does. `EINVAL`, too, if that buffer
    /// is shorter, or was committed before.
    pub fn commit(&self, index: usize, length_bytes: usize) -> Result<(), Errno> {
        // Each buffer can be committed once.
        if length_bytes > self.reserved_bytes.replace(0) {
            return Err(Errno::EINVAL);
        }
        let data = self.out();
        // If the queue is full, send it here: `queue` would do so, and forget where the buffer is.
        if self.queued.get() == BATCH {
            let used = self.out_used_bytes.get();
            self.send_queued();
            self.out_used_bytes.set(used);
        }
        self.queue(index, data, length_bytes)?;
        self.out_used_bytes.set((self.out_used_bytes.get() + length_bytes).next_multiple_of(8).min(OUT_BYTES));
        Ok(())
    }

    /// The unused rest of the memory for answers.
    fn out(&self) -> *mut u8 {
        // SAFETY: `buffer` and `commit` keep the offset within this part of the mapping.
        unsafe { self.buffers.out.add(self.out_used_bytes.get()) }
    }

    /// Queues a copy of `data`, as `queue` does. `EMSGSIZE`: too long.
    pub fn copy(&self, index: usize, data: &[u8]) -> Result<(), Errno> {
        let buffer = self.buffer(data.len()).ok_or(Errno::EMSGSIZE)?;
        // SAFETY: `buffer` has room for data.len() bytes inside the mapping. The data may be in
        // this very mapping (a received datagram, or an answer of an earlier batch), so the ranges
        // may overlap.
        unsafe { ptr::copy(data.as_ptr(), buffer, data.len()) };
        self.commit(index, data.len())
    }

    /// Sends all queued answers. One that the kernel refuses is counted and skipped.
    pub fn send_queued(&self) {
        let queued = self.queued.get();
        let mut sent = 0;
        let bound_to = self.prepared_for.get();
        // A Unix peer that does not read must not delay the answers to all others.
        let flags = libc::MSG_NOSIGNAL | if bound_to == BoundTo::Unix { libc::MSG_DONTWAIT } else { 0 };
        while sent < queued {
            let answers = self.buffers.answers;
            // SAFETY: the first `queued` headers are filled in; what they point to is valid until
            // the handler's batch ends.
            let outcome = unsafe {
                if queued == 1 && bound_to == BoundTo::OneAddress {
                    let (header, part) = (&(*answers).messages[0].msg_hdr, &(*answers).parts[0]);
                    let bytes =
                        libc::sendto(self.descriptor.get(), part.iov_base, part.iov_len, flags, header.msg_name.cast(), header.msg_namelen);
                    if bytes < 0 { -1 } else { 1 }
                } else {
                    libc::sendmmsg(self.descriptor.get(), (&raw mut (*answers).messages[sent]).cast(), (queued - sent) as u32, flags)
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

    /// Number of answers that the kernel took, and that it refused, since the last call.
    pub fn take_sent(&self) -> (u64, u64) {
        (self.sent.replace(0), self.refused.replace(0))
    }

    /// Number of datagrams that were too long for the buffers, since the last call.
    pub fn take_too_long(&self) -> u32 {
        self.too_long.replace(0)
    }
}

#[cfg(test)]
mod tests;
