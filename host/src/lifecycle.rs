//! The documented sequence, from the first step to the last. This page is what `docs/lifecycle.md` describes; read them side by side.
//!
//! *Runs in:* main (and the supervisor's first two steps). *Never:* imported by anything but `main.rs`: it composes, it is no library.
//!
//! Each step takes the token of the step before it and gives its own, so that skipping, repeating or reordering a step does not compile.

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};

use module_api::abi;
use nix::unistd::{Pid, getppid, setpgid};

use crate::config::{Fork, ListenAddress};
use crate::control;
use crate::error::{EXIT_FAILED, EXIT_OK, Error, Result};
use crate::hostapi::HOST_API;
use crate::log::ProcessName;
use crate::module::{Module, call, loader};
use crate::net::address::Address;
use crate::net::bind;
use crate::net::listener::Listener;
use crate::net::stream::StreamListener;
use crate::net::stream::directory::{Directory, MAX_WORKERS};
use crate::net::stream::hub::HubLink;
use crate::net::{resolve, stream, udp};
use crate::plan::Plan;
use crate::process::family::{Family, Kind, Reserved, Spec, Work};
use crate::process::slots::{Slot, Slots, State as SlotState};
use crate::process::watch::{Event, Watch, describe};
use crate::state::{State, Streams, Wanted};
use crate::summary;
use crate::supervise::certificates::{Certificates, Judge};
use crate::supervise::policy::{End, Reached};
use crate::supervise::protocol::{FromMain, FromSupervisor};
use crate::supervise::supervisor::Cradle;
use crate::sys::fork::Alone;
use crate::sys::passing::Link;
use crate::sys::signal::{self, Signals};
use crate::sys::text::among_first_steps;
use crate::sys::title::{self, Comm};
use crate::sys::wide::Socket;
use crate::sys::{census, cred, datagrams, descriptor, fork, local, random, relocated, time};
use crate::timer::{self, TimerFunction, Which};
use crate::tls::Source;

/// Forks between two looks at whether the start is to stop: about two milliseconds.
const FORKS_BEFORE_LOOK: usize = 16;

/// Main, at whatever step it is.
#[derive(Debug)]
pub struct Main {
    plan: Arc<Plan>,
    state: &'static State,
    watch: Watch,
    /// The parent that main must not outlive.
    supervisor: Pid,
    /// When the command was started, for the time to ready.
    started_ns: u64,
    deadline_ns: u64,
    /// Further descriptors that children must not have.
    own: Vec<RawFd>,
    /// Descriptors that no child but the control process must have.
    controls_own: Vec<RawFd>,
    /// The control process's end of its link to main, and its socket, until it is forked.
    control: Option<control::Server>,
    /// Without a supervisor: the sockets whose files main removes at its end.
    files: Vec<Address>,
    /// Without a supervisor: the certificates, if there are some.
    certificates: Option<Certificates>,
}

/// Why a start does not go on.
#[derive(Debug)]
enum Halt {
    /// A step failed.
    Failed(Error),
    /// Somebody asked to stop.
    Stopped,
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

type Step<T> = std::result::Result<T, Halt>;

// The tokens. Each can only be made by its own step.
struct Loaded(());
struct Initialised(());
struct Sealed(());
struct Prepared(());
struct Forked(());
struct MainCalled(());
struct Started(());
struct Ready(());

/// What the supervisor's forked main does. Returns its exit code.
pub fn main_process(mut cradle: Cradle, plan: Arc<Plan>, started_ns: u64) -> u8 {
    let tls = cradle.tls.take();
    match Main::begin(&cradle, &plan, tls) {
        Ok((state, signals)) => Main::with(plan, state, Watch::new(signals, Some(cradle.link)), started_ns).live(),
        Err(error) => {
            let code = error.exit;
            if let Err(unheard) = cradle.link.tell(&FromMain::Failed(error)) {
                tracing::debug!("{unheard}");
            }
            code
        }
    }
}

/// No-fork mode: this very process is main, without a supervisor. Returns its exit code, or why it could not start.
/// Not inlined: what a caller's frame takes of the stack is copied with every fork of the main that is forked from there.
#[inline(never)]
pub fn no_fork(plan: Arc<Plan>, signals: Signals, started_ns: u64) -> Result<u8> {
    let pid_file = plan.config.host.pid_file.as_deref().map(crate::supervise::pid_file::PidFile::claim).transpose()?;
    let certificates = Certificates::of(plan.tls(), Judge::Here);
    let outcome = certificates.and_then(|certificates| {
        let source = |of: &Certificates| Ok(Source { reader: of.vault().reader().try_clone()?, files: of.files().clone() });
        let state = Main::state(&plan, Slots::new()?, certificates.as_ref().map(source).transpose()?)?;
        let mut main = Main::with(plan, state, Watch::new(signals, None), started_ns);
        main.own = pid_file.iter().map(|pid_file| pid_file.file().as_raw_fd()).collect();
        main.own.extend(certificates.iter().flat_map(|of| of.vault().descriptors()));
        main.certificates = certificates;
        main.live_alone()
    });
    if let Some(pid_file) = pid_file {
        pid_file.remove();
    }
    outcome
}

impl Main {
    /// The forked main settles in: tied to its supervisor, a group of its own, signals as a descriptor.
    fn begin(cradle: &Cradle, plan: &Plan, tls: Option<Source>) -> Result<(&'static State, Signals)> {
        fork::die_with_parent(cradle.supervisor)?;
        // Ctrl-C is for the supervisor alone.
        setpgid(Pid::from_raw(0), Pid::from_raw(0))
            .map_err(|errno| Error::failed("main cannot have a process group of its own").detail(format!("setpgid: {errno}")))?;
        for descriptor in &cradle.supervisors_own {
            // They were open a moment ago, in the supervisor.
            let _ = nix::unistd::close(*descriptor);
        }
        title::set_title("modhost: main");
        if let Err(error) = Comm::new(Kind::Main.comm()).show() {
            tracing::debug!("{error}");
        }
        crate::log::set_process(&ProcessName::new("main"));
        let signals = Signals::watch()?;
        Ok((Self::state(plan, cradle.slots, tls)?, signals))
    }

    /// What main and its children share.
    fn state(plan: &Plan, slots: Slots, tls: Option<Source>) -> Result<&'static State> {
        local::prepare()?;
        datagrams::reserve()?;
        signal::prepare_stop_by_flag()?;
        let pid = if plan.config.host.fork == Fork::Processes { getppid() } else { Pid::this() };
        State::new(pid.as_raw(), slots, plan.config.host.shared_memory_bytes, plan.listeners.len(), tls)?.install()
    }

    fn with(plan: Arc<Plan>, state: &'static State, watch: Watch, started_ns: u64) -> Self {
        let deadline_ns = time::now_ns() + plan.config.host.start_timeout.as_nanos() as u64;
        Self {
            plan,
            state,
            watch,
            supervisor: getppid(),
            started_ns,
            deadline_ns,
            own: Vec::new(),
            controls_own: Vec::new(),
            control: None,
            files: Vec::new(),
            certificates: None,
        }
    }

    /// Main's whole life under a supervisor.
    fn live(mut self) -> u8 {
        let outcome = self.start();
        let code = match outcome {
            Ok(ready) => self.supervise(&ready),
            Err(Halt::Stopped) => EXIT_OK,
            Err(Halt::Failed(error)) => {
                let code = error.exit;
                self.tell(&FromMain::Failed(error));
                code
            }
        };
        self.stop();
        code
    }

    /// Main's whole life without one.
    fn live_alone(mut self) -> Result<u8> {
        let outcome = match self.start() {
            Ok(ready) => Ok(self.serve_alone(&ready)),
            Err(Halt::Stopped) => Ok(EXIT_OK),
            Err(Halt::Failed(error)) => Err(error),
        };
        self.stop();
        self.files.drain(..).for_each(|address| bind::unbind(&address));
        outcome
    }

    /// The start, step by step. Steps 1 and 2 were the supervisor's: configure, daemonise, fork main.
    fn start(&mut self) -> Step<Ready> {
        let loaded = self.load()?; //                        3  load every module, check it, apply its parameters
        let initialised = self.init(loaded)?; //             4  init_f of every module, in load order
        let sealed = self.seal(initialised)?; //             5, 6  listeners received, process table sized, privileges dropped
        let prepared = self.proc_init(sealed)?; //           7  init_child_f(PROC_INIT)
        let forked = self.fork_all(prepared)?; //            8  workers, timers, control
        let main_called = self.proc_main(forked)?; //        9  init_child_f(PROC_MAIN): modules fork their processes
        let started = self.start_last(main_called)?; //      10 what is forked after PROC_MAIN; rank 1 of main in no-fork mode
        self.ready(started) //                               11, 12 every child is done, PROC_POSTCHILDINIT, ready
    }

    /// Step 3.
    fn load(&mut self) -> Step<Loaded> {
        // Threads and descriptors are counted around every call into a module.
        census::keep();
        let mut modules = Vec::with_capacity(self.plan.modules.len());
        // The index is that of the plan, which the supervisor has too, also when an optional module before it is left out.
        for (index, resolved) in (0_u32..).zip(&self.plan.modules) {
            let level = crate::log::module_level(&resolved.name);
            let opened = call::load(index, || loader::open(&resolved.path)).and_then(|opened| {
                opened.apply(&resolved.settings, &resolved.folders).map_err(|errors| first_of(errors, "parameters"))?;
                opened.into_module(index, &HOST_API, level)
            });
            match opened {
                Ok(module) if module.name == resolved.name => modules.push(module),
                Ok(module) => {
                    return Err(Halt::Failed(
                        Error::failed(format!("module \"{}\" has changed while it was being loaded", resolved.name)).detail(format!(
                            "{} now calls itself \"{}\"",
                            resolved.path.display(),
                            module.name
                        )),
                    ));
                }
                Err(error) if resolved.optional => tracing::warn!("optional module is left out: {error}"),
                Err(error) => return Err(Halt::Failed(error)),
            }
            loader::one_thread(&resolved.name)?;
        }
        for error in loader::bind(&modules)? {
            tracing::info!("an optional interface is not bound: {error}");
        }
        self.state.family.adopt_modules(modules)?;
        Ok(Loaded(()))
    }

    /// Step 4. Before any identity is given up: a module can bind port 80 or read a root-only file here.
    fn init(&mut self, _: Loaded) -> Step<Initialised> {
        for module in self.modules() {
            self.heed_stop()?;
            call::init(module)?;
            module.initialised.store(true, Relaxed);
        }
        Ok(Initialised(()))
    }

    /// Steps 5 and 6. After this nothing about listeners, processes and identity changes any more.
    fn seal(&mut self, _: Initialised) -> Step<Sealed> {
        self.heed_stop()?;
        let mut listeners = Vec::new();
        let mut streams = Vec::new();
        let plan = Arc::clone(&self.plan);
        for config in &plan.listeners {
            let module = self.modules().iter().find(|module| module.name == config.handler.module).copied();
            let Some(module) = module else { continue };
            let wanted = Wanted {
                addresses: config.addresses.clone(),
                options: config.options.clone(),
                module,
                handler: config.handler.handler.clone(),
                workers: config.workers,
            };
            self.bind_either(&wanted, &mut listeners, &mut streams)?;
        }
        let asked_for = std::mem::take(&mut *self.state.wanted.lock().unwrap_or_else(PoisonError::into_inner));
        for wanted in &asked_for {
            self.bind_either(wanted, &mut listeners, &mut streams)?;
        }
        if let (Some(path), Fork::Processes) = (&self.plan.config.host.control, self.plan.config.host.fork) {
            let socket = self.receive(&Address::Control(path.clone()))?;
            let (ours, theirs) = Link::pair()?;
            self.watch.hear_control(ours);
            let names = self.plan.modules.iter().map(|module| module.name.clone()).collect();
            self.controls_own = vec![socket.as_raw_fd(), theirs.as_fd().as_raw_fd()];
            self.control = Some(control::Server::new(socket, theirs, names, self.plan.config.host.stop_timeout));
        }
        let _ = self.state.listeners.set(listeners);
        self.prepare_streams(streams)?;
        self.state.family.fix(self.processes())?;
        self.link_tcp_workers()?;
        self.reserve_descriptors()?;
        if let Some(identity) = &self.plan.identity {
            cred::give_up_privileges(identity)?;
            if self.forks() {
                // The change of identity has untied main from its supervisor.
                fork::die_with_parent(self.supervisor)?;
            }
        }
        Ok(Sealed(()))
    }

    /// What the processes that serve connections share, if there are any.
    fn prepare_streams(&self, listeners: Vec<StreamListener>) -> Result<()> {
        if listeners.is_empty() {
            return Ok(());
        }
        descriptor::raise_limit();
        let workers = if self.forks() { (self.plan.config.host.workers as usize).min(MAX_WORKERS) } else { 1 };
        let directory = Directory::new(workers, listeners.len(), random::word()?)?;
        let _ = self.state.streams.set(Streams { directory, listeners });
        Ok(())
    }

    /// Main keeps both ends of every link between TCP main and another process.
    fn link_tcp_workers(&self) -> Result<()> {
        let family = &self.state.family;
        if self.state.streams.get().is_none() {
            return Ok(());
        }
        family.allow_links()?;
        let workers =
            (0..family.slots.count()).filter(|process_no| family.spec(*process_no).is_some_and(|spec| spec.kind == Kind::TcpWorker));
        workers.into_iter().try_for_each(|process_no| family.link(process_no))
    }

    /// What main has open and children must not have. Orders to main come from the control process alone.
    fn reserve_descriptors(&mut self) -> Result<()> {
        let mains = std::mem::take(&mut self.own).into_iter().chain(self.watch.descriptors());
        let mut reserved: Vec<Reserved> = mains.map(|descriptor| Reserved { descriptor, kind: Kind::Main }).collect();
        let controls = std::mem::take(&mut self.controls_own).into_iter();
        reserved.extend(controls.map(|descriptor| Reserved { descriptor, kind: Kind::Control }));
        let vault = self.state.tls.iter().map(|source| source.reader.as_fd().as_raw_fd());
        reserved.extend(vault.map(|descriptor| Reserved { descriptor, kind: Kind::TcpWorker }));
        self.state.family.reserve(reserved)
    }

    /// The one table of what exists, in the order of process numbers. None: a module will fork it.
    fn processes(&mut self) -> Vec<Option<Spec>> {
        let row = |kind, rank, name, work| Some(Spec::new(kind, rank, name, work));
        let state = self.state;
        let mut rows = vec![row(Kind::Main, abi::PROC_MAIN, "main".into(), Work::of(|| EXIT_FAILED))];
        let mut rank = 0;
        if self.forks() {
            for (place, listener) in state.listeners.get().into_iter().flatten().enumerate() {
                for _ in 0..listener.workers {
                    rank += 1;
                    rows.push(row(Kind::Worker, rank, format!("worker {rank} {listener}"), Work::Numbered(udp_worker, place)));
                }
            }
        }
        for which in [Which::Slow, Which::Fast] {
            rows.push(row(
                Kind::Timer,
                abi::PROC_TIMER,
                which.to_string(),
                Work::of(move || timer::run::work(&timer_functions(state, which))),
            ));
        }
        if let Some(server) = self.control.take() {
            rows.push(row(Kind::Control, abi::PROC_RPC, "control".into(), Work::of(move || server.work(state.family.slots, &state.stats))));
        }
        let registered: u32 = self.modules().iter().map(|module| module.registered.load(Relaxed)).sum();
        rows.extend((0..registered).map(|_| None));
        if let (Some(streams), true) = (state.streams.get(), self.forks()) {
            for index in 0..streams.directory.worker_count() {
                rank += 1;
                let work = move || tcp_worker(state, streams, index);
                rows.push(row(Kind::TcpWorker, rank, format!("TCP worker {rank}"), Work::of(work)));
            }
            rows.push(row(Kind::TcpMain, abi::PROC_TCP_MAIN, "TCP main".into(), Work::of(move || tcp_main(state, streams))));
        }
        rows
    }

    /// Step 7. The first `init_child_f` call of all; nothing has been forked before it has returned in every module.
    fn proc_init(&mut self, _: Sealed) -> Step<Prepared> {
        for module in self.modules() {
            self.heed_stop()?;
            call::init_child(module, abi::PROC_INIT)?;
        }
        self.state.stats.complete(self.state.family.slots.count())?;
        Ok(Prepared(()))
    }

    /// Step 8. What the table says, in its order; workers serve from the moment they are initialised.
    fn fork_all(&mut self, _: Prepared) -> Step<Forked> {
        let alone = fork::alone()?;
        // What only main's start has needed is not copied for every child.
        census::let_go();
        if self.forks() && self.plan.config.host.share_tables {
            relocated::share(&alone);
        }
        fork::give_back_memory();
        fork::on_a_page_of_its_own(|| self.fork_each(&alone, |kind| !matches!(kind, Kind::TcpWorker | Kind::TcpMain)))?;
        Ok(Forked(()))
    }

    /// Forks the processes of these kinds, in the order of the table. No module runs in main until the last of them is forked, so that it stays alone.
    #[inline(never)]
    fn fork_each(&mut self, alone: &Alone, is_due: impl Fn(Kind) -> bool) -> Step<()> {
        for (forked, process_no) in (1..self.state.family.slots.count()).enumerate() {
            if forked % FORKS_BEFORE_LOOK == 0 {
                self.heed_stop()?;
            }
            if self.state.family.spec(process_no).is_some_and(|spec| is_due(spec.kind)) {
                self.state.family.start(alone, process_no, 0)?;
            }
        }
        Ok(())
    }

    /// Step 9. Modules fork the processes they registered from here.
    fn proc_main(&mut self, _: Forked) -> Step<MainCalled> {
        census::keep();
        for module in self.modules() {
            self.heed_stop()?;
            call::init_child(module, abi::PROC_MAIN)?;
        }
        Ok(MainCalled(()))
    }

    /// Step 10: the TCP workers, then the TCP main process. In no-fork mode main is the first process, too: it gets rank 1 after `PROC_MAIN`.
    fn start_last(&mut self, _: MainCalled) -> Step<Started> {
        let alone = fork::alone()?;
        if self.state.streams.get().is_some() {
            // Each of these processes would have to close them.
            census::let_go();
        }
        fork::on_a_page_of_its_own(|| self.fork_each(&alone, |kind| matches!(kind, Kind::TcpWorker | Kind::TcpMain)))?;
        if !self.forks() {
            local::local().take_rank(1);
            for module in self.modules() {
                call::init_child(module, 1)?;
            }
        }
        Ok(Started(()))
    }

    /// Steps 11 and 12.
    fn ready(&mut self, _: Started) -> Step<Ready> {
        self.await_children()?;
        for module in self.modules() {
            if module.wants_post_child_init() {
                call::init_child(module, abi::PROC_POSTCHILDINIT)?;
            }
        }
        census::let_go();
        if let Some(main) = self.state.family.slots.slot(0) {
            main.set_state(SlotState::Serving);
        }
        let ready_ns = time::now_ns();
        self.tell(&FromMain::Ready);
        summary::log(self.state, ready_ns.saturating_sub(self.started_ns));
        Ok(Ready(()))
    }

    /// Waits until every forked child has finished its own initialisation. One that fails, or hangs past the limit, fails the start.
    fn await_children(&mut self) -> Step<()> {
        let family = &self.state.family;
        let forked = family.slots.iter().skip(1).filter(|(_, slot)| slot.state() != SlotState::Free).count() as u64;
        family.slots.await_children(forked);
        loop {
            if starting(family).is_none() {
                family.slots.await_nobody();
                return Ok(());
            }
            match self.watch.next(family, Some(self.deadline_ns))? {
                Event::Stop => return Err(Halt::Stopped),
                Event::Died { process_no, end, reached } => self.died_while_starting(process_no, end, reached)?,
                Event::Deadline => {
                    // Only now: who was starting when the wait began may be done, each child does not wake main.
                    let Some((process_no, slot)) = starting(family) else { continue };
                    return Err(Halt::Failed(
                        Error::failed("a process did not finish its initialisation in time")
                            .detail(format!(
                                "process {process_no} \"{}\" was {} after {} s",
                                slot.name(),
                                Watch::blame(family, process_no),
                                self.plan.config.host.start_timeout.as_secs_f64()
                            ))
                            .hint("raise host.start_timeout, or make that call return sooner"),
                    ));
                }
                Event::ChildrenDone | Event::ReadAgain | Event::Other => {}
            }
        }
    }

    fn died_while_starting(&mut self, process_no: usize, end: End, reached: Reached) -> Step<()> {
        let family = &self.state.family;
        if reached == Reached::Serving {
            self.watch.after_death(family, process_no, end, reached);
            return Ok(());
        }
        let name = family.slots.slot(process_no).map(|slot| slot.name()).unwrap_or_default();
        let error = Error::failed(format!("process {process_no} \"{name}\" {} in its initialisation", describe(end)))
            .detail(format!("it was {}", Watch::blame(family, process_no)));
        // A process that leaves by itself has said why; one that is killed has said nothing.
        Err(Halt::Failed(match end {
            End::Exit(_) => error.hint("the log has its reason"),
            End::Signal(_) => error,
        }))
    }

    /// Main supervises its children until it is told to stop. Returns its exit code.
    fn supervise(&mut self, _: &Ready) -> u8 {
        loop {
            let event = match self.watch.next(&self.state.family, self.watch.next_restart_ns()) {
                Ok(event) => event,
                Err(error) => {
                    tracing::error!("{error}");
                    return EXIT_FAILED;
                }
            };
            match event {
                Event::Stop => return EXIT_OK,
                Event::Died { process_no, end, reached } => self.watch.after_death(&self.state.family, process_no, end, reached),
                Event::ReadAgain => self.read_again(),
                Event::ChildrenDone | Event::Deadline | Event::Other => {}
            }
            self.watch.restart_due(&self.state.family);
        }
    }

    /// No-fork mode: main serves every listener itself, and supervises the few children it has, in one loop. Returns its exit code.
    fn serve_alone(&mut self, ready: &Ready) -> u8 {
        let server = match udp::Server::new() {
            Ok(server) => server,
            Err(error) => {
                tracing::error!("{error}");
                return EXIT_FAILED;
            }
        };
        let mut streams = match self.stream_server() {
            Ok(streams) => streams,
            Err(error) => {
                tracing::error!("{error}");
                return EXIT_FAILED;
            }
        };
        let listeners: &'static [Listener] = self.state.listeners.get().map_or(&[], Vec::as_slice);
        if listeners.is_empty() && streams.is_none() {
            return self.supervise(ready);
        }
        loop {
            let look_ns = streams.as_ref().and_then(stream::server::Server::next_look_ns);
            let sockets = listeners.iter().flat_map(|listener| &listener.sockets).map(|socket| socket.as_fd());
            let sockets = sockets.chain(streams.as_ref().map(stream::server::Server::descriptor));
            match self.watch.next_or_readable(&self.state.family, sockets, look_ns) {
                Ok(Event::Stop) => return EXIT_OK,
                Ok(Event::Died { process_no, end, reached }) => self.watch.after_death(&self.state.family, process_no, end, reached),
                Ok(Event::ReadAgain) => self.read_again(),
                Ok(_) => {}
                Err(error) => {
                    tracing::error!("{error}");
                    return EXIT_FAILED;
                }
            }
            self.watch.restart_due(&self.state.family);
            for (listener, socket) in listeners.iter().flat_map(|listener| listener.sockets.iter().map(move |socket| (listener, socket))) {
                if let Err(udp::GaveUp(code)) = server.serve(listener, socket, datagrams::Wait::Poll) {
                    return code;
                }
            }
            if let Some(streams) = &mut streams
                && let Err(udp::GaveUp(code)) = streams.turn(Some(0))
            {
                return code;
            }
        }
    }

    /// SIGHUP in no-fork mode. It may be that main, whom it has become, cannot read a key any more.
    fn read_again(&mut self) {
        if let Some(certificates) = &mut self.certificates {
            certificates.read_again();
        }
    }

    /// No-fork mode: main serves connections, and hears the processes with a link, which otherwise talk to TCP main.
    fn stream_server(&self) -> Result<Option<stream::server::Server>> {
        let Some(streams) = self.state.streams.get() else { return Ok(None) };
        let mut server =
            stream::server::Server::new(streams.directory, 0, &streams.listeners, None, streams.certificates(self.state.tls.as_ref())?)?;
        self.state.family.links().try_for_each(|(_, ends)| server.hear_guest(ends.hub.as_fd()))?;
        Ok(Some(server))
    }

    /// Step 13: the children first, then `destroy_f` of every module whose `init_f` has succeeded, in reverse load order.
    fn stop(&mut self) {
        self.tell(&FromMain::Stopping);
        if let Some(main) = self.state.family.slots.slot(0) {
            main.set_state(SlotState::Ended);
        }
        if let Err(error) = self.watch.stop_children(&self.state.family, self.plan.config.host.stop_timeout) {
            tracing::error!("{error}");
        }
        if self.watch.supervisor().is_none() {
            // Nobody watches over this process: the kernel ends it if destroy_f hangs.
            nix::unistd::alarm::set(self.plan.config.host.stop_timeout.as_secs().clamp(1, 86_400) as u32);
        }
        for module in self.modules().iter().rev() {
            if module.initialised.load(Relaxed) {
                call::destroy(module);
            }
        }
    }

    fn modules(&self) -> &'static [&'static Module] {
        self.state.family.modules()
    }

    fn forks(&self) -> bool {
        self.plan.config.host.fork == Fork::Processes
    }

    /// Between two calls of a start: has somebody asked to stop?
    fn heed_stop(&mut self) -> Step<()> {
        if self.watch.stop_asked()? { Err(Halt::Stopped) } else { Ok(()) }
    }

    /// Tells the supervisor, if there is one. If it is gone, so will be main in a moment.
    fn tell(&self, message: &FromMain) {
        if let Some(supervisor) = self.watch.supervisor()
            && let Err(error) = supervisor.tell(message)
        {
            tracing::debug!("{error}");
        }
    }

    /// Listeners of both kinds are numbered in one row.
    fn bind_either(&mut self, wanted: &Wanted, listeners: &mut Vec<Listener>, streams: &mut Vec<StreamListener>) -> Step<()> {
        let index = listeners.len() + streams.len();
        match wanted.addresses.first() {
            Some(ListenAddress::Tcp(_) | ListenAddress::Unix(_)) => streams.push(self.bind_stream(index, wanted)?),
            _ => listeners.push(self.bind(index, wanted)?),
        }
        Ok(())
    }

    fn bind(&mut self, index: usize, wanted: &Wanted) -> Step<Listener> {
        let module = wanted.module;
        let handler = module.handler(abi::HANDLER_UDP, wanted.handler.as_deref());
        let Some((handler, on_datagrams)) = handler.and_then(|handler| Some((handler, handler.on_datagrams?))) else {
            return Err(Halt::Failed(
                Error::config(format!("module \"{}\" has no datagram handler for {}", module.name, first(&wanted.addresses)))
                    .detail(wanted.handler.clone().unwrap_or_default())
                    .hint("see \"modhost inspect\" for its handlers"),
            ));
        };
        let sockets = self.sockets(wanted)?;
        Ok(Listener {
            index: index as u32,
            sockets,
            module,
            handler: handler.name.clone(),
            on_datagrams,
            workers: wanted.workers.unwrap_or(self.plan.config.host.workers),
        })
    }

    fn bind_stream(&mut self, index: usize, wanted: &Wanted) -> Step<StreamListener> {
        let module = wanted.module;
        let handler = module.handler(abi::HANDLER_STREAM, wanted.handler.as_deref());
        let Some((handler, functions)) = handler.and_then(|handler| Some((handler, handler.stream?))) else {
            return Err(Halt::Failed(
                Error::config(format!("module \"{}\" has no stream handler for {}", module.name, first(&wanted.addresses)))
                    .detail(wanted.handler.clone().unwrap_or_default())
                    .hint("see \"modhost inspect\" for its handlers"),
            ));
        };
        let sockets = self.sockets(wanted)?;
        let kind = if matches!(wanted.addresses.first(), Some(ListenAddress::Unix(_))) { "unix" } else { "tcp" };
        let names: Vec<String> = sockets.iter().map(|socket| socket.name.to_string()).collect();
        Ok(StreamListener {
            index: index as u32,
            name: format!("{kind} {}", names.join(",")),
            sockets,
            module,
            handler: handler.name.clone(),
            functions,
            options: wanted.options.stream,
            tls: wanted.options.tls.clone(),
        })
    }

    fn sockets(&mut self, wanted: &Wanted) -> Step<Vec<Socket>> {
        let mut sockets = Vec::new();
        for address in resolve::sockets(&wanted.addresses, &wanted.options)? {
            let descriptor = self.receive(&address)?;
            sockets.push(Socket::of(descriptor).map_err(|errno| {
                Error::failed("cannot find out where a listener is bound").detail(format!("{}: {errno}", first(&wanted.addresses)))
            })?);
        }
        Ok(sockets)
    }

    /// A bound socket: from the supervisor, or bound here when there is none.
    fn receive(&mut self, address: &Address) -> Step<std::os::fd::OwnedFd> {
        let Some(supervisor) = self.watch.supervisor() else {
            let socket = bind::bind(address, &self.plan.unix)?;
            self.files.push(address.clone());
            return Ok(socket);
        };
        supervisor.tell(&FromMain::Bind(address.clone()))?;
        match supervisor.wait()? {
            FromSupervisor::Bound(socket) => Ok(socket),
            FromSupervisor::NotBound(error) => Err(Halt::Failed(error)),
            FromSupervisor::Stop => Err(Halt::Stopped),
        }
    }
}

among_first_steps! {
/// What a UDP worker does, for the listener at that place among the bound ones.
#[inline(never)]
fn udp_worker(place: usize) -> u8 {
    match State::current().and_then(|state| state.listeners.get()?.get(place)) {
        Some(listener) => udp::work(listener),
        None => {
            tracing::error!(target: "fault", "a worker has no listener");
            EXIT_FAILED
        }
    }
}
}

/// What a TCP worker does.
fn tcp_worker(state: &'static State, streams: &'static Streams, index: usize) -> u8 {
    let link = usize::try_from(local::local().process_no()).ok().and_then(|process_no| state.family.own_end(process_no));
    match link {
        Some(link) => stream::server::work(streams.directory, index, &streams.listeners, link, streams.certificates(state.tls.as_ref())),
        None => {
            tracing::error!(target: "fault", "a TCP worker has no link");
            EXIT_FAILED
        }
    }
}

/// What the TCP main process does.
fn tcp_main(state: &'static State, streams: &'static Streams) -> u8 {
    let mut worker = 0..;
    let links = state.family.links().map(|(process_no, ends)| {
        let is_worker = state.family.spec(process_no).is_some_and(|spec| spec.kind == Kind::TcpWorker);
        HubLink { process_no: process_no as u32, worker: if is_worker { worker.next() } else { None }, end: ends.hub.as_fd() }
    });
    stream::hub::work(streams.directory, &streams.listeners, links.collect())
}

fn first(addresses: &[ListenAddress]) -> String {
    addresses.first().map(ToString::to_string).unwrap_or_default()
}

/// The first process that has not finished its initialisation.
fn starting(family: &Family) -> Option<(usize, Slot)> {
    family.slots.iter().skip(1).find(|(_, slot)| slot.state() == SlotState::Starting)
}

/// The functions of one timer process, as registered until now.
fn timer_functions(state: &State, which: Which) -> Vec<TimerFunction> {
    let timers = state.timers.lock().unwrap_or_else(PoisonError::into_inner);
    timers.iter().filter(|function| function.which == which).cloned().collect()
}

/// Several errors as one, for a message of fixed size.
fn first_of(mut errors: Vec<Error>, what: &str) -> Error {
    let more = errors.len().saturating_sub(1);
    let mut error = if errors.is_empty() { Error::config(what) } else { errors.remove(0) };
    if more > 0 {
        error.detail.push_str(&format!(" (and {more} more)"));
    }
    error
}
