//! The comments of sources and the text of pages, without the code in them.

/// One line of prose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    pub number: usize,
    /// Columns that the whole line has in the file.
    pub width: usize,
    /// Without the marks of a comment or a list, and with the code between backticks emptied.
    pub text: String,
    /// Whether code precedes the comment.
    pub follows_code: bool,
    /// Whether a sentence of the line before may go on here.
    pub continues: bool,
    pub is_heading: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Language {
    C,
    Markdown,
    Rust,
}

/// The language of a file that has prose to look at.
pub fn language(path: &str) -> Option<Language> {
    match path.rsplit_once('.')?.1 {
        "rs" => Some(Language::Rust),
        "c" | "h" => Some(Language::C),
        "md" => Some(Language::Markdown),
        _ => None,
    }
}

/// The comments of a source or the text of a page, without code blocks and tables.
pub fn lines(text: &str, language: Language) -> Vec<Line> {
    let raw = match language {
        Language::Markdown => text.lines().map(|line| Some((String::new(), line.to_owned(), Kind::Page))).collect(),
        _ => Lexer::new(text, language).split(),
    };
    let (mut lines, mut fenced, mut previous) = (Vec::new(), false, Kind::Page);
    for ((index, line), whole) in raw.into_iter().enumerate().zip(text.lines()) {
        let Some((code, comment, kind)) = line else {
            fenced = false;
            continue;
        };
        let text = comment.trim();
        if text.starts_with("```") || text.starts_with("~~~") {
            fenced = !fenced;
        } else if !fenced && !text.starts_with('|') && !text.is_empty() {
            let (item, words) = without_mark(text);
            let follows_code = !code.trim().is_empty();
            let number = index + 1;
            let is_next = lines.last().is_some_and(|before: &Line| before.number + 1 == number && previous == kind);
            let continues = is_next && item == Item::No && !follows_code;
            let (width, is_heading) = (whole.chars().count(), text.starts_with('#'));
            lines.push(Line { number, width, text: without_code(words), follows_code, continues, is_heading });
            // After a heading comes another sentence.
            previous = if is_heading { Kind::Heading } else { kind };
        }
    }
    lines
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Item {
    /// Begins a point of a list, or is a heading.
    Yes,
    No,
}

fn without_mark(text: &str) -> (Item, &str) {
    if text.starts_with('#') {
        return (Item::Yes, text.trim_start_matches('#').trim_start());
    }
    let rest = ["- ", "* ", "> "].iter().find_map(|mark| text.strip_prefix(mark));
    let number = || text.split_once(". ").filter(|(number, _)| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()));
    match rest.or_else(|| number().map(|(_, rest)| rest)) {
        Some(rest) => (Item::Yes, rest.trim_start()),
        None => (Item::No, text),
    }
}

/// A line with the code between backticks emptied.
fn without_code(text: &str) -> String {
    let parts: Vec<&str> = text.split('`').collect();
    if parts.len().is_multiple_of(2) {
        return text.to_owned();
    }
    parts.into_iter().enumerate().map(|(index, part)| if index % 2 == 0 { part } else { "``" }).collect()
}

/// The kind of comment that a line is in. A sentence never continues in another kind.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Block,
    Heading,
    Inner,
    Line,
    Outer,
    Page,
}

/// The code, the comment and its kind of each line that has a comment.
type Split = Vec<Option<(String, String, Kind)>>;

struct Lexer {
    characters: Vec<char>,
    at: usize,
    language: Language,
    code: String,
    comment: Option<(String, Kind)>,
    lines: Split,
}

impl Lexer {
    fn new(text: &str, language: Language) -> Self {
        Self { characters: text.chars().collect(), at: 0, language, code: String::new(), comment: None, lines: Vec::new() }
    }

    fn split(mut self) -> Split {
        while self.at < self.characters.len() {
            if self.is_here("//") {
                self.line_comment();
            } else if self.is_here("/*") {
                self.block_comment();
            } else if let Some(hashes) = self.raw_string() {
                self.skip_to(&format!("\"{}", "#".repeat(hashes)));
            } else if self.is_here("\"") {
                self.literal('"');
            } else if self.is_here("'") && !self.is_lifetime() {
                self.literal('\'');
            } else {
                let character = self.take();
                self.code.push(character);
            }
        }
        self.end_line();
        self.lines
    }

    fn is_here(&self, text: &str) -> bool {
        text.chars().enumerate().all(|(index, character)| self.peek(index) == Some(character))
    }

    fn peek(&self, distance: usize) -> Option<char> {
        self.characters.get(self.at + distance).copied()
    }

    /// The next character. Ends the line when that does.
    fn take(&mut self) -> char {
        let character = self.characters[self.at];
        self.at += 1;
        if character == '\n' {
            self.end_line();
        }
        character
    }

    fn end_line(&mut self) {
        let code = std::mem::take(&mut self.code);
        self.lines.push(self.comment.take().map(|(text, kind)| (code.replace('\n', ""), text, kind)));
    }

    fn line_comment(&mut self) {
        self.at += 2;
        let kind = match (self.peek(0), self.peek(1)) {
            (Some('/'), next) if next != Some('/') => Kind::Outer,
            (Some('!'), _) => Kind::Inner,
            _ => Kind::Line,
        };
        if kind != Kind::Line {
            self.at += 1;
        }
        let rest = self.characters[self.at..].iter().take_while(|character| **character != '\n');
        let text: String = rest.collect();
        self.at += text.chars().count();
        self.add(&text, kind);
    }

    /// A line may have several comments.
    fn add(&mut self, text: &str, kind: Kind) {
        let before = self.comment.take().map_or_else(String::new, |(before, _)| before.trim().to_owned() + " ");
        self.comment = Some((before + text.trim(), kind));
    }

    fn block_comment(&mut self) {
        let mut depth = 0;
        let mut text = String::new();
        loop {
            if self.is_here("/*") {
                // Those of C do not nest.
                depth = if self.language == Language::Rust { depth + 1 } else { 1 };
                self.at += 2;
            } else if self.is_here("*/") {
                depth -= 1;
                self.at += 2;
                if depth == 0 {
                    break;
                }
            } else if self.at == self.characters.len() {
                break;
            } else if self.peek(0) == Some('\n') {
                self.add(without_star(&text), Kind::Block);
                text.clear();
                self.take();
            } else {
                text.push(self.take());
            }
        }
        self.add(without_star(&text), Kind::Block);
    }

    /// The number of `#` if a raw string begins here, which is then passed.
    fn raw_string(&mut self) -> Option<usize> {
        let in_word = self.code.chars().last().is_some_and(|last| last.is_alphanumeric() || last == '_');
        if self.language != Language::Rust || in_word {
            return None;
        }
        let prefix = ["br", "cr", "r"].into_iter().find(|prefix| self.is_here(prefix))?.len();
        let hashes = self.characters[self.at + prefix..].iter().take_while(|character| **character == '#').count();
        (self.peek(prefix + hashes) == Some('"')).then(|| {
            self.at += prefix + hashes + 1;
            hashes
        })
    }

    fn skip_to(&mut self, end: &str) {
        while self.at < self.characters.len() && !self.is_here(end) {
            self.take();
        }
        self.at += end.len();
        self.code.push('"');
    }

    fn literal(&mut self, quote: char) {
        self.at += 1;
        while self.at < self.characters.len() {
            match self.take() {
                '\\' if self.at < self.characters.len() => _ = self.take(),
                character if character == quote => break,
                _ => {}
            }
        }
        self.code.push(quote);
    }

    fn is_lifetime(&self) -> bool {
        self.language == Language::Rust && self.peek(1) != Some('\\') && self.peek(2) != Some('\'')
    }
}

fn without_star(text: &str) -> &str {
    let text = text.trim();
    text.strip_prefix(['*', '!']).unwrap_or(text).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(source: &str, language: Language) -> Vec<String> {
        lines(source, language)
            .into_iter()
            .map(|line| format!("{}:{}{}", line.number, if line.continues { "+" } else { "" }, line.text))
            .collect()
    }

    #[test]
    fn comments_are_told_from_literals() {
        let source = r####"//! One
//! two
let a = "// no"; // three
/// ```
/// let code = 1;
/// ```
/// | a table |
/* four
 * five */ fn f<'a>(x: &'a str) -> char { '"' } // six
let raw = r##"
// no "# either
"##;
let q = '\''; /* seven */
/// `code` eight
"####;
        let expected = ["1:One", "2:+two", "3:three", "8:four", "9:five six", "13:seven", "14:`` eight"];
        assert_eq!(texts(source, Language::Rust), expected);
    }

    #[test]
    fn pages_are_without_tables_and_code() {
        let page = "# One\ntwo\nthree\n\n- four\n  five\n1. six\n| no | no |\n```sh\nno\n```\nseven `no` end\n";
        let expected = ["1:One", "2:two", "3:+three", "5:four", "6:+five", "7:six", "12:seven `` end"];
        assert_eq!(texts(page, Language::Markdown), expected);
    }
}
