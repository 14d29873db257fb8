//! Descriptions of the types of the binary interface, for the structural check that the loader
//! makes before it calls a Rust module.
//!
//! Constants only.

use abi_stable::StableAbi;
use abi_stable::library::AbiHeader;
use abi_stable::type_layout::TypeLayout;

use crate::abi::{HostApiRef, ModuleExportsRef, RustInfo};

/// Version of the description itself. Compare it before touching a [`TypeLayout`] of another file.
pub const ABI_HEADER: AbiHeader = AbiHeader::VALUE;

/// A number for the text of the source files that declare the types of the binary interface, and
/// for the target they are compiled for. All these types are `repr(C)` and consist of each other
/// and of primitive types only, so text and target determine the layouts.
pub const SOURCE: u64 = match u64::from_str_radix(env!("MODULE_API_ABI_SOURCE"), 10) {
    Ok(number) => number,
    Err(_) => panic!("the build script gives no number"),
};

/// Layout of the exports table in this build of the crate.
pub fn exports_layout() -> &'static TypeLayout {
    RUST_INFO.exports
}

/// Layout of the host's table of functions in this build of the crate.
pub fn host_layout() -> &'static TypeLayout {
    RUST_INFO.host
}

/// The exports table of a Rust module points to this.
#[doc(hidden)]
pub static RUST_INFO: RustInfo = RustInfo {
    abi_stable: ABI_HEADER,
    source: SOURCE,
    exports: <ModuleExportsRef as StableAbi>::LAYOUT,
    host: <HostApiRef as StableAbi>::LAYOUT,
};
