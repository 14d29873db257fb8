//! Copies the SDK's structs, and widens one field of one of them.

use std::path::{Path, PathBuf};
use std::{env, fs};

const FIELD: &str = "    /// `PARAM_BOOL` ...\n    pub kind: u32,\n";
const CHANGED: &str = "    /// `PARAM_BOOL` ...\n    pub kind: u64,\n";

fn main() {
    let sources = Path::new("../../../../../module-api/src");
    let copies = PathBuf::from(env::var("OUT_DIR").expect("set by cargo"));
    // What is included looks for its modules beside itself.
    for (source, copy) in [("abi.rs", "abi.rs"), ("abi/stats.rs", "stats.rs"), ("abi/stream.rs", "stream.rs")] {
        let source = sources.join(source);
        println!("cargo:rerun-if-changed={}", source.display());
        let text = fs::read_to_string(&source).expect("the SDK's structs");
        // Inner documentation cannot be included.
        let text = if copy == "abi.rs" {
            assert_eq!(text.matches(FIELD).count(), 1, "the field that is to be changed");
            text.replace(FIELD, CHANGED).replace("//!", "//")
        } else {
            text
        };
        fs::write(copies.join(copy), text).expect("a copy");
    }
}
