//! `tidings emit`: somebody says that something happened.
//!
//! The event goes into the journal, also when no daemon runs. A store that cannot be written leaves it
//! as a file for the next look (`source::emitted::leave`), with a warning on stderr. Nothing is said
//! when all is well: it is called from scripts.

use super::place::{Places, places};
use super::{Exit, Global, tell};
use crate::clock::Clock;
use crate::source::emitted::{self, CloudEvent, LARGEST, Refused};
use crate::store::{Batch, Recorded, Store};
use jiff::Timestamp;
use serde_json::{Map, Value};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the store may take before the event is left as a file.
const STORE_PATIENCE: Duration = Duration::from_secs(30);

/// Options of `tidings emit`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Its type, as com.example.backup.finished; `-` reads a whole CloudEvent (JSON) from stdin
    #[arg(required_unless_present = "cloudevent")]
    r#type: Option<String>,
    /// What it says: JSON, @FILE with JSON, or - for stdin
    #[arg(long, short, value_name = "JSON", allow_hyphen_values = true)]
    data: Option<String>,
    /// Who says it: a URI or part of one [default: //HOST/tidings-emit]
    #[arg(long, short)]
    source: Option<String>,
    /// What makes it the same event, for its source: told twice it counts once [default: a fresh one]
    #[arg(long)]
    id: Option<String>,
    /// What it is about
    #[arg(long)]
    subject: Option<String>,
    /// When it happened, as 2026-03-02T08:30:00Z [default: now]
    #[arg(long)]
    time: Option<String>,
    /// Read a whole CloudEvent (structured JSON) from stdin
    #[arg(long, conflicts_with_all = ["type", "data", "source", "id", "subject", "time"])]
    cloudevent: bool,
}

/// Does it.
pub async fn run(global: &Global, args: Args) -> Exit {
    let event = match tokio::task::spawn_blocking(move || event(args)).await {
        Ok(Ok(event)) => event,
        Ok(Err((exit, message))) => {
            tell(format_args!("error: {message}"));
            return exit;
        }
        Err(error) => {
            tell(format_args!("error: {error}"));
            return Exit::Software;
        }
    };
    let setup = std::path::absolute(global.setup()).unwrap_or_else(|_| global.setup());
    let places = match places(&setup) {
        Ok(places) => places,
        Err(error) => {
            tell(format_args!(
                "error: the event is not recorded: {error}\nhint: name the setup folder with --config DIR or TIDINGS_CONFIG"
            ));
            return Exit::Config;
        }
    };
    let recorded = tokio::time::timeout(STORE_PATIENCE, record(&places.store, &event)).await;
    let error = match recorded {
        Ok(Ok(recorded)) => {
            if recorded.iter().any(|recorded| !recorded.fresh) {
                tell("known already: an event of this source and id was recorded before");
            }
            return Exit::Done;
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("the store did not answer for {} s", STORE_PATIENCE.as_secs()),
    };
    leave(places, event, &error).await
}

async fn record(store: &Path, event: &CloudEvent) -> Result<Vec<Recorded>, crate::store::StoreError> {
    let store = Store::open(store, Clock::system()).await?;
    let batch = Batch {
        events: vec![event.happening(Timestamp::now())],
        ..Batch::default()
    };
    store.record(batch).await
}

/// Leaves the event in the first folder that takes it.
async fn leave(places: Places, event: CloudEvent, error: &str) -> Exit {
    let left = tokio::task::spawn_blocking(move || {
        let ours = places.state.join(emitted::FOLDER);
        match emitted::leave(&ours, &event) {
            Ok(path) => Ok(path),
            Err(first) => match places.events.as_deref().filter(|folder| folder.is_dir()) {
                Some(folder) => emitted::leave(folder, &event),
                None => Err(first),
            },
        }
    });
    match left.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
        Ok(path) => {
            tell(format_args!(
                "the event waits in {} until `tidings run` records it: {error}",
                path.display()
            ));
            Exit::Done
        }
        Err(second) => {
            tell(format_args!(
                "error: the event is NOT recorded: {error}; and no file could be left for later: {second}\n\
                 hint: run it as the user of tidings, or let the settings name a folder for events that you may \
                 write to: emitted: {{ folder: DIR }}"
            ));
            Exit::Io
        }
    }
}

type Wrong = (Exit, String);

fn bad(refused: Refused) -> Wrong {
    (Exit::BadInput, refused.message)
}

/// The event that is meant.
fn event(args: Args) -> Result<CloudEvent, Wrong> {
    let whole = args.cloudevent || args.r#type.as_deref() == Some("-");
    if whole {
        let others = [&args.data, &args.source, &args.id, &args.subject, &args.time];
        if others.iter().any(|other| other.is_some()) {
            let message =
                "a whole CloudEvent says for itself what --data, --source, --id, --subject and --time say";
            return Err((Exit::Usage, message.to_owned()));
        }
        return CloudEvent::read(&stdin()?).map_err(bad);
    }
    let data = match args.data.as_deref() {
        None => Value::Null,
        Some("-") => json("stdin", &stdin()?)?,
        Some(text) => match text.strip_prefix('@') {
            Some(file) => json(file, &self::file(&PathBuf::from(file))?)?,
            None => json("--data", text.as_bytes())?,
        },
    };
    let event = CloudEvent {
        id: match args.id {
            Some(id) => id,
            None => emitted::fresh_id().map_err(bad)?,
        },
        source: args
            .source
            .unwrap_or_else(|| format!("//{}/tidings-emit", crate::app::host())),
        kind: args.r#type.unwrap_or_default(),
        subject: args.subject,
        time: args
            .time
            .as_deref()
            .map(emitted::moment)
            .transpose()
            .map_err(bad)?,
        schema: None,
        extensions: Map::new(),
        data,
    };
    event.sound().map_err(bad)?;
    Ok(event)
}

fn json(place: &str, bytes: &[u8]) -> Result<Value, Wrong> {
    serde_json::from_slice(bytes).map_err(|error| {
        let quoted = if place == "--data" {
            "; a text is written in quotes: '\"text\"'"
        } else {
            ""
        };
        let place = super::show::clean(place);
        (
            Exit::BadInput,
            format!("what {place} holds is not JSON: {error}{quoted}"),
        )
    })
}

fn stdin() -> Result<Vec<u8>, Wrong> {
    limited(io::stdin().lock(), "stdin")
}

fn file(path: &Path) -> Result<Vec<u8>, Wrong> {
    let shown = super::show::clean(&path.display().to_string());
    match std::fs::File::open(path) {
        Ok(file) => limited(file, &shown),
        Err(error) => Err((Exit::BadInput, format!("cannot read {shown}: {error}"))),
    }
}

fn limited(from: impl io::Read, place: &str) -> Result<Vec<u8>, Wrong> {
    let mut bytes = Vec::new();
    let read = from.take(LARGEST as u64 + 1).read_to_end(&mut bytes);
    match read {
        Err(error) => Err((Exit::Io, format!("cannot read {place}: {error}"))),
        Ok(_) if bytes.len() > LARGEST => Err((
            Exit::BadInput,
            format!(
                "{place} holds more than {LARGEST} bytes; put what is large into a file and name it in the data"
            ),
        )),
        Ok(_) => Ok(bytes),
    }
}
