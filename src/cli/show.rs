//! How things are shown to people: columns, times, sizes, and text that cannot play with a terminal.

use crate::visible::is_disguise;
use jiff::{SignedDuration, Timestamp, Unit};
use std::fmt::Write as _;

/// Text from outside, on one line, with control characters and direction marks made visible.
pub fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\r' | '\t' => out.push(' '),
            c if c.is_control() || is_disguise(c) => {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

/// At most `width` characters, with an ellipsis where something was cut.
pub fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut out: String = text.chars().take(width.saturating_sub(1)).collect();
    out.push('…');
    out
}

/// `1 folder`, `3 folders`.
pub fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// `just now`, `4m ago`, `in 2h 5m`.
pub fn when(time: Timestamp, now: Timestamp) -> String {
    let passed = now.duration_since(time);
    if passed.abs() < SignedDuration::from_secs(2) {
        return "just now".to_owned();
    }
    let span = span(passed.abs());
    if passed.is_positive() {
        format!("{span} ago")
    } else {
        format!("in {span}")
    }
}

/// `12s`, `4m`, `2h 5m`, `3d 4h`.
pub fn span(duration: SignedDuration) -> String {
    let seconds = duration.as_secs().abs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    let two = |first: i64, a: &str, second: i64, b: &str| {
        if second == 0 {
            format!("{first}{a}")
        } else {
            format!("{first}{a} {second}{b}")
        }
    };
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m"),
        (0, _, _) => two(hours, "h", minutes, "m"),
        _ => two(days, "d", hours, "h"),
    }
}

/// Local time to the second, with its zone.
pub fn local(time: Timestamp) -> String {
    let zoned = time.to_zoned(jiff::tz::TimeZone::system());
    let zoned = zoned.round(Unit::Second).unwrap_or(zoned);
    zoned.strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
}

/// `512 B`, `1.5 MB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if count < 1000 {
        return format!("{count} B");
    }
    #[allow(clippy::cast_precision_loss, reason = "shown to one decimal")]
    let mut value = count as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.95 && unit < UNITS.len() - 1 {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Rows with their columns aligned; the last column runs free.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|name| name.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut out = String::new();
        let mut cells = cells.zip(&widths).peekable();
        while let Some((cell, &width)) = cells.next() {
            out.push_str(cell);
            if cells.peek().is_some() {
                let gap = width.saturating_sub(cell.chars().count()) + 2;
                out.extend(std::iter::repeat_n(' ', gap));
            }
        }
        out.trim_end().to_owned()
    };
    let mut out = line(&mut header.iter().copied());
    for row in rows {
        out.push('\n');
        out.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    out
}

/// Every line of `text` behind `margin`.
pub fn indent(text: &str, margin: &str) -> String {
    text.lines()
        .map(|line| format!("{margin}{line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_from_outside_cannot_play_with_the_terminal() {
        assert_eq!(
            clean("a\u{1b}[2Jb\r\nfdp.\u{202e}exe"),
            "a\\u{1b}[2Jb  fdp.\\u{202e}exe"
        );
        assert_eq!(
            clean("a\u{2028}b\u{200b}c\u{61c}"),
            "a\\u{2028}b\\u{200b}c\\u{61c}"
        );
    }

    #[test]
    fn spans_have_two_units_at_most() {
        let text = |seconds| span(SignedDuration::from_secs(seconds));
        assert_eq!(
            [text(5), text(240), text(7500), text(273_700)],
            ["5s", "4m", "2h 5m", "3d 4h"]
        );
    }

    #[test]
    fn sizes_are_decimal() {
        assert_eq!(
            [bytes(999), bytes(1500), bytes(999_999_999)],
            ["999 B", "1.5 kB", "1.0 GB"]
        );
    }

    #[test]
    fn columns_stand_below_each_other() {
        let rows = vec![vec!["7".into(), "ready".into()], vec!["12".into(), "held".into()]];
        assert_eq!(table(&["ID", "STATE"], &rows), "ID  STATE\n7   ready\n12  held");
    }
}
