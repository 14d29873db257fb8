//! The contexts of the phases in main: what `init`, `proc_init` and `proc_main` may do.
//!
//! Each context has the host's functions that its phase allows, and no others: a wrong call does
//! not compile.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::time::Duration;

use crate::abi::{self, ForkSpec, TimerSpec};
use crate::export::ModuleCell;
use crate::guard::guard;
use crate::host::{c_string, check, host};
use crate::interface::{self, Callback, Interface, Subject};
use crate::listener::{Listener, UdpListen};
use crate::mutex::{self, ShmMutex};
use crate::process::{MakeSock, Pid, Process, Rank, TimerCx, impl_random, impl_sized_table};
use crate::rng::Rng;
use crate::shm::{self, MapKey, MapOptions, MapValue, PerProcess, Shm, ShmMap, ShmSafe};
use crate::timer::Timer;
use crate::{Error, Module, Result};

/// In a `PhantomData`, makes a type neither `Send` nor `Sync`: contexts and callbacks belong to the
/// one thread in which the host calls modules, a held lock to the thread that took it.
pub(crate) type NotSend = *const ();

/// Context of [`Module::init`]: main, before any fork, as the starting user.
///
/// All modules are loaded and configured. The number of processes is not known yet, and nothing may
/// be forked.
pub struct ModInit<'a, M: Module> {
    cell: &'static ModuleCell<M>,
    phase: PhantomData<&'a NotSend>,
}

/// Context of [`Module::proc_init`]: main, before any fork, as the configured user. The number of
/// processes is known.
pub struct ProcInit<'a, M: Module> {
    cell: &'static ModuleCell<M>,
    phase: PhantomData<&'a NotSend>,
}

/// Context of [`Module::proc_main`]: main, with workers and timers forked already. The place to
/// fork more.
pub struct ProcMain<'a, M: Module> {
    cell: &'static ModuleCell<M>,
    phase: PhantomData<&'a NotSend>,
}

impl<M: Module> ModInit<'_, M> {
    pub(crate) fn new(cell: &'static ModuleCell<M>) -> Self {
        ModInit { cell, phase: PhantomData }
    }

    /// Announces that the module will fork `count` processes in `proc_main`. Calls add up.
    ///
    /// # Errors
    /// If `count` is 0, or more than the host has room for.
    pub fn register_procs(&mut self, count: u32) -> Result<()> {
        let count = i32::try_from(count).unwrap_or(i32::MAX);
        let host = host();
        check("register_procs", (host.api.register_procs)(host.module, count)).map(drop)
    }

    /// Asks for a listener. The host binds it after every module's `init`, with the rights of the
    /// starting user. It has one address and no options; several addresses, buffer sizes and other
    /// options can only be configured.
    ///
    /// # Errors
    /// If the address cannot be parsed, or the module has no such handler.
    pub fn listen_udp(&mut self, listen: UdpListen<'_>) -> Result<Listener> {
        listen.register()
    }

    /// Asks for a listener for connections at `ADDRESS:PORT` (with port 0 the kernel chooses the
    /// port). It is served by the named stream handler of the module, or by its first one, with the
    /// default limits of connections. The host binds it after every module's `init`, with the
    /// rights of the starting user.
    ///
    /// # Errors
    /// If the address cannot be parsed, or the module has no such handler.
    pub fn listen_tcp(&mut self, address: &str, handler: Option<&str>) -> Result<Listener> {
        Listener::ask(abi::HANDLER_STREAM, address, handler, 0)
    }
}

impl<M: Module> ProcInit<'_, M> {
    pub(crate) fn new(cell: &'static ModuleCell<M>) -> Self {
        ProcInit { cell, phase: PhantomData }
    }

    /// One value per process, zero at first, each in its own cache line.
    ///
    /// # Errors
    /// If shared memory is exhausted.
    pub fn per_process<T: ShmSafe + Sync>(&mut self) -> Result<PerProcess<T>> {
        shm::per_process(self.max_procs())
    }
}

/// Shared memory, timers and interfaces: `init` and `proc_init`.
macro_rules! impl_set_up {
    ($($context:ident),*) => {$(
        impl<M: Module> $context<'_, M> {
            /// Moves `value` to shared memory.
            ///
            /// # Errors
            /// If shared memory is exhausted.
            pub fn shm<T: ShmSafe + Sync>(&mut self, value: T) -> Result<Shm<T>> {
                shm::value(value)
            }

            /// A value of zero bytes in shared memory, made in place: large values do not pass over
            /// the stack.
            ///
            /// # Errors
            /// If shared memory is exhausted.
            pub fn shm_zeroed<T: ShmSafe + Sync>(&mut self) -> Result<Shm<T>> {
                shm::zeroed()
            }

            /// `len` values of zero bytes in shared memory.
            ///
            /// # Errors
            /// If shared memory is exhausted.
            pub fn shm_slice<T: ShmSafe + Sync>(&mut self, len: usize) -> Result<Shm<[T]>> {
                shm::zeroed_slice(len)
            }

            /// Moves `value` to shared memory, under a lock.
            ///
            /// # Errors
            /// If shared memory is exhausted.
            pub fn mutex<T: ShmSafe + Send>(&mut self, value: T) -> Result<ShmMutex<T>> {
                mutex::new(value)
            }

            /// An empty map in shared memory, for all processes.
            ///
            /// # Errors
            /// If shared memory is exhausted, or the options are out of their range.
            pub fn shm_map<K: MapKey + ?Sized, V: MapValue + ?Sized>(&mut self, options: MapOptions) -> Result<ShmMap<K, V>> {
                shm::new_map(options)
            }

            /// A function for another module to call, in any process, with that process's child
            /// state; see [`interface`](mod@crate::interface). It is kept for good.
            pub fn callback<S, F>(&mut self, function: F) -> Callback<S>
            where
                S: Subject + 'static,
                F: Fn(&M, &mut M::Child, S::View<'_>) -> Result<()> + 'static,
            {
                callback(self.cell, function)
            }

            /// The interface of another module, which must be in `binds` of
            /// [`export_module!`](crate::export_module!).
            ///
            /// # Errors
            /// If it is not in `binds`.
            pub fn interface<I: Interface>(&self) -> Result<I> {
                interface::required()
            }

            /// The interface of another module; none if no module exports it. It must be in
            /// `binds_if_present` of [`export_module!`](crate::export_module!).
            pub fn interface_if_present<I: Interface>(&self) -> Option<I> {
                interface::find()
            }

            /// Calls `function` in a timer process, with that process's child state.
            ///
            /// If it returns an error, the error is logged and the timer goes on. A panic ends the
            /// timer process, which is restarted.
            ///
            /// # Errors
            /// If the period is zero or longer than 500 years.
            pub fn timer<F>(&mut self, timer: Timer<'_>, function: F) -> Result<()>
            where
                F: Fn(&M, &mut M::Child, &mut TimerCx<'_>) -> Result<()> + 'static,
            {
                add_timer(self.cell, timer, function)
            }
        }
    )*};
}
impl_set_up!(ModInit, ProcInit);

impl<M: Module> ProcMain<'_, M> {
    pub(crate) fn new(cell: &'static ModuleCell<M>) -> Self {
        ProcMain { cell, phase: PhantomData }
    }

    /// Forks one of the processes that the module registered in `init`, and returns its process id.
    ///
    /// In the new process `child_init` of every module runs with `rank`, then `entry` with the
    /// module and its child state. When `entry` returns, the process ends: with success for `Ok`,
    /// with failure for an error or a panic. The restart policy decides what happens next; main
    /// keeps `entry` for restarts. `name`, at most 31 bytes, is shown in the process title.
    ///
    /// # Errors
    /// If the module registered fewer processes, or `rank` cannot be forked: 0 and the ranks of
    /// main.
    pub fn fork_process<F>(&mut self, rank: impl Into<Rank>, name: &str, make_sock: MakeSock, entry: F) -> Result<Pid>
    where
        F: Fn(&M, &mut M::Child, &mut Process<'_>) -> Result<()> + 'static,
    {
        let rank = rank.into();
        if rank.number() == abi::PROC_NOCHLDINIT {
            return Err("fork_process: this rank has no child_init and so no child state; see fork_bare_process".into());
        }
        fork(self.cell, rank, name, make_sock, move |cell: &'static ModuleCell<M>| {
            cell.with_child(|module, child| entry(module, child, &mut Process::new()))
        })
    }

    /// As [`fork_process`](ProcMain::fork_process), but no module's `child_init` runs in the
    /// process: `entry` gets no child state, and no other module knows of the process.
    ///
    /// # Errors
    /// If the module registered fewer processes.
    pub fn fork_bare_process<F>(&mut self, name: &str, make_sock: MakeSock, entry: F) -> Result<Pid>
    where
        F: Fn(&M, &mut Process<'_>) -> Result<()> + 'static,
    {
        fork(self.cell, Rank::new(abi::PROC_NOCHLDINIT), name, make_sock, move |cell: &'static ModuleCell<M>| {
            cell.with_module(|module| entry(module, &mut Process::new()))
        })
    }
}

impl_sized_table!(ProcInit[M: Module] ['_, M], ProcMain[M: Module] ['_, M]);
impl_random!(ModInit[M: Module] ['_, M], ProcInit[M: Module] ['_, M], ProcMain[M: Module] ['_, M]);

/// The data that is passed back to a callback: the module and the author's function. Leaked,
/// because every later fork may use it.
struct Kept<M: Module, F> {
    cell: &'static ModuleCell<M>,
    function: F,
}

impl<M: Module, F> Kept<M, F> {
    fn leak(cell: &'static ModuleCell<M>, function: F) -> *mut c_void {
        Box::into_raw(Box::new(Kept { cell, function })).cast()
    }

    /// # Safety
    /// `data` must come from `leak` with the same types.
    unsafe fn from_data(data: *mut c_void) -> &'static Self {
        // SAFETY: the caller's contract; nobody frees it or has a mutable reference to it.
        unsafe { &*data.cast::<Self>() }
    }
}

fn callback<M, S, F>(cell: &'static ModuleCell<M>, function: F) -> Callback<S>
where
    M: Module,
    S: Subject + 'static,
    F: Fn(&M, &mut M::Child, S::View<'_>) -> Result<()> + 'static,
{
    extern "C" fn run<M, S, F>(data: *mut c_void, subject: *mut S::Raw) -> i32
    where
        M: Module,
        S: Subject + 'static,
        F: Fn(&M, &mut M::Child, S::View<'_>) -> Result<()> + 'static,
    {
        interface::blamed(|| {
            if subject.is_null() {
                return Err("another module called back without a subject".into());
            }
            // SAFETY: `callback` passed data of these types with this function.
            let kept = unsafe { Kept::<M, F>::from_data(data) };
            // SAFETY: the calling module keeps the subject valid, and for this call alone, until
            // this returns.
            kept.cell.with_child(|module, child| (kept.function)(module, child, unsafe { S::view(subject) }))
        })
    }

    // SAFETY: the data has the types that the function expects, and is kept for good.
    unsafe { Callback::new(run::<M, S, F>, Kept::leak(cell, function)) }
}

fn fork<M, F>(cell: &'static ModuleCell<M>, rank: Rank, name: &str, make_sock: MakeSock, entry: F) -> Result<Pid>
where
    M: Module,
    F: Fn(&'static ModuleCell<M>) -> Result<()> + 'static,
{
    extern "C" fn run<M: Module, F: Fn(&'static ModuleCell<M>) -> Result<()> + 'static>(data: *mut c_void) -> i32 {
        let code = guard(|| {
            // SAFETY: `fork` passed data of these types with this function.
            let callback = unsafe { Kept::<M, F>::from_data(data) };
            (callback.function)(callback.cell)
        });
        // The process exits without the destructors that would write the buffer out.
        crate::export::flush_stdout();
        code
    }

    let name = c_string("process name", name)?;
    let spec = ForkSpec {
        size: size_of::<ForkSpec>() as u32,
        flags: make_sock.flags(),
        rank: rank.number(),
        name: name.as_ptr(),
        entry: Some(run::<M, F>),
        data: Kept::leak(cell, entry),
        ..ForkSpec::EMPTY
    };
    // The child, too, would print text that is left in the buffer.
    crate::export::flush_stdout();
    let host = host();
    let pid = check("fork_process", (host.api.fork_process_entry)(host.module, &raw const spec))?;
    Ok(Pid::new(pid as i32))
}

fn add_timer<M, F>(cell: &'static ModuleCell<M>, timer: Timer<'_>, function: F) -> Result<()>
where
    M: Module,
    F: Fn(&M, &mut M::Child, &mut TimerCx<'_>) -> Result<()> + 'static,
{
    extern "C" fn run<M, F>(data: *mut c_void, expirations: u64) -> i32
    where
        M: Module,
        F: Fn(&M, &mut M::Child, &mut TimerCx<'_>) -> Result<()> + 'static,
    {
        guard(|| {
            // SAFETY: `add_timer` passed data of these types with this function.
            let callback = unsafe { Kept::<M, F>::from_data(data) };
            callback.cell.with_child(|module, child| (callback.function)(module, child, &mut TimerCx::new(expirations)))
        })
    }

    let name = c_string("timer name", timer.name)?;
    if timer.period == Some(Duration::ZERO) {
        return Err(Error::new(format_args!("timer {:?} has a period of zero", timer.name)));
    }
    let spec = TimerSpec {
        size: size_of::<TimerSpec>() as u32,
        process: timer.process,
        name: name.as_ptr(),
        first_ns: timer.nanoseconds(timer.first)?,
        period_ns: timer.nanoseconds(timer.period.unwrap_or_default())?,
        function: Some(run::<M, F>),
        data: Kept::leak(cell, function),
    };
    let host = host();
    check("timer_add", (host.api.timer_add)(host.module, &raw const spec)).map(drop)
}
