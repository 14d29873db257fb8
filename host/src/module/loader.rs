//! Opens a module's file and turns its exports table into a [`Module`].
//!
//! *Runs in:* main (and `modhost check`), before any `init_f`. *Never:* unloads: a forked process may be running in it.

use std::ffi::{CStr, c_char, c_void};
use std::mem::{offset_of, size_of};
use std::path::Path;
use std::sync::atomic::AtomicU32;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use module_api::abi;

use super::interface::{self, Party, Shape, Wish};
use super::params::{self, Folders, ParamDecl, ParamValue};
use super::{Bound, Depend, Exported, Handler, MARK, Module, StreamFunctions};
use crate::config::ParamSetting;
use crate::error::{Error, Result};
use crate::sys::fast_fork::process_identity::this_process;
use crate::sys::process::fork;

/// Most parameters, handlers or dependencies a module may declare: more is a damaged table.
const MAX_ENTRIES: u32 = 1024;

/// A table whose symbol, magic, version and size were checked.
pub struct Opened {
    table: &'static abi::ModuleExports,
    path: std::path::PathBuf,
}

/// Opens the file (its constructors run), finds the table and checks what must hold before anything else of it is read.
pub fn open(path: &Path) -> Result<Opened> {
    let refused = |reason: String| Error::config(format!("cannot load module {}", path.display())).detail(reason);
    // A name without a slash would be searched for in the system's library folders.
    let absolute = std::path::absolute(path).map_err(|error| refused(error.to_string()))?;
    // SAFETY: opening runs the file's constructors: loading a module is trusting it, which the operator decided by configuring it.
    // RTLD_LOCAL keeps two modules' symbols of one name apart.
    let library = unsafe { Library::open(Some(&absolute), RTLD_NOW | RTLD_LOCAL | libc::RTLD_NODELETE) }
        .map_err(|error| refused(linker_text(&error)).hint("the module and all it links to must be present and built for this machine"))?;
    // SAFETY: the symbol is only used as an address here.
    let symbol = unsafe { library.get::<*const c_void>(abi::EXPORTS_SYMBOL) }.map_err(|_| {
        refused(format!("it has no symbol \"{}\"", abi::EXPORTS_SYMBOL)).hint("is this a modhost module? see \"modhost inspect\"")
    })?;
    let address = symbol.into_raw().cast_const().cast::<abi::Header>();
    // Nothing is ever unloaded.
    std::mem::forget(library);
    if address.is_null() || !address.is_aligned() {
        return Err(refused(format!("its \"{}\" is not a table", abi::EXPORTS_SYMBOL)));
    }
    // SAFETY: the symbol's address is mapped, and every module's table starts with a header, checked field by field from here on.
    let header = unsafe { address.read() };
    check_header(&header).map_err(|error| Error { what: format!("cannot load module {}", path.display()), ..error })?;
    check_layout(&header).map_err(|error| Error { what: format!("cannot load module {}", path.display()), ..error })?;
    // SAFETY: magic, major number and size say that a whole ModuleExports of ABI 1.0 or later is there, for the process's life.
    let table = unsafe { &*address.cast::<abi::ModuleExports>() };
    Ok(Opened { table, path: path.to_path_buf() })
}

/// What the dynamic linker said; the error itself only says that there was one.
fn linker_text(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

/// Magic, version, size and flags.
fn check_header(header: &abi::Header) -> Result<()> {
    let refused = |detail: String, hint: &str| Err(Error::config("").detail(detail).hint(hint));
    if header.magic != abi::MODULE_MAGIC {
        return refused(format!("its table has the wrong magic {:#018x}", header.magic), "build it with module-api or modhost.h");
    }
    if header.abi_major != abi::ABI_MAJOR {
        return refused(
            format!(
                "it was built for module ABI {}.{}, this host has {}.{}",
                header.abi_major,
                header.abi_minor,
                abi::ABI_MAJOR,
                abi::ABI_MINOR
            ),
            "rebuild the module, or use a host of its major version",
        );
    }
    if header.needs_host_minor > abi::ABI_MINOR {
        return refused(
            format!(
                "it needs a host of ABI {}.{} or later, this one has {}.{}",
                abi::ABI_MAJOR,
                header.needs_host_minor,
                abi::ABI_MAJOR,
                abi::ABI_MINOR
            ),
            "use a newer host",
        );
    }
    if (header.size as usize) < size_of::<abi::ModuleExports>() {
        return refused(
            format!("its table has {} bytes, {} are needed", header.size, size_of::<abi::ModuleExports>()),
            "rebuild the module",
        );
    }
    if header.flags & abi::FLAG_PANIC_ABORT != 0 {
        return refused(
            "it was built with panic = \"abort\": one panic would end a process without a word".into(),
            "remove panic = \"abort\" from the profile it is built with",
        );
    }
    Ok(())
}

/// Compares the module's idea of the structs with the host's. Modules in C, and Rust ones without the layout feature, bring none.
fn check_layout(header: &abi::Header) -> Result<()> {
    if header.flags & abi::FLAG_RUST == 0 || header.rust.is_null() {
        return Ok(());
    }
    // SAFETY: FLAG_RUST says what the pointer is, and it is not null.
    unsafe { super::layout::check(header.rust.cast(), header.abi_minor) }
}

impl Opened {
    /// The module's name as its table has it.
    pub fn name(&self) -> Result<String> {
        self.text(self.table.name, "name")
    }

    /// Reads a string of the table.
    fn text(&self, text: *const c_char, what: &str) -> Result<String> {
        if text.is_null() {
            return Err(self.refused(format!("its table has no {what}")));
        }
        // SAFETY: the table promises a NUL-terminated constant.
        Ok(unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
    }

    fn entries<T>(&self, first: *const T, count: u32, stride: u32, what: &str) -> Result<Vec<&'static T>> {
        if count == 0 {
            return Ok(Vec::new());
        }
        if first.is_null()
            || (stride as usize) < size_of::<T>()
            || count > MAX_ENTRIES
            || !(stride as usize).is_multiple_of(align_of::<T>())
        {
            return Err(self.refused(format!("its {what} array is damaged: {count} entries of {stride} bytes")));
        }
        // SAFETY: the table promises `count` entries, `stride` bytes apart, each at least as large as ours.
        Ok((0..count as usize).map(|index| unsafe { &*first.byte_add(index * stride as usize) }).collect())
    }

    fn refused(&self, detail: String) -> Error {
        Error::config(format!("cannot load module {}", self.path.display())).detail(detail)
    }

    /// Checks the settings against what the loaded table declares, and writes the values to their targets. Judged the same way before the
    /// file was opened; what is loaded now decides.
    pub fn apply(&self, settings: &[ParamSetting], folders: &Folders) -> Result<(), Vec<Error>> {
        let table = self.table;
        let declared = self.entries(table.params, table.param_count, table.param_stride, "parameter").map_err(|error| vec![error])?;
        let mut declarations = Vec::with_capacity(declared.len());
        for param in &declared {
            declarations.push(ParamDecl {
                name: self.text(param.name, "parameter name").map_err(|error| vec![error])?,
                kind: param.kind,
                flags: param.flags,
                default: self.text(param.default_text, "default").ok(),
                min: param.min,
                max: param.max,
                help: String::new(),
                words: self.text(param.words, "words").unwrap_or_default(),
                of: param.of,
            });
        }
        let name = self.name().map_err(|error| vec![error])?;
        for (index, value) in params::check(&name, &declarations, settings, folders)? {
            self.write(declared[index], &value).map_err(|error| vec![error])?;
        }
        Ok(())
    }

    fn write(&self, param: &abi::Param, value: &ParamValue) -> Result<()> {
        if param.target.is_null() {
            return Err(self.refused("a parameter has no target".into()));
        }
        // SAFETY: the table promises a writable target of the kind's type; no code of the module runs meanwhile.
        unsafe { module_api::check::write::write(param.target, value) };
        Ok(())
    }

    /// A stream handler's functions; none for a handler of another kind.
    fn stream_functions(&self, name: &str, handler: &abi::Handler) -> Result<Option<StreamFunctions>> {
        if handler.kind != abi::HANDLER_STREAM {
            return Ok(None);
        }
        // SAFETY: null, or a struct of the loaded module that starts with its size.
        let functions = unsafe { handler.stream.as_ref() };
        let functions = functions.filter(|functions| functions.size as usize >= size_of::<abi::StreamFunctions>());
        let Some((functions, on_data)) = functions.and_then(|functions| Some((functions, functions.on_data?))) else {
            return Err(self.refused(format!("its stream handler \"{name}\" has no function for data")));
        };
        let abi::StreamFunctions { on_open, on_writable, on_end, on_close, .. } = *functions;
        Ok(Some(StreamFunctions { on_open, on_data, on_writable, on_end, on_close }))
    }

    fn shape(&self, name: *const c_char, version: (u16, u16), size_bytes: u32, layout: *const c_char) -> Result<Shape> {
        let layout = (!layout.is_null()).then(|| self.text(layout, "interface's layout")).transpose()?;
        Ok(Shape { name: self.text(name, "interface's name")?, major: version.0, minor: version.1, size_bytes, layout })
    }

    fn interfaces(&self) -> Result<Vec<Exported>> {
        let entries = self.entries(self.table.interfaces, self.table.interface_count, self.table.interface_stride, "interface")?;
        let exported = |entry: &abi::Interface| {
            let shape = self.shape(entry.name, (entry.major, entry.minor), entry.size, entry.layout)?;
            if entry.table.is_null() || !entry.table.cast::<usize>().is_aligned() {
                return Err(self.refused(format!("its interface \"{shape}\" has no table")));
            }
            Ok(Exported { shape, table: entry.table.expose_provenance() })
        };
        entries.into_iter().map(exported).collect()
    }

    fn binds(&self) -> Result<Vec<Bound>> {
        let entries = self.entries(self.table.binds, self.table.bind_count, self.table.bind_stride, "wanted interface")?;
        let bound = |entry: &abi::Bind| {
            let shape = self.shape(entry.name, (entry.major, entry.minor), entry.size, entry.layout)?;
            if entry.slot.is_null() || !entry.slot.is_aligned() {
                return Err(self.refused(format!("its wish for \"{shape}\" has no slot")));
            }
            Ok(Bound { wish: Wish { shape, kind: entry.kind }, slot: entry.slot.expose_provenance() })
        };
        entries.into_iter().map(bound).collect()
    }

    /// The module, with the host's functions in its slot.
    pub fn into_module(self, index: u32, api: &'static abi::HostApi, log_level: &'static AtomicU32) -> Result<&'static Module> {
        let table = self.table;
        if table.host_slot.is_null() {
            return Err(self.refused("its table has no host_slot".into()));
        }
        let handlers = self
            .entries(table.handlers, table.handler_count, table.handler_stride, "handler")?
            .into_iter()
            .map(|handler| {
                let name = self.text(handler.name, "handler name")?;
                let stream = self.stream_functions(&name, handler)?;
                Ok(Handler { name, kind: handler.kind, on_datagrams: handler.on_datagrams, stream })
            })
            .collect::<Result<Vec<_>>>()?;
        let depends = self
            .entries(table.depends, table.depend_count, table.depend_stride, "dependency")?
            .into_iter()
            .map(|depend| Ok(Depend { name: self.text(depend.name, "dependency name")?, kind: depend.kind }))
            .collect::<Result<Vec<_>>>()?;
        let (interfaces, binds) = (self.interfaces()?, self.binds()?);
        let module: &'static Module = Box::leak(Box::new(Module {
            mark: MARK,
            index,
            name: self.name()?,
            version: self.text(table.version, "version")?,
            path: self.path.clone(),
            flags: table.header.flags,
            init_f: table.init_f,
            init_child_f: table.init_child_f,
            destroy_f: table.destroy_f,
            handlers,
            depends,
            interfaces,
            binds,
            registered: AtomicU32::new(0),
            forked: AtomicU32::new(0),
        }));
        // SAFETY: the table promises a writable slot of its own; no code of the module runs meanwhile.
        unsafe {
            table.host_slot.write(abi::HostSlot {
                api,
                module: std::ptr::from_ref(module).cast_mut().cast(),
                log_level,
                stat_home: this_process().stat_home(),
            });
        };
        Ok(module)
    }
}

/// Gives every module the tables that it wants, as far as they are there: before any `init_f`, and judged anew over what is loaded now.
/// Returns what optional wishes stay without, and why.
pub fn bind(modules: &[&'static Module]) -> Result<Vec<Error>> {
    let shapes: Vec<Vec<Shape>> =
        modules.iter().map(|module| module.interfaces.iter().map(|exported| exported.shape.clone()).collect()).collect();
    let parties: Vec<Party<'_>> = modules.iter().zip(&shapes).map(|(module, offers)| Party { module: &module.name, offers }).collect();
    for module in modules {
        let wishes: Vec<Wish> = module.binds.iter().map(|bound| bound.wish.clone()).collect();
        let own: Vec<Shape> = module.interfaces.iter().map(|exported| exported.shape.clone()).collect();
        if let Some(problem) = interface::problem(&own, &wishes) {
            return Err(Error::config(format!("module \"{}\" declares an interface that cannot be", module.name)).detail(problem));
        }
    }
    if let Some((second, first, shape)) = interface::duplicate(&parties) {
        return Err(interface::twice(&modules[second].name, &modules[first].name, shape));
    }
    let mut without = Vec::new();
    for module in modules {
        for Bound { wish, slot } in &module.binds {
            match interface::find(&module.name, wish, &parties) {
                // SAFETY: the module's table promises a writable slot of its own there; no code of the module runs meanwhile.
                Ok((at, nth)) => unsafe {
                    let table: *const c_void = std::ptr::with_exposed_provenance(modules[at].interfaces[nth].table);
                    std::ptr::with_exposed_provenance_mut::<*const c_void>(*slot).write(table);
                },
                Err(error) if wish.is_required() => return Err(error),
                Err(error) => without.push(error),
            }
        }
    }
    Ok(without)
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

/// The module that a handle stands for. None: garbage.
pub fn of_handle(handle: *mut c_void) -> Option<&'static Module> {
    let module: *const Module = handle.cast_const().cast();
    if module.is_null() || !module.is_aligned() {
        return None;
    }
    // SAFETY: a module passes back the pointer from its slot, which leads to a leaked Module; the mark catches mistakes.
    unsafe { ((*module).mark == MARK).then(|| &*module) }
}

const _: () = assert!(offset_of!(abi::ModuleExports, header) == 0);
