//! The whole log: events go in, bytes come out in a file or at a socket.
//!
//! *Runs in:* the test harness. *Never:* forks, installs the global log.

use super::*;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

struct LogFolder(PathBuf);

impl LogFolder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("modhost-log-{}-{name}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for LogFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn log_to(target: SinkTarget, format: RecordFormat) -> &'static Log {
    let log: &'static Log = Box::leak(Box::new(Log::open(&LogSettings { target, format, ..LogSettings::default() }).unwrap()));
    ProcessName::new("worker 3").write_to(&log.label);
    log
}

fn descriptor(sink: &LogSink) -> i32 {
    let LogSink::File { file, .. } = sink else { panic!("a file") };
    std::os::fd::AsRawFd::as_raw_fd(file)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn events_up_to_the_threshold_reach_the_file() {
    let folder = LogFolder::new("events");
    let path = folder.0.join("log");
    let log = log_to(SinkTarget::File(path.clone()), RecordFormat::Text);
    tracing::subscriber::with_default(EventSubscriber(log), || {
        tracing::info!(module = "echo", port = 5060, "ready");
        tracing::debug!("not wanted");
        log.shared.level().store(Severity::Debug as u32, Relaxed);
        tracing::debug!(error = %"a b", "wanted now");
        log.shared.level().store(Severity::Fault as u32, Relaxed);
        tracing::error!("not wanted");
        crate::fault!(slot = 2, "a slot is {}", "wrong");
        tracing::error_span!("span").in_scope(|| ());
    });
    let pid = std::process::id();
    let text = read(&path);
    let lines: Vec<&str> = text.lines().map(|line| line.split_once(' ').unwrap().1).collect();
    assert_eq!(
        lines,
        [
            format!("info  [worker 3 {pid}] echo: ready port=5060"),
            format!("debug [worker 3 {pid}] wanted now error=\"a b\""),
            format!("fault [worker 3 {pid}] a slot is wrong slot=2"),
        ]
    );
}

#[test]
fn a_fault_has_its_module_path_as_target_in_json() {
    let folder = LogFolder::new("json");
    let path = folder.0.join("log");
    let log = log_to(SinkTarget::File(path.clone()), RecordFormat::Json);
    tracing::subscriber::with_default(EventSubscriber(log), || crate::fault!("broken"));
    let object: serde_json::Value = serde_json::from_str(&read(&path)).unwrap();
    assert_eq!((&object["level"], &object["target"], &object["process"]), (&"fault".into(), &module_path!().into(), &"worker 3".into()));
}

#[test]
fn the_supervisor_reopens_and_others_follow_once() {
    let folder = LogFolder::new("reopen");
    let path = folder.0.join("log");
    let supervisor = log_to(SinkTarget::File(path.clone()), RecordFormat::Text);
    // Another process: its own descriptor and count of reopenings, the same shared memory.
    let mut child = Log::open(&LogSettings { target: SinkTarget::File(path.clone()), ..LogSettings::default() }).unwrap();
    child.shared = supervisor.shared.in_another_process();
    let (was, number) = (folder.0.join("log.1"), descriptor(&child.sink));

    child.emit(Severity::Info, "t", &ModuleMessage { module: "m", text: "one" });
    std::fs::rename(&path, &was).unwrap();
    child.emit(Severity::Info, "t", &ModuleMessage { module: "m", text: "two" });
    supervisor.reopen(None).unwrap();
    child.emit(Severity::Info, "t", &ModuleMessage { module: "m", text: "three" });
    assert_eq!((read(&was).lines().count(), read(&path).lines().count()), (2, 1));
    assert_eq!(descriptor(&child.sink), number);
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions()) & 0o137, 0);

    // The file is gone again before the child opens it: one warning, and the record itself, go to
    // the file that the child has.
    supervisor.reopen(None).unwrap();
    std::fs::rename(&path, folder.0.join("log.2")).unwrap();
    for text in ["four", "five"] {
        child.emit(Severity::Info, "t", &ModuleMessage { module: "m", text });
    }
    let kept = read(&folder.0.join("log.2"));
    assert_eq!(kept.matches("cannot reopen").count(), 1);
    assert!(!path.exists() && kept.contains("m: four") && kept.contains("m: five"), "{kept}");
}

#[test]
fn lost_records_are_counted_and_reported() {
    let full = LogSettings { target: SinkTarget::File("/dev/full".into()), ..LogSettings::default() };
    let log = Log::open(&full).unwrap();
    for _ in 0..3 {
        log.emit(Severity::Info, "t", &ModuleMessage { module: "m", text: "no room" });
    }
    assert_eq!((log.unreported.load(Relaxed), log.shared.lost()), (3, 3));
    let other = Log { shared: log.shared.in_another_process(), ..Log::open(&full).unwrap() };
    other.emit(Severity::Info, "t", &ModuleMessage { module: "m", text: "no room" });
    assert_eq!((log.unreported.load(Relaxed), log.shared.lost()), (3, 4), "one count for all processes");

    let folder = LogFolder::new("lost");
    let path = folder.0.join("socket");
    let server = UnixDatagram::bind(&path).unwrap();
    server.set_nonblocking(true).unwrap();
    let mut log = Log::open(&LogSettings::default()).unwrap();
    log.sink = LogSink::datagram(Protocol::Syslog, path.clone()).unwrap();
    // Nobody reads: the queue fills up and no record waits.
    let sent = (0..100_000).take_while(|_| {
        log.emit(Severity::Info, "t", &ModuleMessage { module: "m", text: "tick" });
        log.unreported.load(Relaxed) < 5
    });
    assert!(sent.count() < 99_999);
    // A restarted receiver is found again.
    drop(server);
    std::fs::remove_file(&path).unwrap();
    let server = UnixDatagram::bind(&path).unwrap();
    log.emit(Severity::Warn, "t", &ModuleMessage { module: "m", text: "back" });
    log.emit(Severity::Info, "t", &ModuleMessage { module: "m", text: "again" });
    let receive = || {
        let mut bytes = [0; RECORD_BYTES];
        let length = server.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    };
    let pid = std::process::id();
    assert_eq!(receive(), format!("<28>modhost[{pid}]: warn [] m: back lost=5"));
    assert_eq!(receive(), format!("<30>modhost[{pid}]: info [] m: again"));
    assert_eq!(log.shared.lost(), 5);
}

#[test]
fn a_value_that_logs_while_being_written_loses_only_its_own_record() {
    struct Chatty(&'static Log);
    impl std::fmt::Display for Chatty {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            self.0.emit(Severity::Info, "t", &ModuleMessage { module: "m", text: "inner" });
            f.write_str("outer")
        }
    }
    let folder = LogFolder::new("nested");
    let path = folder.0.join("log");
    let log = log_to(SinkTarget::File(path.clone()), RecordFormat::Text);
    tracing::subscriber::with_default(EventSubscriber(log), || tracing::info!("{}", Chatty(log)));
    assert!(read(&path).ends_with("outer\n"));
    assert_eq!(log.unreported.load(Relaxed), 1);
}

#[test]
fn names_are_cut_at_a_character() {
    let label = Label::default();
    let mut bytes = [0; NAME_BYTES];
    assert_eq!(super::read(&label, &mut bytes), "");
    ProcessName::new(&"é".repeat(20)).write_to(&label);
    assert_eq!(super::read(&label, &mut bytes), "é".repeat(16));
    ProcessName::new(&format!("x{}", "é".repeat(20))).write_to(&label);
    assert_eq!(super::read(&label, &mut bytes), format!("x{}", "é".repeat(15)));
}

#[test]
fn an_unreachable_target_is_an_error_at_the_start() {
    for target in [SinkTarget::File("/nonexistent/log".into()), SinkTarget::File("/".into())] {
        assert!(Log::open(&LogSettings { target, ..LogSettings::default() }).is_err());
    }
    assert!(LogSink::datagram(Protocol::Syslog, "/nonexistent".into()).is_err());
}

#[test]
fn the_buffer_begins_a_page() {
    // So does the control block that the C library puts after a thread's memory: see `Buffer`.
    BUFFER.with(|buffer| assert_eq!((buffer.as_ptr().addr() % 4096, size_of::<Buffer>()), (0, RECORD_BYTES)));
}
