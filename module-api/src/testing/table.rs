//! The loader's part of the fake host: reads an exports table and writes parameters, as a host does
//! with a file.

use std::ffi::{CStr, c_char};
use std::net::Ipv4Addr;
use std::sync::Mutex;

use crate::abi::{self, ModuleExports, Param};
use crate::check::{self, Folders, ParamDecl, Setting, SettingValue};
use crate::sockaddr::RawAddress;

/// As large as the largest target.
type TargetBytes = [u64; 3];

/// The targets of the module's parameters before anything was written to them. A test program has
/// one module.
static UNTOUCHED: Mutex<Option<Vec<TargetBytes>>> = Mutex::new(None);

fn text(text: *const c_char) -> Option<String> {
    // SAFETY: a text in a table of `export_module!` is null or a constant with a NUL at its end.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

fn params(exports: &'static ModuleExports) -> &'static [Param] {
    if exports.param_count == 0 {
        return &[];
    }
    // SAFETY: the macro made an array of that many elements, with this crate's stride.
    unsafe { std::slice::from_raw_parts(exports.params, exports.param_count as usize) }
}

/// Name of the module.
pub fn name(exports: &'static ModuleExports) -> String {
    text(exports.name).unwrap_or_default()
}

/// The function of a handler for datagrams.
pub fn handler(exports: &'static ModuleExports, wanted: &str) -> Result<extern "C" fn(*mut abi::UdpBatch) -> i32, String> {
    find(exports, wanted)?.on_datagrams.ok_or_else(|| format!("the handler \"{wanted}\" serves connections, not datagrams"))
}

/// The functions of a handler for connections.
pub fn stream_handler(exports: &'static ModuleExports, wanted: &str) -> Result<&'static abi::StreamFunctions, String> {
    let functions = find(exports, wanted)?.stream;
    // SAFETY: the pointer in a table of `export_module!` is null or leads to a constant.
    unsafe { functions.as_ref() }.ok_or_else(|| format!("the handler \"{wanted}\" serves datagrams, not connections"))
}

/// The handler of that name; if there is none, an error that lists the handlers.
fn find(exports: &'static ModuleExports, wanted: &str) -> Result<&'static abi::Handler, String> {
    let handlers = if exports.handler_count == 0 {
        &[]
    } else {
        // SAFETY: as in `params`.
        unsafe { std::slice::from_raw_parts(exports.handlers, exports.handler_count as usize) }
    };
    let names: Vec<String> = handlers.iter().filter_map(|handler| text(handler.name)).collect();
    let found = handlers.iter().zip(&names).find(|(_, name)| *name == wanted);
    found.map(|(handler, _)| handler).ok_or_else(|| match names[..] {
        [] => format!("the module has no handlers, and so none with the name \"{wanted}\""),
        _ => format!("the module has no handler \"{wanted}\", only {}", names.join(", ")),
    })
}

/// Resets the targets, checks the settings and writes their values.
pub fn apply(exports: &'static ModuleExports, settings: &[Setting<()>], folders: &Folders) -> Result<(), String> {
    let params = params(exports);
    let mut untouched = UNTOUCHED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    // SAFETY: the targets are cells of `params!`, each large enough for every kind. One host at a
    // time uses them: this one.
    let first = untouched.get_or_insert_with(|| params.iter().map(|param| unsafe { param.target.cast::<TargetBytes>().read() }).collect());
    for (param, bytes) in params.iter().zip(&*first) {
        // SAFETY: as above.
        unsafe { param.target.cast::<TargetBytes>().write(*bytes) };
    }
    let declared: Vec<ParamDecl> = params.iter().map(declaration).collect();
    if let Some(problem) = declared.iter().find_map(ParamDecl::problem) {
        return Err(problem);
    }
    let values = check::check(&name(exports), &declared, settings, folders).map_err(|complaints| {
        let line = |complaint: &check::Complaint<()>| {
            let mut line = complaint.what.clone();
            for (before, part, after) in [(": ", &complaint.detail, ""), (" (hint: ", &complaint.hint, ")")] {
                if !part.is_empty() {
                    line.push_str(&format!("{before}{part}{after}"));
                }
            }
            line
        };
        complaints.iter().map(line).collect::<Vec<_>>().join("\n")
    })?;
    for (index, value) in values {
        // SAFETY: as above, and the value has the kind that the parameter declares.
        unsafe { check::write::write(params[index].target, &value) };
    }
    Ok(())
}

/// A declaration as the host reads it from a table of `export_module!`.
pub fn declaration(param: &Param) -> ParamDecl {
    ParamDecl {
        name: text(param.name).unwrap_or_default(),
        kind: param.kind,
        flags: param.flags,
        default: text(param.default_text),
        min: param.min,
        max: param.max,
        help: text(param.help).unwrap_or_default(),
        words: text(param.words).unwrap_or_default(),
        of: param.of,
    }
}

/// A setting as after `--set`.
pub fn setting(name: &str, text: &str) -> Setting<()> {
    Setting { name: name.to_owned(), value: SettingValue::Text(text.to_owned()), position: () }
}

/// A batch of datagrams as a host passes it to a handler; valid while it lives.
pub struct RawBatch<'d> {
    datagrams: Vec<abi::Datagram>,
    batch: abi::UdpBatch,
    /// The address that each datagram was sent to.
    _local: Box<RawAddress>,
    data: std::marker::PhantomData<&'d [u8]>,
}

impl<'d> RawBatch<'d> {
    /// `parts` are peer and data of each datagram.
    pub fn new(listener: u32, parts: impl Iterator<Item = (&'d RawAddress, &'d [u8])>) -> RawBatch<'d> {
        let local = Box::new(RawAddress::inet((Ipv4Addr::LOCALHOST, 5060).into()));
        let datagrams: Vec<abi::Datagram> = parts
            .map(|(peer, data)| abi::Datagram {
                data: data.as_ptr(),
                len: data.len() as u32,
                peer_len: peer.len() as u16,
                local_len: local.len() as u16,
                peer: peer.as_ptr().cast(),
                local: local.as_ptr().cast(),
            })
            .collect();
        let batch = abi::UdpBatch {
            size: size_of::<abi::UdpBatch>() as u32,
            count: datagrams.len() as u32,
            datagrams: datagrams.as_ptr(),
            stride: size_of::<abi::Datagram>() as u32,
            listener,
        };
        RawBatch { datagrams, batch, _local: local, data: std::marker::PhantomData }
    }

    pub fn as_ptr(&mut self) -> *mut abi::UdpBatch {
        self.batch.datagrams = self.datagrams.as_ptr();
        &raw mut self.batch
    }
}

/// Calls a handler that need not be in the table.
pub fn call<M, H>(batch: &mut RawBatch<'_>, handler: H) -> i32
where
    M: crate::export::Exported,
    H: for<'b> Fn(&'b M, &mut M::Child, &crate::Batch<'b>) -> crate::Result<()>,
{
    // SAFETY: this is the host, in the only thread that has one. The batch is valid until the call
    // returns, and answers are copied.
    unsafe { M::cell().on_datagrams(batch.as_ptr(), handler) }
}
