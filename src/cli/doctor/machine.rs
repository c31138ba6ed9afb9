//! This machine: who may read secrets and state, whether there is room, whether the kernel watches enough folders,
//! which SQLite it is.

use super::finding::{Finding, Step};
use crate::app::space::{self, Judgement};
use crate::cli::{Exit, show};
use crate::config::secret::SecretSource;
use crate::config::settings::{Credential, Grant, KeyOf, Proof, Settings};
use crate::entry::Reason;
use crate::source::file::status::{MARKS, Mode, WatchStatus};
use crate::store::{Store, StoreError};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Looks at everything. The store may not have opened.
pub async fn examine(settings: &Settings, store: Result<&Store, &StoreError>) -> Vec<Finding> {
    let mut findings = vec![match store {
        Ok(store) => Finding::ok(
            Step::Store,
            format!("{} is on a local disk", store.path().display()),
        ),
        Err(error) => Finding::failed(Step::Store, Reason::new(error.to_string()), Exit::Unavailable),
    }];
    let places = private_places(settings);
    let (rights, space) = {
        let state = settings.outbox.store.clone();
        tokio::task::spawn_blocking(move || (rights(&places), room(&state)))
            .await
            .unwrap_or_default()
    };
    findings.extend(rights);
    findings.extend(space);
    if let Ok(store) = store {
        findings.extend(watches(store).await);
    }
    findings.push(Finding::ok(Step::Database, Store::engine()));
    findings
}

/// What only its owner should read, and why it matters.
fn private_places(settings: &Settings) -> Vec<(PathBuf, &'static str)> {
    let mut places = vec![
        (settings.state.clone(), "mails and grants lie there"),
        (settings.state.join("key"), "it opens the grants"),
    ];
    let mut written_out = false;
    for account in settings.accounts.values() {
        let mut secrets = Vec::new();
        match &account.credential {
            Credential::OAuth2(oauth2) => {
                for proof in &oauth2.proofs {
                    match proof {
                        Proof::Secret(source) | Proof::Assertion(source) => secrets.push(source),
                        Proof::Certificate(files) => places.push((files.key.clone(), "it is a key")),
                    }
                }
                if let Grant::JwtBearer(KeyOf::ServiceAccount(key) | KeyOf::Client { key, .. }) =
                    &oauth2.grant
                {
                    secrets.push(key);
                }
            }
            Credential::Password { secret, .. } => secrets.push(secret),
            Credential::None => {}
        }
        for secret in secrets {
            match secret {
                SecretSource::File(path) => places.push((path.clone(), "it is a secret")),
                SecretSource::Literal(_) => written_out = true,
                _ => {}
            }
        }
    }
    if written_out {
        places.push((settings.dir.join("tidings.yaml"), "a secret is written out in it"));
    }
    places
}

/// Whether others may read them. What is not there has nothing to hide.
fn rights(places: &[(PathBuf, &'static str)]) -> Vec<Finding> {
    let mut open = Vec::new();
    for (path, why) in places {
        let Ok(about) = std::fs::metadata(path) else {
            continue;
        };
        let mode = about.permissions().mode() & 0o777;
        if mode & 0o077 == 0 {
            continue;
        }
        let private = if about.is_dir() { "700" } else { "600" };
        open.push(Finding::warning(
            Step::Rights,
            Reason {
                steps: vec![format!(
                    "chmod {private} {}  (and chown it to the user tidings runs as, if that is another)",
                    path.display()
                )],
                who: Some("whoever looks after this machine".into()),
                ..Reason::new(format!(
                    "{} may be read by others ({mode:o}); {why}",
                    path.display()
                ))
            },
        ));
    }
    if open.is_empty() {
        open.push(Finding::ok(
            Step::Rights,
            "secrets and state are for their owner alone",
        ));
    }
    open
}

fn room(store: &Path) -> Vec<Finding> {
    let Ok(disk) = space::of(store) else {
        return Vec::new();
    };
    let free = format!(
        "{} of {} are free",
        show::bytes(disk.free),
        show::bytes(disk.total)
    );
    vec![match space::judge(disk) {
        Judgement::Well => Finding::ok(Step::Space, free),
        Judgement::Between => Finding::warning(Step::Space, Reason::new(free)),
        Judgement::Low => Finding::failed(
            Step::Space,
            Reason {
                steps: vec![
                    format!("Make room on the disk of {}.", store.display()),
                    "`outbox.keep` in tidings.yaml says how long finished mails are kept.".to_owned(),
                ],
                who: Some("whoever looks after this machine".into()),
                ..Reason::new(format!("{free}: when it is full, nothing more is taken in"))
            },
            Exit::Unavailable,
        ),
    }]
}

/// The kernel's limits against what is watched.
async fn watches(store: &Store) -> Option<Finding> {
    let limit = |name: &str| -> Option<u64> {
        std::fs::read_to_string(format!("/proc/sys/fs/inotify/{name}"))
            .ok()?
            .trim()
            .parse()
            .ok()
    };
    let marks = store.marks(MARKS).await.ok()?;
    let watched: Vec<WatchStatus> = marks
        .into_iter()
        .filter_map(|(_, mark)| serde_json::from_value(mark).ok())
        .collect();
    let folders: u64 = watched
        .iter()
        .filter(|watch| watch.mode != Mode::Away)
        .map(|watch| watch.folders)
        .sum();
    let polled: u64 = watched.iter().map(|watch| watch.polled_folders).sum();
    Some(judged(folders, polled, limit("max_user_watches")?))
}

fn judged(folders: u64, polled: u64, limit: u64) -> Finding {
    let text = format!(
        "{}, {polled} of them polled; the kernel watches at most {limit} for this user",
        show::count(folders, "folder")
    );
    // Others of this user watch too.
    if folders.saturating_mul(10) < limit.saturating_mul(9) {
        return Finding::ok(Step::Watches, text);
    }
    let wanted = (folders * 2).max(524_288);
    Finding::warning(
        Step::Watches,
        Reason {
            steps: vec![
                format!("sysctl fs.inotify.max_user_watches={wanted}"),
                format!(
                    "For good: echo fs.inotify.max_user_watches={wanted} > /etc/sysctl.d/60-inotify.conf"
                ),
            ],
            who: Some("whoever looks after this machine".into()),
            ..Reason::new(format!(
                "{text}: what is above that is polled, which finds files later"
            ))
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::finding::Standing;

    #[test]
    fn folders_near_the_kernels_limit_are_a_warning_with_the_command() {
        assert_eq!(judged(100, 0, 8192).standing, Standing::Ok);
        let near = judged(8000, 12, 8192);
        assert_eq!(near.standing, Standing::Warning);
        assert_eq!(
            near.reason.unwrap().steps[0],
            "sysctl fs.inotify.max_user_watches=524288"
        );
    }

    #[test]
    fn a_secret_others_may_read_is_a_warning_and_one_that_is_not_there_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("secret");
        let places = vec![(secret.clone(), "it is a secret")];
        assert_eq!(rights(&places)[0].standing, Standing::Ok);
        std::fs::write(&secret, "x").unwrap();
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o640)).unwrap();
        let found = rights(&places);
        assert_eq!(found[0].standing, Standing::Warning);
        assert!(
            found[0].reason.as_ref().unwrap().steps[0].starts_with("chmod 600 "),
            "{found:?}"
        );
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(rights(&places)[0].standing, Standing::Ok);
    }
}
