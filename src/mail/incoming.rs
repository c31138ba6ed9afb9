//! Messages that others wrote, taken apart: fields and body, and nothing guessed.
//!
//! They come from scripts that print a few lines, and perhaps from somebody who wants one line to be read as two. So a
//! line ends at LF only (a CR before it belongs to it); a bare CR or a NUL never makes a line of its own; where
//! something stands that is no field, the header is over and the body begins, and that is how the message is written
//! again. Nobody who reads the result sees other fields than we did.

use crate::mail::encoded;

/// Most bytes of a header.
const HEAD_MAX: usize = 256 * 1024;
/// Most fields of it.
const FIELDS_MAX: usize = 1_000;
/// Longest name of a field.
const NAME_MAX: usize = 100;

/// A message taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming<'a> {
    /// Its fields in order.
    pub fields: Vec<Field>,
    /// Everything behind the header, as it came.
    pub body: &'a [u8],
}

/// One field of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name, as written.
    pub name: String,
    /// Its lines, the first without what stands before the value, the others with the white space they begin with.
    /// No line holds CR, LF or NUL.
    pub lines: Vec<Vec<u8>>,
}

/// Why a message cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Its header does not end.
    #[error("its header is longer than {HEAD_MAX} bytes")]
    Long,
    /// It has more fields than anybody needs.
    #[error("its header has more than {FIELDS_MAX} fields")]
    Many,
}

impl Field {
    /// Whether it is the field of that name.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// Its value on one line, as text: UTF-8, or else Latin-1.
    pub fn text(&self) -> String {
        let bytes = self.lines.concat();
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => error.as_bytes().iter().map(|byte| char::from(*byte)).collect(),
        };
        text.trim().to_owned()
    }

    /// The same for people, encoded words decoded.
    pub fn shown(&self) -> String {
        encoded::decode(&self.text())
    }

    /// Whether every byte of it is ASCII.
    pub fn is_ascii(&self) -> bool {
        self.lines.iter().all(|line| line.is_ascii())
    }
}

impl<'a> Incoming<'a> {
    /// Takes a message apart. A line `From ..` of a mailbox file before the header is left out.
    pub fn parse(raw: &'a [u8]) -> Result<Incoming<'a>, Unreadable> {
        let mut fields: Vec<Field> = Vec::new();
        let mut at = 0;
        loop {
            let rest = &raw[at..];
            if rest.is_empty() {
                return Ok(Incoming { fields, body: rest });
            }
            let end = rest.iter().position(|byte| *byte == b'\n');
            let line = cut_line_end(&rest[..end.unwrap_or(rest.len())]);
            let next = at + end.map_or(rest.len(), |end| end + 1);
            if line.is_empty() {
                return Ok(Incoming {
                    fields,
                    body: &raw[next..],
                });
            }
            match (line[0], fields.last_mut()) {
                (b' ' | b'\t', Some(field)) => {
                    let line = clean(line);
                    // A line of spaces alone is an end of the header to some.
                    if line.iter().any(|byte| !matches!(byte, b' ' | b'\t')) {
                        field.lines.push(line);
                    }
                }
                _ if at == 0 && (line.starts_with(b"From ") || line.starts_with(b">From ")) => {}
                _ => match field(line) {
                    Some(field) => fields.push(field),
                    None => return Ok(Incoming { fields, body: rest }),
                },
            }
            at = next;
            if at > HEAD_MAX {
                return Err(Unreadable::Long);
            }
            if fields.len() > FIELDS_MAX {
                return Err(Unreadable::Many);
            }
        }
    }

    /// The fields of that name.
    pub fn all<'b>(&'b self, name: &'b str) -> impl Iterator<Item = &'b Field> {
        self.fields.iter().filter(move |field| field.is(name))
    }

    /// The first field of that name.
    pub fn first(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.is(name))
    }
}

/// A line without the CRs at its end.
fn cut_line_end(line: &[u8]) -> &[u8] {
    let end = line
        .iter()
        .rposition(|byte| *byte != b'\r')
        .map_or(0, |last| last + 1);
    &line[..end]
}

/// A bare CR would be a line's end to some, a NUL a text's.
fn clean(line: &[u8]) -> Vec<u8> {
    line.iter()
        .map(|byte| if matches!(byte, b'\r' | 0) { b' ' } else { *byte })
        .collect()
}

/// `Name: value`; some put a space before the colon (RFC 5322 4.5).
fn field(line: &[u8]) -> Option<Field> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let name = line[..colon].trim_ascii_end();
    if name.is_empty() || name.len() > NAME_MAX || !name.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    Some(Field {
        name: String::from_utf8_lossy(name).into_owned(),
        lines: vec![clean(line[colon + 1..].trim_ascii_start())],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(raw: &str) -> (Vec<String>, String) {
        let message = Incoming::parse(raw.as_bytes()).unwrap();
        let names = message.fields.iter().map(|field| field.name.clone()).collect();
        (names, String::from_utf8_lossy(message.body).into_owned())
    }

    #[test]
    fn a_message_is_read_with_either_line_end() {
        for end in ["\n", "\r\n", "\r\r\n"] {
            let raw = ["To: a@x", "Subject: one", "\ttwo", "", "body", ""].join(end);
            let message = Incoming::parse(raw.as_bytes()).unwrap();
            assert_eq!(message.fields.len(), 2);
            assert_eq!(message.first("subject").unwrap().text(), "one\ttwo");
            assert!(message.body.starts_with(b"body"));
        }
    }

    #[test]
    fn where_no_field_stands_the_body_begins() {
        assert_eq!(names("hello\nTo: a@x\n"), (vec![], "hello\nTo: a@x\n".into()));
        assert_eq!(
            names("To: a@x\nhello there: b\nBcc: c@x\n"),
            (vec!["To".into()], "hello there: b\nBcc: c@x\n".into())
        );
        assert_eq!(names(" To: a@x\n\nb"), (vec![], " To: a@x\n\nb".into()));
        assert_eq!(names(": x\n"), (vec![], ": x\n".into()));
        assert_eq!(names("From root Mon\nTo: a\n\nb").0, ["To"]);
        assert_eq!(names("To: a"), (vec!["To".into()], String::new()));
        assert_eq!(names(""), (vec![], String::new()));
    }

    #[test]
    fn no_trick_makes_a_field_of_another() {
        let message = Incoming::parse(b"Subject: a\rBcc: b@x\0c\nBcc : d@x\n \t \nTo: e\n\n").unwrap();
        assert_eq!(message.fields.len(), 3);
        assert_eq!(message.first("Subject").unwrap().text(), "a Bcc: b@x c");
        assert_eq!(message.first("Bcc").unwrap().text(), "d@x");
        assert_eq!(message.first("Bcc").unwrap().lines.len(), 1);
    }

    #[test]
    fn a_header_without_an_end_is_refused() {
        let long = format!("X: {}\n", "a".repeat(70)).repeat(HEAD_MAX / 70);
        assert_eq!(Incoming::parse(long.as_bytes()), Err(Unreadable::Many));
        let wide = format!("X: {}\n", "a".repeat(HEAD_MAX));
        assert_eq!(Incoming::parse(wide.as_bytes()), Err(Unreadable::Long));
    }
}
