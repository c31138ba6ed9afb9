//! Replies of a mail server (RFC 5321 4.2), read strictly and within limits.
//!
//! ```text
//!   250-smtp.contoso.com at your service      code, `-`: more lines follow
//!   250 SIZE 35882577                         code, space: the last one
//! ```
//!
//! A server is a stranger: whatever it sends ends in a [`Reply`] or a [`ReplyError`] after at most
//! [`REPLY_MAX`] bytes, and nothing in a reply can move a terminal's cursor, open a second log line
//! or turn the reading direction. Pure: bytes in, replies out.

use crate::visible::is_hidden;
use std::collections::VecDeque;
use std::fmt::Write as _;

/// Longest line, its end included. RFC 5321 4.5.3.1.5 says 512; a generous four times that.
pub const LINE_MAX: usize = 2048;
/// Most lines of one reply.
pub const LINES_MAX: usize = 100;
/// Most bytes of one reply.
pub const REPLY_MAX: usize = 64 * 1024;

/// One complete reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// 200 to 599.
    pub code: u16,
    /// Enhanced status code (RFC 3463), from the first line that has one. Its class need not agree
    /// with the code: Exchange says `451 5.7.3 STARTTLS is required`.
    pub enhanced: Option<String>,
    /// The text of each line behind the code, harmless to show.
    pub lines: Vec<String>,
}

impl Reply {
    /// 2xx.
    pub fn is_positive(&self) -> bool {
        self.code / 100 == 2
    }

    /// 4xx: again later may help. The advice catalog may know better.
    pub fn is_transient(&self) -> bool {
        self.code / 100 == 4
    }

    /// The whole as one line: `550 5.1.1 User unknown / Ask the postmaster`.
    pub fn text(&self) -> String {
        format!("{} {}", self.code, self.lines.join(" / "))
            .trim_end()
            .to_owned()
    }
}

/// Why what a server sent is no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// A line that does not begin with a code.
    #[error("the server said `{0}`, which is no SMTP reply")]
    Grammar(String),
    /// Lines of one reply with different codes.
    #[error("the server changed the code within one reply, from {first} to {then}")]
    Mixed {
        /// Of the first line.
        first: u16,
        /// Of a later one.
        then: u16,
    },
    /// Beyond [`LINE_MAX`].
    #[error("the server sent a line of more than {LINE_MAX} bytes")]
    LongLine,
    /// Beyond [`LINES_MAX`] or [`REPLY_MAX`].
    #[error("the server sent a reply of more than {LINES_MAX} lines or {REPLY_MAX} bytes")]
    LongReply,
}

/// Puts replies together from bytes as they come. After an error it stays at that error.
#[derive(Debug, Default)]
pub struct ReplyReader {
    /// Bytes not yet looked at; at most a line and what one read brought.
    buffer: VecDeque<u8>,
    code: Option<u16>,
    lines: Vec<String>,
    enhanced: Option<String>,
    bytes: usize,
}

impl ReplyReader {
    /// Takes what a read brought.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend(bytes);
    }

    /// Nothing is buffered: no byte of a further reply has come.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty() && self.code.is_none()
    }

    /// The next complete reply, `None` when more bytes are needed.
    pub fn take(&mut self) -> Result<Option<Reply>, ReplyError> {
        loop {
            let end = self.buffer.iter().take(LINE_MAX).position(|byte| *byte == b'\n');
            let Some(end) = end else {
                return if self.buffer.len() >= LINE_MAX {
                    Err(ReplyError::LongLine)
                } else {
                    Ok(None)
                };
            };
            let mut line: Vec<u8> = self.buffer.drain(..=end).collect();
            self.bytes += line.len();
            line.pop();
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            if let Some(reply) = self.line(&line)? {
                return Ok(Some(reply));
            }
        }
    }

    fn line(&mut self, line: &[u8]) -> Result<Option<Reply>, ReplyError> {
        let (code, last, text) =
            split(line).ok_or_else(|| ReplyError::Grammar(visible(&line[..line.len().min(80)])))?;
        match self.code {
            Some(first) if first != code => return Err(ReplyError::Mixed { first, then: code }),
            _ => self.code = Some(code),
        }
        let text = visible(text);
        if self.enhanced.is_none() {
            self.enhanced = enhanced(&text);
        }
        self.lines.push(text);
        if self.lines.len() > LINES_MAX || self.bytes > REPLY_MAX {
            return Err(ReplyError::LongReply);
        }
        if !last {
            return Ok(None);
        }
        self.code = None;
        self.bytes = 0;
        Ok(Some(Reply {
            code,
            enhanced: self.enhanced.take(),
            lines: std::mem::take(&mut self.lines),
        }))
    }
}

/// Code, whether it is the last line, and the text behind.
fn split(line: &[u8]) -> Option<(u16, bool, &[u8])> {
    let (digits, rest) = line.split_at_checked(3)?;
    if !digits.iter().all(u8::is_ascii_digit) || !(b'2'..=b'5').contains(&digits[0]) {
        return None;
    }
    let code = digits
        .iter()
        .fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
    match rest {
        [] => Some((code, true, rest)),
        [b' ', text @ ..] => Some((code, true, text)),
        [b'-', text @ ..] => Some((code, false, text)),
        _ => None,
    }
}

/// `x.y.z` at the beginning of a reply's text (RFC 2034 4).
fn enhanced(text: &str) -> Option<String> {
    let word = text.split(' ').next()?;
    let mut numbers = word.split('.');
    let mut number = |most: usize| {
        numbers
            .next()
            .is_some_and(|n| !n.is_empty() && n.len() <= most && n.bytes().all(|b| b.is_ascii_digit()))
    };
    let whole = number(1) && number(3) && number(3) && numbers.next().is_none();
    (whole && matches!(word.as_bytes()[0], b'2' | b'4' | b'5')).then(|| word.to_owned())
}

/// Text from bytes of a stranger: control characters, and those that turn the reading direction or
/// take no room, as `\u{1b}`; bytes that are no UTF-8 as `\xff`.
pub fn visible(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() || is_hidden(c) {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            } else {
                out.push(c);
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(bytes: &[u8]) -> Result<Vec<Reply>, ReplyError> {
        let mut reader = ReplyReader::default();
        reader.feed(bytes);
        std::iter::from_fn(|| reader.take().transpose()).collect()
    }

    #[test]
    fn lines_of_one_reply_are_put_together() {
        let replies = all(b"250-first\r\n250-5.1.1 second\r\n250 third\r\n354\r\n").unwrap();
        assert_eq!(replies.len(), 2);
        assert_eq!(replies[0].text(), "250 first / 5.1.1 second / third");
        assert_eq!(replies[0].enhanced.as_deref(), Some("5.1.1"));
        assert_eq!((replies[1].code, replies[1].text().as_str()), (354, "354"));
    }

    #[test]
    fn what_is_no_reply_is_an_error() {
        for text in [
            "",
            "25",
            "2500 x",
            "150 x",
            "600 x",
            "abc x",
            "250_x",
            "HTTP/1.1 400 Bad Request",
        ] {
            let line = format!("{text}\r\n");
            assert!(
                matches!(all(line.as_bytes()), Err(ReplyError::Grammar(_))),
                "{text}"
            );
        }
        assert_eq!(
            all(b"250-a\r\n251 b\r\n"),
            Err(ReplyError::Mixed {
                first: 250,
                then: 251
            })
        );
    }

    #[test]
    fn endless_lines_and_replies_end() {
        assert_eq!(all(&vec![b'2'; 1_000_000]), Err(ReplyError::LongLine));
        assert_eq!(all(&b"250-x\r\n".repeat(101)), Err(ReplyError::LongReply));
        let line = format!("250-{}\r\n", "x".repeat(2000));
        assert_eq!(all(line.repeat(50).as_bytes()), Err(ReplyError::LongReply));
        let longest = format!("250 {}\r\n", "x".repeat(LINE_MAX - 6));
        assert_eq!(all(longest.as_bytes()).unwrap().len(), 1);
    }

    #[test]
    fn hostile_text_is_made_visible() {
        let reply = &all(b"550 \x1b[2J\xff\rFrom: me \xe2\x80\xae\r\n").unwrap()[0];
        assert_eq!(reply.text(), "550 \\u{1b}[2J\\xff\\u{d}From: me \\u{202e}");
    }

    #[test]
    fn enhanced_codes_are_exact() {
        for (text, want) in [
            ("5.7.60 SMTP; no", Some("5.7.60")),
            ("4.7.500 busy", Some("4.7.500")),
            ("1.2.3 odd", None),
            ("5.7 no", None),
            ("5.7.1.2 no", None),
            ("5.7.x no", None),
            ("no 5.7.1", None),
        ] {
            assert_eq!(enhanced(text).as_deref(), want, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_give_the_same_and_never_control_characters(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'2'), Just(b'5'), Just(b'0'), Just(b' '), Just(b'-'), any::<u8>()], 0..300),
            cut in 0..300_usize,
        ) {
            let whole = all(&bytes);
            let mut reader = ReplyReader::default();
            let (left, right) = bytes.split_at(cut.min(bytes.len()));
            let mut replies = Vec::new();
            let mut pieces = Ok(());
            for piece in [left, right] {
                reader.feed(piece);
                while pieces.is_ok() {
                    match reader.take() {
                        Ok(Some(reply)) => replies.push(reply),
                        Ok(None) => break,
                        Err(error) => pieces = Err(error),
                    }
                }
            }
            if let Ok(replies) = &whole {
                for reply in replies {
                    prop_assert!(!reply.text().chars().any(char::is_control));
                }
            }
            prop_assert_eq!(whole, pieces.map(|()| replies));
        }
    }
}
