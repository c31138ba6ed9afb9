//! What stands in a finished message: whom its header names, and which attachments it has. For services that are told
//! no envelope, and read the recipients from the message. Opens no file by itself.
//!
//! The only place outside of tests and sandbox that knows mail-parser's messages.

use crate::mail::address::Address;
use crate::mail::header::ascii_domain;
use base64::engine::general_purpose::STANDARD;
use base64::read::DecoderReader;
use mail_parser::{ContentType, MessageParser, MimeHeaders as _};
use std::io::{self, BufRead, Read};
use std::ops::Range;

/// Longest header read, bytes.
const HEAD: usize = 1024 * 1024;

/// The header would send the message to somebody else than the envelope does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the header also names {}, whom this mail is not for", listed(.0))]
pub struct NotForThem(pub Vec<String>);

fn listed(names: &[String]) -> String {
    names.join(", ")
}

/// Who gets a message and is not named in its header: those to be put into a Bcc field. Fails where the header names
/// somebody who is not to get it.
pub fn hidden(head: &[u8], recipients: &[Address]) -> Result<Vec<Address>, NotForThem> {
    let parsed = MessageParser::default().parse_headers(head);
    let lists = parsed
        .as_ref()
        .map(|message| [message.to(), message.cc(), message.bcc()]);
    let named: Vec<String> = lists
        .into_iter()
        .flatten()
        .flatten()
        .flat_map(|list| list.iter())
        .filter_map(|one| one.address.as_deref())
        .map(plain_text)
        .collect();
    let wanted: Vec<String> = recipients.iter().map(plain).collect();
    let others: Vec<String> = named
        .iter()
        .filter(|named| !wanted.contains(named))
        .cloned()
        .collect();
    if !others.is_empty() {
        return Err(NotForThem(others));
    }
    Ok(recipients
        .iter()
        .filter(|address| !named.contains(&plain(address)))
        .cloned()
        .collect())
}

/// How addresses are compared: small letters, the domain as DNS has it.
fn plain(address: &Address) -> String {
    format!("{}@{}", address.local(), ascii_domain(address)).to_lowercase()
}

fn plain_text(text: &str) -> String {
    match text.trim().parse::<Address>() {
        Ok(address) => plain(&address),
        Err(_) => text.trim().to_lowercase(),
    }
}

/// A Bcc field for these; nothing for nobody.
pub fn bcc_field(hidden: &[Address]) -> String {
    if hidden.is_empty() {
        return String::new();
    }
    let each: Vec<String> = hidden
        .iter()
        .map(|address| format!("{}@{}", address.local(), ascii_domain(address)))
        .collect();
    format!("Bcc: {}\r\n", each.join(",\r\n "))
}

/// The header of a message, its empty line included; what there is of it where that is missing.
pub fn head(message: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    loop {
        let start = head.len();
        let read = message.take((HEAD - start) as u64).read_until(b'\n', &mut head)?;
        if read == 0 || head.len() >= HEAD || matches!(&head[start..], b"\r\n" | b"\n") {
            return Ok(head);
        }
    }
}

/// A message taken apart: what it says, and what is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Apart {
    /// The message without its attachments, whole in itself.
    pub rest: Vec<u8>,
    /// The attachments, in order.
    pub attachments: Vec<Attached>,
}

/// An attachment in a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Its name.
    pub name: String,
    /// Its media type.
    pub content_type: String,
    /// Its bytes, decoded.
    pub size: u64,
    /// Where its base64 text stands in the message.
    pub place: Range<u64>,
}

/// Takes a message apart that is a `multipart/mixed` whose parts, but for the first, are base64. Nothing for any other,
/// and for one that says more than `most` bytes without its attachments.
pub fn apart(message: &mut impl BufRead, most: usize) -> io::Result<Option<Apart>> {
    let mut rest = head(message)?;
    let Some(boundary) = MessageParser::default()
        .parse_headers(&rest)
        .and_then(|parsed| boundary_of(parsed.content_type()?))
    else {
        return Ok(None);
    };
    let (between, last) = (format!("--{boundary}"), format!("--{boundary}--"));
    let mut at = rest.len() as u64;
    let mut attachments: Vec<Attached> = Vec::new();
    let mut delimiters = 0;
    let mut line = Vec::new();
    // Base64 characters and padding of the attachment that is being read.
    let (mut coded, mut padding) = (0_u64, 0_u64);
    loop {
        line.clear();
        let read = message.take(HEAD as u64).read_until(b'\n', &mut line)?;
        let text = line.trim_ascii_end();
        let (is_between, is_last) = (text == between.as_bytes(), text == last.as_bytes());
        if read == 0 || is_between || is_last {
            if let Some(open) = attachments.last_mut().filter(|open| open.place.end == 0) {
                open.place.end = at;
                open.size = (coded / 4 * 3).saturating_sub(padding);
            }
            if read == 0 || is_last {
                break;
            }
            delimiters += 1;
            at += read as u64;
            if delimiters == 1 {
                rest.extend_from_slice(&line);
                continue;
            }
            let head = head(message)?;
            at += head.len() as u64;
            let Some((name, content_type)) = named(&head) else {
                return Ok(None);
            };
            (coded, padding) = (0, 0);
            attachments.push(Attached {
                name,
                content_type,
                size: 0,
                place: at..0,
            });
            continue;
        }
        at += read as u64;
        if delimiters < 2 {
            rest.extend_from_slice(&line);
            if rest.len() > most {
                return Ok(None);
            }
        } else {
            coded += text.len() as u64;
            padding += text.iter().rev().take_while(|byte| **byte == b'=').count() as u64;
        }
    }
    if delimiters == 0 {
        return Ok(None);
    }
    rest.extend_from_slice(format!("{last}\r\n").as_bytes());
    Ok(Some(Apart { rest, attachments }))
}

fn boundary_of(kind: &ContentType<'_>) -> Option<String> {
    let mixed =
        kind.ctype().eq_ignore_ascii_case("multipart") && kind.subtype()?.eq_ignore_ascii_case("mixed");
    let boundary = kind.attribute("boundary")?;
    (mixed && !boundary.is_empty()).then(|| boundary.to_owned())
}

/// Name and media type of a part that is base64.
fn named(head: &[u8]) -> Option<(String, String)> {
    let parsed = MessageParser::default().parse_headers(head)?;
    let coded = parsed
        .content_transfer_encoding()
        .is_some_and(|encoding| encoding.eq_ignore_ascii_case("base64"));
    let kind = parsed.content_type();
    let content_type = match kind {
        Some(kind) => format!("{}/{}", kind.ctype(), kind.subtype().unwrap_or("octet-stream")),
        None => "application/octet-stream".to_owned(),
    };
    let name = parsed.attachment_name().unwrap_or("attachment").to_owned();
    coded.then_some((name, content_type))
}

/// Reads the bytes behind base64 text that is broken into lines.
pub fn decoded<R: Read>(text: R) -> impl Read {
    DecoderReader::new(Unbroken(text), &STANDARD)
}

/// Leaves out the line ends.
struct Unbroken<R>(R);

impl<R: Read> Read for Unbroken<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.0.read(out)?;
            let mut kept = 0;
            for at in 0..read {
                if !out[at].is_ascii_whitespace() {
                    out[kept] = out[at];
                    kept += 1;
                }
            }
            if kept > 0 || read == 0 {
                return Ok(kept);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::address::Mailbox;
    use crate::mail::message::{Draft, Part};

    fn addresses(list: &[&str]) -> Vec<Address> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn who_is_in_the_envelope_alone_is_hidden() {
        let head = b"From: a@x.example\r\nTo: \"B, C\" <B@x.example>,\r\n c@b\xc3\xbcro.example\r\nCc: d@x.example\r\n\r\nTo: no@x.example";
        let all = addresses(&["b@X.example", "c@büro.example", "d@x.example", "e@x.example"]);
        assert_eq!(hidden(head, &all), Ok(addresses(&["e@x.example"])));
        assert_eq!(
            bcc_field(&addresses(&["e@x.example", "f@x.example"])),
            "Bcc: e@x.example,\r\n f@x.example\r\n"
        );
        assert_eq!(bcc_field(&[]), "");
    }

    #[test]
    fn who_is_named_and_not_meant_is_told() {
        let head = b"To: b@x.example, c@x.example\r\n\r\n";
        let error = hidden(head, &addresses(&["b@x.example"])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the header also names c@x.example, whom this mail is not for"
        );
    }

    #[test]
    fn nobody_named_hides_everybody() {
        let head = b"To: undisclosed-recipients:;\r\n\r\n";
        let all = addresses(&["b@x.example"]);
        assert_eq!(hidden(head, &all), Ok(all));
    }

    fn message(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let from: Mailbox = "Alice <alice@x.example>".parse().unwrap();
        let date = "2026-11-22T12:00:00Z".parse::<jiff::Timestamp>().unwrap();
        let draft = Draft {
            from: &from,
            reply_to: None,
            to: &["b@x.example".parse().unwrap()],
            cc: &[],
            subject: "Größe",
            date: &date.to_zoned(jiff::tz::TimeZone::UTC),
            message_id: "1@x.example",
            fields: &[],
            text: "text\n",
            html: Some("<p>page</p>"),
            attachments: files
                .iter()
                .map(|(name, bytes)| Part {
                    name: (*name).to_owned(),
                    content_type: "application/pdf".to_owned(),
                    size: bytes.len() as u64,
                    content: Box::new(&bytes[..]),
                })
                .collect(),
        };
        let mut out = Vec::new();
        draft.write(&mut out).unwrap();
        out
    }

    #[test]
    fn our_own_messages_come_apart_and_lose_nothing() {
        for size in [0, 1, 2, 3, 56, 57, 58, 1000, 100_000] {
            let bytes: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
            let whole = message(&[("Prüfung.pdf", bytes.clone()), ("b.pdf", b"second".to_vec())]);
            let apart = apart(&mut &whole[..], 100_000).unwrap().unwrap();
            let names: Vec<&str> = apart.attachments.iter().map(|one| one.name.as_str()).collect();
            assert_eq!(names, ["Prüfung.pdf", "b.pdf"]);
            let first = &apart.attachments[0];
            assert_eq!(
                (first.size, first.content_type.as_str()),
                (size as u64, "application/pdf")
            );
            let place = first.place.start as usize..first.place.end as usize;
            let mut back = Vec::new();
            decoded(&whole[place]).read_to_end(&mut back).unwrap();
            assert_eq!(back, bytes);
            let rest = MessageParser::default().parse(&apart.rest).unwrap();
            assert_eq!(rest.subject(), Some("Größe"));
            assert_eq!(rest.message_id(), Some("1@x.example"));
            assert_eq!(rest.attachment_count(), 0);
            assert!(
                rest.body_html(0).unwrap().contains("page") && rest.body_text(0).unwrap().contains("text")
            );
        }
    }

    #[test]
    fn what_is_built_otherwise_does_not_come_apart() {
        for other in [
            "Subject: x\r\n\r\ntext\r\n",
            "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\ntext\r\n--b\r\nContent-Type: text/plain\r\n\r\nplain\r\n--b--\r\n",
            "Content-Type: multipart/mixed; boundary=b\r\n\r\nno part at all",
            "",
        ] {
            assert_eq!(apart(&mut other.as_bytes(), 1000).unwrap(), None, "{other}");
        }
        assert_eq!(
            apart(&mut &message(&[("a", vec![1])])[..], 100).unwrap(),
            None,
            "too much beside it"
        );
    }
}
