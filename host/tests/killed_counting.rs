//! The promise that the counts behind limits on connections stay right, wherever a worker dies. A
//! worker is killed after each single instruction of opening, refusing and closing a connection and
//! of taking over from a predecessor. After each death only the living worker's connections count.
//!
//! A separate program, because it forks: it has one thread and no test harness.

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
fn main() {
    eprintln!("not run: single-stepping is written for x86_64");
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn main() {
    counting::main();
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod as_main;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod steps;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod counting {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

    use modhost::net::stream::directory::{ConnectionId, ConnectionLimits, Directory};
    use modhost::state::State;
    use modhost::sys::fast_fork::process_identity::this_process;

    use super::{as_main, steps};

    const LIMITS: ConnectionLimits = ConnectionLimits { connections: 6, per_address: 3 };
    const ADDRESSES: [&[u8]; 2] = [b"here", b"there"];
    /// The worker that is killed, and one that lives.
    const VICTIM: usize = 0;
    const OTHER: usize = 1;
    const SLOTS: usize = 8;

    static DIRECTORY: OnceLock<Directory> = OnceLock::new();
    /// The victim's connections, by slot.
    static OPENED: [AtomicU64; SLOTS] = [const { AtomicU64::new(0) }; SLOTS];

    fn directory() -> Directory {
        *DIRECTORY.get().expect("the directory")
    }

    fn open(worker: usize, slot: usize, address: &[u8]) -> Option<ConnectionId> {
        let id = directory().open(worker, slot, 0, Some(address), LIMITS).expect("the lock")?;
        if worker == VICTIM {
            OPENED[slot].store(id.0, SeqCst);
        }
        Some(id)
    }

    fn adopt(worker: usize) {
        directory().adopt(worker, SLOTS).expect("the lock");
    }

    /// Opens a connection from each address in each worker.
    fn one_of_each() {
        for worker in [VICTIM, OTHER] {
            for (slot, address) in ADDRESSES.into_iter().enumerate() {
                open(worker, slot, address).expect("room");
            }
        }
    }

    fn close(slot: usize) {
        directory().close(ConnectionId(OPENED[slot].load(SeqCst))).expect("the lock");
    }

    struct Scenario {
        name: &'static str,
        set_up: fn(),
        operation: fn(),
        /// The addresses of the living worker's connections.
        alive: &'static [&'static [u8]],
    }

    fn scenarios() -> Vec<Scenario> {
        let scenario = |name, set_up, operation| Scenario { name, set_up, operation, alive: &ADDRESSES };
        vec![
            scenario("open", one_of_each, || assert!(open(VICTIM, 2, ADDRESSES[0]).is_some())),
            scenario("open the first of an address", one_of_each, || assert!(open(VICTIM, 2, b"elsewhere").is_some())),
            Scenario {
                name: "refuse one more from an address",
                set_up: || {
                    one_of_each();
                    open(OTHER, 2, ADDRESSES[0]).expect("room");
                },
                operation: || assert!(open(VICTIM, 2, ADDRESSES[0]).is_none()),
                alive: &[ADDRESSES[0], ADDRESSES[1], ADDRESSES[0]],
            },
            Scenario {
                name: "refuse one more in all",
                set_up: || {
                    one_of_each();
                    (2..4).for_each(|slot| _ = open(OTHER, slot, b"elsewhere").expect("room"));
                },
                operation: || assert!(open(VICTIM, 2, ADDRESSES[0]).is_none()),
                alive: &[ADDRESSES[0], ADDRESSES[1], b"elsewhere", b"elsewhere"],
            },
            scenario("close", one_of_each, || close(0)),
            scenario(
                "close the last of an address",
                || {
                    one_of_each();
                    open(VICTIM, 2, b"elsewhere").expect("room");
                },
                || close(2),
            ),
            scenario("take over", one_of_each, || adopt(VICTIM)),
        ]
    }

    /// Checks that as many connections fit as the limits allow beside those of the living worker,
    /// whose addresses are `others`.
    fn check(at: &str, others: &[&[u8]]) {
        let mut slots = SLOTS..;
        let mut fits = |address: &[u8]| std::iter::from_fn(|| open(OTHER, slots.next()?, address)).count();
        let of = |address: &[u8]| others.iter().filter(|other| **other == address).count();
        let first = fits(ADDRESSES[0]);
        assert_eq!(first, 3 - of(ADDRESSES[0]), "{at}: from the first address");
        let second = fits(ADDRESSES[1]);
        let in_all = 6 - others.len() - first;
        assert_eq!(second, in_all.min(3 - of(ADDRESSES[1])), "{at}: from the second address");
        assert_eq!(fits(b"elsewhere"), (in_all - second).min(3 - of(b"elsewhere")), "{at}: from elsewhere");
    }

    fn become_victim() {
        let trail = State::current().expect("the state").family.slots.slot(1).expect("a slot").trail();
        this_process().become_process(std::process::id() as i32, 1, 1, trail);
    }

    /// Closes all connections. Serials continue.
    fn clear() {
        for worker in [VICTIM, OTHER] {
            directory().adopt(worker, 2 * SLOTS + 8).expect("the lock");
        }
    }

    pub fn main() {
        // SAFETY: sets a timer, so that a hanging recovery does not hang the test run.
        unsafe { libc::alarm(900) };
        as_main::state(1 << 20);
        assert!(DIRECTORY.set(Directory::new(2, 1, 7).expect("a directory")).is_ok());
        let mut total = 0;
        for scenario in scenarios() {
            let restore = || {
                clear();
                (scenario.set_up)();
            };
            let deaths = steps::kill_after_each(become_victim, scenario.operation, restore, |steps, _| {
                let at = format!("\"{}\" killed after {steps} instructions", scenario.name);
                // In half of the cases another worker takes the lock before the successor does.
                if steps % 2 == 0
                    && let Some(id) = open(OTHER, 5, b"a third")
                {
                    directory().close(id).expect("the lock");
                }
                adopt(VICTIM);
                assert_eq!(directory().load(VICTIM), 0, "{at}");
                check(&at, scenario.alive);
            });
            println!("{:40} {deaths:7} deaths", scenario.name);
            total += deaths;
        }
        println!("{total} deaths survived");
    }
}
