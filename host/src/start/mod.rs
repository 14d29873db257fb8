//! The start: main's life from the supervisor's fork to its end. [`sequence`] is the page with the
//! documented order; the other files do what its steps need.
//!
//! *Runs in:* main. *Never:* imported by anything but `main.rs`: it composes, it is no library.

mod alone;
mod await_children;
mod life;
mod listeners;
mod roster;
mod sequence;

pub use alone::no_fork;
pub use life::main_process;
