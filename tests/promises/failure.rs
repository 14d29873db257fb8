//! L21: a start that fails leaves nothing behind.

use harness::{Setup, fixture};

/// A start in which the second of three modules has this script.
fn start(script: &str) -> Setup {
    Setup::new()
        .pid_file()
        .control()
        .module(fixture("recorder_a").script("init_f: register 1; proc_main: fork 7 extra"))
        .module(fixture("recorder_b").script(script))
        .module(fixture("recorder_c"))
        .listen("recorder_a:serve", 2)
        .allow_log("modhost:")
        .allow_log("recorder_b")
}

#[test]
fn l21_failed_start_is_undone() {
    let phases = [
        ("init_f", "init_f", &["recorder_a"][..]),
        ("proc_init", "init_child_f(PROC_INIT)", &["recorder_c", "recorder_b", "recorder_a"]),
        ("proc_main", "init_child_f(PROC_MAIN)", &["recorder_c", "recorder_b", "recorder_a"]),
        ("post_child_init", "init_child_f(PROC_POSTCHILDINIT)", &["recorder_c", "recorder_b", "recorder_a"]),
    ];
    for (phase, name, initialised) in phases {
        for (way, what, reason) in [
            ("fail the database is away", "failed in", "the database is away"),
            ("panic out of luck", "panicked in", "out of luck"),
            ("segv", "was killed by SIGSEGV in", ""),
            ("overflow", "was killed by SIGSEGV in", ""),
            ("exit 0", "exited with status 0", ""),
        ] {
            let ended = start(&format!("{phase}: {way}")).fails(1);
            ended.assert_files_removed();
            assert!(ended.log.contains(what), "{phase} {way}: {}", ended.log);
            ended.log.assert(&[name]);
            ended.log.assert(&["\"recorder_b\""]);
            ended.log.assert(&[reason]);
            if reason.is_empty() {
                // Main itself died, so `destroy_f` cannot be called.
                assert!(ended.destroyed().is_empty(), "{phase} {way}");
            } else {
                assert_eq!(ended.destroyed(), initialised, "{phase} {way}");
            }
            // Later steps of the sequence were not reached.
            let later = match phase {
                "init_f" => ended.records.event("init_child_f").len() + ended.records.that(|record| record.module() == "recorder_c").len(),
                "proc_init" => ended.records.that(|record| record.event == "init_child_f" && record.rank() != -127).len(),
                "proc_main" => ended.records.that(|record| record.is_child_init(0) && record.module() == "recorder_c").len(),
                _ => 0,
            };
            assert_eq!(later, 0, "{phase} {way}: {}", ended.records);
            assert!(!ended.log.contains("ready in "));
        }
    }
}

#[test]
fn l21_failed_start_of_a_daemon_is_told_to_its_starter() {
    for (way, parts) in [
        ("init_f: fail the database is away", &["module \"recorder_b\" failed in init_f", "the database is away"][..]),
        ("proc_main: segv", &["was killed by SIGSEGV in init_child_f(PROC_MAIN) of module \"recorder_b\""]),
        ("child_init[2]: fail away", &["in its initialisation", "in init_child_f(rank) of module \"recorder_b\""]),
    ] {
        // In daemon mode the error goes to the terminal, and to the log as a record.
        let (host, started) = start(way).allow_log("error").allow_log("away").allow_log("killed").daemon_that_fails();
        assert_eq!(started.code, 1, "{}", started.errors);
        for part in parts {
            assert!(started.errors.contains(part), "{}", started.errors);
        }
        assert!(host.processes().is_empty(), "{way}: processes are left\n{}", host.report());
        assert!(!host.path("pid").exists() && !host.path("control").exists(), "{way}");
    }
}

#[test]
fn l21_init_f_fails_with_any_value_but_0_and_init_child_f_with_negative_ones() {
    for (param, value, code) in
        [("init", 1, 1), ("init", -1, 1), ("init", 70, 1), ("child", -1, 1), ("child", -200, 1), ("child", 1, 0), ("child", 70, 0)]
    {
        let setup = Setup::new().module(fixture("recorder_a")).module(fixture("returns").param(param, &value.to_string()));
        if code == 0 {
            setup.start().stop();
            continue;
        }
        let ended = setup.expect_log("modhost: module \"returns\" failed in ").allow_log("module \"returns\"").fails(1);
        assert_eq!(ended.destroyed(), ["recorder_a"], "{param}={value}");
    }
}

#[test]
fn l21_a_thread_in_main_fails_the_start() {
    for (phase, name) in [("init_f", "init_f"), ("proc_init", "init_child_f(PROC_INIT)"), ("proc_main", "init_child_f(PROC_MAIN)")] {
        let ended = start(&format!("{phase}: thread")).fails(1);
        ended.log.assert(&[&format!("modhost: module \"recorder_b\" started a thread in {name}")]);
        ended.log.assert(&["hint: start threads and runtimes in init_child_f(rank)"]);
    }
}
