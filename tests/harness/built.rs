//! What the tests drive: the host in its release profile, the modules of use, and the fixture modules. Built here when something is not
//! up to date, so that a plain `cargo test` in a fresh clone works as well as `make test`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The folder of the repository.
pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The host's program. `MODHOST_BIN` names another one.
pub fn host() -> PathBuf {
    build();
    std::env::var_os("MODHOST_BIN").map_or_else(|| root().join("target/release/modhost"), PathBuf::from)
}

/// A module of use, such as `echo`.
pub fn module(name: &str) -> PathBuf {
    build();
    existing(root().join(format!("target/release/lib{name}.so")))
}

/// A module of use by its folder, in Rust or in C.
pub fn module_of_use(folder: &str) -> PathBuf {
    build();
    let sources = root().join("modules").join(folder);
    if sources.join("Cargo.toml").exists() {
        return module(folder);
    }
    let library = fixtures_target().join(format!("use/{folder}.so"));
    let source = fs::read_dir(&sources)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|found| found == "c"));
    compile(&source.expect("a module in C"), &library);
    library
}

/// A fixture module, in Rust (a crate of `tests/modules`) or in C (a file of `tests/modules/c`).
pub fn fixture(name: &str) -> PathBuf {
    build();
    let in_c = fixtures_target().join(format!("c/{name}.so"));
    if in_c.exists() { in_c } else { existing(fixtures_target().join(format!("debug/lib{name}.so"))) }
}

fn existing(path: PathBuf) -> PathBuf {
    assert!(path.exists(), "there is no {}", path.display());
    path
}

fn fixtures() -> PathBuf {
    root().join("tests/modules")
}

fn fixtures_target() -> PathBuf {
    fixtures().join("target")
}

/// Once per test program, and one test program at a time. Not at all with `MODHOST_TESTS_BUILT`, for who knows that all is up to date and
/// cannot or need not build: another user, or the Makefile.
fn build() {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        if std::env::var_os("MODHOST_TESTS_BUILT").is_some() {
            return;
        }
        for folder in ["c", "use"] {
            fs::create_dir_all(fixtures_target().join(folder)).expect("a target folder");
        }
        let lock = File::create(fixtures_target().join("building")).expect("a file to lock");
        lock.lock().expect("the lock");
        // The same words as in the Makefile: another choice of packages would have other features, and be built again.
        cargo(root(), &["build", "--release", "--workspace"]);
        cargo(&fixtures(), &["build", "--workspace"]);
        for entry in fs::read_dir(fixtures().join("c")).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "c") {
                compile(&entry.path(), &fixtures_target().join("c").join(entry.file_name()).with_extension("so"));
            }
        }
    });
}

fn cargo(folder: &Path, arguments: &[&str]) {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(folder).args(arguments).arg("--quiet").env_remove("CARGO_TARGET_DIR");
    run(command);
}

/// Compiles a module in C if it is older than its source or the header.
fn compile(source: &Path, library: &Path) {
    let include = root().join("module-api/include");
    let changed = |path: &Path| fs::metadata(path).and_then(|found| found.modified()).ok();
    if changed(library) > changed(source).max(changed(&include.join("modhost.h"))) {
        return;
    }
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let mut command = Command::new(compiler);
    command.args(["-std=gnu11", "-g", "-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-fvisibility=hidden", "-shared", "-pthread"]);
    command.arg("-I").arg(include).arg("-o").arg(library).arg(source);
    run(command);
}

fn run(mut command: Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?} failed:\n{}", String::from_utf8_lossy(&output.stderr));
}
