//! What a folder knows when it starts.

use super::inherit::{self, Estate};
use super::{First, Folder};
use crate::source::Existing;
use crate::source::file::status::{WatchStatus, mark};
use crate::source::file::sweep::lock;
use crate::store::{Batch, SeenFile, StoreError, WatchMemory};
use std::collections::HashSet;
use std::path::PathBuf;

impl Folder {
    /// Reads what the store knows of this watch, or of one that it replaces.
    pub(super) async fn remember(&mut self) -> Result<(), StoreError> {
        self.remember_files().await?;
        self.remember_sets().await
    }

    async fn remember_files(&mut self) -> Result<(), StoreError> {
        let known = self.store.watches().await?;
        let old = self.store.marks(&mark(&self.watch.id)).await?;
        let old = old.into_iter().find(|(key, _)| *key == mark(&self.watch.id));
        let known_status = old.is_some();
        if let Some(old) = old.and_then(|(_, value)| serde_json::from_value::<WatchStatus>(value).ok()) {
            self.status.folder = old.folder;
            self.status.last_event = old.last_event;
            self.status.mounts = old.mounts;
        }
        let open = self.store.open_cases().await?;
        self.open = open.iter().any(|case| case.key == self.case);
        self.partly_open = open.iter().any(|case| case.key == self.partly_case());
        let mine = known
            .iter()
            .any(|memory| memory.id == self.watch.id && memory.baseline);
        // A watch that ran until now knows best itself. One that was taken out of the setup and is back
        // does not know what came under the one that had its place.
        let replaced = |memory: &&WatchMemory| !self.configured.contains(&memory.id);
        let returns = mine && (self.comes_in || !known_status);
        let same_root = |memory: &&WatchMemory| {
            memory.baseline && memory.root == self.watch.root && memory.id != self.watch.id
        };
        // A second rule that asks for what lies there gets it. But where the setup of a watch was only
        // changed, it is not the first time that this folder is watched: mailing everything in it again
        // because somebody chose another settle time would be a storm.
        let inherits = |memory: &&WatchMemory| match mine {
            true => returns,
            false => self.watch.existing == Existing::Ignore || replaced(memory),
        };
        let elders: Vec<_> = known.iter().filter(same_root).filter(inherits).collect();
        if !mine && elders.is_empty() {
            self.first = First::Due;
            return Ok(());
        }
        let own = if mine {
            self.store.seen(&self.watch.id).await?
        } else {
            Vec::new()
        };
        let mut mounts = Vec::new();
        for elder in &elders {
            mounts.extend(self.mounts_of(&elder.id).await?);
        }
        let mut estate = Estate::new(own);
        for elder in elders {
            // What one that was replaced recorded is asked about here. One that goes on has rules of its own.
            let open = match replaced(&elder) {
                true => HashSet::new(),
                false => inherit::open(&self.store, &self.watch.root).await?,
            };
            for file in self.store.seen(&elder.id).await? {
                estate.take(&self.watch.id, file, &open);
            }
        }
        self.status.mounts.extend(mounts);
        estate.record(&self.store).await?;
        let all: Vec<_> = estate.all.into_values().collect();
        self.load(&all);
        if mine {
            Ok(())
        } else {
            self.record_baseline().await
        }
    }

    /// The file systems below the root, as another watch of it met them.
    async fn mounts_of(&self, watch: &str) -> Result<Vec<PathBuf>, StoreError> {
        let marks = self.store.marks(&mark(watch)).await?;
        let own = marks.into_iter().find(|(key, _)| *key == mark(watch));
        let status = own.and_then(|(_, value)| serde_json::from_value::<WatchStatus>(value).ok());
        Ok(status.map_or_else(Vec::new, |status| status.mounts))
    }

    fn load(&mut self, seen: &[SeenFile]) {
        let mut memory = lock(&self.memory);
        for file in seen {
            memory.load(
                &file.relative,
                file.size,
                file.mtime_ns,
                file.hash.as_ref(),
                file.arrivals,
                file.gone,
            );
        }
    }

    pub(super) async fn record_baseline(&mut self) -> Result<(), StoreError> {
        let memory = WatchMemory {
            id: self.watch.id.clone(),
            root: self.watch.root.clone(),
            baseline: true,
        };
        let batch = Batch {
            baselines: vec![memory],
            ..Batch::default()
        };
        self.store.record(batch).await.map(drop)
    }
}
