//! `modhost inspect`: what module files contain, as text for people or as JSON.
//!
//! *Runs in:* the command of that name. *Never:* runs one instruction of a file; prints (`main`
//! does).

use std::fmt::{self, Write as _};
use std::path::PathBuf;

use module_api::abi;
use serde_json::{Map, Value, json};

use crate::error::{EXIT_CONFIG, EXIT_OK, Error};
use crate::module::interface::{ImportRequest, InterfaceShape};
use crate::module::judge::machine_name;
use crate::module::params::kind_name;
use crate::module::table::{AbiClaim, DependClaim, HandlerClaim};
use crate::module::{Inspection, NoteInfo, ParamDecl, TableClaim, inspect};
use crate::output::{self, OutputFormat, visible};

/// What to print on standard output, and the exit code: 0 if every file may be loaded, 2 if not.
pub fn run(files: &[PathBuf], format: OutputFormat) -> (String, u8) {
    let inspections: Vec<Inspection> = files.iter().map(|file| inspect(file)).collect();
    let loadable = inspections.iter().all(|inspection| inspection.verdict.is_ok());
    let output = match format {
        OutputFormat::Text => inspections.iter().map(text).collect::<Vec<_>>().join("\n"),
        OutputFormat::Json => {
            let reports: Vec<Value> = inspections.iter().map(report).collect();
            output::json(&reports)
        }
    };
    (output, if loadable { EXIT_OK } else { EXIT_CONFIG })
}

/// The report on one file, for people.
pub fn text(inspection: &Inspection) -> String {
    let mut out = format!("{}\n", visible(&inspection.path.display().to_string()));
    let mut facts = Facts::default();
    let (table, note) = (inspection.table.as_ref(), inspection.note.as_ref());
    if let Some(table) = table {
        facts.add("name", &table.name);
        facts.add("version", &table.version);
        facts.add("summary", &table.summary);
    }
    if let Some(claim) = abi_claim(inspection) {
        let needs = format!("{}.{}", claim.abi_major, claim.needs_host_minor);
        facts.add("module ABI", &format!("{}.{}, for hosts of {needs} or newer", claim.abi_major, claim.abi_minor));
        let strategy = if claim.flags & abi::FLAG_PANIC_ABORT != 0 { "abort" } else { "unwind" };
        facts.add("panics", if claim.flags & abi::FLAG_RUST != 0 { strategy } else { "" });
    }
    if let Some(NoteInfo { sdk, compiler, .. }) = note {
        facts.add("built with", &[sdk.as_str(), compiler].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", "));
    }
    if let Some(header) = &inspection.header {
        facts.add("machine", &format!("{} {}-bit", machine_name(header.machine), header.bits));
    }
    if let Some(file) = &inspection.file {
        facts.add("size", &format!("{} bytes", file.size_bytes));
    }
    if let Some(table) = table {
        facts.add("exports", &functions(table).join(", "));
        facts.add("needs", &depends(table).join(", "));
        facts.add("interfaces", &table.interfaces.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
        facts.add("binds", &imports(table).join(", "));
    }
    facts.add("libraries", &inspection.needed.join(", "));
    let _ = write!(out, "{facts}");
    if let Some(table) = table {
        let _ = write!(out, "{}{}", handler_rows(table), param_rows(table));
    }
    match &inspection.verdict {
        Ok(()) => out.push_str("  verdict: can be loaded\n"),
        Err(Error { what, detail, hint, .. }) => {
            let _ = writeln!(out, "  verdict: cannot be loaded: {}", visible(what));
            for (label, part) in [("detail", detail), ("hint", hint)].into_iter().filter(|(_, part)| !part.is_empty()) {
                let _ = writeln!(out, "  {label:>7}: {}", visible(part));
            }
        }
    }
    out
}

/// The report on one file, for programs. It always has every key; what is not known is null.
pub fn report(inspection: &Inspection) -> Value {
    let table = inspection.table.as_ref();
    let note = inspection.note.as_ref();
    let claim = abi_claim(inspection);
    json!({
        "path": inspection.path.display().to_string(),
        "loadable": inspection.verdict.is_ok(),
        "error": match &inspection.verdict {
            Ok(()) => Value::Null,
            Err(error) => json!(error),
        },
        "name": table.map(|table| &table.name),
        "version": table.map(|table| &table.version),
        "summary": table.map(|table| &table.summary),
        "abi": claim.map(|claim| format!("{}.{}", claim.abi_major, claim.abi_minor)),
        "needs_host_abi": claim.map(|claim| format!("{}.{}", claim.abi_major, claim.needs_host_minor)),
        "language": claim.map(|claim| if claim.flags & abi::FLAG_RUST != 0 { "rust" } else { "c" }),
        "panic": claim.map(|claim| if claim.flags & abi::FLAG_PANIC_ABORT != 0 { "abort" } else { "unwind" }),
        "wants_child_init": table.map(|table| {
            table.abi.flags & abi::FLAG_NO_CHILD_INIT == 0 && table.pointers.init_child_f.is_set()
        }),
        "wants_postchildinit": table.map(|table| table.abi.flags & abi::FLAG_WANTS_POSTCHILDINIT != 0),
        "sdk": note.map(|note| &note.sdk),
        "compiler": note.map(|note| &note.compiler),
        "machine": inspection.header.map(|header| machine_name(header.machine)),
        "bits": inspection.header.map(|header| header.bits),
        "size_bytes": inspection.file.map(|file| file.size_bytes),
        "table_bytes": claim.map(|claim| claim.table_bytes),
        "libraries": inspection.needed,
        "exports": table.map(functions),
        "handlers": table.map(|table| table.handlers.iter().map(handler_report).collect::<Vec<_>>()),
        "params": table.map(|table| table.params.iter().map(param_report).collect::<Vec<_>>()),
        "depends": table.map(|table| table.depends.iter().map(|depend| json!({
            "name": depend.name, "required": depend.kind == abi::DEPEND_REQUIRED,
        })).collect::<Vec<_>>()),
        "interfaces": table.map(|table| table.interfaces.iter().map(shape_report).collect::<Vec<_>>()),
        "binds": table.map(|table| table.imports.iter().map(|import| {
            let mut report = shape_report(&import.shape);
            report["required"] = import.is_required().into();
            report
        }).collect::<Vec<_>>()),
    })
}

fn shape_report(shape: &InterfaceShape) -> Value {
    let functions = shape.layout.as_ref().map(|layout| layout.lines().collect::<Vec<_>>());
    json!({
        "name": shape.name, "version": format!("{}.{}", shape.major, shape.minor), "table_bytes": shape.size_bytes, "functions": functions,
    })
}

fn handler_report(handler: &HandlerClaim) -> Value {
    json!({ "name": handler.name, "kind": handler_kind(handler.kind), "help": handler.help })
}

fn param_report(param: &ParamDecl) -> Value {
    let mut report = Map::new();
    report.insert("name".into(), param.name.clone().into());
    report.insert("kind".into(), kind_name(param.kind).into());
    report.insert("of".into(), param.is_container().then(|| kind_name(param.of)).into());
    report.insert("required".into(), (param.flags & abi::PARAM_REQUIRED != 0).into());
    report.insert("default".into(), param.default.clone().into());
    // In the unit of the kind: nanoseconds for a duration, bytes for a size.
    let range = param.range().map(|_| (param.min, param.max));
    report.insert("min".into(), range.map(|(min, _)| min).into());
    report.insert("max".into(), range.map(|(_, max)| max).into());
    let words = param.words();
    report.insert("words".into(), (!words.is_empty()).then_some(words).into());
    report.insert("help".into(), param.help.clone().into());
    Value::Object(report)
}

/// The numbers that both note and table have; the table decides.
fn abi_claim(inspection: &Inspection) -> Option<AbiClaim> {
    let of_table = inspection.table.as_ref().map(|table| table.abi);
    of_table.or(inspection.note.as_ref().map(|note| note.abi))
}

fn functions(table: &TableClaim) -> Vec<&'static str> {
    let pointers = &table.pointers;
    let named = [("init_f", pointers.init_f), ("init_child_f", pointers.init_child_f), ("destroy_f", pointers.destroy_f)];
    named.into_iter().filter(|(_, pointer)| pointer.is_set()).map(|(name, _)| name).collect()
}

fn depends(table: &TableClaim) -> Vec<String> {
    let text = |depend: &DependClaim| match depend.kind {
        abi::DEPEND_REQUIRED => depend.name.clone(),
        _ => format!("{} (if present)", depend.name),
    };
    table.depends.iter().map(text).collect()
}

fn imports(table: &TableClaim) -> Vec<String> {
    let text =
        |import: &ImportRequest| if import.is_required() { import.shape.to_string() } else { format!("{} (if present)", import.shape) };
    table.imports.iter().map(text).collect()
}

fn handler_kind(kind: u32) -> String {
    match kind {
        abi::HANDLER_UDP => "udp".to_string(),
        abi::HANDLER_STREAM => "stream".to_string(),
        other => format!("kind {other}"),
    }
}

fn handler_rows(table: &TableClaim) -> Rows {
    let row = |handler: &HandlerClaim| vec![handler.name.clone(), handler_kind(handler.kind), handler.help.clone()];
    Rows { title: "handlers", cells: table.handlers.iter().map(row).collect() }
}

fn param_rows(table: &TableClaim) -> Rows {
    let row = |param: &ParamDecl| {
        let default = match &param.default {
            _ if param.flags & abi::PARAM_REQUIRED != 0 => "required".to_string(),
            Some(default) if matches!(param.kind, abi::PARAM_STRING | abi::PARAM_PATH) || default.is_empty() => format!("= {default:?}"),
            Some(default) => format!("= {default}"),
            None => String::new(),
        };
        let allowed = param.range().unwrap_or_else(|| param.words().join("|"));
        vec![param.name.clone(), param.kind_text(), default, allowed, param.help.clone()]
    };
    Rows { title: "parameters", cells: table.params.iter().map(row).collect() }
}

/// Lines of a label and a value; those without a value are left out.
#[derive(Default)]
struct Facts(Vec<(&'static str, String)>);

impl Facts {
    fn add(&mut self, label: &'static str, value: &str) {
        if !value.is_empty() {
            self.0.push((label, visible(value)));
        }
    }
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(label, value)| writeln!(f, "  {:<11} {value}", format!("{label}:")))
    }
}

/// A titled table with aligned columns.
struct Rows {
    title: &'static str,
    cells: Vec<Vec<String>>,
}

impl fmt::Display for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.cells.is_empty() {
            return Ok(());
        }
        writeln!(f, "  {}:", self.title)?;
        let cells: Vec<Vec<String>> = self.cells.iter().map(|row| row.iter().map(|cell| visible(cell)).collect()).collect();
        output::table(&cells).lines().try_for_each(|line| writeln!(f, "    {line}"))
    }
}
