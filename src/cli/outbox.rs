//! `tidings outbox`: what is to be sent or done, and why it is where it is.

mod many;

use super::{Exit, Global, out, show, tell};
use crate::app::endings::CASES;
use crate::entry::{Entry, EntryId, Reason, State, Verb};
use crate::store::{Attempt, EntryDetail, EntryFilter, Store};
use jiff::Timestamp;
use serde_json::{Value, json};

/// Options of `tidings outbox`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// The entries, newest first
    List(List),
    /// All about one entry: every attempt, the server's words, the cure
    Show {
        /// Its number
        id: i64,
        /// As JSON
        #[arg(long)]
        json: bool,
        /// The message itself, as it is or will be sent
        #[arg(long, conflicts_with = "json")]
        message: bool,
    },
    /// Do them again, the same bytes
    Retry(many::Which),
    /// Never do them; also closes the trouble of a mail that was refused for some recipients
    Cancel(many::Which),
}

#[derive(Debug, clap::Args)]
struct List {
    /// Only those in this state (may be given several times)
    #[arg(long, value_parser = state)]
    state: Vec<State>,
    /// Only those of this rule
    #[arg(long)]
    rule: Option<String>,
    /// Only those of which nobody could say, at some time, whether they had gone out
    #[arg(long)]
    ever_unknown: bool,
    /// At most so many
    #[arg(long, default_value_t = 50)]
    limit: usize,
    /// As JSON, one object a line
    #[arg(long)]
    json: bool,
}

fn state(word: &str) -> Result<State, String> {
    State::parse(word).ok_or_else(|| {
        let known: Vec<_> = State::ALL.iter().map(|state| state.as_str()).collect();
        format!("the states are {}", known.join(", "))
    })
}

/// Does it.
pub async fn run(global: &Global, args: Args) -> Exit {
    let (_, store) = match super::open(global).await {
        Ok(opened) => opened,
        Err(exit) => return exit,
    };
    match args.command {
        Command::List(list) => entries(&store, list).await,
        Command::Show { id, json, message } => entry(&store, EntryId(id), json, message).await,
        Command::Retry(which) => many::run(&store, which, Verb::Retry).await,
        Command::Cancel(which) => many::run(&store, which, Verb::Cancel).await,
    }
}

async fn entries(store: &Store, list: List) -> Exit {
    let filter = EntryFilter {
        states: list.state,
        rule: list.rule,
        limit: list.limit,
        ever_unknown: list.ever_unknown,
        ..EntryFilter::default()
    };
    let found = match store.entries(filter).await {
        Ok(found) => found,
        Err(error) => return super::store_failed(&error),
    };
    if list.json {
        for entry in &found {
            out(as_json(entry));
        }
        return Exit::Done;
    }
    if found.is_empty() {
        tell("nothing there");
        return Exit::Done;
    }
    print(&found);
    Exit::Done
}

/// Entries as a table.
pub fn print(found: &[Entry]) {
    let now = Timestamp::now();
    let rows: Vec<Vec<String>> = found.iter().map(|entry| row(entry, now)).collect();
    out(show::table(
        &["ID", "STATE", "SINCE", "RULE", "WHAT", "WHY"],
        &rows,
    ));
}

fn row(entry: &Entry, now: Timestamp) -> Vec<String> {
    let why = match (&entry.state, &entry.reason) {
        (State::Deferred, Some(reason)) => format!("again {}: {}", show::when(entry.due, now), reason.text),
        (_, Some(reason)) => reason.text.clone(),
        (_, None) => String::new(),
    };
    vec![
        entry.id.to_string(),
        entry.state.as_str().to_owned(),
        show::when(entry.changed, now),
        show::cut(&show::clean(&entry.rule), 28),
        show::cut(&what(entry), 48),
        show::cut(&show::clean(&why), 100),
    ]
}

/// `to ap@contoso.com: Invoice 17.pdf arrived` or `job nightly-export`.
pub fn what(entry: &Entry) -> String {
    let text = |name: &str| match entry.summary.get(name) {
        Some(Value::String(text)) => show::clean(text),
        Some(Value::Array(list)) => list
            .iter()
            .filter_map(Value::as_str)
            .map(show::clean)
            .collect::<Vec<_>>()
            .join(", "),
        _ => String::new(),
    };
    match entry.kind {
        _ if entry.summary.get("problem").is_some() => format!("({} not composed)", entry.kind.as_str()),
        crate::entry::Kind::Mail => {
            // The folder is in the long form.
            let about = text("about");
            let about = about.rsplit('/').next().unwrap_or_default();
            match (entry.summary.get("to"), entry.summary.get("subject")) {
                (None, _) => format!("(not composed) {about}"),
                (Some(_), None) => format!("to {}: (not composed) {about}", text("to")),
                (Some(_), Some(_)) => format!("to {}: {}", text("to"), text("subject")),
            }
        }
        crate::entry::Kind::Work => format!("job {}: {}", text("job"), text("steps")),
    }
}

/// An entry as JSON.
pub fn as_json(entry: &Entry) -> Value {
    json!({
        "id": entry.id, "kind": entry.kind.as_str(), "state": entry.state.as_str(), "rule": entry.rule,
        "event": entry.event, "lane": entry.lane, "summary": entry.summary, "reason": entry.reason,
        "due": entry.due.to_string(), "attempts": entry.attempts, "created": entry.created.to_string(),
        "changed": entry.changed.to_string(),
    })
}

/// An entry as JSON, with its attempts.
pub fn detail_json(detail: &EntryDetail) -> Value {
    let mut value = as_json(&detail.entry);
    value["attempts_made"] = detail.attempts.iter().map(attempt_json).collect();
    value
}

fn attempt_json(attempt: &Attempt) -> Value {
    json!({
        "number": attempt.number, "started": attempt.started.to_string(),
        "ended": attempt.ended.map(|time| time.to_string()), "outcome": attempt.outcome.map(State::as_str),
        "past_the_gate": attempt.gated, "reason": attempt.reason,
    })
}

async fn entry(store: &Store, id: EntryId, as_json_too: bool, message: bool) -> Exit {
    let detail = match store.entry(id).await {
        Ok(Some(detail)) => detail,
        Ok(None) => {
            tell(format_args!("error: there is no entry {id}"));
            return Exit::BadInput;
        }
        Err(error) => return super::store_failed(&error),
    };
    if message {
        return print_message(store, &detail);
    }
    if as_json_too {
        out(format_args!("{:#}", detail_json(&detail)));
        return Exit::Done;
    }
    let blocking = match store.open_cases().await {
        Ok(cases) => cases,
        Err(error) => return super::store_failed(&error),
    };
    out(described(&detail, Timestamp::now()));
    let account = detail.entry.lane.split(' ').next().unwrap_or_default();
    if !detail.entry.state.is_final()
        && let Some(case) = blocking
            .iter()
            .find(|case| case.kind == "account" && case.subject == account && !case.key.starts_with(CASES))
    {
        out(format_args!(
            "\nThe account `{account}` needs a person since {}:",
            show::local(case.opened)
        ));
        out(reason_lines(&case.reason, "  "));
    }
    Exit::Done
}

/// What a summary says, in the order and the words in which a person reads it.
const SUMMARY: [(&str, &str); 17] = [
    ("problem", "problem"),
    ("fault", "fault in"),
    ("about", "about"),
    ("from", "from"),
    ("to", "to"),
    ("cc", "cc"),
    ("bcc", "bcc"),
    ("subject", "subject"),
    ("attachments", "attached"),
    ("omitted", "left out"),
    ("job", "job"),
    ("steps", "steps"),
    ("size", "size"),
    ("template", "template"),
    ("account", "account"),
    ("handed_in", "handed in"),
    ("message_id", "msg-id"),
];

/// What a summary says, as labels and texts in the order in which a person reads them. The texts are raw.
pub fn summary(entry: &Entry) -> Vec<(String, String)> {
    let Value::Object(summary) = &entry.summary else {
        return Vec::new();
    };
    let told = SUMMARY
        .iter()
        .filter_map(|(name, label)| Some((*name, *label, summary.get(*name)?)));
    let other = summary
        .iter()
        .filter(|(name, _)| SUMMARY.iter().all(|(known, _)| known != name))
        .map(|(name, value)| (name.as_str(), name.as_str(), value));
    let text = |name: &str, value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(list) if list.is_empty() => None,
        Value::Array(list) => Some(list.iter().map(item).collect::<Vec<_>>().join(", ")),
        Value::Null => None,
        Value::Number(size) if name == "size" => Some(show::bytes(size.as_u64().unwrap_or_default())),
        other => Some(other.to_string()),
    };
    told.chain(other)
        .filter_map(|(name, label, value)| Some((label.to_owned(), text(name, value)?)))
        .collect()
}

/// The long form of an entry.
pub fn described(detail: &EntryDetail, now: Timestamp) -> String {
    let entry = &detail.entry;
    let mut lines = vec![
        format!(
            "Entry {}  {}  ({})",
            entry.id,
            entry.state.as_str(),
            show::when(entry.changed, now)
        ),
        format!("  rule      {}", show::clean(&entry.rule)),
    ];
    if let Some(event) = entry.event {
        lines.push(format!("  event     {event}"));
    }
    for (label, text) in summary(entry) {
        lines.push(format!("  {label:<9} {}", show::clean(&text)));
    }
    lines.push(format!("  created   {}", show::local(entry.created)));
    if entry.state == State::Deferred {
        lines.push(format!(
            "  due       {} ({})",
            show::local(entry.due),
            show::when(entry.due, now)
        ));
    }
    if let Some(reason) = &entry.reason {
        lines.push(reason_lines(reason, "  "));
    }
    for attempt in &detail.attempts {
        let outcome = attempt.outcome.map_or("under way", State::as_str);
        lines.push(format!(
            "  attempt {}  {}  {outcome}",
            attempt.number,
            show::local(attempt.started)
        ));
        if let Some(reason) = &attempt.reason {
            lines.push(format!("    {}", show::clean(&reason.text)));
            if let Some(reply) = &reason.reply {
                lines.push(format!("    server: {}", show::clean(reply)));
            }
        }
    }
    lines.join("\n")
}

fn item(value: &Value) -> String {
    match (value.as_str(), value.get("name").and_then(Value::as_str)) {
        (Some(text), _) => text.to_owned(),
        (None, Some(name)) => match value.get("size").and_then(Value::as_u64) {
            Some(size) => format!("{name} ({})", show::bytes(size)),
            None => name.to_owned(),
        },
        _ => value.to_string(),
    }
}

/// A reason in full: what, the server's words, the cure.
pub fn reason_lines(reason: &Reason, margin: &str) -> String {
    let mut lines = vec![format!("why       {}", show::clean(&reason.text))];
    if let Some(reply) = &reason.reply {
        lines.push(format!("server    {}", show::clean(reply)));
    }
    for (number, step) in reason.steps.iter().enumerate() {
        lines.push(format!(
            "{}  {}. {}",
            if number == 0 { "to do   " } else { "        " },
            number + 1,
            show::clean(step)
        ));
    }
    let more = [("takes", &reason.takes), ("who", &reason.who)];
    for (name, text) in more
        .iter()
        .filter_map(|(name, text)| Some((name, text.as_ref()?)))
    {
        lines.push(format!("{name:<8}  {}", show::clean(text)));
    }
    show::indent(&lines.join("\n"), margin)
}

fn print_message(store: &Store, detail: &EntryDetail) -> Exit {
    use crate::entry::Body;
    use std::io::Write as _;
    let mut stdout = std::io::stdout().lock();
    let copied = match &detail.body {
        Body::Inline(bytes) => stdout.write_all(bytes),
        Body::Spooled { name, .. } => std::fs::File::open(store.spool().path(name))
            .and_then(|mut file| std::io::copy(&mut file, &mut stdout).map(|_| ())),
        Body::None => {
            tell("error: this entry has no message");
            return Exit::BadInput;
        }
    };
    match copied {
        Ok(()) => Exit::Done,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Exit::Done,
        Err(error) => {
            tell(format_args!("error: cannot read the message: {error}"));
            Exit::Io
        }
    }
}
