//! Rows and columns of a file of separated values, as far as a mail wants to speak of them. Pure.
//!
//! Fields are separated by what separates most in the first record: `;` a tab `|` or `,`. A field that begins with
//! a quote ends at the next quote that is not doubled, whatever stands in between (RFC 4180). Empty lines are no
//! records.

/// Most names of a header.
pub const COLUMNS: usize = 100;

/// Longest name in it, characters.
const NAME: usize = 1_000;

/// Where two are as frequent, the earlier: a comma stands in numbers and names too.
const DELIMITERS: [u8; 4] = [b';', b'\t', b'|', b','];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    FieldStart,
    Plain,
    Quoted,
    /// A quote in a quoted field: its end, or the first half of a doubled one.
    QuoteSeen,
}

impl State {
    fn after(self, byte: u8, separates: bool) -> State {
        match (self, byte) {
            (State::Quoted, b'"') => State::QuoteSeen,
            (State::Quoted, _) => State::Quoted,
            (State::QuoteSeen | State::FieldStart, b'"') => State::Quoted,
            (_, b'\n') => State::FieldStart,
            _ if separates => State::FieldStart,
            _ => State::Plain,
        }
    }
}

/// Counts records as the bytes come by.
#[derive(Clone, Debug)]
pub struct Rows {
    delimiter: u8,
    state: State,
    /// This record has something in it.
    any: bool,
    records: u64,
}

impl Default for Rows {
    fn default() -> Rows {
        Rows::new(b',')
    }
}

impl Rows {
    /// With this byte between fields.
    pub fn new(delimiter: u8) -> Rows {
        Rows {
            delimiter,
            state: State::FieldStart,
            any: false,
            records: 0,
        }
    }

    /// The next bytes.
    pub fn take(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            let quoted = self.state == State::Quoted;
            if byte == b'\n' && !quoted {
                self.records += u64::from(self.any);
                self.any = false;
            } else if byte != b'\r' {
                self.any = true;
            }
            self.state = self.state.after(byte, byte == self.delimiter);
        }
    }

    /// Records but the first.
    pub fn below_header(&self) -> u64 {
        (self.records + u64::from(self.any)).saturating_sub(1)
    }
}

/// What separates fields, by the first record.
pub fn delimiter(head: &[u8]) -> u8 {
    let mut counts = [0_usize; DELIMITERS.len()];
    let mut state = State::FieldStart;
    let mut any = false;
    for &byte in head {
        let quoted = state == State::Quoted;
        if byte == b'\n' && !quoted && any {
            break;
        }
        any |= !matches!(byte, b'\r' | b'\n');
        let which = DELIMITERS.iter().position(|one| *one == byte);
        if let (Some(which), false) = (which, quoted) {
            counts[which] += 1;
        }
        state = state.after(byte, which.is_some());
    }
    let most = counts.iter().max().copied().unwrap_or_default();
    match counts.iter().position(|count| *count == most) {
        Some(which) if most > 0 => DELIMITERS[which],
        _ => b',',
    }
}

/// The fields of the first record.
pub fn header(text: &str) -> Vec<String> {
    let delimiter = char::from(delimiter(text.as_bytes()));
    let mut fields = vec![String::new()];
    let mut state = State::FieldStart;
    let mut length = 0;
    let mut any = false;
    for character in text.chars() {
        let byte = u8::try_from(character).unwrap_or(b'x');
        let quoted = state == State::Quoted;
        if character == '\n' && !quoted {
            if any {
                break;
            }
            continue;
        }
        any |= character != '\r';
        let after = state.after(byte, character == delimiter);
        let separates = !quoted && character == delimiter;
        // A quote that opens or closes is not part of the field; the second of a doubled one is.
        let silent = character == '"' && (after == State::QuoteSeen || state == State::FieldStart);
        state = after;
        if separates {
            if fields.len() == COLUMNS {
                return finished(fields);
            }
            fields.push(String::new());
            length = 0;
        } else if !silent
            && length < NAME
            && let Some(field) = fields.last_mut()
        {
            field.push(character);
            length += 1;
        }
    }
    if any { finished(fields) } else { Vec::new() }
}

fn finished(fields: Vec<String>) -> Vec<String> {
    fields.into_iter().map(|field| field.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rows(text: &str) -> u64 {
        let mut rows = Rows::new(delimiter(text.as_bytes()));
        rows.take(text.as_bytes());
        rows.below_header()
    }

    #[test]
    fn the_delimiter_is_what_separates_most_in_the_first_record() {
        for (text, expected) in [
            ("a,b,c\n1;2;3;4\n", b','),
            ("name;price, net;price, gross\n", b';'),
            ("a\tb\n", b'\t'),
            ("a|b\n", b'|'),
            ("one column\n", b','),
            ("\"a,b,c,d\";x\n", b';'),
            ("\n\na;b\n", b';'),
            ("", b','),
        ] {
            assert_eq!(delimiter(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn rows_are_records_not_lines() {
        for (text, expected) in [
            ("", 0),
            ("a,b\n", 0),
            ("a,b\n1,2\n3,4", 2),
            ("a,b\r\n1,2\r\n\r\n3,4\r\n", 2),
            ("a,b\n\"two\nlines\",2\n", 1),
            ("a,b\n\"say \"\"hi\"\"\n\",2\n", 1),
            ("a,b\n5\" disk,2\nx,y\n", 2),
            ("a,b\n\"never closed\n1,2\n3,4\n", 1),
            ("a;b\n;\n", 1),
        ] {
            assert_eq!(rows(text), expected, "{text:?}");
        }
    }

    #[test]
    fn the_header_is_the_first_record_with_its_quotes_taken_off() {
        assert_eq!(header("number;date;net\r\n1;2;3\r\n"), ["number", "date", "net"]);
        assert_eq!(
            header("\"a, b\",\"say \"\"hi\"\"\",\"two\nlines\"\n"),
            ["a, b", "say \"hi\"", "two\nlines"]
        );
        assert_eq!(header(" a , b \n"), ["a", "b"]);
        assert_eq!(header("\r\n"), [""; 0]);
        assert_eq!(header(&"c,".repeat(5_000)).len(), COLUMNS);
        assert_eq!(header(&"x".repeat(5_000))[0].len(), NAME);
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_count_the_same(text in "[a,;\"\r\n]{0,60}", at in 0..60_usize) {
            let at = at.min(text.len());
            let mut pieces = Rows::default();
            pieces.take(&text.as_bytes()[..at]);
            pieces.take(&text.as_bytes()[at..]);
            let mut whole = Rows::default();
            whole.take(text.as_bytes());
            prop_assert_eq!(pieces.below_header(), whole.below_header());
        }

        #[test]
        fn what_is_written_by_the_rules_is_read_back(fields in proptest::collection::vec("[ -~\n]{1,8}", 2..6)) {
            let quoted: Vec<String> = fields.iter().map(|f| format!("\"{}\"", f.replace('"', "\"\""))).collect();
            let text = format!("{}\n1,2\n", quoted.join(","));
            let trimmed: Vec<String> = fields.iter().map(|f| f.trim().to_owned()).collect();
            prop_assert_eq!(header(&text), trimmed);
            prop_assert_eq!(rows(&text), 1);
        }
    }
}
