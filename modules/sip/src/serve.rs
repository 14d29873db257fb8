//! From a datagram to its answer: parse, judge, ask the registrar, write.
//!
//! Runs in workers. Nothing that a client sends ends the process, and nothing but a REGISTER allocates.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::SocketAddr;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use module_api::date;
use module_api::prelude::*;

use crate::answer::{self, Out, destination};
use crate::bindings::{Bindings, NO_Q};
use crate::message::{self, Method, Name, Request};
use crate::registrar::{self, Buffers, MAX_KEY, Marks, Registered, Store, StoreError};
use crate::settings::Configured;
use crate::store::SharedStore;
use crate::uas::{Refusal, Verdict};
use crate::uri::SipUri;

/// What an answer has beside what it repeats of its request, at most, in bytes: the parameters of the `Via`, the tag, `Date`, `Retry-After`.
const FIXED_EXTRA: usize = 512;
/// What each binding has beside its own bytes in a list, at most: names, brackets, numbers.
const BINDING_EXTRA: usize = 40;
/// When to try again if there is no memory, in seconds.
const RETRY_AFTER: &[u8] = b"Retry-After: 60\r\n";

/// What each process has for itself.
#[derive(Debug, Default)]
pub struct Child {
    buffers: Buffers,
    /// For answers that do not go back to the port they came from.
    elsewhere: Vec<u8>,
    /// Where the timer function goes on.
    next_sweep: usize,
}

/// What the module is made of after `init`.
pub struct Server<S = SharedStore> {
    pub configured: Configured,
    pub store: Option<S>,
    /// The service's clock starts here, for all processes.
    pub started: Instant,
    /// Of the tags, the same in all processes.
    seed: RandomState,
}

/// The header fields that make an answer what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum More {
    Nothing,
    /// What the configuration says about itself, to OPTIONS.
    Capabilities,
    /// What makes a dialog.
    Dialog,
    Allow,
    Accept,
    AcceptEncoding,
    Unsupported,
    MinExpires,
    RetryAfter,
    /// The bindings, after a REGISTER, as they are at this second of the service's clock: the one at which it was carried out.
    Bindings {
        now: u32,
    },
    /// The same to who looks for the user.
    Contacts {
        now: u32,
    },
}

/// An answer that is decided and not written yet.
struct Answer<'a> {
    /// Parts of code and reason.
    status: [&'a [u8]; 2],
    more: More,
}

impl<'a> Answer<'a> {
    fn new(status: &'a [u8], more: More) -> Answer<'a> {
        Answer { status: [status, b""], more }
    }
}

impl Server<SharedStore> {
    /// Answers one datagram, or does not.
    #[inline]
    pub fn answer(&self, child: &mut Child, datagram: &Datagram<'_, '_>) {
        let data = datagram.data();
        let Some(request) = message::parse(data) else { return };
        // SIP has no way to name a Unix socket.
        let Some(source) = datagram.peer().inet() else { return };
        let Some(answer) = self.decide(&request, data.len(), &mut child.buffers) else { return };
        let size = self.room(&request, data.len(), &answer, &child.buffers.list);
        let destination = destination(&request, source);
        if destination == source {
            // A length above the size is refused: what did not fit is not sent.
            let write =
                |buffer: &mut [u8]| self.write(&mut Out::new(buffer), &request, source, &answer, &child.buffers.list).unwrap_or(usize::MAX);
            if let Err(error) = datagram.reply_with(size, write) {
                debug!(error = %error, "an answer is not sent");
            }
            return;
        }
        child.elsewhere.resize(size, 0);
        if let Some(length) = self.write(&mut Out::new(&mut child.elsewhere), &request, source, &answer, &child.buffers.list)
            && let Err(error) = datagram.listener().send_to(destination, &child.elsewhere[..length])
        {
            debug!(error = %error, "an answer is not sent");
        }
    }

    /// In the slow timer process.
    pub fn sweep(&self, child: &mut Child) -> Result<()> {
        self.store.map_or(Ok(()), |store| store.sweep(&mut child.next_sweep, self.now()))
    }
}

#[cfg(test)]
impl<S: Store> Server<S> {
    /// What `answer` does, without a host: how long the answer is and where it goes.
    pub fn respond(
        &self,
        request: &Request<'_>,
        datagram_bytes: usize,
        source: SocketAddr,
        buffers: &mut Buffers,
        buffer: &mut [u8],
    ) -> Option<(Option<usize>, SocketAddr)> {
        let answer = self.decide(request, datagram_bytes, buffers)?;
        let size = self.room(request, datagram_bytes, &answer, &buffers.list);
        let length = self.write(&mut Out::new(&mut buffer[..size]), request, source, &answer, &buffers.list);
        Some((length, destination(request, source)))
    }
}

impl<S: Store> Server<S> {
    pub fn new(configured: Configured, store: Option<S>, started: Instant) -> Server<S> {
        Server { configured, store, started, seed: RandomState::new() }
    }

    /// Seconds of the service's clock; never 0, at which nothing has ended yet.
    fn now(&self) -> u32 {
        u32::try_from(self.started.elapsed().as_secs()).unwrap_or(u32::MAX).saturating_add(1)
    }

    #[inline]
    fn decide<'a>(&'a self, request: &Request<'_>, datagram_bytes: usize, buffers: &mut Buffers) -> Option<Answer<'a>> {
        let answer = match self.configured.settings.judge(request, datagram_bytes) {
            Verdict::Silence => return None,
            Verdict::Configured => {
                let more = match request.method {
                    _ if !self.configured.settings.answer_is_success => More::Nothing,
                    Method::Options => More::Capabilities,
                    Method::Invite | Method::Subscribe | Method::Refer | Method::Update => More::Dialog,
                    _ => More::Nothing,
                };
                Answer::new(&self.configured.settings.answer, more)
            }
            Verdict::Cancelled => Answer::new(b"200 OK", More::Nothing),
            Verdict::Malformed(reason) => Answer { status: [b"400 ", reason.as_bytes()], more: More::Nothing },
            Verdict::Refused(refusal) => {
                let more = match refusal {
                    Refusal::MethodNotAllowed | Refusal::NotImplemented => More::Allow,
                    Refusal::UnsupportedMediaType => More::Accept,
                    Refusal::UnsupportedContentEncoding => More::AcceptEncoding,
                    Refusal::BadExtension => More::Unsupported,
                    _ => More::Nothing,
                };
                Answer::new(refusal.status(), more)
            }
            Verdict::Register(record) => self.register(request, &record, buffers),
            Verdict::Redirect(user) => self.redirect(&user, buffers),
        };
        Some(answer)
    }

    fn register(&self, request: &Request<'_>, record: &SipUri<'_>, buffers: &mut Buffers) -> Answer<'static> {
        let (mut key, Some(store)) = ([0; MAX_KEY], &self.store) else { return Answer::new(b"404 Not Found", More::Nothing) };
        let Some(key) = record.canonical(&mut key) else { return Answer::new(b"404 Not Found", More::Nothing) };
        let marks = Marks { call: self.mark(request.call_id.unwrap_or_default()), transaction: answer::tag(request, &self.seed) as u32 };
        let now = self.now();
        match registrar::register(store, &self.configured.limits, key, request, marks, now, buffers) {
            Registered::Done => Answer::new(b"200 OK", More::Bindings { now }),
            Registered::Malformed(reason) => Answer { status: [b"400 ", reason.as_bytes()], more: More::Nothing },
            Registered::TooBrief => Answer::new(b"423 Interval Too Brief", More::MinExpires),
            Registered::Refused(status) => Answer::new(status, More::Nothing),
            Registered::OutOfOrder => Answer::new(b"500 Out of Order", More::Nothing),
            Registered::NoMemory => Answer::new(b"503 Service Unavailable", More::RetryAfter),
            Registered::StoreFailed => Answer::new(b"500 Server Internal Error", More::Nothing),
        }
    }

    fn redirect(&self, user: &SipUri<'_>, buffers: &mut Buffers) -> Answer<'static> {
        let (mut key, Some(store)) = ([0; MAX_KEY], &self.store) else { return Answer::new(b"404 Not Found", More::Nothing) };
        let Some(key) = user.canonical(&mut key) else { return Answer::new(b"414 Request-URI Too Long", More::Nothing) };
        let list = &mut buffers.list;
        list.clear();
        let now = self.now();
        // The lock is held for no longer than the copy takes.
        match store.read(key, |found| list.extend_from_slice(found)) {
            Ok(()) if Bindings::at(list, now).next().is_some() => Answer::new(b"302 Moved Temporarily", More::Contacts { now }),
            Ok(()) => Answer::new(b"404 Not Found", More::Nothing),
            Err(StoreError::Full | StoreError::Failed) => Answer::new(b"500 Server Internal Error", More::Nothing),
        }
    }

    fn mark(&self, bytes: &[u8]) -> u64 {
        let mut hasher = self.seed.build_hasher();
        hasher.write(bytes);
        hasher.finish()
    }

    /// Room that is enough for the answer, unless the request is longer than half of what a datagram can be.
    #[inline]
    fn room(&self, request: &Request<'_>, datagram_bytes: usize, answer: &Answer<'_>, list: &[u8]) -> usize {
        let more = match answer.more {
            More::Bindings { .. } | More::Contacts { .. } => list.len() + Bindings::at(list, 0).count() * BINDING_EXTRA,
            _ => 0,
        };
        let Configured { settings, tail, allow, accept, .. } = &self.configured;
        // A compact name becomes a full one: at most four bytes more for a field of at least four.
        let fields = if request.more_vias || request.has_require || request.has_record_route { datagram_bytes } else { 0 };
        (datagram_bytes + FIXED_EXTRA + settings.answer.len() + tail.len() + allow.len() + accept.len() + fields + more).min(65_507)
    }

    /// Writes the answer; `None` if it does not fit.
    #[inline]
    fn write(&self, out: &mut Out<'_>, request: &Request<'_>, source: SocketAddr, answer: &Answer<'_>, list: &[u8]) -> Option<usize> {
        answer::head(out, &answer.status, request, source, &self.seed);
        let configured = &self.configured;
        match answer.more {
            More::Nothing => {}
            More::Capabilities => {
                out.put(&configured.allow);
                out.put(&configured.accept);
                out.put(b"Accept-Encoding: identity\r\nAccept-Language: en\r\nSupported: \r\n");
            }
            More::Dialog => {
                answer::more_fields(out, b"Record-Route: ", request, Name::RecordRoute, 0, b"\r\n");
                out.put(b"Contact: <");
                out.put(request.uri);
                out.put(b">\r\n");
            }
            More::Allow => out.put(&configured.allow),
            More::Accept => out.put(&configured.accept),
            More::AcceptEncoding => out.put(b"Accept-Encoding: identity\r\n"),
            More::Unsupported => answer::more_fields(out, b"Unsupported: ", request, Name::Require, 0, b"\r\n"),
            More::MinExpires => {
                out.put(b"Min-Expires: ");
                out.put_number(configured.limits.min_expires.into());
                out.put(b"\r\n");
            }
            More::RetryAfter => out.put(RETRY_AFTER),
            More::Bindings { now } => {
                write_bindings(out, list, now, true);
                let date = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                out.put(b"Date: ");
                out.put(&date::text(date.as_secs()));
                out.put(b"\r\n");
            }
            More::Contacts { now } => write_bindings(out, list, now, false),
        }
        out.put(&configured.tail);
        out.len()
    }
}

fn write_bindings(out: &mut Out<'_>, list: &[u8], now: u32, with_expires: bool) {
    for binding in Bindings::at(list, now) {
        out.put(b"Contact: <");
        out.put(binding.uri);
        out.put(b">");
        if binding.q != NO_Q {
            let digits = [b'0' + (binding.q / 1000) as u8, b'.'];
            out.put(b";q=");
            out.put(&digits);
            out.put(&[100, 10, 1].map(|worth| b'0' + (binding.q / worth % 10) as u8));
        }
        if with_expires {
            out.put(b";expires=");
            out.put_number((binding.until - now).into());
        }
        out.put(binding.params);
        out.put(b"\r\n");
    }
}
