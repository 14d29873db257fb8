//! Forks two processes and registers a timer; all three share counters in shared memory. Shows what
//! a module can do besides answering traffic.
//!
//! Forks only in `proc_main`. The host stops the two processes when it stops.

#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;

use module_api::prelude::*;

params! {
    /// `[module.params]` in the configuration.
    struct Params {
        /// Time between two ticks of each ticking process.
        period: Duration = "1s",
        /// Time between two reports in the log.
        report: Duration = "10s",
        /// Ticks after which a ticking process has finished and ends; 0 for never.
        ticks: i64 = 0 in 0..=1_000_000_000,
    }
}

shm_struct! {
    /// Shared memory, mapped at the same address in every process.
    struct Counters {
        /// Ticks of each ticking process, in the order of `NAMES`.
        by_process: [AtomicU64; 2],
        /// Reports written so far, the one from `destroy` included.
        reports: AtomicU64,
    }
}

const NAMES: [&str; 2] = ["tick", "tock"];

struct Ticker {
    period: Duration,
    /// After how many ticks a process ends; `None` for never.
    ticks: Option<u64>,
    counters: Shm<Counters>,
}

impl Module for Ticker {
    type Params = Params;
    type Child = ();

    fn init(cx: &mut ModInit<'_, Self>, params: Params) -> Result<Self> {
        if params.period.is_zero() {
            return Err("parameter \"period\" must not be zero".into());
        }
        cx.register_procs(NAMES.len() as u32)?;
        cx.timer(Timer::every("report", params.report), |ticker, _child, _cx| {
            ticker.report();
            Ok(())
        })?;
        let ticks = u64::try_from(params.ticks).ok().filter(|ticks| *ticks > 0);
        Ok(Ticker { period: params.period, ticks, counters: cx.shm_zeroed()? })
    }

    fn proc_main(&self, cx: &mut ProcMain<'_, Self>) -> Result<()> {
        for (index, name) in NAMES.into_iter().enumerate() {
            // A module chooses the ranks of the processes it forks.
            let rank = Rank::new(index as i32 + 1);
            cx.fork_process(rank, name, MakeSock::No, move |ticker, _child, cx| {
                info!(name, process_no = cx.process_no(), restarts = cx.restarts(), "ticking");
                ticker.tick(&ticker.counters.by_process[index]);
                Ok(())
            })?;
        }
        Ok(())
    }

    fn child_init(&self, _cx: &mut ChildInit<'_>) -> Result<()> {
        Ok(())
    }

    fn destroy(&mut self, _cx: &mut Destroy<'_>) {
        self.report();
    }
}

impl Ticker {
    /// The main loop of a ticking process.
    fn tick(&self, counter: &AtomicU64) {
        let mut done = 0;
        while self.ticks.is_none_or(|ticks| done < ticks) {
            sleep(self.period);
            counter.fetch_add(1, Ordering::Relaxed);
            done += 1;
        }
    }

    fn report(&self) {
        let Counters { by_process: [tick, tock], reports } = &*self.counters;
        let report = reports.fetch_add(1, Ordering::Relaxed) + 1;
        info!(report, tick = tick.load(Ordering::Relaxed), tock = tock.load(Ordering::Relaxed), "counted");
    }
}

export_module! {
    Ticker,
    name: "ticker",
    summary: "two processes of its own, a timer, and counters that they share",
    child_init: false,
}

#[cfg(test)]
mod tests {
    use module_api::testing::Host;

    use super::*;

    #[test]
    fn processes_tick_and_the_timer_reports() {
        let host = Host::new().param("period", "1ms").param("ticks", "3").start::<Ticker>().unwrap();
        assert_eq!(host.registered_procs(), 2);
        assert_eq!(host.forked().iter().map(|forked| forked.name.as_str()).collect::<Vec<_>>(), NAMES);
        host.run_process("tick").unwrap();
        assert_eq!(host.timers()[0].period, Some(Duration::from_secs(10)));
        host.timer().unwrap().fire_timer("report", 1).unwrap();
        assert!(host.logs().contains("counted report=1 tick=3 tock=0"));
        assert!(host.stop().contains("report=2"));
    }

    #[test]
    fn invalid_parameters_and_too_little_memory_fail_the_start() {
        let failure = Host::new().param("period", "0s").start::<Ticker>().err().unwrap();
        assert_eq!(failure.to_string(), "init: parameter \"period\" must not be zero");
        // The host checks the declared range before it calls `init`.
        let failure = Host::new().param("ticks", "-1").start::<Ticker>().err().unwrap();
        assert_eq!(failure.step(), "parameters");
        assert!(failure.text().contains("-1 is out of range (hint: expected a whole number, in 0..1000000000)"), "{failure}");
        let failure = Host::new().shared_memory(16).start::<Ticker>().err().unwrap();
        assert!(failure.text().contains("no shared memory for"), "{failure}");
    }
}
