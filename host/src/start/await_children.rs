//! Step 11: main waits until every forked child has finished its own initialisation.
//!
//! *Runs in:* main. *Never:* waits past `start_timeout`.

use super::life::{Halt, Life, Step};
use crate::error::Error;
use crate::process::family::Family;
use crate::process::restart::{End, Reached};
use crate::process::slots::{Slot, SlotState};
use crate::process::watch::{Event, Watch, describe};
use crate::state::State;

/// Waits for all of them. A child that fails, or hangs past the limit, fails the start.
pub fn await_children(life: &mut Life, state: &State) -> Step<()> {
    let family = &state.family;
    let forked = family.slots.iter().skip(1).filter(|(_, slot)| slot.state() != SlotState::Free).count() as u64;
    family.slots.await_children(forked);
    loop {
        if starting(family).is_none() {
            family.slots.await_nobody();
            return Ok(());
        }
        match life.watch.next(family, Some(life.deadline_ns))? {
            Event::Stop => return Err(Halt::Stopped),
            Event::Died { process_no, end, reached: Reached::Serving } => {
                life.watch.after_death(family, process_no, end, Reached::Serving);
            }
            Event::Died { process_no, end, reached: Reached::Init } => return Err(Halt::Failed(died(family, process_no, end))),
            Event::Deadline => {
                // Looked up only now: a child that was starting when the wait began may be done,
                // and not every child wakes main.
                let Some((process_no, slot)) = starting(family) else { continue };
                let was = Watch::blame(family, process_no);
                let limit_s = life.plan.config.host.start_timeout.as_secs_f64();
                return Err(Halt::Failed(
                    Error::failed("a process did not finish its initialisation in time")
                        .detail(format!("process {process_no} \"{}\" was {was} after {limit_s} s", slot.name()))
                        .hint("raise host.start_timeout, or make that call return sooner"),
                ));
            }
            Event::ChildrenDone | Event::ReadAgain | Event::Other => {}
        }
    }
}

fn died(family: &Family, process_no: usize, end: End) -> Error {
    let name = family.slots.slot(process_no).map(|slot| slot.name()).unwrap_or_default();
    let error = Error::failed(format!("process {process_no} \"{name}\" {} in its initialisation", describe(end)))
        .detail(format!("it was {}", Watch::blame(family, process_no)));
    // A process that leaves by itself has logged why; one that is killed could not.
    match end {
        End::Exit(_) => error.hint("the log has its reason"),
        End::Signal(_) => error,
    }
}

/// The first process that has not finished its initialisation.
fn starting(family: &Family) -> Option<(usize, Slot)> {
    family.slots.iter().skip(1).find(|(_, slot)| slot.state() == SlotState::Starting)
}
