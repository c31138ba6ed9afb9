//! Credentials never end unnoticed: warnings ahead, once each and across restarts, told by mail, closed when mended.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use common::{Site, json_lines};
use jiff::{SignedDuration, Timestamp, ToSpan as _};
use serde_json::Value;
use std::sync::Arc;
use tidings::app::endings;
use tidings::cli::auth;
use tidings::clock::Clock;
use tidings::config::settings::Settings;
use tidings::event::Kind;
use tidings::oauth::keeper::Keeper;
use tidings::rule::load;
use tidings::store::{EventFilter, NewCase, Store};

const WATCHDOG: &str = "
rules:
  watchdog:
    when: { trouble: { of: account } }
    mail: { to: ops@example.org, template: trouble }
    on_recovery: { mail: { to: ops@example.org, template: trouble } }
";

/// A setup with a relay and an office whose client secret ends on that day.
async fn site(ends: &str) -> Site {
    let site = Site::new(WATCHDOG).await;
    write(&site, &format!("secret_expires: {ends}"));
    site
}

fn write(site: &Site, more: &str) {
    let office = format!(
        "accounts:\n  office:\n    provider: microsoft365\n    user: alice@contoso.example\n    oauth2: {{ tenant: contoso.example, client_id: app-1, client_secret: {{ file: secret }}, {more} }}\n"
    );
    site.write("secret", "value");
    site.write("tidings.yaml", &site.settings("").replace("accounts:\n", &office));
}

struct Inside {
    settings: Settings,
    store: Store,
    keeper: Arc<Keeper>,
}

/// The same setup, looked at from inside, as after a restart.
async fn inside(site: &Site) -> Inside {
    let settings = load::settings(site.dir()).unwrap();
    let store = Store::open(&settings.outbox.store, Clock::system())
        .await
        .unwrap();
    let keeper = auth::keep(&settings, store.clone(), Clock::system())
        .await
        .unwrap();
    Inside {
        settings,
        store,
        keeper,
    }
}

impl Inside {
    async fn look(&self, now: Timestamp) -> Vec<String> {
        endings::look(&self.store, &self.settings, &self.keeper, now)
            .await
            .unwrap()
    }

    /// What was told, oldest first.
    async fn told(&self) -> Vec<(String, bool)> {
        let filter = EventFilter {
            kind: Some(Kind::Trouble),
            ..EventFilter::default()
        };
        let events = self.store.events(filter).await.unwrap();
        let told = events.iter().rev().map(|event| {
            let trouble = &event.happening.facts["trouble"];
            (
                trouble["text"].as_str().unwrap().to_owned(),
                trouble["ended"].is_string(),
            )
        });
        told.collect()
    }
}

fn day(days: i64) -> Timestamp {
    let end: Timestamp = "2027-05-01T00:00:00Z".parse().unwrap();
    end + SignedDuration::from_hours(24 * days)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_warned_of_once_for_each_threshold_whatever_restarts_and_closed_when_renewed() {
    let site = site("2027-05-01").await;
    site.write(
        "tidings.yaml",
        &std::fs::read_to_string(site.path("tidings.yaml"))
            .unwrap()
            .replace("defaults: {", "defaults: { timezone: UTC,"),
    );
    for days in [-40, -30, -29, -20, -14, -13, -7, -3, -1, 0, 1, 2, 3] {
        // Twice, each time as another process.
        for _ in 0..2 {
            let inside = inside(&site).await;
            let urgent = inside.look(day(days)).await;
            assert_eq!(urgent.is_empty(), days < -1, "{days}: {urgent:?}");
        }
    }
    let after = inside(&site).await;
    let told = after.told().await;
    let texts: Vec<&str> = told.iter().map(|(text, _)| text.as_str()).collect();
    let of = |end: &str| format!("the client secret of account `office` {end}");
    assert_eq!(
        texts,
        [
            of("ends on 2027-05-01, in 30 days"),
            of("ends on 2027-05-01, in 14 days"),
            of("ends on 2027-05-01, in 7 days"),
            of("ends tomorrow, 2027-05-01"),
            of("ended today, 2027-05-01"),
            of("ended on 2027-05-01"),
            of("ended on 2027-05-01"),
        ]
    );
    let case = after
        .store
        .open_case_of("ends:office:secret")
        .await
        .unwrap()
        .unwrap();
    assert!(
        case.reason.steps[0].contains("/Credentials/appId/app-1"),
        "{case:?}"
    );
    assert!(case.reason.steps[1].contains("the file "), "{case:?}");
    let yaml = std::fs::read_to_string(site.path("tidings.yaml")).unwrap();
    site.write("tidings.yaml", &yaml.replace("2027-05-01", "2029-05-01"));
    let renewed = inside(&site).await;
    renewed.look(day(3)).await;
    assert!(renewed.told().await.last().unwrap().1, "it is over");
    assert!(
        renewed
            .store
            .open_case_of("ends:office:secret")
            .await
            .unwrap()
            .is_none()
    );
    // And the new one is warned of in its turn.
    renewed.look(day(730)).await;
    assert!(!renewed.told().await.last().unwrap().1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_needs_a_person_is_told_again_at_growing_intervals_until_it_is_mended() {
    let site = site("2099-05-01").await;
    let inside = inside(&site).await;
    let case = NewCase {
        key: "account:office".into(),
        kind: "account".into(),
        subject: "office".into(),
        reason: tidings::entry::Reason::new("the grant was revoked"),
    };
    inside.store.open_case(case).await.unwrap();
    let now = Timestamp::now();
    for hour in 0..24 * 9 {
        inside.look(now + SignedDuration::from_hours(hour)).await;
    }
    assert_eq!(
        inside.told().await.len(),
        1 + 4,
        "at once, and after 1, 2, 4 and 8 days"
    );
    inside.store.close_case("account:office").await.unwrap();
    inside.look(now + SignedDuration::from_hours(24 * 20)).await;
    assert_eq!(
        inside.told().await.len(),
        6,
        "it is over, and nothing more is said"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_warning_is_a_mail_of_another_account_with_clicks_and_who_can_do_them() {
    let soon = jiff::Zoned::now().date().checked_add(10.days()).unwrap();
    let site = site(&soon.to_string()).await;
    site.run(&["run", "--once"]);
    site.run(&["run", "--once"]);
    let mails = site.mails(2).await;
    let warnings: Vec<_> = mails
        .iter()
        .filter(|mail| mail.text.contains("the client secret of account"))
        .collect();
    assert_eq!(warnings.len(), 1, "{mails:?}");
    let warning = warnings[0];
    assert_eq!(warning.subject, "Needs you: account office");
    assert!(warning.text.contains("in 10 days"), "{}", warning.text);
    assert!(
        warning
            .text
            .contains("Who can do it: an owner of the application app-1"),
        "{}",
        warning.text
    );
    let events = json_lines(&site.ok(&["events", "--type", "trouble", "--json"]));
    let about = |event: &&Value| event["facts"]["trouble"]["key"] == "ends:office:secret";
    assert_eq!(events.iter().filter(about).count(), 1);
    assert!(
        site.ok(&["status"])
            .contains("the client secret of account `office` ends on")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exit_code_tells_only_on_the_last_day() {
    for (days, code) in [(10, 0), (0, 77)] {
        let day = jiff::Zoned::now().date().checked_add(days.days()).unwrap();
        let site = site(&day.to_string()).await;
        // Somebody is signed in, so that nothing but the secret is wrong.
        write(&site, &format!("secret_expires: {day}"));
        let inside = inside(&site).await;
        sign_in(&inside).await;
        drop(inside);
        let output = site.run(&["run", "--once"]);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{days}: {}",
            common::text(&output.stderr)
        );
    }
}

async fn sign_in(inside: &Inside) {
    use tidings::config::secret::Secret;
    let now = Timestamp::now();
    let kept = tidings::oauth::vault::Kept {
        access: Secret::new("at"),
        refresh: Some(Secret::new("rt")),
        previous: None,
        scopes: Vec::new(),
        token_type: "Bearer".into(),
        obtained: now,
        expires: now + SignedDuration::from_hours(1),
        life: std::time::Duration::from_secs(3600),
        refreshed: now,
        refresh_began: None,
        identity: tidings::oauth::grants::Identity::default(),
        client_id: "app-1".into(),
        unattended: false,
        standing: tidings::oauth::vault::Standing::Valid,
        trouble: None,
        claims: None,
        skew: None,
    };
    inside.keeper.keep("office", &kept).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_that_lasts_a_week_is_warned_of_a_day_ahead() {
    let site = Site::new(WATCHDOG).await;
    write(&site, "grant_life: 7d");
    let inside = inside(&site).await;
    sign_in(&inside).await;
    let now = Timestamp::now();
    for hours in [0, 24 * 5] {
        assert!(
            inside
                .look(now + SignedDuration::from_hours(hours))
                .await
                .is_empty()
        );
    }
    assert_eq!(
        inside.look(now + SignedDuration::from_hours(24 * 6 + 1)).await,
        ["office"]
    );
    let told = inside.told().await;
    assert_eq!(told.len(), 1);
    assert!(
        told[0].0.starts_with("the sign-in of account `office` ends"),
        "{told:?}"
    );
    // Somebody signs in again: it is over.
    sign_in(&inside).await;
    inside.look(Timestamp::now()).await;
    assert!(inside.told().await.last().unwrap().1);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_account_can_send_the_dead_mans_switch_is_not_called() {
    let site = site("2099-05-01").await;
    let inside = inside(&site).await;
    for (account, unheard) in [("office", false), ("relay", true)] {
        let case = NewCase {
            key: format!("sender:{account}"),
            kind: "account".into(),
            subject: account.into(),
            reason: tidings::entry::Reason::new("refused"),
        };
        inside.store.open_case(case).await.unwrap();
        let cases = inside.store.open_cases().await.unwrap();
        assert_eq!(endings::unheard(&inside.settings, &cases).is_some(), unheard);
    }
}
