//! The parameters, and the configuration that `init` makes of them.
//!
//! Pure. Refuses invalid parameters with an error of one line.

use module_api::prelude::*;

use crate::decision::Settings;
use crate::method::Method;
use crate::registrar::Limits;

params! {
    /// `[module.params]` in the configuration.
    pub struct Params {
        /// Answer to well-formed requests: a final code and its reason.
        pub answer: String = "200 OK",
        /// Methods that are served; others get 405.
        pub methods: Vec<String> = "INVITE, ACK, OPTIONS, BYE, CANCEL, REGISTER, PRACK, SUBSCRIBE, NOTIFY, PUBLISH, INFO, REFER, MESSAGE, UPDATE",
        /// Media types of bodies that are accepted; others get 415. Empty for all.
        pub accept: Vec<String> = "",
        /// Value of the Server field in each answer; empty for no such field.
        pub server: String = "",
        /// Longest request, in bytes; longer ones get 513.
        pub max_message: i64 = 16384 in 500..=65507,
        /// Whether REGISTER is carried out, and other requests are redirected to the contacts of
        /// their user.
        pub registrar: bool = false,
        /// Hosts whose users register here; empty for all.
        pub domains: Vec<String> = "",
        /// Duration of a registration if the client names none.
        pub default_expires: Duration = "1h",
        /// Shortest registration, at most one hour; shorter ones get 423.
        pub min_expires: Duration = "60s",
        /// Longest registration; longer ones are shortened.
        pub max_expires: Duration = "2h",
        /// Most contacts of one address-of-record; more get 403.
        pub max_contacts: i64 = 10 in 1..=50,
    }
}

/// Made from the parameters in `init`, then constant.
#[derive(Debug)]
pub struct Configuration {
    pub settings: Settings,
    pub limits: Limits,
    /// The end of each answer: `Server`, `Content-Length` and the empty line.
    pub tail: Vec<u8>,
    /// The line of the `Allow` field.
    pub allow: Vec<u8>,
    /// The line of the `Accept` field.
    pub accept: Vec<u8>,
}

pub fn read(params: &Params) -> Result<Configuration> {
    let answer = status(&params.answer)?;
    let methods = methods(&params.methods)?;
    let names: Vec<&str> = Method::KNOWN.iter().filter(|(method, _)| methods & method.bit() != 0).map(|(_, name)| *name).collect();
    let accept = &params.accept;
    if let Some(wrong) = accept.iter().find(|accepted| accepted.split('/').filter(|part| is_token(part)).count() != 2) {
        return Err(Error::new(format_args!("parameter \"accept\": {wrong:?} is not a media type such as \"application/sdp\"")));
    }
    let domains = &params.domains;
    if let Some(wrong) = domains.iter().find(|domain| crate::uri::host(domain.as_bytes()) != Some(domain.as_bytes())) {
        return Err(Error::new(format_args!("parameter \"domains\": {wrong:?} is not a host name or address")));
    }
    if !params.server.bytes().all(|byte| (b' '..127).contains(&byte)) {
        return Err("parameter \"server\" has characters that a header field cannot contain".into());
    }
    let server = if params.server.is_empty() { String::new() } else { format!("Server: {}\r\n", params.server) };
    let settings = Settings {
        is_answer_success: answer.starts_with('2'),
        answer: answer.into(),
        methods,
        max_message: params.max_message as usize,
        accept: accept.iter().map(|accepted| accepted.as_bytes().to_vec()).collect(),
        registrar: params.registrar,
        domains: domains.iter().map(|domain| crate::uri::without_final_dot(domain.as_bytes()).to_vec()).collect(),
    };
    Ok(Configuration {
        settings,
        limits: limits(params)?,
        tail: format!("{server}Content-Length: 0\r\n\r\n").into_bytes(),
        allow: format!("Allow: {}\r\n", names.join(", ")).into_bytes(),
        accept: format!("Accept: {}\r\n", if accept.is_empty() { "*/*".into() } else { accept.join(", ") }).into_bytes(),
    })
}

/// Parses a final status code and a reason. A stateless server sends no provisional answers
/// (section 8.2.7).
fn status(text: &str) -> Result<String> {
    let (code, reason) = text.split_once(' ').unwrap_or((text, ""));
    let is_final = code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_digit()) && (b'2'..=b'6').contains(&code.as_bytes()[0]);
    if !is_final {
        return Err(Error::new(format_args!("parameter \"answer\": {text:?} does not begin with a code from 200 to 699")));
    }
    if reason.trim().is_empty() || reason.chars().any(char::is_control) {
        return Err(Error::new(format_args!("parameter \"answer\": {text:?} has no reason, such as \"200 OK\"")));
    }
    Ok(format!("{code} {reason}"))
}

fn methods(names: &[String]) -> Result<u16> {
    names.iter().try_fold(0, |set, name| match Method::of(name.as_bytes()) {
        Method::Unknown => Err(Error::new(format_args!("parameter \"methods\": {name:?} is not a method that this module knows"))),
        method => Ok(set | method.bit()),
    })
}

fn limits(params: &Params) -> Result<Limits> {
    let seconds = |name: &str, duration: Duration| {
        let whole = duration.subsec_nanos() == 0;
        let seconds = u32::try_from(duration.as_secs()).ok().filter(|seconds| whole && *seconds > 0);
        seconds.ok_or_else(|| Error::new(format_args!("parameter {name:?} must be a whole number of seconds above zero, below 136 years")))
    };
    let limits = Limits {
        default_expires: seconds("default_expires", params.default_expires)?,
        min_expires: seconds("min_expires", params.min_expires)?,
        max_expires: seconds("max_expires", params.max_expires)?,
        max_contacts: params.max_contacts as usize,
    };
    if limits.min_expires > 3600 {
        // Section 10.3, step 7: a client may always ask for one hour.
        return Err("parameter \"min_expires\" is longer than one hour".into());
    }
    if !(limits.min_expires..=limits.max_expires).contains(&limits.default_expires) {
        return Err("parameter \"default_expires\" is not between \"min_expires\" and \"max_expires\"".into());
    }
    Ok(limits)
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && crate::syntax::run(text.as_bytes(), crate::syntax::TOKEN) == text.len()
}
