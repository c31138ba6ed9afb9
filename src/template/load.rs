//! From files to templates: what is shipped, then the setup's own, all problems at once.

use crate::suggest;
use crate::template::engine::{self, Fault, Parsed, place_of};
use crate::template::set::{MAIL, Mail, Part, Piece, Set};
use crate::template::variables::{self, Found};
use crate::template::{MAX_OUTPUT, TemplateProblem, Text, Use};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

macro_rules! shipped {
    ($path:literal) => {
        ($path, include_str!(concat!("../../templates/", $path)))
    };
}

/// What is shipped, by its path below `templates/`.
const SHIPPED: &[(&str, &str)] = &[
    shipped!("digest.html.hbs"),
    shipped!("digest.txt.hbs"),
    shipped!("file-arrived.html.hbs"),
    shipped!("file-arrived.txt.hbs"),
    shipped!("file-came-late.html.hbs"),
    shipped!("file-came-late.txt.hbs"),
    shipped!("file-missing.html.hbs"),
    shipped!("file-missing.txt.hbs"),
    shipped!("folder-backlog.html.hbs"),
    shipped!("folder-backlog.txt.hbs"),
    shipped!("job-failed.html.hbs"),
    shipped!("job-failed.txt.hbs"),
    shipped!("job-missing.html.hbs"),
    shipped!("job-missing.txt.hbs"),
    shipped!("job-recovered.html.hbs"),
    shipped!("job-recovered.txt.hbs"),
    shipped!("job-runs-long.html.hbs"),
    shipped!("job-runs-long.txt.hbs"),
    shipped!("job-succeeded.html.hbs"),
    shipped!("job-succeeded.txt.hbs"),
    shipped!("partials/expected.html.hbs"),
    shipped!("partials/expected.txt.hbs"),
    shipped!("partials/fact.html.hbs"),
    shipped!("partials/job.html.hbs"),
    shipped!("partials/job.txt.hbs"),
    shipped!("partials/layout.html.hbs"),
    shipped!("partials/layout.txt.hbs"),
    shipped!("partials/output.html.hbs"),
    shipped!("partials/output.txt.hbs"),
    shipped!("plain.html.hbs"),
    shipped!("plain.txt.hbs"),
    shipped!("test-message.html.hbs"),
    shipped!("test-message.txt.hbs"),
    shipped!("trouble.html.hbs"),
    shipped!("trouble.txt.hbs"),
];

/// Deepest folder below `templates/`.
const MAX_DEPTH: usize = 8;

/// A template file.
#[derive(Clone, Debug)]
struct Source {
    /// As shown to people: below the setup folder.
    file: PathBuf,
    text: String,
    /// Where the body begins, behind the front matter.
    body: usize,
}

impl Source {
    fn body(&self) -> &str {
        &self.text[self.body..]
    }

    fn problem(&self, fault: Fault) -> TemplateProblem {
        let (line, column, source_line) = place_of(&self.text, fault.offset);
        TemplateProblem {
            file: self.file.clone(),
            line,
            column,
            message: fault.message,
            hint: fault.hint,
            source_line: source_line.to_owned(),
        }
    }

    /// The same for a place counted from the body.
    fn body_problem(&self, fault: Fault) -> TemplateProblem {
        self.problem(Fault {
            offset: fault.offset + self.body,
            ..fault
        })
    }

    fn usage(&self, offset: usize, path: Vec<String>, guarded: bool) -> Use {
        let (line, column, source_line) = place_of(&self.text, offset);
        Use {
            file: self.file.clone(),
            line,
            column,
            path,
            guarded,
            source_line: source_line.to_owned(),
        }
    }
}

/// Front matter as written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Front {
    #[serde(default)]
    subject: Option<String>,
    #[serde(default)]
    preheader: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

/// Page or text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Html,
    Text,
}

/// Files of one form, by name.
#[derive(Debug, Default)]
struct Files {
    mails: BTreeMap<String, Source>,
    partials: BTreeMap<String, Source>,
}

/// What is shipped, alone.
pub fn shipped() -> Set {
    build(None).0
}

/// What is shipped and what lies in `dir`.
pub fn load(dir: Option<&Path>) -> Result<Set, Vec<TemplateProblem>> {
    let (set, mut problems) = build(dir);
    if problems.is_empty() {
        return Ok(set);
    }
    problems.sort_by(|a, b| {
        (&a.file, a.line, a.column, &a.message).cmp(&(&b.file, b.line, b.column, &b.message))
    });
    problems.dedup();
    Err(problems)
}

fn build(dir: Option<&Path>) -> (Set, Vec<TemplateProblem>) {
    let mut problems = Vec::new();
    let (mut html, mut text) = (Files::default(), Files::default());
    for (path, source) in SHIPPED {
        let file = Path::new("templates").join(path);
        sort_in(
            path,
            file,
            (*source).to_owned(),
            &mut html,
            &mut text,
            &mut problems,
        );
    }
    if let Some(dir) = dir.filter(|dir| dir.exists()) {
        let (mut own_html, mut own_text) = (Files::default(), Files::default());
        read(dir, Path::new(""), 0, &mut own_html, &mut own_text, &mut problems);
        // A mail of the setup replaces the shipped one whole: its text is not told by our text part.
        let own: BTreeSet<String> = own_html
            .mails
            .keys()
            .chain(own_text.mails.keys())
            .cloned()
            .collect();
        for (shipped, mut own_files) in [(&mut html, own_html), (&mut text, own_text)] {
            shipped.mails.retain(|name, _| !own.contains(name));
            shipped.mails.append(&mut own_files.mails);
            shipped.partials.append(&mut own_files.partials);
        }
    }
    let mut set = Set {
        mails: BTreeMap::new(),
        html: engine::registry(true),
        text: engine::registry(false),
    };
    for (form, files) in [(Form::Html, &mut html), (Form::Text, &mut text)] {
        let partials = compile_partials(files, &mut problems);
        for (name, source) in &files.mails {
            let mail = set.mails.entry(name.clone()).or_default();
            compile_mail(mail, form, source, &files.partials, &partials, &mut problems);
        }
        let registry = match form {
            Form::Html => &mut set.html,
            Form::Text => &mut set.text,
        };
        for (name, (parsed, _)) in partials {
            registry.register_template(&name, parsed);
        }
    }
    for mail in set.mails.values_mut() {
        mail.uses.dedup();
    }
    (set, problems)
}

/// Reads a folder and those below it.
fn read(
    dir: &Path,
    below: &Path,
    depth: usize,
    html: &mut Files,
    text: &mut Files,
    problems: &mut Vec<TemplateProblem>,
) {
    let shown = |below: &Path| Path::new(dir.file_name().unwrap_or_default()).join(below);
    let mut problem = |below: &Path, message: String| {
        problems.push(TemplateProblem {
            file: shown(below),
            line: 1,
            column: 1,
            message,
            hint: None,
            source_line: String::new(),
        });
    };
    let entries = match std::fs::read_dir(dir.join(below)) {
        Ok(entries) => entries,
        Err(error) => return problem(below, format!("the folder cannot be read: {error}")),
    };
    let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    for name in names {
        let below = below.join(&name);
        let path = dir.join(&below);
        if name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if path.is_dir() {
            if depth < MAX_DEPTH {
                read(dir, &below, depth + 1, html, text, problems);
            }
            continue;
        }
        let Some(relative) = below.to_str().filter(|relative| relative.ends_with(".hbs")) else {
            continue;
        };
        let mut problem = |message: String| {
            problems.push(TemplateProblem {
                file: shown(&below),
                line: 1,
                column: 1,
                message,
                hint: None,
                source_line: String::new(),
            });
        };
        match std::fs::metadata(&path) {
            Ok(meta) if !meta.is_file() => problem("this is not a file".to_owned()),
            Ok(meta) if meta.len() > 1_000_000 => problem("the template is longer than 1 MB".to_owned()),
            Ok(_) => match std::fs::read_to_string(&path) {
                Ok(source) => sort_in(relative, shown(&below), source, html, text, problems),
                Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                    problem("the file is not UTF-8 text".to_owned());
                }
                Err(error) => problem(format!("the file cannot be read: {error}")),
            },
            Err(error) => problem(format!("the file cannot be read: {error}")),
        }
    }
}

/// Puts a file where it belongs, by its name.
fn sort_in(
    relative: &str,
    file: PathBuf,
    text: String,
    html: &mut Files,
    plain: &mut Files,
    problems: &mut Vec<TemplateProblem>,
) {
    let text = text.strip_prefix('\u{FEFF}').map(str::to_owned).unwrap_or(text);
    let mut source = Source { file, text, body: 0 };
    let stem = relative.strip_suffix(".hbs").unwrap_or(relative);
    let (name, forms): (&str, &[Form]) = match (stem.strip_suffix(".html"), stem.strip_suffix(".txt")) {
        (Some(name), _) => (name, &[Form::Html]),
        (_, Some(name)) => (name, &[Form::Text]),
        _ => (stem, &[Form::Html, Form::Text]),
    };
    let mut files = |form: &Form, partial: Option<&str>, source: Source| {
        let files = if *form == Form::Html {
            &mut *html
        } else {
            &mut *plain
        };
        match partial {
            Some(name) => files.partials.insert(name.to_owned(), source),
            None => files.mails.insert(name.to_owned(), source),
        };
    };
    if let Some(name) = name.strip_prefix("partials/") {
        for form in forms {
            files(form, Some(name), source.clone());
        }
        return;
    }
    if forms.len() > 1 {
        problems.push(
            source.problem(
                Fault::new(0, "it is not said whether this is a page or a text")
                    .hint(format!("name it {name}.html.hbs or {name}.txt.hbs")),
            ),
        );
        return;
    }
    source.body = front_end(&source.text).map_or(0, |(_, _, body)| body);
    files(&forms[0], None, source);
}

/// Start and end of the front matter's YAML, and where the body begins.
fn front_end(text: &str) -> Option<(usize, usize, usize)> {
    let first = text.split_inclusive('\n').next()?;
    if first.trim_end() != "---" {
        return None;
    }
    let start = first.len();
    let mut at = start;
    for line in text[start..].split_inclusive('\n') {
        if line.trim_end() == "---" {
            return Some((start, at, at + line.len()));
        }
        at += line.len();
    }
    None
}

/// Parses the partials of one form. Those that are broken, include each other or grow too much are told and left
/// out.
fn compile_partials(
    files: &mut Files,
    problems: &mut Vec<TemplateProblem>,
) -> BTreeMap<String, (Parsed, String)> {
    let mut parsed = BTreeMap::new();
    let mut includes: BTreeMap<String, Vec<(String, usize)>> = BTreeMap::new();
    for (name, source) in &files.partials {
        match engine::parse_named(&source.file.to_string_lossy(), &source.text) {
            Err(fault) => problems.push(source.problem(fault)),
            Ok(template) => {
                let walked = variables::walk(&template, &source.text, &|_| None);
                problems.extend(walked.faults.into_iter().map(|found| source.problem(found.fault)));
                if let Some((second, _)) = source.text.match_indices("@partial-block").nth(1) {
                    problems.push(
                        source.problem(
                            Fault::new(second, "a partial can show its block once only")
                                .hint("put what differs around one `{{> @partial-block}}`"),
                        ),
                    );
                }
                includes.insert(name.clone(), walked.partials);
                parsed.insert(name.clone(), (template, source.text.clone()));
            }
        }
    }
    let mut weights = BTreeMap::new();
    let names: Vec<String> = parsed.keys().cloned().collect();
    for name in &names {
        let mut trail = Vec::new();
        if let Some((includer, offset)) = cycle(name, &includes, &mut trail, &mut weights, files) {
            let ring = trail.join("` includes `");
            if let Some(source) = files.partials.get(&includer) {
                problems.push(
                    source.problem(
                        Fault::new(
                            offset,
                            format!("partials include each other without end: `{ring}`"),
                        )
                        .hint("take one of these out"),
                    ),
                );
            }
            parsed.remove(name);
        } else if weights.get(name).is_some_and(|weight| *weight > MAX_OUTPUT) {
            if let Some(source) = files.partials.get(name) {
                problems.push(source.problem(Fault::new(0, "the partials it includes grow beyond 10 MB")));
            }
            parsed.remove(name);
        }
    }
    parsed
}

/// Looks for a way from `name` back to itself; the trail then names it. Else weighs it.
fn cycle(
    name: &str,
    includes: &BTreeMap<String, Vec<(String, usize)>>,
    trail: &mut Vec<String>,
    weights: &mut BTreeMap<String, usize>,
    files: &Files,
) -> Option<(String, usize)> {
    if weights.contains_key(name) {
        return None;
    }
    trail.push(name.to_owned());
    for (inner, offset) in includes.get(name).into_iter().flatten() {
        if let Some(start) = trail.iter().position(|step| step == inner) {
            trail.drain(..start);
            trail.push(inner.clone());
            return Some((name.to_owned(), *offset));
        }
        if let Some(found) = cycle(inner, includes, trail, weights, files) {
            return Some(found);
        }
    }
    trail.pop();
    let own = files.partials.get(name).map_or("", |source| source.text.as_str());
    let weight = variables::weight(own, includes.get(name).map_or(&[], Vec::as_slice), weights);
    weights.insert(name.to_owned(), weight);
    None
}

/// Parses one file of a mail into it.
fn compile_mail(
    mail: &mut Mail,
    form: Form,
    source: &Source,
    partial_files: &BTreeMap<String, Source>,
    partials: &BTreeMap<String, (Parsed, String)>,
    problems: &mut Vec<TemplateProblem>,
) {
    front(mail, source, problems);
    let template = match engine::parse_named(&source.file.to_string_lossy(), source.body()) {
        Ok(template) => template,
        Err(fault) => return problems.push(source.body_problem(fault)),
    };
    let find = |name: &str| {
        partials
            .get(name)
            .map(|(template, text)| (template, text.as_str()))
    };
    let alone = variables::walk(&template, source.body(), &|_| None);
    problems.extend(
        alone
            .faults
            .into_iter()
            .map(|found| source.body_problem(found.fault)),
    );
    for (name, offset) in &alone.partials {
        if !partial_files.contains_key(name) {
            let fault = Fault::new(*offset, format!("there is no partial `{name}`"));
            let suffix = if form == Form::Html { "html" } else { "txt" };
            problems.push(source.body_problem(
                match suggest::nearest(name, partial_files.keys().map(String::as_str)) {
                    Some(near) => fault.hint(format!("did you mean `{near}`?")),
                    None => fault.hint(format!("it would be templates/partials/{name}.{suffix}.hbs")),
                },
            ));
        }
    }
    let walked = variables::walk(&template, source.body(), &find);
    for Found { variable, partial } in walked.uses {
        let (file, offset) = match partial.as_ref().and_then(|name| partial_files.get(name)) {
            Some(file) => (file, variable.offset),
            None => (source, variable.offset + source.body),
        };
        if variable.path[0] != "mail" {
            mail.uses
                .push(file.usage(offset, variable.path, variable.guarded));
            continue;
        }
        let known = variable
            .path
            .get(1)
            .is_none_or(|name| MAIL.contains(&name.as_str()));
        if !known {
            let fault = Fault::new(offset, format!("there is no `{}`", variable.path.join(".")));
            problems.push(file.problem(fault.hint(format!("below `mail` are: {}", MAIL.join(" ")))));
        }
        mail.shows_omitted |= variable.path.get(1).is_some_and(|name| name == "omitted");
    }
    let part = Part {
        template,
        above: source.text[..source.body].matches('\n').count(),
    };
    match form {
        Form::Html => mail.html = Some(part),
        Form::Text => mail.text = Some(part),
    }
}

/// Reads the front matter of one file of a mail into it.
fn front(mail: &mut Mail, source: &Source, problems: &mut Vec<TemplateProblem>) {
    let Some((start, end, _)) = front_end(&source.text) else {
        if source.text.starts_with("---\n") || source.text.starts_with("---\r\n") {
            problems.push(
                source.problem(
                    Fault::new(0, "the front matter is not closed").hint("end it with a line `---`"),
                ),
            );
        }
        return;
    };
    let yaml = &source.text[start..end];
    let front: Front = match serde_saphyr::from_str::<Option<Front>>(yaml) {
        Ok(front) => front.unwrap_or_default(),
        Err(error) => {
            let offset = error.location().map_or(0, |place| {
                let number = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
                engine::offset_of(yaml, number(place.line()), number(place.column()))
            });
            let message = error.without_snippet().to_string();
            // It counts lines from the front matter's start; the place is told from the file's.
            let message = message
                .rsplit_once(" at line ")
                .map_or(message.as_str(), |(what, _)| what);
            problems.push(
                source.problem(
                    Fault::new(
                        start + offset,
                        format!("the front matter cannot be read: {message}"),
                    )
                    .hint("it may hold `subject:`, `preheader:` and `headers:` with a text each"),
                ),
            );
            return;
        }
    };
    let file = source.file.to_string_lossy().into_owned();
    let mut piece = |key: &str, value: String| {
        // YAML may have unquoted and joined the value, so its parts are looked for where the key stands.
        let key_at = start + yaml.find(&format!("{key}:")).unwrap_or(0);
        let find = |needle: &str| {
            source.text[key_at..end]
                .find(needle)
                .map_or(key_at, |at| key_at + at)
        };
        match Text::compile(&value) {
            Ok(text) => {
                for used in text.variables() {
                    let offset = find(&used.path.join("."));
                    if used.path[0] == "mail" {
                        problems.push(
                            source.problem(Fault::new(offset, "`mail` is not known in the front matter")),
                        );
                    } else {
                        mail.uses.push(source.usage(offset, used.path, used.guarded));
                    }
                }
                Some(Piece {
                    text,
                    file: file.clone(),
                    line: place_of(&source.text, key_at).0,
                })
            }
            Err(error) => {
                let from: String = value[error.offset..].chars().take(12).collect();
                let fault = Fault {
                    offset: find(&from),
                    message: error.message,
                    hint: error.hint,
                };
                problems.push(source.problem(fault));
                None
            }
        }
    };
    let subject = front.subject.and_then(|subject| piece("subject", subject));
    let preheader = front
        .preheader
        .and_then(|preheader| piece("preheader", preheader));
    let headers: Vec<(String, Piece)> = front
        .headers
        .into_iter()
        .filter_map(|(name, value)| piece(&name, value).map(|value| (name, value)))
        .collect();
    for (name, value) in &headers {
        if let Err(why) = crate::mail::header::own_header(name) {
            problems.push(TemplateProblem {
                line: value.line,
                ..source.problem(Fault::new(start, why.to_string()))
            });
        }
    }
    if let (Some(one), Some(other)) = (&subject, &mail.subject)
        && one.text != other.text
    {
        problems.push(TemplateProblem {
            line: one.line,
            ..source.problem(
                Fault::new(start, format!("{} has another subject", other.file))
                    .hint("say the subject in one of the two files"),
            )
        });
    }
    mail.subject = mail.subject.take().or(subject);
    mail.preheader = mail.preheader.take().or(preheader);
    for header in headers {
        if !mail
            .headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case(&header.0))
        {
            mail.headers.push(header);
        }
    }
}
