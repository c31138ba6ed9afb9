//! Servers that mean no good. Alone in their process, since its memory is looked at.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests, too

use std::time::{Duration, Instant};
use tidings::config::settings::{LoginAs, SmtpSettings, Tls};
use tidings::mail::Envelope;
use tidings::sandbox::smtp::{Act, At, Faults, Server, Settings};
use tidings::transport::smtp::Smtp;
use tidings::transport::{Content, Limits, Login, Open, Parcel, Report, Verdict};

const LIMITS: Limits = Limits {
    connect: Duration::from_millis(500),
    reply: Duration::from_millis(300),
    final_reply: Duration::from_millis(300),
    total: Duration::from_millis(900),
};

async fn send(port: u16) -> (Report, Duration) {
    let settings = SmtpSettings {
        host: "127.0.0.1".into(),
        port,
        tls: Tls::None,
        ca_file: None,
        login_as: LoginAs::User,
    };
    let parcel = Parcel {
        envelope: Envelope::new("a@x.de".parse().unwrap(), vec!["b@x.de".parse().unwrap()]).unwrap(),
        content: Content::Bytes(vec![b'x'; 8_000_000].into()),
        message_id: "<1@x.de>".into(),
    };
    let start = Instant::now();
    let smtp = Smtp::new(&settings, LIMITS, 1).unwrap();
    (
        smtp.submit(&Login::Anonymous, &parcel, &Open, None).await,
        start.elapsed(),
    )
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn hostile_servers_end_in_time_and_in_flat_memory() {
    let acts = [
        Act::EndlessLine,
        Act::EndlessReply,
        Act::Drip(Duration::from_millis(10)),
        Act::Wait(Duration::from_secs(60)),
    ];
    let places = [
        At::Greeting,
        At::line("EHLO"),
        At::line("MAIL"),
        At::line("RCPT"),
        At::line("DATA"),
        At::Dot,
    ];
    // Once for what the first mail of a process takes anyway.
    let server = Server::start(Settings::open()).await.unwrap();
    assert!(matches!(
        send(server.address().port()).await.0.verdict,
        Verdict::Accepted { .. }
    ));
    drop(server);
    let before = resident();
    for act in &acts {
        for place in &places {
            let faults = vec![Faults::one(place.clone(), act.clone())];
            let server = Server::start(Settings {
                faults,
                ..Settings::open()
            })
            .await
            .unwrap();
            let (report, time) = send(server.address().port()).await;
            assert!(
                time < Duration::from_secs(2),
                "{act:?} at {place:?} took {time:?}"
            );
            match (&report.verdict, place) {
                (Verdict::Unknown { .. }, At::Dot) | (Verdict::Unreached { transient: true, .. }, _) => {}
                other => panic!("{act:?} at {place:?}: {other:?}"),
            }
        }
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 16 * 1024 * 1024, "{grown} bytes more");
}

#[tokio::test]
async fn a_server_that_reads_nothing_does_not_hold_us() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 1000];
        for reply in [
            "220 a\r\n",
            "250-b\r\n250 PIPELINING\r\n",
            "250 c\r\n250 d\r\n354 e\r\n",
        ] {
            stream.write_all(reply.as_bytes()).await.unwrap();
            assert!(stream.read(&mut buffer).await.unwrap() > 0);
        }
        std::future::pending::<()>().await;
    });
    let (report, time) = send(port).await;
    assert!(
        matches!(report.verdict, Verdict::Unreached { transient: true, .. }),
        "{report:?}"
    );
    assert!(time < Duration::from_secs(2), "{time:?}");
    server.abort();
}
