//! Telling the service manager how we are: ready, reloading, stopping, and alive.
//!
//! The watchdog is fed only while every long-lived task came round lately. A timer that always fires
//! would prove nothing but that the timer runs.

use crate::pulse::Pulse;
use sd_notify::NotifyState;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A task that did not come round for this long hangs.
const HANGS: Duration = Duration::from_secs(90);

/// SIGHUP: re-read the setup.
pub fn hangups() -> std::io::Result<Signal> {
    signal(SignalKind::hangup())
}

/// Cancels `stop` at SIGTERM or SIGINT. A second one changes nothing, and is told so: what is on the wire cannot be
/// taken back.
pub fn stop_on_signals(stop: CancellationToken) -> std::io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        let mut told = "stopping: finishing what is on the wire";
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("{told}");
            stop.cancel();
            told = "still finishing what is on the wire: a server may take ten minutes to answer; \
                    kill -9 would leave such mails as `unknown`";
        }
    });
    Ok(())
}

/// Speaks with the service manager, where there is one.
#[derive(Clone, Copy, Debug)]
pub struct Supervisor(());

impl Supervisor {
    /// Keeps the watchdog fed while all `pulses` beat.
    pub fn start(pulses: Vec<Pulse>, stop: CancellationToken) -> Supervisor {
        if let Some(limit) = sd_notify::watchdog_enabled() {
            tokio::spawn(async move {
                let mut every = tokio::time::interval(limit / 3);
                loop {
                    tokio::select! {
                        () = stop.cancelled() => return,
                        _ = every.tick() => {}
                    }
                    match pulses.iter().find(|pulse| pulse.age() > HANGS) {
                        None => say(&[NotifyState::Watchdog]),
                        Some(pulse) => {
                            tracing::error!(task = pulse.name(), "this part hangs; not feeding the watchdog")
                        }
                    }
                }
            });
        }
        Supervisor(())
    }

    /// Everything runs.
    pub fn ready(&self) {
        say(&[NotifyState::Ready]);
    }

    /// The setup is being read again.
    pub fn reloading(&self) {
        if let Ok(reloading) = NotifyState::monotonic_usec_now() {
            say(&[NotifyState::Reloading, reloading]);
        }
    }

    /// Nothing new is begun.
    pub fn stopping(&self) {
        say(&[NotifyState::Stopping]);
    }
}

fn say(states: &[NotifyState<'_>]) {
    // Without a service manager there is nobody to tell, which is no error.
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "cannot tell the service manager");
    }
}
