//! Tables of values and declarations, with the expected results.

use super::*;

/// In these tests a position is a word.
type PlacedValue = SettingValue<&'static str>;

fn folders() -> Folders {
    Folders { file: "/etc/host".into(), command: "/home".into() }
}

fn check(declared: &[ParamDecl], settings: &[Setting<&'static str>]) -> Result<Vec<(usize, ParamValue)>, Vec<Complaint<&'static str>>> {
    super::check("m", declared, settings, &folders())
}

/// A complaint as the host shows it.
fn shown(complaint: &Complaint<&'static str>) -> String {
    let Complaint { position, what, detail, hint } = complaint;
    format!("{}: {what}: {detail} (hint: {hint})", position.unwrap_or("nowhere"))
}

fn decl(kind: u32, flags: u32, default: Option<&str>) -> ParamDecl {
    ParamDecl {
        name: "p".into(),
        kind,
        flags,
        default: default.map(str::to_string),
        min: -5,
        max: 2_000_000_000,
        words: "first|any|last".into(),
        ..ParamDecl::default()
    }
}

#[test]
fn values_become_what_the_declaration_says() {
    use ParamValue::{Bool, DurationNs, Int, Path, Size, Str, Word};
    let (text, string) = (|text: &str| PlacedValue::Text(text.into()), |text: &str| PlacedValue::String(text.into()));
    let (bool_, int, string_, duration) = (abi::PARAM_BOOL, abi::PARAM_INT, abi::PARAM_STRING, abi::PARAM_DURATION);
    let range = abi::PARAM_RANGE;
    for (kind, flags, value, want) in [
        (bool_, 0, PlacedValue::Bool(true), Ok(Bool(1))),
        (bool_, 0, text("off"), Ok(Bool(0))),
        (bool_, 0, text("TRUE"), Err("neither true nor false")),
        (bool_, 0, PlacedValue::Int(1), Err("found the number 1 (hint: expected true or false)")),
        (int, 0, PlacedValue::Int(-7), Ok(Int(-7))),
        (int, range, PlacedValue::Int(-5), Ok(Int(-5))),
        (int, range, PlacedValue::Int(-6), Err("-6 is out of range (hint: expected a whole number, in -5..2000000000)")),
        (int, 0, PlacedValue::Float(1.5), Err("found the number 1.5")),
        (int, 0, string("1"), Err("found the string \"1\"")),
        (int, 0, text("0x_ff"), Ok(Int(255))),
        (int, 0, text("-9223372036854775808"), Ok(Int(i64::MIN))),
        (int, 0, text("9223372036854775808"), Err("does not fit 64 bits")),
        (int, 0, text("--1"), Err("is not a whole number")),
        (int, 0, text("é"), Err("is not a whole number")),
        (int, 0, text(""), Err("is not a whole number")),
        (string_, range, string("é"), Ok(Str("é".into()))),
        (string_, 0, text(""), Ok(Str(String::new()))),
        (string_, 0, string("a\0b"), Err("contains a NUL")),
        (string_, 0, PlacedValue::Int(1), Err("expected a string")),
        (duration, 0, string("1m"), Ok(DurationNs(60_000_000_000))),
        (duration, range, text("2s"), Ok(DurationNs(2_000_000_000))),
        (duration, range, text("3s"), Err("3s is out of range (hint: expected a duration such as \"10s\" or \"500ms\", in 0s..2s)")),
        (duration, 0, PlacedValue::Int(5), Err("the number 5 has no unit")),
        (abi::PARAM_SIZE, 0, PlacedValue::Int(4096), Ok(Size(4096))),
        (abi::PARAM_SIZE, 0, string("64 KiB"), Ok(Size(65_536))),
        (abi::PARAM_SIZE, range, text("1GB"), Ok(Size(1_000_000_000))),
        (
            abi::PARAM_SIZE,
            range,
            text("2GiB"),
            Err("2 GiB is out of range (hint: expected a size such as \"64KiB\", or a number of bytes, in 0 B.."),
        ),
        (abi::PARAM_SIZE, 0, PlacedValue::Int(-1), Err("the number -1 is negative")),
        (abi::PARAM_SIZE, 0, text("8388608TiB"), Err("more than 8 EiB")),
        (abi::PARAM_SIZE, 0, PlacedValue::Float(1.5), Err("found the number 1.5")),
        (abi::PARAM_PATH, 0, string("./a/b"), Ok(Path("/etc/host/a/b".into()))),
        (abi::PARAM_PATH, 0, string("../b"), Ok(Path("/etc/host/../b".into()))),
        (abi::PARAM_PATH, 0, text("a"), Ok(Path("/home/a".into()))),
        (abi::PARAM_PATH, 0, text("/a"), Ok(Path("/a".into()))),
        (abi::PARAM_PATH, 0, string(""), Err("it is empty")),
        (abi::PARAM_PATH, 0, string("\0"), Err("contains a NUL")),
        (abi::PARAM_PATH, 0, PlacedValue::Bool(true), Err("found true (hint: expected the path")),
        (abi::PARAM_ENUM, 0, string("last"), Ok(Word(2))),
        (abi::PARAM_ENUM, 0, text("first"), Ok(Word(0))),
        (abi::PARAM_ENUM, 0, string("frist"), Err("\"frist\" is not one of its words (hint: did you mean \"first\"?)")),
        (abi::PARAM_ENUM, 0, string(""), Err("(hint: expected one of first, any, last)")),
        (abi::PARAM_ENUM, 0, string("first|any"), Err("is not one of its words")),
        (abi::PARAM_ENUM, 0, PlacedValue::Int(0), Err("found the number 0 (hint: expected one of first, any, last)")),
        (77, 0, text("x"), Err("unknown kind 77")),
        (int, 0, PlacedValue::List(vec![]), Err("found a list")),
        (int, 0, PlacedValue::Table(vec![]), Err("found a table")),
        (string_, 0, PlacedValue::Time("1979-05-27".into()), Err("found the date or time 1979-05-27")),
    ] {
        let setting = Setting { name: "p".into(), value: value.clone(), position: "there" };
        let found = check(&[decl(kind, flags, None)], &[setting]);
        match (found, want) {
            (Ok(values), Ok(want)) => assert_eq!(values, [(0, want)], "{value:?}"),
            (Err(errors), Err(part)) => {
                let error = shown(&errors[0]);
                assert!(
                    error.contains(part) && error.starts_with("there: wrong value for parameter \"p\" of module \"m\""),
                    "{value:?} without {part:?}: {error}"
                );
            }
            (found, want) => panic!("{value:?}: {found:?}, expected {want:?}"),
        }
    }
}

#[test]
fn defaults_requirements_and_the_last_setting() {
    let declared = [decl(abi::PARAM_INT, 0, Some("7"))];
    assert_eq!(check(&declared, &[]), Ok(vec![(0, ParamValue::Int(7))]));
    assert_eq!(check(&[decl(abi::PARAM_INT, 0, None)], &[]), Ok(vec![]));
    let errors = check(&[decl(abi::PARAM_INT, abi::PARAM_REQUIRED, None)], &[]).unwrap_err();
    assert!(
        shown(&errors[0]).contains("needs a value for parameter \"p\"") && errors[0].hint.contains("--set m.p="),
        "{}",
        shown(&errors[0])
    );
    let errors = check(&[decl(abi::PARAM_INT, 0, Some("x"))], &[]).unwrap_err();
    assert!(shown(&errors[0]).contains("wrong default"), "{}", shown(&errors[0]));
    let set = |number| Setting { name: "p".into(), value: PlacedValue::Int(number), position: "there" };
    assert_eq!(check(&declared, &[set(1), set(2)]), Ok(vec![(0, ParamValue::Int(2))]));
    for (bad, part) in [
        (decl(10, 0, None), "kind 10; known are 1 to 9"),
        (decl(abi::PARAM_DURATION, 0, Some("5")), "5 has no unit"),
        (ParamDecl { name: "a.b".into(), ..decl(abi::PARAM_INT, 0, None) }, "a.b"),
        (decl(abi::PARAM_LIST, 0, None), "is a list of kind 0"),
        (ParamDecl { of: abi::PARAM_LIST, ..decl(abi::PARAM_TABLE, 0, None) }, "is a table of kind 8"),
        (ParamDecl { of: abi::PARAM_INT, ..decl(abi::PARAM_LIST, 0, Some("1, x")) }, "item 2: \"x\" is not a whole number"),
        (ParamDecl { words: String::new(), ..decl(abi::PARAM_ENUM, 0, None) }, "without words"),
        (ParamDecl { words: "a||b".into(), ..decl(abi::PARAM_ENUM, 0, None) }, "has the word \"\""),
        (ParamDecl { words: "a|b c".into(), ..decl(abi::PARAM_ENUM, 0, None) }, "has the word \"b c\""),
        (ParamDecl { words: "a|b|a".into(), ..decl(abi::PARAM_ENUM, 0, None) }, "has the word \"a\" twice"),
        (decl(abi::PARAM_ENUM, 0, Some("nay")), "\"nay\" is not one of its words"),
        (ParamDecl { min: 3, max: 2, ..decl(abi::PARAM_INT, abi::PARAM_RANGE, None) }, "is empty"),
    ] {
        assert!(bad.problem().unwrap().contains(part), "{bad:?}");
    }
}

#[test]
fn lists_and_tables() {
    let list = |of, flags| ParamDecl { of, ..decl(abi::PARAM_LIST, flags, None) };
    let table = |of| ParamDecl { of, ..decl(abi::PARAM_TABLE, 0, None) };
    let one = |decl: ParamDecl, value: PlacedValue| {
        check(&[decl], &[Setting { name: "p".into(), value, position: "whole" }])
            .map(|mut values| values.remove(0).1)
            .map_err(|complaints| complaints.iter().map(shown).collect::<Vec<_>>())
    };
    let string = |text: &str| PlacedValue::String(text.into());
    let items = || PlacedValue::List(vec![(string("a"), "first"), (string("b"), "second")]);
    let (a, b) = (ParamValue::Str("a".into()), ParamValue::Str("b".into()));
    assert_eq!(one(list(abi::PARAM_STRING, 0), items()), Ok(ParamValue::List(vec![a.clone(), b.clone()])));
    assert_eq!(one(list(abi::PARAM_STRING, 0), PlacedValue::Text("a, \"b\"".into())), Ok(ParamValue::List(vec![a.clone(), b.clone()])));
    assert_eq!(one(list(abi::PARAM_STRING, 0), PlacedValue::Text(String::new())), Ok(ParamValue::List(vec![])));
    assert_eq!(
        one(list(abi::PARAM_PATH, 0), PlacedValue::Text("x".into())),
        Ok(ParamValue::List(vec![ParamValue::Path("/home/x".into())]))
    );
    // Each wrong item with its place.
    let wrong =
        PlacedValue::List(vec![(string("1s"), "first"), (PlacedValue::Int(2), "second"), (string("3s"), "third"), (string("x"), "fourth")]);
    let found = one(list(abi::PARAM_DURATION, abi::PARAM_RANGE), wrong).unwrap_err();
    assert_eq!(found.len(), 3, "{found:?}");
    for (error, part) in found.iter().zip([
        "second: wrong value for parameter \"p\" of module \"m\": item 2: the number 2 has no unit",
        "third: ",
        "fourth: ",
    ]) {
        assert!(error.starts_with(part), "{error}");
    }
    assert!(
        found[1].contains("item 3: 3s is out of range (hint: expected a list, each item a duration") && found[1].contains("in 0s..2s"),
        "{found:?}"
    );
    let found = one(list(abi::PARAM_ENUM, 0), PlacedValue::List(vec![(string("lst"), "first"), (PlacedValue::List(vec![]), "second")]))
        .unwrap_err();
    assert!(
        found[0].contains("did you mean \"last\"?") && found[1].starts_with("second: ") && found[1].contains("item 2: found a list"),
        "{found:?}"
    );
    let found = one(list(abi::PARAM_INT, 0), PlacedValue::Int(1)).unwrap_err();
    assert!(
        found[0].contains("whole: ") && found[0].contains("found the number 1 (hint: expected a list, each item a whole number)"),
        "{found:?}"
    );
    let found = one(list(abi::PARAM_INT, 0), PlacedValue::Text("1,,2".into())).unwrap_err();
    assert!(found[0].contains("an item is missing"), "{found:?}");

    let entries = PlacedValue::Table(vec![("z".into(), string("b"), "first"), ("a".into(), string("a"), "second")]);
    assert_eq!(
        one(table(abi::PARAM_STRING), entries.clone()),
        Ok(ParamValue::Table(vec![("z".into(), b), ("a".into(), a)])),
        "in the order in which they were written"
    );
    assert_eq!(
        one(table(abi::PARAM_INT), PlacedValue::Text("x = 1".into())),
        Ok(ParamValue::Table(vec![("x".into(), ParamValue::Int(1))]))
    );
    let found = one(table(abi::PARAM_ENUM), entries).unwrap_err();
    assert!(found[0].starts_with("first: ") && found[0].contains("\"z\": \"b\" is not one of its words"), "{found:?}");
    let found = one(table(abi::PARAM_INT), items()).unwrap_err();
    assert!(found[0].contains("found a list (hint: expected a table, each value a whole number)"), "{found:?}");
    let found = one(table(abi::PARAM_INT), PlacedValue::Table(vec![(String::new(), PlacedValue::Int(1), "first")])).unwrap_err();
    assert!(found[0].starts_with("first: ") && found[0].contains("\"\" is not a valid key"), "{found:?}");
    let found = one(table(abi::PARAM_INT), PlacedValue::Text("x".into())).unwrap_err();
    assert!(found[0].contains("\"x\" has no \"=\""), "{found:?}");
}

#[test]
fn values_reach_their_targets() {
    use crate::abi::{List, Str, Table};
    let text = |text: &Str| {
        // SAFETY: written by `write`, with a NUL at its end.
        let bytes = unsafe { std::ffi::CStr::from_ptr(text.ptr) }.to_bytes();
        assert_eq!(bytes.len(), text.len);
        String::from_utf8(bytes.to_vec()).unwrap()
    };
    let words = ParamValue::List(vec![ParamValue::Word(2), ParamValue::Word(0), ParamValue::Word(1)]);
    let mut list = List { len: 99, ..List::EMPTY };
    // SAFETY: each target has its kind's type, and is read as that type.
    unsafe {
        write::write((&raw mut list).cast(), &words);
        assert_eq!(std::slice::from_raw_parts(list.items.cast::<u32>(), list.len), [2, 0, 1]);
        write::write((&raw mut list).cast(), &ParamValue::List(vec![]));
        assert!(list.items.is_null() && list.len == 0);
        let mut table = Table { len: 99, ..Table::EMPTY };
        let entries = vec![("a".into(), ParamValue::Path("/x".into())), ("é".into(), ParamValue::Path("/y z".into()))];
        write::write((&raw mut table).cast(), &ParamValue::Table(entries));
        let keys: Vec<String> = std::slice::from_raw_parts(table.keys, table.len).iter().map(text).collect();
        let values: Vec<String> = std::slice::from_raw_parts(table.values.cast::<Str>(), table.len).iter().map(text).collect();
        assert_eq!((keys, values), (vec!["a".into(), "é".into()], vec!["/x".into(), "/y z".into()]));
        let mut bytes = 0_i64;
        write::write((&raw mut bytes).cast(), &ParamValue::Size(5));
        assert_eq!(bytes, 5);
    }
}
