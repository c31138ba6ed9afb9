//! Lists of addresses as strangers write them (RFC 5322 3.4, with the obsolete forms that programs still use).
//!
//! What is read here comes from headers and command lines of other programs: it is bounded, keeps no state between
//! entries, and takes nothing for an address that another reader could take for two. Names without a domain (`root`)
//! are entries too; who that is, is for others to say.

use std::fmt;

/// Most entries of a list.
pub const MOST: usize = 2_000;
/// Deepest comments within comments.
const DEEPEST: usize = 10;

/// One entry of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The name shown, still with its encoded words.
    pub name: Option<String>,
    /// `local@domain`, or a local name alone; not checked further.
    pub address: String,
    /// The entry as it was written, without spaces around it.
    pub raw: String,
}

/// Why a list cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ListError {
    /// What is wrong.
    pub why: &'static str,
    /// Where, as written, control characters made visible.
    pub near: String,
}

impl fmt::Display for ListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, near `{}`", self.why, self.near)
    }
}

/// Reads a list: entries behind commas (or semicolons), names in quotes, comments, groups.
pub fn parse(text: &str) -> Result<Vec<Listed>, ListError> {
    Reader {
        text,
        at: 0,
        start: 0,
        entry: Entry::default(),
        in_group: false,
        found: Vec::new(),
    }
    .read()
}

/// An entry being read.
#[derive(Default)]
struct Entry {
    /// The words outside of brackets, quotes resolved: a name, if an address in brackets follows.
    phrase: String,
    /// The same as written: the address, if none follows.
    plain: String,
    /// The address in brackets.
    bracketed: Option<String>,
    /// Something stands behind the bracket.
    behind: bool,
    comment: Option<String>,
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    start: usize,
    entry: Entry,
    in_group: bool,
    found: Vec<Listed>,
}

impl Reader<'_> {
    fn read(mut self) -> Result<Vec<Listed>, ListError> {
        while let Some(c) = self.next() {
            match c {
                '"' => {
                    let from = self.at - 1;
                    let inner = self.quoted()?;
                    self.entry.phrase.push_str(&inner);
                    let raw = self.text[from..self.at].to_owned();
                    self.entry.plain.push_str(&raw);
                    self.entry.behind |= self.entry.bracketed.is_some();
                }
                '(' => {
                    let comment = self.comment()?;
                    self.entry.comment.get_or_insert(comment);
                    self.entry.phrase.push(' ');
                    self.entry.plain.push(' ');
                }
                '<' => {
                    if self.entry.bracketed.is_some() {
                        return Err(self.error("two addresses in brackets and no comma between them"));
                    }
                    self.entry.bracketed = Some(self.bracketed()?);
                }
                '>' => return Err(self.error("a bracket is closed that was not opened")),
                ',' => self.end()?,
                ';' => {
                    self.end()?;
                    self.in_group = false;
                }
                ':' => {
                    if self.in_group || self.entry.bracketed.is_some() || self.entry.plain.trim().is_empty() {
                        return Err(self.error("a colon where no group begins"));
                    }
                    self.in_group = true;
                    self.entry = Entry::default();
                    self.start = self.at;
                }
                c => {
                    self.entry.behind |= self.entry.bracketed.is_some() && !c.is_whitespace();
                    self.entry.phrase.push(c);
                    self.entry.plain.push(c);
                }
            }
        }
        self.end()?;
        Ok(self.found)
    }

    fn next(&mut self) -> Option<char> {
        let c = self.text[self.at..].chars().next()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn error(&self, why: &'static str) -> ListError {
        let near = self.text[self.start..].trim_start();
        ListError {
            why,
            near: near
                .chars()
                .take(60)
                .collect::<String>()
                .escape_debug()
                .to_string(),
        }
    }

    /// What stands between quotes, to the closing one.
    fn quoted(&mut self) -> Result<String, ListError> {
        let mut inner = String::new();
        loop {
            match self.next() {
                None => return Err(self.error("a quote is not closed")),
                Some('"') => return Ok(inner),
                Some('\\') => inner.extend(self.next()),
                Some(c) => inner.push(c),
            }
        }
    }

    fn comment(&mut self) -> Result<String, ListError> {
        let mut inner = String::new();
        let mut depth = 1;
        loop {
            match self.next() {
                None => return Err(self.error("a comment is not closed")),
                Some('(') => {
                    depth += 1;
                    if depth > DEEPEST {
                        return Err(self.error("too many comments within comments"));
                    }
                }
                Some(')') => {
                    depth -= 1;
                    if depth == 0 {
                        return Ok(inner);
                    }
                }
                Some('\\') => inner.extend(self.next()),
                Some(c) => inner.push(c),
            }
        }
    }

    fn bracketed(&mut self) -> Result<String, ListError> {
        let mut inner = String::new();
        loop {
            match self.next() {
                None => return Err(self.error("a bracket is not closed")),
                Some('>') => break,
                Some('<') => return Err(self.error("a bracket within a bracket")),
                Some('"') => {
                    let from = self.at - 1;
                    self.quoted()?;
                    inner.push_str(&self.text[from..self.at]);
                }
                Some('(') => drop(self.comment()?),
                Some(c) => inner.push(c),
            }
        }
        let inner = inner.trim();
        // A source route (RFC 5321 appendix C): ignored, as everybody does.
        let bare = match inner.strip_prefix('@').and_then(|route| route.split_once(':')) {
            Some((_, address)) => address,
            None => inner,
        };
        Ok(bare.trim().to_owned())
    }

    fn end(&mut self) -> Result<(), ListError> {
        let raw = self.text[self.start..self.at].trim();
        let raw = raw.trim_end_matches([',', ';']).trim_end().to_owned();
        let entry = std::mem::take(&mut self.entry);
        let tidy = |text: &str| {
            let words: Vec<&str> = text.split_whitespace().collect();
            Some(words.join(" ")).filter(|name| !name.is_empty())
        };
        let comment = entry.comment.as_deref().and_then(tidy);
        let (name, address) = match entry.bracketed {
            Some(_) if entry.behind => return Err(self.error("words behind an address in brackets")),
            Some(address) => (tidy(&entry.phrase).or(comment), address),
            None => (comment, entry.plain.trim().to_owned()),
        };
        if !address.is_empty() {
            if address.chars().any(|c| c.is_whitespace() || c.is_control()) && !address.starts_with('"') {
                return Err(self.error("several words that are no address"));
            }
            if self.found.len() == MOST {
                return Err(self.error("too many addresses"));
            }
            self.found.push(Listed { name, address, raw });
        }
        self.start = self.at;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(Option<String>, String)> {
        let found = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        found.into_iter().map(|one| (one.name, one.address)).collect()
    }

    fn pair(name: &str, address: &str) -> (Option<String>, String) {
        ((!name.is_empty()).then(|| name.to_owned()), address.to_owned())
    }

    #[test]
    fn lists_are_read_as_programs_write_them() {
        assert_eq!(
            read("a@x.example, \"Lee, Ann\" <b@x.example>,\t<c@x.example> ,, root"),
            [
                pair("", "a@x.example"),
                pair("Lee, Ann", "b@x.example"),
                pair("", "c@x.example"),
                pair("", "root")
            ]
        );
        assert_eq!(read("root (Cron Daemon)"), [pair("Cron Daemon", "root")]);
        assert_eq!(read("undisclosed-recipients:;"), []);
        assert_eq!(
            read("Team: a@x, B (two) <b@x>; c@x"),
            [pair("", "a@x"), pair("B", "b@x"), pair("", "c@x")]
        );
        assert_eq!(read("<@relay,@other:a@x>"), [pair("", "a@x")]);
        assert_eq!(read("\"a,b\"@x.example"), [pair("", "\"a,b\"@x.example")]);
        assert_eq!(read(""), []);
        assert_eq!(parse("A <a@x> , b").unwrap()[0].raw, "A <a@x>");
    }

    #[test]
    fn what_two_readers_would_read_differently_is_refused() {
        for text in [
            "<a@x> <b@x>",
            "<a@x> b@x",
            "a@x b@x",
            "<a@x",
            "a@x>",
            "\"a@x",
            "(a@x",
            "<a<b@x>>",
            "x: y: a@b;;",
            ":a@x",
            "((((((((((((((a))))))))))))))",
        ] {
            assert!(parse(text).is_err(), "{text}: {:?}", parse(text));
        }
        assert!(parse(&"a@x,".repeat(MOST + 1)).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_text_brings_the_reader_down(text in "[a-z@<>\"\\\\(),;: \u{e4}\t]{0,80}") {
            for one in parse(&text).unwrap_or_default() {
                assert!(!one.address.is_empty() && !one.address.contains(['<', '>', '\n']) || one.address.contains('"'));
            }
        }
    }
}
