//! The module to start from: greets in the log in each phase, and greets whoever sends it a datagram.
//!
//! Runs in every process, as every module does. Each phase function says what it is the place for.

#![forbid(unsafe_code)]

use module_api::prelude::*;

params! {
    /// `[module.params]` in the configuration. The host fills it in and checks it before `init`.
    struct Params {
        /// Text of the greeting.
        greeting: String = "hello",
    }
}

/// Made once in main. From the first fork on, every process has its own copy of it, and it cannot change any more.
struct Hello {
    greeting: String,
}

/// What each process has for itself.
struct Child {
    rank: Rank,
    greeted: u64,
}

impl Module for Hello {
    type Params = Params;
    type Child = Child;

    /// In main, before any fork, still with the rights of the user who started the host.
    fn init(_cx: &mut ModInit<'_, Self>, params: Params) -> Result<Self> {
        info!("{} from init, in main, before any fork", params.greeting);
        Ok(Hello { greeting: params.greeting })
    }

    /// In main, before any fork. The number of processes is known now.
    fn proc_init(&mut self, cx: &mut ProcInit<'_, Self>) -> Result<()> {
        info!("{} from proc_init: there will be {} processes", self.greeting, cx.max_procs());
        Ok(())
    }

    /// In main. The workers are running; a module that wants processes of its own forks them here.
    fn proc_main(&self, _cx: &mut ProcMain<'_, Self>) -> Result<()> {
        info!("{} from proc_main, in main, which has forked the workers", self.greeting);
        Ok(())
    }

    /// In every forked process, before it does anything else: the place to open connections and start threads.
    fn child_init(&self, cx: &mut ChildInit<'_>) -> Result<Child> {
        // At a level that is off by default: with a thousand workers nobody wants a thousand lines at each start.
        debug!("{} from process {} of rank {}", self.greeting, cx.process_no(), cx.rank());
        Ok(Child { rank: cx.rank(), greeted: 0 })
    }

    /// In main, when every process has finished its `child_init`.
    fn post_child_init(&self, _cx: &mut PostChildInit<'_>) -> Result<()> {
        info!("{} from post_child_init: everybody is ready", self.greeting);
        Ok(())
    }

    /// In main, at the end.
    fn destroy(&mut self, _cx: &mut Destroy<'_>) {
        info!("{} for the last time, from destroy", self.greeting);
    }
}

impl Hello {
    /// In a worker, for each batch of datagrams that arrived.
    fn greet(&self, child: &mut Child, batch: &Batch<'_>) -> Result<()> {
        // A Unix socket without a name cannot be answered.
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
