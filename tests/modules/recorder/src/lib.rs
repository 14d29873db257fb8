//! A module that records each call that it gets, one line each, and runs a script, right or wrong.
//!
//! Most tests of `docs/lifecycle.md` compare its records. It calls the host without the SDK where a
//! test needs a call in the wrong phase, which would not compile with the SDK.

mod act;
mod script;
mod write;

use std::marker::PhantomData;
use std::sync::OnceLock;

use module_api::SendError;
use module_api::prelude::*;

pub use script::Script;

module_api::params! {
    /// Parameters.
    pub struct Params {
        /// File to append records to.
        pub record: String = "/dev/null",
        /// The script; see `script.rs`.
        pub script: String = "",
    }
}

/// A name for each copy, because a module's name is a constant.
pub trait Name: 'static {
    const NAME: &'static str;
}

/// The module.
pub struct Recorder<N>(PhantomData<N>);

/// Proves in each process that `child_init` has run there.
pub struct Child {
    pub rank: i32,
}

/// Created in `init_f`, the same in every process.
struct World {
    module: &'static str,
    record: String,
    script: Script,
}

static WORLD: OnceLock<World> = OnceLock::new();

fn world() -> &'static World {
    WORLD.get().expect("init_f was called")
}

impl<N: Name> Module for Recorder<N> {
    type Params = Params;
    type Child = Child;

    fn init(_: &mut ModInit<'_, Self>, params: Params) -> Result<Self> {
        let script = Script::parse(&params.script)?;
        if WORLD.set(World { module: N::NAME, record: params.record, script }).is_err() {
            return Err("init_f was called twice".into());
        }
        write::call("init_f", None);
        act::run("init_f")?;
        Ok(Recorder(PhantomData))
    }

    fn proc_init(&mut self, _: &mut ProcInit<'_, Self>) -> Result<()> {
        write::call("init_child_f", Some(module_api::abi::PROC_INIT));
        act::run("proc_init")
    }

    fn proc_main(&self, _: &mut ProcMain<'_, Self>) -> Result<()> {
        write::call("init_child_f", Some(module_api::abi::PROC_MAIN));
        act::run("proc_main")
    }

    fn child_init(&self, cx: &mut ChildInit<'_>) -> Result<Child> {
        let rank = cx.rank().number();
        write::call("init_child_f", Some(rank));
        if world().script.asks_for("rng") {
            write::event("rng", &format!("sdk={:016x}", cx.rng()?.next_u64()));
        }
        act::run("child_init")?;
        Ok(Child { rank })
    }

    fn post_child_init(&self, _: &mut PostChildInit<'_>) -> Result<()> {
        write::call("init_child_f", Some(module_api::abi::PROC_POSTCHILDINIT));
        act::run("post_child_init")
    }

    fn destroy(&mut self, _: &mut Destroy<'_>) {
        write::call("destroy_f", None);
        if let Err(error) = act::run("destroy_f") {
            panic!("{error}");
        }
    }
}

impl<N: Name> Recorder<N> {
    /// Runs the action in each datagram and answers with its result.
    pub fn serve(&self, _: &mut Child, batch: &Batch<'_>) -> Result<()> {
        for datagram in batch {
            let order = String::from_utf8_lossy(datagram.data()).into_owned();
            write::call("handler", None);
            let answer = match order.as_str() {
                "info" => write::identity(None),
                // For an answer from another process.
                "peer" => datagram.peer().to_string(),
                "local" => datagram.local().to_string(),
                "addresses" => datagram.listener().addresses()?.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
                order => match order.split_once("send_from ").and_then(|(_, rest)| rest.split_once(' ')) {
                    // To the peer, from another address of the listener.
                    Some((local, text)) => match datagram.listener().send_from(act::local(local)?, datagram.peer(), text.as_bytes()) {
                        Ok(()) => continue,
                        Err(error) => error.to_string(),
                    },
                    None => act::order(order)?,
                },
            };
            match datagram.reply(answer.as_bytes()) {
                Err(SendError::NoPeer) => {
                    write::event("no_peer", &format!("peer={} answerable={}", datagram.peer(), datagram.is_answerable()))
                }
                outcome => outcome?,
            }
        }
        act::run("handler")
    }

    /// Echoes each datagram.
    pub fn echo(&self, _: &mut Child, batch: &Batch<'_>) -> Result<()> {
        for datagram in batch {
            datagram.reply_borrowed(datagram.data())?;
        }
        Ok(())
    }
}
