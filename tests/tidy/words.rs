//! Plain words and short lines in comments and pages.

use crate::prose::{self, Line};
use crate::tree::Tree;

/// Columns of a line of prose.
const WIDTH: usize = 100;

/// What no sentence contains.
const PHRASES: [&str; 17] = [
    "a right to",
    "behind each other",
    "behind it",
    "behind them",
    "give back",
    "gives back",
    "it may be that",
    "none if there",
    "of its own",
    "of their own",
    "one of which",
    "stand behind",
    "stand in",
    "stand there",
    "stands",
    "such a one",
    "what is meant",
];

/// What no sentence begins with. A question or a heading may.
const OPENERS: [&str; 10] = ["so long", "so many", "so much", "so few", "which", "who", "what is", "what are", "whom", "whose"];

/// Pages that quote others.
fn is_exempt(path: &str) -> bool {
    path.starts_with("tests/golden/")
}

/// The phrases that comments and pages must not contain.
pub fn plain_words(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for (path, lines) in prose_of(tree) {
        for paragraph in lines.chunk_by(|_, next| next.continues) {
            found.extend(phrases(paragraph).into_iter().map(|(line, phrase)| format!("{path}:{line}: {phrase}")));
        }
    }
    found
}

/// Whether each entry must be on one line: mdBook reads this page as a table of contents.
fn is_contents(path: &str) -> bool {
    path.ends_with("/SUMMARY.md")
}

/// Lines of prose that are too wide, unless a word on them is (an address, say).
pub fn short_lines(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for (path, lines) in prose_of(tree).filter(|(path, _)| !is_contents(path)) {
        let is_long =
            |line: &&Line| line.width > WIDTH && !line.follows_code && line.text.split(' ').all(|word| word.chars().count() < WIDTH - 10);
        found.extend(lines.iter().filter(is_long).map(|line| format!("{path}:{}: {} columns", line.number, line.width)));
    }
    found
}

fn prose_of(tree: &Tree) -> impl Iterator<Item = (&str, Vec<Line>)> {
    tree.all().filter(|(path, _)| !is_exempt(path)).filter_map(|(path, text)| Some((path, prose::lines(text, prose::language(path)?))))
}

/// The phrases of a paragraph, which may begin on one line and end on the next, with the line that
/// they begin on.
fn phrases(paragraph: &[Line]) -> Vec<(usize, &'static str)> {
    let mut words: Vec<(String, usize)> = Vec::new();
    for line in paragraph {
        words.extend(line.text.split_whitespace().map(|word| (word.to_lowercase(), line.number)));
    }
    let mut found = Vec::new();
    let mut is_start = !paragraph.iter().any(|line| line.is_heading);
    for at in 0..words.len() {
        let line = words[at].1;
        found.extend(PHRASES.iter().filter(|phrase| begins(&words[at..], phrase)).map(|phrase| (line, *phrase)));
        if is_start {
            let is_question = words[at..].iter().find(|(word, _)| ends_sentence(word)).is_some_and(|(word, _)| word.contains('?'));
            found.extend(OPENERS.iter().filter(|opener| !is_question && begins(&words[at..], opener)).map(|opener| (line, *opener)));
        }
        is_start = ends_sentence(&words[at].0);
    }
    found
}

/// Whether these words come first, whatever punctuation is around each.
fn begins(words: &[(String, usize)], phrase: &str) -> bool {
    let bare = |word: &'_ str| word.trim_matches(|character: char| !character.is_alphanumeric()).to_owned();
    let mut count = 0;
    let is_same = phrase.split(' ').enumerate().all(|(index, expected)| {
        count = index + 1;
        words.get(index).is_some_and(|(word, _)| bare(word) == expected)
    });
    // A phrase does not go over the end of a sentence.
    is_same && !words[..count - 1].iter().any(|(word, _)| ends_sentence(word) || word.ends_with([',', ';', ':']))
}

fn ends_sentence(word: &str) -> bool {
    word.trim_end_matches([')', '"', '*']).ends_with(['.', '?', '!'])
}

#[cfg(test)]
mod breaches {
    use super::*;

    #[test]
    fn phrases_are_found_over_lines() {
        let source =
            "//! Which file it is. Which? So what.\n/// It stands\n/// on `one of which`, one\n/// of which is\nfn f() {} // of its own\n";
        let tree = Tree::of(&[("host/src/a.rs", source), ("tests/golden/page.md", "It stands.\n")]);
        let expected =
            ["host/src/a.rs:1: which", "host/src/a.rs:2: stands", "host/src/a.rs:3: one of which", "host/src/a.rs:5: of its own"];
        assert_eq!(plain_words(&tree), expected);
    }

    #[test]
    fn long_lines_are_found() {
        let long = "word ".repeat(20) + "end.";
        let address = format!("https://{}", "x".repeat(100));
        let source = format!("/// {long}\n/// {address}\nfn f() {{}} // {long}\nlet code = \"{long}\";\n");
        let page = format!("# Page\n{long}\n| {long} |\n```\n{long}\n```\n");
        let tree = Tree::of(&[
            ("host/src/a.rs", &source),
            ("docs/a.md", &page),
            ("docs/SUMMARY.md", &page),
            ("module-api/include/a.h", &format!("/*\n * {long}\n */\n")),
        ]);
        assert_eq!(
            short_lines(&tree),
            ["docs/a.md:2: 104 columns", "host/src/a.rs:1: 108 columns", "module-api/include/a.h:2: 107 columns"]
        );
    }
}
