//! Imports `test.sums`, calls it in every phase and logs the results. Its handler `ask` answers
//! with the pid of its process, and calls functions that panic or crash when told to.
#![forbid(unsafe_code)]

use module_api::prelude::*;
use sums_declared::Sums;

params! {
    struct Params {
        /// The phase of the error.
        phase: String = "",
        /// The kind of error: fail, panic or crash.
        wrong: String = "",
    }
}

struct User {
    sums: Sums,
    params: Params,
}

impl User {
    fn use_in(&self, phase: &str) -> Result<()> {
        let sum = self.sums.add("first", 1)?;
        let not = self.sums.crash(false)?;
        info!("in {phase} the sum is {sum} crash={not}");
        if self.params.phase == phase {
            match self.params.wrong.as_str() {
                "fail" => self.sums.fail(b"as asked")?,
                // The caller ignores the error; the panic counts all the same.
                "panic" => info!("ignored: {}", self.sums.fail(b"").err().context("it did not fail")?),
                "crash" => info!("not crashed: {}", self.sums.crash(true)?),
                _ => {}
            }
        }
        Ok(())
    }
}

impl User {
    fn serve(&self, (): &mut (), batch: &Batch<'_>) -> Result<()> {
        for datagram in batch.iter() {
            match datagram.data() {
                // The caller ignores the error; the panic counts all the same.
                b"panic" => info!("ignored: {}", self.sums.fail(b"").err().context("it did not fail")?),
                b"fail" => info!("ignored: {}", self.sums.fail(b"as asked").err().context("it did not fail")?),
                b"crash" => info!("not crashed: {}", self.sums.crash(true)?),
                _ => {}
            }
            datagram.reply(std::process::id().to_string().as_bytes())?;
        }
        Ok(())
    }
}

impl Module for User {
    type Params = Params;
    type Child = ();

    fn init(cx: &mut ModInit<'_, Self>, params: Params) -> Result<Self> {
        cx.register_procs(1)?;
        cx.timer(Timer::once("sums", Duration::ZERO), |user, (), _| user.use_in("timer"))?;
        let user = User { sums: cx.interface()?, params };
        user.use_in("init")?;
        Ok(user)
    }

    fn proc_init(&mut self, _: &mut ProcInit<'_, Self>) -> Result<()> {
        self.use_in("proc_init")
    }

    fn proc_main(&self, cx: &mut ProcMain<'_, Self>) -> Result<()> {
        self.use_in("proc_main")?;
        cx.fork_process(Rank::RPC, "sums", MakeSock::No, |user, (), _| {
            user.use_in("process")?;
            loop {
                std::thread::park();
            }
        })?;
        Ok(())
    }

    fn child_init(&self, _: &mut ChildInit<'_>) -> Result<()> {
        self.use_in("child_init")
    }

    fn destroy(&mut self, _: &mut Destroy<'_>) {
        match self.use_in("destroy") {
            Ok(()) => {}
            Err(error) => error!("destroy: {error}"),
        }
    }
}

module_api::export_module! { User, name: "sums_user", binds: [Sums], udp: { "ask" => User::serve } }
