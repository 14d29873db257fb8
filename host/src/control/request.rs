//! One line in, one line out.
//!
//! *Runs in:* the control process; pure. *Never:* fails: whatever the line holds, there is an answer.

use serde::Serialize;
use serde_json::Value;

use super::methods::{self, Then, View};
use crate::error::Error;

/// What goes back to the client, and what is to be done once it is on its way.
#[derive(Debug)]
pub(super) struct Answer {
    /// With its newline.
    pub line: Vec<u8>,
    pub then: Then,
}

/// An error as it is sent.
#[derive(Debug, Serialize)]
struct Sent<'e> {
    what: &'e str,
    detail: &'e str,
    hint: &'e str,
}

/// Answers one line.
pub(super) fn answer(line: &[u8], view: &View<'_>, now_ns: u64) -> Answer {
    let (id, request) = parse(line);
    let outcome = request.and_then(|(method, params)| methods::call(&method, &params, view, now_ns));
    match outcome {
        Ok(reply) => Answer { line: format!("{{\"id\":{id},\"result\":{}}}\n", reply.json).into_bytes(), then: reply.then },
        Err(error) => refusal(&id, &error),
    }
}

/// An answer to something that was no request.
pub(super) fn refuse(error: &Error) -> Answer {
    refusal(&Value::Null, error)
}

fn refusal(id: &Value, error: &Error) -> Answer {
    let sent = Sent { what: &error.what, detail: &error.detail, hint: &error.hint };
    Answer { line: format!("{{\"id\":{id},\"error\":{}}}\n", methods::json(&sent)).into_bytes(), then: Then::Nothing }
}

const FORM: &str = "send one object a line, such as {\"id\":1,\"method\":\"ping\",\"params\":[]}";

/// The id, as far as there is one: it goes with an error, too.
fn parse(line: &[u8]) -> (Value, Result<(String, Vec<Value>), Error>) {
    let object = match serde_json::from_slice(line) {
        Ok(Value::Object(object)) => object,
        Ok(_) => return (Value::Null, Err(Error::config("a request must be a JSON object").hint(FORM))),
        Err(error) => return (Value::Null, Err(Error::config("a request is not valid JSON").detail(error).hint(FORM))),
    };
    let mut object = object;
    let id = object.remove("id").unwrap_or(Value::Null);
    if id.is_object() || id.is_array() {
        return (Value::Null, Err(Error::config("the id of a request must be a number or a string").hint(FORM)));
    }
    let method = match object.remove("method") {
        Some(Value::String(method)) => method,
        Some(_) => return (id, Err(Error::config("the method of a request must be a string").hint(FORM))),
        None => return (id, Err(Error::config("a request has no method").hint(FORM))),
    };
    let params = match object.remove("params") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(params)) => params,
        Some(_) => return (id, Err(Error::config("the params of a request must be an array").hint(FORM))),
    };
    (id, Ok((method, params)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::methods::tests::table;
    use super::*;

    fn ask(line: &str) -> Value {
        let slots = table();
        let modules = vec!["echo".to_owned()];
        serde_json::from_slice(&answer(line.as_bytes(), &View::of(slots, &modules), 5_000_000_000).line).unwrap()
    }

    #[test]
    fn answers_carry_the_id_of_their_request() {
        for (line, id) in [
            (r#"{"id":1,"method":"ping"}"#, Value::from(1)),
            (r#"{"id":"x","method":"ping","params":[]}"#, Value::from("x")),
            (r#"{"method":"ping","params":null}"#, Value::Null),
            ("{\"id\":-1.5,\"method\":\"ping\"}\r", Value::from(-1.5)),
        ] {
            let answer = ask(line);
            assert_eq!(answer["id"], id, "{line}");
            assert_eq!(answer["result"]["answer"], "pong", "{line}");
        }
    }

    #[test]
    fn errors_say_what_is_wrong() {
        for (line, id, what) in [
            ("", Value::Null, "a request is not valid JSON"),
            ("{", Value::Null, "a request is not valid JSON"),
            (r#"{"id":1,"method":"ping"} x"#, Value::Null, "a request is not valid JSON"),
            ("[]", Value::Null, "a request must be a JSON object"),
            (r#"{"id":[1],"method":"ping"}"#, Value::Null, "the id of a request must be a number or a string"),
            (r#"{"id":7}"#, Value::from(7), "a request has no method"),
            (r#"{"id":7,"method":null}"#, Value::from(7), "the method of a request must be a string"),
            (r#"{"id":7,"method":"ping","params":{}}"#, Value::from(7), "the params of a request must be an array"),
            (r#"{"id":7,"method":"ping","params":[1]}"#, Value::from(7), "method \"ping\" takes no arguments"),
            (r#"{"id":7,"method":"pign"}"#, Value::from(7), "no method \"pign\""),
        ] {
            let answer = ask(line);
            assert_eq!((&answer["id"], &answer["error"]["what"]), (&id, &Value::from(what)), "{line}");
            assert!(answer["error"]["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "{line}");
        }
        assert_eq!(ask(r#"{"method":"pign"}"#)["error"]["hint"], "did you mean \"ping\"?");
        // Deeper than any request needs, and no stack is used up by it.
        assert_eq!(ask(&"[".repeat(60_000))["error"]["what"], "a request is not valid JSON");
    }

    proptest! {
        #[test]
        fn any_bytes_get_one_line_of_json(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let (slots, modules) = (table(), Vec::new());
            let line = answer(&bytes, &View::of(slots, &modules), 0).line;
            prop_assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1));
            let answer: Value = serde_json::from_slice(&line).unwrap();
            prop_assert!(answer["error"]["what"].is_string());
        }

        #[test]
        fn any_request_gets_its_answer(id in any::<i64>(), method in "(ping|ps|stop|methods|\\PC{0,12})", params in proptest::collection::vec(any::<String>(), 0..3)) {
            let request = serde_json::json!({ "id": id, "method": method, "params": params });
            let answer = ask(&request.to_string());
            prop_assert_eq!(&answer["id"], &Value::from(id));
            prop_assert!(answer.get("result").is_some() != answer.get("error").is_some());
        }
    }
}
