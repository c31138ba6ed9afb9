//! All accounts at a glance, a line each, or as JSON.

use crate::cli::Exit;
use crate::cli::auth::status::{grant_word, kind, time};
use crate::cli::face::Face;
use crate::config::settings::{Account, Credential, Settings};
use crate::http::answer::shown;
use crate::oauth::keeper::Keeper;
use serde_json::{Value, json};

/// Lists the accounts in which `filter` occurs: in the name, description, user, senders, tenant,
/// grant or state.
pub(super) async fn list(
    settings: &Settings,
    keeper: &Keeper,
    filter: Option<&str>,
    as_json: bool,
    face: &dyn Face,
) -> Exit {
    let filter = filter.map(str::to_lowercase).unwrap_or_default();
    let mut found = Vec::new();
    for account in settings.accounts.values() {
        let row = row(account, keeper).await;
        if text(&row).to_lowercase().contains(&filter) {
            found.push(row);
        }
    }
    if as_json {
        face.out(&serde_json::to_string_pretty(&found).unwrap_or_default());
        return Exit::Done;
    }
    if found.is_empty() {
        face.tell(&format!("no account in which `{}` occurs", shown(&filter)));
        return Exit::Done;
    }
    let zone = &settings.defaults.timezone;
    let mut table = vec![
        [
            "account",
            "signs in with",
            "user",
            "state",
            "until",
            "description",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    for row in &found {
        let word = |key: &str| row[key].as_str().map(shown).unwrap_or_default();
        let until = row["until"]
            .as_str()
            .and_then(|text| text.parse().ok())
            .map(|at| time(at, zone))
            .unwrap_or_default();
        table.push(vec![
            word("account"),
            word("credential"),
            word("user"),
            word("state").replace('_', " "),
            until,
            word("description"),
        ]);
    }
    face.out(&columns(&table));
    Exit::Done
}

async fn row(account: &Account, keeper: &Keeper) -> Value {
    let mut row = json!({
        "account": account.name,
        "description": account.description,
        "user": account.user,
        "senders": account.senders.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "credential": kind(account),
        "state": "not_applicable",
        "until": null,
    });
    if let Credential::OAuth2(oauth2) = &account.credential {
        let grant = keeper.status(&account.name).await;
        row["credential"] = json!(grant_word(&oauth2.grant));
        row["tenant"] = json!(oauth2.tenant);
        row["client_id"] = json!(oauth2.client_id);
        row["state"] = json!(grant.state);
        row["verified"] = json!(grant.verified);
        row["until"] = json!(grant.access_expires);
        row["secret_expires"] = json!(grant.secret_expires);
    }
    row
}

/// All words of a row, for the filter.
fn text(row: &Value) -> String {
    match row {
        Value::Object(map) => map.values().map(text).collect::<Vec<_>>().join(" "),
        Value::Array(list) => list.iter().map(text).collect::<Vec<_>>().join(" "),
        Value::String(text) => format!("{text} {}", text.replace('_', " ")),
        _ => String::new(),
    }
}

/// Columns as wide as their widest word.
fn columns(table: &[Vec<String>]) -> String {
    let width = |column: usize| {
        table
            .iter()
            .filter_map(|row| row.get(column))
            .map(|word| word.chars().count())
            .max()
            .unwrap_or_default()
    };
    let line = |row: &Vec<String>| {
        row.iter()
            .enumerate()
            .map(|(column, word)| {
                let gap = width(column).saturating_sub(word.chars().count());
                format!("{word}{}", " ".repeat(gap))
            })
            .collect::<Vec<_>>()
            .join("  ")
            .trim_end()
            .to_owned()
    };
    table.iter().map(line).collect::<Vec<_>>().join("\n")
}
