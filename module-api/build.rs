//! Hands the compiler's version to the crate, for the ELF note.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=RUSTC");
    // `rustc 1.95.0 (59807616e 2026-04-14)` becomes `rustc 1.95.0`; a compiler that does not answer is no reason to fail a build.
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let words: Vec<&str> = text.split_whitespace().take(2).collect();
    let version = if words.is_empty() { "rustc".to_owned() } else { words.join(" ") };
    println!("cargo:rustc-env=MODULE_API_RUSTC={version}");
}
