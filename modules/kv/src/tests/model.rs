//! A property test: the store replies to commands as a `HashMap` model does.

use std::collections::HashMap;

use proptest::prelude::*;

use super::{Peer, request, start};

#[derive(Debug, Clone)]
enum Step {
    Set(u8, Vec<u8>),
    SetNx(u8, Vec<u8>),
    Get(u8),
    Del(u8),
    Incr(u8, i64),
    Append(u8, Vec<u8>),
    Expire(u8),
    Getdel(u8),
    Strlen(u8),
    Size,
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        any::<i64>().prop_map(|number| number.to_string().into_bytes()),
        (-20_i64..20).prop_map(|number| number.to_string().into_bytes()),
        prop::collection::vec(any::<u8>(), 0..40),
        prop::collection::vec(b'0'..=b'9', 0..4),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0_u8..8;
    prop_oneof![
        (key.clone(), value()).prop_map(|(key, value)| Step::Set(key, value)),
        (key.clone(), value()).prop_map(|(key, value)| Step::SetNx(key, value)),
        key.clone().prop_map(Step::Get),
        key.clone().prop_map(Step::Del),
        (key.clone(), any::<i64>()).prop_map(|(key, amount)| Step::Incr(key, amount)),
        (key.clone(), -5_i64..5).prop_map(|(key, amount)| Step::Incr(key, amount)),
        (key.clone(), value()).prop_map(|(key, value)| Step::Append(key, value)),
        key.clone().prop_map(Step::Expire),
        key.clone().prop_map(Step::Getdel),
        key.prop_map(Step::Strlen),
        Just(Step::Size),
    ]
}

fn bulk(value: Option<&Vec<u8>>) -> Vec<u8> {
    match value {
        Some(value) => [format!("${}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat(),
        None => b"$-1\r\n".to_vec(),
    }
}

fn number(number: impl ToString) -> Vec<u8> {
    format!(":{}\r\n", number.to_string()).into_bytes()
}

/// Applies a step to the model. Returns the request and the expected reply.
fn apply(model: &mut HashMap<u8, Vec<u8>>, step: Step) -> (Vec<u8>, Vec<u8>) {
    match step {
        Step::Set(key, value) => {
            let bytes = request(&[b"SET", &[key], &value]);
            model.insert(key, value);
            (bytes, b"+OK\r\n".to_vec())
        }
        Step::SetNx(key, value) => {
            let bytes = request(&[b"SET", &[key], &value, b"NX"]);
            let is_new = !model.contains_key(&key);
            model.entry(key).or_insert(value);
            (bytes, if is_new { b"+OK\r\n".to_vec() } else { b"$-1\r\n".to_vec() })
        }
        Step::Get(key) => (request(&[b"GET", &[key]]), bulk(model.get(&key))),
        Step::Del(key) => (request(&[b"DEL", &[key]]), number(u8::from(model.remove(&key).is_some()))),
        Step::Incr(key, amount) => {
            let bytes = request(&[b"INCRBY", &[key], amount.to_string().as_bytes()]);
            let text = model.get(&key).map_or("0".to_owned(), |value| String::from_utf8_lossy(value).into_owned());
            let before = text.parse::<i64>().ok().filter(|number| number.to_string() == text);
            let reply = match before.map(|before| before.checked_add(amount)) {
                None => b"-ERR value is not an integer or out of range\r\n".to_vec(),
                Some(None) => b"-ERR increment or decrement would overflow\r\n".to_vec(),
                Some(Some(sum)) => {
                    model.insert(key, sum.to_string().into_bytes());
                    number(sum)
                }
            };
            (bytes, reply)
        }
        Step::Append(key, more) => {
            let bytes = request(&[b"APPEND", &[key], &more]);
            let value = model.entry(key).or_default();
            value.extend_from_slice(&more);
            (bytes, number(value.len()))
        }
        Step::Expire(key) => {
            let bytes = request(&[b"PEXPIRE", &[key], b"-1"]);
            (bytes, number(u8::from(model.remove(&key).is_some())))
        }
        Step::Getdel(key) => (request(&[b"GETDEL", &[key]]), bulk(model.remove(&key).as_ref())),
        Step::Strlen(key) => (request(&[b"STRLEN", &[key]]), number(model.get(&key).map_or(0, Vec::len))),
        Step::Size => (request(&[b"DBSIZE"]), number(model.len())),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn replies_are_those_of_the_model(steps in prop::collection::vec(step(), 0..200)) {
        let host = start(&[]);
        let mut peer = Peer::new(host.module());
        let mut model = HashMap::new();
        for step in steps {
            let shown = format!("{step:?}");
            let (bytes, wanted) = apply(&mut model, step);
            peer.send(&bytes);
            prop_assert_eq!(std::mem::take(&mut peer.replies.bytes), wanted, "{}", shown);
        }
    }
}
