//! Questions to a person at a terminal.

use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _};

/// Whether somebody is there who could answer.
pub fn somebody() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Asks until one of the answers comes, by its first letters; `None` at the end of input.
pub fn choose<'a>(question: &str, answers: &[&'a str]) -> Option<&'a str> {
    loop {
        let mut stderr = std::io::stderr().lock();
        let _ = write!(stderr, "{question} [{}] ", answers.join("/"));
        let _ = stderr.flush();
        let mut line = String::new();
        let read = std::io::stdin().lock().take(1_000).read_line(&mut line);
        if read.map_or(0, |read| read) == 0 {
            let _ = writeln!(stderr);
            return None;
        }
        if let Some(answer) = picked(&line, answers) {
            return Some(answer);
        }
    }
}

/// Yes or no; no at the end of input.
pub fn yes(question: &str) -> bool {
    choose(question, &["yes", "no"]) == Some("yes")
}

fn picked<'a>(line: &str, answers: &[&'a str]) -> Option<&'a str> {
    let said = line.trim().to_lowercase();
    let mut fitting = answers
        .iter()
        .filter(|answer| !said.is_empty() && answer.starts_with(&said));
    fitting.next().copied().filter(|_| fitting.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::picked;

    #[test]
    fn an_answer_may_be_short_but_not_doubtful() {
        assert_eq!(picked("y\n", &["yes", "no"]), Some("yes"));
        assert_eq!(picked(" DROP ", &["send", "drop", "nothing"]), Some("drop"));
        assert_eq!(picked("", &["yes", "no"]), None);
        assert_eq!(picked("yess", &["yes", "no"]), None);
        assert_eq!(picked("s", &["send", "stop"]), None);
    }
}
