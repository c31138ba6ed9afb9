//! A process group of its own for a command: started, waited for, and ended as a whole.
//!
//! The group's leader is our child. Whatever it starts belongs to the group unless it leaves it on
//! purpose (`setsid`); those that leave are out of our reach.

use rustix::process::{
    Pid, Signal, kill_process, kill_process_group, test_kill_process, test_kill_process_group,
};
use std::io;
use std::process::ExitStatus;
use std::time::Duration;
use tokio::process::Child;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

/// Between TERM and KILL, when the time limit ends a command.
pub const TERM_GRACE: Duration = Duration::from_secs(5);
/// Between TERM and KILL, when we stop ourselves.
pub const STOP_GRACE: Duration = Duration::from_secs(10);
/// Between two looks whether a group is gone; nothing tells us.
const LOOK: Duration = Duration::from_millis(20);
/// How long after KILL we look for the rest of a group. What stays longer hangs in the kernel, or is
/// a zombie that process 1 does not collect.
const GONE: Duration = Duration::from_secs(2);

/// Why a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It came to its end, or somebody else ended it.
    Itself,
    /// The time limit.
    TimeLimit,
    /// We stop.
    Stopped,
}

/// The process group of a child. Dropped while armed, it is killed: nobody waits for it any more.
#[derive(Debug)]
pub struct Group {
    leader: Option<Remote>,
}

/// A way to signal a group from elsewhere.
#[derive(Clone, Copy, Debug)]
pub struct Remote {
    leader: Option<Pid>,
    /// It has no group of its own: only the one process is meant.
    alone: bool,
}

impl Remote {
    /// Signals every process of the group; that none is left is no error.
    pub fn signal(&self, signal: Signal) {
        let _ = match self.leader {
            None => Ok(()),
            Some(leader) if self.alone => kill_process(leader, signal),
            Some(leader) => kill_process_group(leader, signal),
        };
    }

    fn is_alive(&self) -> bool {
        let tested = match self.leader {
            None => return false,
            Some(leader) if self.alone => test_kill_process(leader),
            Some(leader) => test_kill_process_group(leader),
        };
        tested != Err(rustix::io::Errno::SRCH)
    }
}

impl Group {
    /// The group of a child that was started as the leader of one.
    pub fn of(child: &Child) -> Group {
        Group {
            leader: Some(Remote {
                leader: child
                    .id()
                    .and_then(|id| i32::try_from(id).ok())
                    .and_then(Pid::from_raw),
                alone: false,
            }),
        }
    }

    /// A child that is in our own group: it alone is signalled.
    pub fn alone(child: &Child) -> Group {
        let mut group = Group::of(child);
        if let Some(leader) = &mut group.leader {
            leader.alone = true;
        }
        group
    }

    /// For signals that come while somebody supervises it. Not to be used after that.
    pub fn remote(&self) -> Remote {
        self.leader.unwrap_or(Remote {
            leader: None,
            alone: true,
        })
    }

    /// Signals every process of the group; that none is left is no error.
    pub fn signal(&self, signal: Signal) {
        if let Some(leader) = self.leader {
            leader.signal(signal);
        }
    }

    /// Whether anything of it is left.
    pub fn is_alive(&self) -> bool {
        self.leader.is_some_and(|leader| leader.is_alive())
    }

    /// Its leader ended in peace: what it left running is left alone.
    pub fn disarm(&mut self) {
        self.leader = None;
    }

    /// Waits until nothing is left of it, at most until `end`.
    async fn gone(&self, end: Instant) {
        while self.is_alive() && Instant::now() < end {
            sleep(LOOK).await;
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// Waits for the leader. When the limit or the token ends it: TERM to the group, KILL to what is left
/// after the grace. When this returns with [`Cause::TimeLimit`] or [`Cause::Stopped`] nothing of the
/// group runs.
pub async fn supervise(
    child: &mut Child,
    group: &mut Group,
    limit: Option<Duration>,
    stop: &CancellationToken,
) -> io::Result<(ExitStatus, Cause)> {
    let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
    let (cause, grace) = tokio::select! {
        biased;
        status = child.wait() => {
            group.disarm();
            return Ok((status?, Cause::Itself));
        }
        () = reached(deadline) => (Cause::TimeLimit, TERM_GRACE),
        () = stop.cancelled() => (Cause::Stopped, STOP_GRACE),
    };
    let end = Instant::now() + grace;
    group.signal(Signal::TERM);
    // A stopped process would not see the TERM.
    group.signal(Signal::CONT);
    let early = timeout_at(end, child.wait()).await;
    group.gone(end).await;
    // Again and again: a group that forks may be faster than one signal.
    let end = Instant::now() + GONE;
    group.signal(Signal::KILL);
    let status = match early {
        Ok(status) => status?,
        Err(_) => child.wait().await?,
    };
    while group.is_alive() && Instant::now() < end {
        group.signal(Signal::KILL);
        sleep(LOOK).await;
    }
    group.disarm();
    Ok((status, cause))
}

async fn reached(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// The name of a signal: `SIGKILL`; its number where it has no common name.
pub fn signal_name(raw: i32) -> String {
    const NAMES: [(Signal, &str); 21] = [
        (Signal::HUP, "SIGHUP"),
        (Signal::INT, "SIGINT"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::ILL, "SIGILL"),
        (Signal::TRAP, "SIGTRAP"),
        (Signal::ABORT, "SIGABRT"),
        (Signal::BUS, "SIGBUS"),
        (Signal::FPE, "SIGFPE"),
        (Signal::KILL, "SIGKILL"),
        (Signal::USR1, "SIGUSR1"),
        (Signal::SEGV, "SIGSEGV"),
        (Signal::USR2, "SIGUSR2"),
        (Signal::PIPE, "SIGPIPE"),
        (Signal::ALARM, "SIGALRM"),
        (Signal::TERM, "SIGTERM"),
        (Signal::STOP, "SIGSTOP"),
        (Signal::XCPU, "SIGXCPU"),
        (Signal::XFSZ, "SIGXFSZ"),
        (Signal::VTALARM, "SIGVTALRM"),
        (Signal::PROF, "SIGPROF"),
        (Signal::SYS, "SIGSYS"),
    ];
    NAMES
        .iter()
        .find(|(signal, _)| signal.as_raw() == raw)
        .map_or_else(|| format!("signal {raw}"), |(_, name)| (*name).to_owned())
}
