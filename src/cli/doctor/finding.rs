//! What a step of the doctor found, and how it is told. Pure.

use crate::advice::{Advice, Class, Symptom};
use crate::cli::show::clean;
use crate::cli::{Exit, outbox};
use crate::entry::Reason;
use crate::oauth::token::TokenError;
use serde_json::{Value, json};

/// A step, in the order in which a mail goes through them; those of this machine come last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "each says its name")]
pub enum Step {
    Settings,
    Folder,
    Dns,
    Route,
    Tcp,
    Greeting,
    Tls,
    Certificate,
    Ehlo,
    Clock,
    SignIn,
    Grant,
    Person,
    Token,
    Scopes,
    Audience,
    Auth,
    MailFrom,
    Message,
    Rights,
    Store,
    Space,
    Watches,
    Database,
}

impl Step {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Step::Settings => "settings",
            Step::Folder => "folder",
            Step::Dns => "dns",
            Step::Route => "route",
            Step::Tcp => "tcp",
            Step::Greeting => "greeting",
            Step::Tls => "tls",
            Step::Certificate => "certificate",
            Step::Ehlo => "ehlo",
            Step::Clock => "clock",
            Step::SignIn => "sign-in",
            Step::Grant => "grant",
            Step::Person => "person",
            Step::Token => "token",
            Step::Scopes => "scopes",
            Step::Audience => "audience",
            Step::Auth => "auth",
            Step::MailFrom => "mail from",
            Step::Message => "message",
            Step::Rights => "rights",
            Step::Store => "store",
            Step::Space => "space",
            Step::Watches => "watches",
            Step::Database => "database",
        }
    }
}

/// How a step went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// As it should.
    Ok,
    /// It works; somebody should know all the same.
    Warning,
    /// It does not work.
    Failed,
    /// It could not be tried.
    NotTried,
}

impl Standing {
    fn mark(self) -> &'static str {
        match self {
            Standing::Ok => "ok",
            Standing::Warning => "warn",
            Standing::Failed => "FAILED",
            Standing::NotTried => "-",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Standing::Ok => "ok",
            Standing::Warning => "warning",
            Standing::Failed => "failed",
            Standing::NotTried => "not tried",
        }
    }
}

/// What one step found.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// Which step.
    pub step: Step,
    /// How it went.
    pub standing: Standing,
    /// One sentence: what was found.
    pub text: String,
    /// What mends it, and the server's own words.
    pub reason: Option<Reason>,
    /// What the whole command ends with, if this is what is to be mended first.
    pub exit: Exit,
}

impl Finding {
    fn new(step: Step, standing: Standing, text: impl Into<String>) -> Finding {
        Finding {
            step,
            standing,
            text: text.into(),
            reason: None,
            exit: Exit::Done,
        }
    }

    /// It went as it should.
    pub fn ok(step: Step, text: impl Into<String>) -> Finding {
        Finding::new(step, Standing::Ok, text)
    }

    /// It could not be tried.
    pub fn not_tried(step: Step, why: &str) -> Finding {
        Finding::new(step, Standing::NotTried, format!("not tried: {why}"))
    }

    /// It failed, for a reason that says what to do.
    pub fn failed(step: Step, reason: Reason, exit: Exit) -> Finding {
        Finding {
            exit,
            text: reason.text.clone(),
            reason: Some(reason),
            ..Finding::new(step, Standing::Failed, "")
        }
    }

    /// It works, but.
    pub fn warning(step: Step, reason: Reason) -> Finding {
        Finding {
            standing: Standing::Warning,
            ..Finding::failed(step, reason, Exit::Done)
        }
    }

    /// A refusal, with what the catalog has to say about it.
    pub fn refused(step: Step, symptom: &Symptom, advice: &Advice) -> Finding {
        let exit = match advice.class {
            Class::Retry | Class::Throttle => Exit::Unavailable,
            Class::Reauthorize | Class::FixPermission => Exit::Credential,
            Class::FixConfig => Exit::Config,
            Class::RejectRecipient | Class::RejectMessage => Exit::BadInput,
        };
        Finding::failed(step, advice.reason(symptom), exit)
    }

    /// No token.
    pub fn no_token(step: Step, error: TokenError) -> Finding {
        match error {
            TokenError::Transient { text, .. } => Finding::failed(step, Reason::new(text), Exit::Unavailable),
            TokenError::NeedsPerson(reason) => Finding::failed(step, reason, Exit::Credential),
            TokenError::NeedsConfig(reason) => Finding::failed(step, reason, Exit::Config),
        }
    }

    fn lines(&self) -> Vec<String> {
        let (mark, name) = (self.standing.mark(), self.step.name());
        let mut lines = vec![
            format!("  {mark:<6}  {name:<11}  {}", clean(&self.text))
                .trim_end()
                .to_owned(),
        ];
        if let Some(reason) = &self.reason {
            // Its own sentence stands there already.
            let rest = outbox::reason_lines(reason, "          ");
            lines.extend(rest.lines().skip(1).map(str::to_owned));
        }
        lines
    }

    fn to_json(&self) -> Value {
        json!({
            "step": self.step.name(), "standing": self.standing.word(), "text": self.text, "reason": self.reason,
        })
    }
}

/// All that was found about one account, or about this machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The account; `None`: this machine.
    pub account: Option<String>,
    /// Who signs in and where, in a few words.
    pub about: String,
    /// In the order of the steps.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Puts the findings into the order of the steps.
    pub fn new(account: Option<String>, about: String, mut findings: Vec<Finding>) -> Report {
        findings.sort_by_key(|finding| finding.step);
        Report {
            account,
            about,
            findings,
        }
    }

    /// What is to be mended first: what comes after it may only follow from it.
    pub fn cause(&self) -> Option<&Finding> {
        self.findings
            .iter()
            .find(|finding| finding.standing == Standing::Failed)
    }

    /// What the command ends with, for this one.
    pub fn exit(&self) -> Exit {
        self.cause().map_or(Exit::Done, |cause| cause.exit)
    }

    /// For people.
    pub fn shown(&self) -> String {
        let name = self.account.as_deref().unwrap_or("this machine");
        let mut lines = vec![match self.about.as_str() {
            "" => clean(name),
            about => format!("{}: {}", clean(name), clean(about)),
        }];
        lines.push(match self.cause() {
            Some(cause) => format!("  mend first: {} ({})", clean(&cause.text), cause.step.name()),
            None if self
                .findings
                .iter()
                .any(|finding| finding.standing == Standing::Warning) =>
            {
                "  works, with a warning".to_owned()
            }
            None => "  well".to_owned(),
        });
        lines.extend(self.findings.iter().flat_map(Finding::lines));
        lines.join("\n")
    }

    /// For machines.
    pub fn to_json(&self) -> Value {
        json!({
            "account": self.account,
            "about": self.about,
            "cause": self.cause().map(Finding::to_json),
            "findings": self.findings.iter().map(Finding::to_json).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_on_the_way_of_a_mail_is_the_cause() {
        let findings = vec![
            Finding::failed(Step::Auth, Reason::new("late"), Exit::Credential),
            Finding::ok(Step::Dns, "found"),
            Finding::failed(Step::Token, Reason::new("early"), Exit::Config),
            Finding::not_tried(Step::Message, "so \u{1b}[2J"),
        ];
        let report = Report::new(Some("office".into()), String::new(), findings);
        assert_eq!(report.cause().unwrap().text, "early");
        assert_eq!(report.exit(), Exit::Config);
        let shown = report.shown();
        assert!(
            !shown.contains('\u{1b}') && shown.contains("mend first: early (token)"),
            "{shown}"
        );
    }
}
