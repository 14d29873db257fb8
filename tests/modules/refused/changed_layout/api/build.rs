//! Copies the SDK's structs and widens one field of one struct.

use std::path::{Path, PathBuf};
use std::{env, fs};

/// Of `Param`.
const FIELD: &str = "        /// `PARAM_BOOL` to `PARAM_TABLE`.\n        pub kind: u32,\n";
const CHANGED: &str = "        /// `PARAM_BOOL` to `PARAM_TABLE`.\n        pub kind: u64,\n";

fn main() {
    let sources = Path::new("../../../../../module-api/src");
    let copies = PathBuf::from(env::var("OUT_DIR").expect("set by cargo"));
    // The included file looks for its modules in its folder.
    let parts = fs::read_dir(sources.join("abi")).expect("the parts of the SDK's structs").map(|part| part.expect("a part").path());
    for source in parts.chain([sources.join("abi.rs")]) {
        let copy = source.file_name().expect("a name").to_owned();
        println!("cargo:rerun-if-changed={}", source.display());
        let text = fs::read_to_string(&source).expect("the SDK's structs");
        let text = match copy.to_str() {
            // Inner documentation cannot be included.
            Some("abi.rs") => text.replace("//!", "//"),
            Some("params.rs") => {
                assert_eq!(text.matches(FIELD).count(), 1, "the field that is to be changed");
                text.replace(FIELD, CHANGED)
            }
            _ => text,
        };
        fs::write(copies.join(copy), text).expect("a copy");
    }
}
