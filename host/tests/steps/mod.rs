//! Kills a process after each single instruction of an operation.
//!
//! One child is single-stepped through the operation, to list its instructions. Then a new child is
//! forked for each instruction, runs up to it (most of the way to a breakpoint), and is killed
//! there. For programs that have one thread and no test harness.

use std::collections::HashMap;
use std::mem::offset_of;

/// A traced child.
struct Child(libc::pid_t);

impl Child {
    /// Forks a child, which stops before the operation.
    fn start(prepare: fn(), operation: fn()) -> Self {
        // SAFETY: this process has one thread; the child only runs the operation and ends.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "fork");
        if pid == 0 {
            // SAFETY: calls that concern this process alone.
            unsafe {
                prepare();
                assert!(libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) == 0, "this system forbids ptrace");
                libc::raise(libc::SIGSTOP);
                operation();
                libc::raise(libc::SIGSTOP);
                libc::_exit(0);
            }
        }
        let child = Self(pid);
        assert_eq!(child.wait(), libc::SIGSTOP, "the child stops before the operation");
        child
    }

    /// Waits until the child stops. Returns the signal.
    fn wait(&self) -> i32 {
        let mut status = 0;
        // SAFETY: waits for a child of this process.
        assert_eq!(unsafe { libc::waitpid(self.0, &raw mut status, 0) }, self.0, "waitpid");
        assert!(libc::WIFSTOPPED(status), "the child ended: status {status:#x}");
        libc::WSTOPSIG(status)
    }

    fn request(&self, request: libc::c_uint, address: usize, data: usize) -> i64 {
        // SAFETY: a stopped child of this process; only the child's memory is written.
        unsafe { libc::ptrace(request, self.0, address, data) }
    }

    fn instruction(&self) -> usize {
        self.request(libc::PTRACE_PEEKUSER, offset_of!(libc::user, regs) + offset_of!(libc::user_regs_struct, rip), 0) as usize
    }

    /// Runs one instruction. False when the operation is complete.
    fn step(&self) -> bool {
        assert_eq!(self.request(libc::PTRACE_SINGLESTEP, 0, 0), 0, "PTRACE_SINGLESTEP");
        match self.wait() {
            libc::SIGTRAP => true,
            libc::SIGSTOP => false,
            signal => panic!("the operation ended with signal {signal}: a fault in it"),
        }
    }

    /// Runs until it reaches that address for the `times`th time. False if it does not.
    fn run_to(&self, address: usize, times: usize) -> bool {
        const BREAKPOINT: i64 = 0xcc;
        let rip = offset_of!(libc::user, regs) + offset_of!(libc::user_regs_struct, rip);
        let word = self.request(libc::PTRACE_PEEKTEXT, address, 0);
        for time in 0..times {
            // The child is at the address: step past it before the breakpoint is set again.
            if time > 0 && !self.step() {
                return false;
            }
            self.request(libc::PTRACE_POKETEXT, address, ((word & !0xff) | BREAKPOINT) as usize);
            assert_eq!(self.request(libc::PTRACE_CONT, 0, 0), 0, "PTRACE_CONT");
            if self.wait() != libc::SIGTRAP {
                return false;
            }
            self.request(libc::PTRACE_POKETEXT, address, word as usize);
            assert_eq!(self.request(libc::PTRACE_POKEUSER, rip, address), 0, "PTRACE_POKEUSER");
        }
        true
    }

    fn kill(self) {
        let mut status = 0;
        // SAFETY: a child of this process, which nobody has reaped.
        unsafe {
            libc::kill(self.0, libc::SIGKILL);
            assert_eq!(libc::waitpid(self.0, &raw mut status, 0), self.0, "waitpid");
        }
        assert!(libc::WIFSIGNALED(status), "the child was not killed: status {status:#x}");
    }
}

/// The addresses of all instructions of an operation, in the order in which they run.
fn trace(prepare: fn(), operation: fn()) -> Vec<usize> {
    let child = Child::start(prepare, operation);
    let mut addresses = vec![child.instruction()];
    while child.step() {
        addresses.push(child.instruction());
    }
    child.kill();
    addresses
}

/// Kills a child after each instruction of an operation. `restore` restores shared memory before
/// each fork, `prepare` runs in the new child, and `look` gets the number of instructions that the
/// child had run, and its pid. Returns the number of deaths.
pub fn kill_after_each(prepare: fn(), operation: fn(), restore: impl Fn(), look: impl Fn(usize, i32)) -> usize {
    restore();
    let addresses = trace(prepare, operation);
    // For each instruction: the last one before it that had run at most 150 times by then, where a
    // breakpoint is set, and how often it had run.
    let mut runs: HashMap<usize, usize> = HashMap::new();
    let mut last = (0, 0);
    let breakpoints: Vec<(usize, usize)> = (0..addresses.len())
        .map(|index| {
            let times = runs.entry(addresses[index]).or_default();
            *times += 1;
            if *times <= 150 {
                last = (index, *times);
            }
            last
        })
        .collect();
    // A repeated string instruction stops once per byte: after the first few nothing new can
    // happen.
    let repeats = |steps: usize| steps > 4 && addresses[steps - 4..=steps].iter().all(|address| *address == addresses[steps]);
    let deaths: Vec<usize> = (0..addresses.len()).filter(|steps| !repeats(*steps)).collect();
    for steps in deaths.iter().copied() {
        restore();
        let child = Child::start(prepare, operation);
        let (from, times) = breakpoints[steps];
        // The child is at the first instruction already.
        let times = times - usize::from(addresses[from] == addresses[0]);
        if from == 0 || child.run_to(addresses[from], times) {
            for _ in from..steps {
                if !child.step() {
                    break;
                }
            }
        }
        let pid = child.0;
        child.kill();
        look(steps, pid);
    }
    deaths.len()
}
