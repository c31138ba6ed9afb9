//! Jobs that run for too long. Pure; which run at all is [`source::running`](crate::source::running)'s to say.

use globset::GlobMatcher;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long jobs may run.
#[derive(Clone, Debug)]
pub struct RunsLong {
    /// Which.
    pub names: GlobMatcher,
    /// How long.
    pub after: Duration,
}

/// A run of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Which run: the same as long as it goes on.
    pub id: String,
    /// The job's name.
    pub name: String,
    /// Since when.
    pub started: Timestamp,
}

/// Those that run too long, by their ids.
pub type Overrunning = BTreeMap<String, Running>;

/// What happens to a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It runs too long.
    Opens(Running),
    /// It has ended.
    Closes(Running),
}

impl RunsLong {
    /// What changed, of all that run now.
    pub fn step(&self, open: &mut Overrunning, running: &[Running], now: Timestamp) -> Vec<Step> {
        let mut steps = Vec::new();
        let ended: Vec<String> = open
            .keys()
            .filter(|id| !running.iter().any(|run| run.id == **id))
            .cloned()
            .collect();
        steps.extend(ended.iter().filter_map(|id| open.remove(id)).map(Step::Closes));
        for run in running {
            let long = self.limit(run).is_some_and(|limit| limit <= now);
            if long && !open.contains_key(&run.id) {
                open.insert(run.id.clone(), run.clone());
                steps.push(Step::Opens(run.clone()));
            }
        }
        steps
    }

    /// When the next of them has run too long.
    pub fn wake(&self, open: &Overrunning, running: &[Running]) -> Option<Timestamp> {
        let waiting = running.iter().filter(|run| !open.contains_key(&run.id));
        waiting.filter_map(|run| self.limit(run)).min()
    }

    fn limit(&self, run: &Running) -> Option<Timestamp> {
        if !self.names.is_match(&run.name) {
            return None;
        }
        run.started
            .checked_add(SignedDuration::try_from(self.after).ok()?)
            .ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(id: &str, name: &str, second: i64) -> Running {
        Running {
            id: id.to_owned(),
            name: name.to_owned(),
            started: at(second),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_run_that_takes_too_long_opens_once_and_closes_when_it_ends() {
        let limit = RunsLong {
            names: globset::Glob::new("billing-*").unwrap().compile_matcher(),
            after: Duration::from_secs(60),
        };
        let mut open = Overrunning::new();
        let all = [
            run("1", "billing-close", 0),
            run("2", "billing-open", 30),
            run("3", "export", 0),
        ];
        assert_eq!(limit.wake(&open, &all), Some(at(60)));
        assert!(limit.step(&mut open, &all, at(59)).is_empty());
        assert_eq!(limit.step(&mut open, &all, at(60)), [Step::Opens(all[0].clone())]);
        assert_eq!(limit.wake(&open, &all), Some(at(90)));
        assert!(limit.step(&mut open, &all, at(61)).is_empty());
        let again = run("4", "billing-close", 95);
        let steps = limit.step(&mut open, &[all[1].clone(), again.clone()], at(100));
        assert_eq!(steps, [Step::Closes(all[0].clone()), Step::Opens(all[1].clone())]);
        assert_eq!(limit.wake(&open, &[all[1].clone(), again]), Some(at(155)));
    }
}
