//! What was loaded, and how one mail is rendered from it.

use crate::mail::header::{MAX_VALUE, one_line};
use crate::template::engine::{self, Parsed};
use crate::template::{MAX_SUBJECT, RenderError, RenderOptions, Rendered, Text, Use, helpers, html};
use handlebars::Handlebars;
use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// All templates of a setup.
#[derive(Debug)]
pub struct Set {
    /// Mails by name.
    pub mails: BTreeMap<String, Mail>,
    /// Escapes; knows the partials of pages.
    pub html: Handlebars<'static>,
    /// Does not; knows the partials of texts.
    pub text: Handlebars<'static>,
}

/// The template of one mail.
#[derive(Debug, Default)]
pub struct Mail {
    /// From the front matter.
    pub subject: Option<Piece>,
    /// From the front matter: what a list of mails shows behind the subject.
    pub preheader: Option<Piece>,
    /// From the front matter.
    pub headers: Vec<(String, Piece)>,
    /// The page.
    pub html: Option<Part>,
    /// The text.
    pub text: Option<Part>,
    /// Facts used, in all of it.
    pub uses: Vec<Use>,
    /// It says itself what was too big to attach.
    pub shows_omitted: bool,
}

/// A page or a text.
#[derive(Debug)]
pub struct Part {
    /// What stands below the front matter.
    pub template: Parsed,
    /// Lines above it in its file.
    pub above: usize,
}

impl Part {
    fn render(
        &self,
        data: &Value,
        registry: &Handlebars<'_>,
        zone: &TimeZone,
    ) -> Result<String, RenderError> {
        engine::render(&self.template, data, registry, zone).map_err(|mut error| {
            if error.line > 0 && self.template.name.as_deref() == Some(&error.template) {
                error.line += self.above;
            }
            error
        })
    }
}

/// One line of front matter.
#[derive(Debug)]
pub struct Piece {
    /// The value.
    pub text: Text,
    /// Its file.
    pub file: String,
    /// Its line there.
    pub line: usize,
}

impl Piece {
    fn render(&self, facts: &Value) -> Result<String, RenderError> {
        self.text.render(facts).map_err(|error| RenderError {
            template: self.file.clone(),
            line: self.line,
            column: error.column.max(1),
            ..error
        })
    }
}

/// Whether a subject says itself which reminder or rung it is.
pub fn counts(subject: &Text) -> bool {
    subject.variables().iter().any(|variable| {
        let path: Vec<&str> = variable.path.iter().map(String::as_str).collect();
        matches!(path[..], ["case", "reminder" | "escalation"])
    })
}

/// Names below `mail` that a template may use.
pub const MAIL: [&str; 5] = ["subject", "preheader", "attachments", "omitted", "signature"];

impl Set {
    /// Renders the mail `name`.
    pub fn render(
        &self,
        name: &str,
        facts: &Value,
        options: &RenderOptions<'_>,
    ) -> Result<Rendered, RenderError> {
        let mail = self.mail(name)?;
        let own_zone;
        let zone = match options.zone {
            Some(zone) => zone,
            None => {
                own_zone = engine::zone_of(facts);
                &own_zone
            }
        };
        let subject = match (options.subject, &mail.subject) {
            (Some(subject), _) => subject.to_owned(),
            (None, Some(subject)) if counts(&subject.text) => subject.render(facts)?,
            (None, own) => {
                let own = match own {
                    Some(subject) => subject.render(facts)?,
                    None => facts["rule"]["name"].as_str().unwrap_or(name).to_owned(),
                };
                format!("{}{own}", options.mark.unwrap_or_default())
            }
        };
        let subject = one_line(&subject, MAX_SUBJECT);
        let preheader = match &mail.preheader {
            Some(preheader) => one_line(&preheader.render(facts)?, MAX_SUBJECT),
            None => String::new(),
        };
        let headers = mail
            .headers
            .iter()
            .map(|(name, value)| Ok((name.clone(), one_line(&value.render(facts)?, MAX_VALUE))))
            .collect::<Result<Vec<_>, RenderError>>()?;

        let mut data: Map<String, Value> = facts.as_object().cloned().unwrap_or_default();
        data.insert(
            "mail".to_owned(),
            json!({
                "subject": subject,
                "preheader": preheader,
                "attachments": options.attachments,
                "omitted": options.omitted,
                "signature": "",
            }),
        );
        let mut data = Value::Object(data);

        let fail = |what: &str, why: String| RenderError {
            template: name.to_owned(),
            line: 0,
            column: 0,
            message: format!("{what}: {why}"),
        };
        let page = match &mail.html {
            None => None,
            Some(page) => {
                data["mail"]["signature"] = self.signature(options, facts, zone, true)?.into();
                let mut page = page.render(&data, &self.html, zone)?;
                if !mail.shows_omitted && !options.omitted.is_empty() {
                    append(&mut page, &omitted_html(options));
                }
                let page = html::inline(&page).map_err(|why| fail("its styles cannot be used", why))?;
                Some(page)
            }
        };
        let text = match (&mail.text, &page) {
            (Some(text), _) => {
                data["mail"]["signature"] = self.signature(options, facts, zone, false)?.into();
                let mut text = text.render(&data, &self.text, zone)?;
                if !mail.shows_omitted && !options.omitted.is_empty() {
                    text.push_str(&omitted_text(options));
                }
                html::tidy(&text)
            }
            (None, Some(page)) => {
                html::text(page).map_err(|why| fail("the text part cannot be made from the page", why))?
            }
            (None, None) => String::new(),
        };
        Ok(Rendered {
            subject,
            text,
            html: page,
            headers,
        })
    }

    fn mail(&self, name: &str) -> Result<&Mail, RenderError> {
        self.mails.get(name).ok_or_else(|| RenderError {
            template: String::new(),
            line: 0,
            column: 0,
            message: format!("there is no template `{name}`"),
        })
    }

    /// The signature as HTML or text, made from the other where only that was written.
    fn signature(
        &self,
        options: &RenderOptions<'_>,
        facts: &Value,
        zone: &TimeZone,
        page: bool,
    ) -> Result<String, RenderError> {
        let Some(name) = options.signature else {
            return Ok(String::new());
        };
        let mail = self.mail(name)?;
        let render =
            |part: &Part, page: bool| part.render(facts, if page { &self.html } else { &self.text }, zone);
        match (page, &mail.html, &mail.text) {
            (true, Some(part), _) => render(part, true),
            (true, None, Some(part)) => {
                Ok(handlebars::html_escape(render(part, false)?.trim_end()).replace('\n', "<br>\n"))
            }
            (false, _, Some(part)) => Ok(render(part, false)?.trim_end().to_owned()),
            (false, Some(part), None) => {
                let text = html::text(&render(part, true)?).map_err(|message| RenderError {
                    template: name.to_owned(),
                    line: 0,
                    column: 0,
                    message,
                })?;
                Ok(text.trim_end().to_owned())
            }
            (_, None, None) => Ok(String::new()),
        }
    }
}

/// Puts a part at the end of the page's body.
fn append(page: &mut String, part: &str) {
    let at = page.to_ascii_lowercase().rfind("</body").unwrap_or(page.len());
    page.insert_str(at, part);
}

#[allow(clippy::cast_precision_loss)] // shown with one digit
fn omitted_lines(options: &RenderOptions<'_>) -> impl Iterator<Item = String> {
    options.omitted.iter().map(|file| {
        let size = match file.size {
            0 => String::new(),
            size => format!(" ({})", helpers::bytes(size as f64)),
        };
        let place = match file.path.as_str() {
            "" => String::new(),
            path => format!(". It lies at {path}"),
        };
        format!("{}{size}: {}{place}", file.name, file.why)
    })
}

fn omitted_text(options: &RenderOptions<'_>) -> String {
    let mut out = String::from("\n\nNot attached:\n");
    for line in omitted_lines(options) {
        out.push_str("- ");
        out.push_str(&line);
        out.push('\n');
    }
    out
}

fn omitted_html(options: &RenderOptions<'_>) -> String {
    let mut out = String::from("<p><strong>Not attached:</strong></p><ul>");
    for line in omitted_lines(options) {
        out.push_str("<li style=\"word-break:break-word\">");
        out.push_str(&handlebars::html_escape(&line));
        out.push_str("</li>");
    }
    out.push_str("</ul>");
    out
}
