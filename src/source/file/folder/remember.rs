//! What a folder knows when it starts.

use super::{BATCH, First, Folder};
use crate::source::Existing;
use crate::source::file::status::{WatchStatus, mark};
use crate::source::file::sweep::lock;
use crate::store::{Batch, SeenFile, StoreError, WatchMemory};

impl Folder {
    /// Reads what the store knows of this watch, or of one that it replaces.
    pub(super) async fn remember(&mut self) -> Result<(), StoreError> {
        let known = self.store.watches().await?;
        let old = self.store.marks(&mark(&self.watch.id)).await?;
        let old = old.into_iter().find(|(key, _)| *key == mark(&self.watch.id));
        if let Some(old) = old.and_then(|(_, value)| serde_json::from_value::<WatchStatus>(value).ok()) {
            self.status.folder = old.folder;
            self.status.last_event = old.last_event;
        }
        let open = self.store.open_cases().await?;
        self.open = open.iter().any(|case| case.key == self.case);
        self.partly_open = open.iter().any(|case| case.key == self.partly_case());
        if known
            .iter()
            .any(|memory| memory.id == self.watch.id && memory.baseline)
        {
            let seen = self.store.seen(&self.watch.id).await?;
            self.load(&seen);
            return Ok(());
        }
        let same_root = |memory: &&WatchMemory| {
            memory.baseline && memory.root == self.watch.root && memory.id != self.watch.id
        };
        // A second rule that asks for what lies there gets it. But where the setup of a watch was only
        // changed, it is not the first time that this folder is watched: mailing everything in it again
        // because somebody chose another settle time would be a storm.
        let inherits = |memory: &&WatchMemory| {
            self.watch.existing == Existing::Ignore || !self.configured.contains(&memory.id)
        };
        let elders: Vec<_> = known.iter().filter(same_root).filter(inherits).collect();
        if elders.is_empty() {
            self.first = First::Due;
            return Ok(());
        }
        for elder in elders {
            let seen = self.store.seen(&elder.id).await?;
            let mine = |file: &SeenFile| SeenFile {
                watch: self.watch.id.clone(),
                ..file.clone()
            };
            for some in seen.chunks(BATCH) {
                let seen = some.iter().map(mine).collect();
                self.store
                    .record(Batch {
                        seen,
                        ..Batch::default()
                    })
                    .await?;
            }
            self.load(&seen);
        }
        self.record_baseline().await
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
