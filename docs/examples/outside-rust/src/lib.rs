//! Answers each datagram with a number that all workers share; a process of the module logs the
//! count.

#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use module_api::prelude::*;

params! {
    struct Params {
        /// Time between two reports.
        period: module_api::Duration = "10s",
    }
}

struct Outside {
    period: Duration,
    /// The same memory in every process.
    answered: Shm<AtomicU64>,
}

impl Module for Outside {
    type Params = Params;
    type Child = ();

    fn init(cx: &mut ModInit<'_, Self>, params: Params) -> Result<Self> {
        cx.register_procs(1)?;
        Ok(Outside { period: params.period, answered: cx.shm(AtomicU64::new(0))? })
    }

    fn proc_main(&self, cx: &mut ProcMain<'_, Self>) -> Result<()> {
        cx.fork_process(1, "reporter", MakeSock::No, |module, _child, _cx| module.report())?;
        Ok(())
    }

    fn child_init(&self, _cx: &mut ChildInit<'_>) -> Result<()> {
        Ok(())
    }
}

impl Outside {
    /// Runs in the workers.
    fn count(&self, _child: &mut (), batch: &Batch<'_>) -> Result<()> {
        for datagram in batch {
            let number = self.answered.fetch_add(1, Ordering::Relaxed) + 1;
            datagram.reply(number.to_string().as_bytes())?;
        }
        Ok(())
    }

    /// Runs in the reporter. It never returns: the host stops it with a signal.
    fn report(&self) -> Result<()> {
        loop {
            thread::sleep(self.period);
            info!(answered = self.answered.load(Ordering::Relaxed), "report");
        }
    }
}

export_module! {
    Outside,
    name: "outside_rust",
    summary: "answers with a running number; an example",
    udp: {
        /// Answers each datagram with the number of datagrams so far.
        "count" => Outside::count,
    },
}
