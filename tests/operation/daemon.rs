//! Daemon mode, the pid file, and messages to the service manager.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use harness::setup::quoted;
use harness::{Client, PATIENCE, Setup, fixture, processes};

fn service() -> Setup {
    Setup::new().module(fixture("recorder_a")).listen("recorder_a:serve", 2)
}

fn pid_in(path: &Path) -> i32 {
    fs::read_to_string(path).unwrap_or_default().trim().parse().unwrap_or(0)
}

#[test]
fn the_starting_command_returns_when_the_service_is_ready() {
    // One process is slow to start, and the command waits for it.
    let (host, started) =
        Setup::new().module(fixture("recorder_a").script("child_init[2]: await_time 300")).listen("recorder_a:serve", 2).control().daemon();
    assert_eq!((started.code, started.output.as_str(), started.errors.as_str()), (0, "", ""));
    let records = host.records();
    assert!(records.iter().any(|record| record.event == "did" && record.text("action") == "await_time"), "{records}");
    host.wait_for_log("ready in ");
    assert_eq!(host.client().ask_text("max_procs"), "6");

    let supervisor = host.pid();
    assert_eq!(fs::read_to_string(host.path("pid")).unwrap(), format!("{supervisor}\n"));
    for pid in host.processes() {
        let (fields, streams) = (processes::stat(pid), processes::descriptors(pid));
        assert_eq!(fields.session, supervisor, "{}", processes::title(pid));
        assert_eq!(fields.terminal, 0, "{}", processes::title(pid));
        for stream in 0..=2 {
            assert_eq!(streams[&stream], Path::new("/dev/null"), "{} of {}", stream, processes::title(pid));
        }
        assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), Path::new("/"), "{}", processes::title(pid));
    }
    let ended = host.stop();
    ended.assert_files_removed();
}

#[test]
fn relative_paths_of_a_daemon_start_at_its_working_directory() {
    let setup = Setup::new().module(fixture("recorder_a")).host("pid_file", "\"pid\"").host("control", "\"control\"");
    let (host, started) = setup.log("target", "\"./log\"").daemon_as_configured();
    assert_eq!(started.code, 0, "{}", started.errors);
    assert!(host.path("control").exists());
    host.wait_for_log("ready in ");
    let ended = host.stop();
    ended.assert_files_removed();
}

#[test]
fn a_second_start_beside_a_running_host_is_refused() {
    let first = service().pid_file().control().start();
    let pid_file = quoted(&first.path("pid").display().to_string());
    let control = quoted(&first.path("control").display().to_string());
    let second = || Setup::new().module(fixture("recorder_a"));

    let ended = second().host("pid_file", &pid_file).expect_log("modhost: cannot use the pid file").fails(1);
    assert!(ended.log.contains(&format!("process {} holds it", first.pid())), "{}", ended.log);
    assert_eq!(ended.records.0.len(), 0, "no code of a module has run");
    let (host, started) = second().host("pid_file", &pid_file).log_file().allow_log("cannot use the pid file").daemon_as_configured();
    assert_eq!(started.code, 1);
    assert!(started.errors.contains(&format!("process {} holds it", first.pid())), "{}", started.errors);
    drop(host);

    let ended = second().host("control", &control).expect_log("modhost: cannot make the control socket").fails(1);
    assert!(ended.log.contains("another process serves it"), "{}", ended.log);

    // The first host is unaffected.
    assert_eq!(pid_in(&first.path("pid")), first.pid());
    assert!(first.path("control").exists());
    assert_eq!(first.client().ask_text("max_procs"), "6");
    first.stop();
}

#[test]
fn files_of_a_killed_host_are_taken_over() {
    let killed = service().pid_file().control().start();
    let pid = killed.pid();
    let left = killed.kill_supervisor();
    let (pid_file, control) = (left.folder().join("pid"), left.folder().join("control"));
    assert_eq!(pid_in(&pid_file), pid, "no process was left to remove it");
    assert!(control.exists());
    let host = service()
        .host("pid_file", &quoted(&pid_file.display().to_string()))
        .host("control", &quoted(&control.display().to_string()))
        .start();
    assert_eq!(pid_in(&pid_file), host.pid());
    host.stop();
    assert!(!pid_file.exists() && !control.exists());
}

#[test]
fn any_plain_pid_file_is_taken_over_and_other_files_are_refused() {
    for text in ["", "1\n", "garbage \u{1b}[31m", "99999999999999999999"] {
        let setup = service().pid_file();
        let path = setup.folder().join("pid");
        fs::write(&path, text).unwrap();
        let host = setup.start();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", host.pid()));
        host.stop();
    }
    // Refused: a folder, a symbolic link, and a plain file in place of the control socket.
    let setup = service().pid_file().expect_log("modhost: cannot use the pid file");
    fs::create_dir(setup.folder().join("pid")).unwrap();
    setup.fails(1);
    let setup = service().pid_file().expect_log("modhost: cannot use the pid file");
    let elsewhere = setup.folder().join("elsewhere");
    fs::write(&elsewhere, "precious").unwrap();
    std::os::unix::fs::symlink(&elsewhere, setup.folder().join("pid")).unwrap();
    let ended = setup.fails(1);
    assert_eq!(fs::read_to_string(ended.folder().join("elsewhere")).unwrap(), "precious");
    let setup = service().control().expect_log("modhost: cannot make the control socket");
    fs::write(setup.folder().join("control"), "precious").unwrap();
    let ended = setup.fails(1);
    assert_eq!(fs::read_to_string(ended.folder().join("control")).unwrap(), "precious");
}

#[test]
fn without_fork_main_writes_the_pid_file() {
    let host = service().argument("--no-fork").pid_file().start();
    assert_eq!(pid_in(&host.path("pid")), host.pid());
    let ended = host.stop();
    assert!(!ended.folder().join("pid").exists());
}

/// The next message that the host sends to its service manager.
fn next_message(socket: &UnixDatagram) -> Vec<String> {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).expect("a message for the service manager");
    String::from_utf8_lossy(&buffer[..length]).lines().map(str::to_owned).collect()
}

#[test]
fn the_service_manager_is_notified() {
    let setup = Setup::new();
    let path = setup.folder().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    let gate = setup.folder().join("gate");
    let host = setup
        .environment("NOTIFY_SOCKET", &path.display().to_string())
        .module(fixture("recorder_a").script(&format!("child_init[1]: await_file {}", gate.display())))
        .listen("recorder_a:serve", 1)
        .launch();
    // No message before every process is ready.
    host.wait_for_record("the process that waits", |record| record.is_child_init(1));
    manager.set_nonblocking(true).unwrap();
    assert!(manager.recv(&mut [0; 64]).is_err(), "notified too early");
    manager.set_nonblocking(false).unwrap();
    fs::write(&gate, "").unwrap();
    let ready = next_message(&manager);
    assert!(ready.contains(&"READY=1".to_owned()), "{ready:?}");
    assert!(ready.contains(&format!("MAINPID={}", host.pid())), "{ready:?}");
    host.stop();
    assert!(next_message(&manager).contains(&"STOPPING=1".to_owned()));
    manager.set_nonblocking(true).unwrap();
    assert!(manager.recv(&mut [0; 64]).is_err(), "notified once each");
}

#[test]
fn a_failing_start_does_not_report_readiness() {
    let setup = Setup::new();
    let path = setup.folder().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    let setup = setup.environment("NOTIFY_SOCKET", &path.display().to_string());
    setup.module(fixture("recorder_a").script("proc_main: fail")).expect_log("modhost:").fails(1);
    manager.set_nonblocking(true).unwrap();
    let mut buffer = [0; 4096];
    while let Ok(length) = manager.recv(&mut buffer) {
        let text = String::from_utf8_lossy(&buffer[..length]);
        assert!(!text.contains("READY"), "{text}");
    }
}

#[test]
fn signals_ignored_by_the_starting_program_are_handled() {
    // A shell without job control starts background commands with signals ignored, and some
    // launchers ignore SIGCHLD.
    let host = service().expect_log("a process died and is replaced").start_ignoring("HUP INT QUIT TERM CHLD USR1 USR2");
    let worker = host.records().child_inits(1)[0].pid();
    host.kill(worker);
    host.wait_for_record("the replacement", |record| record.is_child_init(1) && record.number("restarts") == 1);
    for pid in host.children() {
        let ignored = u64::from_str_radix(&processes::status(pid)["SigIgn"], 16).unwrap();
        for signal in [1, 2, 3, 10, 12, 15, 17] {
            assert_eq!(ignored & (1 << (signal - 1)), 0, "signal {signal} of {}", processes::title(pid));
        }
    }
    host.stop();
}

#[test]
fn a_daemon_continues_without_its_terminal() {
    let (host, _) = service().daemon();
    // The command has ended, and its terminal is closed.
    let client = Client::of(host.address(0));
    assert_eq!(client.ask_text("max_procs"), "5");
    processes::signal_process(host.pid(), rustix::process::Signal::HUP);
    host.wait_for_log("log reopened");
    assert_eq!(client.ask_text("max_procs"), "5");
    host.stop();
}
