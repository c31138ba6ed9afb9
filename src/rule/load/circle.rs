//! Rules that would start themselves again, straight or through others: a file moved to where it
//! arrives again, a job that waits for its own end, an event that its own rule hears. A chain is fine; a
//! circle never ends.

use crate::config::diagnostic::Problem;
use crate::config::document::At;
use crate::rule::load::sample::sample_name;
use crate::rule::load::{Loader, trigger};
use crate::rule::{Trigger, emit};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What a rule sets off.
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
    /// An event of this type is emitted.
    Event(String),
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

    /// Remembers that a rule emits events of this type.
    pub(super) fn tells(&mut self, at: &At<'_>, rule: &str, kind: &str) {
        self.links.push(Link {
            rule: rule.to_owned(),
            sets_off: SetsOff::Event(kind.to_owned()),
            problem: at.error("this event would lead to itself, for ever"),
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
            // Only what sets off something can be part of a circle; a mail starts nothing.
            for to in self.rules.iter().filter(|rule| acts(rule)) {
                let starts = match &link.sets_off {
                    SetsOff::Job => to
                        .triggers
                        .iter()
                        .filter_map(job_pattern)
                        .any(|pattern| pattern.is_match(&link.rule)),
                    SetsOff::File(target) => self.lands(target, from, to),
                    SetsOff::Event(kind) => {
                        let source = emit::source(&link.rule);
                        to.triggers.iter().any(|trigger| hears(trigger, kind, &source))
                    }
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
                    (SetsOff::Event(_), true) => {
                        "name the types of events it waits for, so that its own are not among them".to_owned()
                    }
                    (SetsOff::Event(_), false) => {
                        format!("the rule `{to}` hears it, and leads back to this one")
                    }
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
            let Some((watch, wanted)) = trigger.arrival() else {
                continue;
            };
            let Some(root) = self.watches.get(watch).map(|watch| watch.root.as_path()) else {
                continue;
            };
            let mut names = vec![sample_name(wanted.matching.glob().glob())];
            for trigger in &to.triggers {
                if let Some((_, wanted)) = trigger.arrival() {
                    names.push(sample_name(wanted.matching.glob().glob()));
                }
            }
            for name in names.iter().filter(|name| {
                // Only names the first rule takes at all.
                trigger::sees(root, wanted, &root.join(name)) || wanted.recursive
            }) {
                let path = self.filled(target, root, name);
                for trigger in &to.triggers {
                    let Some((watch, theirs)) = trigger.arrival() else {
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

fn acts(rule: &crate::rule::Rule) -> bool {
    !rule.work.is_empty()
        || !rule.emits.is_empty()
        || [&rule.on_success, &rule.on_failure, &rule.on_recovery]
            .iter()
            .any(|outcome| !outcome.work.is_empty() || !outcome.emits.is_empty())
}

fn hears(trigger: &Trigger, kind: &str, source: &str) -> bool {
    let Trigger::Event { types, source: whose } = trigger else {
        return false;
    };
    types.iter().any(|pattern| pattern.is_match(kind))
        && whose.as_ref().is_none_or(|whose| whose.is_match(source))
}

fn job_pattern(trigger: &Trigger) -> Option<&globset::GlobMatcher> {
    match trigger {
        Trigger::JobSucceeds(pattern)
        | Trigger::JobFails(pattern)
        | Trigger::JobFinishes(pattern)
        | Trigger::JobRecovers(pattern) => Some(pattern),
        _ => None,
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
