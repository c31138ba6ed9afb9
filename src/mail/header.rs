//! Header fields: any text becomes lines that no reader can take for another field.
//!
//! Everything is 7-bit: what is not printable ASCII travels as encoded words (RFC 2047) or extended parameters
//! (RFC 2231), folded to 76 columns (RFC 5322 2.1.1). A text that *looks* encoded (`=?..?=`) is encoded too, so
//! that it is shown as it was written. One exception: a mailbox whose local part is not ASCII has no 7-bit form
//! and stands as UTF-8 (RFC 6532); it can only be sent by SMTPUTF8 anyway.
//!
//! lettre writes headers as well, but panics on a line end in a display name and passes `=?..?=` through.

use crate::mail::address::{Address, Mailbox};
use crate::visible::is_disguise;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fmt::Write as _;

/// Longest line where it can be helped, columns (RFC 5322 2.1.1, RFC 2047 2).
const WIDTH: usize = 76;
/// Longest display name, characters.
const MAX_NAME: usize = 200;
/// Longest value of an unstructured field, characters: one unbroken word of it still fits a line.
pub const MAX_VALUE: usize = 900;

/// A header field of one's own that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` cannot be a header field of your own: {why}")]
pub struct HeaderError {
    /// The name, with control characters made visible.
    pub name: String,
    /// What is wrong with it.
    pub why: &'static str,
}

/// Checks the name of a header field that a rule or a template adds.
pub fn own_header(name: &str) -> Result<(), HeaderError> {
    let lower = name.to_ascii_lowercase();
    let why = if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':') {
        "a name has printable ASCII characters only, and no colon"
    } else if name.len() > 64 {
        "it is longer than 64 characters"
    } else if lower.starts_with("content-") || lower == "mime-version" {
        "it tells how the message is built"
    } else if lower.starts_with("x-tidings-") {
        "these names are ours"
    } else if ["resent-", "arc-", "dkim-"]
        .iter()
        .any(|prefix| lower.starts_with(prefix))
        || ["received", "return-path", "authentication-results"].contains(&lower.as_str())
    {
        "servers write it on the way"
    } else if ["from", "sender", "to", "cc", "bcc", "reply-to", "subject"].contains(&lower.as_str()) {
        "it has a setting of its own (`from`, `to`, `cc`, `bcc`, `reply_to`, `subject`)"
    } else if ["x-priority", "importance", "priority", "x-msmail-priority"].contains(&lower.as_str()) {
        "write `priority: high` or `low`"
    } else if ["date", "message-id", "auto-submitted", "x-auto-response-suppress"].contains(&lower.as_str()) {
        "every mail has it already"
    } else {
        return Ok(());
    };
    Err(HeaderError {
        name: name.escape_debug().to_string(),
        why,
    })
}

/// A rendered value as one line: control characters and line ends become spaces, runs of spaces one, invisible
/// direction marks a visible sign; cut at `longest` characters.
pub fn one_line(text: &str, longest: usize) -> String {
    let shown = text.chars().map(|c| {
        if c.is_control() || c.is_whitespace() {
            ' '
        } else if is_disguise(c) {
            '\u{FFFD}'
        } else {
            c
        }
    });
    let mut out: Vec<char> = Vec::new();
    for c in shown {
        if c != ' ' || out.last().is_some_and(|last| *last != ' ') {
            out.push(c);
        }
        if out.len() > longest + 1 {
            break;
        }
    }
    while out.last() == Some(&' ') {
        out.pop();
    }
    if out.len() > longest {
        out.truncate(longest.saturating_sub(1));
        while out.last() == Some(&' ') {
            out.pop();
        }
        out.push('…');
    }
    out.into_iter().collect()
}

/// May stand in a header as it is.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~')) && !text.contains("=?")
}

/// Appends an unstructured field (RFC 5322 2.2.1), `Name: value` with its line end.
pub fn unstructured(out: &mut String, name: &str, value: &str) {
    let value = one_line(value, MAX_VALUE);
    let _ = write!(out, "{name}: ");
    if is_plain(&value) {
        fold_words(out, name.len() + 2, &value);
    } else {
        encoded_words(out, name.len() + 2, &value);
    }
    out.push_str("\r\n");
}

/// Folds at spaces; a word that is too long for a line stays whole.
fn fold_words(out: &mut String, mut column: usize, value: &str) {
    for (index, word) in value.split(' ').enumerate() {
        if index > 0 {
            if column + 1 + word.len() > WIDTH {
                out.push_str("\r\n");
                column = 0;
            }
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += word.len();
    }
}

/// Appends encoded words (RFC 2047), a line each, whole characters in each. Returns the column behind.
fn encoded_words(out: &mut String, mut column: usize, value: &str) -> usize {
    // `=?utf-8?B?` and `?=` are 12 characters; four for three bytes.
    let room = |column: usize| (WIDTH.saturating_sub(column + 12) / 4 * 3).min(45);
    let mut part = String::new();
    let mut first = true;
    let mut flush = |out: &mut String, part: &mut String, column: &mut usize| {
        if !first {
            out.push_str("\r\n ");
            *column = 1;
        }
        first = false;
        let word = format!("=?utf-8?B?{}?=", STANDARD.encode(part.as_bytes()));
        *column += word.len();
        out.push_str(&word);
        part.clear();
    };
    let mut limit = room(column).max(6);
    for c in value.chars() {
        if part.len() + c.len_utf8() > limit {
            flush(out, &mut part, &mut column);
            limit = room(1);
        }
        part.push(c);
    }
    if !part.is_empty() {
        flush(out, &mut part, &mut column);
    }
    column
}

/// Appends a field of mailboxes (RFC 5322 3.4), one a line.
pub fn mailboxes<'a>(out: &mut String, name: &str, mailboxes: impl IntoIterator<Item = &'a Mailbox>) {
    let _ = write!(out, "{name}: ");
    let mut column = name.len() + 2;
    for (index, mailbox) in mailboxes.into_iter().enumerate() {
        if index > 0 {
            out.push_str(",\r\n ");
            column = 1;
        }
        let address = shown_address(&mailbox.address);
        let shown = mailbox
            .name
            .as_deref()
            .map(|name| one_line(name, MAX_NAME))
            .unwrap_or_default();
        if shown.is_empty() {
            out.push_str(&address);
            continue;
        }
        if !is_plain(&shown) {
            column = encoded_words(out, column, &shown);
        } else if shown
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b" !#$%&'*+-/=?^_`{|}~".contains(&byte))
        {
            out.push_str(&shown);
            column += shown.len();
        } else {
            let quoted = shown.replace('\\', "\\\\").replace('"', "\\\"");
            let _ = write!(out, "\"{quoted}\"");
            column += quoted.len() + 2;
        }
        let fold = if column + address.len() + 3 > WIDTH {
            "\r\n"
        } else {
            ""
        };
        let _ = write!(out, "{fold} <{address}>");
    }
    out.push_str("\r\n");
}

/// An address as headers show it: the domain in ASCII, where the local part is ASCII too.
fn shown_address(address: &Address) -> String {
    let text = address.to_string();
    if text.is_ascii() || !address.local().is_ascii() {
        return text;
    }
    format!("{}@{}", address.local(), ascii_domain(address))
}

/// The domain of an address in ASCII (RFC 5891), for a Message-ID too.
pub fn ascii_domain(address: &Address) -> String {
    match url::Host::parse(address.domain()) {
        Ok(url::Host::Domain(domain)) => domain,
        _ => address.domain().to_owned(),
    }
}

/// Appends a parameter (RFC 2045 5.1, else RFC 2231 with `utf-8''`), each on a line of its own.
pub fn parameter(out: &mut String, name: &str, value: &str) {
    if is_plain(value) && value.len() <= 60 {
        let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
        let _ = write!(out, ";\r\n {name}=\"{quoted}\"");
        return;
    }
    let mut sections = vec![String::from("utf-8''")];
    for c in value.chars() {
        let mut coded = String::new();
        let mut bytes = [0; 4];
        for byte in c.encode_utf8(&mut bytes).bytes() {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_') {
                coded.push(char::from(byte));
            } else {
                let _ = write!(coded, "%{byte:02X}");
            }
        }
        match sections.last_mut() {
            Some(section) if section.len() + coded.len() <= 58 => section.push_str(&coded),
            _ => sections.push(coded),
        }
    }
    if let [whole] = sections.as_slice() {
        let _ = write!(out, ";\r\n {name}*={whole}");
        return;
    }
    for (index, section) in sections.iter().enumerate() {
        let _ = write!(out, ";\r\n {name}*{index}*={section}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_one_line_and_short() {
        assert_eq!(one_line("a\r\nBcc: x\0\tb ", 50), "a Bcc: x b");
        assert_eq!(one_line("  in\u{202E}voice\u{2028}x", 50), "in\u{FFFD}voice x");
        assert_eq!(one_line("abcdef", 4), "abc…");
        assert_eq!(one_line("abcd", 4), "abcd");
        assert_eq!(one_line("\r\n", 4), "");
    }

    #[test]
    fn names_of_structural_fields_are_refused() {
        for name in [
            "Bcc",
            "content-type",
            "X-Tidings-Rule",
            "Received",
            "a b",
            "a:b",
            "",
            "é",
            "a\r\nb",
        ] {
            assert!(own_header(name).is_err(), "{name:?}");
        }
        for name in ["X-Ticket", "List-Id", "References"] {
            assert_eq!(own_header(name), Ok(()));
        }
    }

    #[test]
    fn names_are_quoted_or_encoded_as_needed() {
        let shown = |text: &str, name: Option<&str>| {
            let mut out = String::new();
            let mailbox = Mailbox {
                name: name.map(str::to_owned),
                address: text.parse().unwrap(),
            };
            mailboxes(&mut out, "To", [&mailbox]);
            out
        };
        assert_eq!(
            shown("a@x.example", Some("Ann Lee")),
            "To: Ann Lee <a@x.example>\r\n"
        );
        assert_eq!(
            shown("a@x.example", Some("Lee, \"Ann\"\r\nBcc: b@x")),
            "To: \"Lee, \\\"Ann\\\" Bcc: b@x\" <a@x.example>\r\n"
        );
        assert_eq!(
            shown("a@x.example", Some("=?utf-8?Q?boss?=")),
            "To: =?utf-8?B?PT91dGYtOD9RP2Jvc3M/PQ==?= <a@x.example>\r\n"
        );
        assert_eq!(shown("a@bücher.example", None), "To: a@xn--bcher-kva.example\r\n");
        assert_eq!(shown("ä@x.example", None), "To: ä@x.example\r\n");
    }
}
