//! The module to start from: logs a greeting in each phase, and answers each datagram with one.
//!
//! Runs in every process, as every module does. Each phase function says in which process and when.

#![forbid(unsafe_code)]

use module_api::prelude::*;

params! {
    /// `[module.params]` in the configuration. The host fills it in and checks it before `init`.
    struct Params {
        /// Text of the greeting.
        greeting: String = "hello",
    }
}

/// Made once in main. From the first fork on, every process has its own copy, which stays constant.
struct Hello {
    greeting: String,
}

/// The state of one process. Every process makes its own in `child_init` and may change it.
struct Child {
    rank: Rank,
    /// Greetings sent by this process.
    greeted: u64,
}

impl Module for Hello {
    type Params = Params;
    type Child = Child;

    /// In main, before any fork, with the rights of the user who started the host.
    fn init(_cx: &mut ModInit<'_, Self>, params: Params) -> Result<Self> {
        info!("{} from init, in main, before any fork", params.greeting);
        Ok(Hello { greeting: params.greeting })
    }

    /// In main, before any fork. The number of processes is known from here on.
    fn proc_init(&mut self, cx: &mut ProcInit<'_, Self>) -> Result<()> {
        info!("{} from proc_init: there will be {} processes", self.greeting, cx.max_procs());
        Ok(())
    }

    /// In main. The workers are running. A module that registered processes forks them here.
    fn proc_main(&self, _cx: &mut ProcMain<'_, Self>) -> Result<()> {
        info!("{} from proc_main, in main, which has forked the workers", self.greeting);
        Ok(())
    }

    /// In every forked process, before it does anything else. Open connections and start threads
    /// here.
    fn child_init(&self, cx: &mut ChildInit<'_>) -> Result<Child> {
        // At a level that is off by default: a thousand workers would log a thousand lines.
        debug!("{} from process {} of rank {}", self.greeting, cx.process_no(), cx.rank());
        Ok(Child { rank: cx.rank(), greeted: 0 })
    }

    /// In main, after every process has finished its `child_init`.
    fn post_child_init(&self, _cx: &mut PostChildInit<'_>) -> Result<()> {
        info!("{} from post_child_init: everybody is ready", self.greeting);
        Ok(())
    }

    /// In main, after every child has ended.
    fn destroy(&mut self, _cx: &mut Destroy<'_>) {
        info!("{} for the last time, from destroy", self.greeting);
    }
}

impl Hello {
    /// In a worker, for each batch of datagrams.
    fn greet(&self, child: &mut Child, batch: &Batch<'_>) -> Result<()> {
        // A datagram from an unnamed Unix socket has no address to answer.
        for datagram in batch.iter().filter(Datagram::is_answerable) {
            child.greeted += 1;
            let answer = format!("{} {}, you are number {} at worker {}\n", self.greeting, datagram.peer(), child.greeted, child.rank);
            datagram.reply(answer.as_bytes())?;
        }
        Ok(())
    }
}

export_module! {
    Hello,
    name: "hello",
    summary: "greets in the log in each phase, and whoever sends a datagram",
    post_child_init: true,
    udp: {
        /// Answers each datagram with a greeting.
        "hello" => Hello::greet,
    },
}

#[cfg(test)]
mod tests;
