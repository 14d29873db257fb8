//! `http.routes`: other modules answer requests of a web server.
//!
//! The importer of [`Routes`] adds its routes in `init`. Each route has a function, which is called
//! in the process that got the request:
//!
//! ```standalone_crate
//! use module_api::interface::Callback;
//! use module_api::interfaces::http::{Answering, Exchange, RouteMatch, Routes};
//! use module_api::prelude::*;
//!
//! struct Hello;
//! impl Module for Hello {
//!     type Params = ();
//!     type Child = ();
//!     fn init(cx: &mut ModInit<'_, Self>, _: ()) -> Result<Self> {
//!         let routes: Routes = cx.interface()?;
//!         let hello: Callback<Answering> = cx.callback(|_: &Hello, (), mut exchange: Exchange<'_>| {
//!             exchange.add_header(b"content-type", b"text/plain")?;
//!             exchange.write(b"hello\n")
//!         });
//!         routes.add("GET", "/hello", RouteMatch::Exact, hello)?;
//!         Ok(Hello)
//!     }
//!     fn child_init(&self, _: &mut ChildInit<'_>) -> Result<()> {
//!         Ok(())
//!     }
//! }
//! module_api::export_module! { Hello, name: "hello", binds: [Routes] }
//! # fn main() {}
//! ```
//!
//! The exporter implements [`ExportRoutes`], keeps the callbacks, and passes each request to
//! [`serve`] as a [`Server`].

use std::ffi::c_void;
use std::marker::PhantomData;
use std::net::SocketAddr;

use crate::interface::{Arg, Bytes, Callback, Subject, blamed};
use crate::sockaddr::{self, RawAddress};
use crate::{Error, Result, abi};

crate::interface! {
    /// Routes of a web server.
    pub interface Routes "http.routes" 1.0, exported by ExportRoutes {
        /// Has requests for `path` answered by `answer`. `%XX` in `path` is decoded to that byte,
        /// as in requests. `method` is in capitals; `GET` also answers `HEAD`, and an empty method
        /// answers every one. In `init` and `proc_init` only. It is an error if the route exists
        /// already, or if no request can have the path: without a slash at its beginning, with a
        /// query, control characters, a malformed `%`, `%2F`, or a segment `.` or `..`.
        fn add(method: &str, path: &str, matching: RouteMatch, answer: Callback<Answering>);
    }
}

/// The paths that a route answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteMatch {
    /// Its path alone.
    Exact,
    /// Its path and every path below.
    Prefix,
}

// SAFETY: a `u32` in C, as `bool` is, whose name it has: `Exact` is 0, and every other value is
// read as `Prefix`.
unsafe impl Arg for RouteMatch {
    type Raw = u32;
    const NAME: &'static str = <bool as Arg>::NAME;
    fn lower(self) -> u32 {
        (self == RouteMatch::Prefix).into()
    }
    unsafe fn lift(raw: u32) -> Result<RouteMatch> {
        Ok(if raw == 0 { RouteMatch::Exact } else { RouteMatch::Prefix })
    }
}

c_struct! {
    /// The argument of an answering function: the request, and how to answer it.
    #[repr(C)]
    pub struct RawExchange as modhost_http_exchange without EMPTY {
        /// Size of this struct in bytes.
        pub size: u32,
        /// Zero.
        pub reserved: u32,
        /// Such as `GET`.
        pub method: Bytes,
        /// Decoded, without the query.
        pub path: Bytes,
        /// The part after the question mark, as it was sent.
        pub query: Bytes,
        /// The whole body.
        pub body: Bytes,
        /// For the server's use.
        pub server: *mut c_void,
        /// Writes the value of a request's header; the name is compared case-insensitively. Returns
        /// 0, or `E_INVALID` if there is no such header.
        pub header: Option<extern "C" fn(exchange: *mut RawExchange, name: Bytes, value: *mut Bytes) -> i32>,
        /// Sets the answer's status code; without this call it is 200. Returns 0 or a negative
        /// code.
        pub set_status: Option<extern "C" fn(exchange: *mut RawExchange, status: u32) -> i32>,
        /// Adds a header to the answer. Returns 0 or a negative code.
        pub add_header: Option<extern "C" fn(exchange: *mut RawExchange, name: Bytes, value: Bytes) -> i32>,
        /// Appends to the answer's body. Returns 0 or a negative code.
        pub write: Option<extern "C" fn(exchange: *mut RawExchange, data: Bytes) -> i32>,
        /// Address of the client: a `struct sockaddr_in` or `sockaddr_in6`; empty over a Unix
        /// socket.
        pub peer: Bytes,
    }
}

/// The subject of an answering function: its [`Callback`] gets an [`Exchange`].
#[derive(Debug)]
pub enum Answering {}

// SAFETY: the name belongs to the struct above, which grows at its end only.
unsafe impl Subject for Answering {
    type Raw = RawExchange;
    type View<'a> = Exchange<'a>;
    const NAME: &'static str = "callback(http.exchange)";
    unsafe fn view<'a>(raw: *mut RawExchange) -> Exchange<'a> {
        Exchange { raw, call: PhantomData }
    }
}

/// A request, and how to answer it. Valid until the answering function returns.
pub struct Exchange<'a> {
    raw: *mut RawExchange,
    call: PhantomData<&'a mut RawExchange>,
}

impl Exchange<'_> {
    fn raw(&self) -> &RawExchange {
        // SAFETY: the subject of a callback, valid for the lifetime of `self`.
        unsafe { &*self.raw }
    }

    /// The method, such as `GET`.
    pub fn method(&self) -> &[u8] {
        // SAFETY: the server's bytes, valid as long as `self`.
        unsafe { self.raw().method.slice() }
    }

    /// The path, decoded, without the query.
    pub fn path(&self) -> &[u8] {
        // SAFETY: as above.
        unsafe { self.raw().path.slice() }
    }

    /// The part after the question mark, as it was sent.
    pub fn query(&self) -> &[u8] {
        // SAFETY: as above.
        unsafe { self.raw().query.slice() }
    }

    /// The whole body.
    pub fn body(&self) -> &[u8] {
        // SAFETY: as above.
        unsafe { self.raw().body.slice() }
    }

    /// Address of the client as the server sees it: of the proxy, if there is one. None over a Unix
    /// socket.
    pub fn peer(&self) -> Option<SocketAddr> {
        // SAFETY: as above.
        sockaddr::decode(unsafe { self.raw().peer.slice() })?.inet()
    }

    /// The value of a header of the request; the name is compared case-insensitively.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let mut value = Bytes::of(&[]);
        let code = (self.raw().header?)(self.raw, Bytes::of(name.as_bytes()), &raw mut value);
        // SAFETY: as above.
        (code == abi::OK).then(|| unsafe { value.slice() })
    }

    /// Sets the answer's status code, 200 to 599. Without this call it is 200.
    ///
    /// # Errors
    /// If `status` is out of that range.
    pub fn set_status(&mut self, status: u16) -> Result<()> {
        let function = self.raw().set_status.ok_or_else(incomplete)?;
        crate::interface::outcome("http.exchange", "set_status", function(self.raw, status.into()))
    }

    /// Adds a header to the answer. The server adds the one for its length.
    ///
    /// # Errors
    /// If `name` or `value` contains bytes that a header cannot have.
    pub fn add_header(&mut self, name: &[u8], value: &[u8]) -> Result<()> {
        let function = self.raw().add_header.ok_or_else(incomplete)?;
        crate::interface::outcome("http.exchange", "add_header", function(self.raw, Bytes::of(name), Bytes::of(value)))
    }

    /// Appends to the answer's body.
    ///
    /// # Errors
    /// If the server takes no more.
    pub fn write(&mut self, data: &[u8]) -> Result<()> {
        let function = self.raw().write.ok_or_else(incomplete)?;
        crate::interface::outcome("http.exchange", "write", function(self.raw, Bytes::of(data)))
    }
}

#[cold]
fn incomplete() -> Error {
    Error::new("the web server left out a function of the exchange")
}

/// One request as its server sees it, for [`serve`].
pub trait Server {
    /// The method, such as `GET`.
    fn method(&self) -> &[u8];
    /// The path, decoded, without the query.
    fn path(&self) -> &[u8];
    /// The part after the question mark, as it was sent.
    fn query(&self) -> &[u8];
    /// The whole body.
    fn body(&self) -> &[u8];
    /// Address of the client. None over a Unix socket.
    fn peer(&self) -> Option<SocketAddr>;
    /// The value of a header of the request; the name is compared case-insensitively.
    fn header(&self, name: &[u8]) -> Option<&[u8]>;
    /// Sets the answer's status code.
    ///
    /// # Errors
    /// If no answer can have it.
    fn set_status(&mut self, status: u32) -> Result<()>;
    /// Adds a header to the answer.
    ///
    /// # Errors
    /// If `name` or `value` contains bytes that a header cannot have.
    fn add_header(&mut self, name: &[u8], value: &[u8]) -> Result<()>;
    /// Appends to the answer's body.
    ///
    /// # Errors
    /// If the server takes no more.
    fn write(&mut self, data: &[u8]) -> Result<()>;
}

/// Lets the module that added a route answer a request. Any process, in the thread in which the
/// host calls modules.
///
/// # Errors
/// The error of the answering function; what it wrote before is not an answer.
pub fn serve(answer: &Callback<Answering>, server: &mut dyn Server) -> Result<()> {
    let (method, path) = (Bytes::of(server.method()), Bytes::of(server.path()));
    let (query, body) = (Bytes::of(server.query()), Bytes::of(server.body()));
    let peer = server.peer().map_or_else(RawAddress::empty, RawAddress::inet);
    let mut server = server;
    let mut exchange = RawExchange {
        size: size_of::<RawExchange>() as u32,
        reserved: 0,
        method,
        path,
        query,
        body,
        server: (&raw mut server).cast(),
        header: Some(header),
        set_status: Some(set_status),
        add_header: Some(add_header),
        write: Some(write),
        peer: Bytes { ptr: peer.as_ptr(), len: peer.len() as usize },
    };
    // SAFETY: the exchange is a local of this function, and only the callback uses it until it
    // returns.
    unsafe { answer.call(&raw mut exchange) }
}

/// Calls the server of an exchange.
fn with_server(exchange: *mut RawExchange, body: impl FnOnce(&mut dyn Server) -> Result<()>) -> i32 {
    blamed(|| {
        // SAFETY: `serve` made the exchange from a `&mut dyn Server` that outlives it. The
        // answering module calls one function at a time.
        body(unsafe { *(*exchange).server.cast::<&mut dyn Server>() })
    })
}

extern "C" fn header(exchange: *mut RawExchange, name: Bytes, value: *mut Bytes) -> i32 {
    let mut found = false;
    let code = with_server(exchange, |server| {
        // SAFETY: the other module's bytes, valid for the call.
        if let Some(bytes) = server.header(unsafe { name.slice() }) {
            found = true;
            // SAFETY: the other module passes memory for the value.
            unsafe { value.write(Bytes::of(bytes)) };
        }
        Ok(())
    });
    if code == abi::OK && !found { abi::E_INVALID } else { code }
}

extern "C" fn set_status(exchange: *mut RawExchange, status: u32) -> i32 {
    with_server(exchange, |server| server.set_status(status))
}

extern "C" fn add_header(exchange: *mut RawExchange, name: Bytes, value: Bytes) -> i32 {
    // SAFETY: the other module's bytes, valid for the call.
    with_server(exchange, |server| server.add_header(unsafe { name.slice() }, unsafe { value.slice() }))
}

extern "C" fn write(exchange: *mut RawExchange, data: Bytes) -> i32 {
    // SAFETY: the other module's bytes, valid for the call.
    with_server(exchange, |server| server.write(unsafe { data.slice() }))
}
