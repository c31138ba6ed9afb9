//! What a server said, made safe to show and to use: its words, its pages, how long it wants us to wait. Pure.

use crate::visible::is_hidden;
use jiff::Timestamp;
use std::time::Duration;

/// Longest text kept of an answer, characters.
const LONGEST: usize = 600;

/// Text of a server made safe to show: control characters and direction marks visible, white space
/// and lines joined, at most 600 characters.
pub fn shown(text: &str) -> String {
    let lines: Vec<String> = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|line| !line.is_empty())
        .collect();
    let mut out = String::new();
    for (count, c) in lines.join(" / ").chars().enumerate() {
        if count == LONGEST {
            out.push('…');
            break;
        }
        if c.is_control() || is_hidden(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// A date as HTTP writes it (RFC 9110 5.6.7).
pub fn date(text: &str) -> Option<Timestamp> {
    jiff::fmt::rfc2822::parse(text.trim())
        .ok()
        .map(|zoned| zoned.timestamp())
}

/// How long a Retry-After asks for, in seconds or as a date (RFC 9110 10.2.3). `now` is best the server's own.
pub fn wait(text: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at = date(text)?;
    Some(Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO))
}

/// The text of a page, roughly: no tags, no scripts, no styles.
pub fn without_tags(page: &str) -> String {
    let mut out = String::new();
    let mut rest = page;
    while let Some(start) = rest.find('<') {
        out.push_str(&rest[..start]);
        out.push(' ');
        rest = &rest[start..];
        let lower: String = rest.chars().take(8).collect::<String>().to_lowercase();
        let close = if lower.starts_with("<script") {
            "</script"
        } else if lower.starts_with("<style") {
            "</style"
        } else {
            ""
        };
        let from = if close.is_empty() {
            0
        } else {
            // ASCII lower case keeps every byte where it was.
            rest.to_ascii_lowercase().find(close).unwrap_or(rest.len())
        };
        rest = match rest[from..].find('>') {
            Some(end) => &rest[from + end + 1..],
            None => "",
        };
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_markup_can_be_stripped(page in "[<>/a-zé\"]{0,60}(<script|<STYLE|</)?[<>a-zß ]{0,40}") {
            let _ = without_tags(&page);
        }
    }
}
