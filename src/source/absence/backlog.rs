//! Backlogs: too many files, or too old ones, lie in a folder. Pure.
//!
//! The age of a file is counted from when we first saw it as it is: its own time of change says when it was
//! made, not how long it waits here.

use crate::event::Does;
use crate::source::Wanted;
use crate::store::Lying;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// What is too much.
#[derive(Clone, Debug)]
pub struct Backlog {
    /// `source::Watch::id`.
    pub watch: String,
    /// Its folder.
    pub root: PathBuf,
    /// Which files count.
    pub wanted: Wanted,
    /// More than this.
    pub count: Option<u64>,
    /// One that lies longer than this.
    pub age: Option<Duration>,
}

/// How a backlog stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Since when there is one: the scan that found it.
    pub open: Option<Timestamp>,
    /// The scan that was looked at last.
    pub scan: Option<Timestamp>,
}

/// What lies there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pile {
    /// How many files.
    pub count: u64,
    /// How many bytes.
    pub bytes: u64,
    /// The one that lies longest, and since when.
    pub oldest: Option<(PathBuf, Timestamp)>,
}

impl Backlog {
    /// The files that count, of all that lie in the watched folder.
    pub fn pile(&self, lying: &[Lying]) -> Pile {
        let mut pile = Pile::default();
        for file in lying
            .iter()
            .filter(|file| self.wanted.wants(&file.relative, file.size))
        {
            pile.count += 1;
            pile.bytes = pile.bytes.saturating_add(file.size);
            if pile.oldest.as_ref().is_none_or(|(_, since)| file.since < *since) {
                pile.oldest = Some((file.relative.clone(), file.since));
            }
        }
        pile
    }

    /// Whether a case opens, or the open one closes. It opens above a limit and closes below it, so that one
    /// file that comes and goes does not open and close it all day.
    pub fn decide(&self, open: bool, pile: &Pile, now: Timestamp) -> Option<Does> {
        let age = pile.age(now);
        let too_many = self.count.is_some_and(|limit| pile.count > limit);
        let too_old = self.age.is_some_and(|limit| age > limit);
        let fewer = self.count.is_none_or(|limit| pile.count < limit.max(1));
        let younger = self.age.is_none_or(|limit| age < limit);
        match open {
            false if too_many || too_old => Some(Does::Opens),
            true if fewer && younger => Some(Does::Closes),
            _ => None,
        }
    }

    /// When the oldest file becomes too old.
    pub fn wake(&self, pile: &Pile) -> Option<Timestamp> {
        let (_, since) = pile.oldest.as_ref()?;
        let age = SignedDuration::try_from(self.age?).ok()?;
        since
            .checked_add(age)
            .ok()?
            .checked_add(SignedDuration::from_millis(1))
            .ok()
    }
}

impl Pile {
    /// How long the oldest lies there.
    pub fn age(&self, now: Timestamp) -> Duration {
        let age = self.oldest.as_ref().map(|(_, since)| now.duration_since(*since));
        age.and_then(|age| Duration::try_from(age).ok())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use globset::GlobBuilder;

    fn backlog(count: Option<u64>, age: Option<u64>) -> Backlog {
        let glob = GlobBuilder::new("*.csv").literal_separator(true).build().unwrap();
        Backlog {
            watch: "w".to_owned(),
            root: "/srv/in".into(),
            wanted: Wanted {
                matching: glob.compile_matcher(),
                ignore: crate::source::wanted::Ignore::default(),
                recursive: false,
                min_size: 0,
                max_size: None,
            },
            count,
            age: age.map(Duration::from_secs),
        }
    }

    /// Files that lie there since so many seconds after the beginning.
    fn lying(since: &[i64]) -> Vec<Lying> {
        let each = since.iter().enumerate().map(|(number, since)| Lying {
            relative: format!("{number}.csv").into(),
            size: 10,
            mtime_ns: 0,
            since: Timestamp::from_second(*since).unwrap(),
        });
        each.collect()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn it_opens_above_its_count_and_closes_below_it() {
        let backlog = backlog(Some(2), None);
        let decide = |open, files: usize| {
            let pile = backlog.pile(&lying(&vec![0; files]));
            backlog.decide(open, &pile, at(100))
        };
        assert_eq!((decide(false, 2), decide(false, 3)), (None, Some(Does::Opens)));
        assert_eq!(
            (decide(true, 3), decide(true, 2), decide(true, 1)),
            (None, None, Some(Does::Closes))
        );
    }

    #[test]
    fn more_than_none_closes_when_there_is_none() {
        let backlog = backlog(Some(0), None);
        assert_eq!(
            backlog.decide(false, &backlog.pile(&lying(&[0])), at(1)),
            Some(Does::Opens)
        );
        assert_eq!(
            backlog.decide(true, &backlog.pile(&[]), at(1)),
            Some(Does::Closes)
        );
    }

    #[test]
    fn the_oldest_decides_and_age_counts_from_when_it_was_seen() {
        let backlog = backlog(None, Some(60));
        let pile = backlog.pile(&lying(&[50, 10, 30]));
        assert_eq!(pile.oldest, Some(("1.csv".into(), at(10))));
        assert_eq!(backlog.decide(false, &pile, at(70)), None);
        assert_eq!(backlog.decide(false, &pile, at(71)), Some(Does::Opens));
        assert!(backlog.wake(&pile).unwrap() > at(70));
        assert_eq!(
            backlog.decide(true, &backlog.pile(&lying(&[50, 30])), at(71)),
            Some(Does::Closes)
        );
    }

    #[test]
    fn what_other_patterns_want_does_not_count() {
        let mut files = lying(&[1, 2]);
        files[0].relative = "note.txt".into();
        files[1].relative = "sub/2.csv".into();
        assert_eq!(backlog(Some(0), None).pile(&files).count, 0);
    }
}
