//! Signals in; to the service manager out: ready, reloading, stopping, and alive.
//!
//! The watchdog is fed only while every long-lived part makes progress. A timer that always fires would
//! prove nothing but that the timer runs.
//!
//! What is outside and has been told of is no hang: a share that does not answer, a full disk, another
//! process that keeps the store busy. A new start would mend none of them, and would leave what is on
//! the wire unknown.

use crate::pulse::Progress;
use sd_notify::NotifyState;
use std::future::Future;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How a process is asked to end. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// Begin nothing new; finish what is on the wire.
    pub soon: CancellationToken,
    /// Leave what is on the wire: the next start reads what became of it.
    pub now: CancellationToken,
}

impl Stop {
    /// The first SIGTERM or SIGINT says soon, the second says now.
    pub fn on_signals(&self) -> std::io::Result<()> {
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let stop = self.clone();
        tokio::spawn(async move {
            for (asked, saying) in [
                (&stop.soon, "stopping: finishing what is on the wire"),
                (&stop.now, "asked again: stopping at once"),
            ] {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                tracing::info!("{saying}");
                asked.cancel();
            }
        });
        Ok(())
    }
}

/// SIGHUP: re-read the setup. From this call on it no longer ends the process.
pub fn hangups() -> std::io::Result<Signal> {
    signal(SignalKind::hangup())
}

/// What may wait for a service manager that does not read.
const UNREAD: usize = 64;

/// Speaks with the service manager, where there is one.
#[derive(Debug)]
pub struct Supervisor {
    ready: bool,
    voice: Voice,
}

impl Supervisor {
    /// Keeps the watchdog fed while everybody makes progress. From `stopping` on only the part named
    /// `last` counts: it finishes what is on the wire.
    pub fn start(progress: Progress, last: &'static str, stopping: CancellationToken) -> Supervisor {
        let voice = Voice::new();
        if let Some(limit) = sd_notify::watchdog_enabled() {
            let every = (limit / 3).max(Duration::from_millis(1));
            let food = voice.clone();
            tokio::spawn(feed(progress, last, every, stopping, move || {
                food.say(vec![NotifyState::Watchdog]);
            }));
        }
        Supervisor { ready: false, voice }
    }

    /// Everything runs. Said once.
    pub fn ready(&mut self) {
        self.ready = true;
        self.voice.say(vec![NotifyState::Ready]);
    }

    /// Reads the setup again while `work` runs.
    pub async fn reloading<T>(&self, work: impl Future<Output = T>) -> T {
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            self.voice.say(vec![NotifyState::Reloading, now]);
        }
        let done = work.await;
        // Before the first look is over it is not ready, reloaded or not.
        if self.ready {
            self.voice.say(vec![NotifyState::Ready]);
        }
        done
    }

    /// Nothing new is begun.
    pub fn stopping(&self) {
        self.voice.say(vec![NotifyState::Stopping]);
    }
}

/// Feeds the watchdog as long as nothing hangs, for as long as the process lives.
async fn feed(
    mut progress: Progress,
    last: &'static str,
    every: Duration,
    stopping: CancellationToken,
    mut food: impl FnMut(),
) {
    let mut every = tokio::time::interval(every);
    loop {
        every.tick().await;
        if stopping.is_cancelled() {
            progress = progress.only(last);
        }
        match progress.hanging() {
            None => food(),
            Some(part) => tracing::error!(part, "this part hangs; the watchdog is not fed"),
        }
    }
}

/// The way to the service manager: a thread of its own, so that one who does not read stops nothing here.
#[derive(Clone, Debug)]
struct Voice(Option<SyncSender<Vec<NotifyState<'static>>>>);

impl Voice {
    fn new() -> Voice {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return Voice(None);
        }
        let (say, said) = std::sync::mpsc::sync_channel::<Vec<NotifyState<'static>>>(UNREAD);
        let thread = std::thread::Builder::new().name("notify".to_owned());
        let spoken = thread.spawn(move || {
            for states in said {
                if let Err(error) = sd_notify::notify(&states) {
                    tracing::warn!(%error, "cannot tell the service manager");
                }
            }
        });
        if let Err(error) = &spoken {
            tracing::error!(%error, "cannot speak to the service manager");
        }
        Voice(spoken.is_ok().then_some(say))
    }

    fn say(&self, states: Vec<NotifyState<'static>>) {
        if let Some(say) = &self.0
            && let Err(TrySendError::Full(_)) = say.try_send(states)
        {
            tracing::warn!("the service manager does not read what it is told");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pulse::Pulse;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A watchdog fed every 60 s of virtual time, and how often it was.
    fn fed(pulses: &[Pulse], stopping: &CancellationToken) -> Arc<AtomicUsize> {
        let count = Arc::new(AtomicUsize::new(0));
        let food = {
            let count = Arc::clone(&count);
            move || {
                count.fetch_add(1, Ordering::Relaxed);
            }
        };
        let every = Duration::from_secs(60);
        let progress = Progress::new(pulses.to_vec(), Duration::from_secs(90));
        tokio::spawn(feed(progress, "delivery", every, stopping.clone(), food));
        count
    }

    async fn minutes(count: usize, ticking: &[&Pulse]) {
        for _ in 0..count {
            tokio::time::sleep(Duration::from_secs(60)).await;
            ticking.iter().for_each(|pulse| pulse.tick());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_watchdog_starves_as_soon_as_one_part_hangs_and_eats_when_it_goes_on() {
        let pulses = ["files", "delivery"].map(Pulse::new);
        let count = fed(&pulses, &CancellationToken::new());
        minutes(10, &[&pulses[0], &pulses[1]]).await;
        let healthy = count.load(Ordering::Relaxed);
        assert!(healthy >= 10, "{healthy}");
        minutes(10, &[&pulses[1]]).await;
        let starved = count.load(Ordering::Relaxed) - healthy;
        assert!(starved <= 2, "{starved} times although the files hung");
        minutes(10, &[&pulses[0], &pulses[1]]).await;
        assert!(count.load(Ordering::Relaxed) >= healthy + starved + 9);
    }

    #[tokio::test(start_paused = true)]
    async fn while_stopping_only_what_is_on_the_wire_counts() {
        let pulses = ["files", "delivery"].map(Pulse::new);
        let stopping = CancellationToken::new();
        let count = fed(&pulses, &stopping);
        stopping.cancel();
        minutes(10, &[&pulses[1]]).await;
        assert!(count.load(Ordering::Relaxed) >= 10);
        let before = count.load(Ordering::Relaxed);
        minutes(10, &[]).await;
        assert!(count.load(Ordering::Relaxed) <= before + 2);
    }
}
