//! Copies the SDK's structs, and widens one field of one of them.

use std::path::Path;
use std::{env, fs};

const FIELD: &str = "    /// `PARAM_BOOL` ...\n    pub kind: u32,\n";
const CHANGED: &str = "    /// `PARAM_BOOL` ...\n    pub kind: u64,\n";

fn main() {
    let source = "../../../../../module-api/src/abi.rs";
    println!("cargo:rerun-if-changed={source}");
    let text = fs::read_to_string(source).expect("the SDK's structs");
    assert_eq!(text.matches(FIELD).count(), 1, "the field that is to be changed");
    // Inner documentation cannot be included.
    let text = text.replace(FIELD, CHANGED).replace("//!", "//");
    fs::write(Path::new(&env::var("OUT_DIR").expect("set by cargo")).join("abi.rs"), text).expect("a copy");
}
