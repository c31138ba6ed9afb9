//! The message on the wire: what must be known of it before it is announced, and how its bytes are
//! changed on the way (RFC 5321 4.5.2, 2.3.8). Pure.

/// What MAIL FROM has to announce about a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Bytes, before stuffing.
    pub len: u64,
    /// Holds bytes above 127 and needs 8BITMIME.
    pub eight_bit: bool,
    /// Such bytes are in the header section, which needs SMTPUTF8 (RFC 6532).
    pub utf8_headers: bool,
    /// State: past the empty line that ends the headers.
    in_body: bool,
    /// State: only CR seen since the last LF.
    empty_line: bool,
}

impl Survey {
    /// Looks at the next piece.
    pub fn push(&mut self, piece: &[u8]) {
        if self.len == 0 {
            self.empty_line = true;
        }
        self.len += piece.len() as u64;
        let mut rest = piece;
        while !self.in_body && !rest.is_empty() {
            let (byte, after) = (rest[0], &rest[1..]);
            match byte {
                b'\n' => {
                    self.in_body = self.empty_line;
                    self.empty_line = true;
                }
                b'\r' => {}
                _ => self.empty_line = false,
            }
            if !byte.is_ascii() {
                self.utf8_headers = true;
                self.eight_bit = true;
            }
            rest = after;
        }
        self.eight_bit |= !rest.is_ascii();
    }
}

/// Doubles dots at line beginnings and makes every line end CRLF, piece by piece. A bare CR or a
/// bare LF never leaves: servers disagree about them, which is how mails are smuggled.
#[derive(Clone, Copy, Debug)]
pub struct Stuffer {
    at_start: bool,
    after_cr: bool,
}

impl Default for Stuffer {
    fn default() -> Stuffer {
        Stuffer {
            at_start: true,
            after_cr: false,
        }
    }
}

impl Stuffer {
    /// Appends what `piece` becomes to `out`.
    pub fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        out.reserve(piece.len() + piece.len() / 32 + 4);
        let mut rest = piece;
        while !rest.is_empty() {
            if self.after_cr {
                out.extend_from_slice(b"\r\n");
                (self.at_start, self.after_cr) = (true, false);
                if rest[0] == b'\n' {
                    rest = &rest[1..];
                }
                continue;
            }
            if self.at_start && rest[0] == b'.' {
                out.push(b'.');
            }
            let end = rest
                .iter()
                .position(|byte| matches!(byte, b'\r' | b'\n'))
                .unwrap_or(rest.len());
            out.extend_from_slice(&rest[..end]);
            self.at_start &= end == 0;
            match rest.get(end) {
                Some(b'\n') => {
                    out.extend_from_slice(b"\r\n");
                    self.at_start = true;
                }
                Some(_) => self.after_cr = true,
                None => break,
            }
            rest = &rest[end + 1..];
        }
    }

    /// Ends the last line, if the message did not.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if self.after_cr || !self.at_start {
            out.extend_from_slice(b"\r\n");
        }
        *self = Stuffer::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stuffed(pieces: &[&[u8]]) -> Vec<u8> {
        let (mut stuffer, mut out) = (Stuffer::default(), Vec::new());
        for piece in pieces {
            stuffer.push(piece, &mut out);
        }
        stuffer.finish(&mut out);
        out
    }

    #[test]
    fn dots_are_doubled_and_line_ends_made_whole() {
        for (given, sent) in [
            ("", ""),
            ("a", "a\r\n"),
            ("a\r\n", "a\r\n"),
            (".", "..\r\n"),
            ("a\r\n.\r\nb\r\n", "a\r\n..\r\nb\r\n"),
            ("a\n.\nb", "a\r\n..\r\nb\r\n"),
            ("a\r.\rb\r", "a\r\n..\r\nb\r\n"),
            ("a\r\r\nb", "a\r\n\r\nb\r\n"),
            ("a\n\rb", "a\r\n\r\nb\r\n"),
            ("a.b\r\n..c", "a.b\r\n...c\r\n"),
        ] {
            assert_eq!(
                String::from_utf8(stuffed(&[given.as_bytes()])).unwrap(),
                sent,
                "{given:?}"
            );
        }
    }

    fn survey(pieces: &[&[u8]]) -> (u64, bool, bool) {
        let mut survey = Survey::default();
        pieces.iter().for_each(|piece| survey.push(piece));
        (survey.len, survey.eight_bit, survey.utf8_headers)
    }

    #[test]
    fn survey_tells_headers_from_body() {
        assert_eq!(survey(&[b"A: b\r\n\r\n\xc3\xa9"]), (10, true, false));
        assert_eq!(survey(&[b"A: \xc3\xa9\r\n\r", b"\nb"]), (10, true, true));
        assert_eq!(survey(&[b"A: b\r\n", b"\r\n", b"c\r\n\r\n"]), (13, false, false));
        assert_eq!(survey(&[b"\r\n\xc3\xa9"]), (4, true, false));
    }

    proptest! {
        #[test]
        fn what_is_sent_has_no_bare_line_end_no_early_end_and_does_not_depend_on_the_pieces(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'.'), Just(b'a')], 0..60),
            cut in 0..60_usize,
        ) {
            let (left, right) = bytes.split_at(cut.min(bytes.len()));
            let whole = stuffed(&[&bytes]);
            prop_assert_eq!(&whole, &stuffed(&[left, right]));
            let text = String::from_utf8(whole).unwrap();
            prop_assert!(!text.replace("\r\n", "").contains(['\r', '\n']));
            prop_assert!(text.is_empty() || text.ends_with("\r\n"));
            let lines: Vec<_> = text.split("\r\n").collect();
            prop_assert!(!lines.contains(&"."));
            // Unstuffed, it is the message with its line ends made whole.
            let back: Vec<_> = lines.iter().map(|line| line.strip_prefix('.').unwrap_or(line)).collect();
            let mut want = String::from_utf8(bytes).unwrap().replace("\r\n", "\n").replace('\r', "\n");
            if !want.is_empty() && !want.ends_with('\n') {
                want.push('\n');
            }
            prop_assert_eq!(back.join("\n"), want);
        }
    }
}
