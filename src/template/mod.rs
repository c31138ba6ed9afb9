//! Templates: handlebars, strict, rendered in this process within limits.
//!
//! A mail's template is `NAME.html.hbs`, `NAME.txt.hbs` or both, with front matter for subject and headers; what
//! is shipped is used unless the setup has a file of the same name. A [`Text`] is a template of one line, written
//! in a setting.
//!
//! ```text
//!   load: read -> guard (size, nesting) -> parse -> walk (helpers, partials, variables)     once, at start
//!   render: facts + `mail` -> text, page -> styles into attributes -> text part if none was written
//! ```
//!
//! What is refused at load, since it would end the process or never end: partials that include each other,
//! partials whose name is computed, deep nesting, more expansion than the output may hold. What is bounded while
//! rendering: turns of loops and bytes of output ([`MAX_TURNS`], [`MAX_OUTPUT`]). HTML is escaped in `.html.hbs`
//! files only; a subject, a header and a [`Text`] are plain text.
//!
//! | file | holds |
//! |---|---|
//! | [`engine`] | the one place that knows handlebars: guard, parse, render within limits |
//! | `budget` | what one rendering may still do |
//! | [`helpers`] | `bytes date duration truncate lines default plural json link` |
//! | [`variables`] | which facts a template uses, and where |
//! | [`load`] | files to [`Templates`], all problems at once |
//! | [`set`] | what was loaded, and how one mail is rendered |
//! | [`html`] | styles into attributes, a page as text |

mod budget;
pub mod engine;
pub mod helpers;
pub mod html;
pub mod load;
pub mod set;
pub mod variables;

use jiff::tz::TimeZone;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Longest result of one rendering, bytes.
pub const MAX_OUTPUT: usize = 10_000_000;
/// Most turns of all loops of one rendering together.
pub const MAX_TURNS: u64 = 100_000;
/// Longest subject and preheader, characters.
pub const MAX_SUBJECT: usize = 250;

/// A short template in a setting (`to`, `subject`, `attach`, `command`, `move`), compiled. Cheap to clone.
#[derive(Clone)]
pub struct Text(Arc<Compiled>);

struct Compiled {
    source: String,
    /// `None`: nothing in it is a template, it is its own result.
    template: Option<engine::Parsed>,
    literal: String,
    variables: Vec<Variable>,
}

/// Why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TextError {
    /// Where in the text, bytes from its start.
    pub offset: usize,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

/// A fact that a text or a template says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// `file.name` as `["file", "name"]`.
    pub path: Vec<String>,
    /// Where it stands, bytes from the start of the source.
    pub offset: usize,
    /// It may be absent: it is what an `if`, `unless` or `default` asks about, or stands inside a block that asked
    /// for it or for what it belongs to. Such a fact need not be brought by every trigger, but by some.
    pub guarded: bool,
}

/// Why a template gave nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", place(.template, *.line, *.column))]
pub struct RenderError {
    /// The template's file or name; empty for a [`Text`].
    pub template: String,
    /// Line, from 1; 0 where it is not known.
    pub line: usize,
    /// Column, from 1; 0 where it is not known.
    pub column: usize,
    /// What is wrong.
    pub message: String,
}

fn place(template: &str, line: usize, column: usize) -> String {
    match (template.is_empty(), line) {
        (true, _) => String::new(),
        (false, 0) => format!("template {template}: "),
        (false, _) => format!("template {template}, line {line}, column {column}: "),
    }
}

impl Text {
    /// Parses a text. Partials and decorators are refused, and so are helpers nobody knows.
    pub fn compile(source: &str) -> Result<Text, TextError> {
        let fault = |fault: engine::Fault| TextError {
            offset: fault.offset.min(source.len()),
            message: fault.message,
            hint: fault.hint,
        };
        if !source.contains("{{") {
            return Ok(Text(Arc::new(Compiled {
                source: source.to_owned(),
                template: None,
                literal: source.to_owned(),
                variables: Vec::new(),
            })));
        }
        let template = engine::parse(source).map_err(fault)?;
        let walked = variables::walk(&template, source, &|_| None);
        if let Some(first) = walked.faults.into_iter().next() {
            return Err(fault(first.fault));
        }
        if let Some((name, offset)) = walked.partials.into_iter().next() {
            return Err(fault(engine::Fault::new(
                offset,
                format!("the partial `{name}` cannot be used in a setting"),
            )));
        }
        Ok(Text(Arc::new(Compiled {
            source: source.to_owned(),
            template: Some(template),
            literal: String::new(),
            variables: walked.uses.into_iter().map(|used| used.variable).collect(),
        })))
    }

    /// The text with the facts filled in; nothing is escaped. Times are shown in the zone of the fact `now`.
    pub fn render(&self, facts: &Value) -> Result<String, RenderError> {
        match &self.0.template {
            None => Ok(self.0.literal.clone()),
            Some(template) => engine::render(template, facts, engine::plain(), &engine::zone_of(facts)),
        }
    }

    /// The facts it uses.
    pub fn variables(&self) -> Vec<Variable> {
        self.0.variables.clone()
    }

    /// The text itself, where nothing in it is a template.
    pub fn literal(&self) -> Option<&str> {
        self.0.template.is_none().then_some(self.0.literal.as_str())
    }

    /// Whether it says itself which reminder or rung of a ladder it is.
    pub fn counts(&self) -> bool {
        set::counts(self)
    }

    /// As it was written.
    pub fn source(&self) -> &str {
        &self.0.source
    }
}

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Text").field(&self.0.source).finish()
    }
}
impl PartialEq for Text {
    fn eq(&self, other: &Text) -> bool {
        self.0.source == other.0.source
    }
}
impl Eq for Text {}

/// All templates of a setup, and those that are shipped. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Templates {
    set: Arc<set::Set>,
}

/// Something wrong in a template file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateProblem {
    /// The file, as found below the setup folder.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1, counted in characters.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
    /// The line it stands in.
    pub source_line: String,
}

/// A fact that a template says, with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// The file; for a partial the partial's.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1, counted in characters.
    pub column: usize,
    /// `file.name` as `["file", "name"]`.
    pub path: Vec<String>,
    /// As [`Variable::guarded`].
    pub guarded: bool,
    /// The line it stands in.
    pub source_line: String,
}

/// What a template is rendered with besides the facts. Templates see it as `mail`.
#[derive(Clone, Debug, Default)]
pub struct RenderOptions<'a> {
    /// Name of the template that the layout appends; an account's signature.
    pub signature: Option<&'a str>,
    /// Instead of the template's own subject, rendered already.
    pub subject: Option<&'a str>,
    /// Put before the template's own subject, unless that says the fact `case.reminder` or `case.escalation` itself.
    pub mark: Option<&'a str>,
    /// What is attached.
    pub attachments: &'a [Attached],
    /// What was too big to attach.
    pub omitted: &'a [Omitted],
    /// Zone that times are shown in; the zone of the fact `now` unless given.
    pub zone: Option<&'a TimeZone>,
}

/// An attachment, as a template sees it in `mail.attachments`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Attached {
    /// Its name, safe to show.
    pub name: String,
    /// Bytes, before encoding.
    pub size: u64,
    /// Its media type.
    pub content_type: String,
}

/// What was left out, as a template sees it in `mail.omitted`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Omitted {
    /// Its name, safe to show.
    pub name: String,
    /// Bytes; 0 where there is no file.
    pub size: u64,
    /// Where it lies; empty where there is no file.
    pub path: String,
    /// Why, in a sentence.
    pub why: String,
}

/// A rendered mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// One line, without control characters, at most [`MAX_SUBJECT`] characters.
    pub subject: String,
    /// The text part; made from the page where only that was written.
    pub text: String,
    /// The page, styles in its attributes.
    pub html: Option<String>,
    /// Header fields of the front matter, values rendered, one line each.
    pub headers: Vec<(String, String)>,
}

impl Templates {
    /// What is shipped, and what lies in `dir` (the setup's `templates/`), which may be missing. All problems of
    /// all files at once.
    pub fn load(dir: Option<&Path>) -> Result<Templates, Vec<TemplateProblem>> {
        load::load(dir).map(|set| Templates { set: Arc::new(set) })
    }

    /// What is shipped.
    pub fn shipped() -> Templates {
        Templates {
            set: Arc::new(load::shipped()),
        }
    }

    /// Whether there is a template of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.set.mails.contains_key(name)
    }

    /// Names of all templates, sorted.
    pub fn names(&self) -> Vec<&str> {
        self.set.mails.keys().map(String::as_str).collect()
    }

    /// Whether the template brings a subject; else the mail must have one of its own (or gets the rule's name).
    pub fn has_subject(&self, name: &str) -> bool {
        self.set
            .mails
            .get(name)
            .is_some_and(|mail| mail.subject.is_some())
    }

    /// The facts a template uses, partials included; not what it is given besides the facts (`mail`).
    pub fn variables(&self, name: &str) -> Vec<Use> {
        self.set
            .mails
            .get(name)
            .map(|mail| mail.uses.clone())
            .unwrap_or_default()
    }

    /// Renders a mail.
    pub fn render(
        &self,
        name: &str,
        facts: &Value,
        options: RenderOptions<'_>,
    ) -> Result<Rendered, RenderError> {
        self.set.render(name, facts, &options)
    }
}
