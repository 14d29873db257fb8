//! Serving connections: one loop that waits for sockets, reads, calls handlers, and sends what they have queued.
//!
//! *Runs in:* TCP workers, main in no-fork mode. *Never:* lets one connection's handler, speed or greed stop the others; never allocates
//! for a request that arrives whole and whose answer the kernel takes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use module_api::abi;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::connection::{Connection, Ending, Reason};
use super::directory::Directory;
use super::exchange::{Close, Exchange};
use super::link::{self, Message};
use super::sender;
use super::tls::Received;
use crate::config::Accept;
use crate::error::{EXIT_FAILED, EXIT_FAULT, EXIT_OK, Error, Result};
use crate::module::call;
use crate::net::listener::{self, Listener};
use crate::net::udp::GaveUp;
use crate::process::phase::Phase;
use crate::stats::{HostCounter, HostCounters};
use crate::sys::descriptor;
use crate::sys::process::signal;
use crate::sys::socket::seqpacket::Link;
use crate::sys::time;
use crate::tls::CurrentCertificates;

mod agree;
mod end;
mod open;
mod room;

/// One read takes at most this.
const INPUT_BYTES: usize = 64 << 10;
/// Reads of one connection before others get their turn.
const READS_IN_A_ROW: usize = 8;
/// Sockets that are looked at between two waits.
const EVENTS: usize = 256;
/// How long a connection is read from after our last byte, so that the peer gets it.
const LINGER_NS: u64 = 2_000_000_000;
/// Noted moments that are not worth a clean-up.
const LOOKS_TO_KEEP: usize = 4096;
/// Token of the link; listeners follow. Connections have their slot.
const LINK: u64 = 1 << 32;
const LISTENERS: u64 = LINK + 1;
/// Tokens of the links of others, in no-fork mode.
const GUESTS: u64 = 1 << 33;

/// What a TCP worker does for its whole life. Returns the exit code.
pub fn work(
    directory: Directory,
    index: usize,
    listeners: &'static [Listener],
    link: &'static Link,
    tls: Result<Option<CurrentCertificates>>,
) -> u8 {
    let server = signal::stop_by_flag().and_then(|()| ConnectionServer::new(directory, index, listeners, Some(link), tls?));
    let mut server = match server {
        Ok(server) => server,
        Err(error) => {
            tracing::error!("{error}");
            return EXIT_FAILED;
        }
    };
    while !signal::stop_requested() {
        match server.turn(None) {
            Ok(()) => {}
            Err(GaveUp(code)) => return code,
        }
    }
    server.finish();
    EXIT_OK
}

/// The connections of one process.
#[derive(Debug)]
pub struct ConnectionServer {
    epoll: Epoll,
    directory: Directory,
    index: usize,
    listeners: &'static [Listener],
    /// What it accepts from, with the listener's place.
    sockets: Vec<(usize, BorrowedFd<'static>)>,
    link: Option<&'static Link>,
    /// In no-fork mode: the links of processes that modules have forked, which otherwise end in TCP main.
    guests: Vec<&'static Link>,
    /// By slot.
    connections: Vec<Option<Box<Connection>>>,
    free: Vec<u32>,
    exchange: Rc<Exchange>,
    input: Vec<u8>,
    /// Empty vectors with memory, for bytes that were not used.
    spare: Vec<Vec<u8>>,
    events: Vec<EpollEvent>,
    /// Slots that had more to read than their turn allowed.
    again: Vec<u32>,
    /// Moments at which to look at a connection: at the earliest of its limits, or before.
    looks: BinaryHeap<Reverse<(u64, u32, u64)>>,
    messages: Vec<u8>,
    /// The certificates, if a listener has some.
    tls: Option<CurrentCertificates>,
    /// Room for what is encrypted; has memory from the first connection with TLS on.
    wire: Vec<u8>,
    counts: HostCounters,
    now_ns: u64,
}

impl ConnectionServer {
    /// Makes this process a server; `index` among the TCP workers. What a predecessor had is over.
    pub fn new(
        directory: Directory,
        index: usize,
        listeners: &'static [Listener],
        link: Option<&'static Link>,
        tls: Option<CurrentCertificates>,
    ) -> Result<Self> {
        let failed = |errno: Errno| Error::failed("cannot wait for connections").detail(format!("epoll: {errno}"));
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed)?;
        directory
            .adopt(index, directory.noted_slots(index))
            .map_err(|errno| Error::failed("cannot take over from the worker before").detail(format!("the lock of limits: {errno}")))?;
        if let Some(link) = link {
            epoll.add(link, EpollEvent::new(EpollFlags::EPOLLIN, LINK)).map_err(failed)?;
        }
        // Without a link there is nobody else to accept.
        let sockets = listener::accepted_by(listeners, |accept| accept == Accept::Workers || link.is_none());
        for (token, (_, socket)) in (LISTENERS..).zip(&sockets) {
            epoll.add(socket, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE, token)).map_err(failed)?;
        }
        if link.is_none() {
            descriptor::keep_private(epoll.0.as_fd());
        }
        let exchange = Exchange::of_this_thread();
        exchange.serve_as(index);
        Ok(Self {
            epoll,
            guests: Vec::new(),
            directory,
            index,
            listeners,
            sockets,
            link,
            connections: Vec::new(),
            free: Vec::new(),
            exchange,
            input: vec![0; INPUT_BYTES],
            spare: Vec::new(),
            events: vec![EpollEvent::empty(); EVENTS],
            again: Vec::new(),
            looks: BinaryHeap::new(),
            messages: Vec::new(),
            tls,
            wire: Vec::new(),
            counts: HostCounters::of_this_process(),
            now_ns: time::now_ns(),
        })
    }

    /// Hears the link of another process, too.
    pub fn hear_guest(&mut self, link: &'static Link) -> Result<()> {
        let token = GUESTS + self.guests.len() as u64;
        self.epoll
            .add(link, EpollEvent::new(EpollFlags::EPOLLIN, token))
            .map_err(|errno| Error::failed("cannot wait for connections").detail(format!("epoll_ctl: {errno}")))?;
        self.guests.push(link);
        Ok(())
    }

    /// Readable when there is something to do; see `next_look_ns` too.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }

    /// When `turn` wants to be called even if nothing happens.
    pub fn next_look_ns(&self) -> Option<u64> {
        if !self.again.is_empty() || self.exchange.is_waiting() {
            return Some(self.now_ns);
        }
        self.looks.peek().map(|Reverse((at_ns, ..))| *at_ns)
    }

    /// Waits until something happens, at most until `until_ns`, and deals with it.
    pub fn turn(&mut self, until_ns: Option<u64>) -> Result<(), GaveUp> {
        let until_ns = self.next_look_ns().into_iter().chain(until_ns).min();
        let timeout = match until_ns {
            None => EpollTimeout::NONE,
            Some(at_ns) => {
                let left_ms = at_ns.saturating_sub(time::now_ns()).div_ceil(1_000_000);
                EpollTimeout::try_from(left_ms.min(i32::MAX as u64) as i32).unwrap_or(EpollTimeout::ZERO)
            }
        };
        let mut events = std::mem::take(&mut self.events);
        let count = match self.epoll.wait(&mut events, timeout) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(errno) => {
                tracing::error!("cannot wait for connections: epoll_wait: {errno}");
                return Err(GaveUp(EXIT_FAILED));
            }
        };
        self.now_ns = time::now_ns();
        let outcome = self.serve(&events[..count]);
        self.events = events;
        outcome?;
        for slot in std::mem::take(&mut self.again) {
            self.with(slot, Self::go_on)?;
        }
        let arrivals = std::mem::take(&mut *self.exchange.arrivals.borrow_mut());
        for arrival in arrivals {
            self.open(arrival)?;
        }
        self.deliver_mail()?;
        self.look()
    }

    fn serve(&mut self, events: &[EpollEvent]) -> Result<(), GaveUp> {
        for event in events {
            match event.data() {
                LINK => self.hear(self.link)?,
                token if token >= GUESTS => self.hear(self.guests.get((token - GUESTS) as usize).copied())?,
                token if token > LINK => self.accept((token - LISTENERS) as usize)?,
                slot => {
                    let flags = event.events();
                    self.with(slot as u32, |server, connection| server.happened(connection, flags))?;
                }
            }
        }
        Ok(())
    }

    /// Does something with a connection, if it exists, and ends it if it is over then.
    fn with(&mut self, slot: u32, act: impl FnOnce(&mut Self, &mut Connection) -> Result<(), GaveUp>) -> Result<(), GaveUp> {
        let Some(mut connection) = self.connections.get_mut(slot as usize).and_then(Option::take) else { return Ok(()) };
        let outcome = act(self, &mut connection);
        self.settle(slot, connection);
        outcome
    }

    /// Puts a connection back to its place, or ends it.
    fn settle(&mut self, slot: u32, mut connection: Box<Connection>) {
        if connection.ending != Ending::Lingering
            && let Some(reason) = connection.over
        {
            self.close(&mut connection, reason);
        }
        if connection.over.is_some() {
            if self.link.is_none() {
                descriptor::forget_private(connection.socket().as_fd());
            }
            drop(connection);
            self.free.push(slot);
            return;
        }
        let deadline_ns = connection.deadline_ns();
        if deadline_ns < connection.look_ns {
            connection.look_ns = deadline_ns;
            self.looks.push(Reverse((deadline_ns, slot, connection.id.0)));
        }
        self.connections[slot as usize] = Some(connection);
        if self.looks.len() > LOOKS_TO_KEEP + 4 * self.connections.len() {
            // Most are for connections that are over.
            let looks = self.connections.iter().flatten().filter(|connection| connection.look_ns != u64::MAX);
            self.looks = looks.map(|connection| Reverse((connection.look_ns, connection.id.slot() as u32, connection.id.0))).collect();
        }
    }

    /// Tells the handler that it is over. Afterwards `over` is none if the socket is to linger.
    fn close(&mut self, connection: &mut Connection, reason: Reason) {
        if let Err(errno) = self.directory.close(connection.id) {
            tracing::error!("a connection that is over stays counted: the lock of limits: {errno}");
        }
        self.counts.add(HostCounter::closed(reason), 1);
        self.counts.take_one(HostCounter::ConnectionsNow);
        if connection.opened
            && let Some(on_close) = connection.service.functions.on_close
        {
            connection.opened = false;
            let stream = &raw mut connection.stream;
            call::enter(connection.listener.module, Phase::Stream, || {
                on_close(stream, reason);
                0
            });
        }
        if !connection.unused.is_empty() {
            self.keep(std::mem::take(&mut connection.unused));
            // The peer has sent what nobody has read, and may be sending more: to close now would reset the connection.
            connection.readable = true;
        }
        if matches!(reason, abi::CLOSED_BY_TIMEOUT | abi::CLOSED_BY_STOP) && connection.is_sent() {
            connection.say_goodbye();
        }
        if !connection.is_sent() {
            // Otherwise what was sent would pass for everything, and the kernel would keep it for a peer that takes nothing.
            connection.reset_on_close();
        }
        connection.output.clear();
        let lingers = reason == abi::CLOSED_NORMALLY && !connection.peer_ended && connection.readable;
        if lingers {
            connection.end_sending();
            connection.ending = Ending::Lingering;
            connection.lingers_until_ns = self.now_ns + LINGER_NS;
            connection.over = None;
            self.drop_input(connection);
            if connection.over.is_none() {
                self.watch(connection);
            }
        }
    }

    /// Reads and forgets, on a connection that lingers.
    fn drop_input(&mut self, connection: &mut Connection) {
        loop {
            match connection.receive_raw(&mut self.input) {
                Ok(0) => connection.over = Some(abi::CLOSED_NORMALLY),
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => {}
                Err(_) => connection.over = Some(abi::CLOSED_BY_PEER),
            }
            return;
        }
    }

    /// The kernel says that something has happened to a connection.
    fn happened(&mut self, connection: &mut Connection, flags: EpollFlags) -> Result<(), GaveUp> {
        if connection.ending == Ending::Lingering {
            self.drop_input(connection);
            return Ok(());
        }
        if flags.intersects(EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
            connection.hung_up = true;
            connection.readable = true;
        }
        // A hang-up is both directions; ours ends by our own wish only after the end of the queue.
        connection.broken |=
            flags.contains(EpollFlags::EPOLLERR) || flags.contains(EpollFlags::EPOLLHUP) && connection.ending != Ending::SendingSideEnded;
        if flags.contains(EpollFlags::EPOLLIN) {
            connection.readable = true;
        }
        if flags.contains(EpollFlags::EPOLLOUT) && !connection.is_sent() && !connection.is_agreeing() {
            self.send_more(connection)?;
        }
        self.go_on(connection)
    }

    /// Reads and calls the handler as long as it makes sense.
    fn go_on(&mut self, connection: &mut Connection) -> Result<(), GaveUp> {
        if connection.is_agreeing() && !self.agree(connection)? {
            return Ok(());
        }
        self.relieve(connection)?;
        if connection.stopped_by_full && connection.wants_data() {
            connection.stopped_by_full = false;
            self.give_again(connection)?;
        }
        let mut reads = 0;
        while connection.readable && connection.wants_data() {
            if reads == READS_IN_A_ROW {
                self.again.push(connection.id.slot() as u32);
                return Ok(());
            }
            reads += 1;
            match connection.receive(&mut self.input, &mut self.wire) {
                Ok(Received { count: 0, .. }) => {
                    connection.readable = false;
                    connection.peer_ended = true;
                }
                Ok(Received { count, is_all }) => {
                    connection.active_ns = self.now_ns;
                    self.counts.add(HostCounter::BytesIn, count as u64);
                    // What comes later is a new event, unless the end is there already.
                    if is_all && !connection.hung_up {
                        connection.readable = false;
                    }
                    self.give(connection, count)?;
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => connection.readable = false,
                Err(_) => connection.over = Some(abi::CLOSED_BY_PEER),
            }
        }
        if connection.peer_ended && !connection.end_told && connection.wants_data() {
            connection.end_told = true;
            self.tell_end(connection)?;
        }
        if connection.broken && !connection.wants_data() && connection.over.is_none() {
            // Nobody reads, so nobody would ever notice.
            connection.over = Some(abi::CLOSED_BY_PEER);
        }
        Ok(())
    }

    /// Gives the first bytes of the input to the handler, behind what it has not used before.
    fn give(&mut self, connection: &mut Connection, count: usize) -> Result<(), GaveUp> {
        if connection.unused.is_empty() {
            let input = std::mem::take(&mut self.input);
            let outcome = self.offer(connection, &input[..count]);
            if let Ok(used) = outcome
                && used < count
                && connection.over.is_none()
            {
                connection.unused = self.spare.pop().unwrap_or_default();
                connection.unused.extend_from_slice(&input[used..count]);
                connection.unused_since_ns = self.now_ns;
            }
            self.input = input;
            outcome?;
        } else {
            connection.unused.extend_from_slice(&self.input[..count]);
            self.give_again(connection)?;
        }
        if connection.unused.len() >= connection.service.options.input_limit_bytes && connection.wants_data() {
            tracing::debug!("a handler leaves too much unused listener=\"{}\" bytes={}", connection.listener, connection.unused.len());
            connection.over = Some(abi::CLOSED_BY_LIMIT);
        }
        Ok(())
    }

    /// Gives what was not used once more.
    fn give_again(&mut self, connection: &mut Connection) -> Result<(), GaveUp> {
        let mut unused = std::mem::take(&mut connection.unused);
        let used = self.offer(connection, &unused)?;
        if used == unused.len() {
            connection.unused_since_ns = 0;
            self.keep(unused);
            return Ok(());
        }
        if used > 0 {
            // The next request begins here.
            connection.unused_since_ns = self.now_ns;
            unused.drain(..used);
        }
        connection.unused = unused;
        Ok(())
    }

    /// Keeps a vector's memory for another connection, if it is of the usual size and few are kept.
    fn keep(&mut self, mut vector: Vec<u8>) {
        if vector.capacity() <= 2 * INPUT_BYTES && self.spare.len() < 16 {
            vector.clear();
            self.spare.push(vector);
        }
    }

    /// Calls the handler with bytes, again and again while it uses some but had to stop because the queue was full, and there is room
    /// again. Returns how many it has used.
    fn offer(&mut self, connection: &mut Connection, data: &[u8]) -> Result<usize, GaveUp> {
        let on_data = connection.service.functions.on_data;
        let mut used = 0;
        while used < data.len() && connection.wants_data() {
            let rest = &data[used..];
            let mut now_used = 0;
            self.call(connection, |stream| {
                let outcome = on_data(stream, rest.as_ptr(), rest.len());
                match usize::try_from(outcome) {
                    Ok(count) if count <= rest.len() => {
                        now_used = count;
                        abi::OK
                    }
                    Ok(_) => abi::E_INVALID,
                    Err(_) => i32::try_from(outcome).unwrap_or(abi::E_FAILED),
                }
            })?;
            used += now_used;
            let refused = self.exchange.was_refused();
            self.relieve(connection)?;
            if refused && used < data.len() {
                connection.stopped_by_full = connection.full;
            }
            // Nothing used and nothing refused: it needs more bytes. Something used, nothing refused: the same.
            if !refused {
                break;
            }
        }
        Ok(used)
    }

    /// One call into the handler, and carrying out what it has asked for.
    #[inline]
    fn call(&mut self, connection: &mut Connection, function: impl FnOnce(*mut abi::Stream) -> i32) -> Result<(), GaveUp> {
        let stream = &raw mut connection.stream;
        self.exchange.begin(stream, connection.output.queued_bytes(), connection.service.options.output_limit_bytes as u64);
        let code = call::enter(connection.listener.module, Phase::Stream, || function(stream));
        let (close, read) = self.exchange.end();
        if let Some(read) = read {
            connection.paused = !read;
        }
        if !self.exchange.is_empty() {
            self.send(connection);
        }
        if self.exchange.was_refused() {
            self.note_refusal(connection);
        }
        if let Some(close) = close {
            self.end(connection, close);
        }
        if code < 0 { self.failed(connection, code) } else { Ok(()) }
    }

    /// A function of the handler has failed: this connection is over. A panic ends the process.
    #[cold]
    fn failed(&mut self, connection: &mut Connection, code: i32) -> Result<(), GaveUp> {
        let (module, handler) = (&connection.listener.module.name, &connection.listener.handler);
        let text = call::error_text();
        connection.over = Some(abi::CLOSED_BY_ERROR);
        if code == abi::E_PANIC {
            call::ends_after(connection.listener.module, Phase::Stream);
            tracing::error!("a stream handler panicked module=\"{module}\" handler=\"{handler}\" error=\"{text}\"");
            return Err(GaveUp(EXIT_FAULT));
        }
        tracing::debug!("a stream handler failed module=\"{module}\" handler=\"{handler}\" code={code} error=\"{text}\"");
        Ok(())
    }

    /// Sends what the call has queued, behind what was queued before.
    #[inline]
    fn send(&mut self, connection: &mut Connection) {
        let sent = self.exchange.carry_out(|bytes, files| {
            if connection.output.is_empty() && files.is_empty() {
                let sent = connection.send_now(bytes)?;
                connection.output.push(&bytes[sent..]);
                return Ok((sent > 0).then_some(sent as u64));
            }
            let mut from = 0;
            for piece in files {
                connection.output.push(&bytes[from..piece.after_bytes]);
                from = piece.after_bytes;
                connection.output.push_file(piece.file, piece.offset, piece.bytes);
            }
            connection.output.push(&bytes[from..]);
            let (queued, before) = (connection.output.queued_bytes(), connection.progress());
            connection.drain()?;
            Ok(connection.moved(queued, before))
        });
        self.sent(connection, sent);
    }

    /// After an attempt to send: how many bytes have left, if anything has moved.
    fn sent(&mut self, connection: &mut Connection, progress: Result<Option<u64>, Errno>) {
        match progress {
            Ok(None) => {}
            Ok(Some(count)) => {
                connection.active_ns = self.now_ns;
                self.counts.add(HostCounter::BytesOut, count);
            }
            Err(errno) => {
                tracing::debug!("a connection broke listener=\"{}\": send: {errno}", connection.listener);
                connection.output.clear();
                connection.over = Some(abi::CLOSED_BY_PEER);
                return;
            }
        }
        if connection.output.queued_bytes() >= connection.service.options.output_limit_bytes as u64 && !connection.full {
            connection.full = true;
            self.directory.set_full(connection.id, true);
        }
    }

    /// The kernel takes more.
    fn send_more(&mut self, connection: &mut Connection) -> Result<(), GaveUp> {
        let (queued, before) = (connection.output.queued_bytes(), connection.progress());
        // What TLS owes may leave while the queue stays as it is: progress, but no byte of the handler's.
        let moved =
            |connection: &Connection| if connection.progress() == before { None } else { Some(queued - connection.output.queued_bytes()) };
        let progress = connection.drain().map(|_| moved(connection));
        self.sent(connection, progress);
        if connection.over.is_some() {
            return Ok(());
        }
        self.relieve(connection)?;
        self.ended(connection);
        Ok(())
    }

    /// The handler wants to end it.
    fn end(&mut self, connection: &mut Connection, how: Close) {
        match (how, connection.ending) {
            (Close::Now, _) => {
                connection.reset_on_close();
                connection.output.clear();
                // A reset is no end that lingers.
                connection.peer_ended = true;
                connection.over = Some(abi::CLOSED_NORMALLY);
            }
            (Close::AfterSending, _) => connection.ending = Ending::AfterSending,
            (Close::SendingSide, Ending::No) => connection.ending = Ending::SendingSide,
            (Close::SendingSide, _) => {}
        }
        self.ended(connection);
    }

    /// What it wanted to end after sending, if everything is sent.
    fn ended(&mut self, connection: &mut Connection) {
        if !connection.is_sent() || connection.over.is_some() {
            return;
        }
        if matches!(connection.ending, Ending::AfterSending | Ending::SendingSide) && !connection.say_goodbye() {
            return;
        }
        match connection.ending {
            Ending::AfterSending => connection.over = Some(abi::CLOSED_NORMALLY),
            Ending::SendingSide => {
                connection.end_sending();
                connection.ending = Ending::SendingSideEnded;
            }
            Ending::No | Ending::SendingSideEnded | Ending::Lingering => {}
        }
        if connection.ending == Ending::SendingSideEnded && connection.end_told {
            connection.over = Some(abi::CLOSED_NORMALLY);
        }
    }

    /// The peer has finished sending.
    fn tell_end(&mut self, connection: &mut Connection) -> Result<(), GaveUp> {
        let unused = connection.unused.len();
        match connection.service.functions.on_end {
            Some(on_end) => self.call(connection, |stream| on_end(stream, unused))?,
            None => self.end(connection, Close::AfterSending),
        }
        self.ended(connection);
        Ok(())
    }

    /// Takes what waits in a link.
    fn hear(&mut self, link: Option<&'static Link>) -> Result<(), GaveUp> {
        let Some(link) = link else { return Ok(()) };
        if self.messages.is_empty() {
            self.messages.resize(link::MESSAGE_BYTES, 0);
        }
        loop {
            let handed = self.directory.handed(self.index);
            let mut messages = std::mem::take(&mut self.messages);
            let message = link::receive(link, &mut messages);
            let outcome = match message {
                Ok(Message::Arrivals(arrivals)) => arrivals.into_iter().try_for_each(|arrival| self.open(arrival)),
                Ok(Message::Bytes(request, bytes)) => {
                    sender::take(&self.exchange, self.directory, link, request, bytes);
                    Ok(())
                }
                // An answer that came too late.
                Ok(Message::Answer(..)) => Ok(()),
                Err(Errno::EAGAIN) => {
                    self.messages = messages;
                    self.directory.taken(self.index, handed);
                    return Ok(());
                }
                Err(Errno::EBADMSG) => {
                    tracing::error!(target: "fault", "a message in a link makes no sense");
                    Ok(())
                }
                Err(errno) => {
                    tracing::error!("cannot hear the TCP main process: recvmsg: {errno}");
                    Err(GaveUp(EXIT_FAILED))
                }
            };
            self.messages = messages;
            outcome?;
        }
    }

    /// Queues what other processes have sent, and handlers of this one.
    fn deliver_mail(&mut self) -> Result<(), GaveUp> {
        while let Some(mail) = self.exchange.next_mail() {
            self.with(mail.id.slot() as u32, |server, connection| {
                if connection.id == mail.id && matches!(connection.ending, Ending::No) {
                    connection.output.push(&mail.bytes);
                    let (queued, before) = (connection.output.queued_bytes(), connection.progress());
                    let progress = connection.drain().map(|_| connection.moved(queued, before));
                    server.sent(connection, progress);
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}
