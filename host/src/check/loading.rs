//! Loads the modules of a plan as main would, up to their parameters.
//!
//! *Runs in:* the command `check`, and a child of it. *Never:* calls a function of a module.

use std::fs::File;
use std::io::{Read, Write};

use nix::fcntl::OFlag;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::pipe2;

use crate::error::{EXIT_FAILED, EXIT_OK, Error};
use crate::module::{Resolved, loader};
use crate::plan::Plan;
use crate::sys::process::exit;
use crate::sys::process::fork::{self, Side};

/// Loads every module in a child, which must survive that.
pub fn load_in_child(plan: &Plan) -> Result<(), Error> {
    if plan.modules.is_empty() {
        return Ok(());
    }
    let failed = |call: &str, detail: String| Error::failed("cannot try the modules out").detail(format!("{call}: {detail}"));
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).map_err(|errno| failed("pipe", errno.to_string()))?;
    match fork::fork(&fork::alone()?)? {
        Side::Child => {
            drop(reader);
            let mut progress = File::from(writer);
            // One byte for each module after its loading, successful or not.
            for module in &plan.modules {
                drop(load_one(module));
                if progress.write_all(&[1]).is_err() {
                    exit::leave_now(EXIT_FAILED);
                }
            }
            exit::leave_now(EXIT_OK)
        }
        Side::Parent(pid) => {
            drop(writer);
            let mut survived = Vec::new();
            File::from(reader).read_to_end(&mut survived).map_err(|error| failed("read", error.to_string()))?;
            let status = waitpid(pid, None).map_err(|errno| failed("waitpid", errno.to_string()))?;
            let Some(module) = plan.modules.get(survived.len()) else { return Ok(()) };
            let how = match status {
                WaitStatus::Exited(_, code) => format!("its constructors exited with status {code}"),
                WaitStatus::Signaled(_, signal, _) => format!("its constructors died of {signal}"),
                other => format!("{other:?}"),
            };
            Err(Error::config(format!("{}: module \"{}\" ends the process that loads it", module.position, module.name))
                .detail(format!("{}: {how}", module.path.display()))
                .hint("a module does its work in init_f, not in constructors"))
        }
    }
}

/// Loads every module in this process. A fault of an optional one is a warning.
pub fn load(plan: &Plan, warnings: &mut Vec<String>) -> Vec<Error> {
    let mut errors = Vec::new();
    for module in &plan.modules {
        let position = &module.position;
        match load_one(module) {
            Ok(()) => {}
            Err(found) if module.optional => {
                warnings.extend(found.iter().map(|error| format!("{position}: optional module is left out: {error}")));
            }
            Err(found) => {
                errors.extend(found.into_iter().map(|error| Error { what: format!("{position}: {}", error.what), ..error }));
            }
        }
        if let Err(error) = loader::one_thread(&module.name) {
            errors.push(Error { what: format!("{position}: {}", error.what), ..error });
            // The thread stays, and would be blamed on every module after this one.
            break;
        }
    }
    errors
}

/// The same calls in the same order as in main.
fn load_one(module: &Resolved) -> Result<(), Vec<Error>> {
    let one = |error| vec![error];
    let opened = loader::open(&module.path).map_err(one)?;
    opened.apply(&module.settings, &module.folders)?;
    let name = opened.name();
    if name == module.name {
        return Ok(());
    }
    Err(one(Error::config(format!("module \"{}\" calls itself \"{name}\" once it is loaded", module.name)).detail(module.path.display())))
}
