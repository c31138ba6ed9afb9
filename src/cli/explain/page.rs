//! How a story is shown: wrapped to the width there is, bold headings on a terminal, and nothing from outside
//! that could play with it.

use super::story::{Line, Story};
use crate::cli::show;
use std::io::IsTerminal as _;

/// Columns where nobody says how many there are.
const WIDTH: usize = 100;
/// Wider lines are hard to read, however wide the terminal.
const WIDEST: usize = 120;
/// Narrower than this nothing can be told.
const NARROWEST: usize = 40;

/// What the page looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Columns.
    pub width: usize,
    /// Headings in bold.
    pub bold: bool,
}

impl Look {
    /// That of this process's stdout: a terminal's width, else `COLUMNS`.
    pub fn of_stdout() -> Look {
        let stdout = std::io::stdout();
        let terminal = stdout.is_terminal();
        let size = terminal
            .then(|| rustix::termios::tcgetwinsize(&stdout).ok())
            .flatten()
            .map(|size| usize::from(size.ws_col).min(WIDEST))
            .filter(|width| *width > 0);
        let said = || std::env::var("COLUMNS").ok()?.parse::<usize>().ok();
        Look {
            width: size.or_else(said).unwrap_or(WIDTH).max(NARROWEST),
            bold: terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        }
    }
}

/// The whole answer.
pub fn shown(story: &Story, look: Look) -> String {
    let mut out = Vec::new();
    wrap(&mut out, "", &story.headline, look.width);
    for part in &story.parts {
        out.push(String::new());
        let heading = show::clean(part.heading);
        out.push(if look.bold {
            format!("\u{1b}[1m{heading}\u{1b}[0m")
        } else {
            heading
        });
        for Line { depth, mark, text } in &part.lines {
            let margin = format!("{}{}", "  ".repeat(depth + 1), show::clean(mark));
            wrap(&mut out, &margin, text, look.width);
        }
    }
    out.join("\n")
}

/// Breaks a paragraph at its spaces. A word that is longer than a line, a path perhaps, stays whole: it is
/// there to be copied.
fn wrap(out: &mut Vec<String>, margin: &str, text: &str, width: usize) {
    let hang = " ".repeat(margin.chars().count());
    let text = show::clean(text);
    let mut line = margin.to_owned();
    let mut used = hang.len();
    let mut empty = true;
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let long = word.chars().count();
        if !empty && used + 1 + long > width {
            out.push(std::mem::replace(&mut line, hang.clone()));
            used = hang.len();
            empty = true;
        }
        if !empty {
            line.push(' ');
            used += 1;
        }
        line.push_str(word);
        used += long;
        empty = false;
    }
    out.push(line.trim_end().to_owned());
}

#[cfg(test)]
mod tests {
    use super::super::story::Lines;
    use super::*;

    fn page(width: usize, bold: bool) -> String {
        let mut story = Story::new("The mail was accepted by the server three hours ago.");
        let mut lines = Lines::default();
        lines.pair(0, "server", "250 2.0.0 ok, queued\u{1b}[2J as 4711 for delivery");
        lines.steps(
            1,
            ["/a/very/long/path/that/is/never/broken/in/two.pdf comes".to_owned()],
        );
        story.part("Attempts", lines);
        shown(&story, Look { width, bold })
    }

    #[test]
    fn paragraphs_are_broken_at_spaces_and_hang_below_their_label() {
        insta::assert_snapshot!(page(40, false), @r"
        The mail was accepted by the server
        three hours ago.

        Attempts
          server    250 2.0.0 ok,
                    queued\u{1b}[2J as 4711 for
                    delivery
            1. /a/very/long/path/that/is/never/broken/in/two.pdf
               comes
        ");
    }

    #[test]
    fn only_headings_are_bold_and_only_on_a_terminal() {
        assert!(page(80, true).contains("\u{1b}[1mAttempts\u{1b}[0m"));
        assert!(!page(80, false).contains('\u{1b}'));
    }
}
