//! One request in, one response out, each a line.
//!
//! *Runs in:* the control process. *Never:* fails: there is a response to any line.

use serde_json::Value;

use crate::control::answers::{self, HostView, MethodCall, Then};
use crate::error::Error;

/// Sent to the client.
#[derive(Debug)]
pub(super) struct Response {
    /// With its newline.
    pub line: Vec<u8>,
    pub then: Then,
}

/// The response to one line.
pub(super) fn respond(line: &[u8], view: &HostView<'_>, now_ns: u64) -> Response {
    let (id, request) = parse(line);
    match request.and_then(|(method, params)| answers::answer(&method, &MethodCall { view, params: &params, now_ns })) {
        Ok(answered) => Response { line: format!("{{\"id\":{id},\"result\":{}}}\n", answered.json).into_bytes(), then: answered.then },
        Err(error) => refuse(&id, &error),
    }
}

/// The response to a request that cannot be answered. Without a request, the id is null.
pub(super) fn refuse(id: &Value, error: &Error) -> Response {
    // Three texts: writing them cannot fail.
    let error = serde_json::to_string(error).unwrap_or_else(|_| "null".to_owned());
    Response { line: format!("{{\"id\":{id},\"error\":{error}}}\n").into_bytes(), then: Then::GoOn }
}

const FORM: &str = "send one object a line, such as {\"id\":1,\"method\":\"ping\",\"params\":[]}";

/// The id, null if none can be read, and method and params. The id is repeated with an error, too.
fn parse(line: &[u8]) -> (Value, Result<(String, Vec<Value>), Error>) {
    let mut object = match serde_json::from_slice(line) {
        Ok(Value::Object(object)) => object,
        Ok(_) => return (Value::Null, Err(Error::config("a request must be a JSON object").hint(FORM))),
        Err(error) => return (Value::Null, Err(Error::config("a request is not valid JSON").detail(error).hint(FORM))),
    };
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

    use super::*;
    use crate::control::answers::tests::sample_host;

    fn ask(line: &str) -> Value {
        serde_json::from_slice(&respond(line.as_bytes(), &sample_host(), 5_000_000_000).line).unwrap()
    }

    #[test]
    fn a_response_has_the_id_of_its_request() {
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
        // Nested deeper than any request needs; the parser refuses it before it uses up the stack.
        assert_eq!(ask(&"[".repeat(60_000))["error"]["what"], "a request is not valid JSON");
    }

    proptest! {
        #[test]
        fn any_bytes_get_one_line_of_json(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let line = respond(&bytes, &sample_host(), 0).line;
            prop_assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1));
            let answer: Value = serde_json::from_slice(&line).unwrap();
            prop_assert!(answer["error"]["what"].is_string());
        }

        #[test]
        fn any_request_gets_its_response(
            id in any::<i64>(),
            method in "(ping|ps|stop|methods|\\PC{0,12})",
            params in proptest::collection::vec(any::<String>(), 0..3),
        ) {
            let request = serde_json::json!({ "id": id, "method": method, "params": params });
            let answer = ask(&request.to_string());
            prop_assert_eq!(&answer["id"], &Value::from(id));
            prop_assert!(answer.get("result").is_some() != answer.get("error").is_some());
        }
    }
}
