//! Parses a request for the page: the format of the answer, and how often the browser reloads it.
//!
//! Pure.

/// The format of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A page for a browser.
    Html,
    /// One object.
    Json,
    /// The counters in version 0.0.4 of the Prometheus text format.
    Prometheus,
}

impl Format {
    /// The value of `Content-Type`.
    pub fn media_type(self) -> &'static str {
        match self {
            Format::Html => "text/html; charset=utf-8",
            Format::Json => "application/json",
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// A valid request for the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRequest {
    pub format: Format,
    /// After how many seconds a browser reloads the page; `None` for never.
    pub refresh_s: Option<u32>,
}

/// Allowed values of `refresh`, in seconds.
const REFRESH_S: std::ops::RangeInclusive<u32> = 1..=3600;

impl PageRequest {
    /// Parses the query and the header `Accept`, both untrusted. A format in the query overrides
    /// the header. Unknown keys are ignored. The error is a text for the client.
    pub fn parse(query: &[u8], accept: Option<&[u8]>) -> Result<PageRequest, &'static str> {
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
        Ok(PageRequest { format, refresh_s })
    }
}

fn seconds(value: &[u8]) -> Option<u32> {
    // `parse` would accept a plus sign. Four digits are enough for the largest value.
    let digits = (1..=4).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    let seconds = std::str::from_utf8(value).ok().filter(|_| digits)?.parse().ok()?;
    REFRESH_S.contains(&seconds).then_some(seconds)
}

/// Whether the header names JSON and not HTML. Quality values are ignored: every browser names
/// HTML.
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
    fn format_is_taken_from_the_query_then_from_accept() {
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
                PageRequest::parse(query.as_bytes(), accept.map(str::as_bytes)).unwrap(),
                PageRequest { format, refresh_s: None },
                "{query} {accept:?}"
            );
        }
        for query in ["format=", "format", "format=JSON", "format=xml", "a=b&format=json%20"] {
            assert!(PageRequest::parse(query.as_bytes(), None).unwrap_err().contains("format is html, json or prometheus"), "{query}");
        }
    }

    #[test]
    fn refresh_is_1_to_3600_seconds() {
        for (query, seconds) in [("refresh=1", 1), ("refresh=3600", 3600), ("refresh=0005", 5), ("format=html&refresh=10", 10)] {
            let wanted = PageRequest { format: Format::Html, refresh_s: Some(seconds) };
            assert_eq!(PageRequest::parse(query.as_bytes(), None).unwrap(), wanted, "{query}");
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
            assert!(PageRequest::parse(query.as_bytes(), None).unwrap_err().contains("1 to 3600"), "{query}");
        }
        // No input panics.
        for query in [&b"\xff\0=&&==\xfe"[..], &[b'&'; 10_000], &[b'='; 10_000]] {
            assert_eq!(PageRequest::parse(query, Some(query)).unwrap().format, Format::Html);
        }
    }
}
