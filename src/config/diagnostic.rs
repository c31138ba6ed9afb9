//! Problems in a person's files: where, what, what to do; the line shown with a caret.

use crate::visible::is_hidden;
use annotate_snippets::{AnnotationKind, Element, Group, Level, Origin, Renderer, Snippet};
use serde_json::json;
use std::fmt::Write as _;
use std::ops::Range;
use std::path::PathBuf;

/// Most characters of a line that are shown around the place.
const WIDTH: usize = 100;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The setup cannot be used.
    Error,
    /// It can; somebody should know all the same.
    Warning,
}

/// Something in a setup that a person should mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// Which file, as a person would name it: below the setup folder where it is in there.
    pub file: PathBuf,
    /// Where in it.
    pub place: Option<Place>,
    /// What is wrong, one sentence, control characters visible.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// A place in a text file, with what it looks like there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Line, from 1.
    pub line: usize,
    /// Column, in characters from 1.
    pub column: usize,
    /// The line or a part of it, control characters made visible.
    excerpt: String,
    /// What is meant, in bytes of `excerpt`.
    mark: Range<usize>,
}

impl Place {
    /// The place of the bytes `range` of a file's `text`. A range over several lines means its
    /// beginning, to the end of that line.
    pub fn of(text: &str, range: Range<usize>) -> Place {
        let floor = |at: usize| {
            (0..=at.min(text.len()))
                .rev()
                .find(|&at| text.is_char_boundary(at))
        };
        let start = floor(range.start).unwrap_or(0);
        let end = floor(range.end).unwrap_or(0).max(start);
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let number = 1 + text.as_bytes()[..line_start]
            .iter()
            .filter(|&&byte| byte == b'\n')
            .count();
        let line = text[line_start..line_end].trim_end();
        let start = (start - line_start).min(line.len());
        let end = (end - line_start).clamp(start, line.len());
        Place::in_line(number, line, start..end)
    }

    /// The character in `column` (from 1) of the line `text`, whose number is `line`.
    pub fn at(line: usize, column: usize, text: &str) -> Place {
        let start = text
            .char_indices()
            .nth(column.saturating_sub(1))
            .map_or(text.len(), |(at, _)| at);
        let end = text[start..]
            .chars()
            .next()
            .map_or(start, |first| start + first.len_utf8());
        Place {
            column,
            ..Place::in_line(line, text, start..end)
        }
    }

    fn in_line(number: usize, line: &str, mark: Range<usize>) -> Place {
        let column = line[..mark.start].chars().count() + 1;
        let marked = line[mark.clone()].chars().count();
        // What is shown: the marked characters, cut to the width, with equally much before and after.
        let shown = marked.min(WIDTH);
        let total = line.chars().count();
        let from = (column - 1)
            .saturating_sub((WIDTH - shown) / 2)
            .min(total.saturating_sub(WIDTH));
        let mut excerpt = String::new();
        let (mut begin, mut end) = (None, None);
        if from > 0 {
            excerpt.push('…');
        }
        for (index, character) in line.chars().enumerate().skip(from).take(WIDTH) {
            if index == column - 1 {
                begin = Some(excerpt.len());
            }
            if index == column - 1 + shown {
                end = Some(excerpt.len());
            }
            show(&mut excerpt, character);
        }
        let begin = begin.unwrap_or(excerpt.len());
        let end = end.unwrap_or(excerpt.len()).max(begin);
        if from + WIDTH < total {
            excerpt.push('…');
        }
        Place {
            line: number,
            column,
            excerpt,
            mark: begin..end,
        }
    }
}

impl Problem {
    /// An error somewhere in `file`.
    pub fn error(file: impl Into<PathBuf>, message: impl AsRef<str>) -> Problem {
        Problem {
            severity: Severity::Error,
            file: file.into(),
            place: None,
            message: visible(message.as_ref()),
            hint: None,
        }
    }

    /// A warning about something in `file`.
    pub fn warning(file: impl Into<PathBuf>, message: impl AsRef<str>) -> Problem {
        Problem {
            severity: Severity::Warning,
            ..Problem::error(file, message)
        }
    }

    /// The same, at a place.
    pub fn at(self, place: Place) -> Problem {
        Problem {
            place: Some(place),
            ..self
        }
    }

    /// The same, with what to do.
    pub fn hint(self, hint: impl AsRef<str>) -> Problem {
        let hint = visible(hint.as_ref());
        Problem {
            hint: Some(hint).filter(|hint| !hint.is_empty()),
            ..self
        }
    }

    /// Whether the setup cannot be used because of it.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// For people: several lines, without a line end at the end.
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let file = visible(&self.file.display().to_string());
        let mut elements: Vec<Element<'_>> = Vec::new();
        match &self.place {
            None => elements.push(Origin::path(file.as_str()).into()),
            Some(place) => elements.push(
                // A line that is empty would not be shown at all.
                Snippet::source(if place.excerpt.is_empty() {
                    " "
                } else {
                    place.excerpt.as_str()
                })
                .path(file.as_str())
                .line_start(place.line)
                .annotation(AnnotationKind::Primary.span(place.mark.clone()))
                .into(),
            ),
        }
        if let Some(hint) = &self.hint {
            elements.push(Level::HELP.with_name(Some("hint")).message(hint.as_str()).into());
        }
        let group = Group::with_title(level.primary_title(self.message.as_str())).elements(elements);
        let mut shown = renderer.render(&[group]);
        if let Some(place) = &self.place {
            // The renderer counts columns in what it is shown, which may be cut or escaped.
            let counted = place.excerpt[..place.mark.start].chars().count() + 1;
            if counted != place.column {
                let (line, column) = (place.line, place.column);
                shown = shown.replacen(
                    &format!("> {file}:{line}:{counted}"),
                    &format!("> {file}:{line}:{column}"),
                    1,
                );
            }
        }
        // The bar beside an empty line is drawn with a space behind it.
        let lines: Vec<&str> = shown.lines().map(str::trim_end).collect();
        lines.join("\n")
    }

    /// For machines: `severity file line column message hint`.
    pub fn to_json(&self) -> serde_json::Value {
        json!({
            "severity": match self.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            },
            "file": self.file.display().to_string(),
            "line": self.place.as_ref().map(|place| place.line),
            "column": self.place.as_ref().map(|place| place.column),
            "message": self.message,
            "hint": self.hint,
        })
    }
}

/// Sorts problems as a person works through them: file by file, from top to bottom; each said once.
pub fn sort(problems: &mut Vec<Problem>) {
    problems.sort_by_cached_key(|problem| {
        let place = problem.place.as_ref().map(|place| (place.line, place.column));
        // The settings first: what is wrong there explains much of the rest.
        let settings = problem.file.as_os_str() != "tidings.yaml";
        (
            settings,
            problem.file.clone(),
            place,
            problem.severity,
            problem.message.clone(),
        )
    });
    problems.dedup();
}

/// A text with every character that could move a terminal's cursor, or turn the direction of
/// writing, made visible.
pub fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        show(&mut out, character);
    }
    out
}

fn show(out: &mut String, character: char) {
    match character {
        '\t' => out.push_str("    "),
        c if is_hidden(c) => {
            let _ = write!(out, "{}", character.escape_unicode());
        }
        _ if character.is_control() => {
            let _ = write!(out, "{}", character.escape_debug());
        }
        _ => out.push(character),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use insta::assert_snapshot;

    #[test]
    fn a_problem_shows_its_line_with_a_caret_and_what_to_do() {
        let text = "rules:\n  a:\n    wen: x\n";
        let problem = Problem::error("rules/a.yaml", "unknown key `wen`")
            .at(Place::of(text, 16..19))
            .hint("did you mean `when`?");
        assert_snapshot!(problem.render(false), @r#"
    error: unknown key `wen`
     --> rules/a.yaml:3:5
      |
    3 |     wen: x
      |     ^^^
      |
      = hint: did you mean `when`?
    "#);
    }

    #[test]
    fn control_characters_never_reach_the_terminal() {
        let text = "a: \u{1b}[2J\u{202e}b\tc";
        let problem = Problem::error("a\u{7}.yaml", "bad \u{1b}[31m").at(Place::of(text, 3..8));
        assert_snapshot!(problem.render(false), @r#"
    error: bad \u{1b}[31m
     --> a\u{7}.yaml:1:4
      |
    1 | a: \u{1b}[2J\u{202e}b    c
      |    ^^^^^^^^^
    "#);
    }

    #[test]
    fn a_very_long_line_is_cut_around_the_place() {
        let text = format!("{}mistake{}", "x".repeat(100_000), "y".repeat(100_000));
        let place = Place::of(&text, 100_000..100_007);
        assert_eq!((place.line, place.column), (1, 100_001));
        assert!(place.excerpt.chars().count() <= WIDTH + 2);
        assert_eq!(&place.excerpt[place.mark.clone()], "mistake");
    }

    proptest::proptest! {
        #[test]
        fn any_place_in_any_text_can_be_shown(text in "[a-zé\u{1b}\u{202e}\t\n\r]{0,40}", start in 0usize..60, len in 0usize..60) {
            let place = Place::of(&text, start..start + len);
            let shown = Problem::error("f", "m").at(place).render(false);
            proptest::prop_assert!(!shown.chars().any(|c| c.is_control() && c != '\n'));
        }
    }
}
