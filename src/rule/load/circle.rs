//! Rules whose work would start themselves again, straight or through others: a file moved to where
//! it arrives again, a job that waits for its own end. A chain is fine; a circle never ends.

use crate::config::diagnostic::Problem;
use crate::config::document::At;
use crate::rule::Trigger;
use crate::rule::load::sample::sample_name;
use crate::rule::load::{Loader, trigger};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What a rule's work sets off.
#[derive(Debug)]
pub struct Link {
    rule: String,
    sets_off: SetsOff,
    /// What to say should it close a circle.
    problem: Problem,
}

#[derive(Debug)]
enum SetsOff {
    /// A file comes to lie where this text, still with its `{{..}}`, says.
    File(String),
    /// A job of the rule's name ends.
    Job,
}

impl Loader<'_> {
    /// Remembers that a rule moves or copies files to `target`.
    pub(super) fn moves(&mut self, at: &At<'_>, rule: &str, target: &str) {
        self.links.push(Link {
            rule: rule.to_owned(),
            sets_off: SetsOff::File(target.to_owned()),
            problem: at.error("the file would arrive again here, and again"),
        });
    }

    /// Remembers that a rule's work is a job.
    pub(super) fn works(&mut self, at: &At<'_>, rule: &str) {
        self.links.push(Link {
            rule: rule.to_owned(),
            sets_off: SetsOff::Job,
            problem: at.error("this rule's own work would start it again, for ever"),
        });
    }

    /// Complains about every link that closes a circle.
    pub(super) fn circles(&mut self) {
        let links = std::mem::take(&mut self.links);
        let mut next: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        let mut edges = Vec::new();
        for link in &links {
            let Some(from) = self.rules.iter().find(|rule| rule.name == link.rule) else {
                continue;
            };
            // Only what does work can be part of a circle; a mail starts nothing.
            for to in self.rules.iter().filter(|rule| has_work(rule)) {
                let starts = match &link.sets_off {
                    SetsOff::Job => to
                        .triggers
                        .iter()
                        .filter_map(job_pattern)
                        .any(|pattern| pattern.is_match(&link.rule)),
                    SetsOff::File(target) => self.lands(target, from, to),
                };
                if starts {
                    next.entry(&from.name).or_default().insert(&to.name);
                    edges.push((link, to.name.clone()));
                }
            }
        }
        let mut problems = Vec::new();
        for (link, to) in &edges {
            if reaches(&next, to, &link.rule) {
                let hint = match (&link.sets_off, *to == link.rule) {
                    (SetsOff::File(_), true) => {
                        "move it to a folder that is not watched, or leave that folder out with `ignore`"
                            .to_owned()
                    }
                    (SetsOff::File(_), false) => format!(
                        "the rule `{to}` takes it up there, and leads back to this one; move it elsewhere"
                    ),
                    (SetsOff::Job, true) => {
                        "name the jobs it waits for, so that its own is not among them".to_owned()
                    }
                    (SetsOff::Job, false) => {
                        format!("its job starts the rule `{to}`, whose work leads back to this one")
                    }
                };
                problems.push(link.problem.clone().hint(hint));
            }
        }
        for problem in problems {
            self.complain(problem);
        }
    }

    /// Whether a file that `from` puts at `target` would start `to`.
    fn lands(&self, target: &str, from: &crate::rule::Rule, to: &crate::rule::Rule) -> bool {
        for trigger in &from.triggers {
            let Trigger::FileArrives { watch, wanted } = trigger else {
                continue;
            };
            let Some(root) = self.watches.get(watch).map(|watch| watch.root.as_path()) else {
                continue;
            };
            let mut names = vec![sample_name(wanted.matching.glob().glob())];
            for trigger in &to.triggers {
                if let Trigger::FileArrives { wanted, .. } = trigger {
                    names.push(sample_name(wanted.matching.glob().glob()));
                }
            }
            for name in names.iter().filter(|name| {
                // Only names the first rule takes at all.
                trigger::sees(root, wanted, &root.join(name)) || wanted.recursive
            }) {
                let path = self.filled(target, root, name);
                for trigger in &to.triggers {
                    let Trigger::FileArrives {
                        watch,
                        wanted: theirs,
                    } = trigger
                    else {
                        continue;
                    };
                    let Some(there) = self.watches.get(watch) else {
                        continue;
                    };
                    // The first rule must take the name wherever it came from.
                    let takes =
                        wanted.matching.is_match(name) || wanted.matching.is_match(Path::new("a").join(name));
                    if takes && trigger::sees(&there.root, theirs, &path) {
                        return true;
                    }
                }
            }
        }
        false
    }

    /// Where a file called `name` below `root` would come to lie, as far as that can be told.
    fn filled(&self, target: &str, root: &Path, name: &str) -> PathBuf {
        let stem = Path::new(name).file_stem().unwrap_or_default().to_string_lossy();
        let extension = Path::new(name).extension().unwrap_or_default().to_string_lossy();
        let root_text = root.to_string_lossy();
        let mut text = target.replace("{{ ", "{{").replace(" }}", "}}");
        for (fact, value) in [
            ("{{file.folder}}", root_text.as_ref()),
            ("{{file.root}}", root_text.as_ref()),
            ("{{file.name}}", name),
            ("{{file.stem}}", stem.as_ref()),
            ("{{file.extension}}", extension.as_ref()),
            ("{{file.relative}}", name),
        ] {
            text = text.replace(fact, value);
        }
        // Whatever else is filled in may be any word.
        while let (Some(start), Some(end)) = (text.find("{{"), text.find("}}")) {
            if end < start {
                break;
            }
            text.replace_range(start..end + 2, "a");
        }
        let folder = text.ends_with('/');
        let path = self.checker.path(&text);
        if folder { path.join(name) } else { path }
    }
}

fn has_work(rule: &crate::rule::Rule) -> bool {
    !rule.work.is_empty()
        || [&rule.on_success, &rule.on_failure, &rule.on_recovery]
            .iter()
            .any(|outcome| !outcome.work.is_empty())
}

fn job_pattern(trigger: &Trigger) -> Option<&globset::GlobMatcher> {
    match trigger {
        Trigger::JobSucceeds(pattern)
        | Trigger::JobFails(pattern)
        | Trigger::JobFinishes(pattern)
        | Trigger::JobRecovers(pattern) => Some(pattern),
        Trigger::FileArrives { .. } | Trigger::Schedule(_) | Trigger::Absence(_) | Trigger::Trouble(_) => {
            None
        }
    }
}

fn reaches(next: &BTreeMap<&str, BTreeSet<&str>>, from: &str, to: &str) -> bool {
    let mut seen = BTreeSet::new();
    let mut open = vec![from];
    while let Some(at) = open.pop() {
        if at == to {
            return true;
        }
        if seen.insert(at) {
            open.extend(next.get(at).into_iter().flatten());
        }
    }
    false
}
