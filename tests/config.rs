//! Configurations that cannot work: all errors at once, each in three parts with its position, and
//! no process or file left. Also configurations that look wrong and work.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::symlink;
use std::process::Command;

use harness::{Attempt, Complaint, Setup, is_root};
use harness::{built, processes};

const LISTEN: &str = "[[listen]]\nudp = \"127.0.0.1:0\"\nhandler = \"table\"\n";
const TABLE: &str = "[[module]]\npath = \"libtable.so\"\n";

/// Puts `libtable.so` beside the configuration.
fn with_table(configuration: &str) -> Attempt {
    let attempt = Attempt::with(configuration);
    attempt.table("libtable.so", &[]);
    attempt
}

/// The errors of `run`; `check` must report the same.
#[track_caller]
fn refused_by_run_and_check(attempt: &Attempt) -> Vec<Complaint> {
    let complaints = attempt.refused(2, &["run", "-c", "modhost.toml"]);
    assert_eq!(attempt.refused(2, &["check", "-c", "modhost.toml"]), complaints);
    complaints
}

#[track_caller]
fn assert_all(complaints: &[Complaint], expected: &[(&str, &str, &str)]) {
    assert_eq!(complaints.len(), expected.len(), "{complaints:#?}");
    for (complaint, (what, detail, hint)) in complaints.iter().zip(expected) {
        complaint.assert(what, detail, hint);
    }
}

#[test]
fn all_errors_are_reported_with_positions() {
    let attempt = Attempt::with(
        r#"
[hots]
x = 1
[host]
worker = 3
user = 5
daemon = "yes"
shared_memory = "1.5GiB"
start_timeout = "0"
workers = 0
module_path = "lib"
[log]
level = "inof"
format = "xml"
target = "sderr"
[[module]]
[[module]]
name = "a"
path = "b"
[[module]]
name = "./x.so"
optinal = true
[[listen]]
udp = "localhost:5"
handler = "table"
[[listen]]
handler = "x"
  [[listen]]
udp = "127.0.0.1:1"
[[listen]]
udp = "127.0.0.1:2"
tcp = "127.0.0.1:2"
handler = "A:b"
workers = 4001
"#,
    );
    assert_all(
        &refused_by_run_and_check(&attempt),
        &[
            ("modhost.toml:2:2: unknown key \"hots\"", "", "did you mean \"host\"?"),
            ("modhost.toml:5:1: unknown key \"worker\" in [host]", "", "did you mean \"workers\"?"),
            ("modhost.toml:6:8: wrong value for \"user\" in [host]", "found the number 5", "quotes"),
            (
                "modhost.toml:7:10: wrong value for \"daemon\" in [host]",
                "expected true or false, found the string \"yes\"",
                "without quotes",
            ),
            ("modhost.toml:8:17: wrong value for \"shared_memory\"", "whole numbers only", "64MiB"),
            ("modhost.toml:9:17: wrong value for \"start_timeout\"", "from 100ms to 1d", "10s"),
            ("modhost.toml:10:11: wrong value for \"workers\"", "from 1 to 4000, found the number 0", ""),
            ("modhost.toml:11:15: wrong value for \"module_path\"", "found the string \"lib\"", "["),
            ("modhost.toml:13:9: \"inof\" is no level", "", "did you mean \"info\"?"),
            ("modhost.toml:14:10: \"xml\" is no format", "", "text, json"),
            ("modhost.toml:15:10: \"sderr\" is no log target", "stderr, syslog, journald", "did you mean \"stderr\"?"),
            ("modhost.toml:16:1: a [[module]] names no module", "", "path"),
            ("modhost.toml:19:1: a [[module]] has both", "", "keep one"),
            ("modhost.toml:21:8: the name \"./x.so\"", "", "write path"),
            ("modhost.toml:22:1: unknown key \"optinal\"", "", "did you mean \"optional\"?"),
            ("modhost.toml:24:7: \"localhost:5\" is not an address", "IP:PORT", "127.0.0.1:5"),
            ("modhost.toml:26:1: a [[listen]] has no address", "", "udp"),
            ("modhost.toml:28:3: a [[listen]] names no handler", "", "module:handler"),
            ("modhost.toml:32:1: a [[listen]] has both \"udp\" and \"tcp\"", "", "second [[listen]]"),
            ("modhost.toml:33:11: \"A:b\" is not a handler", "a-z", "module:handler"),
            ("modhost.toml:34:11: wrong value for \"workers\"", "found the number 4001", ""),
        ],
    );
}

#[test]
fn files_that_are_not_a_configuration_are_refused() {
    let attempt = Attempt::with("[host\n");
    refused_by_run_and_check(&attempt)[0].assert("modhost.toml:1:6: this is not valid TOML", "unclosed table", "");
    fs::create_dir(attempt.folder().join("folder")).unwrap();
    attempt.write("binary", b"\xff\xfe\0\0");
    assert!(Command::new("mkfifo").arg(attempt.folder().join("pipe")).status().unwrap().success());
    for (file, detail, hint) in [
        ("missing.toml", "no such file or directory", "pass -c FILE"),
        ("folder", "is a directory", ""),
        ("binary", "line 1 is not UTF-8", "right file"),
        ("/dev/zero", "larger than 4 MiB", "right file"),
        // Opening it must not wait for a writer.
        ("pipe", "a pipe that nobody writes to", "right file"),
        ("modhost", "MiB", "right file"),
    ] {
        let complaints = attempt.refused(2, &["run", "-c", file]);
        let detail = if file == "modhost" && complaints[0].detail.contains("UTF-8") { "UTF-8" } else { detail };
        assert_all(&complaints, &[(&format!("cannot read the configuration \"{file}\""), detail, hint)]);
    }
    // In a shell, <(...) is a pipe with a writer.
    let attempt = Attempt::new().through(&["bash", "-c", "exec \"$@\" -c <(printf '[host]\\nworkrs = 1\\n')", "bash"]);
    attempt.refused(2, &["run"])[0].assert("unknown key \"workrs\"", "", "workers");
}

#[test]
fn a_configuration_without_modules_warns() {
    let setup = Setup::new().expect_log("no module is configured, nothing will be served");
    setup.start().stop();
}

#[test]
fn impossible_listeners_are_refused() {
    let attempt = with_table(&format!(
        "{TABLE}[[listen]]\nudp = \"127.0.0.1:5\"\nhandler = \"table\"\n[[listen]]\nudp = \"127.0.0.1:5\"\nhandler = \"table:serve\"\n"
    ));
    refused_by_run_and_check(&attempt)[0].assert(
        "modhost.toml:6:1: udp://127.0.0.1:5 is listened on twice",
        "first at modhost.toml:3:1",
        "workers",
    );
    // All of these at once. They are found before any process is started.
    attempt.write(
        "modhost.toml",
        format!(
            "{TABLE}[[listen]]\ntcp = \"127.0.0.1:0\"\nhandler = \"table\"\n[[listen]]\nunix = \"sock\"\nhandler = \"table\"\n\
             [[listen]]\nudp = \"127.0.0.1:0\"\nhandler = \"table:server\"\n[[listen]]\nudp = \"127.0.0.1:0\"\nhandler = \"nowhere\"\n"
        ),
    );
    assert_all(
        &refused_by_run_and_check(&attempt),
        &[
            ("modhost.toml:12:1: module \"nowhere\" is in no folder of module_path", "libnowhere.so", "module_path"),
            ("modhost.toml:3:1: module \"table\" has no handler for tcp://127.0.0.1:0", "", "modhost inspect table"),
            ("modhost.toml:6:1: module \"table\" has no handler for unix://", "", "modhost inspect table"),
            ("modhost.toml:9:1: module \"table\" has no handler \"server\"", "", "did you mean \"serve\"?"),
        ],
    );
    attempt.table("libtable.so", &["-DHANDLERS=.handlers=0"]);
    attempt.write("modhost.toml", format!("{TABLE}{LISTEN}"));
    refused_by_run_and_check(&attempt)[0].assert("has no handler for udp://127.0.0.1:0", "", "modhost inspect");
}

#[test]
fn impossible_socket_options_are_refused() {
    let listen = |keys: &str| format!("[[listen]]\n{keys}\nhandler = \"table\"\n");
    let attempt = with_table(&format!(
        "{TABLE}{}{}{}{}{}{}",
        listen("udp = [\"0.0.0.0:5\", \"127.0.0.1:5\"]"),
        listen("udp = \"127.0.0.1:0\"\nmulticast = \"239.1.2.3\""),
        listen("unixgram = \"x\"\nmode = \"rw\""),
        listen("unixgram = \"@x\"\nowner = \"root\""),
        listen("udp = \"127.0.0.1:0\"\nreceive_buffer = \"1TiB\""),
        listen("udp = []"),
    ));
    assert_all(
        &refused_by_run_and_check(&attempt),
        &[
            ("modhost.toml:8:1: no address of this listener would get what is sent to the group 239.1.2.3", "", "0.0.0.0:PORT"),
            ("modhost.toml:12:8: \"rw\" is not the mode of a file", "octal", "0660"),
            ("modhost.toml:16:1: \"owner\" means nothing for an abstract name", "no file", "network namespace"),
            ("modhost.toml:20:18: wrong value for \"receive_buffer\" in [[listen]]", "from 4 KiB to 1 GiB", "a size"),
            ("modhost.toml:23:7: wrong value for \"udp\" in [[listen]]", "a string or a list of strings", "put something into the list"),
            // Errors between entries come after errors in one entry.
            ("modhost.toml:3:1: udp://127.0.0.1:5 cannot be listened on beside udp://0.0.0.0:5", "modhost.toml:3:1", "another port"),
        ],
    );
    // Errors that depend on this machine, its interfaces and its users: all at once.
    attempt.write(
        "modhost.toml",
        format!("{TABLE}{}{}", listen("udp = \"nowhere0:5\""), listen("unixgram = \"x\"\ngroup = \"no-such-group\"")),
    );
    assert_all(
        &refused_by_run_and_check(&attempt),
        &[
            ("modhost.toml:3:1: there is no interface \"nowhere0\"", "if_nametoindex", "the interfaces here are "),
            ("modhost.toml:6:1: unknown group \"no-such-group\"", "group database", "create the group"),
        ],
    );
}

#[test]
fn busy_ports_and_foreign_addresses_fail_the_start() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    for (address, detail, hint) in [
        (format!("127.0.0.1:{port}"), "bind: address already in use", "another program has it"),
        ("192.0.2.1:5".to_owned(), "bind: cannot assign requested address", "no interface"),
    ] {
        let attempt = with_table(&format!("{TABLE}[[listen]]\nudp = \"{address}\"\nhandler = \"table\"\n"));
        attempt.assert_refused(1, &format!("cannot listen on udp {address}"), detail, hint);
        // `check` binds nothing and so cannot find this.
        assert_eq!(attempt.run(&["check", "-c", "modhost.toml"]).code, 0);
    }
}

#[test]
fn unknown_users_and_groups_are_refused() {
    let attempt = Attempt::with("[host]\nuser = \"no-such-user\"\ngroup = \"no-such-group\"\n");
    assert_all(
        &refused_by_run_and_check(&attempt),
        &[
            ("modhost.toml:2:8: unknown user \"no-such-user\"", "host.user", "create the user"),
            ("modhost.toml:3:9: unknown group \"no-such-group\"", "host.group", "create the group"),
        ],
    );
    assert_all(
        &attempt.refused(2, &["run", "-c", "modhost.toml", "--user", "nobody-here"]),
        &[
            ("command line, --user: unknown user \"nobody-here\"", "host.user", "create the user"),
            ("modhost.toml:3:9: unknown group \"no-such-group\"", "host.group", "create the group"),
        ],
    );
    for (key, value) in [("user", "-1"), ("group", "-1"), ("user", "4294967296")] {
        attempt.write("modhost.toml", format!("[host]\n{key} = \"{value}\"\n"));
        refused_by_run_and_check(&attempt)[0].assert(&format!("unknown {key} \"{value}\""), "database", "create");
    }
    // For the system calls this number means "do not change".
    for key in ["user", "group"] {
        attempt.write("modhost.toml", format!("[host]\n{key} = \"4294967295\"\n"));
        refused_by_run_and_check(&attempt)[0].assert(&format!("nobody can be {key} \"4294967295\""), "means no", "");
    }
}

#[test]
fn unknown_module_names_are_refused() {
    let attempt = with_table("[host]\nmodule_path = [\".\", \"nowhere\"]\n[[module]]\nname = \"tabel\"\n[[module]]\nname = \"zzzzzzzz\"\n");
    assert_all(
        &refused_by_run_and_check(&attempt),
        &[
            ("modhost.toml:3:1: module \"tabel\" is in no folder of module_path", "libtabel.so and tabel.so", "did you mean \"table\"?"),
            ("modhost.toml:5:1: module \"zzzzzzzz\" is in no folder of module_path", "/nowhere", "--module-dir"),
        ],
    );
}

#[test]
fn modules_are_found_by_name_path_and_folder() {
    let attempt = Attempt::new();
    for (file, name) in [("lib/liba.so", "a"), ("more/b.so", "b"), ("c.so", "c"), ("lib/libd.so", "d")] {
        fs::create_dir_all(attempt.folder().join(file).parent().unwrap()).unwrap();
        attempt.table(file, &[&format!("-DNAME=\"{name}\"")]);
    }
    attempt.write("conf/modhost.toml", "[host]\nmodule_path = [\"lib\"]\n[[module]]\npath = \"../c.so\"\n[[module]]\nname = \"a\"\n");
    // A handler loads its module. Folders of the command line come before those of the file.
    let host = attempt.start(&["run", "-c", "conf/modhost.toml", "b", "--module-dir", "more", "--listen", "udp://127.0.0.1:0=d:serve"]);
    assert_eq!(host.client().ask_text(""), "0 3 1000000000 nothing");
    let log = host.stop().log;
    let order: Vec<&str> = log.lines.iter().filter_map(|line| line.text.split_once("init_f of ").map(|(_, name)| name)).collect();
    assert_eq!(order, ["c", "a", "b", "d"]);
}

#[test]
fn required_modules_must_be_loaded_and_come_first() {
    let attempt = Attempt::with("[[module]]\npath = \"a.so\"\n[[module]]\npath = \"b.so\"\n[[module]]\npath = \"c.so\"\n");
    let module = |name: &str, depends: &str| {
        attempt.table(&format!("{name}.so"), &[&format!("-DNAME=\"{name}\""), &format!("-DDEPENDS={depends}")]);
    };
    // A required module that is not loaded.
    module("a", "{.name=\"nobody\",.kind=1},{.name=\"c\",.kind=1}");
    module("b", "{.name=\"a\",.kind=1}");
    module("c", "{.name=\"nobody\",.kind=2}");
    assert_all(
        &refused_by_run_and_check(&attempt),
        &[("modhost.toml:1:1: module \"a\" needs module \"nobody\", which is not loaded", "", "name = \"nobody\"")],
    );
    // A circle is reported alone: without the modules that require it and those that it requires.
    module("a", "{.name=\"b\",.kind=1}");
    module("b", "{.name=\"c\",.kind=1}");
    module("c", "{.name=\"a\",.kind=1},{.name=\"d\",.kind=1}");
    module("d", "{.name=\"nobody\",.kind=2}");
    module("e", "{.name=\"b\",.kind=1}");
    let [a, b, c, d, e] = ["a", "b", "c", "d", "e"].map(|name| format!("[[module]]\npath = \"{name}.so\"\n"));
    let all = attempt.write("modhost.toml", format!("{e}{a}{b}{c}{d}"));
    let complaints = refused_by_run_and_check(&attempt);
    assert_all(
        &complaints,
        &[("modhost.toml:5:1: modules require each other in a circle", "b requires c, c requires a, a requires b", "do without")],
    );
    assert_eq!(complaints[0].detail, "b requires c, c requires a, a requires b");
    // A circle in which one module only wants to come after another.
    module("c", "{.name=\"a\",.kind=2}");
    fs::write(all, format!("{a}{b}{c}")).unwrap();
    refused_by_run_and_check(&attempt)[0].assert(
        "modhost.toml:1:1: modules require",
        "a requires b, b requires c, c comes after a",
        "do without",
    );
    // Required modules come first.
    module("a", "{.name=\"c\",.kind=1},{.name=\"b\",.kind=2}");
    module("b", "{.name=\"nobody\",.kind=2}");
    module("c", "{.name=\"nobody\",.kind=2}");
    let host = attempt.start(&["run", "-c", "modhost.toml"]);
    let log = host.stop().log;
    let order: Vec<&str> = log.lines.iter().filter_map(|line| line.text.split_once("init_f of ").map(|(_, name)| name)).collect();
    assert_eq!(order, ["c", "b", "a"]);
}

#[test]
fn bad_optional_modules_are_left_out() {
    let attempt = Attempt::with(&format!(
        "[[module]]\npath = \"old.so\"\noptional = true\n[[module]]\nname = \"missing\"\noptional = true\n\
         [[module]]\npath = \"needy.so\"\noptional = true\n{TABLE}\
         [[listen]]\nudp = \"127.0.0.1:0\"\nhandler = \"missing\"\n{LISTEN}"
    ));
    attempt.table("libtable.so", &[]);
    attempt.table("old.so", &["-DMAJOR=2", "-DNAME=\"old\""]);
    attempt.table("needy.so", &["-DNAME=\"needy\"", "-DDEPENDS={.name=\"missing\",.kind=1}"]);
    let outcome = attempt.run(&["check", "-c", "modhost.toml"]);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let mut attempt = attempt;
    for text in ["left out: old: ", "left out: missing: ", "left out: needy: ", "the listener udp://127.0.0.1:0 is left out"] {
        assert!(outcome.errors.contains(text), "{text:?} is not in\n{}", outcome.errors);
        attempt = attempt.expect_log(text);
    }
    let host = attempt.start(&["run", "-c", "modhost.toml"]);
    assert_eq!(host.client().ask_text(""), "0 3 1000000000 nothing");
    let ended = host.stop();
    ended.log.assert(&["ready in ", "modules=1", "listeners=1"]);
}

#[test]
fn wrong_parameters_are_refused() {
    let attempt = with_table(&format!(
        "{TABLE}[module.params]\nflag = 1\nnumber = 11\npause = 5\ntext = true\ntxet = \"x\"\n[[module]]\npath = \"needy.so\"\n"
    ));
    attempt.table("needy.so", &["-DNAME=\"needy\"", "-DREQUIRED"]);
    assert_all(
        &refused_by_run_and_check(&attempt),
        &[
            ("modhost.toml:8:8: module \"table\" has no parameter \"txet\"", "", "did you mean \"text\"?"),
            ("modhost.toml:4:8: wrong value for parameter \"flag\" of module \"table\"", "found the number 1", "true or false"),
            ("modhost.toml:5:10: wrong value for parameter \"number\"", "11 is out of range", "in 1..10"),
            ("modhost.toml:6:9: wrong value for parameter \"pause\"", "the number 5 has no unit", "in 0s..1m"),
            ("modhost.toml:7:8: wrong value for parameter \"text\"", "found true", "a string"),
            ("module \"needy\" needs a value for parameter \"text\"", "What to say.", "--set needy.text="),
        ],
    );
    let set = |settings: &[&str]| {
        let mut arguments = vec!["run", "./libtable.so"];
        settings.iter().for_each(|setting| arguments.extend(["--set", setting]));
        attempt.refused(2, &arguments)
    };
    assert_all(
        &set(&["table", "table=1", "table.=1", "Table.x=1", ".x=1"]),
        &[
            ("--set \"table\" sets nothing", "no \"=\"", "MODULE.PARAM=VALUE"),
            ("--set \"table=1\" sets nothing", "no \".\"", "MODULE.PARAM=VALUE"),
            ("--set \"table.=1\" sets nothing", "names no parameter", "MODULE.PARAM=VALUE"),
            ("--set \"Table.x=1\" sets nothing", "a-z", "MODULE.PARAM=VALUE"),
            ("--set \".x=1\" sets nothing", "empty", "MODULE.PARAM=VALUE"),
        ],
    );
    assert_all(
        &set(&["tabel.text=x", "table.numbr=1", "table.flag=maybe", "table.number=0x10", "table.pause=2h"]),
        &[
            ("--set tabel.text: no module \"tabel\" is loaded", "", "did you mean \"table\"?"),
            ("--set: module \"table\" has no parameter \"numbr\"", "", "did you mean \"number\"?"),
            ("wrong value for parameter \"flag\"", "neither true nor false", "true or false"),
            ("wrong value for parameter \"number\"", "16 is out of range", "1..10"),
            ("wrong value for parameter \"pause\"", "2h is out of range", "0s..1m"),
        ],
    );
}

/// Both fixtures answer with one parameter of each kind.
const KINDS: [&str; 2] = ["kinds", "c_kinds"];

/// The fixture's answer, with the test's folder replaced by DIR.
fn kinds(module: &str, arguments: &[&str]) -> String {
    let attempt = Attempt::new();
    attempt.copy(&built::fixture(module), "conf/kinds.so");
    let listen = format!("[[listen]]\nudp = \"127.0.0.1:0\"\nhandler = \"{module}\"\n");
    attempt.write("conf/defaults.toml", format!("[[module]]\npath = \"kinds.so\"\n{listen}"));
    attempt.write(
        "conf/all.toml",
        format!(
            "{listen}[[module]]\npath = \"kinds.so\"\n[module.params]\nlongest = \"2KiB\"\nfile = \"./x/y\"\nchoice = \"last\"\n\
             names = [\"a b\", \"é\",\n  \"\"]\nports = [7]\nchoices = [\"any\", \"first\"]\nfiles = [\"one\", \"/two\"]\nother = \"../z\"\n\
             [module.params.waits]\na = \"1ms\"\n\"b c\" = \"1m\"\n[module.params.routes]\nx = \"1.2.3.4\"\n"
        ),
    );
    let folder = fs::canonicalize(attempt.folder()).unwrap();
    let host = attempt.start(arguments);
    let answer = host.client().ask_text("");
    host.stop();
    answer.replace(folder.to_str().unwrap(), "DIR")
}

#[test]
fn every_kind_of_parameter_is_set() {
    for module in KINDS {
        assert_eq!(
            kinds(module, &["run", "-c", "conf/defaults.toml"]),
            "8192 DIR/conf/default.db any [] [5060|5061] [last] [] [any one>1000000000] [] -",
        );
        assert_eq!(
            kinds(module, &["run", "-c", "conf/all.toml"]),
            "2048 DIR/conf/x/y last [a b|é|] [7] [any|first] [DIR/conf/one|/two] [a>1000000|b c>60000000000] [x>1.2.3.4] DIR/conf/../z",
        );
        let set =
            ["longest=1024", "file=q", "choice=first", "names=a, \"b, c\"", "ports=1,2,3", "files=one", "waits=", "routes=k = \"a=b\""];
        let set: Vec<String> = set.iter().map(|set| format!("{module}.{set}")).collect();
        let mut arguments = vec!["run", "-c", "conf/all.toml"];
        set.iter().for_each(|set| arguments.extend(["--set", set]));
        // Paths on the command line are relative to the working directory.
        assert_eq!(kinds(module, &arguments), "1024 DIR/q first [a|b, c] [1|2|3] [any|first] [DIR/one] [] [k>a=b] DIR/conf/../z");
    }
}

#[test]
fn every_kind_of_parameter_is_checked() {
    for module in KINDS {
        let attempt = Attempt::new();
        attempt.copy(&built::fixture(module), "kinds.so");
        attempt.write(
            "modhost.toml",
            "[[module]]\npath = \"kinds.so\"\n[module.params]\nlongest = \"1MiB\"\nfile = \"\"\nchoice = \"frist\"\nnames = [\"a\", 7,\n  [\"b\"]]\n\
             ports = [1, 65536]\nchoices = [\"any\", \"lst\"]\nfiles = \"x\"\nwiats = 1\n[module.params.waits]\na = \"1s\"\nb = 5\n\
             [[module.params.routes]]\na = \"b\"\n",
        );
        let wrong = |place: &str, name: &str| format!("modhost.toml:{place}: wrong value for parameter \"{name}\" of module \"{module}\"");
        let expected = [
            (format!("modhost.toml:12:9: module \"{module}\" has no parameter \"wiats\""), "", "did you mean \"waits\"?"),
            (
                wrong("4:11", "longest"),
                "1 MiB is out of range",
                "expected a size such as \"64KiB\", or a number of bytes, in 1 KiB..64 KiB",
            ),
            (wrong("5:8", "file"), "it is empty", "the path of a file"),
            (wrong("6:10", "choice"), "\"frist\" is not one of its words", "did you mean \"first\"?"),
            (wrong("7:15", "names"), "item 2: found the number 7", "expected a list, each item a string"),
            (wrong("8:3", "names"), "item 3: found a list", "expected a list, each item a string"),
            (wrong("9:13", "ports"), "item 2: 65536 is out of range", "in 1..65535"),
            (wrong("10:19", "choices"), "item 2: \"lst\" is not one of its words", "did you mean \"last\"?"),
            (wrong("11:9", "files"), "found the string \"x\"", "expected a list"),
            (wrong("15:5", "waits"), "\"b\": the number 5 has no unit", "expected a table, each value a duration"),
            (wrong("16:1", "routes"), "found a list", "expected a table, each value a string"),
        ];
        let expected: Vec<(&str, &str, &str)> = expected.iter().map(|(what, detail, hint)| (what.as_str(), *detail, *hint)).collect();
        assert_all(&refused_by_run_and_check(&attempt), &expected);
        let set = ["choice=nay", "names=\"a", "waits=a", "ports=1,x"].map(|set| format!("{module}.{set}"));
        let mut arguments = vec!["check", "./kinds.so"];
        set.iter().for_each(|set| arguments.extend(["--set", set]));
        let what = |name: &str| format!("command line, --set: wrong value for parameter \"{name}\"");
        let expected = [
            (what("choice"), "\"nay\" is not one", "did you mean \"any\"?"),
            (what("names"), "a quote is not closed", "expected a list"),
            (what("ports"), "item 2: \"x\" is not a whole number", "in 1..65535"),
            (what("waits"), "\"a\" has no \"=\"", "expected a table"),
        ];
        let expected: Vec<(&str, &str, &str)> = expected.iter().map(|(what, detail, hint)| (what.as_str(), *detail, *hint)).collect();
        assert_all(&attempt.refused(2, &arguments), &expected);
    }
}

#[test]
fn the_command_line_wins_over_the_file() {
    let attempt = with_table(&format!("{TABLE}[module.params]\nflag = true\nnumber = 4\ntext = \"file\"\n{LISTEN}"));
    let host =
        attempt.start(&["run", "-c", "modhost.toml", "--set", "table.text=a.b=c", "--set", "table.number=1", "--set", "table.number=0x_a"]);
    assert_eq!(host.client().ask_text(""), "1 10 1000000000 a.b=c");
    host.stop();
}

#[test]
fn files_and_sockets_that_cannot_be_created_fail_the_start() {
    let attempt = with_table("");
    fs::create_dir(attempt.folder().join("folder")).unwrap();
    attempt.write("plain", "");
    symlink("elsewhere", attempt.folder().join("link")).unwrap();
    assert!(Command::new("mkfifo").arg(attempt.folder().join("pipe")).status().unwrap().success());
    let cases = [
        ("pid_file", "no/pid", "cannot use the pid file", "no such file or directory", "folder"),
        ("pid_file", "folder", "cannot use the pid file", "is a directory", "plain file"),
        ("pid_file", "link", "cannot use the pid file", "too many levels of symbolic links", "plain file"),
        ("pid_file", "pipe", "cannot use the pid file", "it is not a plain file", ""),
        ("pid_file", "/dev/null", "cannot use the pid file", "it is not a plain file", ""),
        ("control", "no/socket", "cannot make the control socket", "no such file or directory", "create its folder"),
        ("control", "plain", "cannot make the control socket", "not a socket", "remove it"),
        ("control", "folder", "cannot make the control socket", "not a socket", "remove it"),
        ("target", "./no/log", "cannot open the log file", "no such file or directory", "folder"),
        ("target", "./folder", "cannot open the log file", "is a directory", "file"),
        ("target", "./plain/log", "cannot open the log file", "not a directory", "folder"),
    ];
    for (key, path, what, detail, hint) in cases {
        let section = if key == "target" { "log" } else { "host" };
        attempt.write("modhost.toml", format!("{TABLE}{LISTEN}[{section}]\n{key} = \"{path}\"\n"));
        attempt.assert_refused(1, what, detail, hint);
        if key != "control" {
            let found = attempt.refused(2, &["check", "-c", "modhost.toml"]);
            assert_eq!(found, attempt.refused(1, &["run", "-c", "modhost.toml"]), "{path}");
        }
        // In daemon mode the starting command reports the same.
        attempt.write(
            "modhost.toml",
            format!(
                "{TABLE}{LISTEN}[log]\n{}",
                if key == "target" { format!("target = \"{path}\"\n") } else { "target = \"syslog\"\n".into() }
            ),
        );
        if key == "target" {
            let complaints = attempt.refused(1, &["run", "-c", "modhost.toml", "--daemon"]);
            complaints[0].assert(what, detail, hint);
        }
    }
    let long = "x".repeat(120);
    attempt.write("modhost.toml", format!("[host]\ncontrol = \"{long}\"\n"));
    refused_by_run_and_check(&attempt)[0].assert("the path of the control socket is too long", "the system's limit is 107", "shorter");
}

#[test]
fn numbers_at_their_limits_are_accepted_or_refused() {
    for (value, detail) in [
        ("0", "from 1 MiB to 1 TiB"),
        ("1", "from 1 MiB to 1 TiB"),
        ("2TiB", "from 1 MiB to 1 TiB"),
        ("16EiB", "unknown unit \"EiB\""),
        ("16777216TiB", "more than 16 EiB"),
        ("-1MiB", "negative"),
    ] {
        let attempt = Attempt::with(&format!("[host]\nshared_memory = \"{value}\"\n"));
        refused_by_run_and_check(&attempt)[0].assert("modhost.toml:2:17: wrong value for \"shared_memory\"", detail, "64MiB");
    }
    // Untouched pages take no memory.
    with_table(&format!("[host]\nshared_memory = \"1TiB\"\n{TABLE}")).start(&["run", "-c", "modhost.toml"]).stop();
    with_table(&format!("[host]\nstart_timeout = \"1d\"\nstop_timeout = \"1d\"\n{TABLE}")).start(&["run", "-c", "modhost.toml"]).stop();
    // With so short a limit the start itself may fail.
    let shortest = with_table(&format!("[host]\nstart_timeout = \"100ms\"\nstop_timeout = \"100ms\"\n{TABLE}"));
    assert_eq!(shortest.run(&["check", "-c", "modhost.toml"]).code, 0);
    let attempt = with_table(&format!("[host]\nworkers = 4000\n{TABLE}{}", LISTEN.repeat(3)));
    attempt.assert_refused(1, "too many processes", "12003 asked for, 8192 is the limit", "lower host.workers");
    let found = attempt.refused(2, &["check", "-c", "modhost.toml"]);
    found[0].assert("too many processes", "12003 asked for, 8192 is the limit", "lower host.workers");
    attempt.refused(2, &["run", "--workers", "0"])[0].assert("--workers 0 is out of range", "from 1 to 4000", "");
}

#[test]
fn a_thousand_workers_start() {
    let host = with_table(&format!("[host]\nworkers = 1000\n{TABLE}{LISTEN}")).start(&["run", "-c", "modhost.toml"]);
    assert_eq!(host.client().ask_text(""), "0 3 1000000000 nothing");
    assert_eq!(host.children().len(), 1002);
    host.stop();
}

#[test]
fn exceeded_system_limits_are_named() {
    let run = ["run", "-c", "modhost.toml"];
    let limited = |script: &str| with_table(&format!("[host]\ncontrol = \"control\"\npid_file = \"pid\"\n{TABLE}{LISTEN}")).after(script);
    // One descriptor more each time, until there are enough. Each failure names the limit and
    // leaves nothing.
    let mut started = false;
    for files in 4..32 {
        let attempt = limited(&format!("ulimit -n {files}"));
        let path = attempt.folder().to_path_buf();
        let outcome = attempt.try_start(&run);
        match outcome {
            Ok(ended) => {
                assert!(ended.log.contains("ready in "), "{}", ended.log);
                started = true;
                break;
            }
            Err(complaints) => {
                assert_eq!(complaints.len(), 1, "with {files} files: {complaints:#?}");
                let text = format!("{complaints:?}").to_lowercase();
                assert!(text.contains("too many open files"), "with {files} files: {complaints:#?}");
            }
        }
        assert!(processes::running_from(&path).is_empty());
    }
    assert!(started);
    limited("ulimit -v 30000").assert_refused(1, "cannot map memory", "ENOMEM", "");
    if is_root() {
        let attempt = with_table(&format!("{TABLE}{LISTEN}"));
        let script = "ulimit -u 3; exec \"$@\"";
        let attempt = attempt.through(&["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups", "bash", "-c", script, "bash"]);
        attempt.assert_refused(1, "cannot fork a process", "EAGAIN", "ulimit -u");
    }
}

#[test]
fn full_and_read_only_file_systems_fail_the_start() {
    if !is_root() {
        return;
    }
    let attempt = with_table(&format!("{TABLE}{LISTEN}"));
    fs::create_dir(attempt.folder().join("small")).unwrap();
    // Mounted in a private mount namespace, which ends with the command.
    let mounted = |script: &str| format!("mount -t tmpfs {script}");
    let words = |script: &str| format!("{} && exec \"$@\"", mounted(script));
    let full = words("-o size=16k small small && { cat /dev/zero > small/fill 2> /dev/null || true; }");
    let attempt = attempt.through(&["unshare", "-m", "sh", "-c", &full, "sh"]);
    let run = ["run", "-c", "modhost.toml"];
    let mut arguments = run.to_vec();
    arguments.extend(["--pid-file", "small/pid"]);
    attempt.refused(1, &arguments)[0].assert("cannot use the pid file", "write: no space left on device", "");
    let read_only = words("-o ro small small");
    let attempt = attempt.through(&["unshare", "-m", "sh", "-c", &read_only, "sh"]);
    attempt.refused(1, &arguments)[0].assert("cannot use the pid file", "read-only file system", "folder");
    arguments = run.to_vec();
    arguments.extend(["--control", "small/control"]);
    attempt.refused(1, &arguments)[0].assert("cannot make the control socket", "read-only file system", "");
    attempt.write("modhost.toml", format!("{TABLE}{LISTEN}[log]\ntarget = \"small/log\"\n"));
    attempt.refused(1, &run)[0].assert("cannot open the log file", "read-only file system", "can be written");
}

#[test]
fn closed_streams_and_odd_program_names_do_no_harm() {
    let run = ["run", "-c", "modhost.toml"];
    for script in ["exec <&-", "exec >&-", "exec <&- >&-"] {
        let host = with_table(&format!("{TABLE}{LISTEN}")).after(script).start(&run);
        assert_eq!(host.client().ask_text(""), "0 3 1000000000 nothing", "{script}");
        host.stop();
    }
    // With all three streams closed. The log is a file.
    let attempt = with_table(&format!("{TABLE}{LISTEN}[log]\ntarget = \"./log\"\n")).after("exec <&- >&- 2>&-");
    let host = attempt.start(&run);
    assert_eq!(host.client().ask_text(""), "0 3 1000000000 nothing");
    host.stop();
    for name in ["", "y y", &"y".repeat(3000)] {
        let attempt = with_table(&format!("{TABLE}{LISTEN}"));
        let script = format!("exec -a '{name}' \"$@\"");
        let host = attempt.through(&["bash", "-c", &script, "bash"]).start(&run);
        assert!(processes::title(host.pid()).starts_with("modhost"), "{:?}", processes::title(host.pid()));
        host.stop();
    }
}

#[test]
fn a_deleted_working_directory_is_an_error() {
    let attempt = with_table(TABLE).after("mkdir gone; cd gone; rmdir ../gone");
    attempt.refused(2, &["run"])[0].assert("cannot find the working directory", "no such file or directory", "change to another");
}

#[test]
fn unreachable_service_managers_are_reported() {
    let run = ["run", "-c", "modhost.toml"];
    let long = format!("/{}", "x".repeat(200));
    for address in ["garbage", "vsock:2:3", long.as_str()] {
        let attempt = with_table(TABLE).environment("NOTIFY_SOCKET", address);
        attempt.assert_refused(1, "cannot reach the service manager", &format!("NOTIFY_SOCKET={address}"), "absolute path or @name");
        // A command that starts no service ignores it.
        assert_eq!(attempt.run(&["check", "-c", "modhost.toml"]).code, 0);
    }
    for address in ["/nonexistent", "@", "/dev/null"] {
        let attempt = with_table(TABLE).environment("NOTIFY_SOCKET", address);
        let attempt = attempt.expect_log("cannot tell the service manager that the service is ready");
        let ended = attempt.expect_log("cannot tell the service manager that the service stops").start(&run).stop();
        assert_eq!(ended.log.count("the service stops"), 1, "{}", ended.log);
    }
    with_table(TABLE).environment("NOTIFY_SOCKET", "").start(&run).stop();
}
