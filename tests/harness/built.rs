//! The files under test: the host in its release profile, the shipped modules, and the fixture
//! modules. They are built here when they are out of date, so that a plain `cargo test` in a fresh
//! clone works as well as `make test`.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The root folder of the repository.
pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The host's program. `MODHOST_BIN` names another one.
pub fn host() -> PathBuf {
    build();
    std::env::var_os("MODHOST_BIN").map_or_else(|| root().join("target/release/modhost"), PathBuf::from)
}

/// A shipped module, such as `echo`.
pub fn module(name: &str) -> PathBuf {
    build();
    existing(root().join(format!("target/release/lib{name}.so")))
}

/// A shipped module by its folder, in Rust or in C.
pub fn shipped_module(folder: &str) -> PathBuf {
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

/// A Rust module that must be refused: a crate of `tests/modules/refused`, built differently from
/// all others.
pub fn refused(name: &str) -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    build();
    BUILT.get_or_init(|| {
        let _lock = lock(&fixtures_target());
        cargo(&fixtures().join("refused"), &["build", "--workspace", "--target-dir", "../target/refused"]);
    });
    existing(fixtures_target().join(format!("refused/debug/lib{name}.so")))
}

/// Builds `tests/modules/malformed/table.c` with these options as this file.
///
/// The result is kept between runs, unless the options name a test's folder, which differs each
/// time.
pub fn table(library: &Path, options: &[&str]) {
    let source = fixtures().join("malformed/table.c");
    let build = |library: &Path| {
        let mut command = compiler();
        command.arg("-o").arg(library).arg(&source).args(options);
        run(command);
    };
    if options.iter().any(|option| option.starts_with("-L")) {
        return build(library);
    }
    let mut hasher = DefaultHasher::new();
    options.hash(&mut hasher);
    let kept = fixtures_target().join("tables").join(format!("{:016x}.so", hasher.finish()));
    if is_older(&kept, &source) {
        fs::create_dir_all(kept.parent().expect("a folder")).expect("a folder");
        // Several tests may build it at once.
        let new = kept.with_extension(format!("{}-{:?}", std::process::id(), std::thread::current().id()));
        build(&new);
        fs::rename(&new, &kept).expect("a place");
    }
    fs::copy(&kept, library).unwrap_or_else(|error| panic!("{}: {error}", library.display()));
}

/// Whether a file built from a module in C is older than its source or a header.
fn is_older(made: &Path, source: &Path) -> bool {
    let changed = |path: &Path| fs::metadata(path).and_then(|found| found.modified()).ok();
    let headers = ["modhost.h", "modhost/http.h"].map(|header| root().join("module-api/include").join(header));
    changed(made) <= headers.iter().map(PathBuf::as_path).chain([source]).filter_map(changed).max()
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

/// Once per test program, and in one test program at a time. Does nothing with
/// `MODHOST_TESTS_BUILT`, which is set where everything is up to date and nothing can or need be
/// built: by the Makefile, or for another user.
fn build() {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        if std::env::var_os("MODHOST_TESTS_BUILT").is_some() {
            return;
        }
        for folder in ["c", "use"] {
            fs::create_dir_all(fixtures_target().join(folder)).expect("a target folder");
        }
        let _lock = lock(&fixtures_target());
        // The same arguments as in the Makefile. Another choice of packages would unify other
        // features and rebuild.
        cargo(root(), &["build", "--release", "--workspace"]);
        cargo(&fixtures(), &["build", "--workspace"]);
        for entry in fs::read_dir(fixtures().join("c")).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "c") {
                compile(&entry.path(), &fixtures_target().join("c").join(entry.file_name()).with_extension("so"));
            }
        }
    });
}

/// Runs make in the root folder, one at a time.
pub fn make(arguments: &[&str]) {
    build();
    let _lock = lock(&fixtures_target());
    let mut command = Command::new("make");
    command.current_dir(root()).args(arguments).env_remove("MAKEFLAGS").env_remove("MAKELEVEL");
    run(command);
}

/// A lock that is held until it is dropped.
pub fn lock(folder: &Path) -> File {
    let lock = File::create(folder.join("building")).expect("a file to lock");
    lock.lock().expect("the lock");
    lock
}

pub fn cargo(folder: &Path, arguments: &[&str]) {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(folder).args(arguments).arg("--quiet").env_remove("CARGO_TARGET_DIR");
    run(command);
}

/// Compiles a module in C if it is older than its source or a header.
fn compile(source: &Path, library: &Path) {
    if !is_older(library, source) {
        return;
    }
    let mut command = compiler();
    command.arg("-o").arg(library).arg(source);
    run(command);
}

fn compiler() -> Command {
    let mut command = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()));
    command.args(["-std=gnu11", "-g", "-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-fvisibility=hidden", "-shared", "-pthread"]);
    command.arg("-I").arg(root().join("module-api/include"));
    command
}

pub fn run(mut command: Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?} failed:\n{}", String::from_utf8_lossy(&output.stderr));
}
