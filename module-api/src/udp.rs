//! Datagrams: what a UDP handler gets, and how it answers.
//!
//! Runs in workers (in main in no-fork mode). Allocates nothing, and copies only in `reply`.

use std::cell::Cell;
use std::ffi::c_void;
use std::marker::PhantomData;
use std::slice;

use crate::abi;
use crate::address::Address;
use crate::host::{HostHandle, host};
use crate::listener::{Listener, SendError};
use crate::{Result, sockaddr};

/// Keeps the compiler from shortening `'b`: a reference of this lifetime lives until the batch is
/// sent.
type Invariant<'b> = PhantomData<Cell<&'b ()>>;

/// The datagrams that a worker received together at one listener, at least one.
///
/// A handler is called in a worker process with each batch; its answers are sent when it returns.
/// The lifetime `'b` covers the datagrams, the module itself and the sending:
///
/// ```
/// # use module_api::prelude::*;
/// # struct Echo; impl Echo {
/// fn serve(&self, child: &mut (), batch: &Batch<'_>) -> Result<()> {
///     for datagram in batch {
///         datagram.reply_borrowed(datagram.data())?;
///     }
///     Ok(())
/// }
/// # }
/// ```
pub struct Batch<'b> {
    raw: *mut abi::UdpBatch,
    datagrams: *const u8,
    stride: usize,
    count: u32,
    listener: u32,
    /// Whether the host's answer buffer is lent to a closure. Meanwhile the host must not change
    /// its answers.
    buffer_lent: Cell<bool>,
    lifetime: Invariant<'b>,
}

impl<'b> Batch<'b> {
    /// # Safety
    /// `raw` is what the host passed to the handler that is running, and `'b` ends before its
    /// answers are discarded.
    #[inline]
    pub(crate) unsafe fn new(raw: *mut abi::UdpBatch) -> Batch<'b> {
        // SAFETY: the host passes a batch that is valid until the handler returns.
        let batch = unsafe { &*raw };
        Batch {
            raw,
            datagrams: batch.datagrams.cast(),
            stride: batch.stride as usize,
            count: batch.count,
            listener: batch.listener,
            buffer_lent: Cell::new(false),
            lifetime: PhantomData,
        }
    }

    /// Number of datagrams, at least 1.
    #[allow(clippy::len_without_is_empty)]
    #[inline]
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// The listener that they arrived at.
    #[inline]
    pub fn listener(&self) -> Listener {
        Listener::new(self.listener)
    }

    /// The datagram at `index`, in the order of arrival.
    #[inline]
    pub fn datagram(&self, index: usize) -> Option<Datagram<'_, 'b>> {
        let index = u32::try_from(index).ok().filter(|index| *index < self.count)?;
        Some(Datagram { batch: self, index })
    }

    /// The datagrams in the order of arrival.
    #[inline]
    pub fn iter(&self) -> Datagrams<'_, 'b> {
        Datagrams { batch: self, next: 0 }
    }
}

impl<'a, 'b> IntoIterator for &'a Batch<'b> {
    type Item = Datagram<'a, 'b>;
    type IntoIter = Datagrams<'a, 'b>;

    #[inline]
    fn into_iter(self) -> Datagrams<'a, 'b> {
        self.iter()
    }
}

/// Iterator over a [`Batch`].
pub struct Datagrams<'a, 'b> {
    batch: &'a Batch<'b>,
    next: u32,
}

impl<'a, 'b> Iterator for Datagrams<'a, 'b> {
    type Item = Datagram<'a, 'b>;

    #[inline]
    fn next(&mut self) -> Option<Datagram<'a, 'b>> {
        if self.next == self.batch.count {
            return None;
        }
        let index = self.next;
        self.next += 1;
        Some(Datagram { batch: self.batch, index })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.batch.count - self.next) as usize;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Datagrams<'_, '_> {}

/// One datagram of a [`Batch`]: `'a` is the borrow of the batch, `'b` the lifetime of its contents.
#[derive(Clone, Copy)]
pub struct Datagram<'a, 'b> {
    batch: &'a Batch<'b>,
    /// Below the batch's count.
    index: u32,
}

impl<'b> Datagram<'_, 'b> {
    #[inline]
    fn raw(&self) -> &'b abi::Datagram {
        // SAFETY: the host passed `count` datagrams at this stride, valid and unchanged during
        // `'b`, and `index` is below `count`.
        unsafe { &*self.batch.datagrams.add(self.index as usize * self.batch.stride).cast::<abi::Datagram>() }
    }

    /// The payload, 0 to 65,507 bytes.
    #[inline]
    pub fn data(&self) -> &'b [u8] {
        let raw = self.raw();
        if raw.len == 0 {
            return &[];
        }
        // SAFETY: the host passes the address of as many bytes as it says; nobody changes them
        // during `'b`.
        unsafe { slice::from_raw_parts(raw.data, raw.len as usize) }
    }

    /// Address of the sender. At a listener on an internet address it is always [`Address::Inet`];
    /// at one on a Unix socket it may be [`Address::Unnamed`].
    pub fn peer(&self) -> Address<'b> {
        let raw = self.raw();
        // SAFETY: the host passes a socket address of this length, valid during `'b`.
        unsafe { address(raw.peer, raw.peer_len) }
    }

    /// Whether the sender has an address to which an answer can be sent. At a listener on an
    /// internet address it always has.
    #[inline]
    pub fn is_answerable(&self) -> bool {
        self.raw().peer_len > 0
    }

    /// The address that the datagram was sent to. Answers are sent from it, also at a listener that
    /// is bound to every address of the machine. For a datagram that was sent to a multicast group
    /// it is the group; answers are then sent from an address of the network interface.
    pub fn local(&self) -> Address<'b> {
        let raw = self.raw();
        // SAFETY: as above.
        unsafe { address(raw.local, raw.local_len) }
    }

    /// The listener that it arrived at.
    #[inline]
    pub fn listener(&self) -> Listener {
        self.batch.listener()
    }

    /// Answers with a copy of `data`. A datagram may have several answers; they are sent in order
    /// when the handler returns.
    ///
    /// # Errors
    /// [`SendError::Invalid`] if it is longer than 65,507 bytes; [`SendError::NoPeer`] if the
    /// sender is [`Address::Unnamed`]; [`SendError::Nested`] inside
    /// [`reply_with`](Datagram::reply_with).
    #[inline]
    pub fn reply(&self, data: &[u8]) -> Result<(), SendError> {
        let HostHandle { api, module } = self.idle()?;
        SendError::from_code((api.udp_reply)(module, self.batch.raw, self.index, data.as_ptr(), data.len()))
    }

    /// Answers with `data` itself, without a copy: a part of the batch, of the module, or a
    /// constant.
    ///
    /// # Errors
    /// As [`reply`](Datagram::reply).
    ///
    /// # What can be borrowed
    /// `data` must live until the batch is sent. A local buffer does not, and does not compile:
    /// ```compile_fail,E0597
    /// # use module_api::prelude::*;
    /// fn serve(batch: &Batch<'_>) -> Result<()> {
    ///     for datagram in batch {
    ///         let answer = datagram.data().to_ascii_uppercase();
    ///         datagram.reply_borrowed(&answer)?;
    ///     }
    ///     Ok(())
    /// }
    /// ```
    /// Data that the module has held since `init` does, if the handler's signature says so:
    /// ```
    /// # use module_api::prelude::*;
    /// # struct Fixed { answer: Vec<u8> }
    /// # impl Fixed {
    /// fn serve<'b>(&'b self, child: &mut (), batch: &Batch<'b>) -> Result<()> {
    ///     for datagram in batch {
    ///         datagram.reply_borrowed(&self.answer)?;
    ///     }
    ///     Ok(())
    /// }
    /// # }
    /// ```
    #[inline]
    pub fn reply_borrowed(&self, data: &'b [u8]) -> Result<(), SendError> {
        let HostHandle { api, module } = self.idle()?;
        SendError::from_code((api.udp_reply_borrowed)(module, self.batch.raw, self.index, data.as_ptr(), data.len()))
    }

    /// Answers with what `write` puts into a host buffer: it gets `size` bytes with arbitrary
    /// content and returns how many of them are the answer. Nothing is copied.
    ///
    /// # Errors
    /// [`SendError::Invalid`] if `size` is above 65,507 or `write` returns more than `size`;
    /// [`SendError::NoPeer`] as for [`reply`](Datagram::reply); [`SendError::Nested`] inside
    /// another `write` of the same batch.
    #[inline]
    pub fn reply_with(&self, size: usize, write: impl FnOnce(&mut [u8]) -> usize) -> Result<(), SendError> {
        let HostHandle { api, module } = self.idle()?;
        let buffer = (api.udp_reply_buffer)(module, self.batch.raw, size);
        if buffer.is_null() {
            return Err(SendError::Invalid);
        }
        // SAFETY: the host gives `size` initialised bytes, which are this module's until its next
        // call about this batch; `buffer_lent` prevents such a call.
        let bytes = unsafe { slice::from_raw_parts_mut(buffer, size) };
        let lent = Lent::new(&self.batch.buffer_lent);
        let len = write(bytes);
        drop(lent);
        if len > size {
            return Err(SendError::Invalid);
        }
        SendError::from_code((api.udp_reply_commit)(module, self.batch.raw, self.index, len))
    }

    /// The host, unless a closure is writing to its buffer.
    #[inline]
    fn idle(&self) -> Result<HostHandle, SendError> {
        if self.batch.buffer_lent.get() { Err(SendError::Nested) } else { Ok(host()) }
    }
}

/// # Safety
/// `address` is null, or a socket address of `len` bytes that lives during `'b`.
unsafe fn address<'b>(address: *const c_void, len: u16) -> Address<'b> {
    let bytes = if address.is_null() {
        &[]
    } else {
        // SAFETY: the caller's contract.
        unsafe { slice::from_raw_parts(address.cast::<u8>(), usize::from(len)) }
    };
    // The host passes known families only.
    sockaddr::decode(bytes).unwrap_or(Address::Unnamed)
}

/// Marks the host's buffer as lent until it is dropped, also if the closure panics and the author
/// catches the panic.
struct Lent<'a>(&'a Cell<bool>);

impl<'a> Lent<'a> {
    fn new(flag: &'a Cell<bool>) -> Lent<'a> {
        flag.set(true);
        Lent(flag)
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}
