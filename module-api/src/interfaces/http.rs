//! `http.routes`: other modules answer requests of a web server.
//!
//! The user binds [`Routes`] and adds routes in `init`. Each has a function that is called in the process that got the request:
//!
//! ```standalone_crate
//! use module_api::interface::Callback;
//! use module_api::interfaces::http::{Answering, Exchange, Routes};
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
//!         routes.add("GET", "/hello", false, hello)?;
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
//! The exporter implements [`ExportRoutes`], keeps the callbacks, and [`serve`]s each request with a [`Server`] of its own.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::net::SocketAddr;

use crate::interface::{Bytes, Callback, Subject, blamed};
use crate::sockaddr::{self, RawAddress};
use crate::{Error, Result, abi};

crate::interface! {
    /// Routes of a web server.
    pub interface Routes "http.routes" 1.0, exported by ExportRoutes {
        /// Requests for `path` are answered by `answer`: for that path alone, or also for all below it. `%XX` in it stands for that byte, as
        /// in requests. `method` is in capitals; `GET` answers `HEAD` too, and an empty one every method. In `init` and `proc_init` only. A
        /// route that is there already is an error, and so is a path that no request can have: without a slash at its beginning, with a
        /// query, control characters, a wrong `%`, `%2F`, or a part `.` or `..`.
        fn add(method: &str, path: &str, prefix: bool, answer: Callback<Answering>);
    }
}

/// What an answering function is called about: the request, and how to answer. `struct modhost_http_exchange` in C.
#[repr(C)]
pub struct RawExchange {
    /// Size of this struct in bytes.
    pub size: u32,
    /// Zero.
    pub reserved: u32,
    /// `GET`.
    pub method: Bytes,
    /// Decoded, without the query.
    pub path: Bytes,
    /// What is behind the question mark, as it was sent.
    pub query: Bytes,
    /// All of it.
    pub body: Bytes,
    /// The server's.
    pub server: *mut c_void,
    /// Writes the value of a request's header, whose name is compared without regard to case. 0, or `E_INVALID` if there is none.
    pub header: Option<extern "C" fn(exchange: *mut RawExchange, name: Bytes, value: *mut Bytes) -> i32>,
    /// The answer's status code, 200 if it is not called. 0 or a negative code.
    pub set_status: Option<extern "C" fn(exchange: *mut RawExchange, status: u32) -> i32>,
    /// Adds a header to the answer. 0 or a negative code.
    pub add_header: Option<extern "C" fn(exchange: *mut RawExchange, name: Bytes, value: Bytes) -> i32>,
    /// Adds to the answer's body. 0 or a negative code.
    pub write: Option<extern "C" fn(exchange: *mut RawExchange, data: Bytes) -> i32>,
    /// Who asks: a `struct sockaddr_in` or `sockaddr_in6`; none over a Unix socket.
    pub peer: Bytes,
}

/// The subject of an answering function.
#[derive(Debug)]
pub enum Answering {}

// SAFETY: the name stands for the struct above, which grows at its end only.
unsafe impl Subject for Answering {
    type Raw = RawExchange;
    type View<'a> = Exchange<'a>;
    const NAME: &'static str = "callback(http.exchange)";
    unsafe fn view<'a>(raw: *mut RawExchange) -> Exchange<'a> {
        Exchange { raw, call: PhantomData }
    }
}

/// A request, and the way to answer it. Valid until the answering function returns.
pub struct Exchange<'a> {
    raw: *mut RawExchange,
    call: PhantomData<&'a mut RawExchange>,
}

impl Exchange<'_> {
    fn raw(&self) -> &RawExchange {
        // SAFETY: the subject of a callback, valid for the lifetime of this.
        unsafe { &*self.raw }
    }

    /// `GET`.
    pub fn method(&self) -> &[u8] {
        // SAFETY: the server's, valid as long as this.
        unsafe { self.raw().method.slice() }
    }

    /// The path, decoded, without the query.
    pub fn path(&self) -> &[u8] {
        // SAFETY: as above.
        unsafe { self.raw().path.slice() }
    }

    /// What is behind the question mark, as it was sent.
    pub fn query(&self) -> &[u8] {
        // SAFETY: as above.
        unsafe { self.raw().query.slice() }
    }

    /// The whole body.
    pub fn body(&self) -> &[u8] {
        // SAFETY: as above.
        unsafe { self.raw().body.slice() }
    }

    /// Who asks, as the server sees it: behind a proxy, that is the proxy. None over a Unix socket.
    pub fn peer(&self) -> Option<SocketAddr> {
        // SAFETY: as above.
        sockaddr::decode(unsafe { self.raw().peer.slice() })?.inet()
    }

    /// A header of the request, whatever the case of its name.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let mut value = Bytes::of(&[]);
        let code = (self.raw().header?)(self.raw, Bytes::of(name.as_bytes()), &raw mut value);
        // SAFETY: as above.
        (code == abi::OK).then(|| unsafe { value.slice() })
    }

    /// The answer's status code, 100 to 599; 200 if it is not called.
    ///
    /// # Errors
    /// For another number.
    pub fn set_status(&mut self, status: u16) -> Result<()> {
        let function = self.raw().set_status.ok_or_else(incomplete)?;
        crate::interface::outcome("http.exchange", "set_status", function(self.raw, status.into()))
    }

    /// Adds a header to the answer. Its length is the server's to say.
    ///
    /// # Errors
    /// For what cannot stand in a header.
    pub fn add_header(&mut self, name: &[u8], value: &[u8]) -> Result<()> {
        let function = self.raw().add_header.ok_or_else(incomplete)?;
        crate::interface::outcome("http.exchange", "add_header", function(self.raw, Bytes::of(name), Bytes::of(value)))
    }

    /// Adds to the answer's body.
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

/// What a server has of one request, for [`serve`].
pub trait Server {
    /// `GET`.
    fn method(&self) -> &[u8];
    /// The path, decoded, without the query.
    fn path(&self) -> &[u8];
    /// What is behind the question mark, as it was sent.
    fn query(&self) -> &[u8];
    /// The whole body.
    fn body(&self) -> &[u8];
    /// Who asks. None over a Unix socket.
    fn peer(&self) -> Option<SocketAddr>;
    /// A header of the request, whatever the case of its name.
    fn header(&self, name: &[u8]) -> Option<&[u8]>;
    /// The answer's status code.
    ///
    /// # Errors
    /// For one that cannot be.
    fn set_status(&mut self, status: u32) -> Result<()>;
    /// Adds a header to the answer.
    ///
    /// # Errors
    /// For what cannot stand in a header.
    fn add_header(&mut self, name: &[u8], value: &[u8]) -> Result<()>;
    /// Adds to the answer's body.
    ///
    /// # Errors
    /// For more than the server takes.
    fn write(&mut self, data: &[u8]) -> Result<()>;
}

/// Lets the module that added a route answer a request. Any process, in the thread that the host calls modules in.
///
/// # Errors
/// Those of the answering function; what it wrote until then is not an answer.
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
    // SAFETY: the exchange is this function's, and used by the callback alone until it returns.
    unsafe { answer.call(&raw mut exchange) }
}

/// Calls the server that an exchange is of.
fn with_server(exchange: *mut RawExchange, body: impl FnOnce(&mut dyn Server) -> Result<()>) -> i32 {
    blamed(|| {
        // SAFETY: `serve` made the exchange, and its server outlives it. The answering module calls one function at a time.
        body(unsafe { *(*exchange).server.cast::<&mut dyn Server>() })
    })
}

extern "C" fn header(exchange: *mut RawExchange, name: Bytes, value: *mut Bytes) -> i32 {
    let mut found = false;
    let code = with_server(exchange, |server| {
        // SAFETY: the other module's, valid for the call; there is room for the value.
        if let Some(bytes) = server.header(unsafe { name.slice() }) {
            found = true;
            // SAFETY: as above.
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
    // SAFETY: the other module's, valid for the call.
    with_server(exchange, |server| server.add_header(unsafe { name.slice() }, unsafe { value.slice() }))
}

extern "C" fn write(exchange: *mut RawExchange, data: Bytes) -> i32 {
    // SAFETY: the other module's, valid for the call.
    with_server(exchange, |server| server.write(unsafe { data.slice() }))
}
