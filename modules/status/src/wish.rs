//! What a request asks for: the form of the answer, and whether the browser shall ask again.
//!
//! Pure.

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A page for people.
    Html,
    /// One object.
    Json,
    /// The counters as Prometheus reads them.
    Prometheus,
}

impl Format {
    /// For the header.
    pub fn media_type(self) -> &'static str {
        match self {
            Format::Html => "text/html; charset=utf-8",
            Format::Json => "application/json",
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// A request that can be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// How it is answered.
    pub format: Format,
    /// After how many seconds a browser asks again.
    pub refresh_s: Option<u32>,
}

/// Fewest and most seconds.
const REFRESH_S: std::ops::RangeInclusive<u32> = 1..=3600;

impl Wish {
    /// From a query and the header `Accept`, of anybody. A format in the query goes before the header. Other keys mean nothing.
    pub fn parse(query: &[u8], accept: Option<&[u8]>) -> Result<Wish, &'static str> {
        let mut format = None;
        let mut refresh_s = None;
        for part in query.split(|byte| *byte == b'&') {
            let (key, value) = match part.iter().position(|byte| *byte == b'=') {
                Some(at) => (&part[..at], &part[at + 1..]),
                None => (part, &b""[..]),
            };
            match key {
                b"format" => {
                    format = Some(match value {
                        b"html" => Format::Html,
                        b"json" => Format::Json,
                        b"prometheus" => Format::Prometheus,
                        _ => return Err("400 Bad Request: format is html, json or prometheus\n"),
                    });
                }
                b"refresh" => {
                    refresh_s = Some(seconds(value).ok_or("400 Bad Request: refresh is 1 to 3600, in seconds\n")?);
                }
                _ => {}
            }
        }
        let format = format.unwrap_or_else(|| if prefers_json(accept.unwrap_or_default()) { Format::Json } else { Format::Html });
        Ok(Wish { format, refresh_s })
    }
}

fn seconds(value: &[u8]) -> Option<u32> {
    // No sign, and not longer than the longest.
    let digits = (1..=4).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    let seconds = std::str::from_utf8(value).ok().filter(|_| digits)?.parse().ok()?;
    REFRESH_S.contains(&seconds).then_some(seconds)
}

/// Whether JSON is named and HTML is not. Quality values say nothing more here: who can show a page names it.
fn prefers_json(accept: &[u8]) -> bool {
    let names = |wanted: &[u8]| {
        accept.split(|byte| *byte == b',').any(|part| {
            let media_type = part.split(|byte| *byte == b';').next().unwrap_or_default();
            media_type.trim_ascii().eq_ignore_ascii_case(wanted)
        })
    };
    names(b"application/json") && !names(b"text/html")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        for (query, accept, format) in [
            ("", None, Format::Html),
            ("", Some("*/*"), Format::Html),
            ("", Some(browser), Format::Html),
            ("", Some("application/json"), Format::Json),
            ("", Some("text/plain, Application/JSON;q=0.5"), Format::Json),
            ("", Some("application/json, text/html"), Format::Html),
            ("", Some("application/jsonx"), Format::Html),
            ("format=json", Some(browser), Format::Json),
            ("format=html", Some("application/json"), Format::Html),
            ("format=prometheus", None, Format::Prometheus),
            ("format=json&format=prometheus", None, Format::Prometheus),
            ("x&y=1&&=&format=json&z", None, Format::Json),
            ("formats=json", None, Format::Html),
        ] {
            assert_eq!(
                Wish::parse(query.as_bytes(), accept.map(str::as_bytes)).unwrap(),
                Wish { format, refresh_s: None },
                "{query} {accept:?}"
            );
        }
        for query in ["format=", "format", "format=JSON", "format=xml", "a=b&format=json%20"] {
            assert!(Wish::parse(query.as_bytes(), None).unwrap_err().contains("format is html, json or prometheus"), "{query}");
        }
    }

    #[test]
    fn seconds_to_the_next_time() {
        for (query, seconds) in [("refresh=1", 1), ("refresh=3600", 3600), ("refresh=0005", 5), ("format=html&refresh=10", 10)] {
            assert_eq!(Wish::parse(query.as_bytes(), None).unwrap(), Wish { format: Format::Html, refresh_s: Some(seconds) }, "{query}");
        }
        for query in [
            "refresh=",
            "refresh",
            "refresh=0",
            "refresh=3601",
            "refresh=-1",
            "refresh=+5",
            "refresh=1.5",
            "refresh=99999999999",
            "refresh=\u{ff15}",
        ] {
            assert!(Wish::parse(query.as_bytes(), None).unwrap_err().contains("1 to 3600"), "{query}");
        }
        // Whatever it is, it is no panic.
        for query in [&b"\xff\0=&&==\xfe"[..], &[b'&'; 10_000], &[b'='; 10_000]] {
            assert_eq!(Wish::parse(query, Some(query)).unwrap().format, Format::Html);
        }
    }
}
