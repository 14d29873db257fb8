//! The result of a check: a summary for people, a report for programs.
//!
//! *Runs in:* the command `check`. *Never:* prints; lets a text of a module drive the terminal.

use module_api::abi;
use serde_json::{Value, json};

use super::takes_connections;
use crate::config::{Config, Fork};
use crate::error::Error;
use crate::module::Resolved;
use crate::output::{self, table, visible};
use crate::plan::Plan;

/// A listener as it would be bound and served.
struct ListenerReport {
    address: String,
    handler: String,
    workers: u32,
}

fn listeners(plan: &Plan) -> impl Iterator<Item = ListenerReport> {
    let name_of_first = |module: &str, kind: u32| {
        let found = plan.modules.iter().find(|found| found.name == module);
        found.and_then(|found| found.table.handlers.iter().find(|handler| handler.kind == kind)).map(|handler| handler.name.clone())
    };
    plan.listeners.iter().map(move |planned| {
        let listener = &planned.config;
        let module = &listener.handler.module;
        let kind = if takes_connections(listener) { abi::HANDLER_STREAM } else { abi::HANDLER_UDP };
        let handler = listener.handler.handler.clone().or_else(|| name_of_first(module, kind)).unwrap_or_default();
        ListenerReport {
            address: listener.to_string(),
            handler: format!("{module}:{handler}"),
            workers: listener.workers.unwrap_or(plan.config.host.workers),
        }
    })
}

/// User and group that the processes will have. None: those of the process that starts the host.
fn identity(plan: &Plan) -> Option<(u32, u32)> {
    plan.identity.as_ref().map(|identity| (identity.uid.as_raw(), identity.gid.as_raw()))
}

/// The summary of a plan without errors.
pub fn text(plan: &Plan) -> String {
    let config: &Config = &plan.config;
    let source = config.file.as_ref().map_or_else(|| "the command line".to_owned(), |file| file.display().to_string());
    let mut rows = Vec::new();
    for module in &plan.modules {
        let cells = ["  module", &module.name, &module.table.version, &module.path.display().to_string()];
        rows.push(cells.map(visible).to_vec());
    }
    for ListenerReport { address, handler, workers } in listeners(plan) {
        rows.push(["  listener", &address, &handler, &format!("workers={workers}")].map(visible).to_vec());
    }
    if let Some((uid, gid)) = identity(plan) {
        let names = (config.host.user.as_deref().unwrap_or("-"), config.host.group.as_deref().unwrap_or("-"));
        rows.push(vec!["  user".into(), visible(names.0), format!("uid={uid}")]);
        rows.push(vec!["  group".into(), visible(names.1), format!("gid={gid}")]);
    }
    if let (Some(control), Fork::Processes) = (&config.host.control, config.host.fork) {
        rows.push(vec!["  control".into(), visible(&control.display().to_string())]);
    }
    format!("no errors in {}\n{}", visible(&source), table(&rows))
}

/// The report. Every key is always there.
pub fn json(plan: Option<&Plan>, errors: &[Error], warnings: &[String]) -> String {
    let modules: Vec<Value> = plan.iter().flat_map(|plan| &plan.modules).map(module).collect();
    let listeners: Vec<Value> = plan
        .into_iter()
        .flat_map(listeners)
        .map(|ListenerReport { address, handler, workers }| json!({ "address": address, "handler": handler, "workers": workers }))
        .collect();
    let identity = plan.and_then(identity);
    output::json(&json!({
        "ok": errors.is_empty(),
        "errors": errors,
        "warnings": warnings,
        "modules": modules,
        "listeners": listeners,
        "uid": identity.map(|(uid, _)| uid),
        "gid": identity.map(|(_, gid)| gid),
    }))
}

fn module(module: &Resolved) -> Value {
    json!({
        "name": module.name,
        "version": module.table.version,
        "path": module.path.display().to_string(),
        "optional": module.optional,
        "position": module.position.to_string(),
    })
}
