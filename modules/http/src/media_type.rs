//! The media type of a file, by the extension of its name.
//!
//! Pure.

/// Extensions in lower case, and their media types.
const TYPES: &[(&[u8], &str)] = &[
    (b"html", "text/html"),
    (b"htm", "text/html"),
    (b"css", "text/css"),
    (b"js", "text/javascript"),
    (b"mjs", "text/javascript"),
    (b"txt", "text/plain"),
    (b"md", "text/markdown"),
    (b"csv", "text/csv"),
    (b"xml", "text/xml"),
    (b"json", "application/json"),
    (b"map", "application/json"),
    (b"webmanifest", "application/manifest+json"),
    (b"pdf", "application/pdf"),
    (b"wasm", "application/wasm"),
    (b"zip", "application/zip"),
    (b"gz", "application/gzip"),
    (b"tar", "application/x-tar"),
    (b"png", "image/png"),
    (b"jpg", "image/jpeg"),
    (b"jpeg", "image/jpeg"),
    (b"gif", "image/gif"),
    (b"svg", "image/svg+xml"),
    (b"webp", "image/webp"),
    (b"avif", "image/avif"),
    (b"ico", "image/x-icon"),
    (b"woff", "font/woff"),
    (b"woff2", "font/woff2"),
    (b"ttf", "font/ttf"),
    (b"otf", "font/otf"),
    (b"mp3", "audio/mpeg"),
    (b"ogg", "audio/ogg"),
    (b"wav", "audio/wav"),
    (b"mp4", "video/mp4"),
    (b"webm", "video/webm"),
];

/// The media type for the extension of a file's name, otherwise `application/octet-stream`.
pub fn of(path: &[u8]) -> &'static str {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let extension = name.iter().rposition(|byte| *byte == b'.').map_or(&b""[..], |dot| &name[dot + 1..]);
    let found = TYPES.iter().find(|(known, _)| known.eq_ignore_ascii_case(extension));
    found.map_or("application/octet-stream", |(_, media_type)| media_type)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_last_extension_decides() {
        for (path, wanted) in [
            ("a/index.html", "text/html"),
            ("A.PNG", "image/png"),
            ("x.tar.gz", "application/gzip"),
            ("a.html/readme", "application/octet-stream"),
            ("none.", "application/octet-stream"),
        ] {
            assert_eq!(super::of(path.as_bytes()), wanted, "{path}");
        }
    }
}
