//! The trait that a module implements: one function per phase.
//!
//! Called by the entries in `export`, never by an author.

use crate::params::ParamSet;
use crate::{ChildInit, Destroy, ModInit, PostChildInit, ProcInit, ProcMain, Result};

/// A module: the value that [`init`](Module::init) makes in main, and of which every process later
/// has a copy.
///
/// ```text
/// main      init ─► proc_init ─┬─────────────────► proc_main ─┬─► post_child_init ─► (supervises) ─► destroy
///                              │ fork                         │ fork_process
/// child                        └─► child_init ─► handlers     └─► child_init ─► entry function
/// ```
///
/// Up to the end of `proc_init` the module can change (`&mut self`). After that it is frozen,
/// because from then on each process has a copy. Data that differs between processes belongs in
/// [`Child`](Module::Child); data that they share belongs in [`Shm`](crate::Shm),
/// [`ShmMutex`](crate::ShmMutex) and [`PerProcess`](crate::PerProcess).
pub trait Module: Sized + 'static {
    /// The parameters, a struct made by [`params!`](crate::params!); `()` for none.
    type Params: ParamSet;

    /// State of one process: connections, buffers, generators. `()` for none.
    type Child: 'static;

    /// Runs once in main, when all modules are loaded and configured, before any fork, in load
    /// order, as the starting user. The place for actions that need the starting user's rights, for
    /// [`register_procs`](ModInit::register_procs) and for listeners.
    ///
    /// Start no thread here: it would not exist in the children, but the locks that it holds would
    /// be locked there.
    ///
    /// # Errors
    /// An error or a panic stops the start of the host.
    fn init(cx: &mut ModInit<'_, Self>, params: Self::Params) -> Result<Self>;

    /// Runs once in main, before any fork, as the configured user, when every module's `init` has
    /// returned. The first function that can ask for the number of processes, and the last one that
    /// can change the module.
    ///
    /// # Errors
    /// An error or a panic stops the start of the host.
    fn proc_init(&mut self, cx: &mut ProcInit<'_, Self>) -> Result<()> {
        let _ = cx;
        Ok(())
    }

    /// Runs once in main, after the workers and timers are forked and just before the TCP processes
    /// are. The only place to fork further processes.
    ///
    /// # Errors
    /// An error or a panic stops the start of the host.
    fn proc_main(&self, cx: &mut ProcMain<'_, Self>) -> Result<()> {
        let _ = cx;
        Ok(())
    }

    /// Runs once in each forked process before it does any work, in several processes at the same
    /// time. Makes the process's state. The place for connections, threads and runtimes. Not called
    /// if the export says `child_init: false`.
    ///
    /// # Errors
    /// An error or a panic ends the process; during start-up that stops the start of the host.
    fn child_init(&self, cx: &mut ChildInit<'_>) -> Result<Self::Child>;

    /// Runs once in main, when every child has finished its own `child_init`; only if the export
    /// says `post_child_init: true`.
    ///
    /// # Errors
    /// An error or a panic stops the start of the host.
    fn post_child_init(&self, cx: &mut PostChildInit<'_>) -> Result<()> {
        let _ = cx;
        Ok(())
    }

    /// Runs once in main at the end, in reverse load order, when all other processes are gone. If
    /// the start fails, it runs for each module whose `init` had succeeded. Afterwards the module
    /// is dropped.
    fn destroy(&mut self, cx: &mut Destroy<'_>) {
        let _ = cx;
    }
}
