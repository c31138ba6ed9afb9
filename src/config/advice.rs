//! The setup's own entries of the advice catalog: `advice.yaml` beside `tidings.yaml`.

use crate::advice::catalog::Catalog;
use crate::config::diagnostic::{Place, Problem};
use std::path::Path;
use std::sync::Arc;

/// Its name.
pub const FILE: &str = "advice.yaml";
/// Longest file that is read, bytes.
const LONGEST: u64 = 4_000_000;

/// Reads it, if there is one. What is wrong with it is a problem of the setup.
pub fn read(dir: &Path, problems: &mut Vec<Problem>) -> Option<Arc<Catalog>> {
    let path = dir.join(FILE);
    let wrong = |message: String| {
        Problem::error(FILE, message).hint(
            "a list of entries with id, provider, stage, match, meaning, class and advice; an id of the shipped catalog replaces that entry",
        )
    };
    let length = match std::fs::metadata(&path) {
        Ok(about) => about.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => {
            problems.push(wrong(format!("cannot read it: {error}")));
            return None;
        }
    };
    let text = if length > LONGEST {
        Err(format!("it is longer than {LONGEST} bytes"))
    } else {
        std::fs::read_to_string(&path).map_err(|error| format!("cannot read it: {error}"))
    };
    match text.map(|text| (Catalog::with(&text), text)) {
        Ok((Ok(catalog), _)) => Some(Arc::new(catalog)),
        Ok((Err(why), text)) => {
            let mut problem = wrong(first_line(&why));
            problem.place = place(&why, &text);
            problems.push(problem);
            None
        }
        Err(why) => {
            problems.push(wrong(why));
            None
        }
    }
}

/// The parser draws the place too; the first line says it all.
fn first_line(why: &str) -> String {
    let line = why.lines().next().unwrap_or(why);
    let line = line.strip_prefix("error: ").unwrap_or(line);
    match line.split_once(": ") {
        Some((place, said)) if place.starts_with("line ") => said.to_owned(),
        _ => line.to_owned(),
    }
}

/// `line 3 column 5` of the parser's message.
fn place(why: &str, text: &str) -> Option<Place> {
    let number = |after: &str| -> Option<usize> {
        let (_, rest) = why.split_once(after)?;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    let line = number("line ")?;
    let column = number("column ").unwrap_or(1);
    Some(Place::at(
        line,
        column.max(1),
        text.lines().nth(line.checked_sub(1)?)?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> (bool, Vec<Problem>) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), text).unwrap();
        let mut problems = Vec::new();
        let read = read(folder.path(), &mut problems).is_some();
        (read, problems)
    }

    #[test]
    fn a_file_that_is_not_there_is_no_problem() {
        let folder = tempfile::tempdir().unwrap();
        let mut problems = Vec::new();
        assert!(read(folder.path(), &mut problems).is_none() && problems.is_empty());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let good = "- {id: x, provider: generic, stage: token, match: {smtp_code: 599}, meaning: m, class: retry, advice: [a]}\n";
        assert_eq!(read_text(good), (true, Vec::new()));
        let (read, problems) = read_text(&good.replace("class: retry", "class: nonsense"));
        assert!(!read && problems.len() == 1 && problems[0].is_error());
        assert!(problems[0].message.contains("nonsense"), "{problems:?}");
        assert_eq!(problems[0].place.as_ref().unwrap().line, 1);
        let (_, problems) = read_text(&good.repeat(2));
        assert!(problems[0].message.contains("twice"), "{problems:?}");
    }
}
