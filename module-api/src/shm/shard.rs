//! One shard of a map: a lock, a hash table with chains, and a journal.
//!
//! Each bucket has a chain of nodes. Buckets are in segments of a fixed size, and a directory has
//! the addresses of the segments. The table grows by linear hashing: one bucket at a time is split
//! in two, in the order of their numbers, so the table is never rebuilt.
//!
//! One store makes a change take effect: the pointer to a node. The journal records the steps
//! before and after it; `repair` undoes or finishes them. All fields are atomics and stored with
//! release, which keeps the stores in program order. While the lock is held, no other process
//! accesses the shard.

use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::ShmSafe;
use super::item::sealed::StoredValue;
use super::map::{MapError, Scan};
use super::owned::{self, free};
use crate::abi::{self, DeadOwner};
use crate::host::host;
use crate::phase::NotSend;
use crate::{LockFailure, Result};

/// Number of buckets of a segment.
const SEGMENT: u64 = 128;
/// Number of entries of the first directory; each later one has twice as many.
const FIRST_DIRECTORY: u64 = 8;

/// `Shard::op`.
const INSERT: u64 = 1;
const REPLACE: u64 = 2;
const REMOVE: u64 = 3;

/// In shared memory. Apart from the lock, all zero is an empty shard.
#[repr(C, align(64))]
pub(super) struct Shard {
    lock: UnsafeCell<abi::Mutex>,
    /// Number of entries.
    count: AtomicU64,
    /// Number of buckets in use; 0 before there is a segment.
    buckets: AtomicU64,
    /// Address of the directory, which has its length, then the addresses of the segments.
    directory: AtomicU64,
    /// Address of the node that is being inserted.
    fresh: AtomicU64,
    /// Address of the node that is being removed.
    retired: AtomicU64,
    /// The operation that `fresh` and `retired` belong to.
    op: AtomicU64,
    /// Number of the bucket that they belong to.
    bucket: AtomicU64,
    /// `count` before the operation.
    before: AtomicU64,
    /// Size of all nodes in bytes.
    bytes: AtomicU64,
    /// `bytes` before the operation.
    bytes_before: AtomicU64,
    /// `bytes` after the operation.
    bytes_after: AtomicU64,
    /// Address of the node that is being moved to another bucket.
    moving: AtomicU64,
    /// Address of a directory that is not in use yet.
    next_directory: AtomicU64,
    /// Address of a directory that is no longer in use.
    last_directory: AtomicU64,
}

// SAFETY: the host's lock is opaque to the module and made for shared memory. The rest is atomics;
// the addresses in them are in shared memory, which is at the same address in every process.
unsafe impl ShmSafe for Shard {}
// SAFETY: fields that are not atomic are used under the lock only.
unsafe impl Sync for Shard {}

/// An entry. The key's bytes follow, then the value at the next suitably aligned address.
#[repr(C)]
struct Node {
    /// Address of the next node in the chain; 0: none.
    next: AtomicU64,
    hash: u64,
    key_len: u32,
    value_len: u32,
}

/// A node, and the word that has its address.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pointer: *const AtomicU64,
    node: *const Node,
}

/// A shard whose lock this thread holds.
pub(super) struct Held<'s> {
    shard: &'s Shard,
    /// The host's lock belongs to the thread that took it.
    not_send: PhantomData<NotSend>,
}

impl Drop for Held<'_> {
    #[inline]
    fn drop(&mut self) {
        // Also in a panic: the author's code runs only while the shard is consistent.
        let host = host();
        let code = (host.api.mutex_unlock)(host.module, self.shard.lock.get());
        if code != abi::OK {
            tracing::error!(code, "a map's lock was not released");
        }
    }
}

impl Shard {
    /// To be called once, before the first use.
    pub(super) fn initialise(&self) -> Result<()> {
        let host = host();
        crate::host::check("mutex_init", (host.api.mutex_init)(host.module, self.lock.get())).map(drop)
    }

    /// Number of entries.
    pub(super) fn len(&self) -> usize {
        self.count.load(Relaxed) as usize
    }

    /// Size of all entries in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Waits for the lock. If its last owner died, repairs the shard first.
    #[inline]
    pub(super) fn lock(&self) -> Result<Held<'_>, LockFailure> {
        let host = host();
        let mut dead = DeadOwner::default();
        match (host.api.mutex_lock)(host.module, self.lock.get(), &raw mut dead) {
            abi::OK => Ok(Held { shard: self, not_send: PhantomData }),
            abi::OWNER_DIED => {
                let held = Held { shard: self, not_send: PhantomData };
                held.repair();
                match (host.api.mutex_repaired)(host.module, self.lock.get()) {
                    abi::OK => Ok(held),
                    code => Err(LockFailure::from_code(code)),
                }
            }
            code => Err(LockFailure::from_code(code)),
        }
    }
}

/// Offset of the value in a node, in bytes.
#[inline(always)]
fn value_offset(key_len: usize, align: usize) -> usize {
    (size_of::<Node>() + key_len).next_multiple_of(align)
}

impl Held<'_> {
    /// The node of a key.
    #[inline]
    pub(super) fn find(&self, hash: u64, key: &[u8]) -> Option<Place> {
        let mut pointer: *const AtomicU64 = self.bucket(self.bucket_of(hash)?)?;
        loop {
            let node = self.follow(pointer)?;
            // SAFETY: a chain has nodes only, which stay valid while the lock is held.
            let header = unsafe { &*node };
            if header.hash == hash && self.key(&Place { pointer, node }) == key {
                return Some(Place { pointer, node });
            }
            pointer = &raw const header.next;
        }
    }

    /// The key of a node.
    #[inline]
    pub(super) fn key<'k>(&'k self, place: &Place) -> &'k [u8] {
        // SAFETY: `key_len` bytes were written after the node before it became part of a chain;
        // nobody changes them.
        unsafe { std::slice::from_raw_parts(place.node.cast::<u8>().add(size_of::<Node>()), (*place.node).key_len as usize) }
    }

    /// The value of a node.
    #[inline]
    pub(super) fn value<'v, V: StoredValue + ?Sized>(&'v self, place: &Place) -> &'v V {
        // SAFETY: `store` of this type wrote it there before the node became part of a chain;
        // nobody changes it.
        unsafe {
            let (key_len, value_len) = ((*place.node).key_len as usize, (*place.node).value_len as usize);
            V::read(place.node.cast::<u8>().add(value_offset(key_len, V::ALIGN)), value_len)
        }
    }

    /// Inserts an entry, in place of `old` if there is one.
    pub(super) fn store<V: StoredValue + ?Sized>(
        &self,
        hash: u64,
        key: &[u8],
        old: Option<Place>,
        value: V::In<'_>,
    ) -> Result<(), MapError> {
        let value_len = V::bytes(&value);
        let (Ok(key_len), Ok(short_len)) = (u32::try_from(key.len()), u32::try_from(value_len)) else { return Err(MapError::TooLarge) };
        let shard = self.shard;
        if shard.buckets.load(Relaxed) == 0 {
            self.first_segment()?;
        }
        let bucket = self.bucket_of(hash).ok_or(MapError::NoMemory)?;
        let head = self.bucket(bucket).ok_or(MapError::NoMemory)?;
        let count = shard.count.load(Relaxed);
        shard.before.store(count, Release);
        shard.bucket.store(bucket, Release);
        shard.op.store(if old.is_some() { REPLACE } else { INSERT }, Release);
        let offset = value_offset(key.len(), V::ALIGN);
        let bytes = shard.bytes.load(Relaxed);
        let old_bytes = old.as_ref().map_or(0, |place| self.node_bytes::<V>(place));
        shard.bytes_before.store(bytes, Release);
        shard.bytes_after.store(bytes.wrapping_sub(old_bytes).wrapping_add((offset + value_len) as u64), Release);
        // Rounded up to the alignment, as the size of a value with a tag is.
        let size = (offset + value_len).next_multiple_of(V::ALIGN);
        let block = allocate(size, V::ALIGN, 0, &shard.fresh).ok_or(MapError::NoMemory)?;
        let node: *mut Node = block.cast();
        let (pointer, next): (*const AtomicU64, u64) = match &old {
            // SAFETY: nodes of a chain, and the words in them, stay valid while the lock is held.
            Some(place) => (place.pointer, unsafe { (*place.node).next.load(Relaxed) }),
            None => (head, head.load(Relaxed)),
        };
        // SAFETY: the block is new, aligned, large enough for all three parts, and not in use.
        unsafe {
            node.write(Node { next: AtomicU64::new(next), hash, key_len, value_len: short_len });
            block.add(size_of::<Node>()).copy_from_nonoverlapping(key.as_ptr(), key.len());
            V::write(value, block.add(offset));
        }
        if let Some(place) = &old {
            shard.retired.store(place.node.expose_provenance() as u64, Release);
        }
        // SAFETY: as above.
        unsafe { (*pointer).store(node.expose_provenance() as u64, Release) };
        if old.is_none() {
            shard.count.store(count + 1, Release);
        }
        shard.bytes.store(shard.bytes_after.load(Relaxed), Release);
        shard.fresh.store(0, Release);
        match old {
            Some(_) => free(&shard.retired),
            None if count >= shard.buckets.load(Relaxed) => self.grow(),
            None => {}
        }
        Ok(())
    }

    /// Removes an entry.
    pub(super) fn remove<V: StoredValue + ?Sized>(&self, place: &Place) {
        let shard = self.shard;
        // SAFETY: nodes of a chain, and the words in them, stay valid while the lock is held.
        let (pointer, node) = unsafe { (&*place.pointer, &*place.node) };
        let count = shard.count.load(Relaxed);
        shard.before.store(count, Release);
        shard.bucket.store(self.bucket_of(node.hash).unwrap_or_default(), Release);
        let bytes = shard.bytes.load(Relaxed);
        shard.bytes_before.store(bytes, Release);
        shard.bytes_after.store(bytes.wrapping_sub(self.node_bytes::<V>(place)), Release);
        shard.op.store(REMOVE, Release);
        shard.retired.store(place.node.expose_provenance() as u64, Release);
        pointer.store(node.next.load(Relaxed), Release);
        shard.count.store(count.wrapping_sub(1), Release);
        shard.bytes.store(shard.bytes_after.load(Relaxed), Release);
        free(&shard.retired);
    }

    /// Visits the nodes of the buckets from `from` on, to the end of the bucket in which it has
    /// visited `limit` nodes, and at most four times `limit` buckets. Returns the bucket to go on
    /// with; none: there are no more.
    ///
    /// A split leaves nodes in the old bucket or moves them to a new last one. Therefore a scan in
    /// the order of the buckets' numbers visits every node that exists throughout the scan, however
    /// often the table grows meanwhile.
    pub(super) fn scan<V: StoredValue + ?Sized>(
        &self,
        from: u64,
        limit: usize,
        mut visit: impl FnMut(&Self, &Place) -> Scan,
    ) -> Option<u64> {
        let mut visited = 0;
        let last = from.saturating_add((limit as u64).saturating_mul(4));
        let mut bucket = from;
        while bucket < self.shard.buckets.load(Relaxed) {
            if visited >= limit || bucket >= last {
                return Some(bucket);
            }
            let mut pointer: *const AtomicU64 = self.bucket(bucket)?;
            while let Some(node) = self.follow(pointer) {
                let place = Place { pointer, node };
                visited += 1;
                match visit(self, &place) {
                    Scan::Remove => self.remove::<V>(&place),
                    // SAFETY: the node was not removed.
                    Scan::Keep => pointer = unsafe { &raw const (*node).next },
                }
            }
            bucket += 1;
        }
        None
    }

    /// Size of a node in bytes, as it was when the node was made.
    fn node_bytes<V: StoredValue + ?Sized>(&self, place: &Place) -> u64 {
        // SAFETY: a node of a chain, which stays valid while the lock is held.
        let node = unsafe { &*place.node };
        value_offset(node.key_len as usize, V::ALIGN) as u64 + u64::from(node.value_len)
    }

    /// The node whose address is in a word; none at the end of a chain.
    #[inline(always)]
    fn follow(&self, pointer: *const AtomicU64) -> Option<*const Node> {
        // SAFETY: a bucket or the first word of a node; both stay valid while the lock is held.
        let address = unsafe { (*pointer).load(Acquire) };
        (address != 0).then(|| std::ptr::with_exposed_provenance(address as usize))
    }

    /// The bucket of a hash; none before there is a segment.
    #[inline(always)]
    fn bucket_of(&self, hash: u64) -> Option<u64> {
        let buckets = self.shard.buckets.load(Relaxed);
        // The largest power of two up to the number of buckets. Buckets below it may already be
        // split.
        let round = 1_u64 << buckets.checked_ilog2()?;
        let bucket = hash & (2 * round - 1);
        Some(if bucket < buckets { bucket } else { hash & (round - 1) })
    }

    /// The word of a bucket.
    #[inline(always)]
    fn bucket(&self, bucket: u64) -> Option<&AtomicU64> {
        let segment = self.segment(bucket / SEGMENT)?.load(Acquire);
        if segment == 0 {
            return None;
        }
        let words: *const AtomicU64 = std::ptr::with_exposed_provenance(segment as usize);
        // SAFETY: a segment has that many words and is never freed.
        Some(unsafe { &*words.add((bucket % SEGMENT) as usize) })
    }

    /// The word of the directory that has the address of a segment.
    #[inline(always)]
    fn segment(&self, segment: u64) -> Option<&AtomicU64> {
        let directory = self.shard.directory.load(Acquire);
        if directory == 0 {
            return None;
        }
        let words: *const AtomicU64 = std::ptr::with_exposed_provenance(directory as usize);
        // SAFETY: a directory starts with the number of words that follow. It is replaced under the
        // lock only.
        unsafe { (segment < (*words).load(Relaxed)).then(|| &*words.add(1 + segment as usize)) }
    }

    /// Allocates the first segment, when the shard is first used.
    #[cold]
    fn first_segment(&self) -> Result<(), MapError> {
        if self.make_segment(0) {
            self.shard.buckets.store(SEGMENT, Release);
            Ok(())
        } else {
            Err(MapError::NoMemory)
        }
    }

    /// Allocates the segment unless it exists, and makes the directory large enough for it. False
    /// without memory.
    #[cold]
    fn make_segment(&self, segment: u64) -> bool {
        if self.segment(segment).is_none() && !self.grow_directory() {
            return false;
        }
        let Some(word) = self.segment(segment) else { return false };
        word.load(Relaxed) != 0 || allocate(SEGMENT as usize * size_of::<u64>(), 64, abi::SHM_ZEROED, word).is_some()
    }

    /// Doubles the directory. Copies one word for each `SEGMENT` buckets.
    fn grow_directory(&self) -> bool {
        let shard = self.shard;
        let old: *const AtomicU64 = std::ptr::with_exposed_provenance(shard.directory.load(Relaxed) as usize);
        // SAFETY: as in `segment`.
        let old_len = if old.is_null() { 0 } else { unsafe { (*old).load(Relaxed) } };
        let new_len = if old_len == 0 { FIRST_DIRECTORY } else { 2 * old_len };
        let Some(block) = allocate((new_len as usize + 1) * size_of::<u64>(), 16, abi::SHM_ZEROED, &shard.next_directory) else {
            return false;
        };
        let new: *const AtomicU64 = block.cast();
        // SAFETY: both are that long; the new one is not in use yet.
        unsafe {
            (*new).store(new_len, Relaxed);
            for index in 1..=old_len as usize {
                (*new.add(index)).store((*old.add(index)).load(Relaxed), Relaxed);
            }
        }
        shard.last_directory.store(shard.directory.load(Relaxed), Release);
        shard.directory.store(shard.next_directory.load(Relaxed), Release);
        shard.next_directory.store(0, Release);
        free(&shard.last_directory);
        true
    }

    /// Adds a bucket. Without memory for it the chains get longer.
    #[cold]
    fn grow(&self) {
        let new = self.shard.buckets.load(Relaxed);
        if new.is_multiple_of(SEGMENT) && !self.make_segment(new / SEGMENT) {
            return;
        }
        self.split();
    }

    /// Splits the next bucket: adds a bucket after the last and moves the nodes to it that belong
    /// there.
    fn split(&self) {
        let shard = self.shard;
        let new = shard.buckets.load(Relaxed);
        let Some(round) = new.checked_ilog2().map(|bits| 1_u64 << bits) else { return };
        let (Some(from), Some(to)) = (self.bucket(new - round), self.bucket(new)) else { return };
        let mut pointer: *const AtomicU64 = from;
        while let Some(node) = self.follow(pointer) {
            // SAFETY: nodes of a chain, and the words in them, stay valid while the lock is held.
            let (word, header) = unsafe { (&*pointer, &*node) };
            if header.hash & (2 * round - 1) == new {
                shard.moving.store(node.expose_provenance() as u64, Release);
                word.store(header.next.load(Relaxed), Release);
                header.next.store(to.load(Relaxed), Release);
                to.store(node.expose_provenance() as u64, Release);
                shard.moving.store(0, Release);
            } else {
                pointer = &raw const header.next;
            }
        }
        shard.buckets.store(new + 1, Release);
    }

    /// Whether a node is in the chain of a bucket.
    fn is_in_chain(&self, bucket: u64, address: u64) -> bool {
        let Some(head) = self.bucket(bucket) else { return false };
        let mut pointer: *const AtomicU64 = head;
        while let Some(node) = self.follow(pointer) {
            if node.addr() as u64 == address {
                return true;
            }
            // SAFETY: a node of a chain.
            pointer = unsafe { &raw const (*node).next };
        }
        false
    }

    /// Finishes or undoes what a dead process has left. If this process dies in here, at any
    /// instruction, the next one repairs again.
    #[cold]
    fn repair(&self) {
        let shard = self.shard;
        let word = |word: &AtomicU64| word.load(Acquire);
        // A bucket that was being split. First, because the steps below search the chains.
        let moving = word(&shard.moving);
        let new = word(&shard.buckets);
        if let (Some(round), Some(to)) = (new.checked_ilog2().map(|bits| 1_u64 << bits), self.bucket(new)) {
            if moving != 0 && !self.is_in_chain(new - round, moving) && !self.is_in_chain(new, moving) {
                let node: *const Node = std::ptr::with_exposed_provenance(moving as usize);
                // SAFETY: it was in a chain, and no step frees a node that is being moved.
                unsafe { (*node).next.store(word(to), Release) };
                to.store(moving, Release);
            }
            shard.moving.store(0, Release);
            if word(to) != 0 {
                self.split();
            }
        }
        // A directory that was being replaced: keeps the one in use, frees the other.
        if word(&shard.next_directory) == word(&shard.directory) {
            shard.next_directory.store(0, Release);
        }
        if word(&shard.last_directory) == word(&shard.directory) {
            shard.last_directory.store(0, Release);
        }
        free(&shard.next_directory);
        free(&shard.last_directory);
        // An entry. Count and size first, while the journal still has their old values.
        let (fresh, retired, bucket) = (word(&shard.fresh), word(&shard.retired), word(&shard.bucket));
        let (fresh_in_chain, retired_in_chain) =
            (fresh != 0 && self.is_in_chain(bucket, fresh), retired != 0 && self.is_in_chain(bucket, retired));
        let before = word(&shard.before);
        match word(&shard.op) {
            INSERT if fresh != 0 => shard.count.store(before + u64::from(fresh_in_chain), Release),
            REMOVE if retired != 0 => shard.count.store(before.wrapping_sub(u64::from(!retired_in_chain)), Release),
            _ => {}
        }
        let (bytes_before, bytes_after) = (word(&shard.bytes_before), word(&shard.bytes_after));
        match word(&shard.op) {
            INSERT | REPLACE if fresh != 0 => shard.bytes.store(if fresh_in_chain { bytes_after } else { bytes_before }, Release),
            REMOVE if retired != 0 => shard.bytes.store(if retired_in_chain { bytes_before } else { bytes_after }, Release),
            _ => {}
        }
        if fresh_in_chain {
            shard.fresh.store(0, Release);
        } else {
            free(&shard.fresh);
        }
        if retired_in_chain {
            shard.retired.store(0, Release);
        } else {
            free(&shard.retired);
        }
    }
}

/// Allocates a block and writes its address to `into`: both or neither, even if this process dies.
#[inline]
fn allocate(size: usize, align: usize, flags: u32, into: &AtomicU64) -> Option<*mut u8> {
    owned::allocate(size, align, flags, Some(into)).map(std::ptr::NonNull::as_ptr)
}
