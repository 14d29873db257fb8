//! Shared memory and the locks in it.

#[cfg(feature = "layout")]
use abi_stable::StableAbi;

/// `shm_malloc` flag: every byte of the block is zero.
pub const SHM_ZEROED: u32 = 1;

/// `mutex_lock`: the lock is held, and its last owner died holding it.
pub const OWNER_DIED: i32 = 1;

c_struct! {
    /// A lock in shared memory that several processes may take. All zero is not a valid lock: use
    /// `mutex_init`.
    #[repr(C, align(8))]
    #[cfg_attr(feature = "layout", derive(StableAbi))]
    #[derive(Debug)]
    pub struct Mutex as modhost_mutex {
        /// Read and written by the host only.
        pub opaque: [u64; 8],
    }
}

c_struct! {
    /// The process that died holding a lock.
    #[repr(C)]
    #[cfg_attr(feature = "layout", derive(StableAbi))]
    #[derive(Debug, Clone, Copy, Default)]
    pub struct DeadOwner as modhost_dead_owner {
        /// Process id; 0 if it died while taking or releasing the lock.
        pub pid: i32,
        /// Index in the process table; -1 if unknown.
        pub process_no: i32,
    }
}
