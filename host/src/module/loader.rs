//! Opens a module's file and turns its exports table into a [`Module`].
//!
//! *Runs in:* main (and `modhost check`), before any `init_f`. *Never:* unloads: a forked process
//! may be running in it.

use std::ffi::{c_char, c_void};
use std::mem::{MaybeUninit, size_of, transmute_copy};
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::atomic::AtomicU32;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use module_api::abi;

use super::findings::Obstacle;
use super::interface::{self, Exporter};
use super::judge::{self, HostAbi};
use super::params::{self, Folders};
use super::table::{self, BrokenTable, Pointer, TEXT_MAX_BYTES, TableClaim, TableReader};
use super::{Handler, ImportedInterface, MARK, Module, StreamFunctions};
use crate::config::ParamSetting;
use crate::error::{Error, Result};
use crate::sys::fast_fork::process_identity::this_process;
use crate::sys::process::fork;

/// A module in memory, whose table was judged.
pub struct Opened {
    pub(super) claim: Box<TableClaim>,
    path: PathBuf,
}

/// Opens the file (its constructors run) and judges the loaded table. The file was judged by the
/// same rules before it was opened; what is loaded now decides.
pub fn open(path: &Path) -> Result<Opened> {
    let what = format!("cannot load module {}", path.display());
    let refused = |reason: String| Error::config(what.as_str()).detail(reason);
    // A name without a slash would be searched for in the system's library folders.
    let absolute = std::path::absolute(path).map_err(|error| refused(error.to_string()))?;
    // SAFETY: opening runs the file's constructors. Loading a module is trusting it, which the
    // operator decided by configuring it. RTLD_LOCAL keeps two modules' symbols of one name apart.
    let library = unsafe { Library::open(Some(&absolute), RTLD_NOW | RTLD_LOCAL | libc::RTLD_NODELETE) }
        .map_err(|error| refused(linker_text(&error)).hint("the module and all it links to must be present and built for this machine"))?;
    // SAFETY: the symbol is only used as an address here.
    let symbol = unsafe { library.get::<*const c_void>(abi::EXPORTS_SYMBOL) }.map_err(|_| {
        refused(format!("it has no symbol \"{}\"", abi::EXPORTS_SYMBOL)).hint("is this a modhost module? see \"modhost inspect\"")
    })?;
    let address = symbol.into_raw().cast_const().cast::<abi::ModuleExports>();
    // Nothing is ever unloaded.
    std::mem::forget(library);
    if address.is_null() || !address.is_aligned() {
        return Err(refused(format!("its \"{}\" is not a table", abi::EXPORTS_SYMBOL)));
    }
    // SAFETY: the address is that of the symbol, and the module stays loaded.
    let claim = unsafe { judged(address) }.map_err(|error| Error { what: format!("{what}: {}", error.what), ..error })?;
    Ok(Opened { claim, path: path.to_path_buf() })
}

/// The dynamic linker's message; the error's own text only says that there was one.
fn linker_text(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

/// Reads and judges the table.
///
/// # Safety
/// `address` must be that of the symbol `module_exports` of a module that is never unloaded.
unsafe fn judged(address: *const abi::ModuleExports) -> Result<Box<TableClaim>> {
    let address = address.expose_provenance() as u64;
    // SAFETY: all it is asked for is this address, and what the table there points to.
    let mut memory = unsafe { LoadedMemory::new() };
    let broken = |table: BrokenTable| judge::explain_table(&table, HostAbi::THIS);
    let header = table::read_header(&mut memory, address).map_err(broken)?;
    judge::judge_header(&header, HostAbi::THIS)?;
    // Before the rest is read, which rests on the layout. Modules in C, and Rust ones without the
    // layout feature, have no description.
    if header.abi.flags & abi::FLAG_RUST != 0 && header.rust.is_set() {
        // SAFETY: this is the pointer of a header with FLAG_RUST, and not null.
        unsafe { super::layout::check(to(header.rust), header.abi.abi_minor) }?;
    }
    let claim = table::read(&mut memory, address, 0).map_err(broken)?;
    judge::judge_claim(&claim, HostAbi::THIS)?;
    Ok(claim)
}

/// The memory of this process, for reading the tables of loaded modules.
struct LoadedMemory(());

impl LoadedMemory {
    /// # Safety
    /// It may be asked only for the table of a loaded module and for what that table points to. A
    /// table promises that its pointers lead to constants, which it describes correctly.
    unsafe fn new() -> Self {
        Self(())
    }
}

impl TableReader for LoadedMemory {
    type Bytes = Vec<u8>;

    fn bytes(&mut self, address: u64, len_bytes: usize) -> Result<Vec<u8>, Obstacle> {
        let mut bytes = vec![0; len_bytes];
        // SAFETY: the module has that many bytes there, as `new` was promised; a new vector
        // overlaps nothing.
        unsafe { ptr::copy_nonoverlapping(to(Pointer::Address(address)), bytes.as_mut_ptr(), len_bytes) };
        Ok(bytes)
    }

    fn pointer(&mut self, bytes: &Vec<u8>, at: usize) -> Result<Pointer, Obstacle> {
        let word = bytes.get(at..at + size_of::<u64>()).and_then(|word| word.try_into().ok()).map_or(0, u64::from_le_bytes);
        Ok(if word == 0 { Pointer::Null } else { Pointer::Address(word) })
    }

    fn text(&mut self, address: u64) -> Result<String, Obstacle> {
        let text: *mut c_char = to(Pointer::Address(address));
        // SAFETY: the table promises a constant that ends with NUL, as `new` was promised. No more
        // is read than up to there.
        let text = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), libc::strnlen(text, TEXT_MAX_BYTES + 1)) };
        if text.len() > TEXT_MAX_BYTES {
            return Err(Obstacle::malformed(format!("the text at address {address:#x} is longer than {TEXT_MAX_BYTES} bytes")));
        }
        Ok(String::from_utf8_lossy(text).into_owned())
    }

    /// Seen in the file alone.
    fn is_writable(&self, _address: u64, _len_bytes: u64) -> bool {
        true
    }
}

/// A pointer of a loaded table. The dynamic loader made it, so its provenance is exposed.
fn to<T>(pointer: Pointer) -> *mut T {
    match pointer {
        Pointer::Address(address) => ptr::with_exposed_provenance_mut(address as usize),
        _ => ptr::null_mut(),
    }
}

/// A function of a loaded table.
///
/// # Safety
/// `F` must be a function pointer, and `pointer` null or that of such a function.
unsafe fn function<F: Copy>(pointer: Pointer) -> Option<F> {
    const { assert!(size_of::<Option<F>>() == size_of::<*mut c_void>()) };
    // SAFETY: the caller promises a function pointer, for which null is `None`; the sizes are the
    // same.
    unsafe { transmute_copy(&to::<c_void>(pointer)) }
}

/// A stream handler's functions.
///
/// # Safety
/// `pointer` must be that of a handler which was judged.
unsafe fn stream_functions(pointer: Pointer) -> Option<StreamFunctions> {
    let functions: *const abi::StreamFunctions = to(pointer);
    let mut known = MaybeUninit::<abi::StreamFunctions>::zeroed();
    // SAFETY: the struct begins with its size, and has as many bytes. Those that it does not have
    // stay zero, which is a null function.
    let known = unsafe {
        let size_bytes = (&raw const (*functions).size).read() as usize;
        ptr::copy_nonoverlapping(functions.cast::<u8>(), known.as_mut_ptr().cast(), size_bytes.min(size_of::<abi::StreamFunctions>()));
        known.assume_init()
    };
    let abi::StreamFunctions { on_open, on_data, on_writable, on_end, on_close, .. } = known;
    Some(StreamFunctions { on_open, on_data: on_data?, on_writable, on_end, on_close })
}

impl Opened {
    /// The module's name as its loaded table has it.
    pub fn name(&self) -> &str {
        &self.claim.name
    }

    /// Checks the settings against the declarations of the loaded table, and writes the values to
    /// their targets.
    pub fn apply(&self, settings: &[ParamSetting], folders: &Folders) -> Result<(), Vec<Error>> {
        for (index, value) in params::check(&self.claim.name, &self.claim.params, settings, folders)? {
            // SAFETY: the target was judged not to be null, and the table promises that it is
            // writable and of the kind's type. No code of the module runs meanwhile.
            unsafe { module_api::check::write::write(to(self.claim.pointers.param_targets[index]), &value) };
        }
        Ok(())
    }

    /// The module, with the host's functions in its slot.
    pub fn into_module(self, index: u32, api: &'static abi::HostApi, log_level: &'static AtomicU32) -> &'static Module {
        let Self { claim, path } = self;
        let TableClaim { abi, name, version, handlers, interfaces, imports, pointers, .. } = *claim;
        let handlers = handlers.into_iter().zip(pointers.handlers).map(|(handler, functions)| {
            // SAFETY: the table promises functions of the handler's kind, and it was judged.
            let (on_datagrams, stream) = unsafe {
                match handler.kind {
                    abi::HANDLER_UDP => (function(functions.entry), None),
                    _ => (None, stream_functions(functions.entry)),
                }
            };
            Handler { name: handler.name, kind: handler.kind, on_datagrams, stream }
        });
        // SAFETY: the table promises functions of these types, or null.
        let (init_f, init_child_f, destroy_f) =
            unsafe { (function(pointers.init_f), function(pointers.init_child_f), function(pointers.destroy_f)) };
        let module: &'static Module = Box::leak(Box::new(Module {
            mark: MARK,
            index,
            name,
            version,
            path,
            flags: abi.flags,
            init_f,
            init_child_f,
            destroy_f,
            handlers: handlers.collect(),
            interfaces,
            interface_tables: pointers.interface_tables,
            imports: imports.into_iter().zip(pointers.import_slots).map(|(request, slot)| ImportedInterface { request, slot }).collect(),
            registered: AtomicU32::new(0),
            forked: AtomicU32::new(0),
        }));
        // SAFETY: the slot was judged not to be null, and the table promises that it is writable
        // and the module's own. No code of the module runs meanwhile.
        unsafe {
            to::<abi::HostSlot>(pointers.host_slot).write(abi::HostSlot {
                api,
                module: ptr::from_ref(module).cast_mut().cast(),
                log_level,
                stat_home: this_process().stat_home(),
            });
        };
        module
    }
}

/// Writes the table of each imported interface to the importer's slot, before any `init_f`.
/// Exporters are looked up anew among the modules that were loaded. Returns why optional imports
/// are missing.
pub fn import_interfaces(modules: &[&'static Module]) -> Result<Vec<Error>> {
    let exporters: Vec<Exporter<'_>> =
        modules.iter().map(|module| Exporter { module: &module.name, interfaces: &module.interfaces }).collect();
    if let Some((second, first, shape)) = interface::duplicate(&exporters) {
        return Err(interface::exported_twice(&modules[second].name, &modules[first].name, shape));
    }
    let mut missing = Vec::new();
    for module in modules {
        for ImportedInterface { request, slot } in &module.imports {
            match interface::find(&module.name, request, &exporters) {
                // SAFETY: the slot was judged to be set and aligned, and the module's table
                // promises that it is writable and the module's own. No code of the module runs
                // meanwhile.
                Ok((at, nth)) => unsafe { to::<*const c_void>(*slot).write(to(modules[at].interface_tables[nth])) },
                Err(error) if request.is_required() => return Err(error),
                Err(error) => missing.push(error),
            }
        }
    }
    Ok(missing)
}

/// A file's constructors may have started a thread, which a fork would lose.
pub fn one_thread(module: &str) -> Result<()> {
    match fork::thread_count()? {
        1 => Ok(()),
        threads => Err(Error::failed(format!("module \"{module}\" started a thread while it was being loaded"))
            .detail(format!("{threads} threads exist"))
            .hint("start threads and runtimes in init_child_f(rank)")),
    }
}

/// The module of a handle. `None`: the handle is garbage.
pub fn of_handle(handle: *mut c_void) -> Option<&'static Module> {
    let module: *const Module = handle.cast_const().cast();
    if module.is_null() || !module.is_aligned() {
        return None;
    }
    // SAFETY: a module passes back the pointer from its slot, which leads to a leaked Module; the
    // mark catches mistakes.
    unsafe { ((*module).mark == MARK).then(|| &*module) }
}
