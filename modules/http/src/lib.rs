//! An HTTP/1.1 server: fixed answers from the configuration, files below a folder, and routes of
//! other modules.
//!
//! Serves connections of stream listeners in TCP workers. Processes share nothing.

#![forbid(unsafe_code)]

mod conditional;
mod connection;
mod files;
mod media_type;
mod path;
mod reply;
mod request_body;
mod request_head;
mod routes;
mod settings;
mod syntax;
#[cfg(test)]
mod tests;

use module_api::interface::Callback;
use module_api::interfaces::http::{Answering, ExportRoutes, RouteMatch, Routes};
use module_api::prelude::*;
use rustix::time::{ClockId, clock_gettime};

use crate::connection::{Connection, Worker};
use crate::settings::{Params, Settings};

struct Http {
    settings: Settings,
}

impl Module for Http {
    type Params = Params;
    type Child = Worker;

    fn init(_cx: &mut ModInit<'_, Self>, params: Params) -> Result<Self> {
        Ok(Http { settings: settings::read(params)? })
    }

    fn child_init(&self, _cx: &mut ChildInit<'_>) -> Result<Worker> {
        Ok(Worker::new(&self.settings))
    }
}

impl ExportRoutes for Http {
    fn add(&self, method: &str, path: &str, matching: RouteMatch, answer: Callback<Answering>) -> Result<()> {
        self.settings.functions.add(method, path, matching, answer)
    }
}

impl StreamHandler<Http> for Connection {
    fn open(_: &Http, _: &mut Worker, _: &mut Stream<'_>) -> Result<Self> {
        Ok(Connection::default())
    }

    #[inline]
    fn data(&mut self, http: &Http, worker: &mut Worker, stream: &mut Stream<'_>, data: &[u8]) -> Result<usize> {
        // The coarse clock is at most some milliseconds late, and quicker to read than the exact
        // one.
        worker.set_time(u64::try_from(clock_gettime(ClockId::RealtimeCoarse).tv_sec).unwrap_or(0));
        Ok(Connection::data(self, &http.settings, worker, stream, data)?)
    }
}

export_module! {
    Http,
    name: "http",
    summary: "an HTTP/1.1 server with fixed answers and static files",
    exports: [Routes],
    stream: {
        /// Answers requests of HTTP/1.1 and HTTP/1.0.
        "http" => Connection,
    },
}
