//! The location service's rules: REGISTER (RFC 3261 section 10.3) and who is where.
//!
//! Works on any store of bytes by key that changes one key at a time for all processes. Time is an argument.

use crate::address::{self, Contact, Contacts};
use crate::bindings::{self, Binding, Bindings, NO_Q};
use crate::chars::number;
use crate::message::{Name, Reason, Request};
use crate::uri::{self, SipUri, Uri};

/// Longest URI of a contact with its parameters, in bytes.
const MAX_CONTACT: usize = 1024;
/// Longest key of an address-of-record, in bytes.
pub const MAX_KEY: usize = 256;
/// A registrar may refuse what is shorter than its least time only below this, in seconds (section 10.3, step 7).
const ALWAYS_LONG_ENOUGH: u32 = 3600;
/// What an `expires` means that is no number (section 10.2.1.1), in seconds.
const UNREADABLE_EXPIRES: u32 = 3600;

/// What the configuration says.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Seconds.
    pub default_expires: u32,
    pub min_expires: u32,
    pub max_expires: u32,
    /// Bindings of one address-of-record.
    pub max_contacts: usize,
}

/// What becomes of the value of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Keep,
    /// Replaced by what was written.
    Put,
    Remove,
}

/// Why a store did not do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreError {
    /// No shared memory is left.
    Full,
    /// Anything else; the log has the reason.
    Failed,
}

/// Lists of bindings by address-of-record.
pub trait Store {
    /// Calls `read` with the list; empty if there is none. It does not change meanwhile.
    fn read<R>(&self, key: &[u8], read: impl FnOnce(&[u8]) -> R) -> Result<R, StoreError>;

    /// Calls `change` with the list and a buffer for a new one. No other process comes between reading and changing.
    fn update<R>(&self, key: &[u8], new: &mut Vec<u8>, change: impl FnOnce(&[u8], &mut Vec<u8>) -> (Change, R)) -> Result<R, StoreError>;
}

/// What became of a REGISTER.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registered {
    /// 200; the bindings that there are now have been written to the buffer.
    Done,
    /// 400
    Malformed(Reason),
    /// 423
    TooBrief,
    /// 403: too many or too long ones.
    Refused(&'static [u8]),
    /// 500: a REGISTER of the same client that was sent later came first.
    OutOfOrder,
    /// 503
    NoMemory,
    /// 500
    StoreFailed,
}

/// Buffers that keep their memory from one request to the next.
#[derive(Debug, Default)]
pub struct Buffers {
    pub list: Vec<u8>,
    unsorted: Vec<u8>,
    params: Vec<u8>,
}

/// Numbers that stand for the client's Call-ID and for the transaction.
#[derive(Debug, Clone, Copy)]
pub struct Marks {
    pub call: u64,
    pub transaction: u32,
}

/// Carries out a REGISTER for `key`. What it asks for is done as a whole or not at all.
pub fn register(
    store: &impl Store,
    limits: &Limits,
    key: &[u8],
    request: &Request<'_>,
    marks: Marks,
    now: u32,
    buffers: &mut Buffers,
) -> Registered {
    buffers.list.clear();
    let asked = match Asked::of(request, limits) {
        Ok(asked) => asked,
        Err(refusal) => return refusal,
    };
    let Buffers { list, unsorted, params } = buffers;
    let outcome = if let Asked::Nothing = asked {
        store.read(key, |old| {
            list.extend_from_slice(old);
            Registered::Done
        })
    } else {
        store.update(key, list, |old, list| {
            unsorted.clear();
            let update = Update { limits, request, marks, now, old };
            match update.make(&asked, unsorted, params) {
                Ok(()) => bindings::write_sorted(list, unsorted),
                Err(refusal) => return (Change::Keep, refusal),
            }
            let change = match (old.is_empty(), list.is_empty()) {
                (true, true) => Change::Keep,
                (false, true) => Change::Remove,
                (_, false) => Change::Put,
            };
            (change, Registered::Done)
        })
    };
    match outcome {
        Ok(registered) => registered,
        Err(StoreError::Full) => Registered::NoMemory,
        Err(StoreError::Failed) => Registered::StoreFailed,
    }
}

/// What a REGISTER asks for.
enum Asked {
    /// To be told what there is.
    Nothing,
    RemoveAll,
    /// What the contacts say, and how long where a contact does not say.
    Contacts {
        expires: u32,
    },
}

impl Asked {
    /// Looks at the whole request before anything is changed.
    fn of(request: &Request<'_>, limits: &Limits) -> Result<Asked, Registered> {
        if !request.has_contact {
            return Ok(Asked::Nothing);
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
                Contacts::Some(elements) => elements,
            };
            for contact in elements {
                let Ok(contact) = contact else { return Err(Registered::Malformed("Bad Contact")) };
                count += 1;
                let expires = contact.expires.map_or(default, seconds);
                if expires > 0 && expires < limits.min_expires.min(ALWAYS_LONG_ENOUGH) {
                    return Err(Registered::TooBrief);
                }
            }
        }
        match (stars, count) {
            (0, _) => Ok(Asked::Contacts { expires: default }),
            (1, 0) if header == Some(0) => Ok(Asked::RemoveAll),
            (1, 0) => Err(Registered::Malformed("A Contact of * Needs Expires: 0")),
            _ => Err(Registered::Malformed("A Contact of * Stands Alone")),
        }
    }
}

fn contact_fields<'m>(request: &Request<'m>) -> impl Iterator<Item = &'m [u8]> + use<'m> {
    request.fields.clone().filter(|field| field.name == Name::Contact).map(|field| field.value)
}

/// The contacts of a request that has been looked at.
fn contacts<'m>(request: &Request<'m>) -> impl Iterator<Item = Contact<'m>> + use<'m> {
    contact_fields(request)
        .filter_map(|field| match address::contacts(field) {
            Contacts::Some(elements) => Some(elements.filter_map(Result::ok)),
            Contacts::All => None,
        })
        .flatten()
}

/// A time that is too large for a number is the longest one.
fn seconds(text: &[u8]) -> u32 {
    match number(text, u32::MAX.into()) {
        Some(seconds) => seconds as u32,
        None if !text.is_empty() && text.iter().all(u8::is_ascii_digit) => u32::MAX,
        None => UNREADABLE_EXPIRES,
    }
}

/// The making of a new list out of an old one.
struct Update<'u> {
    limits: &'u Limits,
    request: &'u Request<'u>,
    marks: Marks,
    now: u32,
    old: &'u [u8],
}

impl Update<'_> {
    fn make(&self, asked: &Asked, list: &mut Vec<u8>, params: &mut Vec<u8>) -> Result<(), Registered> {
        let Asked::Contacts { expires } = *asked else {
            return Bindings::at(self.old, self.now).try_for_each(|binding| self.may_change(&binding).map(drop));
        };
        let mut count = 0;
        let mut add = |list: &mut Vec<u8>, binding: &Binding<'_>| {
            count += 1;
            if count > self.limits.max_contacts {
                return Err(Registered::Refused(b"403 Too Many Contacts"));
            }
            bindings::write(list, binding).ok_or(Registered::Refused(b"403 Contact Too Long"))
        };
        // What the request names comes first, so that it is preferred among equals.
        for (index, contact) in contacts(self.request).enumerate() {
            let target = Target::of(contact.address.uri);
            // The last word about a URI counts.
            if contacts(self.request).skip(index + 1).any(|later| target.is(later.address.uri)) {
                continue;
            }
            let old = Bindings::at(self.old, self.now).find(|binding| target.is(binding.uri));
            if let Some(old) = old
                && let Place::SeenBefore = self.may_change(&old)?
            {
                add(list, &old)?;
                continue;
            }
            let expires = contact.expires.map_or(expires, seconds).min(self.limits.max_expires);
            if expires == 0 {
                continue;
            }
            params.clear();
            for param in contact.others() {
                params.push(b';');
                params.extend_from_slice(param.name);
                if let Some(value) = param.value {
                    params.push(b'=');
                    params.extend(value.iter().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte }));
                }
            }
            if contact.address.uri.len() + params.len() > MAX_CONTACT {
                return Err(Registered::Refused(b"403 Contact Too Long"));
            }
            let binding = Binding {
                until: self.now.saturating_add(expires),
                cseq: self.request.cseq_number,
                call: self.marks.call,
                transaction: self.marks.transaction,
                q: contact.q.unwrap_or(NO_Q),
                uri: contact.address.uri,
                params,
            };
            add(list, &binding)?;
        }
        for binding in Bindings::at(self.old, self.now) {
            let target = Target::of(binding.uri);
            if !contacts(self.request).any(|contact| target.is(contact.address.uri)) {
                add(list, &binding)?;
            }
        }
        Ok(())
    }

    /// Requests of one client are carried out in the order of their sending (section 10.3, steps 6 and 7). A copy of the request that made
    /// a binding is no other request: its answer was lost, and it gets it again.
    fn may_change(&self, old: &Binding<'_>) -> Result<Place, Registered> {
        if old.call != self.marks.call || self.request.cseq_number > old.cseq {
            Ok(Place::Later)
        } else if self.request.cseq_number == old.cseq && self.marks.transaction == old.transaction {
            Ok(Place::SeenBefore)
        } else {
            Err(Registered::OutOfOrder)
        }
    }
}

/// Where a request stands in relation to the one that made a binding.
enum Place {
    Later,
    SeenBefore,
}

/// A URI to compare others with: as SIP says for SIP URIs, byte by byte for others.
struct Target<'m> {
    text: &'m [u8],
    sip: Option<SipUri<'m>>,
}

impl<'m> Target<'m> {
    fn of(text: &'m [u8]) -> Target<'m> {
        let sip = match uri::parse(text) {
            Some(Uri::Sip(sip)) => Some(sip),
            _ => None,
        };
        Target { text, sip }
    }

    fn is(&self, other: &[u8]) -> bool {
        if self.text == other {
            return true;
        }
        matches!((&self.sip, uri::parse(other)), (Some(one), Some(Uri::Sip(other))) if one.is_same(&other))
    }
}
