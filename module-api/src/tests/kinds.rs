//! Every kind of parameter, from the macro through the rules to the value.

use super::data::c_text;
use crate::abi::*;
use crate::params::ParamSet;
use crate::prelude::*;

crate::param_enum! {
    /// A choice.
    enum Choice {
        /// In turn.
        RoundRobin = "round-robin",
        Random = "random",
    }
}

crate::params! {
    struct Kinds {
        longest: Size = "8KiB" in "1KiB"..="64KiB",
        pause: Duration = "1s" in "1ms"..="1h",
        folder: std::path::PathBuf = ".",
        choice: Choice = "random",
        names: Vec<String> = "",
        choices: Vec<Choice> = "random, round-robin",
        ports: Vec<i64> = "5060" in 1..=65535,
        flags: Vec<bool>,
        routes: std::collections::BTreeMap<String, Size> = "a = 1",
        from: Option<std::path::PathBuf>,
        count: Option<i64>,
        wait: Option<Duration>,
        other: Option<Choice>,
        quiet: Option<bool>,
        most: Option<Size> in 1..=2,
    }
}

/// Writes the values that a host would write.
fn write_all(settings: &[(&str, &str)]) {
    use crate::check::{Folders, ParamDecl, check, write};
    use crate::testing::table::{declaration, setting};
    let declared: Vec<ParamDecl> = Kinds::TABLE.iter().map(declaration).collect();
    assert_eq!(declared.iter().filter_map(ParamDecl::problem).collect::<Vec<_>>(), [""; 0]);
    let settings: Vec<_> = settings.iter().map(|(name, text)| setting(name, text)).collect();
    let folders = Folders { file: "/f".into(), command: "/c".into() };
    for (index, value) in check("kinds", &declared, &settings, &folders).unwrap() {
        // SAFETY: a cell of the kind; only this test uses these cells.
        unsafe { write::write(Kinds::TABLE[index].target, &value) };
    }
}

#[test]
fn every_kind_is_described_and_read() {
    let row = |name: &str| Kinds::TABLE.iter().find(|row| c_text(row.name) == Some(name)).unwrap();
    assert_eq!((row("longest").kind, row("longest").min, row("longest").max), (PARAM_SIZE, 1024, 65_536));
    assert_eq!((row("pause").min, row("pause").max), (1_000_000, 3_600_000_000_000));
    assert_eq!(
        (row("choices").kind, row("choices").of, c_text(row("choices").words)),
        (PARAM_LIST, PARAM_ENUM, Some("round-robin|random"))
    );
    assert_eq!((row("routes").kind, row("routes").of, c_text(row("routes").words)), (PARAM_TABLE, PARAM_SIZE, None));
    assert_eq!((row("from").kind, row("from").flags, c_text(row("from").default_text)), (PARAM_PATH, 0, None));
    assert_eq!((row("count").flags, row("count").min), (PARAM_RANGE, i64::MIN + 1));
    assert_eq!(row("flags").flags, PARAM_REQUIRED);

    write_all(&[("flags", "true, false, on")]);
    let kinds = Kinds::read().unwrap();
    assert_eq!((kinds.longest, kinds.longest.len(), kinds.pause), (Size::new(8192), 8192, Duration::from_secs(1)));
    assert_eq!((kinds.folder, kinds.choice, kinds.names), ("/f".into(), Choice::Random, vec![]));
    assert_eq!((kinds.choices, kinds.ports), (vec![Choice::Random, Choice::RoundRobin], vec![5060]));
    assert_eq!((kinds.flags, kinds.routes), (vec![true, false, true], [("a".to_owned(), Size::new(1))].into()));
    assert_eq!((kinds.from, kinds.count, kinds.wait, kinds.other, kinds.quiet, kinds.most), (None, None, None, None, None, None));
    assert_eq!((Choice::RoundRobin.word(), Choice::Random.word()), ("round-robin", "random"));

    write_all(&[
        ("folder", "x/y"),
        ("choice", "round-robin"),
        ("names", r#""a, b", é"#),
        ("choices", ""),
        ("flags", ""),
        ("routes", "z = 1KiB, b = 2B"),
        ("from", "/é"),
        ("count", "0"),
        ("wait", "0s"),
        ("other", "round-robin"),
        ("quiet", "false"),
        ("most", "2"),
    ]);
    let kinds = Kinds::read().unwrap();
    assert_eq!((kinds.folder, kinds.choice, kinds.names), ("/c/x/y".into(), Choice::RoundRobin, vec!["a, b".to_owned(), "é".to_owned()]));
    assert_eq!((kinds.choices, kinds.flags), (vec![], vec![]));
    assert_eq!(kinds.routes, [("b".to_owned(), Size::new(2)), ("z".to_owned(), Size::new(1024))].into());
    assert_eq!((kinds.from, kinds.count, kinds.wait), (Some("/é".into()), Some(0), Some(Duration::ZERO)));
    assert_eq!((kinds.other, kinds.quiet, kinds.most), (Some(Choice::RoundRobin), Some(false), Some(Size::new(2))));
}
