//! Finds the files of the configured modules and puts them into load order.
//!
//! *Runs in:* the supervisor before anything is forked, and the command `check`. *Never:* runs one
//! instruction of a module; stops at the first error.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use module_api::abi;

use super::inspection::{Inspection, inspect};
use super::interface::{self, Exporter, ImportRequest};
use super::order::{self, Conflict, Need, Node, Want};
use super::params::{self, Folders, ParamValue};
use super::table::{DependClaim, TableClaim};
use crate::config::{Config, ListenAddress, ListenConfig, ModuleSource, ParamSetting, Position, Value, nearest};
use crate::error::{Error, io_text};

/// The modules to load and the listeners to serve.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Resolution {
    /// In load order.
    pub modules: Vec<Resolved>,
    /// The listeners whose module is among them.
    pub listeners: Vec<ListenConfig>,
    /// Optional modules that are left out, and their listeners: to be logged as warnings.
    pub skipped: Vec<Skipped>,
}

/// A module that may be loaded, as far as can be seen from outside.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// As it calls itself.
    pub name: String,
    pub path: PathBuf,
    /// What its file says.
    pub table: TableClaim,
    /// Of the file: see [`Inspection::identity`].
    pub identity: Option<(u64, u64)>,
    /// A failure to load it is a warning.
    pub optional: bool,
    /// From the configuration and then from `--set`.
    pub settings: Vec<ParamSetting>,
    /// What the paths in `settings` are relative to.
    pub folders: Folders,
    /// The checked values, by index of the declaration in `table.params`.
    pub values: Vec<(usize, ParamValue)>,
    /// What asked for it.
    pub position: Position,
}

/// Something left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The module's name, or its path if no name is known.
    pub what: String,
    pub reason: Error,
}

/// Finds, inspects and orders every module that the configuration asks for, and checks parameters
/// and handlers. All errors at once.
pub fn resolve(config: &Config) -> Result<Resolution, Vec<Error>> {
    let mut search = ModuleSearch { config, found: Vec::new(), absent: HashSet::new(), skipped: Vec::new(), errors: Vec::new() };
    for module in &config.modules {
        search.configured(module.source.clone(), module.optional, module.params.clone(), module.position.clone());
    }
    for folder in &config.load_all {
        search.folder(folder);
    }
    for listener in &config.listeners {
        search.of_listener(listener);
    }
    search.settings();
    search.drop_optional_without_requirements();
    search.parameters();
    search.interfaces();
    search.finish()
}

struct ModuleSearch<'c> {
    config: &'c Config,
    found: Vec<Resolved>,
    /// Names of optional modules that were left out, and of modules with a reported error.
    absent: HashSet<String>,
    skipped: Vec<Skipped>,
    errors: Vec<Error>,
}

impl ModuleSearch<'_> {
    fn configured(&mut self, source: ModuleSource, optional: bool, params: Vec<ParamSetting>, position: Position) {
        let (path, expected_name) = match &source {
            ModuleSource::Path(path) => (path.clone(), None),
            ModuleSource::Name(name) => match self.locate(name) {
                Ok(path) => (path, Some(name.as_str())),
                Err(error) => return self.refuse(name, optional, at(&position, error)),
            },
        };
        let mut inspection = inspect(&path);
        // The name by which others may ask for a module that is not loaded.
        let name = expected_name.map_or_else(|| guess_name(&inspection), str::to_string);
        if let Some(error) = inspection.refusal() {
            return self.refuse(&name, optional, at(&position, error));
        }
        let Some(table) = inspection.table.take() else { return };
        if let Some(expected) = expected_name.filter(|expected| *expected != table.name) {
            let error = Error::config(format!("module \"{expected}\" calls itself \"{}\"", table.name))
                .detail(path.display())
                .hint(format!("write name = \"{}\", and name the file lib{}.so", table.name, table.name));
            return self.refuse(&name, optional, at(&position, error));
        }
        if let Err(error) = self.check_twice(&table.name, &inspection, &position) {
            return self.errors.push(error);
        }
        self.add(table, inspection, optional, params, position);
    }

    fn add(&mut self, table: TableClaim, inspection: Inspection, optional: bool, settings: Vec<ParamSetting>, position: Position) {
        let identity = inspection.identity();
        let (name, path) = (table.name.clone(), inspection.path);
        let folders = self.config.folders();
        self.found.push(Resolved { name, path, table, identity, optional, settings, folders, values: Vec::new(), position });
    }

    fn check_twice(&self, name: &str, inspection: &Inspection, position: &Position) -> Result<(), Error> {
        if let Some(first) = self.found.iter().find(|first| first.identity == inspection.identity()) {
            return Err(Error::config(format!("{position}: the file \"{}\" is configured twice", inspection.path.display()))
                .detail(format_args!("first as \"{}\" at {}", first.path.display(), first.position))
                .hint("keep one of them; each module is loaded once"));
        }
        if let Some(first) = self.found.iter().find(|first| first.name == name) {
            return Err(Error::config(format!("{position}: two modules call themselves \"{name}\""))
                .detail(format_args!("\"{}\" here, \"{}\" at {}", inspection.path.display(), first.path.display(), first.position))
                .hint("keep one of them, or build one under another name"));
        }
        Ok(())
    }

    fn refuse(&mut self, name: &str, optional: bool, reason: Error) {
        self.absent.insert(name.to_string());
        match optional {
            true => self.skipped.push(Skipped { what: name.to_string(), reason }),
            false => self.errors.push(reason),
        }
    }

    fn locate(&self, name: &str) -> Result<PathBuf, Error> {
        let folders = &self.config.host.module_path;
        locate(name, folders).ok_or_else(|| {
            let error = Error::config(format!("module \"{name}\" is in no folder of module_path")).detail(format_args!(
                "looked for lib{name}.so and {name}.so in {}",
                folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(", ")
            ));
            let names = names_in(folders);
            match nearest::nearest(name, names.iter().map(String::as_str)) {
                Some(near) => error.hint(format!("did you mean \"{near}\"?")),
                None => error.hint("add its folder to module_path, or pass --module-dir DIR"),
            }
        })
    }

    fn folder(&mut self, folder: &Path) {
        let files = match list(folder) {
            Ok(files) => files,
            Err(error) => {
                let error = Error::config(format!("cannot list the folder \"{}\"", folder.display())).detail(io_text(&error));
                return self.errors.push(at(&Position::CommandLine("--load-all"), error));
            }
        };
        for path in files {
            let inspection = inspect(&path);
            let known = self.found.iter().any(|first| first.identity == inspection.identity());
            if known || !inspection.is_module() {
                continue;
            }
            let position = Position::CommandLine("--load-all");
            match (inspection.refusal(), inspection.table.clone()) {
                (Some(error), _) => self.refuse(&guess_name(&inspection), false, at(&position, error)),
                (None, Some(table)) => match self.check_twice(&table.name, &inspection, &position) {
                    Ok(()) => self.add(table, inspection, false, Vec::new(), position),
                    Err(error) => self.errors.push(error),
                },
                (None, None) => {}
            }
        }
    }

    /// A listener's handler loads its module if nothing else does.
    fn of_listener(&mut self, listener: &ListenConfig) {
        let name = &listener.handler.module;
        if !self.absent.contains(name) && !self.found.iter().any(|module| module.name == *name) {
            self.configured(ModuleSource::Name(name.clone()), false, Vec::new(), listener.position.clone());
        }
    }

    fn settings(&mut self) {
        for set in &self.config.set {
            let value = Value::Text(set.text.clone());
            let setting = ParamSetting { name: set.name.clone(), value, position: Position::CommandLine("--set") };
            match self.found.iter_mut().find(|module| module.name == set.module) {
                Some(module) => module.settings.push(setting),
                None if self.absent.contains(&set.module) => {}
                None => {
                    let error = Error::config(format!("--set {}.{}: no module \"{}\" is loaded", set.module, set.name, set.module));
                    let names = self.found.iter().map(|module| module.name.as_str());
                    self.errors.push(error.hint(nearest::hint(&set.module, names)));
                }
            }
        }
    }

    /// Leaves out optional modules whose requirements are missing. Each may be what another one
    /// requires.
    fn drop_optional_without_requirements(&mut self) {
        loop {
            let lacking = self.missing_imports().into_iter().find(|(by, _)| self.found[*by].optional);
            if let Some((by, error)) = lacking {
                let module = self.found.remove(by);
                self.refuse(&module.name, true, at(&module.position, error));
                continue;
            }
            let wants = wants(&self.found);
            let missing = order::missing(&nodes(&self.found, &wants));
            let victim = missing.into_iter().find_map(|conflict| match conflict {
                Conflict::Missing { by, name } if self.found[by].optional => Some((by, name)),
                _ => None,
            });
            let Some((by, needed)) = victim else { return };
            let module = self.found.remove(by);
            self.refuse(&module.name, true, missing_requirement(&module, &needed));
        }
    }

    /// Modules whose required imports are not there, and why.
    fn missing_imports(&self) -> Vec<(usize, Error)> {
        let exporters = exporters(&self.found);
        let lacks = |(by, module): (usize, &Resolved)| {
            let required = module.table.imports.iter().filter(|import| import.is_required());
            required
                .filter_map(|import| interface::find(&module.name, import, &exporters).err())
                .map(|error| (by, error))
                .collect::<Vec<_>>()
        };
        self.found.iter().enumerate().flat_map(lacks).collect()
    }

    fn interfaces(&mut self) {
        if let Some((second, first, shape)) = interface::duplicate(&exporters(&self.found)) {
            let error = interface::exported_twice(&self.found[second].name, &self.found[first].name, shape);
            self.errors.push(at(&self.found[second].position, error));
        }
        // If a module was refused, there is an error already, and this may be its consequence.
        if self.absent.is_empty() || self.errors.is_empty() {
            let errors: Vec<Error> = self.missing_imports().into_iter().map(|(by, error)| at(&self.found[by].position, error)).collect();
            self.errors.extend(errors);
        }
    }

    fn parameters(&mut self) {
        for module in &mut self.found {
            match params::check(&module.name, &module.table.params, &module.settings, &module.folders) {
                Ok(values) => module.values = values,
                // Also for an optional module: the configuration is wrong, not the installation.
                Err(errors) => self.errors.extend(errors),
            }
        }
    }

    fn explain(&self, conflict: &Conflict) -> Option<Error> {
        match conflict {
            // Why it is not there is among the errors already.
            Conflict::Missing { name, .. } if self.absent.contains(name) && !self.skipped.iter().any(|skipped| skipped.what == *name) => {
                None
            }
            Conflict::Missing { by, name } => Some(missing_requirement(&self.found[*by], name)),
            Conflict::Cycle(cycle) => {
                let exporters = exporters(&self.found);
                let steps = cycle.iter().zip(cycle.iter().cycle().skip(1)).map(|(by, wanted)| {
                    let (module, wanted) = (&self.found[*by], self.found[*wanted].name.as_str());
                    let required = module.table.depends.iter().any(|depend| depend.name == wanted && depend.kind == abi::DEPEND_REQUIRED);
                    let depends = module.table.depends.iter().any(|depend| depend.name == wanted);
                    match exporters_for(module, &exporters).find(|(_, exporter)| *exporter == wanted) {
                        Some((import, _)) if !depends => format!("{} imports {} of {wanted}", module.name, import.shape.name),
                        _ => format!("{} {} {wanted}", module.name, if required { "requires" } else { "comes after" }),
                    }
                });
                let error = Error::config("modules require each other in a circle").detail(steps.collect::<Vec<_>>().join(", "));
                Some(
                    at(&self.found[cycle[0]].position, error).hint("one of them must do without the next; ask its author, or leave it out"),
                )
            }
        }
    }

    fn finish(mut self) -> Result<Resolution, Vec<Error>> {
        let mut listeners = Vec::new();
        for listener in &self.config.listeners {
            let name = &listener.handler.module;
            match self.found.iter().find(|module| module.name == *name) {
                Some(module) => match check_handler(listener, &module.table) {
                    Ok(()) => listeners.push(listener.clone()),
                    Err(error) => self.errors.push(at(&listener.position, error)),
                },
                None => {
                    let reason = Error::config(format!("{}: the listener {} is left out", listener.position, listener))
                        .detail(format_args!("its module \"{name}\" is not loaded"));
                    self.skipped.push(Skipped { what: listener.to_string(), reason });
                }
            }
        }
        let wants = wants(&self.found);
        let ordered = order::order(&nodes(&self.found, &wants)).unwrap_or_else(|conflicts| {
            let errors: Vec<Error> = conflicts.iter().filter_map(|conflict| self.explain(conflict)).collect();
            self.errors.extend(errors);
            Vec::new()
        });
        if !self.errors.is_empty() {
            return Err(self.errors);
        }
        let mut slots: Vec<Option<Resolved>> = self.found.into_iter().map(Some).collect();
        let modules = ordered.into_iter().filter_map(|index| slots[index].take()).collect();
        Ok(Resolution { modules, listeners, skipped: self.skipped })
    }
}

/// The file of that name: `libNAME.so`, then `NAME.so`, folder by folder. Rust writes `-` as `_` in
/// file names.
pub fn locate(name: &str, folders: &[PathBuf]) -> Option<PathBuf> {
    let mut files = vec![format!("lib{name}.so"), format!("{name}.so")];
    if name.contains('-') {
        files.push(format!("lib{}.so", name.replace('-', "_")));
    }
    // `exists` and not `is_file`: a folder or a pipe of that name gets a more precise error later.
    folders.iter().flat_map(|folder| files.iter().map(move |file| folder.join(file))).find(|path| path.exists())
}

/// Whether the module has the handler that the listener names.
pub fn check_handler(listener: &ListenConfig, table: &TableClaim) -> Result<(), Error> {
    let name = &table.name;
    let connections = |address: &ListenAddress| matches!(address, ListenAddress::Tcp(_) | ListenAddress::Unix(_));
    let kind = if listener.addresses.iter().any(connections) { abi::HANDLER_STREAM } else { abi::HANDLER_UDP };
    let names = || table.handlers.iter().map(|handler| handler.name.as_str());
    let fits = |handler_kind: u32| kind == handler_kind;
    match &listener.handler.handler {
        Some(wanted) => match table.handlers.iter().find(|handler| handler.name == *wanted) {
            Some(handler) if fits(handler.kind) => Ok(()),
            Some(_) => Err(Error::config(format!("handler \"{name}:{wanted}\" cannot serve {listener}"))),
            None => Err(Error::config(format!("module \"{name}\" has no handler \"{wanted}\"")).hint(nearest::hint(wanted, names()))),
        },
        None if table.handlers.iter().any(|handler| fits(handler.kind)) => Ok(()),
        None => Err(Error::config(format!("module \"{name}\" has no handler for {listener}"))
            .hint(format!("modhost inspect {name} shows what it has"))),
    }
}

fn list(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
    files.retain(|path| path.is_file());
    files.sort();
    Ok(files)
}

/// Module names in the folders, for proposals in errors.
fn names_in(folders: &[PathBuf]) -> Vec<String> {
    let files =
        folders.iter().filter_map(|folder| list(folder).ok()).flatten().filter(|path| path.extension().is_some_and(|ext| ext == "so"));
    files.filter_map(|path| stem(&path)).collect()
}

fn stem(path: &Path) -> Option<String> {
    let stem = path.file_stem()?.to_str()?;
    Some(stem.strip_prefix("lib").unwrap_or(stem).to_string())
}

fn guess_name(inspection: &Inspection) -> String {
    let table = inspection.table.as_ref().map(|table| table.name.clone());
    table.or_else(|| stem(&inspection.path)).unwrap_or_else(|| inspection.path.display().to_string())
}

/// What each module wants loaded before it: its dependencies, and the exporters of what it imports.
fn wants(found: &[Resolved]) -> Vec<Vec<Want>> {
    let want = |depend: &DependClaim| Want {
        name: depend.name.clone(),
        need: if depend.kind == abi::DEPEND_REQUIRED { Need::Required } else { Need::IfPresent },
    };
    let exporters = exporters(found);
    let of = |module: &Resolved| {
        // If there is no exporter, the error is about the interface.
        let exporters = exporters_for(module, &exporters).map(|(_, name)| Want { name: name.to_string(), need: Need::IfPresent });
        module.table.depends.iter().map(want).chain(exporters).collect()
    };
    found.iter().map(of).collect()
}

fn exporters(found: &[Resolved]) -> Vec<Exporter<'_>> {
    found.iter().map(|module| Exporter { module: &module.name, interfaces: &module.table.interfaces }).collect()
}

/// The imports of a module, and the names of their exporters.
fn exporters_for<'m>(module: &'m Resolved, exporters: &'m [Exporter<'m>]) -> impl Iterator<Item = (&'m ImportRequest, &'m str)> {
    let find = |import| interface::find(&module.name, import, exporters).ok();
    module.table.imports.iter().filter_map(move |import| Some((import, exporters[find(import)?.0].module)))
}

fn nodes<'n>(found: &'n [Resolved], wants: &'n [Vec<Want>]) -> Vec<Node<'n>> {
    found.iter().zip(wants).map(|(module, wants)| Node { name: &module.name, wants }).collect()
}

fn missing_requirement(module: &Resolved, needed: &str) -> Error {
    let error = Error::config(format!("module \"{}\" needs module \"{needed}\", which is not loaded", module.name));
    at(&module.position, error).hint(format!("add a [[module]] with name = \"{needed}\""))
}

fn at(position: &Position, mut error: Error) -> Error {
    error.what = format!("{position}: {}", error.what);
    error
}
