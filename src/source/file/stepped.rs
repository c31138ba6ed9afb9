//! Watched folders by a clock that is moved by hand: the same folders, candidates, memory and keys; only nobody
//! waits, and the kernel's part is said by whoever changes the files.

use super::folder::Folder;
use super::ids;
use super::sweep::lock;
use crate::clock::Clock;
use crate::event::FileRef;
use crate::ground::Ground;
use crate::source::Watch;
use crate::source::watch::Hint;
use crate::store::{Store, StoreError};
use jiff::Timestamp;

/// The watched folders of a setup, looked at instant by instant.
pub struct SteppedFiles {
    folders: Vec<(Watch, Folder)>,
}

impl SteppedFiles {
    /// Begins to watch, with what the store knows.
    pub async fn begin(
        watches: Vec<Watch>,
        store: &Store,
        clock: &Clock,
        ground: &Ground,
    ) -> Result<SteppedFiles, StoreError> {
        let ids = ids(&watches);
        let mut folders = Vec::new();
        for watch in watches {
            let none = Err("its changes are told".to_owned());
            let mut folder = Folder::new(
                watch.clone(),
                ids.clone(),
                store.clone(),
                clock.clone(),
                none,
                true,
            );
            folder.begin(ground.clone()).await?;
            folders.push((watch, folder));
        }
        Ok(SteppedFiles { folders })
    }

    /// Something changed on disk; the hint is what the kernel would say of it.
    pub fn told(&mut self, hint: Option<&Hint>) {
        for (_, folder) in &mut self.folders {
            folder.told(hint.cloned());
        }
    }

    /// We took this file away: when it comes back, even identical, it has arrived anew.
    pub fn forget(&mut self, file: &FileRef) {
        for (watch, folder) in &self.folders {
            if let Ok(relative) = file.path().strip_prefix(&watch.root) {
                lock(&folder.memory()).lose_version(relative, file.size, file.mtime_ns);
            }
        }
    }

    /// Everything that can be done at this instant.
    pub async fn look(&mut self) -> Result<(), StoreError> {
        for (_, folder) in &mut self.folders {
            folder.step().await?;
        }
        Ok(())
    }

    /// When a file is to be looked at again, or a set of files is to be told late.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.folders
            .iter()
            .filter_map(|(_, folder)| folder.next_due())
            .min()
    }
}
