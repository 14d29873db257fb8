//! Answers a datagram: parses it, decides, asks the registrar, and writes the answer.
//!
//! Runs in UDP workers. No input ends the process. Allocates nothing except in buffers that the
//! process keeps: for REGISTER, redirections, and answers to another port.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::SocketAddr;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use module_api::date;
use module_api::prelude::*;

use crate::answer::{self, AnswerBuffer, destination};
use crate::bindings::{Bindings, NO_Q};
use crate::decision::{Decision, Refusal};
use crate::header::{FieldName, Reason};
use crate::method::Method;
use crate::registrar::{self, Buffers, MAX_KEY, RegisterOutcome, RequestHashes, Store, StoreError};
use crate::request::{self, Request};
use crate::settings::Configuration;
use crate::store::SharedStore;
use crate::uri::SipUri;

/// Most bytes of an answer that its request does not contain: parameters of the `Via`, the tag,
/// `Date`, `Retry-After`.
const FIXED_EXTRA: usize = 512;
/// Most bytes that an answer adds to those of a binding in a list: names, brackets, numbers.
const BINDING_EXTRA: usize = 40;
/// For a client that got no shared memory, in seconds.
const RETRY_AFTER: &[u8] = b"Retry-After: 60\r\n";

/// The state of one process.
#[derive(Debug, Default)]
pub struct Child {
    buffers: Buffers,
    /// Buffer for an answer to another port than the request came from.
    redirected_answer: Vec<u8>,
    /// The shard at which the sweep continues, in the slow timer process.
    next_sweep: usize,
}

/// The module after `init`, the same in all processes.
pub struct Server<S = SharedStore> {
    pub configuration: Configuration,
    /// `None` if the module is not a registrar.
    pub store: Option<S>,
    /// The beginning of the server's clock.
    pub started: Instant,
    /// The secret of the tags and of other hashes.
    seed: RandomState,
}

/// The header fields of an answer in addition to those that every answer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ExtraFields {
    None,
    /// The answer to OPTIONS: what the server supports.
    Capabilities,
    /// The fields that make a dialog.
    Dialog,
    Allow,
    Accept,
    AcceptEncoding,
    Unsupported,
    MinExpires,
    RetryAfter,
    /// The answer to REGISTER: the bindings at the second of the server's clock at which it was
    /// carried out.
    Bindings {
        now: u32,
    },
    /// A redirection: the bindings without their times.
    Contacts {
        now: u32,
    },
}

/// An answer before it is written.
struct Answer<'a> {
    /// Parts of the status code and reason.
    status: [&'a [u8]; 2],
    extra: ExtraFields,
}

impl<'a> Answer<'a> {
    fn new(status: &'a [u8], extra: ExtraFields) -> Answer<'a> {
        Answer { status: [status, b""], extra }
    }

    fn malformed(reason: Reason) -> Answer<'a> {
        Answer { status: [b"400 ", reason.as_bytes()], extra: ExtraFields::None }
    }
}

impl Server<SharedStore> {
    /// Answers one datagram, if it gets an answer.
    #[inline]
    pub fn answer(&self, child: &mut Child, datagram: &Datagram<'_, '_>) {
        let data = datagram.data();
        let Some(request) = request::parse(data) else { return };
        // SIP cannot name a Unix socket, so its datagrams get no answer.
        let Some(source) = datagram.peer().inet() else { return };
        let Some(answer) = self.decide(&request, data.len(), &mut child.buffers) else { return };
        let size = self.answer_size(&request, data.len(), &answer, &child.buffers.list);
        let destination = destination(&request, source);
        if destination == source {
            // `reply_with` refuses a length above `size`, so an answer that does not fit is not
            // sent.
            let write = |buffer: &mut [u8]| {
                self.write(&mut AnswerBuffer::new(buffer), &request, source, &answer, &child.buffers.list).unwrap_or(usize::MAX)
            };
            if let Err(error) = datagram.reply_with(size, write) {
                debug!(error = %error, "an answer is not sent");
            }
            return;
        }
        let buffer = &mut child.redirected_answer;
        buffer.resize(size, 0);
        if let Some(length) = self.write(&mut AnswerBuffer::new(buffer), &request, source, &answer, &child.buffers.list)
            && let Err(error) = datagram.listener().send_to(destination, &buffer[..length])
        {
            debug!(error = %error, "an answer is not sent");
        }
    }

    /// Frees expired bindings in the next part of the store. Called in the slow timer process.
    pub fn sweep(&self, child: &mut Child) -> Result<()> {
        self.store.map_or(Ok(()), |store| store.sweep(&mut child.next_sweep, self.now()))
    }
}

#[cfg(test)]
impl<S: Store> Server<S> {
    /// As `answer`, without a host. Returns the length of the answer in `buffer`, and its
    /// destination.
    pub fn respond(
        &self,
        request: &Request<'_>,
        datagram_bytes: usize,
        source: SocketAddr,
        buffers: &mut Buffers,
        buffer: &mut [u8],
    ) -> Option<(Option<usize>, SocketAddr)> {
        let answer = self.decide(request, datagram_bytes, buffers)?;
        let size = self.answer_size(request, datagram_bytes, &answer, &buffers.list);
        let length = self.write(&mut AnswerBuffer::new(&mut buffer[..size]), request, source, &answer, &buffers.list);
        Some((length, destination(request, source)))
    }
}

impl<S: Store> Server<S> {
    pub fn new(configuration: Configuration, store: Option<S>, started: Instant) -> Server<S> {
        Server { configuration, store, started, seed: RandomState::new() }
    }

    /// Seconds of the server's clock, from 1 on: at 0 no binding has expired.
    fn now(&self) -> u32 {
        u32::try_from(self.started.elapsed().as_secs()).unwrap_or(u32::MAX).saturating_add(1)
    }

    #[inline]
    fn decide<'a>(&'a self, request: &Request<'_>, datagram_bytes: usize, buffers: &mut Buffers) -> Option<Answer<'a>> {
        let settings = &self.configuration.settings;
        let answer = match settings.decide(request, datagram_bytes) {
            Decision::Silence => return None,
            Decision::Configured => {
                let extra = match request.method {
                    _ if !settings.is_answer_success => ExtraFields::None,
                    Method::Options => ExtraFields::Capabilities,
                    Method::Invite | Method::Subscribe | Method::Refer | Method::Update => ExtraFields::Dialog,
                    _ => ExtraFields::None,
                };
                Answer::new(&settings.answer, extra)
            }
            Decision::Cancelled => Answer::new(b"200 OK", ExtraFields::None),
            Decision::Malformed(reason) => Answer::malformed(reason),
            Decision::Refused(refusal) => {
                let extra = match refusal {
                    Refusal::MethodNotAllowed | Refusal::NotImplemented => ExtraFields::Allow,
                    Refusal::UnsupportedMediaType => ExtraFields::Accept,
                    Refusal::UnsupportedContentEncoding => ExtraFields::AcceptEncoding,
                    Refusal::BadExtension => ExtraFields::Unsupported,
                    _ => ExtraFields::None,
                };
                Answer::new(refusal.status(), extra)
            }
            Decision::Register(record) => self.register(request, &record, buffers),
            Decision::Redirect(user) => self.redirect(&user, buffers),
        };
        Some(answer)
    }

    fn register(&self, request: &Request<'_>, record: &SipUri<'_>, buffers: &mut Buffers) -> Answer<'static> {
        let (mut key, Some(store)) = ([0; MAX_KEY], &self.store) else { return Answer::new(b"404 Not Found", ExtraFields::None) };
        let Some(key) = record.canonical(&mut key) else { return Answer::new(b"404 Not Found", ExtraFields::None) };
        let hashes =
            RequestHashes { call: self.hash(request.call_id.unwrap_or_default()), transaction: answer::tag(request, &self.seed) as u32 };
        let now = self.now();
        match registrar::register(store, &self.configuration.limits, key, request, hashes, now, buffers) {
            RegisterOutcome::Done => Answer::new(b"200 OK", ExtraFields::Bindings { now }),
            RegisterOutcome::Malformed(reason) => Answer::malformed(reason),
            RegisterOutcome::TooBrief => Answer::new(b"423 Interval Too Brief", ExtraFields::MinExpires),
            RegisterOutcome::Refused(status) => Answer::new(status, ExtraFields::None),
            RegisterOutcome::OutOfOrder => Answer::new(b"500 Out of Order", ExtraFields::None),
            RegisterOutcome::NoMemory => Answer::new(b"503 Service Unavailable", ExtraFields::RetryAfter),
            RegisterOutcome::StoreFailed => Answer::new(b"500 Server Internal Error", ExtraFields::None),
        }
    }

    fn redirect(&self, user: &SipUri<'_>, buffers: &mut Buffers) -> Answer<'static> {
        let (mut key, Some(store)) = ([0; MAX_KEY], &self.store) else { return Answer::new(b"404 Not Found", ExtraFields::None) };
        let Some(key) = user.canonical(&mut key) else { return Answer::new(b"414 Request-URI Too Long", ExtraFields::None) };
        let list = &mut buffers.list;
        list.clear();
        let now = self.now();
        // Copied, so that the lock is held only for the copy.
        match store.read(key, |found| list.extend_from_slice(found)) {
            Ok(()) if Bindings::at(list, now).next().is_some() => Answer::new(b"302 Moved Temporarily", ExtraFields::Contacts { now }),
            Ok(()) => Answer::new(b"404 Not Found", ExtraFields::None),
            Err(StoreError::Full | StoreError::Failed) => Answer::new(b"500 Server Internal Error", ExtraFields::None),
        }
    }

    fn hash(&self, bytes: &[u8]) -> u64 {
        let mut hasher = self.seed.build_hasher();
        hasher.write(bytes);
        hasher.finish()
    }

    /// A buffer size that is enough for the answer, unless the request is longer than half of the
    /// longest datagram.
    #[inline]
    fn answer_size(&self, request: &Request<'_>, datagram_bytes: usize, answer: &Answer<'_>, list: &[u8]) -> usize {
        let bindings = match answer.extra {
            ExtraFields::Bindings { .. } | ExtraFields::Contacts { .. } => list.len() + Bindings::at(list, 0).count() * BINDING_EXTRA,
            _ => 0,
        };
        let Configuration { settings, tail, allow, accept, .. } = &self.configuration;
        // Copied fields get their full names, which adds at most four bytes to a field of at least
        // four.
        let fields = if request.more_vias || request.has_require || request.has_record_route { datagram_bytes } else { 0 };
        (datagram_bytes + FIXED_EXTRA + settings.answer.len() + tail.len() + allow.len() + accept.len() + fields + bindings).min(65_507)
    }

    /// Writes the answer; `None` if it does not fit.
    #[inline]
    fn write(
        &self,
        out: &mut AnswerBuffer<'_>,
        request: &Request<'_>,
        source: SocketAddr,
        answer: &Answer<'_>,
        list: &[u8],
    ) -> Option<usize> {
        answer::head(out, &answer.status, request, source, &self.seed);
        let configuration = &self.configuration;
        match answer.extra {
            ExtraFields::None => {}
            ExtraFields::Capabilities => {
                out.put(&configuration.allow);
                out.put(&configuration.accept);
                out.put(b"Accept-Encoding: identity\r\nAccept-Language: en\r\nSupported: \r\n");
            }
            ExtraFields::Dialog => {
                answer::copy_fields(out, b"Record-Route: ", request, FieldName::RecordRoute, 0, b"\r\n");
                out.put(b"Contact: <");
                out.put(request.uri);
                out.put(b">\r\n");
            }
            ExtraFields::Allow => out.put(&configuration.allow),
            ExtraFields::Accept => out.put(&configuration.accept),
            ExtraFields::AcceptEncoding => out.put(b"Accept-Encoding: identity\r\n"),
            ExtraFields::Unsupported => answer::copy_fields(out, b"Unsupported: ", request, FieldName::Require, 0, b"\r\n"),
            ExtraFields::MinExpires => {
                out.put(b"Min-Expires: ");
                out.put_number(configuration.limits.min_expires.into());
                out.put(b"\r\n");
            }
            ExtraFields::RetryAfter => out.put(RETRY_AFTER),
            ExtraFields::Bindings { now } => {
                write_bindings(out, list, now, ExpiresParam::Written);
                let date = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                out.put(b"Date: ");
                out.put(&date::text(date.as_secs()));
                out.put(b"\r\n");
            }
            ExtraFields::Contacts { now } => write_bindings(out, list, now, ExpiresParam::Omitted),
        }
        out.put(&configuration.tail);
        out.len()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ExpiresParam {
    Written,
    Omitted,
}

/// Writes a `Contact` line for each binding that has not expired at `now`.
fn write_bindings(out: &mut AnswerBuffer<'_>, list: &[u8], now: u32, expires: ExpiresParam) {
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
        if expires == ExpiresParam::Written {
            out.put(b";expires=");
            out.put_number((binding.until - now).into());
        }
        out.put(binding.params);
        out.put(b"\r\n");
    }
}
