//! `tidings outbox retry` and `cancel`: one entry, or all that a person means by rule, state or account.

use super::{as_json, state};
use crate::cli::{Exit, out, question, show, store_failed, tell};
use crate::entry::{Entry, EntryId, State, Verb};
use crate::store::{EntryFilter, Store};
use serde_json::json;
use std::collections::BTreeMap;

/// Which entries.
#[derive(Debug, clap::Args)]
#[group(id = "which", required = true, multiple = true, args = ["id", "state", "rule", "account", "all"])]
pub(super) struct Which {
    /// Their numbers
    id: Vec<i64>,
    /// All in this state (may be given several times) [default with other filters: every state it can be done
    /// to, but `unknown` for retry and `failed` for cancel]
    #[arg(long, value_parser = state, conflicts_with = "id")]
    state: Vec<State>,
    /// All of this rule
    #[arg(long, conflicts_with = "id")]
    rule: Option<String>,
    /// All of this account
    #[arg(long, conflicts_with = "id")]
    account: Option<String>,
    /// All of them
    #[arg(long, conflicts_with_all = ["id", "state", "rule", "account"])]
    all: bool,
    /// Ask no question
    #[arg(long, short)]
    yes: bool,
    /// As JSON, one object a line
    #[arg(long)]
    json: bool,
}

impl Which {
    /// The states that are meant. What may have gone out already is sent again only where a person names it.
    fn states(&self, verb: Verb) -> Vec<State> {
        let meant = |state: &State| match verb {
            Verb::Retry => !matches!(state, State::Unknown | State::Cancelled),
            _ => *state != State::Failed,
        };
        let can = State::ALL.into_iter().filter(|state| state.after(verb).is_some());
        if self.state.is_empty() {
            can.filter(meant).collect()
        } else {
            self.state.clone()
        }
    }

    async fn found(&self, store: &Store, verb: Verb) -> Result<Vec<Entry>, Exit> {
        let filter = EntryFilter {
            states: self.states(verb),
            rule: self.rule.clone(),
            limit: usize::MAX >> 1,
            ..EntryFilter::default()
        };
        let mut found = store
            .entries(filter)
            .await
            .map_err(|error| store_failed(&error))?;
        if let Some(account) = &self.account {
            found
                .retain(|entry| entry.summary.get("account").and_then(|name| name.as_str()) == Some(account));
        }
        // In the order in which they came.
        found.reverse();
        Ok(found)
    }
}

/// Does it.
pub(super) async fn run(store: &Store, which: Which, verb: Verb) -> Exit {
    let mut ids: Vec<EntryId> = which.id.iter().copied().map(EntryId).collect();
    if ids.is_empty() {
        let found = match which.found(store, verb).await {
            Ok(found) => found,
            Err(exit) => return exit,
        };
        if found.is_empty() {
            tell("nothing there");
            return Exit::Done;
        }
        if !which.yes
            && let Err(exit) = sure(&found, verb)
        {
            return exit;
        }
        ids = found.iter().map(|entry| entry.id).collect();
    }
    each(store, &ids, verb, which.json).await
}

/// Whether the person means all of them.
fn sure(found: &[Entry], verb: Verb) -> Result<(), Exit> {
    let mut by_state: BTreeMap<State, u64> = BTreeMap::new();
    for entry in found {
        *by_state.entry(entry.state).or_default() += 1;
    }
    let states: Vec<String> = by_state
        .iter()
        .map(|(state, count)| format!("{count} {}", state.as_str()))
        .collect();
    let what = format!(
        "{} {} ({})",
        if verb == Verb::Retry { "retry" } else { "cancel" },
        entries(found.len()),
        states.join(", ")
    );
    if by_state.contains_key(&State::Unknown) && verb == Verb::Retry {
        tell("Those that are unknown may have gone out: whoever has them would get them twice.");
    }
    if !question::somebody() {
        tell(format_args!(
            "error: this would {what}; say --yes if that is meant (tidings outbox list shows them)"
        ));
        return Err(Exit::Usage);
    }
    if question::yes(&format!("This will {what}. Go on?")) {
        Ok(())
    } else {
        tell("nothing is changed");
        Err(Exit::Done)
    }
}

fn entries(count: usize) -> String {
    match count {
        1 => "1 entry".to_owned(),
        many => format!("{many} entries"),
    }
}

async fn each(store: &Store, ids: &[EntryId], verb: Verb, as_lines: bool) -> Exit {
    let mut exit = Exit::Done;
    for &id in ids {
        let moved = match verb {
            Verb::Retry => store.retry(id).await,
            _ => store.cancel(id).await,
        };
        let closed = match verb {
            // Nothing is left to be mended once a person has decided.
            Verb::Cancel => store.close_case(&format!("mail:{id}")).await,
            _ => Ok(false),
        };
        match (moved, closed) {
            (_, Err(error)) => return store_failed(&error),
            (Ok(entry), _) if as_lines => out(as_json(&entry)),
            (Ok(entry), _) => out(format_args!("{id} {}", entry.state.as_str())),
            (Err(_), Ok(true)) if as_lines => out(json!({ "id": id, "trouble": "closed" })),
            (Err(_), Ok(true)) => out(format_args!("{id} stays as it is; its trouble is closed")),
            (Err(error), Ok(false)) if as_lines => {
                out(json!({ "id": id, "error": error.to_string() }));
                exit = Exit::BadInput;
            }
            (Err(error), Ok(false)) => {
                tell(format_args!("error: {}", show::clean(&error.to_string())));
                exit = Exit::BadInput;
            }
        }
    }
    exit
}
