//! The messages of RFC 4475, written again: the required answer, and the server must continue to
//! serve.
//!
//! Each row names its section. Where the RFC leaves a choice, the last column gives the choice and
//! the reason.

use harness::setup::module;
use harness::{Client, Deadline, Setup};

/// The expected answer.
#[derive(Debug, Clone, Copy)]
enum Wanted {
    /// A code from a server that accepts with 200.
    Answer(u16),
    /// A code from a registrar.
    Registrar(u16),
    /// No answer from either.
    Silence,
}
use Wanted::{Answer, Registrar, Silence};

struct Trap {
    section: &'static str,
    wanted: Wanted,
    why: &'static str,
    message: String,
}

fn trap(section: &'static str, wanted: Wanted, why: &'static str, message: impl Into<String>) -> Trap {
    Trap { section, wanted, why, message: message.into() }
}

/// A request in the usual form: the start line, then lines that replace the usual ones of the same
/// name.
fn message(start: &str, lines: &str, body: &str) -> String {
    let method = start.split(' ').next().unwrap_or_default();
    let usual = [
        "Via: SIP/2.0/UDP trap.example;rport;branch=z9hG4bK-trap",
        "From: <sip:setter@trap.example>;tag=s1",
        "To: <sip:prey@torture.example>",
        "Call-ID: trap-1",
        &format!("CSeq: 5 {method}"),
        "Max-Forwards: 30",
        &format!("Content-Length: {}", body.len()),
    ]
    .join("\n");
    let name = |line: &str| line.split(':').next().unwrap_or_default().trim().to_lowercase();
    let own: Vec<String> = lines.lines().filter(|line| !line.starts_with(' ')).map(name).collect();
    let kept: Vec<&str> = usual.lines().filter(|line| !own.contains(&name(line))).collect();
    // A line with only a name removes the usual one.
    let added: Vec<&str> = lines.lines().filter(|line| line.starts_with(' ') || line.contains(':')).collect();
    format!("{start}\r\n{}\r\n{}\r\n\r\n{body}", kept.join("\r\n"), added.join("\r\n")).replace("\r\n\r\n\r\n", "\r\n\r\n")
}

/// Section 3.1.1: messages that look wrong and are valid.
fn well_formed() -> Vec<Trap> {
    let bent = "iNvItE-free TO :\n  sip:prey@torture.example ;   tag    = 42z\nfrom   : \"A \\\\\\\"quoted\\\\\\\" one\"       <sip:setter@trap.example>\n  ;\n  tag = 11zz\n\
                MaX-fOrWaRdS: 0068\nCall-ID: bent.call@trap.example\ncseq: 0009\n  INVITE\nVia  : SIP  /   2.0\n /UDP\n    trap.example;rport;branch=z9hG4bKbent\n\
                s :\nNeverSeen:   a\n value\n over lines\nv:  SIP  / 2.0  / TCP     second.example   ;\n  branch  =   z9hG4bK2 ,\n SIP/2.0/UDP third.example\n\
                m:\"Q\" <sip:q@trap.example>; newparam = v ; q = 0.33,\n  <tel:+15550111>";
    let long = "x".repeat(900);
    vec![
        trap(
            "3.1.1.1",
            Answer(200),
            "blanks and folds wherever the grammar has room for them",
            message("INVITE sip:prey@torture.example;p=v SIP/2.0", bent.strip_prefix("iNvItE-free ").unwrap(), "v=0\r\n"),
        ),
        trap("3.1.1.2", Answer(501), "a method of all the signs that a method may have is one we do not know", {
            let method = "!Odd-Method0_*+`.%proper'~";
            message(
                &format!("{method} sip:1_un.res!~*'()&=+$,;?/%20:&it+has=a$pw@trap.example:5080;%6Cr;n%41me=v%61lue SIP/2.0"),
                "From: t~` k'+_ *%!.- <sip:a@trap.example>;f''~+*_!.-%=\"\u{440}\";tag=_t~o.k!\nTo: \"\u{7f}~ \u{fc}\\\u{1}\" <sip:prey@torture.example>;a~!*'=b\nCall-ID: odd%Z%45<word>`~)(><:\\/\"][?}{\nX-!%*`~: {}()\u{448}",
                "",
            )
        }),
        trap(
            "3.1.1.3",
            Answer(200),
            "escapes in user, parameter and header field of URIs",
            message(
                "INVITE sip:sips%3Aprey%40torture.example@trap.example SIP/2.0",
                "To: <sip:%70rey@torture.example>\nContact: <sip:cal%6Cer@trap.example;%6C%72;n%61me=v%61lue%25%34%31>",
                "",
            ),
        ),
        trap(
            "3.1.1.4",
            Registrar(200),
            "an escaped zero byte is a byte of the user's name",
            message(
                "REGISTER sip:torture.example SIP/2.0",
                "To: sip:nil-%00-nil@torture.example\nFrom: sip:nil-%00-nil@torture.example;tag=1\nContact: <sip:%00@trap.example>\nContact: <sip:%00%00@trap.example>",
                "",
            ),
        ),
        trap(
            "3.1.1.5",
            Answer(501),
            "a percent sign in a method or a name is no escape",
            message(
                "RE%47ISTER sip:torture.example SIP/2.0",
                "Contact: <sip:one@trap.example>\nC%6Fntact: <sip:two@trap.example>\nFrom: \"%Z%45\" <sip:s@trap.example>;tag=f%31",
                "",
            ),
        ),
        trap(
            "3.1.1.6",
            Answer(200),
            "no blank between name and bracket",
            message("OPTIONS sip:prey@torture.example SIP/2.0", "From: setter<sip:setter@trap.example>;tag=3", ""),
        ),
        trap(
            "3.1.1.7",
            Answer(200),
            "long values",
            message(
                &format!("INVITE sip:prey@torture.example;{long}=1 SIP/2.0"),
                &format!(
                    "To: \"{long}\" <sip:{long}@torture.example>\nFrom: sip:{long}@trap.example;tag={long};{long}={long}\nCall-ID: {long}\nVia: SIP/2.0/TCP hop1.example;rport;branch=z9hG4bK{long}\nVia: SIP/2.0/UDP hop2.{long}"
                ),
                "v=0\r\n",
            ),
        ),
        trap("3.1.1.8", Answer(200), "what follows the body in a datagram is not part of the message", {
            let second = message("INVITE sip:other@torture.example SIP/2.0", "Call-ID: second", "v=0\r\n");
            message("OPTIONS sip:prey@torture.example SIP/2.0", "Content-Length: 0", "") + &second
        }),
        trap(
            "3.1.1.9",
            Answer(200),
            "a semicolon in the user's name",
            message("OPTIONS sip:prey;par=u%40trap.example@torture.example SIP/2.0", "", ""),
        ),
        trap(
            "3.1.1.10",
            Answer(200),
            "transports that nobody knows, in any Via",
            message(
                "OPTIONS sip:prey@torture.example SIP/2.0",
                "Via: SIP/2.0/PIGEON t1.example;rport;branch=z9hG4bK1\nVia: SIP/2.0/SCTP t2.example;branch=z9hG4bK2\nVia: SIP/2.0/TLS t3.example, SIP/2.0/UDP t4.example",
                "",
            ),
        ),
        trap(
            "3.1.1.11",
            Answer(200),
            "a body of several parts with bytes of all kinds",
            message(
                "MESSAGE sip:prey@torture.example SIP/2.0",
                "Content-Type: multipart/mixed;boundary=part",
                "--part\r\nContent-Type: text/plain\r\n\r\nhi\r\n--part\r\nContent-Type: application/octet-stream\r\n\r\n\u{0}\u{1}\r\n\r\n--part--\r\n",
            ),
        ),
        trap(
            "3.1.1.12",
            Silence,
            "a response with an unusual reason is still a response",
            message(
                "SIP/2.0 200 = 2**3 * 5**2 \u{43d}\u{43e} and 100 = 2**2 * 5**2",
                "CSeq: 5 INVITE\nContact: <sip:prey@torture.example>",
                "",
            ),
        ),
        trap("3.1.1.13", Silence, "a response with an empty reason", message("SIP/2.0 100 ", "CSeq: 5 INVITE", "")),
    ]
}

/// Section 3.1.2: messages that no server should accept.
fn malformed() -> Vec<Trap> {
    let invite = "INVITE sip:prey@torture.example SIP/2.0";
    let options = "OPTIONS sip:prey@torture.example SIP/2.0";
    vec![
        trap(
            "3.1.2.1",
            Answer(400),
            "separators with nothing between them",
            message(invite, "Via: SIP/2.0/UDP trap.example:PORT;;,;,,\nContact: \"J\" <sip:j@trap.example>;;;;", ""),
        ),
        trap("3.1.2.2", Answer(400), "a body shorter than its length", message(invite, "Content-Length: 9999", "v=0\r\n")),
        trap("3.1.2.3", Answer(400), "a length below zero", message(invite, "Content-Length: -999", "v=0\r\n")),
        trap(
            "3.1.2.4",
            Registrar(400),
            "numbers too large for their field",
            message(
                "REGISTER sip:torture.example SIP/2.0",
                "CSeq: 36893488147419103232 REGISTER\nMax-Forwards: 300\nExpires: 10000000000000000000000000000000000000\nContact: <sip:p@trap.example>;expires=280297596632815",
                "",
            ),
        ),
        trap(
            "3.1.2.5",
            Silence,
            "the same in a response",
            message(
                "SIP/2.0 503 Service Unavailable",
                "CSeq: 9292394834772304023312 OPTIONS\nRetry-After: 949302838503028349304023988\nWarning: 1812 trap \"no\"",
                "",
            ),
        ),
        trap(
            "3.1.2.6",
            Answer(400),
            "a quotation mark without its partner",
            message(invite, "To: \"Prey, the <sip:prey@torture.example>", ""),
        ),
        trap("3.1.2.7", Answer(400), "brackets around the request URI", message("INVITE <sip:prey@torture.example> SIP/2.0", "", "")),
        trap("3.1.2.8", Answer(400), "a blank in the request URI", message("INVITE sip:prey@torture.example; lr SIP/2.0", "", "")),
        trap(
            "3.1.2.9",
            Answer(400),
            "more than one blank between the parts of the request line",
            message("INVITE  sip:prey@torture.example  SIP/2.0", "", ""),
        ),
        trap(
            "3.1.2.10",
            Answer(400),
            "blanks at the end of the request line",
            message("OPTIONS sip:prey@torture.example SIP/2.0  ", "", ""),
        ),
        trap(
            "3.1.2.11",
            Answer(400),
            "header fields in the request URI",
            message("INVITE sip:prey@torture.example?Route=%3Csip:trap.example%3E SIP/2.0", "", ""),
        ),
        trap(
            "3.1.2.12",
            Answer(200),
            "a date of another zone: this server does not look at Date",
            message(invite, "Date: Fri, 01 Jan 2010 16:00:00 EST", ""),
        ),
        trap(
            "3.1.2.13",
            Registrar(400),
            "a contact with a question mark needs brackets",
            message("REGISTER sip:torture.example SIP/2.0", "Contact: sip:prey@trap.example?Route=%3Csip:x.example%3E", ""),
        ),
        trap(
            "3.1.2.14",
            Answer(400),
            "blanks inside of the brackets",
            message(options, "To: \"Prey, T.\" < sip:prey@torture.example >", ""),
        ),
        trap(
            "3.1.2.15",
            Answer(400),
            "a comma in a name that is not quoted",
            message(options, "From: Setter, Trap <sip:setter@trap.example>;tag=43", ""),
        ),
        trap("3.1.2.16", Answer(505), "a version of another age", message("OPTIONS sip:prey@torture.example SIP/7.0", "", "")),
        trap("3.1.2.17", Answer(400), "CSeq names another method", message(options, "CSeq: 8 INVITE", "")),
        trap(
            "3.1.2.18",
            Answer(400),
            "the same with an unknown method: 400 and 501 are both right, and what is malformed is looked for first",
            message("NEWMETHOD sip:prey@torture.example SIP/2.0", "CSeq: 8 INVITE", ""),
        ),
        trap("3.1.2.19", Silence, "a response with a code that is none", message("SIP/2.0 4294967301 better not", "CSeq: 8 INVITE", "")),
    ]
}

/// Sections 3.2 to 3.4: well-formed messages about transactions, the application, and the older
/// RFC.
fn unusual() -> Vec<Trap> {
    let invite = "INVITE sip:prey@torture.example SIP/2.0";
    let options = "OPTIONS sip:prey@torture.example SIP/2.0";
    let register = "REGISTER sip:torture.example SIP/2.0";
    vec![
        trap(
            "3.2.1",
            Answer(200),
            "a branch that is the cookie alone; 400 is allowed too, but a server without transactions does not need it",
            message(options, "Via: SIP/2.0/UDP trap.example;rport;branch=z9hG4bK", ""),
        ),
        trap("3.3.1", Answer(400), "no Call-ID, From or To", message(invite, "Call-ID\nFrom\nTo", "")),
        trap("3.3.2", Answer(416), "a scheme that nobody knows", message("OPTIONS unheardOf:somewhat/opaque SIP/2.0", "", "")),
        trap("3.3.3", Answer(416), "a scheme that others know", message("OPTIONS soap.beep://192.0.2.103:3002 SIP/2.0", "", "")),
        trap(
            "3.3.4",
            Registrar(400),
            "a registration of something that is no SIP address",
            message(register, "To: isbn:2983792873\nFrom: <http://trap.example>;tag=3\nContact: <name:J_S>", ""),
        ),
        trap(
            "3.3.5",
            Answer(420),
            "extensions that nobody supports",
            message(options, "Require: nobodyHasThis, norThat\nProxy-Require: noProxyHasThis", ""),
        ),
        trap(
            "3.3.6",
            Answer(415),
            "a body of a type that is not accepted",
            message(invite, "Content-Type: application/unheard-of", "<x/>"),
        ),
        trap(
            "3.3.7",
            Registrar(200),
            "credentials of an unknown scheme: this registrar asks for none",
            message(register, "Authorization: Unheard-of opaque-data=here\nContact: <sip:prey@trap.example>", ""),
        ),
        trap(
            "3.3.8",
            Answer(400),
            "several values where one is right",
            message(
                invite,
                "Via: SIP/2.0/UDP trap.example;rport;branch=z9hG4bKm\nCSeq: 5 INVITE\nCSeq: 59 INVITE\nCall-ID: one\nCall-ID: two\nMax-Forwards: 1\nMax-Forwards: 2\nTo: <sip:a@torture.example>\nTo: <sip:b@torture.example>\nFrom: <sip:a@trap.example>;tag=1\nFrom: <sip:b@trap.example>;tag=2",
                "",
            ),
        ),
        trap(
            "3.3.9",
            Answer(400),
            "two lengths that differ",
            message(options, "Content-Length: 13\nContent-Length: 5", "There is no way\r\n"),
        ),
        trap(
            "3.3.10",
            Silence,
            "a response to somebody who sends to all",
            message(
                "SIP/2.0 200 OK",
                "Via: SIP/2.0/UDP 255.255.255.255;branch=z9hG4bKb\nCSeq: 8 INVITE\nContact: <sip:prey@torture.example>",
                "",
            ),
        ),
        trap("3.3.11", Answer(200), "the last hop is the one that answers", message(options, "Max-Forwards: 0", "")),
        trap(
            "3.3.12",
            Registrar(200),
            "a parameter of the contact",
            message(register, "Contact: sip:+15550122@trap.example;unheard-of", ""),
        ),
        trap(
            "3.3.13",
            Registrar(200),
            "a parameter of the contact's URI",
            message(register, "Contact: <sip:+15550122@trap.example;unheard-of>", ""),
        ),
        trap(
            "3.3.14",
            Registrar(200),
            "header fields in a contact's URI",
            message(register, "Contact: <sip:prey@trap.example?Route=%3Csip:x.example%3E>", ""),
        ),
        trap(
            "3.3.15",
            Answer(200),
            "the client accepts no type that we could send in the answer; the answer has no body",
            message(invite, "Accept: text/unheard-of\nContent-Type: application/sdp", "v=0\r\n"),
        ),
        trap(
            "3.4.1",
            Answer(200),
            "a request of the old RFC: no branch, no tag, no Max-Forwards",
            message(
                invite,
                "Via: SIP/2.0/UDP trap.example;rport\nFrom: <sip:setter@trap.example>\nMax-Forwards\nCSeq: 1 INVITE\nRecord-Route: <sip:prey@torture.example;maddr=proxy.example>",
                "v=0\r\n",
            ),
        ),
    ]
}

/// The code of the next answer. After each message the client sends a harmless one with another
/// Call-ID, whose answer ends the wait.
fn code(client: &Client, message: &str) -> Option<u16> {
    let port = client.address().port().to_string();
    client.send(message.replace(":PORT", &format!(":{port}")).as_bytes());
    client.send(self::message("OPTIONS sip:torture.example SIP/2.0", "Call-ID: are-you-there", "").as_bytes());
    let mut found = None;
    loop {
        let answer = String::from_utf8_lossy(&client.receive()).into_owned();
        if answer.contains("\r\nCall-ID: are-you-there\r\n") {
            return found;
        }
        assert_eq!(found, None, "two answers to {message}");
        found = answer.strip_prefix("SIP/2.0 ").and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok());
        assert!(found.is_some(), "{answer}");
    }
}

#[test]
fn torture_messages_get_their_answers_and_do_no_harm() {
    // One worker each, which answers the first message before it reads the second.
    let accept = || module("sip").param("accept", r#"["application/sdp", "multipart/mixed"]"#);
    let plain = Setup::new().module(accept()).listen("sip", 1).start();
    let registrar =
        Setup::new().module(accept().param("registrar", "true").param("domains", r#"["torture.example"]"#)).listen("sip", 1).start();
    let (plain_client, registrar_client) = (plain.client(), registrar.client());
    let traps: Vec<Trap> = [well_formed(), malformed(), unusual()].into_iter().flatten().collect();
    assert_eq!(traps.len(), 13 + 19 + 17);
    for Trap { section, wanted, why, message } in &traps {
        let (of_plain, of_registrar) = (code(&plain_client, message), code(&registrar_client, message));
        let fits = match wanted {
            Answer(code) => of_plain == Some(*code),
            Registrar(code) => of_registrar == Some(*code),
            Silence => of_plain.is_none() && of_registrar.is_none(),
        };
        assert!(fits, "{section}, {why}: wanted {wanted:?}, not {of_plain:?} and {of_registrar:?}\n{message}");
    }
    assert_eq!(plain_client.receive_before(Deadline::after(std::time::Duration::from_millis(20))), None);
    plain.stop();
    registrar.stop();
}
