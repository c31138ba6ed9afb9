//! `run:`, `move:`, `copy:`, `delete:`.

use crate::action::{Overlap, RunSpec, StepSpec};
use crate::config::document::At;
use crate::config::raw::{Template, rules as raw};
use crate::rule::load::words::Words;
use crate::rule::load::{Away, Loader};
use crate::template::Text;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

/// The work of a rule or an outcome, as written.
#[derive(Clone, Copy, Debug)]
pub struct Written<'a> {
    /// `run:`
    pub run: Option<&'a raw::Run>,
    /// `copy:`
    pub copy: Option<&'a Template>,
    /// `move:`
    pub move_to: Option<&'a Template>,
    /// `delete:`
    pub delete: Option<bool>,
}

impl Loader<'_> {
    /// The steps, always in this order however they are written: a map has none. First `run`, which
    /// needs the file where it is, then `copy`, then `move` or `delete`.
    pub(super) fn work(
        &mut self,
        at: &At<'_>,
        rule: &str,
        written: &Written<'_>,
        words: &Words,
    ) -> (Vec<StepSpec>, Overlap) {
        let mut steps = Vec::new();
        let mut overlap = Overlap::default();
        if let Some(run) = written.run {
            overlap = match run.overlap {
                None | Some(raw::Overlap::Queue) => Overlap::Queue,
                Some(raw::Overlap::Skip) => Overlap::Skip,
                Some(raw::Overlap::Parallel) => Overlap::Parallel,
            };
            steps.extend(self.run(&at.key("run"), run, words).map(StepSpec::Run));
        }
        let of_file = [
            ("copy", written.copy.is_some()),
            ("move", written.move_to.is_some()),
            ("delete", written.delete.is_some()),
        ];
        if !words.has_file() {
            for (key, _) in of_file.iter().filter(|(_, there)| *there) {
                self.complain(
                    at.name(key)
                        .error(format!(
                            "`{key}` needs a file, and not every trigger of this rule brings one"
                        ))
                        .hint(
                            "only `file_arrives` and `file_changes` do; use `run:` for other files, or make two rules of it",
                        ),
                );
            }
        }
        if let Some(copy) = written.copy {
            let spot = at.key("copy");
            if let Some(text) = self.target(&spot, rule, copy, words) {
                steps.push(StepSpec::Copy(text));
            }
        }
        if let Some(target) = written.move_to {
            let spot = at.key("move");
            if let Some(text) = self.target(&spot, rule, target, words) {
                steps.push(StepSpec::Move(text));
            }
        }
        match written.delete {
            Some(true) if written.move_to.is_some() => self.complain(
                at.name("delete")
                    .error("a file that was moved away cannot be deleted")
                    .hint("keep `move` or `delete`"),
            ),
            Some(true) => steps.push(StepSpec::Delete),
            Some(false) => self.complain(
                at.key("delete")
                    .error("`delete: false` does nothing")
                    .hint("leave the line out"),
            ),
            None => {}
        }
        (steps, overlap)
    }

    fn target(&mut self, at: &At<'_>, rule: &str, target: &Template, words: &Words) -> Option<Text> {
        if target.0.trim().is_empty() {
            self.complain(at.error("where to?").hint("a folder ends in a slash: done/"));
            return None;
        }
        let text = self.text(at, &target.0, words)?;
        if words.tells_of_sets() && !target.0.ends_with('/') {
            self.complain(
                at.error("several files cannot get one name")
                    .hint("with `together` name a folder, with a slash at its end: done/"),
            );
        }
        if let Some(literal) = text.literal() {
            let path = self.checker.path(literal);
            if !literal.ends_with('/') && path.is_dir() {
                self.complain(
                    at.error(format!("{} is a folder", path.display()))
                        .hint(format!("a folder is written with a slash at its end: {literal}/")),
                );
            }
        }
        self.moves(at, rule, &target.0);
        Some(text)
    }

    fn run(&mut self, at: &At<'_>, raw: &raw::Run, words: &Words) -> Option<RunSpec> {
        let spot = at.key("command");
        let mut command = Vec::new();
        let mut fine = true;
        for (index, part) in raw.command.0.iter().enumerate() {
            match self.text(&spot.item(index), &part.0, words) {
                Some(text) => command.push(text),
                None => fine = false,
            }
        }
        let folder = raw.folder.as_deref().map(|folder| self.checker.path(folder));
        if let Some(folder) = folder.as_ref().filter(|folder| !folder.is_dir()) {
            self.away(
                at.key("folder")
                    .error(format!("there is no folder {}", folder.display()))
                    .hint(format!("mkdir -p {}", folder.display())),
            );
        }
        if let Some(program) = raw.command.0.first() {
            self.program(&spot.item(0), &program.0, raw.command.0.len());
        }
        let mut env = BTreeMap::new();
        for (name, value) in raw.env.iter().flatten() {
            let spot = at.key("env");
            let word = name
                .chars()
                .all(|character| character.is_ascii_alphanumeric() || character == '_');
            if !word || name.is_empty() || name.starts_with(|first: char| first.is_ascii_digit()) {
                self.complain(
                    spot.name(name)
                        .error(format!("`{name}` cannot be the name of an environment variable"))
                        .hint("letters, digits and `_`"),
                );
            } else if name.starts_with("TIDINGS_") {
                self.complain(
                    spot.name(name)
                        .error("names that begin with TIDINGS_ are set by tidings")
                        .hint("choose another name"),
                );
            }
            match self.text(&spot.key(name), &value.0, words) {
                Some(text) => {
                    env.insert(name.clone(), text);
                }
                None => fine = false,
            }
        }
        let time = |time: &Option<crate::config::raw::Time>| time.as_ref().map(|time| time.0.clone());
        let timeout = self.checker.some_time(
            &at.key("timeout"),
            time(&raw.timeout).as_deref(),
            Duration::from_secs(3600),
        );
        let retry_wait = self.checker.time(
            &at.key("retry_wait"),
            time(&raw.retry_wait).as_deref(),
            Duration::from_secs(10),
        );
        let limit = raw.log_limit.as_ref().map(|size| size.0.as_str());
        let log_limit = self.checker.size(&at.key("log_limit"), limit, 10_000_000);
        fine.then(|| RunSpec {
            command,
            timeout,
            retries: raw.retries.unwrap_or(0),
            retry_wait,
            folder: folder.unwrap_or_else(|| self.checker.dir.to_owned()),
            env,
            log_limit,
        })
    }

    /// A program that is not there is found now, and not at two in the morning.
    fn program(&mut self, at: &At<'_>, program: &str, parts: usize) {
        if program.trim().is_empty() {
            self.complain(
                at.error("which program?")
                    .hint("program and arguments: [./import-order, \"{{file.path}}\"]"),
            );
            return;
        }
        if program.contains("{{") {
            return;
        }
        if program.contains('/') {
            let path = self.checker.path(program);
            if self.away == Away::Elsewhere && (parts > 1 || !program.contains(char::is_whitespace)) {
                return;
            }
            if path.exists() {
                let runs = std::fs::metadata(&path)
                    .is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0);
                if !runs {
                    self.complain(
                        at.error(format!("{} cannot be run", path.display()))
                            .hint(format!("chmod +x {}", path.display())),
                    );
                }
                return;
            }
            if parts > 1 || !program.contains(char::is_whitespace) {
                self.complain(
                    at.error(format!("there is no program {}", path.display()))
                        .hint("a relative path starts at the setup folder"),
                );
                return;
            }
        }
        if parts == 1 && program.contains(char::is_whitespace) {
            let words: Vec<&str> = program.split_whitespace().collect();
            let hint = if program.contains(['|', '&', ';', '<', '>', '$', '*', '`', '"', '\'']) {
                "put it into a script, and name that: [./work.sh]".to_owned()
            } else {
                format!("write a list: [{}]", words.join(", "))
            };
            self.complain(
                at.error("this would be taken for the name of one program: no shell reads it")
                    .hint(hint),
            );
            return;
        }
        let found = self.away == Away::Elsewhere
            || std::env::var_os("PATH").is_some_and(|path| {
                std::env::split_paths(&path)
                    .any(|folder: std::path::PathBuf| Path::new(&folder).join(program).is_file())
            });
        if !found {
            self.complain(
                at.warning(format!("there is no program `{program}` in PATH"))
                    .hint("the service may have another PATH; a full path is safest"),
            );
        }
    }
}
