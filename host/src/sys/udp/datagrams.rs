//! Datagrams in batches: receive many with one call, answer many with one call, allocate nothing.
//!
//! *Runs in:* every process that serves datagrams. *Never:* trusts a length it did not set itself.
//!
//! All buffers are one piece of this process's own memory. A page of it costs memory only once it is touched, so the layout puts what
//! every datagram needs close together and what only large ones need far before it:
//! ```text
//! large  16 × 64 KiB        the whole of a datagram that does not fit
//! out    1 MiB              answers, filled from the start for each batch
//! small  16 × 1536 bytes    the first bytes of each datagram; most have no more
//! wide                      two pages: what sockets need that are not bound to one address of the internet
//! answers                   their headers
//! headers, addresses        of what is received
//! ```
//! What is touched at once is the last page, next to the process's own (`local`).

use std::cell::Cell;
use std::mem::{MaybeUninit, size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use module_api::abi;
use nix::errno::Errno;

use crate::error::Result;
use crate::sys::fast_fork::raw_call;
use crate::sys::memory::mapping::{Mapping, page_bytes};
use crate::sys::udp::packet_info::{PacketInfo, Socket, SocketForm};

/// Most datagrams in one batch.
pub const BATCH: usize = 16;
/// Largest payload of a UDP datagram in bytes.
pub const MAX_DATAGRAM_BYTES: usize = 65_507;

const SMALL_BYTES: usize = 1536;
const LARGE_BYTES: usize = 65_536;
const ALL_LARGE_BYTES: usize = BATCH * LARGE_BYTES;
const OUT_BYTES: usize = BATCH * LARGE_BYTES;
/// Room for a `sockaddr_in6`.
const ADDRESS_BYTES: usize = 28;
/// So many batches without a large datagram, and the pages that large ones touched go back to the kernel.
const BATCHES_UNTIL_RELEASE: u32 = 4096;

/// After a batch of one, so many datagrams are received one at a time before a batch is tried again.
const RECEIVE_ALONE: u32 = 15;

/// What the kernel and the module read and write; lives at the end of the memory.
#[repr(C)]
struct Headers {
    /// Whether a process has these buffers: this one, or one that it was forked from while that was serving.
    taken: AtomicU32,
    engine: MaybeUninit<Datagrams>,
    batch: abi::UdpBatch,
    datagrams: [abi::Datagram; BATCH],
    in_headers: [libc::mmsghdr; BATCH],
    in_parts: [[libc::iovec; 2]; BATCH],
    in_addresses: [[u32; ADDRESS_BYTES / 4]; BATCH],
}

/// What the kernel reads of the answers. Not touched before the first one.
#[repr(C)]
struct Answers {
    headers: [libc::mmsghdr; BATCH],
    parts: [libc::iovec; BATCH],
}

// What a process that waits for datagrams has touched is one page.
const _: () = assert!(size_of::<Headers>() <= 4096);

/// Where in the memory what is.
struct Layout {
    small_offset_bytes: usize,
    wide_offset_bytes: usize,
    answers_offset_bytes: usize,
    headers_offset_bytes: usize,
    all_bytes: usize,
}

impl Layout {
    #[inline(always)]
    fn new() -> Self {
        let page = page_bytes();
        let small_offset_bytes = ALL_LARGE_BYTES + OUT_BYTES;
        let wide_offset_bytes = (small_offset_bytes + BATCH * SMALL_BYTES).next_multiple_of(page);
        let answers_offset_bytes = wide_offset_bytes + size_of::<PacketInfo>().next_multiple_of(page);
        let headers_offset_bytes = answers_offset_bytes + size_of::<Answers>().next_multiple_of(page);
        let all_bytes = headers_offset_bytes + size_of::<Headers>().next_multiple_of(page);
        Self { small_offset_bytes, wide_offset_bytes, answers_offset_bytes, headers_offset_bytes, all_bytes }
    }
}

/// The buffers that each process finds.
static RESERVED: OnceLock<Mapping> = OnceLock::new();

/// Maps buffers for every process that is forked later, so that none has to. They are ordinary private memory: a process that a handler forks has a copy of
/// the batch. In main, before the first fork.
pub fn reserve() -> Result<()> {
    let buffers = Mapping::private_below_shared(Layout::new().all_bytes)?.in_small_pages();
    RESERVED.get_or_init(|| buffers);
    Ok(())
}

/// Buffers that nobody has touched.
#[inline(always)]
fn fresh(layout: &Layout) -> Result<Mapping> {
    if let Some(reserved) = RESERVED.get() {
        // SAFETY: the reserved memory has this layout, and zeros are a valid flag. Written, not read first: what is read first is brought in twice.
        let taken = unsafe { &(*reserved.start().as_ptr().add(layout.headers_offset_bytes).cast::<Headers>()).taken };
        if taken.swap(1, Relaxed) == 0 {
            return Ok(*reserved);
        }
    }
    Ok(Mapping::private(layout.all_bytes)?.in_small_pages())
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
    wide: *mut PacketInfo,
    answers: *mut Answers,
    small: *mut u8,
    large: *mut u8,
    out: *mut u8,
    memory: Mapping,
    /// Number of datagrams in the batch being handled.
    received: Cell<usize>,
    queued: Cell<usize>,
    out_used_bytes: Cell<usize>,
    /// Bytes handed out by `buffer` and not yet committed.
    reserved_bytes: Cell<usize>,
    descriptor: Cell<i32>,
    /// What the headers are made for.
    form: Cell<SocketForm>,
    batches_since_large: Cell<u32>,
    large_touched: Cell<bool>,
    /// Answers that the kernel refused.
    refused: Cell<u64>,
    /// Answers that it took.
    sent: Cell<u64>,
    /// Datagrams that were longer than the buffers, which only Unix sockets can have.
    too_long: Cell<u32>,
    /// So many times more one datagram is received at a time.
    alone: Cell<u32>,
}

/// Nothing was received: because there is nothing, or a signal came, or for a reason to report.
#[cold]
fn nothing(errno: Errno) -> Result<usize, Errno> {
    match errno {
        Errno::EINTR | Errno::EAGAIN => Ok(0),
        errno => Err(errno),
    }
}

impl Datagrams {
    /// Takes the buffers, itself among them; touches one page. They live as long as the process.
    #[inline(always)]
    pub fn new() -> Result<&'static Self> {
        let layout = Layout::new();
        let memory = fresh(&layout)?;
        let Layout { small_offset_bytes, wide_offset_bytes, answers_offset_bytes, headers_offset_bytes, .. } = layout;
        let start = memory.start().as_ptr();
        // SAFETY: the offsets lie inside the mapping made with their sum; its start is page-aligned, zeroed memory, and all zeros is a
        // valid `Headers` (integers, null pointers). The kernel and the module get only pointers into this mapping.
        let engine = unsafe {
            let headers = start.add(headers_offset_bytes).cast::<Headers>();
            let small = start.add(small_offset_bytes);
            let large = start;
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
                wide: start.add(wide_offset_bytes).cast(),
                answers: start.add(answers_offset_bytes).cast(),
                small,
                large,
                out: start.add(ALL_LARGE_BYTES),
                memory,
                received: Cell::new(0),
                queued: Cell::new(0),
                out_used_bytes: Cell::new(0),
                reserved_bytes: Cell::new(0),
                descriptor: Cell::new(-1),
                form: Cell::new(SocketForm::Plain),
                batches_since_large: Cell::new(0),
                large_touched: Cell::new(false),
                refused: Cell::new(0),
                too_long: Cell::new(0),
                sent: Cell::new(0),
                alone: Cell::new(0),
            });
            (*headers).engine.assume_init_ref()
        };
        Ok(engine)
    }

    /// Receives up to a batch from the socket. 0: nothing there, or interrupted.
    #[inline]
    pub fn receive(&self, socket: &Socket, listener: u32, wait: Wait) -> Result<usize, Errno> {
        self.descriptor.set(socket.as_fd().as_raw_fd());
        if self.form.get() != socket.form {
            self.adopt(socket.form);
        }
        let alone = self.alone.get();
        let received = if wait == Wait::Block && alone > 0 {
            // The last ones came alone: the look for a second one, which finds nothing, is saved. Now and then it is worth it.
            self.alone.set(alone - 1);
            self.receive_one(socket.as_fd())
        } else {
            let flags = if wait == Wait::Block { libc::MSG_WAITFORONE } else { libc::MSG_DONTWAIT };
            // SAFETY: the headers point to buffers of the stated lengths inside the mapping.
            let received = unsafe {
                let headers = (&raw mut (*self.headers).in_headers).expose_provenance();
                raw_call::call(libc::SYS_recvmmsg, [self.descriptor.get() as usize, headers, BATCH, flags as usize, 0, 0])
            };
            if received == Ok(1) {
                self.alone.set(RECEIVE_ALONE);
            }
            received
        };
        let count = match received {
            Ok(count) => count.min(BATCH),
            Err(errno) => return nothing(errno),
        };
        self.queued.set(0);
        self.out_used_bytes.set(0);
        let (count, largest) =
            if socket.form == SocketForm::Plain { self.take_plain(count, socket) } else { self.take_wide(count, socket) };
        self.received.set(count);
        // SAFETY: as above.
        unsafe {
            (*self.headers).batch.count = count as u32;
            (*self.headers).batch.listener = listener;
        }
        self.note_size(largest);
        Ok(count)
    }

    /// Describes what was received from a plain socket. How many datagrams, and the length of the largest.
    #[inline]
    fn take_plain(&self, count: usize, socket: &Socket) -> (usize, usize) {
        let mut largest = 0;
        for index in 0..count {
            // SAFETY: index < BATCH; nobody else reads or writes the headers while this runs.
            unsafe {
                let (data, length) = self.payload(index);
                let header = &mut (*self.headers).in_headers[index];
                largest = largest.max(length);
                (*self.headers).datagrams[index] = abi::Datagram {
                    data,
                    len: length as u32,
                    peer_len: header.msg_hdr.msg_namelen.min(ADDRESS_BYTES as u32) as u16,
                    local_len: socket.name.len_bytes(),
                    peer: (&raw const (*self.headers).in_addresses[index]).cast(),
                    local: socket.name.as_ptr(),
                };
                header.msg_hdr.msg_namelen = ADDRESS_BYTES as u32;
            }
        }
        (count, largest)
    }

    /// The same for other sockets. What was cut off is left out: a handler never sees a part of a datagram.
    #[inline(never)]
    fn take_wide(&self, count: usize, socket: &Socket) -> (usize, usize) {
        let (mut kept, mut largest) = (0, 0);
        for index in 0..count {
            // SAFETY: as above; `adopt` has armed each header with `wide`, and so it is again below.
            unsafe {
                let (data, length) = self.payload(index);
                largest = largest.max(length);
                let header = &mut (*self.headers).in_headers[index].msg_hdr;
                if header.msg_flags & libc::MSG_TRUNC == 0 && length <= MAX_DATAGRAM_BYTES {
                    let ends = PacketInfo::take(self.wide, index, kept, header, socket);
                    (*self.headers).datagrams[kept] = abi::Datagram {
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
                PacketInfo::arm(self.wide, index, header);
            }
        }
        (kept, largest)
    }

    /// Where the bytes of a received datagram are, in one piece, and how many.
    ///
    /// # Safety
    /// `index` is below `BATCH`, and nobody else uses the buffers.
    #[inline(always)]
    unsafe fn payload(&self, index: usize) -> (*const u8, usize) {
        // SAFETY: the caller's contract; the buffers have the lengths that their offsets are computed with.
        unsafe {
            let length = ((*self.headers).in_headers[index].msg_len as usize).min(LARGE_BYTES);
            let small = self.small.add(index * SMALL_BYTES);
            if length <= SMALL_BYTES {
                return (small, length);
            }
            // The tail lies where it belongs in the large buffer; put the beginning in front of it.
            let large = self.large.add(index * LARGE_BYTES);
            std::ptr::copy_nonoverlapping(small, large, SMALL_BYTES);
            (large, length)
        }
    }

    /// Makes the headers fit sockets of another form. A process that serves one socket does this once.
    #[cold]
    fn adopt(&self, form: SocketForm) {
        for index in 0..BATCH {
            // SAFETY: index < BATCH; what the headers point to lies in this mapping and lives as long as they.
            unsafe {
                let header = &mut (*self.headers).in_headers[index].msg_hdr;
                if form == SocketForm::Plain {
                    header.msg_name = (&raw mut (*self.headers).in_addresses[index]).cast();
                    header.msg_namelen = ADDRESS_BYTES as u32;
                    header.msg_control = std::ptr::null_mut();
                    header.msg_controllen = 0;
                } else {
                    PacketInfo::arm(self.wide, index, header);
                }
                let answer = &mut (*self.answers).headers[index].msg_hdr;
                answer.msg_control = std::ptr::null_mut();
                answer.msg_controllen = 0;
            }
        }
        self.form.set(form);
    }

    /// Waits for one datagram. The number of them, as from `recvmmsg`.
    fn receive_one(&self, socket: BorrowedFd<'_>) -> Result<usize, Errno> {
        // SAFETY: the header points to buffers of the stated lengths inside the mapping.
        unsafe {
            let header = &mut (*self.headers).in_headers[0];
            let message = (&raw mut header.msg_hdr).expose_provenance();
            let length = raw_call::call(libc::SYS_recvmsg, [socket.as_raw_fd() as usize, message, 0, 0, 0, 0])?;
            header.msg_len = length as u32;
        }
        Ok(1)
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
                self.memory.release_first(ALL_LARGE_BYTES + OUT_BYTES);
                self.large_touched.set(false);
            }
        }
    }

    /// What the handler gets.
    pub fn batch(&self) -> *mut abi::UdpBatch {
        // SAFETY: takes the address of a field inside the mapping.
        unsafe { &raw mut (*self.headers).batch }
    }

    /// Queues an answer to the `index`-th datagram, read from `data` when the batch is sent. `EINVAL`: no such datagram, or too long;
    /// `EDESTADDRREQ`: its sender has no name.
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
            (*self.answers).parts[slot] = libc::iovec { iov_base: data.cast_mut().cast(), iov_len: length_bytes };
            let header = &mut (*self.answers).headers[slot].msg_hdr;
            (header.msg_iov, header.msg_iovlen) = (&raw mut (*self.answers).parts[slot], 1);
            if self.form.get() == SocketForm::Plain {
                header.msg_name = (&raw mut (*self.headers).in_addresses[index]).cast();
                header.msg_namelen = (*self.headers).datagrams[index].peer_len.into();
            } else {
                let envelope = PacketInfo::envelope(self.wide, index).ok_or(Errno::EDESTADDRREQ)?;
                (header.msg_name, header.msg_namelen) = (envelope.name, envelope.name_len);
                (header.msg_control, header.msg_controllen) = (envelope.control, envelope.control_len);
            }
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
        let form = self.form.get();
        // A Unix peer that does not read what it is sent must not stop everybody else's answers.
        let flags = libc::MSG_NOSIGNAL | if form == SocketForm::Unix { libc::MSG_DONTWAIT } else { 0 };
        while sent < queued {
            // SAFETY: the first `queued` headers are filled in; what they point to is valid until the handler's batch ends.
            let outcome = unsafe {
                if queued == 1 && form == SocketForm::Plain {
                    let header = &(*self.answers).headers[0].msg_hdr;
                    let part = &(*self.answers).parts[0];
                    let bytes =
                        libc::sendto(self.descriptor.get(), part.iov_base, part.iov_len, flags, header.msg_name.cast(), header.msg_namelen);
                    if bytes < 0 { -1 } else { 1 }
                } else {
                    libc::sendmmsg(self.descriptor.get(), (&raw mut (*self.answers).headers[sent]).cast(), (queued - sent) as u32, flags)
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

    /// Number of datagrams that were too long for the buffers since the last call.
    pub fn take_too_long(&self) -> u32 {
        self.too_long.replace(0)
    }
}

#[cfg(test)]
mod tests;
