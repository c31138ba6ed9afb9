//! A dead-man's switch: somebody outside is called while all is well, and tells people when the calls
//! stop. That is the one failure this program cannot tell of itself.
//!
//! Called is only while every part makes progress ([`Progress`]): scanner, schedules, dispatcher,
//! delivery, store. A call that fails is logged and shown by `tidings status`, and stops nothing. The
//! first call comes a little after the start: a program that dies again and again must not look alive.

use crate::app::endings;
use crate::config::secret;
use crate::config::settings::{Alive, Settings};
use crate::oauth::http::Http;
use crate::pulse::Progress;
use crate::store::Store;
use jiff::Timestamp;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The mark with what came of the last call.
pub const MARK: &str = "alive";

/// Longest wait before the first call, and before the next one after a failure.
const SOON: Duration = Duration::from_secs(30);

/// How long the store may take to note what came of a call.
const NOTE: Duration = Duration::from_secs(10);

/// Calls until stopped, by the settings there are.
pub async fn run(
    store: Store,
    mut settings: watch::Receiver<Arc<Settings>>,
    progress: Progress,
    stop: CancellationToken,
) {
    let mut due: Option<Instant> = None;
    loop {
        let current = Arc::clone(&settings.borrow_and_update());
        let alive = current.alive.clone();
        let now = Instant::now();
        due = alive.as_ref().map(|alive| {
            // New settings may ask for it sooner.
            let latest = now
                + if due.is_some() {
                    alive.every
                } else {
                    alive.every.min(SOON)
                };
            due.map_or(latest, |due| due.min(latest))
        });
        let sleep = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            Ok(()) = settings.changed() => continue,
            () = sleep => {}
        }
        let Some(alive) = alive else { continue };
        let called = tokio::select! {
            () = stop.cancelled() => return,
            called = heard(&store, &current, &alive, &progress) => called,
        };
        note(&store, &called).await;
        let wait = match called {
            Ok(()) => alive.every,
            Err(_) => alive.every.min(SOON),
        };
        due = Some(Instant::now() + wait);
    }
}

/// One call, unless a part hangs or nobody can be told of a trouble in another way.
async fn heard(store: &Store, settings: &Settings, alive: &Alive, progress: &Progress) -> Result<(), String> {
    let cases = tokio::time::timeout(NOTE, store.open_cases()).await;
    let cases = cases.ok().and_then(Result::ok).unwrap_or_default();
    if let Some(why) = endings::unheard(settings, &cases) {
        tracing::error!(%why, "the dead-man's switch is not called");
        return Err(format!("not called: {why}"));
    }
    call(alive, Some(progress)).await
}

/// One call, unless a part hangs. The error says why there was none, or why it failed, and holds nothing
/// of the address but the host.
pub async fn call(alive: &Alive, progress: Option<&Progress>) -> Result<(), String> {
    let called = match progress.and_then(Progress::hanging) {
        Some(part) => Err(format!("not called: {part} hangs")),
        None => reach(alive).await,
    };
    match &called {
        Ok(()) => tracing::debug!("called the dead-man's switch"),
        Err(why) => tracing::error!(%why, "the dead-man's switch was not reached"),
    }
    called
}

async fn reach(alive: &Alive) -> Result<(), String> {
    let text = alive.url.read().await.map_err(|error| error.to_string())?;
    let url = secret::address(text.expose()).map_err(|why| format!("{}: {why}", alive.url))?;
    let http = Http::new(None).map_err(|error| error.to_string())?;
    http.ping(&url).await
}

/// Leaves what came of a call where `tidings status` finds it.
pub async fn note(store: &Store, called: &Result<(), String>) {
    let mark = json!({
        "at": Timestamp::now().to_string(),
        "ok": called.is_ok(),
        "text": called.as_ref().err(),
    });
    // A store that hangs must not keep us from noticing that it goes on.
    let noted = tokio::time::timeout(NOTE, store.set_marks(vec![(MARK.to_owned(), mark)])).await;
    if !matches!(noted, Ok(Ok(()))) {
        tracing::warn!("cannot note what came of the call to the dead-man's switch");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::config::secret::{Secret, SecretSource};
    use crate::pulse::Pulse;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    /// A server on loopback that counts calls of `/ping/secret-word` and answers with `status`.
    async fn server(status: &'static str) -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/ping/secret-word", listener.local_addr().unwrap());
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = vec![0; 4096];
                let n = stream.read(&mut request).await.unwrap_or(0);
                if request[..n].starts_with(b"GET /ping/secret-word ") {
                    counted.fetch_add(1, Ordering::SeqCst);
                }
                let body = "no /ping/secret-word here";
                let answer = format!(
                    "HTTP/1.1 {status}\r\nLocation: /ping/secret-word\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        (url, count)
    }

    fn alive(url: &str) -> Alive {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Alive {
            url: SecretSource::Literal(Secret::new(url)),
            every: Duration::from_millis(50),
        }
    }

    async fn until(what: &str, mut holds: impl FnMut() -> bool) {
        for _ in 0..1000 {
            if holds() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{what}");
    }

    #[tokio::test]
    async fn calls_stop_while_a_part_hangs_and_go_on_with_it() {
        let (url, count) = server("200 OK").await;
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("s/t.db"), Clock::system())
            .await
            .unwrap();
        let mut settings = crate::config::check::nothing(folder.path());
        settings.alive = Some(alive(&url));
        let (_told, seen) = watch::channel(Arc::new(settings));
        let pulses = ["dispatch", "store"].map(Pulse::new);
        let progress = Progress::new(pulses.to_vec(), Duration::from_secs(2));
        let stop = CancellationToken::new();
        let beating = Arc::new(std::sync::atomic::AtomicBool::new(true));
        let (ticking, beats) = (pulses.clone(), Arc::clone(&beating));
        tokio::spawn(async move {
            loop {
                ticking[0].tick();
                if beats.load(Ordering::SeqCst) {
                    ticking[1].tick();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let task = tokio::spawn(run(store.clone(), seen, progress.clone(), stop.clone()));
        until("called", || count.load(Ordering::SeqCst) >= 3).await;
        beating.store(false, Ordering::SeqCst);
        until("the store hangs", || progress.hanging() == Some("store")).await;
        tokio::time::sleep(Duration::from_millis(100)).await; // a call under way
        let before = count.load(Ordering::SeqCst);
        let mut told = String::new();
        for _ in 0..1000 {
            let mark = store.marks(MARK).await.unwrap().pop().map(|(_, mark)| mark);
            told = mark
                .and_then(|mark| Some(mark["text"].as_str()?.to_owned()))
                .unwrap_or_default();
            if told == "not called: store hangs" {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(told, "not called: store hangs", "status says why");
        tokio::time::sleep(Duration::from_millis(400)).await; // eight calls' time
        assert_eq!(
            count.load(Ordering::SeqCst),
            before,
            "called although the store hung"
        );
        beating.store(true, Ordering::SeqCst);
        until("called again", || count.load(Ordering::SeqCst) > before + 2).await;
        stop.cancel();
        task.await.unwrap();
    }

    #[tokio::test]
    async fn a_failure_is_told_without_the_address() {
        for status in ["404 Not Found", "302 Found", "500 Oops"] {
            let (url, count) = server(status).await;
            let error = call(&alive(&url), None).await.unwrap_err();
            assert_eq!(count.load(Ordering::SeqCst), 1);
            assert!(
                error.contains(&status[..3]) && error.contains("127.0.0.1"),
                "{error}"
            );
            assert!(!error.contains("secret-word"), "{error}");
        }
        let error = call(&alive("http://127.0.0.1:1/secret-word"), None)
            .await
            .unwrap_err();
        assert!(
            error.contains("cannot reach") && !error.contains("secret-word"),
            "{error}"
        );
        for bad in [
            "http://example.org/secret-word",
            "ftp://127.0.0.1/secret-word",
            "secret-word",
        ] {
            let error = call(&alive(bad), None).await.unwrap_err();
            assert!(!error.contains("secret-word"), "{error}");
        }
        let unset = Alive {
            url: SecretSource::Env("TIDINGS_NO_SUCH_VARIABLE".to_owned()),
            ..alive("")
        };
        assert!(
            call(&unset, None)
                .await
                .unwrap_err()
                .contains("TIDINGS_NO_SUCH_VARIABLE")
        );
    }
}
