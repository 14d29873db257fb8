//! Processes: ranks, process ids, and the contexts of code that runs after a fork.
//!
//! Runs in every process. Forks nothing; `ProcMain` does.

use std::fmt;
use std::marker::PhantomData;

use crate::abi;
use crate::host::host;
use crate::listener::Listener;
use crate::rng::Rng;
use crate::{Result, phase::NotSend};

/// The kind of a process. Positive ranks are ordinary workers. Ranks are not unique;
/// [`process_no`](ChildInit::process_no) is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rank(i32);

impl Rank {
    /// A timer process.
    pub const TIMER: Rank = Rank(abi::PROC_TIMER);
    /// The control process.
    pub const RPC: Rank = Rank(abi::PROC_RPC);
    /// The TCP main process.
    pub const TCP_MAIN: Rank = Rank(abi::PROC_TCP_MAIN);
    /// A process that serves a Unix socket for control.
    pub const UNIX_SOCKET: Rank = Rank(abi::PROC_UNIXSOCK);

    /// The rank with this number.
    pub const fn new(number: i32) -> Rank {
        Rank(number)
    }

    /// The rank as a number.
    pub const fn number(self) -> i32 {
        self.0
    }
}

impl From<i32> for Rank {
    fn from(number: i32) -> Rank {
        Rank(number)
    }
}

impl fmt::Display for Rank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Rank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Rank::TIMER => f.write_str("TIMER"),
            Rank::RPC => f.write_str("RPC"),
            Rank::TCP_MAIN => f.write_str("TCP_MAIN"),
            Rank::UNIX_SOCKET => f.write_str("UNIX_SOCKET"),
            Rank(number) => number.fmt(f),
        }
    }
}

/// A process id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pid(i32);

impl Pid {
    /// The process id with this number.
    pub const fn new(pid: i32) -> Pid {
        Pid(pid)
    }

    /// The process id as a number.
    pub fn get(self) -> i32 {
        self.0
    }
}

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether a forked process gets a link to the TCP main process, over which it can send on TCP
/// connections that it does not own. Without TCP listeners there is no such process, and the
/// request is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MakeSock {
    /// A link.
    Yes,
    /// No link.
    No,
}

impl MakeSock {
    pub(crate) fn flags(self) -> u32 {
        match self {
            MakeSock::Yes => abi::FORK_MAKE_SOCK,
            MakeSock::No => 0,
        }
    }
}

/// Methods that every context has from `proc_init` on.
macro_rules! impl_sized_table {
    ($($context:ident [$($generics:tt)*] [$($arguments:tt)*]),* $(,)?) => {$(
        impl<$($generics)*> $context<$($arguments)*> {
            /// Size of the process table: main, workers, timers, control, TCP processes and
            /// everything registered. It does not change.
            pub fn max_procs(&self) -> usize {
                host().max_procs()
            }

            /// The `index`-th listener that this module's handlers serve.
            pub fn listener(&self, index: u32) -> Option<Listener> {
                Listener::find(index)
            }
        }
    )*};
}
pub(crate) use impl_sized_table;

/// Methods that every context has.
macro_rules! impl_random {
    ($($context:ident [$($generics:tt)*] [$($arguments:tt)*]),* $(,)?) => {$(
        impl<$($generics)*> $context<$($arguments)*> {
            /// A generator with its own seed, in each process and at every call; see [`Rng`].
            ///
            /// # Errors
            /// If the kernel's generator cannot be read.
            pub fn rng(&self) -> Result<Rng> {
                Rng::from_host()
            }

            /// Fills `buffer` from the kernel's generator. For keys and tokens.
            ///
            /// # Errors
            /// If the kernel's generator cannot be read.
            pub fn fill_random(&self, buffer: &mut [u8]) -> Result<()> {
                host().fill_random(buffer)
            }
        }
    )*};
}
pub(crate) use impl_random;

/// Methods of contexts in processes that were forked.
macro_rules! impl_identity {
    ($($context:ident),*) => {$(
        impl $context<'_> {
            /// Index of this process in the process table. Unique, and kept by a restart. Main is
            /// 0.
            pub fn process_no(&self) -> usize {
                usize::try_from(host().process_info().process_no).expect("a process of the host")
            }

            /// How often the slot of this process was restarted before.
            pub fn restarts(&self) -> u32 {
                host().process_info().restarts
            }

            /// The process id.
            pub fn pid(&self) -> Pid {
                Pid::new(host().process_info().pid)
            }
        }
    )*};
}

/// Context of [`Module::child_init`](crate::Module::child_init): a process that was just forked,
/// before it does any work.
///
/// In no-fork mode main, too, gets this call, with rank 1.
pub struct ChildInit<'a> {
    rank: Rank,
    phase: PhantomData<&'a NotSend>,
}

impl ChildInit<'_> {
    pub(crate) fn new(rank: Rank) -> Self {
        ChildInit { rank, phase: PhantomData }
    }

    /// The rank that the process was forked with.
    pub fn rank(&self) -> Rank {
        self.rank
    }
}

/// Context of the entry function of a process that
/// [`ProcMain::fork_process`](crate::ProcMain::fork_process) made.
pub struct Process<'a> {
    phase: PhantomData<&'a NotSend>,
}

impl Process<'_> {
    pub(crate) fn new() -> Self {
        Process { phase: PhantomData }
    }

    /// The rank that the process was forked with.
    pub fn rank(&self) -> Rank {
        Rank(host().process_info().rank)
    }
}

/// Context of a timer function, in one of the two timer processes.
pub struct TimerCx<'a> {
    expirations: u64,
    phase: PhantomData<&'a NotSend>,
}

impl TimerCx<'_> {
    pub(crate) fn new(expirations: u64) -> Self {
        TimerCx { expirations, phase: PhantomData }
    }

    /// Number of periods due since the last call: 1, or more if calls were missed.
    pub fn expirations(&self) -> u64 {
        self.expirations
    }
}

/// Context of [`Module::post_child_init`](crate::Module::post_child_init): main, when every child
/// has finished its own init.
pub struct PostChildInit<'a> {
    phase: PhantomData<&'a NotSend>,
}

impl PostChildInit<'_> {
    pub(crate) fn new() -> Self {
        PostChildInit { phase: PhantomData }
    }
}

/// Context of [`Module::destroy`](crate::Module::destroy): main, when every other process is gone.
pub struct Destroy<'a> {
    phase: PhantomData<&'a NotSend>,
}

impl Destroy<'_> {
    pub(crate) fn new() -> Self {
        Destroy { phase: PhantomData }
    }
}

impl_sized_table!(ChildInit[] ['_], Process[] ['_], TimerCx[] ['_], PostChildInit[] ['_]);
impl_random!(ChildInit[] ['_], Process[] ['_], TimerCx[] ['_], PostChildInit[] ['_], Destroy[] ['_]);
impl_identity!(ChildInit, Process, TimerCx);
