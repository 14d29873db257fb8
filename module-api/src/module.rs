//! The trait that a module implements: one function per phase.
//!
//! Called by the entries in `export`, never by an author.

use crate::params::ParamSet;
use crate::{ChildInit, Destroy, ModInit, PostChildInit, ProcInit, ProcMain, Result};

/// A module: the value that [`init`](Module::init) makes in main, which every process later has a copy of.
///
/// ```text
/// main      init ─► proc_init ─┬─────────────────► proc_main ─┬─► post_child_init ─► (supervises) ─► destroy
///                              │ fork                         │ fork_process
/// child                        └─► child_init ─► handlers     └─► child_init ─► entry function
/// ```
///
/// Up to the end of `proc_init` the module can change (`&mut self`). After that it is frozen, because from then on there is a copy of
/// it in each process: what differs between processes belongs into [`Child`](Module::Child), what they share into
/// [`Shm`](crate::Shm), [`ShmMutex`](crate::ShmMutex) and [`PerProcess`](crate::PerProcess).
pub trait Module: Sized + 'static {
    /// The parameters, a struct made by [`params!`](crate::params!); `()` for none.
    type Params: ParamSet;

    /// What each process has for itself: connections, buffers, generators. `()` for nothing.
    type Child: 'static;

    /// Runs once in main, when everything is loaded and configured, before any fork, in load order, as the starting user: the place
    /// for what needs rights, for [`register_procs`](ModInit::register_procs) and for listeners.
    ///
    /// Start no thread here: it would not exist in the children, but the locks it holds would.
    ///
    /// # Errors
    /// An error or a panic stops the start of the host.
    fn init(cx: &mut ModInit<'_, Self>, params: Self::Params) -> Result<Self>;

    /// Runs once in main, before any fork, as the configured user, when every module's `init` has returned: the first place that
    /// knows the number of processes, and the last one that can change the module.
    ///
    /// # Errors
    /// An error or a panic stops the start of the host.
    fn proc_init(&mut self, cx: &mut ProcInit<'_, Self>) -> Result<()> {
        let _ = cx;
        Ok(())
    }

    /// Runs once in main, when workers and timers are forked and just before the TCP processes are: the one place to fork more.
    ///
    /// # Errors
    /// An error or a panic stops the start of the host.
    fn proc_main(&self, cx: &mut ProcMain<'_, Self>) -> Result<()> {
        let _ = cx;
        Ok(())
    }

    /// Runs once in each forked process, before that process does any work, at the same time as in others: the place for connections,
    /// threads and runtimes. Makes the state that only this process has. Not called if the export says `child_init: false`.
    ///
    /// # Errors
    /// An error or a panic ends the process; during start-up that stops the start of the host.
    fn child_init(&self, cx: &mut ChildInit<'_>) -> Result<Self::Child>;

    /// Runs once in main, when every child has finished its own `child_init`; only if the export says `post_child_init: true`.
    ///
    /// # Errors
    /// An error or a panic stops the start of the host.
    fn post_child_init(&self, cx: &mut PostChildInit<'_>) -> Result<()> {
        let _ = cx;
        Ok(())
    }

    /// Runs once in main at the end, in reverse load order, when all other processes are gone, and for each module whose `init`
    /// succeeded if the start failed later. Then the module is dropped.
    fn destroy(&mut self, cx: &mut Destroy<'_>) {
        let _ = cx;
    }
}
