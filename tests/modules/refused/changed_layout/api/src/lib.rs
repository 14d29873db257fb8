//! The SDK's structs, one of them changed; see `build.rs`.

/// The changed structs.
pub mod abi {
    include!(concat!(env!("OUT_DIR"), "/abi.rs"));
}

use abi::{HostApiRef, ModuleExportsRef, RustInfo};
use abi_stable::StableAbi;
use abi_stable::library::AbiHeader;

/// The target of the header of a module built with this crate.
pub static RUST_INFO: RustInfo = RustInfo {
    abi_stable: AbiHeader::VALUE,
    // Not the number of any release: the source differs from the SDK's.
    source: 1,
    exports: <ModuleExportsRef as StableAbi>::LAYOUT,
    host: <HostApiRef as StableAbi>::LAYOUT,
};
