//! Operation: daemon mode, stopping, replaced processes, the log, and the descriptors of each
//! process.

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
