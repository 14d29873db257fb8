//! An HTTP/1.1 server: fixed answers from the configuration, and files below a folder.
//!
//! Serves connections of stream listeners in TCP workers. Nothing is shared between processes.

#![forbid(unsafe_code)]

mod body;
mod chars;
mod conditional;
mod files;
mod head;
mod media;
mod reply;
mod routes;
mod serve;
mod settings;
mod target;
#[cfg(test)]
mod tests;

use module_api::interface::Callback;
use module_api::interfaces::http::{Answering, ExportRoutes, RouteMatch, Routes};
use module_api::prelude::*;
use rustix::time::{ClockId, clock_gettime};

use crate::serve::{Connection, Worker};
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
        // Some milliseconds old at most, and quicker to read than the exact one.
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
