//! The modules that the book shows, built as a reader builds them (outside the repository, with the
//! installed files), then loaded and run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::Attempt;
use harness::built;

fn example(name: &str) -> PathBuf {
    built::root().join("docs/examples").join(name)
}

/// Builds a crate in any folder. Dependencies that the repository has built come from its target
/// folder.
fn build_crate(folder: &Path, name: &str) -> PathBuf {
    let target = built::root().join("target/outside-rust");
    let target_text = target.to_str().unwrap();
    let _lock = built::lock(&built::root().join("target"));
    // Build output of earlier runs, from other paths, would accumulate.
    built::cargo(folder, &["clean", "--offline", "--target-dir", target_text, "-p", name]);
    built::cargo(folder, &["build", "--offline", "--target-dir", target_text]);
    let built = target.join(format!("debug/lib{name}.so"));
    let copy = folder.join(format!("lib{name}.so"));
    fs::copy(&built, &copy).unwrap_or_else(|error| panic!("{}: {error}", built.display()));
    copy
}

fn sdk() -> String {
    built::root().canonicalize().unwrap().join("module-api").display().to_string()
}

#[test]
fn a_rust_module_builds_outside_the_workspace() {
    let attempt = Attempt::new();
    let from = example("outside-rust");
    let manifest = fs::read_to_string(from.join("Cargo.toml")).unwrap();
    assert!(manifest.contains("\"../../../module-api\""));
    let manifest = attempt.write("outside/Cargo.toml", manifest.replace("../../../module-api", &sdk()));
    attempt.copy(&from.join("Cargo.lock"), "outside/Cargo.lock");
    attempt.copy(&from.join("src/lib.rs"), "outside/src/lib.rs");
    build_crate(manifest.parent().unwrap(), "outside_rust");
    counts(attempt, "outside/liboutside_rust.so", "outside_rust");
}

/// Both examples behave alike.
fn counts(attempt: Attempt, module: &str, name: &str) {
    let listen = format!("udp://127.0.0.1:0={name}");
    let period = format!("{name}.period=50ms");
    let host = attempt.start(&["run", module, "--listen", &listen, "--set", &period, "--workers", "2"]);
    let client = host.client();
    for number in 1..=5 {
        assert_eq!(client.ask_text("next"), number.to_string());
    }
    host.wait_for_log("answered=5");
    // Main, two workers, two timers, the reporter.
    assert_eq!(host.children().len(), 5);
    host.stop();
}

/// Runs `make install` as a packager does. Returns the root of the installation.
fn install(attempt: &Attempt, prefix: &str) -> PathBuf {
    let root = attempt.folder().join("destination");
    built::host();
    built::make(&["install", &format!("PREFIX={prefix}"), &format!("DESTDIR={}", root.display())]);
    root
}

#[test]
fn make_install_installs_these_files() {
    let attempt = Attempt::new();
    let root = install(&attempt, "/opt/modhost");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            match entry.file_type().unwrap().is_dir() {
                true => folders.push(entry.path()),
                false => found.push(entry.path().strip_prefix(&root).unwrap().display().to_string()),
            }
        }
    }
    found.sort();
    assert_eq!(
        found,
        [
            "opt/modhost/bin/modhost",
            "opt/modhost/include/modhost.h",
            "opt/modhost/include/modhost/http.h",
            "opt/modhost/lib/pkgconfig/modhost.pc",
            "opt/modhost/lib/systemd/system/modhost.service",
            "opt/modhost/share/man/man1/modhost.1",
        ]
    );
    assert!(root.join("opt/modhost/lib/modhost").is_dir());
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
    let unit = read("opt/modhost/lib/systemd/system/modhost.service");
    assert!(unit.contains("ExecStart=/opt/modhost/bin/modhost "), "{unit}");
    let pkg_config = read("opt/modhost/lib/pkgconfig/modhost.pc");
    assert!(pkg_config.contains("moduledir=/opt/modhost/lib/modhost") && !pkg_config.contains('@'), "{pkg_config}");
    // The installed program is the one that was built.
    let version = Command::new(root.join("opt/modhost/bin/modhost")).arg("--version").output().unwrap();
    assert!(version.status.success());
}

#[test]
fn a_c_module_builds_with_the_installed_files() {
    let attempt = Attempt::new();
    let prefix = attempt.folder().join("prefix").display().to_string();
    let root = install(&attempt, &prefix);
    // Move the installation to its prefix.
    fs::rename(root.join(prefix.trim_start_matches('/')), &prefix).unwrap();
    for file in ["Makefile", "module.c"] {
        attempt.copy(&example("outside-c").join(file), &format!("outside/{file}"));
    }
    let mut make = Command::new("make");
    make.arg("-C").arg(attempt.folder().join("outside")).env("PKG_CONFIG_PATH", format!("{prefix}/lib/pkgconfig"));
    if Command::new("pkg-config").arg("--version").output().is_err() {
        eprintln!("no pkg-config: the header's folder is given by hand");
        make.arg(format!("MODHOST_CFLAGS=-I{prefix}/include"));
    }
    built::run(make);
    counts(attempt, "outside/outside_c.so", "outside_c");
}

#[test]
fn the_c_module_of_the_tutorial_runs() {
    let attempt = Attempt::new();
    let out = format!("OUT={}", attempt.folder().display());
    built::make(&["-C", "modules/c-hello", &out]);
    let host = attempt.start(&["run", "./libc_hello.so", "--listen", "udp://127.0.0.1:0=c_hello", "--set", "c_hello.greeting=hi"]);
    assert!(host.client().ask_text("").starts_with("hi, you are number 1 at worker "));
    host.stop();
}

#[test]
fn the_module_of_the_readme_runs() {
    let attempt = Attempt::new();
    let readme = fs::read_to_string(built::root().join("README.md")).unwrap();
    let code = readme.split_once("```rust\n").and_then(|(_, rest)| rest.split_once("```")).expect("a module in the README").0;
    assert!(code.lines().count() <= 22, "the README's module is no longer short");
    let manifest = format!(
        "[package]\nname = \"shout\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[lib]\ncrate-type = [\"cdylib\"]\n\
         [dependencies]\nmodule-api = {{ path = \"{}\" }}\n[workspace]\n",
        sdk()
    );
    let manifest = attempt.write("shout/Cargo.toml", manifest);
    // The locked versions of the repository, so that nothing is downloaded.
    attempt.copy(&example("outside-rust").join("Cargo.lock"), "shout/Cargo.lock");
    attempt.write("shout/src/lib.rs", code);
    build_crate(manifest.parent().unwrap(), "shout");
    let host = attempt.start(&["run", "shout/libshout.so", "--listen", "udp://127.0.0.1:0=shout"]);
    assert_eq!(host.client().ask_text("hello"), "HELLO");
    host.stop();
}
