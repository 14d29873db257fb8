//! Queries: parsing a datagram, and formatting as many entries as fit into one datagram.
//!
//! Pure.

use module_api::stats::Sample;

/// The format of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One line for each entry.
    Text,
    /// One object.
    Json,
    /// Version 0.0.4 of the Prometheus text format.
    Prometheus,
}

/// What a datagram asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct Query<'d> {
    /// Asks for the entries whose `module.name` begins with this.
    prefix: &'d str,
    format: Format,
}

/// Reserved in every answer for the number of entries left out.
const NOTE_BYTES: usize = 64;
const USAGE: &str = "ask with [PREFIX] [text|json|prometheus]";

impl<'d> Query<'d> {
    /// Parses an untrusted datagram. The error is a text for the sender.
    pub fn parse(data: &'d [u8]) -> Result<Self, &'static str> {
        let text = std::str::from_utf8(data).map_err(|_| USAGE)?;
        let mut words = text.split_ascii_whitespace();
        let (first, second, more) = (words.next(), words.next(), words.next());
        let format = |word| match word {
            "text" => Some(Format::Text),
            "json" => Some(Format::Json),
            "prometheus" => Some(Format::Prometheus),
            _ => None,
        };
        let query = match (first, second) {
            (None, _) => Query { prefix: "", format: Format::Text },
            (Some(word), None) => match format(word) {
                Some(format) => Query { prefix: "", format },
                None => Query { prefix: word, format: Format::Text },
            },
            (Some(prefix), Some(word)) => Query { prefix, format: format(word).ok_or(USAGE)? },
        };
        let is_name = query.prefix.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.'));
        if more.is_some() || !is_name { Err(USAGE) } else { Ok(query) }
    }

    /// Formats the wanted entries. An answer of more than `max_bytes` leaves whole entries out and
    /// states how many.
    pub fn answer(&self, samples: Vec<Sample>, max_bytes: usize) -> String {
        let room = max_bytes.saturating_sub(NOTE_BYTES);
        let (mut answer, mut left_out) = (String::new(), 0_usize);
        for sample in samples.iter().filter(|sample| sample.what.starts_with(self.prefix)) {
            let end = answer.len();
            match self.format {
                Format::Text => sample.write_text(&mut answer),
                Format::Prometheus => sample.write_prometheus(&mut answer),
                Format::Json => {
                    answer.push_str(if end == 0 { "" } else { "," });
                    sample.write_json(&mut answer, "");
                }
            }
            // A later, shorter entry may still fit.
            if answer.len() > room {
                answer.truncate(end);
                left_out += 1;
            }
        }
        match (self.format, left_out) {
            (Format::Json, left_out) => format!("{{\"stats\":[{answer}],\"left_out\":{left_out}}}\n"),
            (_, 0) => answer,
            (_, left_out) => answer + &format!("# left out: {left_out}, ask with a prefix\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use module_api::stats::{Description, Kind, Unit};

    use super::*;

    fn samples(count: u64) -> Vec<Sample> {
        let names: Vec<&'static str> = (0..count).map(|number| &*format!("counter_{number}").leak()).collect();
        let sample = |(at, name): (usize, &'static str)| {
            let what = Description { module: "m", name, help: "help", kind: Kind::Counter, unit: Unit::One, bounds: &[] };
            Sample::from_words(what, &[at as u64])
        };
        names.into_iter().enumerate().map(sample).collect()
    }

    #[test]
    fn queries_are_parsed_or_answered_with_the_usage() {
        for (data, prefix, format) in [
            (&b""[..], "", Format::Text),
            (b" \n", "", Format::Text),
            (b"json", "", Format::Json),
            (b"echo", "echo", Format::Text),
            (b"host.re prometheus\r\n", "host.re", Format::Prometheus),
            (b"text text", "text", Format::Text),
        ] {
            assert_eq!(Query::parse(data), Ok(Query { prefix, format }), "{data:?}");
        }
        for data in [&b"\xff"[..], b"a b", b"a json c", b"A", b"a\0", "ä".as_bytes(), b"../x json", &[b'!'; 60_000]] {
            assert_eq!(Query::parse(data), Err(USAGE), "{data:?}");
        }
    }

    #[test]
    fn entries_that_do_not_fit_are_left_out_whole_and_counted() {
        for format in [Format::Text, Format::Json, Format::Prometheus] {
            let query = Query { prefix: "m.", format };
            for max_bytes in [256, 300, 1000, 5000] {
                let answer = query.answer(samples(600), max_bytes);
                assert!(answer.len() <= max_bytes, "{format:?} {max_bytes} {}", answer.len());
                let is_stated = if format == Format::Json { !answer.contains("\"left_out\":0") } else { answer.contains("left out: ") };
                assert!(is_stated, "{answer}");
                assert!(answer.ends_with('\n'));
            }
            assert!(!query.answer(samples(3), 5000).contains("left out:"));
        }
        assert_eq!(Query { prefix: "m.counter_1", format: Format::Text }.answer(samples(12), 256).lines().count(), 3);
        assert_eq!(Query { prefix: "x", format: Format::Text }.answer(samples(3), 256), "");
        assert_eq!(Query { prefix: "x", format: Format::Json }.answer(samples(3), 256), "{\"stats\":[],\"left_out\":0}\n");
    }
}
