//! The entries of a module, called as a host calls them.

use std::cell::Cell as StdCell;

use crate::abi::*;
use crate::export::ModuleCell;
use crate::fake::{fake, install};
use crate::prelude::*;

/// Records each call, and fails or panics where a test wants it to.
struct Probe {
    processes: usize,
    drops: DropNote,
}

/// Records its text when it is dropped.
struct DropNote(&'static str);

impl Drop for DropNote {
    fn drop(&mut self) {
        note(self.0);
    }
}

thread_local! {
    static CALLS: StdCell<Vec<String>> = const { StdCell::new(Vec::new()) };
    static TROUBLE: StdCell<Trouble> = const { StdCell::new(Trouble::None) };
}

#[derive(Clone, Copy, PartialEq)]
enum Trouble {
    None,
    Error(&'static str),
    Panic(&'static str),
}

fn note(call: impl Into<String>) {
    let mut calls = CALLS.take();
    calls.push(call.into());
    CALLS.set(calls);
}

fn calls() -> Vec<String> {
    CALLS.take()
}

fn step(name: &'static str) -> Result<()> {
    note(name);
    match TROUBLE.get() {
        Trouble::Error(at) if at == name => Err("wanted by the test".into()),
        Trouble::Panic(at) if at == name => panic!("wanted by the test in {name}"),
        _ => Ok(()),
    }
}

impl Module for Probe {
    type Params = ();
    type Child = ProbeChild;

    fn init(cx: &mut ModInit<'_, Self>, (): ()) -> Result<Self> {
        step("init")?;
        cx.register_procs(2)?;
        cx.timer(Timer::every("tick", Duration::from_secs(2)).slow().first_after(Duration::from_millis(5)), |probe, child, cx| {
            child.calls += 1;
            note(format!("tick {} {} {}", probe.processes, child.calls, cx.expirations()));
            Ok(())
        })?;
        Ok(Probe { processes: 0, drops: DropNote("module dropped") })
    }

    fn proc_init(&mut self, cx: &mut ProcInit<'_, Self>) -> Result<()> {
        step("proc_init")?;
        self.processes = cx.max_procs();
        Ok(())
    }

    fn proc_main(&self, cx: &mut ProcMain<'_, Self>) -> Result<()> {
        step("proc_main")?;
        assert_eq!(self.drops.0, "module dropped");
        let pid = cx.fork_process(7, "walker", MakeSock::Yes, |probe, child, _| {
            child.calls += 10;
            note(format!("walk {} {}", probe.processes, child.calls));
            Ok(())
        })?;
        assert_eq!(pid.get(), 1001);
        cx.fork_bare_process("bare", MakeSock::No, |probe, _| {
            note(format!("bare {}", probe.processes));
            Err("over".into())
        })?;
        let error = cx.fork_process(8, "too many", MakeSock::No, |_, _, _| Ok(())).unwrap_err();
        assert!(error.text().starts_with("fork_process: more than"), "{error}");
        let error = cx.fork_process(PROC_NOCHLDINIT, "bare", MakeSock::No, |_, _, _| Ok(())).unwrap_err();
        assert!(error.text().contains("fork_bare_process"), "{error}");
        Ok(())
    }

    fn child_init(&self, cx: &mut ChildInit<'_>) -> Result<ProbeChild> {
        step("child_init")?;
        note(format!("{:?} {}", cx.rank(), cx.process_no()));
        Ok(ProbeChild { calls: 0, drops: DropNote("child dropped") })
    }

    fn post_child_init(&self, _: &mut PostChildInit<'_>) -> Result<()> {
        step("post_child_init")
    }

    fn destroy(&mut self, _: &mut Destroy<'_>) {
        let _ = step("destroy");
    }
}

struct ProbeChild {
    calls: u32,
    #[expect(dead_code, reason = "for its destructor")]
    drops: DropNote,
}

/// A module for one test only, before its first call.
macro_rules! module {
    ($kind:ty) => {{
        static MODULE: ModuleCell<$kind> = ModuleCell::new();
        install();
        &MODULE
    }};
}

fn init<M: Module>(module: &'static ModuleCell<M>) -> i32 {
    // SAFETY: this test is the host, and each test has its own module.
    unsafe { module.init_f() }
}

fn child<M: Module>(module: &'static ModuleCell<M>, rank: i32) -> i32 {
    // SAFETY: as above.
    unsafe { module.init_child_f(rank) }
}

fn destroy<M: Module>(module: &'static ModuleCell<M>) {
    // SAFETY: as above.
    unsafe { module.destroy_f() }
}

fn error() -> String {
    fake(|fake| fake.error.take()).unwrap_or_default()
}

#[test]
fn a_whole_life() {
    let module = module!(Probe);
    assert_eq!(init(module), OK);
    fake(|fake| fake.max_procs = 9);
    assert_eq!(child(module, PROC_INIT), OK);
    assert_eq!(child(module, PROC_MAIN), OK, "{}", error());
    assert_eq!(child(module, PROC_POSTCHILDINIT), OK);
    assert_eq!(calls(), ["init", "proc_init", "proc_main", "post_child_init"]);

    let forks = fake(|fake| std::mem::take(&mut fake.forks));
    let ranks: Vec<_> = forks.iter().map(|fork| (fork.rank, fork.flags)).collect();
    assert_eq!(ranks, [(7, FORK_MAKE_SOCK), (PROC_NOCHLDINIT, 0)]);

    // The process without child_init.
    assert_eq!((forks[1].entry)(forks[1].data), E_FAILED);
    assert_eq!(error(), "over");
    assert_eq!(calls(), ["bare 9"]);

    // A process without child_init whose entry function needs the child state.
    assert_eq!((forks[0].entry)(forks[0].data), E_FAILED);
    assert_eq!(error(), "this process has no child state: child_init did not run in it");

    fake(|fake| fake.process.process_no = 4);
    assert_eq!(child(module, 7), OK);
    assert_eq!((forks[0].entry)(forks[0].data), OK);
    assert_eq!(calls(), ["child_init", "7 4", "walk 9 10"]);

    // A restart in no-fork mode: the child state of main is not dropped.
    assert_eq!(child(module, PROC_TIMER), OK);
    let timers = fake(|fake| std::mem::take(&mut fake.timers));
    let [timer] = timers[..] else { panic!("one timer") };
    assert_eq!((timer.process, timer.first_ns, timer.period_ns), (TIMER_SLOW, 5_000_000, 2_000_000_000));
    assert_eq!((timer.function)(timer.data, 3), OK);
    assert_eq!(calls(), ["child_init", "TIMER 4", "tick 9 1 3"]);

    destroy(module);
    assert_eq!(calls(), ["destroy", "child dropped", "module dropped"]);
    destroy(module);
    assert_eq!(calls(), [""; 0]);
}

#[test]
fn failures_and_panics_have_a_text() {
    for (at, rank) in [("init", None), ("proc_init", Some(PROC_INIT)), ("proc_main", Some(PROC_MAIN)), ("child_init", Some(1))] {
        for trouble in [Trouble::Error(at), Trouble::Panic(at)] {
            // Not a static: each round needs a new module.
            let module: &'static ModuleCell<Probe> = Box::leak(Box::new(ModuleCell::new()));
            install();
            fake(|fake| fake.max_procs = 9);
            TROUBLE.set(trouble);
            let mut code = init(module);
            for next in [PROC_INIT, PROC_MAIN, 1] {
                if code == OK {
                    fake(|fake| (fake.forks, fake.registered) = (Vec::new(), 2));
                    code = child(module, next);
                    assert!(code == OK || Some(next) == rank);
                }
            }
            TROUBLE.set(Trouble::None);
            match trouble {
                Trouble::Error(_) => assert_eq!((code, error().as_str()), (E_FAILED, "wanted by the test")),
                _ => {
                    assert_eq!(code, E_PANIC);
                    let text = error();
                    assert!(text.starts_with(&format!("panicked: wanted by the test in {at} at=")), "{text}");
                    assert!(text.contains("lifecycle.rs:"), "{text}");
                    let logged = fake(|fake| std::mem::take(&mut fake.log));
                    assert!(logged.iter().any(|(level, _, line)| *level == LEVEL_ERROR && *line == text));
                }
            }
            // destroy_f does nothing for a module whose init_f has failed.
            calls();
            destroy(module);
            assert_eq!(calls().is_empty(), at == "init");
        }
    }
}

#[test]
fn calls_out_of_order_are_errors() {
    let module = module!(Probe);
    let cases = [PROC_INIT, PROC_MAIN, PROC_POSTCHILDINIT, 1, PROC_TIMER];
    for rank in cases {
        assert_eq!(child(module, rank), E_FAILED, "{rank} before init_f");
    }
    assert_eq!(init(module), OK);
    assert_eq!(init(module), E_FAILED);
    assert_eq!(error(), "init_f was called twice");
    for rank in cases.into_iter().skip(1) {
        assert_eq!(child(module, rank), E_FAILED, "{rank} before PROC_INIT");
    }
    fake(|fake| fake.max_procs = 9);
    assert_eq!(child(module, PROC_INIT), OK);
    assert_eq!(child(module, PROC_INIT), E_FAILED);
    assert_eq!(calls(), ["init", "proc_init"]);
    destroy(module);
    assert_eq!(child(module, 1), E_FAILED);
}

#[test]
fn a_re_entry_is_an_error() {
    struct Again;
    static AGAIN: ModuleCell<Again> = ModuleCell::new();
    impl Module for Again {
        type Params = ();
        type Child = u8;
        fn init(cx: &mut ModInit<'_, Self>, (): ()) -> Result<Self> {
            cx.timer(Timer::once("again", Duration::ZERO), |_, calls, _| {
                *calls += 1;
                let timer = fake(|fake| fake.timers[0]);
                assert_eq!((timer.function)(timer.data, 1), E_FAILED);
                assert_eq!(error(), "the module was called again while it still works with its child state");
                assert_eq!(child(&AGAIN, 1), E_FAILED);
                assert_eq!(error(), "child_init was called inside a call to the module");
                Ok(())
            })?;
            Ok(Again)
        }
        fn child_init(&self, _: &mut ChildInit<'_>) -> Result<u8> {
            Ok(0)
        }
    }
    install();
    assert_eq!(init(&AGAIN), OK);
    assert_eq!(child(&AGAIN, PROC_INIT), OK);
    assert_eq!(child(&AGAIN, 1), OK);
    let timer = fake(|fake| fake.timers[0]);
    assert_eq!((timer.function)(timer.data, 1), OK, "{}", error());
    assert_eq!(timer.period_ns, 0);
}

#[test]
fn records_reach_the_host_once_and_only_at_its_level() {
    struct Talker;
    impl Module for Talker {
        type Params = ();
        type Child = ();
        fn init(cx: &mut ModInit<'_, Self>, (): ()) -> Result<Self> {
            let peer = "127.0.0.1:5060".parse::<std::net::SocketAddr>()?;
            info!(count = 3, %peer, name = "two words", plain = "word", "sent {}", "it");
            warn!(target: "talker::special", missing = true);
            debug!("near");
            trace!("far");
            log::info!("from log {}", 1);
            log::trace!("far");
            info!("{}", "x".repeat(2000));
            let _span = tracing::info_span!("ignored").entered();
            let first = cx.rng()?.next_u64();
            assert_ne!(first, cx.rng()?.next_u64());
            Ok(Talker)
        }
        fn child_init(&self, _: &mut ChildInit<'_>) -> Result<()> {
            Ok(())
        }
    }
    assert_eq!(init(module!(Talker)), OK);
    let log = fake(|fake| std::mem::take(&mut fake.log));
    let here = module_path!();
    let expected = [
        (LEVEL_INFO, here, "sent it count=3 peer=127.0.0.1:5060 name=\"two words\" plain=word"),
        (LEVEL_WARN, "talker::special", "missing=true"),
        (LEVEL_DEBUG, here, "near"),
        (LEVEL_INFO, here, "from log 1"),
        (LEVEL_INFO, here, &"x".repeat(2000)),
    ];
    let log: Vec<_> = log.iter().map(|(level, target, text)| (*level, target.as_str(), text.as_str())).collect();
    assert_eq!(log, expected);
}
