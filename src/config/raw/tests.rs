//! `rules/*.test.yaml`, as written.

use crate::config::raw::{Many, Size, Template, Time};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Tests of rules: what happens, and what must follow.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "rules/*.test.yaml")]
pub struct Tests {
    /// The tests, by name. A name is unique in the whole setup.
    pub tests: BTreeMap<String, Test>,
}

/// A test.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Test {
    /// For people.
    pub description: Option<String>,
    /// When it begins: 2026-03-02 06:00 in the zone of the settings, or with an offset at its end.
    pub start: String,
    /// What lies there already.
    pub setup: Option<Given>,
    /// How commands of rules end, by rule: one after the other, the last for ever. Default: well, at once.
    pub jobs: Option<BTreeMap<String, Many<JobEnd>>>,
    /// What happens, in order.
    pub happens: Option<Vec<Happening>>,
    /// When it ends. Default: an hour after the last thing that is said.
    pub until: Option<String>,
    /// What must follow, in order.
    pub expect: Vec<Expectation>,
    /// Whether mails that nobody expects are a failure. Default: they are.
    pub other_mails: Option<OtherMails>,
}

/// What lies there when a test begins.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Given {
    /// Files. The folders that rules watch are there in any case.
    pub files: Option<Many<File>>,
}

/// What to do about mails that nobody expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OtherMails {
    /// Nothing: this test is about something else.
    Allowed,
    /// The test has failed.
    Refused,
}

/// A file.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Where: absolute, or below the setup folder. `{{now}}` is filled in.
    pub path: Template,
    /// How big. What `content` does not fill is zeros. Default: as big as `content`.
    pub size: Option<Size>,
    /// What is in it. `{{now}}` is filled in.
    pub content: Option<Template>,
    /// How long ago it was last changed. Default: now.
    pub age: Option<Time>,
}

/// How a job ends.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JobEnd {
    /// Its exit code. Default: 0.
    #[schemars(range(min = 0, max = 255))]
    pub exit: Option<i32>,
    /// The signal that ends it, as SIGKILL.
    pub signal: Option<String>,
    /// What it says.
    pub output: Option<String>,
    /// How long it takes. Default: no time.
    pub duration: Option<Time>,
}

/// Something that happens: one of the words below `every`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Happening {
    /// When: 06:40 on the running day, +10m after what was before, tomorrow 06:40, tue 09:00, 2026-03-05 09:00.
    /// Default: together with what was before.
    pub at: Option<String>,
    /// How often in all. Default: once.
    #[schemars(range(min = 1, max = 100_000))]
    pub times: Option<u32>,
    /// Time from one to the next, where `times` says more than one. A day is a calendar day. Default: 1d.
    pub every: Option<Time>,
    /// Files come, or are replaced.
    pub file: Option<Many<File>>,
    /// Files or folders are taken away.
    pub removes: Option<Many<Template>>,
    /// A job elsewhere reports; for a rule with `run`, its command ends like this from now on.
    pub job: Option<Job>,
    /// Somebody emits an event.
    pub event: Option<EmittedEvent>,
    /// A mail server answers differently from now on.
    pub server: Option<Server>,
    /// A person pauses a rule.
    pub pause: Option<Paused>,
    /// A person lets a paused rule go on.
    pub resume: Option<Resumed>,
    /// tidings is stopped and started again.
    pub restart: Option<bool>,
    /// The setup is read again.
    pub reload: Option<bool>,
}

/// A rule that a person pauses.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Paused {
    /// Which rule.
    pub rule: String,
    /// For how long. Default: until it is resumed.
    #[serde(rename = "for")]
    pub lasts: Option<Time>,
}

/// A rule that goes on.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Resumed {
    /// Which rule.
    pub rule: String,
    /// Whether what happened meanwhile is dropped. Default: it is told.
    pub drop: Option<bool>,
}

/// A job and how it ends.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Its name.
    pub name: String,
    /// It begins now, as with `tidings exec`; how it ends is a happening of its own.
    pub starts: Option<bool>,
    /// Its exit code. Default: 0.
    #[schemars(range(min = 0, max = 255))]
    pub exit: Option<i32>,
    /// The signal that ends it, as SIGKILL.
    pub signal: Option<String>,
    /// What it says.
    pub output: Option<String>,
    /// How long it took. Default: no time.
    pub duration: Option<Time>,
}

/// An event of others.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EmittedEvent {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Who says it: a URI reference. Default: //test.example.
    pub source: Option<String>,
    /// Unique for its source: one that came before is no event. Default: one of its own each time.
    pub id: Option<String>,
    /// What it happened to.
    pub subject: Option<String>,
    /// What it says.
    pub data: Option<serde_json::Map<String, serde_json::Value>>,
}

/// How the server of an account answers from now on: one of `refuses`, `accepts`, `away`, `silent`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Which account's.
    pub account: String,
    /// It refuses, in these words: "550 5.7.60 SMTP; Client does not have permissions to send as this sender".
    pub refuses: Option<String>,
    /// At which step it refuses. Default: rcpt where `to` is given, else data.
    pub step: Option<Step>,
    /// It refuses these recipients alone.
    pub to: Option<Many<String>>,
    /// It accepts again.
    pub accepts: Option<bool>,
    /// Nobody answers.
    pub away: Option<bool>,
    /// It takes the message, and no answer comes.
    pub silent: Option<bool>,
    /// How often; then it accepts again. Default: until something else is said.
    #[schemars(range(min = 1))]
    pub times: Option<u32>,
}

/// A step of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the words say it")]
pub enum Step {
    Connect,
    Auth,
    Mail,
    Rcpt,
    Data,
}

/// Something that must follow: one of `mail`, `held`, `case`, `ran`, `file`, `nothing`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Expectation {
    /// When, as exact as it is written: 07:10 is that minute, 07:10:30 that second. As in `happens`, but counted from
    /// the expectation before. Default: at any time from then on.
    pub at: Option<String>,
    /// Or between these two times.
    #[schemars(length(min = 2, max = 2))]
    pub within: Option<Vec<String>>,
    /// How often. Default: once.
    #[schemars(range(min = 1, max = 100_000))]
    pub times: Option<u32>,
    /// A mail is accepted by its server.
    pub mail: Option<ExpectedMail>,
    /// A mail, or work, waits for a person: it is held, has failed, or nobody knows whether it went out.
    pub held: Option<ExpectedHeld>,
    /// A case is opened or closed: an absence or a trouble.
    pub case: Option<ExpectedCase>,
    /// A rule's command is run.
    pub ran: Option<ExpectedRun>,
    /// A file is there then, or is not.
    pub file: Option<ExpectedFile>,
    /// Nothing follows: no mail and no case, but for those that are expected.
    pub nothing: Option<bool>,
}

/// A mail that must come. `*` in a pattern stands for anything.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpectedMail {
    /// The rule that sends it.
    pub rule: Option<String>,
    /// The account it leaves by.
    pub account: Option<String>,
    /// From: its address.
    pub from: Option<String>,
    /// To: exactly these addresses and groups.
    pub to: Option<Many<String>>,
    /// Cc: exactly these addresses and groups.
    pub cc: Option<Many<String>>,
    /// Bcc: exactly these addresses and groups.
    pub bcc: Option<Many<String>>,
    /// Reply-To: its address.
    pub reply_to: Option<String>,
    /// The subject, or a pattern for it.
    pub subject: Option<String>,
    /// Texts that are in it. Line ends and spaces are all the same.
    pub body: Option<Many<String>>,
    /// Texts that are not in it.
    pub body_lacks: Option<Many<String>>,
    /// The names of all that is attached, or patterns for them; [] for nothing.
    pub attachments: Option<Vec<String>>,
    /// Header fields, as X-Priority, and their values or patterns for them.
    pub headers: Option<BTreeMap<String, String>>,
}

/// What must wait for a person.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpectedHeld {
    /// The rule that asked for it.
    pub rule: Option<String>,
    /// Why, or a pattern for it.
    pub reason: Option<String>,
}

/// A case that must be opened or closed.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpectedCase {
    /// It is opened: file_missing, folder_backlog, job_missing, job_runs_long, or the trouble of an account, mail,
    /// watch, rule, store.
    pub opened: Option<String>,
    /// It is closed: of the same words.
    pub closed: Option<String>,
    /// The rule it belongs to.
    pub rule: Option<String>,
    /// What it is about, or a pattern for it.
    pub about: Option<String>,
}

/// A command that must run.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpectedRun {
    /// The rule that runs it.
    pub rule: Option<String>,
    /// The command in one line, or a pattern for it.
    pub command: Option<String>,
}

/// A file that must be there, or must not.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpectedFile {
    /// Where: absolute, or below the setup folder.
    pub path: String,
    /// Whether it is there. Default: true.
    pub exists: Option<bool>,
}
