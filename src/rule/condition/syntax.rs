//! What a parser's complaint means to the person who wrote the condition; and the text of the sides
//! of `&&`.

use super::ConditionError;
use cel::ParseErrors;

/// The first complaint, in plain words, with the slip it most likely comes from.
pub(super) fn explain(source: &str, errors: &ParseErrors) -> ConditionError {
    let Some(error) = errors.errors.first() else {
        return ConditionError::at(None, "the condition cannot be understood");
    };
    let too_deep = errors
        .errors
        .iter()
        .any(|error| error.msg.contains("Recursion limit"));
    if too_deep {
        return super::prove::too_deep(None);
    }
    let offset = offset_of(source, error.pos);
    let rest = &source[offset..];
    let word = word_at(rest);
    let before = source[..offset].trim_end();
    let message = error.msg.as_str();

    if message.starts_with("invalid argument to has()") {
        return ConditionError::at(offset, "`has()` takes one fact of a group")
            .hint("write `has(file.name)`");
    }
    if let Some(reserved) = message.strip_prefix("reserved identifier: ") {
        return ConditionError::at(offset, format!("`{reserved}` is a reserved word"));
    }
    if message.starts_with("invalid int literal") {
        return ConditionError::at(offset, "this number is too large");
    }
    if rest.starts_with(['"', '\'']) && message.contains("token recognition error") {
        let what = if rest.contains('\\') {
            "this text is not closed, or has an unknown `\\` escape"
        } else {
            "this text has no closing quote"
        };
        return ConditionError::at(offset, what)
            .hint(r#"write "\\." for a `\.` in a pattern, or r"\." "#.trim());
    }
    // `not file.ok`: the parser stops at the word after.
    let not = before.len().checked_sub(3).filter(|&at| {
        before.is_char_boundary(at)
            && &before[at..] == "not"
            && !before[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '.')
    });
    if let Some(at) = not {
        return ConditionError::at(at, "unexpected `not`").hint("write `!` instead of `not`");
    }
    let instead = match word.to_ascii_lowercase().as_str() {
        "and" => Some("&&"),
        "or" => Some("||"),
        "is" | "equals" | "eq" => Some("=="),
        "=" => Some("=="),
        "===" => Some("=="),
        "&" => Some("&&"),
        "|" => Some("||"),
        _ => None,
    };
    if let Some(instead) = instead {
        return ConditionError::at(offset, format!("unexpected `{word}`"))
            .hint(format!("write `{instead}` instead of `{word}`"));
    }
    if before.ends_with('<') && rest.starts_with('>') {
        return ConditionError::at(offset.saturating_sub(1), "unexpected `<>`")
            .hint("write `!=` instead of `<>`");
    }
    let unit = [("kb", 1_000_u64), ("mb", 1_000_000), ("gb", 1_000_000_000)]
        .into_iter()
        .chain([("kib", 1 << 10), ("mib", 1 << 20), ("gib", 1 << 30)])
        .find(|(unit, _)| word.eq_ignore_ascii_case(unit));
    if let (Some((_, factor)), true) = (unit, before.ends_with(|c: char| c.is_ascii_digit())) {
        let digits = before
            .rsplit(|c: char| !c.is_ascii_digit())
            .next()
            .unwrap_or_default();
        let number = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(factor));
        let error = ConditionError::at(offset, format!("a condition knows no unit `{word}`"));
        return match number {
            Some(number) => error.hint(format!("write {number}")),
            None => error,
        };
    }
    if word.is_empty() {
        return ConditionError::at(source.trim_end().len(), "the condition ends too early");
    }
    ConditionError::at(offset, format!("unexpected `{word}`"))
}

/// The parser counts lines from 1 and characters from 1.
fn offset_of(source: &str, (line, column): (isize, isize)) -> usize {
    let line = usize::try_from(line - 1).unwrap_or(0);
    let column = usize::try_from(column - 1).unwrap_or(0);
    let start: usize = source.split_inclusive('\n').take(line).map(str::len).sum();
    let rest = &source[start..];
    start + rest.char_indices().nth(column).map_or(rest.len(), |(at, _)| at)
}

/// The name, number or sign a text begins with.
fn word_at(text: &str) -> &str {
    let same = |first: fn(char) -> bool| text.find(move |c| !first(c)).unwrap_or(text.len());
    let end = match text.chars().next() {
        None => 0,
        Some(c) if c.is_alphanumeric() || c == '_' => same(|c| c.is_alphanumeric() || c == '_'),
        Some('=' | '&' | '|') => same(|c| matches!(c, '=' | '&' | '|')),
        Some(c) => c.len_utf8(),
    };
    &text[..end]
}

/// The texts between the `&&` that stand outside of brackets and quotes.
pub(super) fn conjuncts(source: &str) -> Vec<&str> {
    let bytes = source.as_bytes();
    let (mut parts, mut start, mut depth, mut at) = (Vec::new(), 0, 0_usize, 0);
    while at < bytes.len() {
        match bytes[at] {
            quote @ (b'"' | b'\'') => at = after_text(bytes, at, quote),
            b'(' | b'[' | b'{' => (depth, at) = (depth + 1, at + 1),
            b')' | b']' | b'}' => (depth, at) = (depth.saturating_sub(1), at + 1),
            b'&' if depth == 0 && bytes.get(at + 1) == Some(&b'&') => {
                parts.push(&source[start..at]);
                at += 2;
                start = at;
            }
            // Commented text may hold anything.
            b'/' if bytes.get(at + 1) == Some(&b'/') => return vec![source],
            _ => at += 1,
        }
    }
    parts.push(&source[start..]);
    parts
}

/// Where the text that opens at `at` has ended.
fn after_text(bytes: &[u8], at: usize, quote: u8) -> usize {
    let triple = bytes[at..].starts_with(&[quote; 3]);
    let raw = at > 0 && matches!(bytes[at - 1], b'r' | b'R');
    let mut at = at + if triple { 3 } else { 1 };
    while at < bytes.len() {
        if bytes[at] == b'\\' && !raw {
            at += 2;
        } else if triple && bytes[at..].starts_with(&[quote; 3]) {
            return at + 3;
        } else if !triple && bytes[at] == quote {
            return at + 1;
        } else {
            at += 1;
        }
    }
    bytes.len()
}
