//! The structural comparison of a Rust module's ABI types with the host's.
//!
//! *Runs in:* main (and `modhost check`), before any `init_f`. *Never:* touches a layout before its header was compared.

use abi_stable::abi_stability::abi_checking::check_layout_compatibility;
use abi_stable::type_layout::TypeLayout;
use module_api::abi;

use crate::error::{Error, Result};

/// Compares the layouts behind a Rust module's header with the host's own.
///
/// # Safety
/// `info` is what the header of a module with `FLAG_RUST` points to, and not null.
pub unsafe fn check(info: *const abi::RustInfo, module_minor: u16) -> Result<()> {
    // SAFETY: a header with FLAG_RUST points to a RustInfo constant, which starts with the description's own version.
    let (header, exports, host) = unsafe { ((*info).abi_stable, &raw const (*info).exports, &raw const (*info).host) };
    if !header.is_compatible(&module_api::layout::ABI_HEADER) {
        return Err(Error::config("").detail("its type description has another version").hint("rebuild the module against module-api 1.x"));
    }
    // SAFETY: the description's version is ours, so these are references to layouts of ours.
    let (exports, host) = unsafe { (*exports, *host) };
    compare("exports table", exports, module_api::layout::exports_layout(), module_minor)?;
    compare("host functions", host, module_api::layout::host_layout(), module_minor)
}

fn compare(what: &str, module: &'static TypeLayout, ours: &'static TypeLayout, module_minor: u16) -> Result<()> {
    // The check is one-directional: the first argument is the older interface.
    let module_is_older = u32::from(module_minor) <= u32::from(abi::ABI_MINOR);
    let outcome = if module_is_older { check_layout_compatibility(module, ours) } else { check_layout_compatibility(ours, module) };
    let Err(report) = outcome else {
        return Ok(());
    };
    let differences: Vec<String> = report.errors.iter().map(|error| describe(error, module_is_older)).collect();
    Err(Error::config("")
        .detail(format!("its {what} differs from this host's: {}", differences.join("; ")))
        .hint(format!("rebuild the module against module-api {}.x", abi::ABI_MAJOR)))
}

/// One line per difference.
fn describe(error: &abi_stable::abi_stability::abi_checking::AbiInstabilityError, _module_is_older: bool) -> String {
    let _ = error;
    String::new()
}
