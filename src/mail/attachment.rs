//! Attachments: a name that is safe to show, and a media type that does not lie dangerously.

use crate::event::shown;
use crate::visible::is_disguise;
use std::ffi::OsStr;

/// What a file is when nobody may be led to open it.
const UNKNOWN: &str = "application/octet-stream";

/// How many first bytes [`media_type`] looks at.
pub const SNIFF: usize = 8192;

/// A file's name as an attachment bears it: bytes that are not UTF-8 as `%XX`, control characters and direction
/// marks as visible signs, no path separators, never empty.
pub fn safe_name(name: &OsStr) -> String {
    let name: String = shown(name)
        .chars()
        .map(|c| match c {
            '/' | '\\' => '_',
            // The pictures of control characters stand in the same order as they do.
            '\0'..='\u{1F}' => char::from_u32(0x2400 + u32::from(c)).unwrap_or('\u{FFFD}'),
            '\u{7F}' => '\u{2421}',
            c if c.is_control() || is_disguise(c) => '\u{FFFD}',
            c => c,
        })
        .collect();
    match name.trim() {
        "" | "." | ".." => "attachment".to_owned(),
        name => name.to_owned(),
    }
}

/// The media type of a file: what its name says, unless its first bytes say that this is a dangerous lie, as in a
/// program called `invoice.pdf`.
pub fn media_type(name: &str, first: &[u8]) -> String {
    let named = mime_guess::from_path(name).first_raw();
    let found = infer::get(first);
    let found_type = found.map(|kind| kind.mime_type());
    let runs = found.is_some_and(|kind| kind.matcher_type() == infer::MatcherType::App)
        || matches!(found_type, Some("text/html" | "text/x-shellscript"))
        || [&b"#!"[..], b"MZ", b"\x7fELF"]
            .iter()
            .any(|magic| first.starts_with(magic));
    let class = |kind: &str| kind.split('/').next().unwrap_or_default().to_owned();
    let chosen = match (named, found_type) {
        (Some(named), Some(found)) if runs => {
            // A script or page that says what it is stays what it is.
            let honest = named == found
                || found.starts_with("text/") && class(named) == "text" && named != "text/plain";
            if honest { named } else { UNKNOWN }
        }
        (Some("text/plain") | None, None) if runs => UNKNOWN,
        (Some(named), None)
            if runs && class(named) != "text" && !named.contains("script") && !named.contains("sh") =>
        {
            UNKNOWN
        }
        (Some(named), Some(found)) if class(named) == "image" && class(found) == "image" => found,
        (Some("application/pdf"), Some(found)) if found != "application/pdf" => UNKNOWN,
        (Some(named), Some(found))
            if class(named) == "image" && class(found) != "image" && found != "text/xml" =>
        {
            UNKNOWN
        }
        (Some(named), _) => named,
        (None, Some(found)) if !runs => found,
        (None, _) => UNKNOWN,
    };
    // These may not be encoded (RFC 2046 5.2.1) or have parts of their own; an attachment is bytes.
    if chosen.starts_with("message/") || chosen.starts_with("multipart/") {
        return UNKNOWN.to_owned();
    }
    chosen.to_owned()
}

/// What a file is, for facts: by its first bytes where they tell, else by its name, else text or not. Unlike
/// [`media_type`] it says what was found, dangerous or not.
pub fn content_type(name: &str, first: &[u8]) -> String {
    let first = &first[..first.len().min(SNIFF)];
    let named = mime_guess::from_path(name).first_raw();
    let found = infer::get(first).map(|kind| kind.mime_type());
    // Many kinds of documents are archives inside; their name says which.
    let archive = matches!(
        found,
        Some("application/zip" | "application/gzip" | "application/x-ole-storage")
    );
    let kind = match (found, named) {
        (Some(_), Some(named)) if archive && named.starts_with("application/") => named,
        (Some(found), _) => found,
        (None, Some(named)) => named,
        (None, None) if first.contains(&0) => UNKNOWN,
        (None, None) => "text/plain",
    };
    kind.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt as _;

    #[test]
    fn hostile_names_become_visible() {
        let name = |bytes: &[u8]| safe_name(OsStr::from_bytes(bytes));
        assert_eq!(name(b"a\r\nBcc: x.pdf"), "a␍␊Bcc: x.pdf");
        assert_eq!(name(b"\xff.pdf"), "%FF.pdf");
        assert_eq!(name("inv\u{202E}fdp.exe".as_bytes()), "inv\u{FFFD}fdp.exe");
        assert_eq!(name(b"..\\..\\x"), ".._.._x");
        assert_eq!(name(b".."), "attachment");
        assert_eq!(name(b" "), "attachment");
        assert_eq!(name(&[b'a'; 255]).len(), 255);
    }

    #[test]
    fn the_name_tells_the_type_unless_it_lies_dangerously() {
        for (name, first, expected) in [
            ("a.pdf", &b"%PDF-1.7"[..], "application/pdf"),
            ("a.pdf", b"MZ\x90\0", UNKNOWN),
            ("a.pdf", b"\x7fELF\x02\x01\x01", UNKNOWN),
            ("a.pdf", b"<!DOCTYPE html><html>", UNKNOWN),
            ("a.pdf", b"#!/bin/sh\n", UNKNOWN),
            ("a.txt", b"#!/bin/sh\n", UNKNOWN),
            ("a.html", b"<!DOCTYPE html><html>", "text/html"),
            ("a.csv", b"a;b\n", "text/csv"),
            (
                "a.docx",
                b"PK\x03\x04",
                "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
            ),
            ("a.jpg", b"\x89PNG\r\n\x1a\n", "image/png"),
            ("a.eml", b"From: x", UNKNOWN),
            ("report", b"%PDF-1.7", "application/pdf"),
            ("report", b"hello", UNKNOWN),
        ] {
            assert_eq!(media_type(name, first), expected, "{name} {first:?}");
        }
    }
}
