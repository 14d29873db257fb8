//! Calls that a phase does not allow do not compile. Each example is a test that names the
//! compiler's error code.
//!
//! All of them are variations of this module, which compiles:
//! ```
//! use module_api::prelude::*;
//!
//! struct Good {
//!     processes: usize,
//! }
//!
//! impl Module for Good {
//!     type Params = ();
//!     type Child = u64;
//!
//!     fn init(cx: &mut ModInit<'_, Self>, _: ()) -> Result<Self> {
//!         cx.register_procs(1)?;
//!         cx.timer(Timer::every("tick", Duration::from_secs(1)), |_module, child, _cx| {
//!             *child += 1;
//!             Ok(())
//!         })?;
//!         Ok(Good { processes: 0 })
//!     }
//!
//!     fn proc_init(&mut self, cx: &mut ProcInit<'_, Self>) -> Result<()> {
//!         self.processes = cx.max_procs();
//!         Ok(())
//!     }
//!
//!     fn proc_main(&self, cx: &mut ProcMain<'_, Self>) -> Result<()> {
//!         cx.fork_process(7, "walker", MakeSock::No, |module, steps, cx| {
//!             *steps += module.processes as u64;
//!             info!(steps = *steps, rank = %cx.rank(), "walked");
//!             Ok(())
//!         })?;
//!         Ok(())
//!     }
//!
//!     fn child_init(&self, _: &mut ChildInit<'_>) -> Result<u64> {
//!         Ok(0)
//!     }
//! }
//! ```
//!
//! # Registering processes
//!
//! `register_procs` belongs to `init`; not to `proc_init`:
//! ```compile_fail,E0599
//! # use module_api::prelude::*;
//! # #[derive(Default)] struct Bad;
//! # struct Child;
//! # impl Module for Bad {
//! #     type Params = (); type Child = Child;
//! #     fn init(_: &mut ModInit<'_, Self>, _: ()) -> Result<Self> { Ok(Bad::default()) }
//!     fn proc_init(&mut self, cx: &mut ProcInit<'_, Self>) -> Result<()> {
//!         cx.register_procs(2)
//!     }
//! #     fn child_init(&self, _: &mut ChildInit<'_>) -> Result<Child> { Ok(Child) }
//! # }
//! ```
//!
//! `register_procs` belongs to `init`; not to `proc_main`:
//! ```compile_fail,E0599
//! # use module_api::prelude::*;
//! # #[derive(Default)] struct Bad;
//! # struct Child;
//! # impl Module for Bad {
//! #     type Params = (); type Child = Child;
//! #     fn init(_: &mut ModInit<'_, Self>, _: ()) -> Result<Self> { Ok(Bad::default()) }
//!     fn proc_main(&self, cx: &mut ProcMain<'_, Self>) -> Result<()> {
//!         cx.register_procs(2)
//!     }
//! #     fn child_init(&self, _: &mut ChildInit<'_>) -> Result<Child> { Ok(Child) }
//! # }
//! ```
//!
//! `register_procs` belongs to `init`; not to `post_child_init`:
//! ```compile_fail,E0599
//! # use module_api::prelude::*;
//! # #[derive(Default)] struct Bad;
//! # struct Child;
//! # impl Module for Bad {
//! #     type Params = (); type Child = Child;
//! #     fn init(_: &mut ModInit<'_, Self>, _: ()) -> Result<Self> { Ok(Bad::default()) }
//!     fn post_child_init(&self, cx: &mut PostChildInit<'_>) -> Result<()> {
//!         cx.register_procs(2)
//!     }
//! #     fn child_init(&self, _: &mut ChildInit<'_>) -> Result<Child> { Ok(Child) }
//! # }
//! ```
//!
//! It does not belong to `child_init` either:
//! ```compile_fail,E0599
//! # use module_api::prelude::*;
//! # #[derive(Default)] struct Bad;
//! # struct Child;
//! # impl Module for Bad {
//! #     type Params = (); type Child = Child;
//! #     fn init(_: &mut ModInit<'_, Self>, _: ()) -> Result<Self> { Ok(Bad::default()) }
//!     fn child_init(&self, cx: &mut ChildInit<'_>) -> Result<Child> {
//!         cx.register_procs(2)?;
//!         Ok(Child)
//!     }
//! # }
//! ```
//!
//! # Counting processes
//!
//! `init` cannot ask for the number of processes, which is not known yet:
//! ```compile_fail,E0599
//! # use module_api::prelude::*;
//! # #[derive(Default)] struct Bad;
//! # struct Child;
//! # impl Module for Bad {
//! #     type Params = (); type Child = Child;
//!     fn init(cx: &mut ModInit<'_, Self>, _: ()) -> Result<Self> {
//!         let counters = vec![0; cx.max_procs()];
//!         Ok(Bad)
//!     }
//! #     fn child_init(&self, _: &mut ChildInit<'_>) -> Result<Child> { Ok(Child) }
//! # }
//! ```
//!
//! nor for memory per process:
//! ```compile_fail,E0599
//! # use module_api::prelude::*;
//! # #[derive(Default)] struct Bad;
//! # struct Child;
//! # impl Module for Bad {
//! #     type Params = (); type Child = Child;
//!     fn init(cx: &mut ModInit<'_, Self>, _: ()) -> Result<Self> {
//!         let counters = cx.per_process::<u64>()?;
//!         Ok(Bad)
//!     }
//! #     fn child_init(&self, _: &mut ChildInit<'_>) -> Result<Child> { Ok(Child) }
//! # }
//! ```
//!
//! # Counting
//!
//! Counters are registered in `init` and `proc_init`, while every process can still get its cells;
//! not in `proc_main`:
//! ```compile_fail,E0599
//! # use module_api::prelude::*;
//! # #[derive(Default)] struct Bad;
//! # struct Child;
//! # impl Module for Bad {
//! #     type Params = (); type Child = Child;
//! #     fn init(_: &mut ModInit<'_, Self>, _: ()) -> Result<Self> { Ok(Bad::default()) }
//!     fn proc_main(&self, cx: &mut ProcMain<'_, Self>) -> Result<()> {
//!         cx.counter("late", "comes too late")?;
//!         Ok(())
//!     }
//! #     fn child_init(&self, _: &mut ChildInit<'_>) -> Result<Child> { Ok(Child) }
//! # }
//! ```
//!
//! nor in a child:
//! ```compile_fail,E0599
//! # use module_api::prelude::*;
//! # #[derive(Default)] struct Bad;
//! # struct Child;
//! # impl Module for Bad {
//! #     type Params = (); type Child = Child;
//! #     fn init(_: &mut ModInit<'_, Self>, _: ()) -> Result<Self> { Ok(Bad::default()) }
//!     fn child_init(&self, cx: &mut ChildInit<'_>) -> Result<Child> {
//!         let connections = cx.gauge("connections", Unit::One, "open connections")?;
//!         Ok(Child)
//!     }
//! # }
//! ```
//!
//! They cannot be read in `init`, when other modules have not registered theirs yet:
//! ```compile_fail,E0599
//! # use module_api::prelude::*;
//! # #[derive(Default)] struct Bad;
//! # struct Child;
//! # impl Module for Bad {
//! #     type Params = (); type Child = Child;
//!     fn init(cx: &mut ModInit<'_, Self>, _: ()) -> Result<Self> {
//!         let all = cx.stats();
//!         Ok(Bad)
//!     }
//! #     fn child_init(&self, _: &mut ChildInit<'_>) -> Result<Child> { Ok(Child) }
//! # }
//! ```
//!
//! nor can the process table, which has no size yet:
//! ```compile_fail,E0599
//! # use module_api::prelude::*;
//! # #[derive(Default)] struct Bad;
//! # struct Child;
//! # impl Module for Bad {
//! #     type Params = (); type Child = Child;
//!     fn init(cx: &mut ModInit<'_, Self>, _: ()) -> Result<Self> {
//!         let rows = cx.processes();
//!         Ok(Bad)
//!     }
//! #     fn child_init(&self, _: &mut ChildInit<'_>) -> Result<Child> { Ok(Child) }
//! # }
//! ```
//!
//! # Forking
//!
//! `fork_process` belongs to `proc_main`; not to `init`:
//! ```compile_fail,E0599
//! # use module_api::prelude::*;
//! # #[derive(Default)] struct Bad;
//! # struct Child;
//! # impl Module for Bad {
//! #     type Params = (); type Child = Child;
//!     fn init(cx: &mut ModInit<'_, Self>, _: ()) -> Result<Self> {
//!         cx.fork_process(7, "late", MakeSock::No, |_: &Bad, _: &mut Child, _: &mut Process<'_>| Ok(()))?;
//!         Ok(Bad)
//!     }
//! #     fn child_init(&self, _: &mut ChildInit<'_>) -> Result<Child> { Ok(Child) }
//! # }
//! ```
//!
//! nor to `proc_init`:
//! ```compile_fail,E0599
//! # use module_api::prelude::*;
//! # #[derive(Default)] struct Bad;
//! # struct Child;
//! # impl Module for Bad {
//! #     type Params = (); type Child = Child;
//! #     fn init(_: &mut ModInit<'_, Self>, _: ()) -> Result<Self> { Ok(Bad::default()) }
//!     fn proc_init(&mut self, cx: &mut ProcInit<'_, Self>) -> Result<()> {
//!         cx.fork_process(7, "late", MakeSock::No, |_: &Bad, _: &mut Child, _: &mut Process<'_>| Ok(()))?;
//!         Ok(())
//!     }
//! #     fn child_init(&self, _: &mut ChildInit<'_>) -> Result<Child> { Ok(Child) }
//! # }
//! ```
//!
//! nor to a child:
//! ```compile_fail,E0599
//! # use module_api::prelude::*;
//! # #[derive(Default)] struct Bad;
//! # struct Child;
//! # impl Module for Bad {
//! #     type Params = (); type Child = Child;
//! #     fn init(_: &mut ModInit<'_, Self>, _: ()) -> Result<Self> { Ok(Bad::default()) }
//!     fn child_init(&self, cx: &mut ChildInit<'_>) -> Result<Child> {
//!         cx.fork_process(7, "late", MakeSock::No, |_: &Bad, _: &mut Child, _: &mut Process<'_>| Ok(()))?;
//!         Ok(Child)
//!     }
//! # }
//! ```
//!
//! nor to a process that was forked itself:
//! ```compile_fail,E0599
//! # use module_api::prelude::*;
//! # #[derive(Default)] struct Bad;
//! # struct Child;
//! # impl Module for Bad {
//! #     type Params = (); type Child = Child;
//! #     fn init(_: &mut ModInit<'_, Self>, _: ()) -> Result<Self> { Ok(Bad::default()) }
//!     fn proc_main(&self, cx: &mut ProcMain<'_, Self>) -> Result<()> {
//!         cx.fork_process(7, "early", MakeSock::No, |_, _, cx| {
//!             cx.fork_process(7, "late", MakeSock::No, |_: &Bad, _: &mut Child, _: &mut Process<'_>| Ok(()))?;
//!             Ok(())
//!         })?;
//!         Ok(())
//!     }
//! #     fn child_init(&self, _: &mut ChildInit<'_>) -> Result<Child> { Ok(Child) }
//! # }
//! ```
//!
//! # Keeping a context
//!
//! A context is valid in its phase only. It cannot become part of the module:
//! ```compile_fail
//! # use module_api::prelude::*;
//! # #[derive(Default)] struct Bad { cx: Option<&'static mut ModInit<'static, Bad>> }
//! # struct Child;
//! # impl Module for Bad {
//! #     type Params = (); type Child = Child;
//!     fn init(cx: &mut ModInit<'_, Self>, _: ()) -> Result<Self> {
//!         Ok(Bad { cx: Some(cx) })
//!     }
//! #     fn child_init(&self, _: &mut ChildInit<'_>) -> Result<Child> { Ok(Child) }
//! # }
//! ```
//!
//! No later function can use it:
//! ```compile_fail,E0521
//! # use module_api::prelude::*;
//! # #[derive(Default)] struct Bad;
//! # struct Child;
//! # impl Module for Bad {
//! #     type Params = (); type Child = Child;
//! #     fn init(_: &mut ModInit<'_, Self>, _: ()) -> Result<Self> { Ok(Bad::default()) }
//!     fn proc_main(&self, cx: &mut ProcMain<'_, Self>) -> Result<()> {
//!         cx.fork_process(7, "late", MakeSock::No, |_, _, _| {
//!             cx.max_procs();
//!             Ok(())
//!         })?;
//!         Ok(())
//!     }
//! #     fn child_init(&self, _: &mut ChildInit<'_>) -> Result<Child> { Ok(Child) }
//! # }
//! ```
//!
//! No thread can use it:
//! ```compile_fail,E0277
//! # use module_api::prelude::*;
//! # #[derive(Default)] struct Bad;
//! # struct Child;
//! # impl Module for Bad {
//! #     type Params = (); type Child = Child;
//! #     fn init(_: &mut ModInit<'_, Self>, _: ()) -> Result<Self> { Ok(Bad::default()) }
//!     fn child_init(&self, cx: &mut ChildInit<'_>) -> Result<Child> {
//!         std::thread::scope(|scope| {
//!             scope.spawn(|| cx.process_no());
//!         });
//!         Ok(Child)
//!     }
//! # }
//! ```
//!
//! # Changing the module
//!
//! After `proc_init` each process has a copy of the module, and the module can no longer change:
//! ```compile_fail,E0594
//! # use module_api::prelude::*;
//! # #[derive(Default)] struct Bad { processes: usize }
//! # struct Child;
//! # impl Module for Bad {
//! #     type Params = (); type Child = Child;
//! #     fn init(_: &mut ModInit<'_, Self>, _: ()) -> Result<Self> { Ok(Bad::default()) }
//!     fn proc_main(&self, _: &mut ProcMain<'_, Self>) -> Result<()> {
//!         self.processes = 3;
//!         Ok(())
//!     }
//! #     fn child_init(&self, _: &mut ChildInit<'_>) -> Result<Child> { Ok(Child) }
//! # }
//! ```
//!
//! It cannot change in a child either:
//! ```compile_fail,E0594
//! # use module_api::prelude::*;
//! # #[derive(Default)] struct Bad { processes: usize }
//! # struct Child;
//! # impl Module for Bad {
//! #     type Params = (); type Child = Child;
//! #     fn init(_: &mut ModInit<'_, Self>, _: ()) -> Result<Self> { Ok(Bad::default()) }
//!     fn child_init(&self, cx: &mut ChildInit<'_>) -> Result<Child> {
//!         self.processes = cx.max_procs();
//!         Ok(Child)
//!     }
//! # }
//! ```
//!
//! An entry function changes its process's child state, not the module:
//! ```compile_fail,E0594
//! # use module_api::prelude::*;
//! # #[derive(Default)] struct Bad { processes: usize }
//! # struct Child;
//! # impl Module for Bad {
//! #     type Params = (); type Child = Child;
//! #     fn init(_: &mut ModInit<'_, Self>, _: ()) -> Result<Self> { Ok(Bad::default()) }
//!     fn proc_main(&self, cx: &mut ProcMain<'_, Self>) -> Result<()> {
//!         cx.fork_process(7, "walker", MakeSock::No, |module, _child, _cx| {
//!             module.processes = 3;
//!             Ok(())
//!         })?;
//!         Ok(())
//!     }
//! #     fn child_init(&self, _: &mut ChildInit<'_>) -> Result<Child> { Ok(Child) }
//! # }
//! ```
//!
//! # Connections
//!
//! `listen_tcp` belongs to `init`; not to `proc_init`:
//! ```compile_fail,E0599
//! # use module_api::prelude::*;
//! fn late<M: Module>(cx: &mut ProcInit<'_, M>) -> Result<()> {
//!     cx.listen_tcp("127.0.0.1:0", None)?;
//!     Ok(())
//! }
//! ```
//!
//! A connection can be used during a call of its handler only; a module keeps its id:
//! ```
//! # use module_api::prelude::*;
//! # use module_api::StreamId;
//! struct Kept(StreamId);
//! fn keep(stream: &mut Stream<'_>) -> Kept { Kept(stream.id()) }
//! ```
//! ```compile_fail,E0621
//! # use module_api::prelude::*;
//! struct Kept(&'static mut Stream<'static>);
//! fn keep(stream: &mut Stream<'static>) -> Kept { Kept(stream) }
//! ```
//! ```compile_fail
//! # use module_api::prelude::*;
//! struct Kept(Stream<'static>);
//! fn keep(stream: Stream<'_>) -> Kept { Kept(stream) }
//! ```
//!
//! The buffer that `write_with` lends does not leave the closure:
//! ```compile_fail,E0521
//! # use module_api::prelude::*;
//! fn keep<'a>(stream: &'a mut Stream<'_>, kept: &mut Option<&'a mut [u8]>) -> Result<()> {
//!     Ok(stream.write_with(10, |room| {
//!         *kept = Some(room);
//!         0
//!     })?)
//! }
//! ```
//!
//! All connections of a process share the module, and none can change it:
//! ```compile_fail,E0594
//! # use module_api::prelude::*;
//! # struct Good { count: u64 }
//! # impl Module for Good {
//! #     type Params = (); type Child = ();
//! #     fn init(_: &mut ModInit<'_, Self>, _: ()) -> Result<Self> { Ok(Good { count: 0 }) }
//! #     fn child_init(&self, _: &mut ChildInit<'_>) -> Result<()> { Ok(()) }
//! # }
//! # struct Bytes;
//! impl StreamHandler<Good> for Bytes {
//!     fn open(module: &Good, _: &mut (), _: &mut Stream<'_>) -> Result<Bytes> {
//!         module.count += 1;
//!         Ok(Bytes)
//!     }
//! #   fn data(&mut self, _: &Good, _: &mut (), _: &mut Stream<'_>, data: &[u8]) -> Result<usize> { Ok(data.len()) }
//! }
//! ```
//!
//! # Shared memory
//!
//! A value that belongs to one process cannot be put there:
//! ```compile_fail,E0277
//! # use module_api::prelude::*;
//! fn share<M: Module>(cx: &mut ProcInit<'_, M>) -> Result<()> {
//!     cx.shm(String::from("on the heap of main"))?;
//!     Ok(())
//! }
//! ```
//!
//! # The child state
//!
//! Without a call of `child_init` there is none:
//! ```compile_fail,E0277
//! # use module_api::prelude::*;
//! # struct Bad;
//! struct Child;
//! impl Module for Bad {
//!     type Params = ();
//!     type Child = Child;
//! #     fn init(_: &mut ModInit<'_, Self>, _: ()) -> Result<Self> { Ok(Bad) }
//! #     fn child_init(&self, _: &mut ChildInit<'_>) -> Result<Child> { Ok(Child) }
//! }
//! module_api::export_module! { Bad, name: "bad", child_init: false }
//! # fn main() {}
//! ```
