//! Bytes of a client become lines, and the lines behind DATA a message (RFC 5321 2.3.8, 4.5.2). Pure.
//!
//! A line ends with CRLF and with nothing else, and a message with `CRLF . CRLF` and with nothing else: where two
//! servers disagree about a bare CR or LF, one message becomes two. What has such bytes is refused, not mended.

/// Longest command line, bytes without its end; RFC 5321 4.5.3.1.4 asks for 512, and AUTH for more (RFC 4954 4).
pub const LINE_MAX: usize = 12_288;

/// What came in and is not yet used.
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    /// Bytes at the start that were used.
    used: usize,
}

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crooked {
    /// A CR or LF stands alone, or a NUL is in it.
    Bare,
    /// It does not end.
    Long,
}

impl Buffer {
    /// Takes what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.used > 0 {
            self.bytes.drain(..self.used);
            self.used = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether everything was used.
    pub fn is_empty(&self) -> bool {
        self.used == self.bytes.len()
    }

    /// What is there, all of it at once, for a message.
    pub fn rest(&self) -> &[u8] {
        &self.bytes[self.used..]
    }

    /// So many bytes of it were used.
    pub fn use_up(&mut self, count: usize) {
        self.used = (self.used + count).min(self.bytes.len());
    }

    /// The next command line, without its end; `None` while it is not whole.
    pub fn line(&mut self) -> Result<Option<Vec<u8>>, Crooked> {
        let rest = self.rest();
        let Some(end) = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n' | 0)) else {
            return if rest.len() > LINE_MAX {
                Err(Crooked::Long)
            } else {
                Ok(None)
            };
        };
        match (rest[end], rest.get(end + 1)) {
            _ if end > LINE_MAX => Err(Crooked::Long),
            (b'\r', Some(b'\n')) => {
                let line = rest[..end].to_vec();
                self.use_up(end + 2);
                Ok(Some(line))
            }
            (b'\r', None) => Ok(None),
            _ => Err(Crooked::Bare),
        }
    }
}

/// A message as it comes in behind DATA.
#[derive(Debug)]
pub struct Message {
    bytes: Vec<u8>,
    most: u64,
    state: State,
    too_large: bool,
    bare: bool,
}

/// Where in a line the reader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Start,
    /// A dot began the line.
    Dot,
    /// `.` CR
    DotCr,
    Within,
    Cr,
}

/// How a message ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// Whole.
    Whole(Vec<u8>),
    /// Longer than may be; it was read to its end and thrown away.
    TooLarge,
    /// With a bare CR or LF, or a NUL, in it.
    Bare,
}

impl Message {
    /// One of at most `most` bytes.
    pub fn new(most: u64) -> Message {
        Message {
            bytes: Vec::new(),
            most,
            state: State::Start,
            too_large: false,
            bare: false,
        }
    }

    /// Bytes it holds.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing came so far.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Takes the next bytes. How many of them belong to it, and how it ended if it did.
    pub fn push(&mut self, bytes: &[u8]) -> (usize, Option<Ended>) {
        for (place, byte) in bytes.iter().copied().enumerate() {
            self.state = match (self.state, byte) {
                (State::Start, b'.') => State::Dot,
                (State::Dot, b'\r') => State::DotCr,
                (State::DotCr, b'\n') => return (place + 1, Some(self.end())),
                (State::DotCr, byte) => {
                    // `.` CR and no LF: the dot was a stuffed one, and the CR stands alone.
                    self.bare = true;
                    self.within(byte)
                }
                (State::Cr, b'\n') => {
                    self.keep(b"\r\n");
                    State::Start
                }
                (State::Cr, byte) => {
                    self.bare = true;
                    self.within(byte)
                }
                // The dot was put there before another one, or before what is no end.
                (State::Start | State::Dot | State::Within, byte) => self.within(byte),
            };
        }
        (bytes.len(), None)
    }

    fn within(&mut self, byte: u8) -> State {
        match byte {
            b'\r' => State::Cr,
            b'\n' | 0 => {
                self.bare = true;
                State::Within
            }
            byte => {
                self.keep(&[byte]);
                State::Within
            }
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.too_large |= (self.bytes.len() + bytes.len()) as u64 > self.most;
        if self.too_large {
            self.bytes = Vec::new();
        } else if !self.bare {
            self.bytes.extend_from_slice(bytes);
        }
    }

    fn end(&mut self) -> Ended {
        match (self.too_large, self.bare) {
            (true, _) => Ended::TooLarge,
            (false, true) => Ended::Bare,
            (false, false) => Ended::Whole(std::mem::take(&mut self.bytes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> (usize, Option<Ended>) {
        Message::new(100).push(bytes)
    }

    fn whole(text: &str) -> Option<Ended> {
        Some(Ended::Whole(text.as_bytes().to_vec()))
    }

    #[test]
    fn only_one_thing_ends_a_message() {
        assert_eq!(read(b".\r\n"), (3, whole("")));
        assert_eq!(read(b"a\r\n.\r\nQUIT\r\n"), (6, whole("a\r\n")));
        assert_eq!(read(b"..a\r\n.b\r\n.\r\n"), (12, whole(".a\r\nb\r\n")));
        for no_end in [
            &b"a\n.\n"[..],
            b"a\r\n.\n",
            b"a\n.\r\n",
            b"a\r.\r",
            b"a\r\n.\r",
            b"a\r\n.\rx",
            b"a.\r\n",
            b"a\r\n..\r\n",
        ] {
            assert_eq!(read(no_end).1, None, "{no_end:?}");
        }
    }

    #[test]
    fn what_servers_disagree_about_is_refused_and_nothing_behind_it_is_a_command() {
        for smuggled in [
            &b"a\n.\nMAIL FROM:<x@y>\r\n.\r\n"[..],
            b"a\r\n.\nMAIL FROM:<x@y>\r\n.\r\n",
            b"a\n.\r\nMAIL FROM:<x@y>\r\n.\r\n",
            b"a\r\n.\rMAIL FROM:<x@y>\r\n.\r\n",
            b"a\r.\r\nMAIL FROM:<x@y>\r\n.\r\n",
            b"a\0\r\n.\r\n",
        ] {
            assert_eq!(
                read(smuggled),
                (smuggled.len(), Some(Ended::Bare)),
                "{smuggled:?}"
            );
        }
    }

    #[test]
    fn a_message_that_is_too_large_is_read_to_its_end_and_not_kept() {
        let mut message = Message::new(10);
        assert_eq!(message.push(&[b'a'; 1_000]).1, None);
        assert_eq!(message.len(), 0);
        assert_eq!(message.push(b"\r\n.\r\n").1, Some(Ended::TooLarge));
    }

    #[test]
    fn lines_end_with_both_or_not_at_all() {
        let mut buffer = Buffer::default();
        buffer.push(b"EHLO x\r");
        assert_eq!(buffer.line(), Ok(None));
        buffer.push(b"\nNOOP\r\nQU");
        assert_eq!(buffer.line(), Ok(Some(b"EHLO x".to_vec())));
        assert_eq!(buffer.line(), Ok(Some(b"NOOP".to_vec())));
        assert_eq!(buffer.line(), Ok(None));
        assert!(!buffer.is_empty());
        for crooked in [&b"NOOP\n"[..], b"NO\rOP\r\n", b"NO\0OP\r\n"] {
            let mut buffer = Buffer::default();
            buffer.push(crooked);
            assert_eq!(buffer.line(), Err(Crooked::Bare), "{crooked:?}");
        }
        let mut buffer = Buffer::default();
        buffer.push(&[b'a'; LINE_MAX + 1]);
        assert_eq!(buffer.line(), Err(Crooked::Long));
    }

    proptest::proptest! {
        /// However the bytes are cut into pieces, the message is the same.
        #[test]
        fn pieces_change_nothing(text in "[.a\r\n]{0,40}", cut in 0usize..40) {
            let bytes = format!("{text}\r\n.\r\n");
            let bytes = bytes.as_bytes();
            let at_once = read(bytes);
            let (first, second) = bytes.split_at(cut.min(bytes.len()));
            let mut message = Message::new(100);
            let pieces = match message.push(first) {
                (used, Some(ended)) => (used, Some(ended)),
                (used, None) => {
                    let (more, ended) = message.push(second);
                    (used + more, ended)
                }
            };
            assert_eq!(at_once, pieces);
        }
    }
}
