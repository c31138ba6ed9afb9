//! Other file systems below the root: one that is not mounted any more took its files along, and deleted none.

use super::Folder;
use crate::source::root::{Look, Root};
use crate::source::scan::Unreadable;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Of the file systems known below a root, those that a whole scan missed, and that it could have met.
fn missed(known: &[PathBuf], met: &[PathBuf], unreadable: &[Unreadable]) -> Vec<PathBuf> {
    let hidden = |path: &Path| unreadable.iter().any(|part| path.starts_with(&part.relative));
    let away = |path: &&PathBuf| !met.contains(path) && !hidden(path);
    known.iter().filter(away).cloned().collect()
}

impl Folder {
    /// What a whole scan says of the file systems below the root: `met` are there; those that are away hide what
    /// was known of them, as folders that cannot be read do. One whose very folder was removed is forgotten:
    /// somebody cleared up after it.
    pub(super) async fn away_below(
        &mut self,
        root: &Arc<Root>,
        met: Vec<PathBuf>,
        unreadable: &[Unreadable],
    ) -> Vec<Unreadable> {
        let missed = missed(&self.status.mounts, &met, unreadable);
        let mut away = Vec::new();
        if !missed.is_empty() {
            let (root, looked) = (root.clone(), missed.clone());
            let looks = self
                .blocking(move || {
                    looked
                        .iter()
                        .map(|path| root.look(path, true))
                        .collect::<Vec<_>>()
                })
                .await;
            let looks = looks.unwrap_or_default();
            for (number, relative) in missed.into_iter().enumerate() {
                // Where nobody could look, it is not known to be removed.
                if !matches!(looks.get(number), Some(Look::Gone)) {
                    let why = "nothing is mounted there any more".to_owned();
                    away.push(Unreadable { relative, why });
                }
            }
        }
        let hidden = |path: &PathBuf| {
            let parts = unreadable.iter().chain(&away);
            parts.into_iter().any(|part| path.starts_with(&part.relative))
        };
        let mut mounts: Vec<PathBuf> = self
            .status
            .mounts
            .iter()
            .filter(|path| hidden(path))
            .cloned()
            .collect();
        // The status is kept as text; a name that is none cannot be kept.
        mounts.extend(met.into_iter().filter(|path| path.to_str().is_some()));
        mounts.sort();
        mounts.dedup();
        self.status.mounts = mounts;
        away
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_missed_where_the_scan_looked_and_did_not_meet_it() {
        let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        let known = paths(&["a", "b", "dark/c"]);
        let dark = Unreadable {
            relative: "dark".into(),
            why: String::new(),
        };
        assert_eq!(missed(&known, &paths(&["b", "new"]), &[dark]), paths(&["a"]));
        assert!(missed(&known, &known, &[]).is_empty());
    }
}
