//! The documented sequence, from the first module that is loaded to readiness. `docs/lifecycle.md`
//! describes this page; read them side by side.
//!
//! *Runs in:* main. *Never:* holds anything but the order: what a step needs is in the files beside
//! it.
//!
//! Each step takes the value that the step before it made, with what is in it, and makes the next
//! one. Skipping, repeating or reordering a step, or reading too early, does not compile.

use module_api::abi;

use super::life::{Halt, Main, Step};
use super::{await_children, listeners, roster};
use crate::config::Fork;
use crate::error::Error;
use crate::module::{Module, call, loader};
use crate::process::kinds::Forked;
use crate::process::slots::SlotState;
use crate::state::{self, ListenerRequest, State};
use crate::summary;
use crate::supervise::protocol::FromMain;
use crate::sys::fast_fork;
use crate::sys::fast_fork::process_identity::this_process;
use crate::sys::process::{counts, credentials, fork};
use crate::sys::time;

/// Main has a process group, its signals, the process table and its shared memory.
pub struct Begun;

/// Every module is loaded.
pub struct Loaded {
    modules: &'static [&'static Module],
}

/// Every `init_f` has returned.
pub struct Initialised {
    modules: &'static [&'static Module],
    /// The listeners that modules asked for.
    requests: Vec<ListenerRequest>,
}

/// Listeners, processes and identity are fixed: [`State`] is whole.
pub struct Sealed {
    state: &'static State,
}

/// `init_child_f(PROC_INIT)` has returned in every module.
pub struct Prepared {
    state: &'static State,
}

/// Workers, timers and the control process run.
pub struct HostForked {
    state: &'static State,
}

/// `init_child_f(PROC_MAIN)` has returned in every module: their processes run.
pub struct ModulesForked {
    state: &'static State,
}

/// Every process of the table runs.
pub struct AllForked {
    state: &'static State,
}

/// Every child is initialised, and whoever waits for it knows.
pub struct Ready {
    /// What supervising needs.
    pub state: &'static State,
}

impl<'l> Main<'l, Begun> {
    /// The start, step by step. Steps 1 and 2 were the supervisor's: configure, daemonise, fork
    /// main.
    pub fn start(self) -> Step<Ready> {
        let ready = self
            .load()? //        3      every module is loaded and checked, its parameters are applied
            .init_f()? //      4      init_f of every module, in load order, as the starting user
            .seal()? //        5, 6   listeners received, process table sized, privileges dropped
            .proc_init()? //   7      init_child_f(PROC_INIT)
            .fork_all()? //    8      UDP workers, timers, control
            .proc_main()? //   9      init_child_f(PROC_MAIN): modules fork their processes
            .start_tcp()? //   10     TCP workers, TCP main; in no-fork mode rank 1 of main
            .ready()?; //      11, 12 every child is done, PROC_POSTCHILDINIT, ready
        Ok(ready.made)
    }

    /// Step 3.
    fn load(self) -> Step<Main<'l, Loaded>> {
        // Threads and descriptors are counted around every call into a module.
        counts::keep();
        let modules = self.life.load_modules()?;
        for error in loader::import_interfaces(&modules)? {
            tracing::info!("an optional interface is not imported: {error}");
        }
        let modules = state::install_modules(modules)?;
        Ok(self.made(|_| Loaded { modules }))
    }
}

impl<'l> Main<'l, Loaded> {
    /// Step 4. Before any identity is given up: a module can bind port 80 or read a root-only file.
    fn init_f(self) -> Step<Main<'l, Initialised>> {
        for module in self.made.modules {
            self.life.check_for_stop()?;
            call::init(module)?;
            self.life.initialised.push(module);
        }
        let requests = std::mem::take(&mut *self.life.requests.listeners());
        Ok(self.made(|loaded| Initialised { modules: loaded.modules, requests }))
    }
}

impl<'l> Main<'l, Initialised> {
    /// Steps 5 and 6. After this, listeners, processes and identity never change.
    fn seal(self) -> Step<Main<'l, Sealed>> {
        self.life.check_for_stop()?;
        let Initialised { modules, requests } = self.made;
        let listeners = listeners::receive_all(self.life, modules, &requests)?;
        let control = listeners::receive_control(self.life)?;
        let state = roster::fix(self.life, modules, listeners, control)?;
        if let Some(identity) = &self.life.plan.identity {
            credentials::give_up_privileges(identity)?;
            if self.life.plan.config.host.fork == Fork::Processes {
                // A change of user clears the tie to the parent.
                fork::die_with_parent(self.life.supervisor)?;
            }
        }
        self.life.state = Some(state);
        Ok(Main { life: self.life, made: Sealed { state } })
    }
}

impl<'l> Main<'l, Sealed> {
    /// Step 7. The first `init_child_f` of all: nothing is forked before it has returned in every
    /// module.
    fn proc_init(self) -> Step<Main<'l, Prepared>> {
        let state = self.made.state;
        for module in state.family.modules() {
            self.life.check_for_stop()?;
            call::init_child(module, abi::PROC_INIT)?;
        }
        self.life.memory.stats.complete(state.family.slots.count())?;
        Ok(self.made(|_| Prepared { state }))
    }
}

impl<'l> Main<'l, Prepared> {
    /// Step 8. In the order of the table. Workers serve as soon as they are initialised.
    fn fork_all(self) -> Step<Main<'l, HostForked>> {
        let state = self.made.state;
        // Each child would have to close them.
        counts::let_go();
        fast_fork::trim();
        roster::fork_each(self.life, state, Forked::BeforeProcMain)?;
        Ok(self.made(|_| HostForked { state }))
    }
}

impl<'l> Main<'l, HostForked> {
    /// Step 9. Here modules fork the processes that they registered.
    fn proc_main(self) -> Step<Main<'l, ModulesForked>> {
        let state = self.made.state;
        counts::keep();
        for module in state.family.modules() {
            self.life.check_for_stop()?;
            call::init_child(module, abi::PROC_MAIN)?;
        }
        Ok(self.made(|_| ModulesForked { state }))
    }
}

impl<'l> Main<'l, ModulesForked> {
    /// Step 10. In no-fork mode main is the first worker, too: rank 1 after `PROC_MAIN`.
    fn start_tcp(self) -> Step<Main<'l, AllForked>> {
        let state = self.made.state;
        if state.directory.is_some() {
            counts::let_go();
        }
        roster::fork_each(self.life, state, Forked::AfterProcMain)?;
        if self.life.plan.config.host.fork == Fork::NoFork {
            this_process().take_rank(1);
            for module in state.family.modules() {
                call::init_child(module, 1)?;
            }
        }
        Ok(self.made(|_| AllForked { state }))
    }
}

impl<'l> Main<'l, AllForked> {
    /// Steps 11 and 12.
    fn ready(self) -> Step<Main<'l, Ready>> {
        let state = self.made.state;
        await_children::await_children(self.life, state)?;
        for module in state.family.modules() {
            if module.wants_post_child_init() {
                call::init_child(module, abi::PROC_POSTCHILDINIT)?;
            }
        }
        counts::let_go();
        if let Some(main) = state.family.slots.slot(0) {
            main.set_state(SlotState::Serving);
        }
        let ready_ns = time::now_ns();
        self.life.tell(&FromMain::Ready);
        summary::log(state, ready_ns.saturating_sub(self.life.started_ns));
        Ok(self.made(|_| Ready { state }))
    }
}

impl<'l, S> Main<'l, S> {
    /// The next step, with what this one has made.
    fn made<N>(self, next: impl FnOnce(S) -> N) -> Main<'l, N> {
        Main { life: self.life, made: next(self.made) }
    }
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}
