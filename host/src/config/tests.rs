//! Tests of the parser and the merge, as tables: a text, and its result.
//!
//! *Runs in:* `cargo test`. *Never:* touches the file system.

use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// Every key of `[host]` and `[log]`, each with a value that is not its default.
const FULL: &str = r#"
[host]
workers = 3
user = "nobody"
group = "nogroup"
daemon = true
pid_file = "run/modhost.pid"
control = "/run/modhost.sock"
module_path = ["/usr/lib/modhost", "target/release"]
shared_memory = "32 MiB"
start_timeout = "1m30s"
stop_timeout = "500ms"

[log]
target = "log/modhost.log"
format = "json"
level = "warn"
modules = { sip = "debug", echo = "off" }

[[module]]
name = "sip"
[module.params]
zeta = "200 OK"
answers = 0x10
quiet = true
ratio = 1.5

[[module]]
path = "./libecho.so"
optional = true

[[listen]]
udp = "127.0.0.1:5060"
handler = "sip"
workers = 4

[[listen]]
tcp = "[::1]:80"
handler = "echo:raw"

[[listen]]
unix = "run/echo.sock"
handler = "echo"
"#;

fn parse_test(text: &str) -> Result<Config, Vec<String>> {
    parse(text, Path::new("etc/t.toml")).map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

#[test]
fn everything_is_read() {
    let config = parse_test(FULL).unwrap();
    let host = &config.host;
    assert_eq!((host.workers, host.daemon, host.shared_memory_bytes), (3, true, 32 << 20));
    assert_eq!((host.start_timeout, host.stop_timeout), (Duration::from_secs(90), Duration::from_millis(500)));
    assert_eq!(host.module_path, ["/usr/lib/modhost", "target/release"].map(PathBuf::from));
    assert_eq!((host.user.as_deref(), host.group.as_deref()), (Some("nobody"), Some("nogroup")));
    assert_eq!(config.log.target, LogTarget::File("log/modhost.log".into()));
    assert_eq!((config.log.format, config.log.level), (LogFormat::Json, Level(2)));
    assert_eq!(config.log.modules, [("echo".to_string(), Level(0)), ("sip".to_string(), Level(4))].into());
    assert_eq!(config.modules[1].source, ModuleSource::Path("etc/./libecho.so".into()), "relative to the file's folder");
    assert!(config.modules[1].optional && !config.modules[0].optional);
    let params: Vec<_> = config.modules[0].params.iter().map(|p| (p.name.as_str(), p.value.clone(), p.position.to_string())).collect();
    assert_eq!(
        params,
        [
            ("zeta", Value::String("200 OK".into()), "etc/t.toml:23:8".to_string()),
            ("answers", Value::Int(16), "etc/t.toml:24:11".to_string()),
            ("quiet", Value::Bool(true), "etc/t.toml:25:9".to_string()),
            ("ratio", Value::Float(1.5), "etc/t.toml:26:9".to_string()),
        ],
        "in the order of the file"
    );
    let listeners: Vec<_> = config.listeners.iter().map(|l| (l.to_string(), l.handler.to_string(), l.workers)).collect();
    assert_eq!(
        listeners,
        [
            ("udp://127.0.0.1:5060".to_string(), "sip".to_string(), Some(4)),
            ("tcp://[::1]:80".to_string(), "echo:raw".to_string(), None),
            ("unix://run/echo.sock".to_string(), "echo".to_string(), None),
        ]
    );
    assert_eq!(config.listeners[0].position.to_string(), "etc/t.toml:32:1");
}

#[test]
fn missing_keys_have_defaults() {
    for text in ["", "\u{feff}", "# nothing\r\n", "[host]\n[log]\n[log.modules]\n"] {
        let config = parse_test(text).unwrap();
        assert_eq!((config.host, config.log), (HostConfig::default(), LogConfig::default()), "{text:?}");
    }
}

#[test]
fn each_error_says_where_what_and_how() {
    for (text, parts) in [
        ("[hosts]", &["etc/t.toml:1:2: unknown key \"hosts\"", "did you mean \"host\"?"][..]),
        ("[host]\nwrkers = 2", &["etc/t.toml:2:1: unknown key \"wrkers\" in [host]", "did you mean \"workers\"?"]),
        ("[host]\nfrobnicate = 2", &["unknown key", "known: workers, user"]),
        (
            "[host]\nworkers = \"two\"",
            &["etc/t.toml:2:11: wrong value for \"workers\" in [host]", "from 1 to 4000", "found the string \"two\""],
        ),
        ("[host]\nworkers = 0", &["found the number 0"]),
        ("[host]\nworkers = 4001", &["found the number 4001"]),
        ("[host]\nworkers = -1", &["found the number -1"]),
        ("[host]\nworkers = 2.0", &["found the number 2.0"]),
        ("[host]\nworkers = 99999999999999999999", &["from 1 to 4000"]),
        ("[host]\ndaemon = \"yes\"", &["expected true or false", "without quotes"]),
        ("[host]\nuser = 65534", &["expected a string, found the number 65534", "put it in quotes"]),
        ("[host]\nuser = \"\"", &["must not be empty"]),
        ("[host]\npid_file = \"a\\u0000b\"", &["must not contain a NUL"]),
        ("[host]\nmodule_path = \"x\"", &["a list of strings", "write [\"x\"]"]),
        ("[host]\nmodule_path = [\"x\",\n 1]", &["etc/t.toml:3:2", "a list of strings"]),
        ("[host]\nshared_memory = \"64\"", &["from 1 MiB to 1 TiB"]),
        ("[host]\nshared_memory = \"64 MIB\"", &["unknown unit", "expected a size such as \"64MiB\""]),
        ("[host]\nshared_memory = true", &["found true"]),
        ("[host]\nstart_timeout = 10", &["expected a duration", "write the unit: start_timeout = \"10s\""]),
        ("[host]\nstart_timeout = \"10\"", &["has no unit"]),
        ("[host]\nstop_timeout = \"0s\"", &["it must be from 100ms to 1d"]),
        ("[log]\nlevel = \"warning\"", &["\"warning\" is no level", "did you mean \"warn\"?"]),
        ("[log]\nlevel = 3", &["expected a string"]),
        ("[log]\nformat = \"xml\"", &["\"xml\" is no format", "known: text, json"]),
        ("[log]\ntarget = \"jurnald\"", &["is no log target", "did you mean \"journald\"?"]),
        ("[log]\ntarget = \"x\"", &["in the working directory: \"./x\""]),
        ("[log]\nmodules = 1", &["expected a table", "write [log.modules]"]),
        ("[log.modules]\nsip = \"dbug\"", &["did you mean \"debug\"?"]),
        ("[log.modules]\nsip = 1", &["expected a string"]),
        ("[log.modules]\nSip = \"info\"", &["other characters than a-z"]),
        ("[module]\nname = \"x\"", &["expected a list of tables", "[[module]]"]),
        ("module = [1]", &["expected a table"]),
        ("[[module]]", &["etc/t.toml:1:1: a [[module]] names no module"]),
        ("[[module]]\nname = \"a\"\npath = \"b\"", &["etc/t.toml:3:1", "both \"name\" and \"path\""]),
        ("[[module]]\nname = \"./x.so\"", &["write path ="]),
        ("[[module]]\nname = 3", &["expected a string"]),
        ("[[module]]\nname = \"x\"\nparam = 1", &["did you mean \"params\"?"]),
        ("[[module]]\nname = \"x\"\nparams.a = 9223372036854775808", &["at most 63 bits"]),
        ("[[listen]]\nhandler = \"x\"", &["a [[listen]] has no address", "add udp ="]),
        ("[[listen]]\nudp = \"127.0.0.1:1\"", &["names no handler"]),
        ("[[listen]]\nudp = \"localhost:1\"\nhandler = \"x\"", &["etc/t.toml:2:7", "names are not looked up"]),
        ("[[listen]]\nudp = \"127.0.0.1:1\"\ntcp = \"127.0.0.1:1\"\nhandler = \"x\"", &["both \"udp\" and \"tcp\"", "second [[listen]]"]),
        ("[[listen]]\nudp = \"127.0.0.1:1\"\nhandler = \"x:\"", &["\"x:\" is not a handler", "a name is empty"]),
        ("[host\nworkers = 1", &["etc/t.toml:1:", "this is not valid TOML"]),
        (
            "[[listen]]\nudp = 127.0.0.1:1\nhandler = \"x\"",
            &["etc/t.toml:2:", "invalid float (hint: a value that is no number needs quotes)"],
        ),
        ("[host]\nuser = nobody", &["etc/t.toml:2:", "needs quotes"]),
        ("[host]\nworkers = 1\nworkers = 2", &["etc/t.toml:3:1", "this is not valid TOML", "duplicate"]),
    ] {
        let errors = parse_test(text).expect_err(text);
        assert_eq!(errors.len(), 1, "{text}: {errors:#?}");
        for part in parts {
            assert!(errors[0].contains(part), "{text}\nwithout {part:?}: {}", errors[0]);
        }
        assert!(!errors[0].ends_with('.') && !errors[0].contains('\n'), "{}", errors[0]);
    }
}

#[test]
fn all_errors_come_at_once_in_order() {
    let text = "[[listen]]\nudp = \"x\"\n[[module]]\nnam = \"a\"\n[log]\nlevel = 1\n[host]\nworkers = 0\nusr = \"a\"";
    let errors = parse_test(text).unwrap_err();
    let lines: Vec<_> = errors.iter().map(|error| error.split(':').nth(1).unwrap()).collect();
    assert_eq!(lines, ["1", "2", "3", "4", "6", "8", "9"], "{errors:#?}");
}

#[test]
fn an_error_about_a_repetition_names_both_positions() {
    let text = "[[module]]\nname = \"a\"\n[[module]]\nname = \"a\"\n[[listen]]\nudp = \"[::1]:1\"\nhandler = \"a\"\n[[listen]]\nudp = \"[0::1]:1\"\nhandler = \"b\"";
    let errors = parse_test(text).unwrap_err();
    assert!(errors[0].starts_with("etc/t.toml:3:1: the module \"a\" is configured twice: first at etc/t.toml:1:1"), "{errors:?}");
    assert!(errors[1].starts_with("etc/t.toml:8:1: udp://[::1]:1 is listened on twice: first at etc/t.toml:5:1"), "{errors:?}");
    let apart = "[[listen]]\nudp = \"[::1]:0\"\nhandler = \"a\"\n[[listen]]\nudp = \"[::1]:0\"\nhandler = \"b\"\n[[listen]]\ntcp = \"[::1]:0\"\nhandler = \"b\"";
    assert!(parse_test(apart).is_ok());
}

#[test]
fn columns_count_characters() {
    let errors = parse_test("[log]\nmodules = { \"é\" = \"info\", x = 1 }").unwrap_err();
    assert!(errors.iter().any(|error| error.starts_with("etc/t.toml:2:31:")), "{errors:?}");
}

#[test]
fn the_command_line_overrides_and_adds() {
    let overrides = Overrides {
        modules: vec!["./libx.so".into(), "echo".into(), "y.so".into()],
        module_dirs: vec!["a".into(), "b".into()],
        load_all: vec!["all".into()],
        listen: vec!["udp://127.0.0.1:5061=echo".into()],
        workers: Some(7),
        user: Some("www".into()),
        set: vec!["sip.answer=a=b.c".into()],
        log_level: vec!["error".into(), "sip=trace".into()],
        log_format: Some(LogFormat::Text),
        ..Overrides::default()
    };
    let config = merge(parse_test(FULL).unwrap(), overrides).unwrap();
    assert_eq!((config.host.workers, config.host.user.as_deref()), (7, Some("www")));
    assert_eq!(config.host.group.as_deref(), Some("nogroup"), "what the command line leaves out stays");
    assert_eq!(config.host.module_path, ["a", "b", "/usr/lib/modhost", "target/release"].map(PathBuf::from));
    let sources: Vec<_> = config.modules[2..].iter().map(|module| module.source.clone()).collect();
    assert_eq!(sources, [ModuleSource::Path("./libx.so".into()), ModuleSource::Name("echo".into()), ModuleSource::Path("y.so".into())]);
    assert_eq!(config.listeners.last().unwrap().position.to_string(), "command line, --listen");
    assert_eq!(config.set, [SetParam { module: "sip".into(), name: "answer".into(), text: "a=b.c".into() }]);
    assert_eq!((config.log.level, config.log.modules["sip"], config.log.format), (Level(1), Level(5), LogFormat::Text));
}

#[test]
fn all_errors_of_the_command_line_come_at_once() {
    let overrides = Overrides {
        modules: vec!["Bad Name".into(), "sip".into()],
        listen: vec!["udp://127.0.0.1:5060=sip".into(), "x".into()],
        workers: Some(0),
        set: vec!["a".into(), "a=b".into(), "a.=b".into(), ".x=b".into()],
        log_level: vec!["loud".into()],
        fork: Some(Fork::NoFork),
        ..Overrides::default()
    };
    let errors = merge(parse_test(FULL).unwrap(), overrides).unwrap_err();
    let all = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    for part in [
        "--workers 0 is out of range",
        "\"Bad Name\" has other characters",
        "--listen: \"x\" is not a listener",
        "--set \"a\" sets nothing",
        "--set \"a=b\" sets nothing",
        "--set \"a.=b\" sets nothing",
        "--set \".x=b\" sets nothing",
        "--log-level: \"loud\" is no level",
        "no-fork mode cannot be a daemon",
        "command line, --listen: udp://127.0.0.1:5060 is listened on twice: first at etc/t.toml:",
        "command line: the module \"sip\" is configured twice",
    ] {
        assert!(all.contains(part), "without {part:?}:\n{all}");
    }
    assert_eq!(errors.len(), 11, "{all}");
}

#[test]
fn anchor_makes_every_path_absolute() {
    let mut config = parse_test(FULL).unwrap();
    config.load_all.push("all".into());
    config.anchor(Path::new("/w"));
    assert_eq!((config.folders().file, config.folders().command), ("/w/etc".into(), "/w".into()));
    assert_eq!(config.file.as_deref(), Some(Path::new("/w/etc/t.toml")));
    assert_eq!(config.host.pid_file.as_deref(), Some(Path::new("/w/run/modhost.pid")));
    assert_eq!(config.host.control.as_deref(), Some(Path::new("/run/modhost.sock")));
    assert_eq!(config.host.module_path[1], Path::new("/w/target/release"));
    assert_eq!(config.log.target, LogTarget::File("/w/log/modhost.log".into()));
    assert_eq!(config.modules[1].source, ModuleSource::Path("/w/etc/./libecho.so".into()));
    assert_eq!(config.listeners[2].addresses, [ListenAddress::Unix("/w/run/echo.sock".into())]);
    assert_eq!(config.load_all[0], Path::new("/w/all"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_parser_panic(text in any::<String>()) {
        let _ = parse(&text, Path::new("t.toml"));
    }

    #[test]
    fn a_damaged_file_yields_errors_with_positions(edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..24_usize), 1..6)) {
        let mut bytes = FULL.as_bytes().to_vec();
        for (at, byte, removed) in edits {
            let at = at.index(bytes.len());
            let end = (at + removed).min(bytes.len());
            bytes.splice(at..end, [byte]);
        }
        let text = String::from_utf8_lossy(&bytes);
        if let Err(errors) = parse(&text, Path::new("t.toml")) {
            prop_assert!(!errors.is_empty());
            for error in errors {
                prop_assert!(error.what.starts_with("t.toml:"), "{}", error);
            }
        }
    }

    #[test]
    fn no_command_line_makes_the_merge_panic(text in "\\PC{0,40}") {
        let _ = merge(Config::default(), Overrides {
            modules: vec![text.clone()], listen: vec![text.clone()], set: vec![text.clone()], log_level: vec![text], ..Overrides::default()
        });
    }

    #[test]
    fn a_parsed_duration_is_formatted_to_the_same(text in "[0-9a-zA-Z .µ_-]{0,30}") {
        let _ = units::parse_size(&text);
        if let Ok(duration) = units::parse_duration(&text) {
            prop_assert_eq!(units::parse_duration(&units::format_duration(duration)), Ok(duration));
        }
    }
}
