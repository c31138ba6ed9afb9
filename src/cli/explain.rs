//! `tidings explain`: why a mail was or was not sent, and what would be sent.
//!
//! One file a question. Each reads what it needs (store, setup, folder) into a value, makes a `story` of it,
//! which is pure, and has it shown by `page`.

mod event;
mod file;
mod found;
mod job;
mod mail;
mod page;
mod rule;
mod silence;
mod story;
mod suppose;
mod telling;
mod trigger;

use super::{Exit, Global, out, tell};
use crate::config::settings::Settings;
use crate::event::EventId;
use crate::rule::load::{self, Setup};
use crate::store::lock::Lock;
use crate::store::{Case, Store, StoreError};
use crate::suggest;
use event::Told;
use jiff::Timestamp;
use page::Look;
use std::collections::BTreeMap;
use std::path::PathBuf;
use story::{Story, Times};

/// Options of `tidings explain`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    about: About,
    /// As JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum About {
    /// A mail, or some work: from the event to the server's last word, and what comes next
    Mail {
        /// Its number, or its Message-ID
        id: String,
    },
    /// A file, here or gone: what became of it, or why nothing did, and what each rule makes of it
    File {
        /// Its path; it need not be there
        path: PathBuf,
    },
    /// A rule: what it is for, when it is next due, what it did last, what it holds back
    Rule {
        /// Its name
        name: String,
        /// And what would happen at this time: `2026-03-02 09:00`, `09:00`, RFC 3339
        #[arg(long)]
        at: Option<String>,
    },
    /// A job: what would follow if it ended so
    Job {
        /// Its name
        name: String,
        /// Its exit code
        #[arg(long, default_value_t = 1)]
        exit: i32,
        /// As if the run before had failed
        #[arg(long)]
        after_failure: bool,
    },
    /// An event: which rules saw it and what they made of it
    Event {
        /// Its number
        id: i64,
    },
}

/// What every answer may need.
#[derive(Debug)]
pub struct Sight {
    /// How times are said.
    pub times: Times,
    /// Whether somebody works here now.
    pub running: bool,
    /// Where each rule stands.
    pub places: BTreeMap<String, String>,
    /// Troubles and absences that are open.
    pub cases: Vec<Case>,
    /// `tidings.yaml`.
    pub settings: Settings,
}

/// Does it. Changes nothing.
pub async fn run(global: &Global, args: Args) -> Exit {
    let (settings, store) = match super::open(global).await {
        Ok(opened) => opened,
        Err(exit) => return exit,
    };
    let dir = global.setup();
    let setup = match tokio::task::spawn_blocking(move || load::load(&dir, load::Away::BadLuck)).await {
        Ok(setup) => setup,
        Err(error) => {
            tell(format_args!("error: {error}"));
            return Exit::Software;
        }
    };
    // What happened can be told whatever state the rules are in now.
    let past = matches!(args.about, About::Mail { .. } | About::Event { .. });
    let setup = match setup {
        Ok(setup) => Some(setup),
        Err(_) if past => None,
        Err(problems) => return super::run::failed(&crate::app::AppError::Setup(problems)),
    };
    match answer(settings, setup.as_ref(), &store, args.about).await {
        Ok(Ok(story)) if args.json => {
            out(format_args!("{:#}", story.to_json()));
            Exit::Done
        }
        Ok(Ok(story)) => {
            out(page::shown(&story, Look::of_stdout()));
            Exit::Done
        }
        Ok(Err(why)) => {
            tell(format_args!("error: {}", super::show::clean(&why)));
            Exit::BadInput
        }
        Err(error) => super::store_failed(&error),
    }
}

/// The answer, or why there is none.
async fn answer(
    settings: Settings,
    setup: Option<&Setup>,
    store: &Store,
    about: About,
) -> Result<Result<Story, String>, StoreError> {
    let sight = Sight {
        times: Times {
            zone: settings.defaults.timezone.clone(),
            now: Timestamp::now(),
        },
        running: Lock::holder(&settings.state).is_some(),
        places: setup
            .iter()
            .flat_map(|setup| &setup.rules)
            .map(|rule| (rule.name.clone(), rule.place.clone()))
            .collect(),
        cases: store.open_cases().await?,
        settings,
    };
    match (about, setup) {
        (About::Mail { id }, _) => match mail::find(store, &id).await?.as_slice() {
            [] => Ok(Err(format!(
                "no mail here has the Message-ID `{id}`; mails are kept for {} after they were accepted \
                 (`keep` of the outbox)",
                story::long(sight.settings.outbox.keep.try_into().unwrap_or_default())
            ))),
            [id, ..] => Ok(match mail::read(store, *id).await? {
                Some(sent) => Ok(mail::story(&sent, &sight)),
                None => Err(format!(
                    "there is no entry {id}; `tidings outbox list` shows those there are"
                )),
            }),
        },
        (About::Event { id }, _) => Ok(match told(store, EventId(id)).await? {
            Some(told) => Ok(event::story(&told, &sight)),
            None => Err(format!(
                "there is no event {id}; `tidings events list` shows those there are"
            )),
        }),
        (About::File { path }, Some(setup)) => {
            let found = file::read(setup, store, &path).await?;
            Ok(Ok(file::story(&found, &sight)))
        }
        (About::Rule { name, at }, Some(setup)) => {
            let at = match at.map(|text| story::moment(&text, &sight.times)).transpose() {
                Ok(at) => at,
                Err(why) => return Ok(Err(why)),
            };
            let Some(rule) = setup.rules.iter().find(|rule| rule.name == name) else {
                let names = setup.rules.iter().map(|rule| rule.name.as_str());
                return Ok(Err(unknown_rule(&name, names)));
            };
            let done = rule::read(rule, setup, store, at, &sight).await?;
            Ok(Ok(rule::story(rule, &done, &sight)))
        }
        (
            About::Job {
                name,
                exit,
                after_failure,
            },
            Some(setup),
        ) => Ok(Ok(job::story(setup, store, &name, exit, after_failure))),
        (_, None) => Ok(Err(
            "the setup has problems; `tidings check` shows them".to_owned()
        )),
    }
}

/// A rule that is not there.
pub fn unknown_rule<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    match suggest::nearest(name, names.iter().copied()) {
        Some(near) => format!("there is no rule `{name}`; did you mean `{near}`?"),
        None if names.is_empty() => format!("there is no rule `{name}`, nor any other"),
        None => format!("there is no rule `{name}`; the rules are {}", names.join(", ")),
    }
}

/// Longest chain of causes that is told.
const CAUSES: usize = 5;

/// An event with all around it.
async fn told(store: &Store, id: EventId) -> Result<Option<Told>, StoreError> {
    let Some(detail) = store.event(id).await? else {
        return Ok(None);
    };
    let mut causes = Vec::new();
    let mut origin = detail.event.happening.origin.clone();
    while let Some(from) = origin.take().filter(|_| causes.len() < CAUSES) {
        if let Some(cause) = store.event(from.event).await? {
            origin = cause.event.happening.origin.clone();
            causes.push(cause.event);
        }
    }
    let mut gathered = Vec::new();
    for (rule, key) in store.gathered_in(id).await? {
        if let Some(gathering) = store.gathering(&rule, &key).await? {
            let count = store.gathered(&rule, &key, 10_000).await?.len();
            gathered.push((gathering, count));
        }
    }
    Ok(Some(Told {
        detail,
        causes,
        gathered,
    }))
}
