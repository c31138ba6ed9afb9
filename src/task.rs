//! Long-lived tasks by name, with one cancellation.
//!
//! Each task is a future that ends when the token is cancelled. One that ends before, or panics, is an
//! error that names it; the caller of [`Tasks::ended`] then stops the rest.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// The tasks of a process. Dropped, they are aborted.
#[derive(Debug, Default)]
pub struct Tasks {
    running: JoinSet<()>,
    names: HashMap<Id, String>,
    stop: CancellationToken,
}

/// A task that did not do what it is there for. Ends the process.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TaskError {
    /// It returned although nobody stopped it.
    #[error("the task {name} ended by itself; this is a fault of ours")]
    Ended {
        /// Which.
        name: String,
    },
    /// It panicked.
    #[error("the task {name} panicked: {words}; this is a fault of ours")]
    Panicked {
        /// Which.
        name: String,
        /// What it said.
        words: String,
    },
    /// It did not stop in time and was aborted.
    #[error("the task {name} did not stop in time")]
    Stuck {
        /// Which.
        name: String,
    },
}

impl Tasks {
    /// None yet.
    pub fn new() -> Tasks {
        Tasks::default()
    }

    /// The token that stops all of them; cancelling it is how one stops.
    pub fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Starts one.
    pub fn spawn(&mut self, name: impl Into<String>, task: impl Future<Output = ()> + Send + 'static) {
        let handle = self.running.spawn(task);
        self.names.insert(handle.id(), name.into());
    }

    /// Waits for the first task that ends before it was told to, or panics. Never returns once all
    /// have stopped as told, or when there is none. May be dropped and called again.
    pub async fn ended(&mut self) -> TaskError {
        loop {
            match self.running.join_next_with_id().await {
                None => std::future::pending().await,
                Some(ended) => {
                    if let Err(error) = self.judge(ended) {
                        return error;
                    }
                }
            }
        }
    }

    /// Stops all and waits for them, at most for `deadline`; what runs then is aborted. Returns what
    /// went wrong, in the order it was seen.
    pub async fn join_all(mut self, deadline: Duration) -> Vec<TaskError> {
        self.stop.cancel();
        let mut errors = Vec::new();
        let joined = tokio::time::timeout(deadline, async {
            while let Some(ended) = self.running.join_next_with_id().await {
                errors.extend(self.judge(ended).err());
            }
        })
        .await;
        if joined.is_err() {
            let mut stuck: Vec<String> = self.names.drain().map(|(_, name)| name).collect();
            stuck.sort();
            errors.extend(stuck.into_iter().map(|name| TaskError::Stuck { name }));
            self.running.shutdown().await;
        }
        errors
    }

    fn judge(&mut self, ended: Result<(Id, ()), JoinError>) -> Result<(), TaskError> {
        let id = match &ended {
            Ok((id, ())) => *id,
            Err(error) => error.id(),
        };
        let name = self.names.remove(&id).unwrap_or_default();
        match ended {
            Ok(_) if self.stop.is_cancelled() => Ok(()),
            Ok(_) => Err(TaskError::Ended { name }),
            Err(error) if error.is_cancelled() => Err(TaskError::Stuck { name }),
            Err(error) => {
                let words = error.into_panic();
                let words = words
                    .downcast_ref::<&str>()
                    .map(|words| (*words).to_owned())
                    .or_else(|| words.downcast_ref::<String>().cloned())
                    .unwrap_or_default();
                Err(TaskError::Panicked { name, words })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_stop_together() {
        let mut tasks = Tasks::new();
        for name in ["one", "two"] {
            let stop = tasks.stop();
            tasks.spawn(name, async move { stop.cancelled().await });
        }
        assert!(
            tokio::time::timeout(Duration::from_millis(20), tasks.ended())
                .await
                .is_err()
        );
        assert_eq!(tasks.join_all(Duration::from_secs(5)).await, []);
    }

    #[tokio::test]
    async fn a_task_that_ends_or_panics_is_told_by_name() {
        let mut tasks = Tasks::new();
        tasks.spawn("short", async {});
        assert_eq!(tasks.ended().await, TaskError::Ended { name: "short".into() });
        tasks.spawn("frail", async { panic!("number {}", 7) });
        let error = tasks.ended().await;
        assert_eq!(
            error,
            TaskError::Panicked {
                name: "frail".into(),
                words: "number 7".into()
            }
        );
    }

    #[tokio::test]
    async fn a_task_that_does_not_stop_is_aborted_and_told() {
        let mut tasks = Tasks::new();
        tasks.spawn("deaf", std::future::pending());
        let errors = tasks.join_all(Duration::from_millis(20)).await;
        assert_eq!(errors, [TaskError::Stuck { name: "deaf".into() }]);
    }
}
