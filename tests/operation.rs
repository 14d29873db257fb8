//! What an operator meets: daemon mode, stopping, replacements, the log, and what each process holds open.

#[path = "operation/daemon.rs"]
mod daemon;
#[path = "operation/descriptors.rs"]
mod descriptors;
#[path = "operation/logging.rs"]
mod logging;
#[path = "operation/restarts.rs"]
mod restarts;
#[path = "operation/stop.rs"]
mod stop;
