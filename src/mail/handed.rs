//! Messages of others made ready to leave: what they wrote is kept, what cannot travel is mended.
//!
//! | | |
//! |---|---|
//! | kept | fields in their order, the body, its parts and its encodings |
//! | left out | `Bcc`, `Return-Path`, `Content-Length`, a `Sender` one may not be, what may stand once and came twice |
//! | written anew | `From` where it leaves from another mailbox, names without a domain, text that is not ASCII |
//! | added | what is missing of `From`, `To`, `Date`, `Message-ID`, and the words a body needs to be read |
//!
//! A body of one text with lines over 998 bytes, bare CRs or NULs, which no server takes unharmed, is encoded as
//! quoted-printable, and so comes out as it went in. Line ends become CRLF. The same input gives the same bytes.

use crate::mail::address::Mailbox;
use crate::mail::encoded;
use crate::mail::header;
use crate::mail::incoming::{Field, Incoming};
use crate::mail::list::{self, Listed};
use std::fmt::Write as _;

/// Longest line, bytes without its end (RFC 5322 2.1.1).
const LINE_MAX: usize = 998;

/// Fields that may stand once (RFC 5322 3.6, RFC 2045 3); the first one counts.
const ONCE: [&str; 10] = [
    "subject",
    "date",
    "message-id",
    "reply-to",
    "in-reply-to",
    "references",
    "mime-version",
    "content-type",
    "content-transfer-encoding",
    "auto-submitted",
];

/// What a message leaves with that it did not bring.
pub struct Leaving<'a> {
    /// The mailbox it leaves from.
    pub from: &'a Mailbox,
    /// `from` is not what the message says: what it says is kept as `X-Original-From`.
    pub from_changed: bool,
    /// The `Sender` that it has may stay.
    pub keep_sender: bool,
    /// Its Message-ID, without angle brackets; written where the message has none that can be used.
    pub message_id: &'a str,
    /// Its Date, where it has none.
    pub date: &'a jiff::Zoned,
    /// Who is meant by a name that has no domain.
    pub resolve: &'a dyn Fn(&Listed) -> Vec<Mailbox>,
}

/// The Message-ID of a message, without angle brackets, if it can be used.
pub fn message_id(message: &Incoming<'_>) -> Option<String> {
    let text = message.first("Message-ID")?.text();
    let id = text.strip_prefix('<')?.strip_suffix('>')?;
    let fine = !id.is_empty()
        && id.len() <= 500
        && id
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'<' | b'>'));
    fine.then(|| id.to_owned())
}

/// Writes the message as it leaves.
pub fn write(message: &Incoming<'_>, leaving: &Leaving<'_>) -> Vec<u8> {
    let body = Body::of(message);
    let mut head = Vec::new();
    let mut seen: Vec<String> = Vec::new();
    let mut addressed = false;
    for field in &message.fields {
        let name = field.name.to_ascii_lowercase();
        match name.as_str() {
            "bcc" | "resent-bcc" | "return-path" | "content-length" => continue,
            "sender" if !leaving.keep_sender => continue,
            "from" if leaving.from_changed || !field.is_ascii() => {
                mailbox(&mut head, "From", leaving.from);
                if leaving.from_changed && !field.text().is_empty() {
                    text(&mut head, "X-Original-From", &encoded::decode(&field.text()));
                }
            }
            "x-original-from" if leaving.from_changed => continue,
            "message-id" if message_id(message).is_none() => continue,
            "content-transfer-encoding" | "content-type" | "mime-version" if body.says(&name) => continue,
            _ if ONCE.contains(&name.as_str()) && seen.contains(&name) => continue,
            "to" | "cc" | "reply-to" => addresses(&mut head, field, leaving),
            _ if field.is_ascii() || name.starts_with("content-") => as_it_is(&mut head, field),
            _ => text(&mut head, &field.name, &field.text()),
        }
        addressed |= matches!(name.as_str(), "to" | "cc");
        seen.push(name);
    }
    let lacks = |name: &str| !seen.iter().any(|seen| seen == name);
    if lacks("from") {
        mailbox(&mut head, "From", leaving.from);
    }
    let mut added = String::new();
    if !addressed {
        // Some servers refuse a message without any destination field.
        added.push_str("To: undisclosed-recipients:;\r\n");
    }
    if lacks("date") {
        let date = jiff::fmt::rfc2822::to_string(leaving.date)
            .unwrap_or_else(|_| "Thu, 1 Jan 1970 00:00:00 +0000".to_owned());
        let _ = write!(added, "Date: {date}\r\n");
    }
    if lacks("message-id") {
        let _ = write!(added, "Message-ID: <{}>\r\n", leaving.message_id);
    }
    head.extend_from_slice(added.as_bytes());
    body.head(&lacks, &mut head);
    head.extend_from_slice(b"\r\n");
    body.write(&mut head);
    head
}

fn mailbox(out: &mut Vec<u8>, name: &str, mailbox: &Mailbox) {
    let mut line = String::new();
    header::mailboxes(&mut line, name, [mailbox]);
    out.extend_from_slice(line.as_bytes());
}

fn text(out: &mut Vec<u8>, name: &str, value: &str) {
    let mut line = String::new();
    header::unstructured(&mut line, name, value);
    out.extend_from_slice(line.as_bytes());
}

/// A field as it was written; only a line that is too long is broken, where it has a space.
fn as_it_is(out: &mut Vec<u8>, field: &Field) {
    out.extend_from_slice(field.name.as_bytes());
    out.push(b':');
    let mut column = field.name.len() + 1;
    for (number, line) in field.lines.iter().enumerate() {
        if number > 0 {
            out.extend_from_slice(b"\r\n");
            column = 0;
        } else if !line.is_empty() {
            out.push(b' ');
            column += 1;
        }
        let mut rest = line.as_slice();
        while column + rest.len() > LINE_MAX {
            let within = &rest[..(LINE_MAX - column.min(LINE_MAX)).min(rest.len())];
            let space = |bytes: &[u8]| bytes.iter().rposition(|byte| matches!(byte, b' ' | b'\t'));
            let Some(place) = space(within).filter(|place| *place > 0) else {
                break;
            };
            out.extend_from_slice(&rest[..place]);
            out.extend_from_slice(b"\r\n");
            (rest, column) = (&rest[place..], 0);
        }
        out.extend_from_slice(rest);
    }
    out.extend_from_slice(b"\r\n");
}

/// A field of addresses: written anew where a name in it has no domain, or something is not ASCII.
fn addresses(out: &mut Vec<u8>, field: &Field, leaving: &Leaving<'_>) {
    let listed = match list::parse(&field.text()) {
        Ok(listed) => listed,
        Err(_) if field.is_ascii() => return as_it_is(out, field),
        Err(_) => return text(out, &field.name, &field.text()),
    };
    let plain = |one: &Listed| one.address.contains('@') && one.raw.is_ascii();
    let long = field.lines.iter().any(|line| line.len() > LINE_MAX - 100);
    if listed.iter().all(plain) && !long {
        return as_it_is(out, field);
    }
    let mut shown = Vec::new();
    for one in listed {
        match one.address.parse() {
            Ok(address) => shown.push(Mailbox {
                name: one.name.as_deref().map(encoded::decode),
                address,
            }),
            Err(_) => shown.extend((leaving.resolve)(&one)),
        }
    }
    if !shown.is_empty() {
        let mut line = String::new();
        header::mailboxes(&mut line, &field.name, &shown);
        out.extend_from_slice(line.as_bytes());
    }
}

/// How a body travels.
struct Body<'a> {
    bytes: &'a [u8],
    /// Encoded by us.
    quoted: bool,
    /// The Content-Type we give it, where it has none and needs one.
    content_type: Option<&'static str>,
    /// The encoding we announce, where it has none.
    encoding: Option<&'static str>,
}

impl<'a> Body<'a> {
    fn of(message: &Incoming<'a>) -> Body<'a> {
        let bytes = message.body;
        let value = |name: &str| {
            let text = message.first(name)?.text().to_ascii_lowercase();
            Some(text).filter(|text| !text.is_empty())
        };
        let kind = value("Content-Type");
        let encoding = value("Content-Transfer-Encoding");
        let one_text = kind.as_deref().is_none_or(|kind| kind.starts_with("text"));
        let as_it_is = encoding
            .as_deref()
            .is_none_or(|encoding| matches!(encoding, "7bit" | "8bit" | "binary"));
        let eight_bit = !bytes.is_ascii();
        let frail =
            lines(bytes).any(|line| line.len() > LINE_MAX || line.contains(&b'\r') || line.contains(&0));
        let undeclared = eight_bit && kind.is_none();
        let quoted = one_text && as_it_is && (frail || undeclared);
        Body {
            bytes,
            quoted,
            content_type: (undeclared && one_text).then(|| match std::str::from_utf8(bytes) {
                Ok(_) => "text/plain; charset=utf-8",
                Err(_) => "text/plain; charset=iso-8859-1",
            }),
            encoding: match (quoted, eight_bit && as_it_is) {
                (true, _) => Some("quoted-printable"),
                (false, true) => Some("8bit"),
                (false, false) => None,
            },
        }
    }

    /// Whether we write this field ourselves.
    fn says(&self, name: &str) -> bool {
        match name {
            "content-transfer-encoding" => self.encoding.is_some(),
            "content-type" => self.content_type.is_some(),
            _ => false,
        }
    }

    fn head(&self, lacks: &dyn Fn(&str) -> bool, out: &mut Vec<u8>) {
        let mut head = String::new();
        let ours = self.content_type.is_some() || self.encoding.is_some();
        if ours && lacks("mime-version") {
            head.push_str("MIME-Version: 1.0\r\n");
        }
        if let Some(kind) = self.content_type {
            let _ = write!(head, "Content-Type: {kind}\r\n");
        }
        if let Some(encoding) = self.encoding {
            let _ = write!(head, "Content-Transfer-Encoding: {encoding}\r\n");
        }
        out.extend_from_slice(head.as_bytes());
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.reserve(self.bytes.len() + self.bytes.len() / 32);
        for line in lines(self.bytes) {
            if self.quoted {
                quote(line, out);
            } else {
                // A bare CR ends a line to some; a NUL ends the message to some.
                for part in line.split(|byte| *byte == b'\r') {
                    out.extend(part.iter().filter(|byte| **byte != 0));
                    out.extend_from_slice(b"\r\n");
                }
                continue;
            }
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// The lines of a body, without their ends; every CR right before an LF belongs to the end.
fn lines(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    let body = body.strip_suffix(b"\n").unwrap_or(body);
    let none = body.is_empty();
    body.split(|byte| *byte == b'\n')
        .skip(usize::from(none))
        .map(|line| {
            let end = line.iter().rposition(|byte| *byte != b'\r');
            &line[..end.map_or(0, |last| last + 1)]
        })
}

/// One line as quoted-printable (RFC 2045 6.7), in lines of at most 76 columns, without its end.
fn quote(line: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut column = 0;
    for (place, byte) in line.iter().copied().enumerate() {
        let last = place + 1 == line.len();
        let plain = match byte {
            b' ' | b'\t' => !last,
            // At the start of a line, `.` and `From ` are spoiled by careless programs on the way.
            b'.' | b'F' => column > 0,
            b'!'..=b'~' => byte != b'=',
            _ => false,
        };
        let width = if plain { 1 } else { 3 };
        if column + width > 75 {
            out.extend_from_slice(b"=\r\n");
            column = 0;
        }
        match plain && !(column == 0 && matches!(byte, b'.' | b'F')) {
            true => {
                out.push(byte);
                column += 1;
            }
            false => {
                out.extend_from_slice(&[b'=', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
                column += 3;
            }
        }
    }
}

#[cfg(test)]
mod tests;
