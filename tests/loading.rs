//! Module files that must be refused, each with its reason and exit code and with nothing left; and
//! files that look odd and must load.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use harness::built;
use harness::{Attempt, Complaint, is_root};

/// The error of `run` and `check` for one module. Both must report the same.
#[track_caller]
fn refusal(attempt: &Attempt, module: &str, code: i32) -> Complaint {
    let mut complaints = attempt.refused(code, &["run", module]);
    assert_eq!(complaints.len(), 1, "{complaints:#?}");
    let checked = attempt.refused(2, &["check", module]);
    assert_eq!(checked.len(), 1, "{checked:#?}");
    // Main, which loads the file, no longer knows that the command line named it.
    let [run, check] = [&complaints[0], &checked[0]].map(|complaint| {
        let what = complaint.what.strip_prefix("command line: ").unwrap_or(&complaint.what).to_owned();
        Complaint { what, ..complaint.clone() }
    });
    assert_eq!(run, check);
    complaints.remove(0)
}

/// For a module that is refused before any of its code runs. `inspect` must report the same.
#[track_caller]
fn refused_before_loading(attempt: &Attempt, module: &str) -> Complaint {
    let complaint = refusal(attempt, module, 2);
    let inspected = attempt.run(&["inspect", module]);
    assert_eq!((inspected.code, inspected.errors.as_str()), (2, ""));
    let reason = complaint.what.rsplit_once("cannot be loaded: ").map_or("", |(_, reason)| reason);
    for part in [reason, &complaint.detail, &complaint.hint] {
        assert!(inspected.output.contains(part), "{part:?} is not in\n{}", inspected.output);
    }
    complaint
}

#[test]
fn paths_that_are_not_files_are_refused() {
    let attempt = Attempt::new();
    fs::create_dir(attempt.folder().join("folder.so")).unwrap();
    symlink("nowhere", attempt.folder().join("broken.so")).unwrap();
    symlink("circle.so", attempt.folder().join("circle.so")).unwrap();
    assert!(Command::new("mkfifo").arg(attempt.folder().join("pipe.so")).status().unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(attempt.folder().join("socket.so")).unwrap();
    for (module, reason, detail, hint) in [
        ("./folder.so", "it is a directory", "expected a file", "--load-all"),
        (".", "it is a directory", "expected a file", "--load-all"),
        ("./pipe.so", "it is a pipe", "expected a file", "shared object"),
        ("/dev/null", "it is a device", "expected a file", "shared object"),
        ("/dev/zero", "it is a device", "expected a file", "shared object"),
        ("./broken.so", "it cannot be read", "no such file or directory", "path"),
        ("./missing.so", "it cannot be read", "no such file or directory", "path"),
        ("./missing/x.so", "it cannot be read", "no such file or directory", "path"),
        ("./circle.so", "it cannot be read", "too many levels of symbolic links", "path"),
        ("./modhost/x.so", "it cannot be read", "not a directory", "path"),
        ("./socket.so", "it cannot be read", "no such device or address", "path"),
    ] {
        let module = if module == "." { "./." } else { module };
        refused_before_loading(&attempt, module).assert(&format!("cannot be loaded: {reason}"), detail, hint);
    }
}

#[test]
fn unreadable_files_are_refused() {
    let attempt = Attempt::new();
    let path = attempt.table("libtable.so", &[]);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    let attempt = if is_root() { attempt.through(&["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]) } else { attempt };
    refused_before_loading(&attempt, "./libtable.so").assert("it cannot be read", "permission denied", "permissions");
}

#[test]
fn files_that_are_not_elf_are_refused() {
    let attempt = Attempt::new();
    for (bytes, reason, detail, hint) in [
        (&b""[..], "it is empty", "0 bytes", "again"),
        (b"\x7f", "it is", "", ""),
        (b"hello, world\n", "it is not an ELF file", "begins with", "lib"),
        (b"#!/bin/sh\nexit 0\n", "it is not an ELF file", "a script", "lib"),
        (b"!<arch>\n", "it is not an ELF file", "a static library", "lib"),
        (b"\0\0\0\0\0\0\0\0\0\0", "it is not an ELF file", "begins with", "lib"),
        (b"\x7fELF", "it is truncated", "4 bytes of at least", "again"),
    ] {
        attempt.write("x.so", bytes);
        let complaint = refused_before_loading(&attempt, "./x.so");
        if !detail.is_empty() {
            complaint.assert(reason, detail, hint);
        }
    }
}

#[test]
fn truncated_modules_are_refused_at_every_length() {
    let attempt = Attempt::new();
    for whole in [built::module("hello"), attempt.table("whole.so", &[])] {
        let bytes = fs::read(whole).unwrap();
        let end = loaded_bytes(&bytes);
        let mut names = Vec::new();
        let lengths = (0..100).map(|part| end * part / 100).chain([1, 3, 4, 15, 16, 63, 64, 65, 119, 120, 121, end - 2, end - 1]);
        for (number, length) in lengths.enumerate() {
            let name = format!("cut/{number}.so");
            attempt.write(&name, &bytes[..length]);
            names.push(name);
        }
        let arguments: Vec<&str> = ["inspect", "--json"].into_iter().chain(names.iter().map(String::as_str)).collect();
        let outcome = attempt.run(&arguments);
        assert_eq!((outcome.code, outcome.errors.as_str()), (2, ""));
        let reports: serde_json::Value = serde_json::from_str(&outcome.output).unwrap();
        for report in reports.as_array().unwrap() {
            let [what, detail, hint] = ["what", "detail", "hint"].map(|part| report["error"][part].as_str().unwrap_or("").to_owned());
            let known = ["it is empty", "it is truncated", "it is not an ELF file", "it is damaged", "its exports table cannot be right"];
            assert_eq!(report["loadable"], false, "{report:#}");
            assert!(known.contains(&what.as_str()) && !detail.is_empty() && !hint.is_empty(), "{report:#}");
        }
        // `inspect` and a start report the same.
        for name in names.iter().step_by(16) {
            refused_before_loading(&attempt, &format!("./{name}"));
        }
    }
}

/// Where the last segment ends. No loader reads what follows.
fn loaded_bytes(bytes: &[u8]) -> usize {
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
    let half = |at: usize| usize::from(u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap()));
    let headers = (0..half(56)).map(|number| word(32) + number * 56);
    headers.filter(|at| bytes[*at..at + 4] == [1, 0, 0, 0]).map(|at| word(at + 8) + word(at + 32)).max().unwrap()
}

#[test]
fn other_machines_are_refused() {
    let attempt = Attempt::new();
    let bytes = fs::read(attempt.table("whole.so", &[])).unwrap();
    for (at, patch, detail) in [
        (18, &[183_u8, 0][..], "aarch64 64-bit"),
        (18, &[243, 0], "riscv 64-bit"),
        (18, &[0xff, 0xff], "machine 65535"),
        (4, &[1], "32-bit"),
        (5, &[2], "big-endian"),
    ] {
        let mut other = bytes.clone();
        other[at..at + patch.len()].copy_from_slice(patch);
        attempt.write("other.so", other);
        refused_before_loading(&attempt, "./other.so").assert("it is for another machine", detail, "build the module for");
    }
    for (kind, detail) in [(1, "not linked yet"), (2, "a program"), (4, "a core dump"), (77, "unknown kind")] {
        let mut other = bytes.clone();
        other[16] = kind;
        attempt.write("other.so", other);
        refused_before_loading(&attempt, "./other.so").assert("it is not a shared object", detail, "-shared");
    }
    refused_before_loading(&attempt, "./modhost").assert("it is a program, not a shared object", "", "-shared");
}

#[test]
fn impossible_exports_tables_are_refused() {
    let attempt = Attempt::new();
    let long = format!("-DNAME=\"{}\"", "x".repeat(32));
    let handler = |handler: &str| {
        format!(
            "-DHANDLERS=.handlers=(const struct modhost_handler[]){{{handler}}},.handler_count=1,.handler_stride=sizeof(struct modhost_handler)"
        )
    };
    let param = |param: &str| {
        format!("-DPARAMS=.params=(const struct modhost_param[]){{{param}}},.param_count=1,.param_stride=sizeof(struct modhost_param)")
    };
    let [bad_handler, kind_handler, no_function] = [
        handler("{.name=\"A\",.kind=1,.on_datagrams=serve}"),
        handler("{.name=\"a\",.kind=9,.on_datagrams=serve}"),
        handler("{.name=\"a\",.kind=1}"),
    ];
    let [bad_param, no_target, empty_range, bad_default] = [
        param("{.name=\"a\",.kind=10,.target=&number}"),
        param("{.name=\"a\",.kind=2}"),
        param("{.name=\"a\",.kind=2,.flags=2,.min=2,.max=1,.target=&number}"),
        param("{.name=\"a\",.kind=2,.default_text=\"x\",.target=&number}"),
    ];
    let cases: [(&[&str], &str, &str, &str); 25] = [
        (&["-DNO_TABLE", "-DNO_NOTE"], "it is not a modhost module", "neither a modhost note", "MODULE_EXPORTS"),
        (&["-DNO_TABLE"], "it has a modhost note, but no exports table", "module_exports", "visible"),
        (&["-DMAGIC=7"], "is not a modhost exports table", "0x0000000000000007", "another program"),
        (&["-DMAJOR=2"], "it was built for another module ABI", "the module has 2.0, this host has 1.0", "module-api 1.x"),
        (&["-DMAJOR=2", "-DNO_NOTE"], "it was built for another module ABI", "the module has 2.0, this host has 1.0", "module-api 1.x"),
        (&["-DMAJOR=0"], "it was built for another module ABI", "the module has 0.0, this host has 1.0", "rebuild"),
        (&["-DMINOR=3", "-DNEEDS=1"], "it needs a newer host", "it needs module ABI 1.1, this host has 1.0", "upgrade modhost"),
        (&["-DSIZE=64"], "its exports table is too small", "64 bytes", "rebuild"),
        (&["-DSIZE=135"], "its exports table is too small", "135 bytes", "rebuild"),
        (&["-DSIZE=4000"], "its exports table cannot be right", "4000 bytes, its symbol has 168", "rebuild"),
        (&["-DFLAGS=2"], "panic = \\\"abort\\\"", "would end the process", "unwind"),
        (&["-DFLAGS=64"], "its exports table has unknown flags", "0x40", "rebuild"),
        (&["-DSLOT=0"], "its exports table cannot be used", "host_slot is null", "author"),
        (&["-DSLOT=(void*)handlers"], "its exports table cannot be used", "not in writable memory", "author"),
        (&["-DNAME=\"Bad\\040Name\""], "its name is not one", "Bad Name", "author"),
        (&["-DNAME=\"\""], "its name is not one", "\"\"", "author"),
        (&[&long], "its name is not one", "expected 1 to 31", "author"),
        (&["-DVERSION=\"\""], "its version is not one", "1 to 31", "author"),
        (&[&bad_handler], "it declares a handler that cannot be", "called \"A\"", "author"),
        (&[&kind_handler], "it declares a handler that cannot be", "kind 9", "author"),
        (&[&no_function], "its exports table cannot be used", "has no function", "author"),
        (&[&bad_param], "it declares a parameter that cannot be", "kind 10", "author"),
        (&[&no_target], "its exports table cannot be used", "target of parameter \"a\" is null", "author"),
        (&[&empty_range], "it declares a parameter that cannot be", "range of parameter \"a\" is empty", "author"),
        (&[&bad_default], "it declares a parameter that cannot be", "default of parameter \"a\"", "author"),
    ];
    for (options, reason, detail, hint) in cases {
        attempt.table("table.so", options);
        let reason = reason.replace("\\\"", "\"");
        refused_before_loading(&attempt, "./table.so").assert(&reason, detail, hint);
    }
}

#[test]
fn a_module_with_a_newer_minor_version_runs() {
    let attempt = Attempt::new();
    attempt.table("newer.so", &["-DMINOR=3", "-DMORE=8", "-DFLAGS=64", "-DNAME=\"newer\""]);
    attempt.table("nonote.so", &["-DNO_NOTE", "-DNAME=\"nonote\""]);
    let host = attempt.start(&["run", "./newer.so", "./nonote.so", "--listen", "udp://127.0.0.1:0=newer", "--set", "newer.text=a b"]);
    assert_eq!(host.client().ask_text(""), "0 3 1000000000 a b");
    host.stop();
}

#[test]
fn incompatible_rust_builds_are_refused() {
    let attempt = Attempt::new();
    attempt.copy(&built::refused("panic_abort"), "panic_abort.so");
    refused_before_loading(&attempt, "./panic_abort.so").assert("it was built with panic = \"abort\"", "would end the process", "unwind");
    // Only the loaded table shows this. Of the module, only its constructors have run.
    attempt.copy(&built::refused("changed_layout"), "changed_layout.so");
    let complaint = refusal(&attempt, "./changed_layout.so", 2);
    complaint.assert("cannot load module", "params.kind: the module was built with u64, this host has u32", "rebuild the module");
}

#[test]
fn errors_of_the_dynamic_linker_are_reported() {
    let attempt = Attempt::new();
    attempt.table("undefined.so", &["-DUNDEFINED"]);
    refusal(&attempt, "./undefined.so", 2).assert("cannot load module", "undefined symbol: nobody_has_this", "all it links to");
    // A library that exists when the module is linked and not when it is loaded.
    let library = attempt.folder().join("libgone.so");
    built::table(&library, &["-DNO_TABLE", "-DNO_NOTE", "-Wl,-soname,libgone.so", "-Wl,--no-as-needed"]);
    let folder = format!("-L{}", attempt.folder().display());
    attempt.table("lacking.so", &["-Wl,--no-as-needed", &folder, "-lgone"]);
    fs::remove_file(library).unwrap();
    refusal(&attempt, "./lacking.so", 2).assert("cannot load module", "libgone.so: cannot open shared object file", "all it links to");
    // An optional module is left out with the same message.
    attempt.table("libtable.so", &[]);
    attempt.write("modhost.toml", "[[module]]\npath = \"undefined.so\"\noptional = true\n[[module]]\npath = \"libtable.so\"\n");
    let complaints = attempt.refused(2, &["run", "-c", "modhost.toml"]);
    // Both have the same name.
    assert_eq!(complaints.len(), 1, "{complaints:#?}");
    complaints[0].assert("two modules call themselves \"table\"", "undefined.so", "another name");
    attempt.table("libtable.so", &["-DNAME=\"other\""]);
    let host = attempt.expect_log("optional module is left out: cannot load module").start(&[
        "run",
        "-c",
        "modhost.toml",
        "--listen",
        "udp://127.0.0.1:0=other",
    ]);
    assert_eq!(host.client().ask_text(""), "0 3 1000000000 nothing");
    host.stop();
}

#[test]
fn misbehaving_constructors_are_blamed() {
    let attempt = Attempt::new();
    attempt.table("table.so", &["-DCONSTRUCTOR_THREAD"]);
    refusal(&attempt, "./table.so", 1).assert("module \"table\" started a thread while it was being loaded", "2 threads", "init_child_f");
    for (act, how) in [("abort()", "was killed by SIGABRT"), ("exit(0)", "exited with status 0"), ("_exit(3)", "exited with status 3")] {
        attempt.table("table.so", &[&format!("-DCONSTRUCTOR_DIES={act}"), "-D_GNU_SOURCE", "-include", "unistd.h"]);
        let complaints = attempt.refused(1, &["run", "./table.so"]);
        assert_eq!(complaints.len(), 1);
        complaints[0].assert(&format!("main {how} in loading of module \"table\" while starting"), "", "");
        let complaints = attempt.refused(2, &["check", "./table.so"]);
        complaints[0].assert("module \"table\" ends the process that loads it", "its constructors", "init_f");
    }
    attempt.table("table.so", &["-DINIT_FAILS"]);
    let complaints = attempt.refused(1, &["run", "./table.so"]);
    complaints[0].assert("module \"table\" failed in init_f", "as asked", "");
}

#[test]
fn each_module_is_loaded_once() {
    let attempt = Attempt::new();
    let table = attempt.table("libtable.so", &[]);
    symlink("libtable.so", attempt.folder().join("symbolic.so")).unwrap();
    fs::hard_link(&table, attempt.folder().join("hard.so")).unwrap();
    attempt.copy(&table, "copy.so");
    let complaints = |second: &str| {
        let complaints = attempt.refused(2, &["run", "./libtable.so", second]);
        assert_eq!(complaints.len(), 1, "{complaints:#?}");
        complaints[0].clone()
    };
    complaints("./libtable.so").assert("is configured twice", "first at command line", "once");
    for second in ["./symbolic.so", "./hard.so"] {
        complaints(second).assert("is configured twice", "libtable.so\" at command line", "once");
    }
    complaints("./copy.so").assert("two modules call themselves \"table\"", "copy.so\" here", "another name");
}

#[test]
fn a_configured_name_must_match_the_module() {
    let attempt = Attempt::new();
    fs::create_dir(attempt.folder().join("dir")).unwrap();
    attempt.table("dir/libother.so", &[]);
    check_name(&attempt, "other");
}

#[track_caller]
fn check_name(attempt: &Attempt, name: &str) {
    let complaints = attempt.refused(2, &["run", name, "--module-dir", "dir"]);
    assert_eq!(complaints.len(), 1, "{complaints:#?}");
    complaints[0].assert(&format!("module \"{name}\" calls itself \"table\""), "dir/libother.so", "write name = \"table\"");
}

#[test]
fn a_folder_of_modules_is_loaded_in_name_order() {
    let attempt = Attempt::new();
    fs::create_dir(attempt.folder().join("all")).unwrap();
    // Files that are not modules are skipped. A file that claims to be a module and is bad is an
    // error.
    attempt.write("all/README", "hello");
    attempt.write("all/empty.so", "");
    attempt.table("all/liba.so", &["-DNO_TABLE", "-DNO_NOTE"]);
    attempt.table("all/libz.so", &["-DNAME=\"first\"", "-DDEPENDS={.name=\"second\",.kind=1}"]);
    attempt.table("all/libb.so", &["-DNAME=\"third\""]);
    attempt.table("all/libzz.so", &["-DNAME=\"second\""]);
    attempt.table("all/libzzz.so", &["-DMAJOR=2"]);
    let complaints = attempt.refused(2, &["run", "--load-all", "all"]);
    assert_eq!(complaints.len(), 1, "{complaints:#?}");
    complaints[0].assert("command line, --load-all: module", "the module has 2.0", "rebuild");
    fs::remove_file(attempt.folder().join("all/libzzz.so")).unwrap();
    let host = attempt.start(&["run", "--load-all", "all", "--listen", "udp://127.0.0.1:0=first"]);
    let log = host.stop().log;
    let order: Vec<&str> = log.lines.iter().filter_map(|line| line.text.split_once("init_f of ").map(|(_, name)| name)).collect();
    assert_eq!(order, ["third", "second", "first"]);
    let attempt = Attempt::new();
    attempt.refused(2, &["run", "--load-all", "nowhere"])[0].assert("cannot list the folder", "no such file or directory", "");
    assert!(!Path::new("nowhere").exists());
}

#[test]
fn mismatched_interfaces_are_refused_before_any_init() {
    let attempt = Attempt::new();
    // Neither module has a handler: only the interfaces matter here.
    let build = |file: &str, name: &str, more: &[&str]| {
        let mut options = vec![name, "-DHANDLERS=.handlers=0"];
        options.extend(more);
        attempt.table(file, &options);
    };
    let exports = |text: &str| format!("-DINTERFACES={{\"calls.made\",{text},sizeof(struct calls),&calls,\"first(u32)\\nsecond()\\n\"}}");
    let binds = |text: &str, layout: &str| {
        format!("-DBINDS={{\"calls.made\",{text},sizeof(struct calls),1,0,(const void**)(void*)&bound,\"{layout}\"}}")
    };
    let known = "first(u32)\\nsecond()\\n";
    let none = "-DNOTHING".to_owned();
    for (exported, bound, what, detail, hint) in [
        (none, binds("1,0", known), "needs the interface \"calls.made\" 1.0, which no loaded module exports", "", "modhost inspect"),
        (exports("1,0"), binds("1,2", known), "\"calls.made\" 1.2, which is there in an older version", "\"giver\" exports 1.0", "newer"),
        (exports("2,0"), binds("1,0", known), "which is there in another version", "module \"giver\" exports 2.0", "rebuild \"taker\""),
        (
            exports("1,0"),
            binds("1,0", "first(u64)\\nsecond()\\n"),
            "do not mean the same",
            "exported is first(u32), wanted is first(u64)",
            "same",
        ),
    ] {
        build("giver.so", "-DNAME=\"giver\"", &[&exported]);
        build("taker.so", "-DNAME=\"taker\"", &[&bound]);
        for command in ["run", "check"] {
            let complaints = attempt.refused(2, &[command, "./taker.so", "./giver.so"]);
            assert_eq!(complaints.len(), 1, "{complaints:#?}");
            complaints[0].assert(what, detail, hint);
        }
    }
    // Each requires the other.
    let other = |name: &str| format!("-DINTERFACES={{MODHOST_INTERFACE(\"{name}\",1,0,calls)}}");
    let wants = |name: &str| format!("-DBINDS={{MODHOST_BIND(\"{name}\",1,0,1,bound)}}");
    build("giver.so", "-DNAME=\"giver\"", &[&other("calls.made"), &wants("calls.taken")]);
    build("taker.so", "-DNAME=\"taker\"", &[&other("calls.taken"), &wants("calls.made")]);
    let complaints = attempt.refused(2, &["run", "./taker.so", "./giver.so"]);
    assert_eq!(complaints.len(), 1, "{complaints:#?}");
    complaints[0].assert(
        "require each other in a circle",
        "taker imports calls.made of giver, giver imports calls.taken of taker",
        "do without",
    );
    // Two modules export the same interface.
    build("giver.so", "-DNAME=\"giver\"", &[&other("calls.made")]);
    build("taker.so", "-DNAME=\"taker\"", &[&other("calls.made")]);
    let complaints = attempt.refused(2, &["check", "./taker.so", "./giver.so"]);
    complaints[0].assert("modules \"taker\" and \"giver\" both export the interface \"calls.made\" 1.x", "either", "leave one");
    // Errors that one file shows alone.
    build("bad.so", "-DNAME=\"bad\"", &["-DINTERFACES={MODHOST_INTERFACE(\"Calls\",1,0,calls)}"]);
    refused_before_loading(&attempt, "./bad.so").assert("it declares an interface that cannot be", "is called \"Calls\"", "author");
    build("bad.so", "-DNAME=\"bad\"", &["-DINTERFACES={\"calls\",1,0,16,0,0}"]);
    refused_before_loading(&attempt, "./bad.so").assert(
        "its exports table cannot be used",
        "the interface \"calls\" has no table",
        "author",
    );
    build("bad.so", "-DNAME=\"bad\"", &["-DBINDS={\"calls\",1,0,16,1,0,(const void**)(void*)&calls,0}"]);
    refused_before_loading(&attempt, "./bad.so").assert("its exports table cannot be used", "not in writable memory", "author");
}

#[test]
fn a_module_calls_another_in_every_process() {
    let attempt = Attempt::new();
    for name in ["sums", "sums_user", "sums_changed"] {
        attempt.copy(&built::fixture(name), &format!("{name}.so"));
    }
    // The configuration lists the importing module first; it is loaded after the exporting one. The
    // module of another build loads without the interface.
    let run = ["run", "./sums_user.so", "./sums_changed.so", "./sums.so"];
    let host = attempt.start(&run);
    for phase in
        ["init the sum is 101", "proc_init the sum is 102", "proc_main the sum is 103", "child_init the sum is", "process the sum is"]
    {
        host.wait_for_log(&format!("in {phase}"));
    }
    host.wait_for_log("in timer the sum is");
    host.wait_for_log("without sums");
    host.wait_for_log("an optional interface is not imported");
    let log = host.stop().log;
    assert!(log.lines.iter().any(|line| line.text.contains("in destroy the sum is")));
    let at = |text: &str| log.lines.iter().position(|line| line.text.contains(text)).unwrap();
    assert!(at("sums is there") < at("in init the sum is 101"));
}

#[test]
fn a_panic_in_a_called_module_ends_the_call_and_is_blamed_on_it() {
    let attempt = Attempt::new();
    for name in ["sums", "sums_user"] {
        attempt.copy(&built::fixture(name), &format!("{name}.so"));
    }
    let set = |phase: &str, wrong: &str| [format!("sums_user.phase={phase}"), format!("sums_user.wrong={wrong}")];
    for (phase, wrong, what, detail) in [
        ("init", "fail", "module \"sums_user\" failed in init_f", "test.sums fail: as asked"),
        // Even though the importing module continued after the panic.
        ("init", "panic", "module \"sums_user\" panicked in init_f", "another module that it called panicked"),
        ("init", "crash", "main was killed by SIGABRT in init_f of module \"sums\"", ""),
        ("proc_init", "crash", "in init_child_f(PROC_INIT) of module \"sums\"", ""),
    ] {
        let [phase, wrong] = set(phase, wrong);
        let outcome = attempt.run(&["run", "./sums.so", "./sums_user.so", "--set", &phase, "--set", &wrong]);
        assert_eq!(outcome.code, 1, "{}", outcome.errors);
        assert!(outcome.errors.contains(what) && outcome.errors.contains(detail), "{what:?}, {detail:?}: {}", outcome.errors);
    }
}

#[test]
fn interfaces_cross_from_and_to_c() {
    let attempt = Attempt::new();
    for name in ["sums", "sums_c", "sums_c_user", "sums_user"] {
        attempt.copy(&built::fixture(name), &format!("{name}.so"));
    }
    let host = attempt.start(&["run", "./sums_c_user.so", "./sums_user.so", "./sums_c.so"]);
    host.wait_for_log("in C: init_f sum=1007 why=in C: first");
    host.wait_for_log("in init the sum is 2008 crash=true");
    host.stop();
    let attempt = Attempt::new();
    for name in ["sums", "sums_c_user"] {
        attempt.copy(&built::fixture(name), &format!("{name}.so"));
    }
    let host = attempt.start(&["run", "./sums_c_user.so", "./sums.so"]);
    host.wait_for_log("in C: PROC_INIT sum=114 why=first");
    host.stop();
    let attempt = Attempt::new();
    attempt.copy(&built::fixture("sums_c_user"), "sums_c_user.so");
    let host = attempt.start(&["run", "./sums_c_user.so"]);
    host.wait_for_log("in C: init_f without sums");
    host.stop();
}

/// It would cost five more mappings to copy at each fork, and a slow constructor: decision 0018.
#[test]
fn no_file_needs_the_shared_unwinder() {
    let name = b"libgcc_s.so";
    for file in [built::host(), built::module("echo"), built::module("hello"), built::fixture("recorder_a")] {
        let bytes = std::fs::read(&file).unwrap();
        assert!(!bytes.windows(name.len()).any(|window| window == name), "{}", file.display());
    }
}
