//! Deliberate breaches of the rules about reach: each form in which code can name other code is
//! found, directly and over others.

use crate::graph::Graph;
use crate::layers::{self, PURE};
use crate::tree::Tree;

const LIB: (&str, &str) = (
    "host/src/lib.rs",
    "pub mod error; pub mod log; pub mod module; pub mod net; pub mod shm; pub mod start; pub mod state; pub mod supervise; pub mod sys;\n",
);
const MODULE: (&str, &str) =
    ("host/src/module/mod.rs", "pub mod loader; pub const MAX: usize = 1; pub struct Loaded; pub fn load_all() {}\n");
const LOADER: (&str, &str) = ("host/src/module/loader.rs", "pub struct Loader; pub fn load() {}\n");
const SUPERVISE: (&str, &str) = ("host/src/supervise/mod.rs", "pub mod wire;\n");

/// The findings of a rule over a host of these files and a few that are always there.
fn host(files: &[(&str, &str)], rule: impl Fn(&Graph) -> Vec<String>) -> Vec<String> {
    let mut all = vec![LIB, MODULE, LOADER, SUPERVISE];
    all.extend_from_slice(files);
    rule(&Graph::of(&Tree::of(&all)))
}

#[test]
fn every_form_of_reaching_a_module_from_the_supervisor_is_found() {
    let forms = [
        "use crate::module::loader;",
        "use crate::module::loader::{self, load};",
        "use crate::{error::Error, module::{MAX, loader::Loader as L}};",
        "use crate::module::*;",
        "use super::super::module::loader::load;",
        "use crate as host; fn f() { host::module::loader::load() }",
        "use crate::module as m; fn f() { m::loader::load() }",
        "pub use crate::module::loader;",
        "pub(crate) use super::super::module::Loaded;",
        "fn f() { use crate::module::loader::load; load() }",
        "fn f() { crate::module::loader::load() }",
        "fn f() { super::super::module::load_all() }",
        "fn f(with: &crate::module::loader::Loader) {}",
        "fn f() -> Option<Vec<crate::module::Loaded>> { None }",
        "struct S { loader: Box<dyn Fn(crate::module::Loaded)> }",
        "const N: usize = crate::module::MAX;",
        "fn f<T: From<crate::module::Loaded>>() {}",
        "fn f() { <crate::module::Loaded as Default>::default(); }",
        "fn f(x: u8) { match x { crate::module::MAX => {} _ => {} } }",
        "impl From<crate::module::Loaded> for S { }",
        "fn f() { tracing::info!(\"{}\", crate::module::loader::load()); }",
        "fn f() { assert!(vec![Some(super::super::module::MAX)].is_empty()); }",
        "macro_rules! load { ($x:expr) => { $crate::module::loader::load($x) }; }",
        "macro_rules! load { () => {{ use $crate::module::{loader as l, MAX}; l::load() }}; }",
        "fn f() { debug!({ use crate::module::*; load_all() }); }",
        "#[derive(Serialize)] struct S { #[serde(with = \"crate::module::loader\")] field: u8 }",
        "#[cfg(not(test))] use crate::module::loader;",
        "#[cfg(any(test, feature = \"x\"))] use crate::module::loader;",
        "mod inner { pub fn f() { super::super::super::module::load_all() } }",
        "mod inner { pub use crate::module::load_all; } fn f() { inner::load_all() }",
    ];
    for form in forms {
        let found = host(&[("host/src/supervise/wire.rs", form)], layers::supervisor_is_apart);
        assert!(!found.is_empty() && found.iter().all(|way| way.contains("modhost::module")), "{form}: {found:?}");
    }
}

#[test]
fn what_is_reached_over_others_is_found() {
    let over_net = [
        ("use crate::net::f;", "pub fn f() { crate::module::load_all() }"),
        ("use crate::net::load;", "pub use crate::module::loader::load;"),
        ("use crate::net::load_all;", "pub use crate::module::*;"),
        ("use crate::net::l;", "pub use crate::module::loader as l;"),
        ("use crate::net::*;", "use crate::module::load_all; pub fn f() { load_all() }"),
        ("use crate::net::Wire;", "pub struct Wire; mod more { impl super::Wire { pub fn load() { crate::module::load_all() } } }"),
        ("fn f() { crate::net::inner::f() }", "pub mod inner { pub fn f() { super::g() } } fn g() { crate::module::load_all() }"),
        ("fn f() { crate::load!() }", "#[macro_export] macro_rules! load { () => { $crate::module::load_all() }; }"),
        ("fn f() { load!() }", "macro_rules! load { () => { $crate::module::load_all() }; }"),
        ("use crate::load as l;", "#[macro_export] macro_rules! load { () => { $crate::module::load_all() }; }"),
    ];
    for (wire, net) in over_net {
        let found = host(&[("host/src/supervise/wire.rs", wire), ("host/src/net/mod.rs", net)], layers::supervisor_is_apart);
        assert!(!found.is_empty() && found.iter().all(|way| way.contains("modhost::module")), "{wire} {net}: {found:?}");
    }
    let long = [
        ("host/src/supervise/wire.rs", "use crate::sys::f;"),
        ("host/src/sys/mod.rs", "pub use crate::net::g as f;"),
        ("host/src/net/mod.rs", "pub fn g() {\n    crate::error::h()\n}"),
        ("host/src/error.rs", "pub fn h() {\n\n    crate::module::loader::load()\n}"),
    ];
    let way = "host/src/supervise/wire.rs:1: modhost::supervise::wire → modhost::net → modhost::error → modhost::module::loader";
    assert_eq!(host(&long, layers::supervisor_is_apart), [way]);
}

#[test]
fn what_is_not_reached_is_not_found() {
    let harmless = [
        "// use crate::module::loader;\nfn f() { let text = \"crate::module::loader\"; }",
        "/// See [`crate::module::loader`].\nfn f() {}",
        "#[cfg(test)] mod tests { use crate::module::loader; }",
        "#[cfg(test)] use crate::module::loader;",
        "#[cfg(all(test, unix))] fn f() { crate::module::load_all() }",
        "struct S; impl S { #[cfg(test)] fn f() { crate::module::load_all() } }",
        "#[test] fn f() { crate::module::load_all() }",
        "pub(in crate::module) fn f() {}",
        "fn f(module: &str) { let shm = module; }",
        // A re-export that nobody here uses.
        "use crate::net::Listener;",
    ];
    for source in harmless {
        let net = ("host/src/net/mod.rs", "pub use crate::module::loader::load; pub struct Listener;");
        assert_eq!(host(&[("host/src/supervise/wire.rs", source), net], layers::supervisor_is_apart), [""; 0], "{source}");
    }
}

#[test]
fn a_lock_and_what_is_shared_are_found_in_the_supervisor() {
    for part in ["shm", "state"] {
        let of_part = (format!("host/src/{part}/mod.rs"), format!("use crate::{part}::f;"));
        let found = host(&[(&of_part.0, "pub fn f() {}"), ("host/src/supervise/wire.rs", &of_part.1)], layers::supervisor_is_apart);
        assert_eq!(found, [format!("host/src/supervise/wire.rs:1: modhost::supervise::wire → modhost::{part}")]);
    }
    let locks = [
        "pub fn f() { unsafe { libc::pthread_mutex_lock(p) }; }",
        "use libc::{c_int, pthread_mutexattr_setpshared as share};\npub fn f() {}",
        "pub fn f() { call!(libc::PTHREAD_PROCESS_SHARED) }",
    ];
    for lock in locks {
        let files = [("host/src/supervise/wire.rs", "use crate::sys::f;"), ("host/src/sys/mod.rs", lock)];
        assert_eq!(host(&files, layers::supervisor_is_apart).len(), 1, "{lock}");
    }
    for lock in
        ["use std::sync::{Arc, Mutex};", "fn f() { std::sync::RwLock::new(()); }", "use std::sync::*;", "use ::libloading::Library;"]
    {
        assert_eq!(host(&[("host/src/supervise/wire.rs", lock)], layers::supervisor_is_apart).len(), 1, "{lock}");
    }
}

#[test]
fn only_the_program_may_reach_start() {
    let start = ("host/src/start/mod.rs", "pub mod sequence; pub fn run() { sequence::run() }");
    let sequence = ("host/src/start/sequence.rs", "use super::run as again; pub fn run() { crate::net::f() }");
    let main = ("host/src/program.rs", "use crate::start; pub fn main() { start::sequence::run() }");
    let allowed = [start, sequence, main, ("host/src/net/mod.rs", "pub fn f() {}")];
    assert_eq!(host(&allowed, layers::nothing_reaches_start), [""; 0]);
    for form in
        ["use crate::start;", "pub use super::start::sequence;", "fn f() { crate::start::run() }", "fn f() { log!(crate::start::run()) }"]
    {
        let found = host(&[start, sequence, main, ("host/src/net/mod.rs", form)], layers::nothing_reaches_start);
        assert!(!found.is_empty() && found.iter().all(|way| way.starts_with("host/src/net/mod.rs:1: ")), "{form}: {found:?}");
    }
    let passed_on = [start, sequence, ("host/src/lib.rs", "pub mod start; pub use start::run;")];
    assert_eq!(layers::nothing_reaches_start(&Graph::of(&Tree::of(&passed_on))).len(), 1);
}

#[test]
fn what_the_log_reaches_is_found() {
    let log = |source| {
        [
            ("host/src/log/mod.rs", source),
            ("host/src/sys/mod.rs", "pub fn f() { crate::error::g() }"),
            ("host/src/error.rs", "pub fn g() {}"),
        ]
    };
    assert_eq!(host(&log("use crate::{error::g, sys::f};"), layers::log_is_lowest), [""; 0]);
    for form in ["use crate::net;", "fn f() { crate::state::f() }", "pub use crate::module::MAX;", "fn f() { crate::count!() }"] {
        let net = ("host/src/net/mod.rs", "#[macro_export] macro_rules! count { () => { 0 } }");
        let files = [log(form).as_slice(), &[net, ("host/src/state/mod.rs", "pub fn f() {}")]].concat();
        assert_eq!(host(&files, layers::log_is_lowest).len(), 1, "{form}");
    }
    let over_sys =
        [("host/src/log/mod.rs", "use crate::sys::f;"), ("host/src/sys/mod.rs", "use crate::module::load_all; pub fn f() { load_all() }")];
    assert_eq!(host(&over_sys, layers::log_is_lowest), ["host/src/log/mod.rs:1: modhost::log → modhost::sys → modhost::module"]);
    let api = [("host/src/log/mod.rs", "use module_api::date;"), ("module-api/src/lib.rs", "pub mod date { use modhost::module; }")];
    assert_eq!(host(&api, layers::log_is_lowest), ["host/src/log/mod.rs:1: modhost::log → module_api::date → modhost::module"]);
}

#[test]
fn an_included_source_is_found() {
    let included = [("host/src/net/mod.rs", "const A: &str = include_str!(\"a\");\nfn f() { std::include!(\"../module/loader.rs\"); }")];
    assert_eq!(host(&included, layers::nothing_is_included), ["host/src/net/mod.rs:2: include!"]);
}

/// The findings in a pure file of this code, beside a `sys` of that.
fn pure(source: &str, sys: &str) -> Vec<String> {
    let file = format!("//! A queue.\n//!\n{PURE}\n//! *Never:* waits.\n\n{source}\n");
    let tree = Tree::of(&[LIB, MODULE, LOADER, SUPERVISE, ("host/src/net/mod.rs", &file), ("host/src/sys/mod.rs", sys)]);
    layers::pure_files(&tree, &Graph::of(&tree))
}

#[test]
fn what_a_pure_file_asks_is_found() {
    let forms = [
        "use std::time::{Duration, Instant};",
        "use std::time; fn f() { time::SystemTime::now(); }",
        "use std::time::*;",
        "use std as s; fn f() { s::env::var(\"A\"); }",
        "use std::*; fn f() { fs::read(\"a\"); }",
        "fn f() { ::std::fs::read(\"a\"); }",
        "fn f() { format!(\"{}\", std::process::id()); }",
        "fn f() { core::arch::asm!(\"syscall\"); }",
        "use nix::unistd::getpid;",
        "extern crate libc as c; fn f() { c::getpid(); }",
        "unsafe extern \"C\" { fn getpid() -> i32; }",
        "fn f(path: &std::path::Path) -> bool { path.exists() }",
        "fn f(path: &std::path::Path) { assert!(path.is_dir()); }",
        "fn f() { println!(\"a\"); }",
        "fn f() { tracing::warn!(\"a\"); }",
        "fn f() { std::thread::sleep(D); }",
    ];
    for form in forms {
        let found = pure(form, "");
        assert!(found.len() == 1 && found[0].starts_with("host/src/net/mod.rs:"), "{form}: {found:?}");
    }
}

#[test]
fn what_a_pure_file_asks_over_others_is_found() {
    let found = pure("use crate::sys::now;", "pub fn now() -> u64 { std::time::Instant::now() }");
    assert_eq!(found, ["host/src/net/mod.rs:6: modhost::net → modhost::sys: std::time::Instant::now in line 1"]);
    assert_eq!(pure("fn f() { crate::now!() }", "#[macro_export] macro_rules! now { () => { ::nix::time::now() }; }").len(), 1);
    assert_eq!(pure("use crate::sys::open;", "pub use std::fs::File as open;").len(), 1);
}

#[test]
fn a_pure_file_may_use_what_is_pure() {
    let source = "use std::time::Duration; use std::net::IpAddr; use crate::sys::text; fn f(env: Duration) { let fs = text(); }\n\
        #[cfg(test)] mod tests { use std::fs; }";
    assert_eq!(pure(source, "pub fn text() -> &'static str { \"std::fs::read\" }"), [""; 0]);
    // A name that it only passes on is not its code. A name that it uses is.
    let open = "pub fn open() { std::fs::File::open(\"a\"); }";
    assert_eq!(pure("pub use crate::sys::open;", open), [""; 0]);
    assert_eq!(pure("pub use crate::sys::open; fn f() { open() }", open).len(), 1);
}

#[test]
fn a_missing_mark_of_purity_is_found() {
    let path = "host/src/timer/queue.rs";
    let is_found = |text: &str| layers::pure_files_are_marked(&Tree::of(&[(path, text)])).iter().any(|found| found.starts_with(path));
    assert!(is_found("//! A queue.\n"));
    assert!(is_found("//! *Pure:* mostly.\n"));
    assert!(is_found(&format!("//! A queue.\n\n{PURE}\n")));
    assert!(!is_found(&format!("//! A queue.\n{PURE}\n")));
    assert!(layers::pure_files_are_marked(&Tree::of(&[])).iter().any(|found| found.starts_with(path)));
}

/// The findings over the API, two modules and the host, with one of these files replaced.
fn crates(path: &str, text: &str) -> Vec<String> {
    let mut files = vec![
        ("host/src/lib.rs", "use module_api::abi::Level; pub fn f() {}"),
        ("module-api/src/lib.rs", "pub mod abi { pub struct Level; }"),
        ("module-api/Cargo.toml", "[dependencies]\nlog = \"0.4\"\n"),
        ("modules/echo/src/lib.rs", "use module_api::abi; mod part;"),
        ("modules/echo/src/part.rs", ""),
        ("modules/echo/Cargo.toml", "[dependencies]\nmodule-api = { path = \"../../module-api\" }\n"),
        ("modules/http/src/lib.rs", "pub fn serve() {}"),
        ("modules/http/Cargo.toml", "[dependencies.module-api]\npath = \"../../module-api\"\n"),
        ("modules/c-hello/hello.c", "#include <stdio.h>\n#include \"modhost.h\"\n"),
    ];
    files.retain(|(old, _)| *old != path);
    files.push((path, text));
    let tree = Tree::of(&files);
    layers::modules_know_only_the_api(&tree, &Graph::of(&tree))
}

#[test]
fn what_a_crate_must_not_know_is_found() {
    assert_eq!(crates("modules/echo/src/part.rs", "fn f() {}"), [""; 0]);
    let breaches = [
        ("module-api/src/lib.rs", "pub fn f() { modhost::f() }"),
        ("module-api/src/lib.rs", "extern crate http;"),
        ("module-api/src/lib.rs", "macro_rules! m { () => { ::modhost::f() } }"),
        ("module-api/Cargo.toml", "[dev-dependencies]\nmodhost = { path = \"../host\" }\n"),
        ("modules/echo/src/part.rs", "use modhost::f;"),
        ("modules/echo/src/part.rs", "use http::*;"),
        ("modules/echo/src/part.rs", "fn f() { log!(\"{}\", http::serve()) }"),
        ("modules/echo/src/lib.rs", "#[path = \"../../http/src/lib.rs\"] mod http;"),
        ("modules/echo/Cargo.toml", "[dependencies]\nother = { package = \"http\", path = \"../http\" }\n"),
        ("modules/echo/Cargo.toml", "[target.'cfg(unix)'.build-dependencies.modhost]\npath = \"../../host\"\n"),
        ("modules/echo/Cargo.toml", "[dependencies]\nmodhost.workspace = true\n"),
        ("modules/echo/Cargo.toml", "[dependencies]\nmodhost.git = \"https://example.org/modhost\"\n"),
        ("modules/c-hello/hello.c", "#include \"../../host/modhost.h\"\n"),
        ("modules/c-hello/hello.c", "#include \"modhost/../../kv/kv.h\"\n"),
    ];
    for (path, text) in breaches {
        let found = crates(path, text);
        assert_eq!(found.len(), 1, "{path}: {text}: {found:?}");
    }
}

#[test]
fn a_test_that_looks_inside_is_found() {
    let black_box = |path, text| layers::tests_are_black_boxes(&Tree::of(&[(path, text)]));
    assert_eq!(
        black_box("tests/config.rs", "//! modhost::f\n#[test] fn f() { run(\"modhost::f\"); let modhost = module_api::X; }"),
        [""; 0]
    );
    for form in [
        "use modhost::f;",
        "#[test] fn f() { assert!(::modhost::f()); }",
        "extern crate modhost;",
        "mod m { #[cfg(test)] use modhost as host; }",
    ] {
        assert_eq!(black_box("tests/config.rs", form).len(), 1, "{form}");
    }
    assert_eq!(black_box("tests/Cargo.toml", "[dependencies]\nmodhost = { path = \"../host\" }\n"), ["tests/Cargo.toml: host"]);
}
