//! Whether there is room where events and mails are kept: a trouble of its own, told while it can still be told.
//!
//! On a full disk nothing more is recorded, so nothing could be told either. It is opened with some room left, and
//! closed only when there is clearly more.

use crate::entry::Reason;
use crate::store::{NewCase, Store, StoreError};
use std::path::Path;

/// The case.
const CASE: &str = "store:space";

/// Too little on any disk, bytes.
const LEAST: u64 = 200_000_000;

/// More than this is never too little, bytes.
const ENOUGH: u64 = 2_000_000_000;

/// A disk, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// What we may still write.
    pub free: u64,
    /// All of it.
    pub total: u64,
}

/// How a disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Too little: somebody must make room.
    Low,
    /// Neither: what was told stays so.
    Between,
    /// Enough.
    Well,
}

/// Judges: low is less than 2 % of the disk, but at least 200 MB and at most 2 GB; it is well again with half as
/// much more.
pub fn judge(space: Space) -> Judgement {
    let low = (space.total / 50).clamp(LEAST, ENOUGH);
    if space.free < low {
        Judgement::Low
    } else if space.free < low + low / 2 {
        Judgement::Between
    } else {
        Judgement::Well
    }
}

/// Looks at the disk of the store, and opens or closes the case. Called now and then; a disk that cannot be asked
/// says nothing.
pub async fn look(store: &Store) {
    let path = store.path().to_owned();
    let space = match tokio::task::spawn_blocking(move || of(&path)).await {
        Ok(Ok(space)) => space,
        Ok(Err(error)) => return tracing::warn!(%error, "cannot ask how much space is left"),
        Err(error) => return tracing::warn!(%error, "cannot ask how much space is left"),
    };
    if let Err(error) = tell(store, space).await {
        tracing::error!(%error, free = space.free, "cannot tell how much space is left");
    }
}

/// How full the disk is that `path` lies on, a file that may not be there yet.
pub fn of(path: &Path) -> std::io::Result<Space> {
    let folder = path.parent().unwrap_or(path);
    let disk = rustix::fs::statvfs(folder)?;
    Ok(Space {
        free: disk.f_bavail.saturating_mul(disk.f_frsize),
        total: disk.f_blocks.saturating_mul(disk.f_frsize),
    })
}

/// Opens or closes the case.
pub async fn tell(store: &Store, space: Space) -> Result<(), StoreError> {
    let open = store.open_case_of(CASE).await?.is_some();
    match judge(space) {
        Judgement::Low => {
            let (folder, kept) = sizes(store).await;
            let case = NewCase {
                key: CASE.to_owned(),
                kind: "store".to_owned(),
                subject: folder.clone(),
                reason: Reason {
                    steps: vec![
                        format!("Make room on the disk of {folder}."),
                        "`outbox.keep` in tidings.yaml says how long finished mails are kept; a shorter time helps \
                         within the hour."
                            .to_owned(),
                    ],
                    ..Reason::new(format!(
                        "only {} MB are left on the disk where events and mails are kept ({kept} MB of it are ours); \
                         when it is full, nothing more is taken in",
                        space.free / 1_000_000
                    ))
                },
            };
            if store.open_case(case).await? {
                tracing::error!(free = space.free, "little space is left for the store");
            }
        }
        Judgement::Well if open => {
            store.close_case(CASE).await?;
            tracing::info!(free = space.free, "there is space for the store again");
        }
        Judgement::Between | Judgement::Well => {}
    }
    Ok(())
}

/// The state folder, and how many MB the database and the spool take in it.
async fn sizes(store: &Store) -> (String, u64) {
    let path = store.path().to_owned();
    let folder = path.parent().unwrap_or(&path).to_owned();
    let shown = folder.display().to_string();
    let sum = move || {
        let files = |folder: &Path| {
            let all = std::fs::read_dir(folder).into_iter().flatten().flatten();
            all.filter_map(|file| file.metadata().ok())
                .filter(std::fs::Metadata::is_file)
                .map(|file| file.len())
                .sum::<u64>()
        };
        files(&folder) + files(&folder.join("spool"))
    };
    let bytes = tokio::task::spawn_blocking(sum).await.unwrap_or_default();
    (shown, bytes.div_ceil(1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::event::Kind;
    use crate::store::EventFilter;

    const MB: u64 = 1_000_000;

    fn space(free: u64, total: u64) -> Space {
        Space {
            free: free * MB,
            total: total * MB,
        }
    }

    #[test]
    fn low_is_two_percent_but_at_least_200_mb_and_at_most_2_gb() {
        assert_eq!(judge(space(199, 1_000)), Judgement::Low);
        assert_eq!(judge(space(250, 1_000)), Judgement::Between);
        assert_eq!(judge(space(300, 1_000)), Judgement::Well);
        assert_eq!(judge(space(999, 50_000)), Judgement::Low);
        assert_eq!(judge(space(1_999, 4_000_000)), Judgement::Low);
        assert_eq!(judge(space(3_000, 4_000_000)), Judgement::Well);
    }

    #[tokio::test]
    async fn little_space_is_told_once_and_so_is_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("t.db"), Clock::system())
            .await
            .unwrap();
        for free in [5_000, 100, 90, 250, 100, 5_000, 5_000] {
            tell(&store, space(free, 10_000)).await.unwrap();
        }
        let told = store.events(EventFilter::default()).await.unwrap();
        let ends: Vec<bool> = told.iter().rev().map(|event| event.recovers).collect();
        assert_eq!(ends, [false, true]);
        assert!(told.iter().all(|event| event.happening.kind == Kind::Trouble));
        let trouble = &told[0].happening.facts["trouble"];
        assert_eq!(trouble["kind"], "store");
        assert!(trouble["lasted"].is_number() && trouble["ended"].is_string());
    }
}
