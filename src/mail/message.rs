//! Messages: a draft becomes the bytes that are sent, the same bytes at every attempt.
//!
//! ```text
//!   multipart/mixed                 with attachments
//!     multipart/alternative         with a page
//!       text/plain, text/html       quoted-printable or base64
//!     attachments                   base64, read and written by pieces
//! ```
//!
//! What holds for every message, whatever the draft says: 7-bit, CRLF line ends, no line longer than 998, Bcc never
//! written, a file's name or a subject never a field of its own. Nothing here looks at the clock: the same draft
//! gives the same bytes. An attachment is never whole in memory.

use crate::mail::address::Mailbox;
use crate::mail::header;
use crate::visible::is_override;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fmt::Write as _;
use std::io::{self, Read, Write};

/// Bytes of an attachment that are encoded at a time: whole lines of 57 bytes.
const PIECE: usize = 57 * 1024;

/// A message before it is written.
pub struct Draft<'a> {
    /// From. There is no Sender beside it: a shared mailbox is written from with the right to send *as* it, and
    /// readers show a Sender as "on behalf of".
    pub from: &'a Mailbox,
    /// Reply-To.
    pub reply_to: Option<&'a Mailbox>,
    /// To.
    pub to: &'a [Mailbox],
    /// Cc.
    pub cc: &'a [Mailbox],
    /// Subject.
    pub subject: &'a str,
    /// Date.
    pub date: &'a jiff::Zoned,
    /// Message-ID, without the angle brackets.
    pub message_id: &'a str,
    /// Further fields, in order; unstructured.
    pub fields: &'a [(String, String)],
    /// The text part.
    pub text: &'a str,
    /// The page.
    pub html: Option<&'a str>,
    /// Attachments, in order.
    pub attachments: Vec<Part<'a>>,
}

/// An attachment.
pub struct Part<'a> {
    /// Its name, safe to show (`attachment::safe_name`).
    pub name: String,
    /// Its media type.
    pub content_type: String,
    /// How many bytes there must be.
    pub size: u64,
    /// The bytes.
    pub content: Box<dyn Read + 'a>,
}

/// Why a message was not written.
#[derive(Debug, thiserror::Error)]
pub enum ComposeError {
    /// An attachment could not be read to its end.
    #[error("the attachment {name} cannot be read: {source}")]
    Read {
        /// Its name.
        name: String,
        /// What the system says.
        source: io::Error,
    },
    /// It has another size than it had.
    #[error("the attachment {name} changed while it was read")]
    Changed {
        /// Its name.
        name: String,
    },
    /// The message could not be written.
    #[error("the message cannot be written: {0}")]
    Write(#[from] io::Error),
}

impl Draft<'_> {
    /// Writes the message. Fails without an end in `out` that could be taken for a whole message's.
    pub fn write(mut self, out: &mut impl Write) -> Result<(), ComposeError> {
        let mut head = self.head();
        let tag = &blake3::hash(self.message_id.as_bytes()).to_hex()[..24];
        // `=_` cannot occur in base64 or quoted-printable, so no content holds a boundary.
        let (mixed, alternative) = (format!("=_mixed_{tag}"), format!("=_body_{tag}"));
        let attachments = std::mem::take(&mut self.attachments);
        if attachments.is_empty() {
            out.write_all(head.as_bytes())?;
            self.bodies(&alternative, out)?;
            return Ok(());
        }
        let _ = write!(
            head,
            "Content-Type: multipart/mixed;\r\n boundary=\"{mixed}\"\r\n\r\n--{mixed}\r\n"
        );
        out.write_all(head.as_bytes())?;
        self.bodies(&alternative, out)?;
        for part in attachments {
            let mut head = format!("\r\n--{mixed}\r\nContent-Type: {}", part.content_type);
            header::parameter(&mut head, "name", &part.name);
            head.push_str("\r\nContent-Transfer-Encoding: base64\r\nContent-Disposition: attachment");
            header::parameter(&mut head, "filename", &part.name);
            head.push_str("\r\n\r\n");
            out.write_all(head.as_bytes())?;
            attach(part, out)?;
        }
        write!(out, "\r\n--{mixed}--\r\n")?;
        Ok(())
    }

    /// All fields but those that tell the structure.
    fn head(&self) -> String {
        let mut head = String::new();
        header::mailboxes(&mut head, "From", [self.from]);
        if let Some(reply_to) = self.reply_to {
            header::mailboxes(&mut head, "Reply-To", [reply_to]);
        }
        if self.to.is_empty() && self.cc.is_empty() {
            // Some servers refuse a message without any destination field.
            head.push_str("To: undisclosed-recipients:;\r\n");
        }
        if !self.to.is_empty() {
            header::mailboxes(&mut head, "To", self.to);
        }
        if !self.cc.is_empty() {
            header::mailboxes(&mut head, "Cc", self.cc);
        }
        header::unstructured(&mut head, "Subject", self.subject);
        let date = jiff::fmt::rfc2822::to_string(self.date).unwrap_or_else(|_| {
            // Only a year beyond four digits has no such form.
            "Thu, 1 Jan 1970 00:00:00 +0000".to_owned()
        });
        let _ = write!(head, "Date: {date}\r\nMessage-ID: <{}>\r\n", self.message_id);
        head.push_str("Auto-Submitted: auto-generated\r\nX-Auto-Response-Suppress: All\r\n");
        for (name, value) in self.fields {
            header::unstructured(&mut head, name, value);
        }
        head.push_str("MIME-Version: 1.0\r\n");
        head
    }

    /// Text and page, with the fields that tell their structure.
    fn bodies(&self, boundary: &str, out: &mut impl Write) -> io::Result<()> {
        let Some(html) = self.html else {
            return body("plain", self.text, out);
        };
        write!(
            out,
            "Content-Type: multipart/alternative;\r\n boundary=\"{boundary}\"\r\n\r\n--{boundary}\r\n"
        )?;
        body("plain", self.text, out)?;
        write!(out, "\r\n--{boundary}\r\n")?;
        body("html", html, out)?;
        write!(out, "\r\n--{boundary}--\r\n")
    }
}

/// Writes one body with its fields. Control characters, direction overrides and foreign line ends become visible.
fn body(kind: &str, text: &str, out: &mut impl Write) -> io::Result<()> {
    let text = shown(text);
    let coded = text
        .bytes()
        .filter(|byte| !byte.is_ascii() || *byte == b'=')
        .count();
    // Quoted-printable needs three characters for each of these, base64 four for every three of all.
    let (encoding, content) = if coded * 6 > text.len() {
        let bytes = text.replace('\n', "\r\n");
        let mut lines = String::new();
        for line in STANDARD.encode(bytes).as_bytes().chunks(76) {
            lines.push_str(&String::from_utf8_lossy(line));
            lines.push_str("\r\n");
        }
        ("base64", lines)
    } else {
        ("quoted-printable", quoted_printable(&text))
    };
    write!(
        out,
        "Content-Type: text/{kind}; charset=utf-8\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    )?;
    out.write_all(content.as_bytes())
}

/// The text with foreign characters replaced; most of it is copied in runs.
fn shown(text: &str) -> String {
    let fine = |byte: &u8| matches!(byte, b'\n' | b'\t' | b' '..=b'~');
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let other = rest.as_bytes().iter().position(|byte| !fine(byte));
        let (run, other) = rest.split_at(other.unwrap_or(rest.len()));
        out.push_str(run);
        let mut chars = other.chars();
        match chars.next() {
            Some('\r') | None => {}
            // Some readers begin a line at the first two.
            Some(c) if matches!(c, '\u{2028}' | '\u{2029}') || c.is_control() || is_override(c) => {
                out.push('\u{FFFD}');
            }
            Some(c) => out.push(c),
        }
        rest = chars.as_str();
    }
    out
}

/// Quoted-printable (RFC 2045 6.7), lines of at most 76 columns.
fn quoted_printable(text: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = Vec::with_capacity(text.len() + text.len() / 8);
    for line in text.split_terminator('\n') {
        let bytes = line.as_bytes();
        let (mut column, mut at) = (0, 0);
        while at < bytes.len() {
            let last = bytes.len() - 1;
            if column > 0 {
                // What stands for itself wherever it is, up to the last column and the last byte.
                let most = (75 - column).min(last - at);
                let run = bytes[at..at + most].iter().take_while(|byte| is_plain(**byte));
                let run = run.count();
                out.extend_from_slice(&bytes[at..at + run]);
                (column, at) = (column + run, at + run);
            }
            let byte = bytes[at];
            let plain = is_plain(byte)
                && match byte {
                    b' ' | b'\t' => at < last,
                    // At the start of a line, `.` and `From ` are spoiled by careless programs on the way.
                    b'.' | b'F' => column > 0,
                    _ => true,
                };
            let width = if plain { 1 } else { 3 };
            if column + width > if at == last { 76 } else { 75 } {
                out.extend_from_slice(b"=\r\n");
                column = 0;
                continue;
            }
            match plain {
                true => out.push(byte),
                false => {
                    out.extend_from_slice(&[b'=', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]])
                }
            }
            (column, at) = (column + width, at + 1);
        }
        out.extend_from_slice(b"\r\n");
    }
    // All of it is ASCII.
    String::from_utf8(out).unwrap_or_default()
}

/// Stands for itself in quoted-printable, but at the ends of a line.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'!'..=b'<' | b'>'..=b'~')
}

/// Writes an attachment as base64, piece by piece.
fn attach(mut part: Part<'_>, out: &mut impl Write) -> Result<(), ComposeError> {
    let mut piece = vec![0; PIECE];
    let mut lines = Vec::with_capacity(PIECE / 57 * 78);
    let mut total = 0u64;
    loop {
        let mut filled = 0;
        while filled < piece.len() {
            match part.content.read(&mut piece[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(ComposeError::Read {
                        name: part.name,
                        source,
                    });
                }
            }
        }
        total += filled as u64;
        if total > part.size {
            break;
        }
        lines.clear();
        for line in piece[..filled].chunks(57) {
            let mut coded = [0; 76];
            let length = STANDARD.encode_slice(line, &mut coded).unwrap_or(0);
            lines.extend_from_slice(&coded[..length]);
            lines.extend_from_slice(b"\r\n");
        }
        out.write_all(&lines)?;
        if filled < piece.len() {
            break;
        }
    }
    if total == part.size {
        Ok(())
    } else {
        Err(ComposeError::Changed { name: part.name })
    }
}

/// How many bytes an attachment of `size` bytes takes in a message: base64, line ends, its fields.
pub fn encoded_size(size: u64) -> u64 {
    let lines = size.div_ceil(57);
    size.div_ceil(3)
        .saturating_mul(4)
        .saturating_add(lines * 2)
        .saturating_add(400)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_begins_with_a_dot_or_an_f_also_where_a_long_one_was_broken() {
        for spoiled in [".", "From "] {
            let long = format!("{}{spoiled}b", "a".repeat(75));
            for line in quoted_printable(&format!("{spoiled}\n{long}\n")).lines() {
                assert!(!line.starts_with(['.', 'F']) && line.len() <= 76, "{line}");
            }
        }
        assert_eq!(
            quoted_printable(&"a".repeat(76)),
            format!("{}\r\n", "a".repeat(76))
        );
        assert_eq!(quoted_printable("x= \t\né"), "x=3D =09\r\n=C3=A9\r\n");
    }

    #[test]
    fn what_plays_with_the_reader_is_shown_as_foreign() {
        assert_eq!(
            shown("a\r\nb\u{202e}c\u{7}\u{2028}\u{e9}\t."),
            "a\nb\u{FFFD}c\u{FFFD}\u{FFFD}\u{e9}\t."
        );
    }
}
