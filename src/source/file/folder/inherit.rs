//! What passes from one watch of a folder to another when a rule changes how it watches.
//!
//! Rules that settle files alike share a watch, so a rule that changes its `settle` moves to another one.
//! Nothing may be lost by that, and nothing may come twice. What an old watch knew, a new one takes over
//! (`remember`). Where the other watch was there already, for other rules, it may have recorded files that the
//! old one was still waiting for: it records them again in the name of the old one, so that they are asked
//! about once more, by all rules that watch this folder now. Who was asked before is not asked twice, since
//! what a rule asks for has the key of the arrival, whichever watch saw it.

use super::{BATCH, Folder};
use crate::event::Kind;
use crate::source::Watch;
use crate::source::file::record::{self, Arrival};
use crate::source::file::sweep::lock;
use crate::source::root::Meta;
use crate::source::wanted::Wants;
use crate::store::{Batch, SeenFile, Store, StoreError};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Most events that may wait for their rules and still be told apart.
const PENDING: usize = 1_000_000;

/// Whether one watch knows of something that happened to a file after what another knows: who takes over
/// goes on counting arrivals.
fn is_later(file: &SeenFile, known: &SeenFile) -> bool {
    file.arrivals > known.arrivals || (file.arrivals == known.arrivals && file.gone && !known.gone)
}

fn is_same(file: &SeenFile, known: &SeenFile) -> bool {
    (file.size, file.mtime_ns, file.gone) == (known.size, known.mtime_ns, known.gone)
}

/// What a watch takes over from others: the rows that are new to it.
#[derive(Debug, Default)]
pub(super) struct Estate {
    pub(super) all: HashMap<PathBuf, SeenFile>,
    learned: HashSet<PathBuf>,
}

impl Estate {
    /// Begins with what the watch itself knows.
    pub(super) fn new(own: Vec<SeenFile>) -> Estate {
        let all = own.into_iter().map(|file| (file.relative.clone(), file));
        Estate {
            all: all.collect(),
            learned: HashSet::new(),
        }
    }

    /// Takes over what another watch knows, if that is later. What is in `open` this watch shall find
    /// itself, as the same arrival.
    pub(super) fn take(&mut self, watch: &str, file: SeenFile, open: &HashSet<PathBuf>) {
        let path = file.relative.clone();
        let known = self.all.get(&path);
        if known.is_some_and(|known| !is_later(&file, known)) {
            return;
        }
        let mut row = file;
        if open.contains(&path) && !row.gone {
            let number = row.arrivals.saturating_sub(1);
            row = match known {
                Some(known) if known.arrivals > number => return,
                Some(known) => known.clone(),
                None => SeenFile { gone: true, ..row },
            };
            row.arrivals = number;
        }
        row.watch = watch.to_owned();
        self.all.insert(path.clone(), row);
        self.learned.insert(path);
    }

    /// Writes what was learned.
    pub(super) async fn record(&self, store: &Store) -> Result<(), StoreError> {
        let learned: Vec<_> = self
            .learned
            .iter()
            .filter_map(|path| self.all.get(path))
            .collect();
        for some in learned.chunks(BATCH) {
            let seen = some.iter().map(|file| (*file).clone()).collect();
            store
                .record(Batch {
                    seen,
                    ..Batch::default()
                })
                .await?;
        }
        Ok(())
    }
}

/// The files below this root that other watches recorded, while no rule was asked about them yet: who
/// asked there until now, and asks here from now on, has not heard of them.
pub(super) async fn open(store: &Store, root: &Path) -> Result<HashSet<PathBuf>, StoreError> {
    let pending = store.pending_events(PENDING).await?;
    let files = pending
        .into_iter()
        .filter(|event| event.happening.kind == Kind::FileArrives)
        .filter_map(|event| event.happening.file)
        .filter(|file| file.root == root);
    Ok(files.map(|file| file.relative).collect())
}

/// What the one who stays must do for one who left: for each file it may have waited for, the event it
/// would have made and the row it would have kept; and rows that go on counting where it stopped.
fn handed_over(here: &Watch, left: &Watch, mine: &[SeenFile], theirs: &[SeenFile]) -> Vec<Handed> {
    let wants = Wants::new(left.wanted.clone());
    let theirs: HashMap<&Path, &SeenFile> = theirs
        .iter()
        .map(|file| (file.relative.as_path(), file))
        .collect();
    let hand = |file: &SeenFile| {
        let known = theirs.get(file.relative.as_path());
        let newer = |known: &SeenFile| {
            is_later(file, known) || (!known.gone && !is_same(file, known) && file.mtime_ns > known.mtime_ns)
        };
        if known.is_some_and(|known| !newer(known)) {
            // What it recorded and is not known here will be found, and must be the same arrival.
            let ahead = |known: &SeenFile| u32::from(!is_same(file, known) && !known.gone);
            let arrivals = known.map_or(0, |known| known.arrivals.saturating_sub(ahead(known)));
            let counted = SeenFile {
                arrivals,
                ..file.clone()
            };
            return (arrivals > file.arrivals).then_some(Handed::Counted(counted));
        }
        if file.gone || !wants.want(&file.relative, file.size) {
            return None;
        }
        let arrival = Arrival {
            path: Arc::from(file.relative.as_path()),
            meta: Meta {
                size: file.size,
                mtime_ns: file.mtime_ns,
                ino: 0,
            },
            content: file.hash,
            number: file.arrivals,
            changed: known.is_some_and(|known| !known.gone),
        };
        let row = SeenFile {
            watch: left.id.clone(),
            arrivals: known.map_or(0, |known| known.arrivals).max(file.arrivals),
            ..file.clone()
        };
        // By what makes two files the same here: it is this watch's arrival.
        let as_left = Watch {
            id: left.id.clone(),
            ..here.clone()
        };
        Some(Handed::Missed(Box::new((as_left, arrival, row))))
    };
    mine.iter().filter_map(hand).collect()
}

#[derive(Debug)]
enum Handed {
    Missed(Box<(Watch, Arrival, SeenFile)>),
    Counted(SeenFile),
}

impl Folder {
    /// Does what those who left could not.
    pub(super) async fn take_over(&mut self) -> Result<(), StoreError> {
        while let Some(left) = self.left.last().cloned() {
            let known = self.store.watches().await?;
            // One that had not even looked once waited for nothing.
            if known.iter().any(|memory| memory.id == left.id && memory.baseline) {
                let mine = self.store.seen(&self.watch.id).await?;
                let theirs = self.store.seen(&left.id).await?;
                for some in handed_over(&self.watch, &left, &mine, &theirs).chunks(BATCH) {
                    self.hand_over(some).await?;
                }
            }
            self.left.pop();
        }
        Ok(())
    }

    async fn hand_over(&mut self, some: &[Handed]) -> Result<(), StoreError> {
        let now = self.clock.now();
        let mut batch = Batch::default();
        for handed in some {
            match handed {
                Handed::Missed(missed) => {
                    let (watch, arrival, row) = missed.as_ref();
                    batch.events.push(record::event(watch, arrival, now));
                    batch.seen.push(row.clone());
                }
                Handed::Counted(row) => batch.seen.push(row.clone()),
            }
        }
        self.store.record(batch).await?;
        let mut memory = lock(&self.memory);
        for handed in some {
            if let Handed::Counted(row) = handed {
                memory.count(&row.relative, row.arrivals);
            }
        }
        Ok(())
    }
}
