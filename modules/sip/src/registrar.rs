//! Carries out REGISTER (RFC 3261 section 10.3).
//!
//! Works on any store of bytes by key that changes one key atomically for all processes. The time
//! is an argument.

use crate::address::{self, Contact, Contacts};
use crate::bindings::{self, Binding, Bindings, NO_Q};
use crate::header::{FieldName, Reason};
use crate::request::Request;
use crate::syntax::number;
use crate::uri::{self, SipUri, Uri};

/// Longest URI of a contact with its parameters, in bytes.
const MAX_CONTACT: usize = 1024;
/// Longest key of an address-of-record, in bytes.
pub const MAX_KEY: usize = 256;
/// A registrar may refuse only a shorter time than this as too brief, in seconds (section 10.3,
/// step 7).
const ALWAYS_LONG_ENOUGH_S: u32 = 3600;
/// Used for an `expires` that is not a number, in seconds (sections 20.19 and 10.2.1.1).
const UNREADABLE_EXPIRES_S: u32 = 3600;

#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Seconds, for a contact without a time.
    pub default_expires: u32,
    /// Seconds.
    pub min_expires: u32,
    /// Seconds.
    pub max_expires: u32,
    /// Bindings of one address-of-record.
    pub max_contacts: usize,
}

/// How the value of a key changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Keep,
    /// The contents of the buffer become the value.
    Put,
    Remove,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreError {
    /// No shared memory is left.
    Full,
    /// Any other reason; it is logged.
    Failed,
}

/// Lists of bindings by address-of-record.
pub trait Store {
    /// Calls `read` with the list, which is empty if there is none. The list does not change during
    /// the call.
    fn read<R>(&self, key: &[u8], read: impl FnOnce(&[u8]) -> R) -> Result<R, StoreError>;

    /// Calls `change` with the list and a buffer for a new one. Reading and changing are one atomic
    /// step.
    fn update<R>(&self, key: &[u8], new: &mut Vec<u8>, change: impl FnOnce(&[u8], &mut Vec<u8>) -> (Change, R)) -> Result<R, StoreError>;
}

/// The result of a REGISTER, with its status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegisterOutcome {
    /// 200. The current bindings are in `Buffers::list`.
    Done,
    /// 400.
    Malformed(Reason),
    /// 423.
    TooBrief,
    /// 403: too many contacts, or one that is too long.
    Refused(&'static [u8]),
    /// 500: the same client has sent a later REGISTER that was carried out already.
    OutOfOrder,
    /// 503.
    NoMemory,
    /// 500.
    StoreFailed,
}

/// Buffers that keep their memory between requests.
#[derive(Debug, Default)]
pub struct Buffers {
    /// A copy of the bindings for the answer.
    pub list: Vec<u8>,
    unsorted: Vec<u8>,
    params: Vec<u8>,
}

/// Hashes that identify a request.
#[derive(Debug, Clone, Copy)]
pub struct RequestHashes {
    /// Of the Call-ID.
    pub call: u64,
    /// Of the transaction.
    pub transaction: u32,
}

/// Carries out a REGISTER for `key`, as a whole or not at all. `now` is in seconds of the server's
/// clock.
pub fn register(
    store: &impl Store,
    limits: &Limits,
    key: &[u8],
    request: &Request<'_>,
    hashes: RequestHashes,
    now: u32,
    buffers: &mut Buffers,
) -> RegisterOutcome {
    buffers.list.clear();
    let action = match RegisterAction::of(request, limits) {
        Ok(action) => action,
        Err(refusal) => return refusal,
    };
    let Buffers { list, unsorted, params } = buffers;
    let outcome = if let RegisterAction::Query = action {
        store.read(key, |old| {
            list.extend_from_slice(old);
            RegisterOutcome::Done
        })
    } else {
        store.update(key, list, |old, list| {
            unsorted.clear();
            let update = ListUpdate { limits, request, hashes, now, old };
            match update.make(&action, unsorted, params) {
                Ok(()) => bindings::write_sorted(list, unsorted),
                Err(refusal) => return (Change::Keep, refusal),
            }
            let change = match (old.is_empty(), list.is_empty()) {
                (true, true) => Change::Keep,
                (false, true) => Change::Remove,
                (_, false) => Change::Put,
            };
            (change, RegisterOutcome::Done)
        })
    };
    match outcome {
        Ok(registered) => registered,
        Err(StoreError::Full) => RegisterOutcome::NoMemory,
        Err(StoreError::Failed) => RegisterOutcome::StoreFailed,
    }
}

/// What a REGISTER asks for.
enum RegisterAction {
    /// Only a list of the bindings.
    Query,
    RemoveAll,
    /// The changes that the contacts describe. `expires` is for contacts without a time, in
    /// seconds.
    Update {
        expires: u32,
    },
}

impl RegisterAction {
    /// Checks the whole request before anything is changed.
    fn of(request: &Request<'_>, limits: &Limits) -> Result<RegisterAction, RegisterOutcome> {
        if !request.has_contact {
            return Ok(RegisterAction::Query);
        }
        let header = request.expires.map(seconds);
        let default = header.unwrap_or(limits.default_expires);
        let (mut stars, mut count) = (0, 0);
        for field in contact_fields(request) {
            let elements = match address::contacts(field) {
                Contacts::All => {
                    stars += 1;
                    continue;
                }
                Contacts::List(elements) => elements,
            };
            for contact in elements {
                let Ok(contact) = contact else { return Err(RegisterOutcome::Malformed("Bad Contact")) };
                count += 1;
                let expires = contact.expires.map_or(default, seconds);
                if expires > 0 && expires < limits.min_expires.min(ALWAYS_LONG_ENOUGH_S) {
                    return Err(RegisterOutcome::TooBrief);
                }
            }
        }
        match (stars, count) {
            (0, _) => Ok(RegisterAction::Update { expires: default }),
            (1, 0) if header == Some(0) => Ok(RegisterAction::RemoveAll),
            (1, 0) => Err(RegisterOutcome::Malformed("A Contact of * Needs Expires: 0")),
            _ => Err(RegisterOutcome::Malformed("A Contact of * Must Be the Only One")),
        }
    }
}

fn contact_fields<'m>(request: &Request<'m>) -> impl Iterator<Item = &'m [u8]> + use<'m> {
    request.fields.clone().filter(|field| field.name == FieldName::Contact).map(|field| field.value)
}

/// The contacts of a request that `RegisterAction::of` has checked.
fn contacts<'m>(request: &Request<'m>) -> impl Iterator<Item = Contact<'m>> + use<'m> {
    contact_fields(request)
        .filter_map(|field| match address::contacts(field) {
            Contacts::List(elements) => Some(elements.filter_map(Result::ok)),
            Contacts::All => None,
        })
        .flatten()
}

/// Parses a time. One that is too large for a u32 is the largest u32.
fn seconds(text: &[u8]) -> u32 {
    match number(text, u32::MAX.into()) {
        Some(seconds) => seconds as u32,
        None if !text.is_empty() && text.iter().all(u8::is_ascii_digit) => u32::MAX,
        None => UNREADABLE_EXPIRES_S,
    }
}

/// Makes a new list of bindings from an old one.
struct ListUpdate<'u> {
    limits: &'u Limits,
    request: &'u Request<'u>,
    hashes: RequestHashes,
    now: u32,
    old: &'u [u8],
}

impl ListUpdate<'_> {
    /// Writes the new bindings to `list`, unsorted. `params` is a buffer.
    fn make(&self, action: &RegisterAction, list: &mut Vec<u8>, params: &mut Vec<u8>) -> Result<(), RegisterOutcome> {
        let RegisterAction::Update { expires } = *action else {
            return Bindings::at(self.old, self.now).try_for_each(|binding| self.may_change(&binding).map(drop));
        };
        let mut count = 0;
        let mut add = |list: &mut Vec<u8>, binding: &Binding<'_>| {
            count += 1;
            if count > self.limits.max_contacts {
                return Err(RegisterOutcome::Refused(b"403 Too Many Contacts"));
            }
            bindings::write(list, binding).ok_or(RegisterOutcome::Refused(b"403 Contact Too Long"))
        };
        // The contacts of the request come first, so that they precede others of equal preference.
        for (index, contact) in contacts(self.request).enumerate() {
            let uri = ContactUri::of(contact.address.uri);
            // Of several contacts with one URI, the last one counts.
            if contacts(self.request).skip(index + 1).any(|later| uri.is_same(later.address.uri)) {
                continue;
            }
            let old = Bindings::at(self.old, self.now).find(|binding| uri.is_same(binding.uri));
            if let Some(old) = old
                && let Order::Retransmission = self.may_change(&old)?
            {
                add(list, &old)?;
                continue;
            }
            let expires = contact.expires.map_or(expires, seconds).min(self.limits.max_expires);
            if expires == 0 {
                continue;
            }
            params.clear();
            for param in contact.other_params() {
                params.push(b';');
                params.extend_from_slice(param.name);
                if let Some(value) = param.value {
                    params.push(b'=');
                    params.extend(value.iter().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte }));
                }
            }
            if contact.address.uri.len() + params.len() > MAX_CONTACT {
                return Err(RegisterOutcome::Refused(b"403 Contact Too Long"));
            }
            let binding = Binding {
                until: self.now.saturating_add(expires),
                cseq: self.request.cseq_number,
                call: self.hashes.call,
                transaction: self.hashes.transaction,
                q: contact.q.unwrap_or(NO_Q),
                uri: contact.address.uri,
                params,
            };
            add(list, &binding)?;
        }
        for binding in Bindings::at(self.old, self.now) {
            let uri = ContactUri::of(binding.uri);
            if !contacts(self.request).any(|contact| uri.is_same(contact.address.uri)) {
                add(list, &binding)?;
            }
        }
        Ok(())
    }

    /// Checks that the requests of one client are carried out in the order in which it sent them
    /// (section 10.3, steps 6 and 7). A retransmission of the request that made a binding changes
    /// nothing and gets the same answer: the first one was lost.
    fn may_change(&self, old: &Binding<'_>) -> Result<Order, RegisterOutcome> {
        if old.call != self.hashes.call || self.request.cseq_number > old.cseq {
            Ok(Order::Newer)
        } else if self.request.cseq_number == old.cseq && self.hashes.transaction == old.transaction {
            Ok(Order::Retransmission)
        } else {
            Err(RegisterOutcome::OutOfOrder)
        }
    }
}

/// The order of a request and the one that made a binding.
enum Order {
    Newer,
    Retransmission,
}

/// A URI to compare with others: SIP URIs by the rules of SIP, all others byte by byte.
struct ContactUri<'m> {
    text: &'m [u8],
    sip: Option<SipUri<'m>>,
}

impl<'m> ContactUri<'m> {
    fn of(text: &'m [u8]) -> ContactUri<'m> {
        let sip = match uri::parse(text) {
            Some(Uri::Sip(sip)) => Some(sip),
            _ => None,
        };
        ContactUri { text, sip }
    }

    fn is_same(&self, other: &[u8]) -> bool {
        if self.text == other {
            return true;
        }
        matches!((&self.sip, uri::parse(other)), (Some(one), Some(Uri::Sip(other))) if one.is_same(&other))
    }
}
