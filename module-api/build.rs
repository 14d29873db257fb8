//! Gives the crate the compiler's version, for the ELF note, and a number for the source text of
//! the ABI, for the loader. Links the unwinder statically into the host and each module.

use std::env;
use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=RUSTC");
    // `rustc 1.95.0 (59807616e 2026-04-14)` becomes `rustc 1.95.0`. If the compiler does not
    // answer, the build goes on.
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let words: Vec<&str> = text.split_whitespace().take(2).collect();
    let version = if words.is_empty() { "rustc".to_owned() } else { words.join(" ") };
    println!("cargo:rustc-env=MODULE_API_RUSTC={version}");
    println!("cargo:rustc-env=MODULE_API_ABI_SOURCE={}", abi_source()?);
    link_unwinder()
}

/// A number for the text of all files that declare types of the binary interface, and for the
/// target that they are compiled for.
fn abi_source() -> Result<u64, Box<dyn Error>> {
    let parts = fs::read_dir("src/abi")?.map(|part| Ok(part?.path())).collect::<io::Result<Vec<PathBuf>>>()?;
    let mut files = [vec![PathBuf::from("src/abi.rs")], parts].concat();
    files.sort();
    let mut text = env::var("TARGET")?.into_bytes();
    for file in files {
        println!("cargo:rerun-if-changed={}", file.display());
        text.extend(fs::read(&file)?);
        // Moving text from the end of one file to the beginning of the next must change the number.
        text.push(0);
    }
    println!("cargo:rerun-if-changed=src/abi");
    // FNV-1a: unlike the standard library's hash, it is the same in every version of the compiler.
    Ok(text.into_iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)))
}

/// Makes linkers that look for the compiler's shared runtime library find its static unwinder
/// instead.
///
/// One more shared object in the host costs every fork five mappings to copy. It also costs every
/// start the library's constructor, which queries the processor's features; that is slow on virtual
/// machines. Rust asks for the library by name, so a linker script of that name replaces it, in a
/// folder that Cargo passes to everything that is linked with this crate. With
/// `MODHOST_SHARED_UNWINDER` in the environment of the build nothing is replaced: for modules that
/// throw C++ exceptions, and for compilers without the static library.
fn link_unwinder() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-env-changed=MODHOST_SHARED_UNWINDER");
    let target = |what: &str| env::var(format!("CARGO_CFG_TARGET_{what}"));
    if target("OS")? == "linux" && target("ENV")? == "gnu" && env::var_os("MODHOST_SHARED_UNWINDER").is_none() {
        let folder = env::var("OUT_DIR")?;
        fs::write(Path::new(&folder).join("libgcc_s.so"), "GROUP ( -lgcc_eh )\n")?;
        println!("cargo:rustc-link-search=native={folder}");
    }
    Ok(())
}
