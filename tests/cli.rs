//! The command line: help, versions, misuse, and `inspect` of good and bad files.

use std::fs;
use std::path::Path;

use harness::built;
use harness::{Attempt, Outcome};
use serde_json::Value::Null;

/// Compares with a file of `tests/golden`. `GOLDEN=write` regenerates it.
#[track_caller]
fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name);
    if std::env::var("GOLDEN").is_ok_and(|wish| wish == "write") {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
    }
    let want = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, want, "{} differs; GOLDEN=write regenerates it", path.display());
}

const COMMANDS: [&str; 8] = ["run", "check", "inspect", "ps", "stats", "shm", "stop", "rpc"];

#[test]
fn help_texts() {
    let attempt = Attempt::new();
    for command in COMMANDS {
        let outcome = attempt.run(&[command, "--help"]);
        assert_eq!((outcome.code, outcome.errors.as_str()), (0, ""));
        golden(&format!("help-{command}.txt"), &outcome.output);
    }
    let outcome = attempt.run(&["--help"]);
    assert_eq!((outcome.code, outcome.errors.as_str()), (0, ""));
    golden("help.txt", &outcome.output);
    for command in COMMANDS {
        assert!(outcome.output.contains(&format!("\n  {command} ")), "{command} is not in\n{}", outcome.output);
    }
    let longest = outcome.output.lines().map(|line| line.chars().count()).max();
    assert!(longest <= Some(100), "{longest:?} columns");
}

#[test]
fn versions() {
    let attempt = Attempt::new();
    for option in ["--version", "-V"] {
        let outcome = attempt.run(&[option]);
        assert_eq!((outcome.code, outcome.errors.as_str()), (0, ""));
        assert!(outcome.output.starts_with("modhost ") && outcome.output.ends_with("(module ABI 1.0)\n"), "{:?}", outcome.output);
    }
}

#[test]
fn misuse_exits_with_2_and_explains_on_stderr() {
    let attempt = Attempt::new();
    let cases: [(&[&str], &str); 14] = [
        (&[], "Usage: modhost <COMMAND>"),
        (&["runn"], "run"),
        (&["--wrong"], "--wrong"),
        (&["run", "--wrkers", "3"], "--workers"),
        (&["run", "--workers", "x"], "invalid digit"),
        (&["run", "--workers", "-1"], "-1"),
        (&["run", "--workers", "99999999999"], "99999999999"),
        (&["run", "--no-fork", "--daemon"], "cannot be used with"),
        (&["run", "-c", "a", "-c", "b"], "cannot be used multiple times"),
        (&["run", "--log-format", "xml"], "text, json"),
        (&["inspect"], "FILE.so"),
        (&["inspect", "--jsn", "x"], "--json"),
        (&["check", "-c"], "FILE"),
        (&["rpc"], "METHOD"),
    ];
    for (arguments, part) in cases {
        let outcome = attempt.run(arguments);
        assert_eq!((outcome.code, outcome.output.as_str()), (2, ""), "{arguments:?}");
        assert!(outcome.errors.contains(part), "{part:?} is not in {:?} of {arguments:?}", outcome.errors);
        assert!(!outcome.errors.contains('\x1b'), "colours without a terminal: {:?}", outcome.errors);
    }
    for (arguments, what, hint) in [
        (&["run", "--listen", "127.0.0.1:1=a"][..], "\"127.0.0.1:1=a\" is not a listener", "udp://"),
        (&["run", "--listen", "udp://127.0.0.1:1"], "is not a listener", "udp://"),
        (&["run", "--log-level", "inof"], "\"inof\" is no level", "info"),
        (&["run", "Bad Name"], "the name \"Bad Name\"", "./FILE"),
    ] {
        let complaints = attempt.refused(2, arguments);
        assert!(complaints[0].what.contains(what) && complaints[0].hint.contains(hint), "{complaints:#?}");
    }
}

#[test]
fn commands_fail_without_a_running_host() {
    let attempt = Attempt::new();
    attempt.write("plain", "");
    for command in [&["ps"][..], &["stats"], &["shm"], &["stop"], &["rpc", "ping"]] {
        for socket in ["nowhere", "plain", "."] {
            let mut arguments = command.to_vec();
            arguments.extend(["-s", socket]);
            let complaints = attempt.refused(1, &arguments);
            assert_eq!(complaints.len(), 1, "{complaints:#?}");
            assert!(complaints[0].detail.contains(socket) || complaints[0].what.contains(socket), "{complaints:#?}");
        }
    }
}

/// Four of the shipped modules, under fixed file names.
fn modules(attempt: &Attempt) -> Vec<String> {
    built::make(&["-C", "modules/c-hello"]);
    let names = ["echo", "hello", "ticker", "c_hello"];
    names
        .map(|name| attempt.copy(&built::module(name), &format!("lib{name}.so")).file_name().unwrap().to_str().unwrap().to_owned())
        .to_vec()
}

#[test]
fn inspect_shows_shipped_modules() {
    let attempt = Attempt::new();
    for file in modules(&attempt) {
        let outcome = attempt.run(&["inspect", &file]);
        assert_eq!((outcome.code, outcome.errors.as_str()), (0, ""));
        // Compiler, size and machine differ between builds.
        let lines = outcome
            .output
            .lines()
            .filter(|line| !["  size:", "  built with:", "  machine:", "  libraries:"].iter().any(|changing| line.starts_with(changing)));
        golden(&format!("inspect-{}.txt", file.trim_end_matches(".so")), &(lines.collect::<Vec<_>>().join("\n") + "\n"));
        assert!(outcome.output.lines().any(|line| line.starts_with("  built with: ")), "{}", outcome.output);
    }
}

#[test]
fn inspect_json_has_the_same_keys_for_every_file() {
    let attempt = Attempt::new();
    let mut files = modules(&attempt);
    attempt.write("text.so", "hello");
    attempt.write("empty.so", "");
    attempt.table("newer.so", &["-DMAJOR=2"]);
    attempt.table("damaged.so", &["-DSLOT=0"]);
    files.extend(["text.so", "empty.so", "newer.so", "damaged.so", "missing.so", "."].map(str::to_owned));
    let arguments: Vec<&str> = ["inspect", "--json"].into_iter().chain(files.iter().map(String::as_str)).collect();
    let outcome = attempt.run(&arguments);
    assert_eq!((outcome.code, outcome.errors.as_str()), (2, ""));
    let reports: serde_json::Value = serde_json::from_str(&outcome.output).unwrap();
    let reports = reports.as_array().unwrap();
    assert_eq!(reports.len(), files.len());
    let keys = |report: &serde_json::Value| report.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    golden("inspect-keys.txt", &(keys(&reports[0]).join("\n") + "\n"));
    for (report, file) in reports.iter().zip(&files) {
        assert_eq!(keys(report), keys(&reports[0]));
        assert_eq!(report["path"], **file);
        let good = ["echo", "hello", "ticker"].iter().any(|name| file.contains(name));
        assert_eq!(report["loadable"], good, "{report:#}");
        assert_eq!(report["error"].is_null(), good, "{report:#}");
        assert_eq!(report["name"].is_string(), good || file == "damaged.so", "{report:#}");
    }
    // One bad file sets the exit code to 2; the others are still reported.
    let outcome = attempt.run(&["inspect", "text.so", "libecho.so"]);
    assert_eq!(outcome.code, 2);
    assert!(
        outcome.output.contains("verdict: can be loaded") && outcome.output.contains("verdict: cannot be loaded"),
        "{}",
        outcome.output
    );
}

#[test]
fn inspect_shows_exported_and_imported_interfaces() {
    let attempt = Attempt::new();
    let functions = ["add(str,u64)->u64", "fail(bytes)", "crash(bool)->bool"];
    let of = |name: &str, version: &str, functions: serde_json::Value| serde_json::json!([name, version, functions]);
    for (name, file, interfaces, binds) in [
        ("sums", built::fixture("sums"), Some(("test.sums 1.1", of("test.sums", "1.1", functions.into()))), None),
        ("sums_user", built::fixture("sums_user"), None, Some(("test.sums 1.1", true, of("test.sums", "1.1", functions.into())))),
        // Declared in C, without function types, and optional.
        ("sums_c_user", built::fixture("sums_c_user"), None, Some(("test.sums 1.0 (if present)", false, of("test.sums", "1.0", Null)))),
        ("http", built::module("http"), Some(("http.routes 1.0", Null)), None),
        ("pages", built::fixture("pages"), None, Some(("http.routes 1.0", true, Null))),
        ("echo", built::module("echo"), None, None),
    ] {
        let file = attempt.copy(&file, &format!("{name}.so"));
        let path = file.file_name().unwrap().to_str().unwrap();
        let outcome = attempt.run(&["inspect", path]);
        assert_eq!((outcome.code, outcome.errors.as_str()), (0, ""));
        let fact = |label: &str| outcome.output.lines().find_map(|line| line.strip_prefix(label)).map(str::trim);
        assert_eq!(fact("  interfaces:"), interfaces.as_ref().map(|(text, _)| *text), "{}", outcome.output);
        assert_eq!(fact("  binds:"), binds.as_ref().map(|(text, ..)| *text), "{}", outcome.output);
        let json: serde_json::Value = serde_json::from_str(&attempt.run(&["inspect", "--json", path]).output).unwrap();
        let report = json.as_array().map_or(&json, |all| &all[0]);
        let shape = |shape: &serde_json::Value| serde_json::json!([shape["name"], shape["version"], shape["functions"]]);
        let (exported, bound) = (report["interfaces"].as_array().unwrap(), report["binds"].as_array().unwrap());
        assert_eq!((exported.len(), bound.len()), (usize::from(interfaces.is_some()), usize::from(binds.is_some())), "{report:#}");
        if let Some((text, want)) = interfaces {
            assert!(want == Null || shape(&exported[0]) == want, "{report:#}");
            assert_eq!(format!("{} {}", exported[0]["name"].as_str().unwrap(), exported[0]["version"].as_str().unwrap()), text);
            assert!(exported[0]["table_bytes"].as_u64().unwrap() >= 8);
        }
        if let Some((text, required, want)) = binds {
            assert!(want == Null || shape(&bound[0]) == want, "{report:#}");
            assert_eq!(bound[0]["required"], required, "{report:#}");
            assert!(text.starts_with(&format!("{} {}", bound[0]["name"].as_str().unwrap(), bound[0]["version"].as_str().unwrap())));
        }
    }
}

/// A pseudo-random generator with a fixed sequence.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

#[test]
fn inspect_survives_random_bytes() {
    let attempt = Attempt::new();
    let whole = fs::read(attempt.table("whole.so", &[])).unwrap();
    let mut numbers = Numbers(1);
    let mut names = Vec::new();
    for number in 0..400 {
        let mut bytes = whole.clone();
        for _ in 0..1 + numbers.below(8) {
            // Half of the changes hit the start of the file, with the headers, dynamic section and
            // table.
            let at = if numbers.below(2) == 0 { numbers.below(0x400) } else { numbers.below(bytes.len()) };
            bytes[at] = [0, 1, 0x7f, 0x80, 0xff, numbers.below(256) as u8][numbers.below(6)];
        }
        if numbers.below(8) == 0 {
            bytes.truncate(numbers.below(whole.len()));
        }
        let name = format!("mutated/{number}.so");
        attempt.write(&name, bytes);
        names.push(name);
    }
    let mut arguments = vec!["inspect", "--json"];
    arguments.extend(names.iter().map(String::as_str));
    let Outcome { code, output, errors } = attempt.run(&arguments);
    assert!((code == 0 || code == 2) && errors.is_empty(), "{code} {errors}");
    let reports: serde_json::Value = serde_json::from_str(&output).unwrap();
    assert_eq!(reports.as_array().unwrap().len(), names.len());
    // The same as text, which must not contain control characters for a terminal.
    arguments.remove(1);
    let outcome = attempt.run(&arguments);
    assert!((outcome.code == 0 || outcome.code == 2) && outcome.errors.is_empty(), "{} {}", outcome.code, outcome.errors);
    assert!(!outcome.output.contains(|c: char| c.is_control() && c != '\n'));
}

#[test]
fn a_closed_output_pipe_is_no_error() {
    let attempt = Attempt::new();
    let file = attempt.table("x.so", &[]).display().to_string();
    let attempt = attempt.through(&["sh", "-c", "\"$@\" | true", "sh"]);
    let outcome = attempt.run(&["inspect", &file, &file, &file]);
    assert_eq!((outcome.code, outcome.errors.as_str()), (0, ""));
}

#[test]
fn check_reports_what_would_start() {
    let attempt = Attempt::with("[[module]]\npath = \"libtable.so\"\n[[listen]]\nudp = \"127.0.0.1:0\"\nhandler = \"table\"\n");
    attempt.table("libtable.so", &[]);
    let outcome = attempt.run(&["check", "-c", "modhost.toml"]);
    assert_eq!((outcome.code, outcome.errors.as_str()), (0, ""));
    for part in ["no errors in ", "table", "127.0.0.1:0", "table:serve"] {
        assert!(outcome.output.contains(part), "{part:?} is not in\n{}", outcome.output);
    }
    // Of the module, only its constructors have run.
    assert!(!outcome.output.contains("init_f"));
    let outcome = attempt.run(&["check", "-c", "modhost.toml", "--json", "--set", "table.nmber=1"]);
    assert_eq!((outcome.code, outcome.errors.as_str()), (2, ""));
    let report: serde_json::Value = serde_json::from_str(&outcome.output).unwrap();
    assert_eq!(report["errors"].as_array().unwrap().len(), 1, "{report:#}");
    assert!(report["errors"][0]["hint"].as_str().unwrap().contains("number"), "{report:#}");
}

/// With nothing in their place, the first opened files would get these numbers, and the output
/// would go into them.
#[test]
fn closed_standard_descriptors_are_replaced() {
    for closed in ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"] {
        let command = format!("exec \"$0\" inspect \"$1\" {closed}");
        let outcome =
            std::process::Command::new("sh").args(["-c", &command]).arg(built::host()).arg(built::module("echo")).output().unwrap();
        assert_eq!((outcome.status.code(), outcome.stderr.len()), (Some(0), 0), "{closed}");
        assert_eq!(outcome.stdout.is_empty(), closed.contains(" >&-") || closed.starts_with('>'), "{closed}");
    }
}
