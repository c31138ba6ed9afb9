//! Grants out of this host and into another, sealed with a passphrase.

use crate::cli::Exit;
use crate::cli::auth::told;
use crate::cli::face::Face;
use crate::config::secret::{Secret, SecretSource};
use crate::config::settings::{Credential, Settings};
use crate::http::answer::shown;
use crate::oauth::keeper::{KeepError, Keeper};
use crate::oauth::parcel::{self, ParcelError};
use crate::oauth::vault::Kept;
use std::collections::BTreeMap;
use std::path::Path;
use zeroize::Zeroizing;

/// Longest export that is read, bytes.
const LONGEST: u64 = 16 * 1024 * 1024;

/// Writes the grants of those accounts, or of all.
pub(super) async fn export(
    settings: &Settings,
    keeper: &Keeper,
    accounts: &[String],
    file: Option<&Path>,
    face: &dyn Face,
) -> Exit {
    let mut grants: BTreeMap<String, Kept> = BTreeMap::new();
    let all = settings.accounts.values().filter_map(|account| {
        matches!(account.credential, Credential::OAuth2(_)).then(|| account.name.clone())
    });
    let wanted: Vec<String> = if accounts.is_empty() {
        all.collect()
    } else {
        accounts.to_vec()
    };
    for name in wanted {
        match keeper.grant(&name).await {
            Ok(Some(kept)) => {
                grants.insert(name, kept);
            }
            Ok(None) => face.tell(&format!(
                "Account `{}` has no grant of a person: there is nothing to take along.",
                shown(&name)
            )),
            Err(error) => return failed(&error, face),
        }
    }
    if grants.is_empty() {
        face.tell("No account has a grant to export.");
        return Exit::BadInput;
    }
    let passphrase = match passphrase(file, "A passphrase for the export:", face).await {
        Ok(passphrase) => passphrase,
        Err(exit) => return exit,
    };
    let names = grants.keys().cloned().collect::<Vec<_>>().join(", ");
    let sealed = tokio::task::spawn_blocking(move || parcel::seal(&passphrase, &grants)).await;
    match sealed {
        Ok(Ok(text)) => {
            face.out(&text);
            face.tell(&format!(
                "Exported: {names}. These are live grants: stop tidings here before another host uses them."
            ));
            Exit::Done
        }
        Ok(Err(error)) => refused(&error, face),
        Err(_) => Exit::Unavailable,
    }
}

/// Takes the grants of an export whose accounts are in the settings; which they were.
pub(super) async fn import(
    settings: &Settings,
    keeper: &Keeper,
    only: Option<&str>,
    from: &Path,
    file: Option<&Path>,
    face: &dyn Face,
) -> Result<Vec<String>, Exit> {
    let text = match read(from) {
        Ok(text) => text,
        Err(error) => {
            face.tell(&format!("cannot read {}: {error}", from.display()));
            return Err(Exit::BadInput);
        }
    };
    let passphrase = passphrase(file, "The passphrase of the export:", face).await?;
    let opened = tokio::task::spawn_blocking(move || parcel::open(&passphrase, &text)).await;
    let grants = match opened {
        Ok(Ok(grants)) => grants,
        Ok(Err(error)) => return Err(refused(&error, face)),
        Err(_) => return Err(Exit::Unavailable),
    };
    let mut taken = Vec::new();
    for (name, kept) in grants {
        if only.is_some_and(|only| only != name) {
            continue;
        }
        let account = settings.accounts.get(&name).map(|account| &account.credential);
        let Some(Credential::OAuth2(oauth2)) = account else {
            face.tell(&format!(
                "Account `{}` is not in these settings, or does not use OAuth2: its grant was left out.",
                shown(&name)
            ));
            continue;
        };
        if oauth2.client_id != kept.client_id {
            face.tell(&format!(
                "Account `{name}` has another `client_id` here, and a grant belongs to its client: left out."
            ));
            continue;
        }
        if let Err(error) = keeper.keep(&name, &kept).await {
            return Err(failed(&error, face));
        }
        face.tell(&format!("Account `{name}` has its grant."));
        taken.push(name);
    }
    if taken.is_empty() {
        face.tell("Nothing was imported.");
        return Err(Exit::BadInput);
    }
    Ok(taken)
}

fn read(path: &Path) -> std::io::Result<Zeroizing<String>> {
    use std::io::Read as _;
    let mut text = Zeroizing::new(String::new());
    std::fs::File::open(path)?
        .take(LONGEST)
        .read_to_string(&mut text)?;
    Ok(text)
}

async fn passphrase(file: Option<&Path>, question: &str, face: &dyn Face) -> Result<Secret, Exit> {
    let Some(path) = file else {
        let line = Zeroizing::new(face.secret(question).await);
        return Ok(Secret::new(line.trim_end_matches(['\r', '\n'])));
    };
    SecretSource::File(path.to_owned()).read().await.map_err(|error| {
        face.tell(&error.to_string());
        Exit::BadInput
    })
}

fn refused(error: &ParcelError, face: &dyn Face) -> Exit {
    face.tell(&error.to_string());
    match error {
        ParcelError::Machine(_) => Exit::Unavailable,
        _ => Exit::BadInput,
    }
}

fn failed(error: &KeepError, face: &dyn Face) -> Exit {
    match error {
        KeepError::Token(error) => told(error, face),
        KeepError::Unknown(_) => {
            face.tell(&error.to_string());
            Exit::Usage
        }
        KeepError::Store(_) => {
            face.tell(&error.to_string());
            Exit::Unavailable
        }
    }
}
