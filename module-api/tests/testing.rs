//! The fake host, with a module that does everything, and tests of it as its author would write
//! them.

#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use module_api::prelude::*;
use module_api::testing::{Host, Level, Running};
use module_api::{LockFailure, ProcessRow, ProcessState};

param_enum! {
    enum Trouble {
        None = "none",
        Error = "error",
        Panic = "panic",
    }
}

params! {
    struct Params {
        in_init: Trouble = "none",
        in_proc_init: Trouble = "none",
        in_proc_main: Trouble = "none",
        in_child_init: Trouble = "none",
        listen: Option<String>,
        names: Vec<String> = "",
        folder: Option<std::path::PathBuf>,
    }
}

shm_struct! {
    struct Books {
        debit: u64,
        credit: u64,
    }
}

struct All {
    params: Params,
    books: ShmMutex<Books>,
    ticks: Shm<AtomicU64>,
    by_process: Option<PerProcess<AtomicU64>>,
}

struct Child {
    served: u64,
    first_random: u64,
    address: SocketAddr,
}

fn trouble(trouble: Trouble) -> Result<()> {
    match trouble {
        Trouble::None => Ok(()),
        Trouble::Error => Err("wanted by the test".into()),
        Trouble::Panic => panic!("wanted by the test"),
    }
}

impl Module for All {
    type Params = Params;
    type Child = Child;

    fn init(cx: &mut ModInit<'_, Self>, params: Params) -> Result<Self> {
        trouble(params.in_init)?;
        cx.register_procs(3)?;
        if let Some(address) = &params.listen {
            cx.listen_udp(UdpListen::new(address).handler("serve").workers(3))?;
        }
        cx.timer(Timer::every("tick", Duration::from_secs(2)).slow(), |all, child, cx| {
            child.served += 1;
            match cx.expirations() {
                0 => Err("nothing is due".into()),
                99 => panic!("far too late"),
                due => {
                    all.ticks.fetch_add(due, Ordering::Relaxed);
                    Ok(())
                }
            }
        })?;
        cx.timer(Timer::once("once", Duration::from_millis(5)), |_, _, _| Ok(()))?;
        let books = cx.mutex(Books { debit: 0, credit: 0 })?;
        Ok(All { params, books, ticks: cx.shm(AtomicU64::new(0))?, by_process: None })
    }

    fn proc_init(&mut self, cx: &mut ProcInit<'_, Self>) -> Result<()> {
        trouble(self.params.in_proc_init)?;
        self.by_process = Some(cx.per_process()?);
        Ok(())
    }

    fn proc_main(&self, cx: &mut ProcMain<'_, Self>) -> Result<()> {
        trouble(self.params.in_proc_main)?;
        cx.fork_process(7, "walker", MakeSock::Yes, |all, child, cx| {
            info!(served = child.served, process_no = cx.process_no(), "walked as {}", cx.rank());
            all.by_process.as_ref().map(|cells| cells.mine().fetch_add(1, Ordering::Relaxed));
            Ok(())
        })?;
        cx.fork_bare_process("bare", MakeSock::No, |_, _| Err("over".into()))?;
        cx.fork_process(8, "falls", MakeSock::No, |_, _, _| panic!("down"))?;
        Ok(())
    }

    fn child_init(&self, cx: &mut ChildInit<'_>) -> Result<Child> {
        trouble(self.params.in_child_init)?;
        let address = cx.listener(0).context("no listener")?.address()?;
        Ok(Child { served: 0, first_random: cx.rng()?.next_u64(), address })
    }
}

impl All {
    fn serve(&self, child: &mut Child, batch: &Batch<'_>) -> Result<()> {
        for datagram in batch {
            child.served += 1;
            match datagram.data() {
                b"copy" => datagram.reply(format!("{} {}", child.address, child.served).as_bytes())?,
                b"borrow" => datagram.reply_borrowed(datagram.data())?,
                b"write" => datagram.reply_with(10, |buffer| {
                    buffer[..3].copy_from_slice(b"abc");
                    3
                })?,
                b"twice" => {
                    datagram.reply(b"1")?;
                    datagram.reply(b"2")?;
                }
                b"long" => datagram.reply(&vec![0; 65_508])?,
                b"silence" => {}
                b"elsewhere" => datagram.listener().send_to("192.0.2.9:9".parse::<std::net::SocketAddr>()?, b"sent")?,
                b"book" => {
                    let mut books = self.books.lock_or_repair(|books, _| books.credit = books.debit)?;
                    books.debit += 1;
                    books.credit += 1;
                }
                b"die holding" => {
                    let mut books = self.books.lock_or_repair(|_, _| ())?;
                    books.debit += 1;
                    panic!("in the middle");
                }
                b"spoil" => drop(self.books.lock()),
                b"processes" => {
                    let line =
                        |row: ProcessRow| format!("{} {} {} {} {}\n", row.process_no, row.rank, row.name, row.state.name(), row.restarts);
                    datagram.reply(batch.processes().into_iter().map(line).collect::<String>().as_bytes())?;
                }
                b"thread" => std::thread::spawn(|| info!("from a thread")).join().expect("a thread"),
                other => return Err(Error::new(format_args!("no such request: {}", other.escape_ascii()))),
            }
        }
        Ok(())
    }

    fn count(&self, child: &mut Child, batch: &Batch<'_>) -> Result<()> {
        child.served += batch.len() as u64;
        Ok(())
    }
}

export_module! {
    All,
    name: "all",
    post_child_init: true,
    udp: {
        "serve" => All::serve,
        "count" => All::count,
    },
}

fn peer() -> SocketAddr {
    "192.0.2.1:5060".parse().unwrap()
}

fn start() -> Running<All> {
    Host::new().start().unwrap()
}

#[test]
fn answers_come_back_in_order_whichever_way_they_were_given() {
    let host = start();
    let mut worker = host.worker(1).unwrap();
    let other = "[::1]:7".parse().unwrap();
    let batch = [(peer(), "copy"), (other, "borrow"), (peer(), "silence"), (peer(), "twice"), (other, "write")];
    let answers = worker.datagrams("serve", &batch).unwrap();
    let answers: Vec<_> = answers.iter().map(|answer| (answer.datagram(), answer.to(), answer.data())).collect();
    let expected = [(0, peer(), &b"127.0.0.1:5060 1"[..]), (1, other, b"borrow"), (3, peer(), b"1"), (3, peer(), b"2"), (4, other, b"abc")];
    assert_eq!(answers, expected);
    // By the function, too.
    assert_eq!(worker.serve_with(All::count, &[(peer(), [1_u8, 2])]).unwrap(), []);
    assert_eq!(worker.state().unwrap().served, 6);
    assert!(worker.datagrams("serve", &[(peer(), "elsewhere")]).unwrap().is_empty());
    assert_eq!(host.sent(), [(0, "192.0.2.9:9".parse().unwrap(), b"sent".to_vec())]);
    worker.datagrams("serve", &[(peer(), "thread")]).unwrap();
    assert!(host.logs().contains("from a thread"));
}

#[test]
fn the_process_table_is_there_and_a_test_can_have_another_one() {
    let host = start();
    let mut worker = host.worker(2).unwrap();
    worker.restart().unwrap();
    let mut ask = || String::from_utf8(worker.datagrams("serve", &[(peer(), "processes")]).unwrap()[0].data().to_vec()).unwrap();
    let rows = [
        "0 0 main serving 0",
        "1 1 worker 1 serving 0",
        "2 2 worker 2 serving 1",
        "3 -1 slow timer serving 0",
        "4 -1 timer serving 0",
        "5 -2 control serving 0",
        "6 7 walker serving 0",
        "7 -128 bare serving 0",
        "8 8 falls serving 0",
    ];
    assert_eq!(ask().lines().collect::<Vec<_>>(), rows);
    let mut table = host.processes();
    assert_eq!(table[2].pid, Some(Pid::new(1002)));
    table.truncate(2);
    (table[1].state, table[1].restarts, table[1].pid) = (ProcessState::Waiting, 9, None);
    host.set_processes(table);
    assert_eq!(ask(), "0 0 main serving 0\n1 1 worker 1 waiting 9\n");
}

#[test]
fn what_a_host_would_not_do_is_an_error() {
    let host = start();
    let mut worker = host.worker(2).unwrap();
    let failure = worker.datagrams("srve", &[(peer(), "copy")]).unwrap_err();
    assert_eq!(failure.text(), "the module has no handler \"srve\", only serve, count");
    assert!(worker.datagrams("serve", &[] as &[(SocketAddr, &str)]).is_err());
    assert!(worker.datagrams("serve", &[(peer(), vec![0; 65_508])]).is_err());
    assert!(worker.fire_timer("tock", 1).unwrap_err().text().contains("only [\"tick\", \"once\"]"));
    assert!(!worker.has_ended());
    assert!(host.worker(3).err().unwrap().text().contains("no process of rank 3, with 2 workers"));
    assert!(host.run_process("runner").unwrap_err().text().contains("[\"walker\", \"bare\", \"falls\"]"));
}

#[test]
fn a_failing_handler_ends_its_process_until_it_is_restarted() {
    let host = start();
    for (request, text) in [
        ("long", "the datagram is too long, or its listener does not exist"),
        ("nonsense", "no such request: nonsense"),
        ("die holding", "panicked: in the middle at="),
    ] {
        let mut worker = host.worker(1).unwrap();
        let failure = worker.datagrams("serve", &[(peer(), "copy"), (peer(), request)]).unwrap_err();
        assert!(failure.step() == "serve" && failure.text().starts_with(text), "{failure}");
        assert!(worker.has_ended() && worker.state().is_none());
        let failure = worker.datagrams("serve", &[(peer(), "copy")]).unwrap_err();
        assert!(failure.text().contains("process 1 has ended"), "{failure}");
        worker.restart().unwrap();
        assert_eq!(worker.datagrams("serve", &[(peer(), "copy")]).unwrap().len(), 1);
    }
}

#[test]
fn phases_that_fail_have_a_text() {
    for step in ["init", "proc_init", "proc_main"] {
        let failure = Host::new().param(&format!("in_{step}"), "error").start::<All>().err().unwrap();
        assert_eq!(failure.to_string(), format!("{step}: wanted by the test"));
        let failure = Host::new().param(&format!("in_{step}"), "panic").start::<All>().err().unwrap();
        assert!(failure.step() == step && failure.text().starts_with("panicked: wanted by the test at="), "{failure}");
        assert!(failure.logs().contains("panicked: wanted by the test"));
    }
    let host = Host::new().param("in_child_init", "error").start::<All>().unwrap();
    assert_eq!(host.worker(1).err().unwrap().to_string(), "child_init: wanted by the test");
    host.ready().unwrap();
}

#[test]
fn parameters_are_checked_as_by_a_host_and_forgotten_afterwards() {
    let failure = Host::new().param("in_init", "errr").param("nmaes", "x").param("names", "\"a").start::<All>().err().unwrap();
    let lines: Vec<&str> = failure.text().lines().collect();
    let expected = [
        "module \"all\" has no parameter \"nmaes\" (hint: did you mean \"names\"?)",
        "wrong value for parameter \"in_init\" of module \"all\": \"errr\" is not one of its words (hint: did you mean \"error\"?)",
        "wrong value for parameter \"names\" of module \"all\": a quote is not closed (hint: expected a list, each item a string)",
    ];
    assert_eq!((failure.step(), &lines[..]), ("parameters", &expected[..]));
    let host = Host::new().param("folder", "x").folder("/etc").param("names", "a, b").start::<All>().unwrap();
    assert_eq!(host.module().params.folder.as_deref(), Some(std::path::Path::new("/etc/x")));
    assert_eq!(host.module().params.names, ["a", "b"]);
    drop(host);
    let host = start();
    assert_eq!((&host.module().params.folder, host.module().params.names.len()), (&None, 0));
}

#[test]
fn timers_are_called_with_what_is_due() {
    let host = start();
    let timers: Vec<_> = host.timers().into_iter().map(|timer| (timer.name, timer.first, timer.period, timer.slow)).collect();
    let expected = [
        ("tick".to_owned(), Duration::from_secs(2), Some(Duration::from_secs(2)), true),
        ("once".to_owned(), Duration::from_millis(5), None, false),
    ];
    assert_eq!(timers, expected);
    let mut timer = host.timer().unwrap();
    timer.fire_timer("tick", 1).unwrap();
    timer.fire_timer("tick", 4).unwrap();
    // A host logs an error of a timer function, and goes on.
    assert_eq!(timer.fire_timer("tick", 0).unwrap_err().to_string(), "tick: nothing is due");
    assert_eq!((host.module().ticks.load(Ordering::Relaxed), timer.state().unwrap().served), (5, 3));
    assert!(timer.fire_timer("tick", 99).unwrap_err().text().starts_with("panicked: far too late"));
    assert!(timer.has_ended());
}

#[test]
fn processes_of_the_module_run_to_their_end() {
    let host = start();
    assert_eq!(host.registered_procs(), 3);
    let forked: Vec<_> = host.forked().into_iter().map(|forked| (forked.name, forked.rank.number(), forked.make_sock)).collect();
    let expected = [
        ("walker".to_owned(), 7, MakeSock::Yes),
        ("bare".to_owned(), module_api::abi::PROC_NOCHLDINIT, MakeSock::No),
        ("falls".to_owned(), 8, MakeSock::No),
    ];
    assert_eq!(forked, expected);
    host.run_process("walker").unwrap();
    // 0 main, 2 workers, slow timer, timer, control.
    assert!(host.logs().contains("walked as 7 served=0 process_no=6"), "{:?}", host.logs());
    assert_eq!(host.module().by_process.as_ref().unwrap().of(6).unwrap().load(Ordering::Relaxed), 1);
    assert_eq!(host.run_process("bare").unwrap_err().to_string(), "bare: over");
    assert!(host.run_process("falls").unwrap_err().text().starts_with("panicked: down"));
}

#[test]
fn an_owner_that_died_is_reported_to_the_next_one() {
    let host = start();
    let mut worker = host.worker(1).unwrap();
    worker.datagrams("serve", &[(peer(), "book")]).unwrap();
    let books = || {
        let books = host.module().books.lock().unwrap();
        (books.debit, books.credit)
    };
    assert_eq!(books(), (1, 1));
    // By the test's word.
    host.owner_died(&host.module().books);
    worker.datagrams("serve", &[(peer(), "book")]).unwrap();
    assert_eq!(books(), (2, 2));
    // By a panic in the middle.
    worker.datagrams("serve", &[(peer(), "die holding")]).unwrap_err();
    worker.restart().unwrap();
    worker.datagrams("serve", &[(peer(), "book")]).unwrap();
    assert_eq!(books(), (4, 4), "repaired, then booked");
    // Not repaired: unusable for good.
    host.owner_died(&host.module().books);
    worker.datagrams("serve", &[(peer(), "spoil")]).unwrap();
    let failure = host.module().books.lock_or_repair(|_, _| ()).err().unwrap();
    assert_eq!(failure, LockFailure::NotRecoverable);
}

#[test]
fn shared_memory_runs_out() {
    let failure = Host::new().shared_memory(64).start::<All>().err().unwrap();
    assert!(failure.text().contains("no shared memory for"), "{failure}");
    let host = start();
    assert!((1..1 << 20).contains(&host.shared_memory_left()));
}

#[test]
fn randomness_is_the_same_in_each_run_and_another_in_each_process() {
    let firsts = |seed: u64| {
        let host = Host::new().seed(seed).start::<All>().unwrap();
        [1, 2].map(|number| host.worker(number).unwrap().state().unwrap().first_random)
    };
    assert_eq!(firsts(1), firsts(1));
    assert_ne!(firsts(1), firsts(2));
    assert_ne!(firsts(1)[0], firsts(1)[1]);
}

#[test]
fn listeners_have_the_addresses_that_the_test_gives_them() {
    let addresses = ["192.0.2.7:1".parse().unwrap(), "[::1]:2".parse().unwrap()];
    let host = Host::new().listeners(&addresses).param("listen", "127.0.0.1:3").start::<All>().unwrap();
    assert_eq!(host.listens(), [("127.0.0.1:3".to_owned(), Some("serve".to_owned()), 3)]);
    let mut worker = host.worker(1).unwrap();
    assert_eq!(worker.state().unwrap().address, addresses[0]);
    worker.at_listener(2).datagrams("serve", &[(peer(), "elsewhere")]).unwrap();
    assert_eq!(host.sent()[0].0, 2);
    drop(host);
    // A module can find itself without any.
    let host = Host::new().listeners(&[]).start::<All>().unwrap();
    assert_eq!(host.worker(1).err().unwrap().text(), "no listener");
}

#[test]
fn records_have_their_level() {
    let host = Host::new().log_level(Level::Warn).start::<All>().unwrap();
    host.run_process("walker").unwrap();
    assert_eq!(host.logs().records().len(), 0);
    host.run_process("falls").unwrap_err();
    let logs = host.stop();
    assert!(logs.records().iter().all(|record| record.level == Level::Error && record.target == "panic"), "{logs:?}");
    assert!(logs.contains("panicked: down"));
}

#[test]
fn a_thread_has_one_host_at_a_time() {
    let host = start();
    let second = std::panic::catch_unwind(|| drop(Host::new().start::<All>()));
    assert!(second.is_err());
    // Another thread waits for its turn.
    let other = std::thread::spawn(|| drop(start()));
    host.worker(1).unwrap().datagrams("serve", &[(peer(), "copy")]).unwrap();
    assert!(!other.is_finished());
    drop(host);
    other.join().unwrap();
    drop(start());
}
