//! A folder by a clock that is moved by hand.

use super::Folder;
use crate::ground::Ground;
use crate::source::watch::Hint;
use crate::store::StoreError;
use jiff::Timestamp;
use std::time::Duration;

impl Folder {
    /// Reads what the store knows of it. The folder really lies on this ground.
    pub async fn begin(&mut self, ground: Ground) -> Result<(), StoreError> {
        self.ground = ground;
        self.remember().await
    }

    /// The kernel would say so now. It is looked at whole besides: the scan is the truth.
    pub fn told(&mut self, hint: Option<Hint>) {
        if let Some(hint) = hint {
            self.hear(hint);
        }
        self.wanted_scan = true;
        self.next_check = Duration::ZERO;
    }

    /// Everything that can be done at this instant.
    pub async fn step(&mut self) -> Result<(), StoreError> {
        loop {
            self.turn().await;
            if let Some(error) = self.failed.take() {
                return Err(error);
            }
            if self.scanning || self.reading {
                if let Some(progress) = self.progress.recv().await {
                    self.advance(progress).await;
                }
                continue;
            }
            let now = self.now();
            let more = self.wanted_scan || !self.subtrees.is_empty();
            let due = self.candidates.next_due().is_some_and(|due| due <= now);
            if self.root.is_none() || !(more || due) {
                return Ok(());
            }
        }
    }

    /// When a file here is to be looked at again, or a set of files is to be told late.
    pub fn next_due(&self) -> Option<Timestamp> {
        let look = self.candidates.next_due();
        let look = look.and_then(|due| self.began.checked_add(due).ok());
        look.into_iter().chain(self.sets.next_due()).min()
    }
}
