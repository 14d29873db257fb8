//! Sets up the calling process like main, without a configuration: for programs that measure or
//! kill a part of the host.

#![allow(dead_code)] // each program uses a part of this file

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use modhost::hostapi::HOST_API;
use modhost::module::{MARK, Module, call, loader};
use modhost::process::family::{self, Family, Linked};
use modhost::process::phase::{Breadcrumb, Phase};
use modhost::process::slots::Slots;
use modhost::state::{InitRequests, MainMemory, State};
use modhost::sys::fast_fork::process_identity::{self, this_process};
use module_api::abi;
use module_api::export::{ModuleCell, SLOT};
use nix::time::{ClockId, clock_gettime};

static LOG_LEVEL: AtomicU32 = AtomicU32::new(0);

/// Makes main's memory, with an arena of that size, and a state without modules. To be called once.
pub fn state(arena_bytes: usize) -> &'static State {
    process_identity::prepare().expect("the page of this process");
    let slots = Slots::new().expect("the process table");
    family::become_main(slots).expect("slot 0");
    MainMemory::new(arena_bytes).and_then(MainMemory::install).expect("main's memory");
    InitRequests::new(0).install().expect("the requests");
    let family = Family::new(slots, &[], vec![None], Linked::Nowhere, Vec::new()).expect("the family");
    State { operator_pid: 0, family, listeners: Vec::new(), directory: None, tls: None }.install().expect("the state")
}

pub fn memory() -> &'static MainMemory {
    MainMemory::current().expect("main's memory")
}

/// Makes this program a module that the host has loaded, and runs its `init`. To be called once.
pub fn become_module<M: module_api::Module>(state: &State, cell: &'static ModuleCell<M>) {
    let module = Box::leak(Box::new(Module {
        mark: MARK,
        index: 0,
        name: "probe".into(),
        version: String::new(),
        path: PathBuf::new(),
        flags: 0,
        init_f: None,
        init_child_f: None,
        destroy_f: None,
        handlers: Vec::new(),
        interfaces: Vec::new(),
        interface_tables: Vec::new(),
        imports: Vec::new(),
        registered: 0.into(),
        forked: 0.into(),
    }));
    let (api, module, log_level) = (&raw const HOST_API, std::ptr::from_mut(module).cast(), &raw const LOG_LEVEL);
    // SAFETY: no code of the module has run that could read the slot.
    unsafe { *SLOT.as_ptr() = abi::HostSlot { api, module, log_level, stat_home: this_process().stat_home() } };
    state.family.slots.slot(0).expect("main").trail().store(Breadcrumb::word(0, Phase::Init), SeqCst);
    // SAFETY: `init_f` is called once, in the only thread.
    assert_eq!(unsafe { cell.init_f() }, 0, "init");
}

/// Loads a module and initialises it as in a worker of rank 1.
pub fn load(path: &Path) -> &'static Module {
    let opened = loader::open(path).expect("the module");
    let module = opened.into_module(0, &HOST_API, modhost::log::module_level("probe"));
    call::init(module).expect("init_f");
    call::init_child(module, abi::PROC_INIT).expect("PROC_INIT");
    memory().stats.complete(1).expect("counters");
    call::init_child(module, 1).expect("rank 1");
    module
}

/// Nanoseconds of processor time per call, over `calls` calls, including the loop.
pub fn per_call(calls: u32, mut call: impl FnMut() -> i32) -> f64 {
    let used_ns =
        || clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map(|time| time.tv_sec() * 1_000_000_000 + time.tv_nsec()).expect("a clock");
    let before_ns = used_ns();
    for _ in 0..calls {
        assert!(call() >= 0);
    }
    (used_ns() - before_ns) as f64 / f64::from(calls)
}
