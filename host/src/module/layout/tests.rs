//! Differences between layouts in words.
//!
//! *Runs in:* tests. *Never:* loads a module.

use std::os::raw::c_int;

use abi_stable::StableAbi;

use super::*;

/// The same structs in different builds: the fields before the last one of the first minor,
/// that last one, and those of later minors; then what the handler has beside its name.
macro_rules! build {
    ($name:ident { $($first:tt)* } { $($last:tt)* } { $($later:tt)* } $($grows:tt)*) => {
        #[allow(dead_code)]
        mod $name {
            use super::*;

            #[repr(C)]
            #[derive(StableAbi)]
            pub struct SampleHandler {
                pub name: *const u8,
                $($grows)*
            }

            #[repr(C)]
            #[derive(StableAbi)]
            #[sabi(kind(Prefix(prefix_ref = SampleTableRef, prefix_fields = SampleTablePrefix)))]
            pub struct SampleTable {
                $($first)*
                #[sabi(last_prefix_field)]
                $($last)*
                $($later)*
            }

            pub fn layout() -> &'static TypeLayout {
                <SampleTableRef as StableAbi>::LAYOUT
            }
        }
    };
}

macro_rules! usual {
    ($name:ident { $($later:tt)* } $($grows:tt)*) => {
        build!($name { pub size: u32, pub handlers: *const SampleHandler, }
            { pub init: Option<extern "C" fn(rank: c_int) -> c_int>, } { $($later)* } $($grows)*);
    };
}

usual!(host { pub later: u64 });
usual!(same { pub later: u64 });
usual!(fewer {});
usual!(more { pub later: u64, pub even_later: Option<extern "C" fn()> });
usual!(otherwise_more { pub later: u64, pub something_else: u32 });
usual!(grown { pub later: u64 } pub help: *const u8,);
build!(field_type { pub size: u64, pub handlers: *const SampleHandler, }
    { pub init: Option<extern "C" fn(rank: c_int) -> c_int>, } { pub later: u64 });
build!(argument { pub size: u32, pub handlers: *const SampleHandler, }
    { pub init: Option<extern "C" fn(rank: i64) -> c_int>, } { pub later: u64 });
build!(returns { pub size: u32, pub handlers: *const SampleHandler, }
    { pub init: Option<extern "C" fn(rank: c_int) -> u8>, } { pub later: u64 });
build!(renamed { pub size: u32, pub entries: *const SampleHandler, }
    { pub init: Option<extern "C" fn(rank: c_int) -> c_int>, } { pub later: u64 });
build!(reordered { pub handlers: *const SampleHandler, pub size: u32, }
    { pub init: Option<extern "C" fn(rank: c_int) -> c_int>, } { pub later: u64 });
build!(prefix { pub size: u32, } { pub handlers: *const SampleHandler, }
    { pub init: Option<extern "C" fn(rank: c_int) -> c_int>, pub later: u64 });

fn lines(module: &'static TypeLayout, older: Older) -> Vec<String> {
    differences(module, host::layout(), older)
}

#[test]
fn each_difference_is_a_line() {
    for (module, expected) in [
        (field_type::layout(), &["size: the module was built with u64, this host has u32"][..]),
        (argument::layout(), &["init(rank): the module was built with i64, this host has i32"]),
        (returns::layout(), &["init(): the module was built with u8, this host has i32"]),
        (renamed::layout(), &["the module was built with field \"entries\", this host has field \"handlers\""]),
        (
            reordered::layout(),
            &[
                "the module was built with field \"handlers\", this host has field \"size\"",
                "the module was built with field \"size\", this host has field \"handlers\"",
            ],
        ),
        (prefix::layout(), &["the module was built with 2 fields of the first minor, this host has 3 fields of the first minor"]),
    ] {
        // The same text, whichever side is the older one.
        assert_eq!(lines(module, Older::Module), expected);
        assert_eq!(lines(module, Older::Host), expected);
    }
}

#[test]
fn an_older_module_may_have_fewer_fields_and_a_newer_module_more() {
    for older in [Older::Module, Older::Host] {
        assert_eq!(lines(same::layout(), older), [""; 0]);
    }
    assert_eq!(lines(fewer::layout(), Older::Module), [""; 0]);
    assert_eq!(lines(more::layout(), Older::Host), [""; 0]);
    assert_eq!(lines(fewer::layout(), Older::Host), ["this host has \"later\", the module has not"]);
    assert_eq!(lines(more::layout(), Older::Module), ["the module has \"even_later\", this host has not"]);
}

#[test]
fn a_struct_with_a_size_or_stride_may_grow() {
    assert_eq!(lines(grown::layout(), Older::Host), [""; 0]);
    assert_eq!(differences(host::layout(), grown::layout(), Older::Module), [""; 0]);
    // But not the other way round.
    assert_eq!(lines(grown::layout(), Older::Module), ["handlers: the module has \"help\", this host has not"]);
}

#[test]
fn newer_modules_are_not_compared_with_each_other() {
    for module in [more::layout(), otherwise_more::layout(), more::layout(), grown::layout()] {
        assert_eq!(lines(module, Older::Host), [""; 0]);
    }
}

#[test]
fn only_types_of_another_source_are_compared() {
    let compare = |source, exports, host| {
        let info = abi::RustInfo { abi_stable: module_api::layout::ABI_HEADER, source, exports, host };
        // SAFETY: a RustInfo.
        unsafe { check(&info, abi::ABI_MINOR) }
    };
    let (exports, host) = (module_api::layout::exports_layout(), module_api::layout::host_layout());
    let (same, other) = (module_api::layout::SOURCE, module_api::layout::SOURCE ^ 1);
    compare(same, exports, host).unwrap();
    compare(other, exports, host).unwrap();
    compare(same, exports, exports).unwrap();
    compare(other, exports, exports).unwrap_err();
    compare(other, host, host).unwrap_err();
}

#[test]
fn the_host_is_compatible_with_itself() {
    for older in [Older::Module, Older::Host] {
        for ours in [module_api::layout::exports_layout(), module_api::layout::host_layout()] {
            assert_eq!(differences(ours, ours, older), [""; 0]);
        }
    }
}
