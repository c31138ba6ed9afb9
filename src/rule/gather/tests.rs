use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

fn berlin() -> TimeZone {
    TimeZone::get("Europe/Berlin").unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn group(wait: u64, max: usize) -> Group {
    Group {
        by: None,
        wait: Duration::from_secs(wait),
        at: Vec::new(),
        zone: berlin(),
        max,
    }
}

fn throttle(at_most: usize, per: u64) -> Throttle {
    Throttle {
        at_most,
        per: Duration::from_secs(per),
        by: None,
        zone: berlin(),
    }
}

fn quiet() -> QuietHours {
    QuietHours {
        from: Time::constant(20, 0, 0, 0),
        to: Time::constant(7, 0, 0, 0),
        zone: berlin(),
        days: Vec::new(),
    }
}

fn event(id: i64, time: Timestamp) -> Arriving<'static> {
    Arriving {
        id: EventId(id),
        time,
        throttle_key: "",
        group_key: "/srv/scans",
    }
}

#[test]
fn a_plain_rule_tells_at_once() {
    let now = at("2026-03-02T10:42:00+01:00");
    let arrival = arrive(
        &Telling::default(),
        true,
        Standing::default(),
        &event(1, now),
        now,
    );
    assert_eq!(arrival.decision, Decision::Tell(None));
    assert_eq!((arrival.window, arrival.reason.as_str()), (None, ""));
}

#[test]
fn a_group_says_when_it_is_due_and_others_do_not_move_that() {
    let telling = Telling {
        group: Some(group(300, 3)),
        ..Telling::default()
    };
    let now = at("2026-03-02T10:42:00+01:00");
    let mut standing = Standing::default();
    for (id, minutes, reason, due) in [
        (
            1,
            0,
            "joined the digest of /srv/scans, due 10:47",
            "2026-03-02T10:47:00+01:00",
        ),
        (
            2,
            4,
            "joined the digest of /srv/scans, due 10:47",
            "2026-03-02T10:47:00+01:00",
        ),
        (
            3,
            4,
            "filled the digest of /srv/scans (3 events), due now",
            "2026-03-02T10:46:00+01:00",
        ),
    ] {
        let now = now + SignedDuration::from_mins(minutes);
        let arrival = arrive(&telling, true, standing.clone(), &event(id, now), now);
        let Decision::Grouped(batch, when) = arrival.decision else {
            panic!("{arrival:?}");
        };
        assert_eq!((arrival.reason.as_str(), when), (reason, at(due)));
        standing.group = Some((batch, when));
    }
}

#[test]
fn times_of_day_are_those_of_the_zone_and_the_one_that_has_come_is_over() {
    let group = Group {
        at: vec![Time::constant(17, 0, 0, 0), Time::constant(9, 0, 0, 0)],
        ..group(300, 10)
    };
    for (now, due) in [
        ("2026-03-28T08:59:59+01:00", "2026-03-28T09:00:00+01:00"),
        ("2026-03-28T09:00:00+01:00", "2026-03-28T17:00:00+01:00"),
        ("2026-03-28T17:00:00+01:00", "2026-03-29T09:00:00+02:00"),
        ("2026-10-24T20:00:00+02:00", "2026-10-25T09:00:00+01:00"),
    ] {
        assert_eq!(group.due(at(now)), at(due), "{now}");
    }
}

#[test]
fn what_was_folded_goes_with_the_next_and_the_sentence_says_when_that_may_be() {
    let telling = Telling {
        throttle: Some(throttle(1, 3600)),
        ..Telling::default()
    };
    let start = at("2026-03-02T10:42:00+01:00");
    let mut window = None;
    for minute in 0..60 {
        let now = start + SignedDuration::from_mins(minute);
        let standing = Standing {
            window: window.clone(),
            ..Standing::default()
        };
        let arrival = arrive(&telling, true, standing, &event(minute, now), now);
        if minute == 7 {
            assert_eq!(
                arrival.reason,
                "1 mail in 1h was enough; counted, 7 so far, and told with the next mail that goes after 11:42"
            );
        }
        assert_eq!(arrival.decision == Decision::Throttled, minute > 0, "{minute}");
        window = arrival.window;
    }
    let now = start + SignedDuration::from_hours(1);
    let standing = Standing {
        window,
        ..Standing::default()
    };
    let arrival = arrive(&telling, true, standing, &event(99, now), now);
    let folded = Folded {
        count: 59,
        since: start + SignedDuration::from_mins(1),
    };
    assert_eq!(arrival.decision, Decision::Tell(Some(folded)));
    let window = arrival.window.unwrap();
    assert_eq!(window.folded, None);
    assert_eq!(
        window.due(telling.throttle.as_ref().unwrap()),
        Some(now + SignedDuration::from_hours(1))
    );
}

#[test]
fn good_news_is_neither_throttled_nor_grouped_but_waits_for_the_morning() {
    let telling = Telling {
        throttle: Some(throttle(1, 3600)),
        group: Some(group(300, 3)),
        quiet: Some(quiet()),
    };
    let day = at("2026-03-02T10:42:00+01:00");
    let arrival = arrive(&telling, false, Standing::default(), &event(1, day), day);
    assert_eq!((arrival.window, arrival.decision), (None, Decision::Tell(None)));
    let night = at("2026-03-02T23:42:00+01:00");
    let arrival = arrive(&telling, false, Standing::default(), &event(1, night), night);
    assert_eq!(arrival.reason, "quiet hours until 2026-03-03 07:00");
    assert!(matches!(arrival.decision, Decision::Quiet(_, _)));
}

#[test]
fn a_clock_that_went_back_throttles_no_longer_than_the_time_said() {
    let telling = Telling {
        throttle: Some(throttle(1, 60)),
        ..Telling::default()
    };
    let now = at("2026-03-02T10:00:00Z");
    let standing = Standing {
        window: Some(Window {
            sent: vec![at("2026-03-05T10:00:00Z")],
            folded: None,
        }),
        ..Standing::default()
    };
    let arrival = arrive(&telling, true, standing, &event(1, now), now);
    let window = arrival.window.unwrap();
    assert_eq!(arrival.decision, Decision::Throttled);
    let later = now + SignedDuration::from_secs(60);
    let standing = Standing {
        window: Some(window),
        ..Standing::default()
    };
    let arrival = arrive(&telling, true, standing, &event(2, later), later);
    assert!(matches!(arrival.decision, Decision::Tell(Some(_))));
}

#[test]
fn what_falls_due_in_quiet_hours_waits_for_their_end() {
    let telling = Telling {
        quiet: Some(quiet()),
        ..Telling::default()
    };
    let night = at("2026-03-02T23:42:00+01:00");
    let end = at("2026-03-03T07:00:00+01:00");
    assert_eq!(fall_due(&telling, What::Group, night).0, Due::Hold(end));
    assert_eq!(fall_due(&telling, What::Quiet, night).0, Due::Wait(end));
    assert_eq!(fall_due(&telling, What::Summary, night).0, Due::Wait(end));
    for what in [What::Group, What::Quiet, What::Summary] {
        assert_eq!(fall_due(&telling, what, end).0, Due::Release);
        assert_eq!(fall_due(&Telling::default(), what, night).0, Due::Release);
    }
}

/// The dispatcher in small: keeps what is returned, and wakes when something is due.
#[derive(Default)]
struct Small {
    window: Option<Window>,
    groups: BTreeMap<u8, (Batch, Timestamp, Vec<i64>)>,
    quiet: Option<(Batch, Timestamp, Vec<i64>)>,
    told: Vec<(Vec<i64>, Timestamp)>,
    throttled: Vec<i64>,
    folded_told: u64,
}

impl Small {
    fn tell(&mut self, ids: Vec<i64>, folded: Option<&Folded>, now: Timestamp) {
        self.folded_told += folded.map_or(0, |folded| folded.count);
        self.told.push((ids, now));
    }

    /// All that is due by `by`, each when it is.
    fn wake(&mut self, telling: &Telling, by: Timestamp) {
        loop {
            let group = self
                .groups
                .iter()
                .map(|(key, (_, due, _))| (*due, Some(*key)))
                .min();
            let quiet = self.quiet.as_ref().map(|(_, due, _)| (*due, None));
            let Some((due, key)) = group.into_iter().chain(quiet).min().filter(|(due, _)| *due <= by) else {
                return;
            };
            let what = if key.is_some() { What::Group } else { What::Quiet };
            let (batch, _, ids) = match key {
                Some(key) => self.groups.remove(&key).unwrap(),
                None => self.quiet.take().unwrap(),
            };
            match fall_due(telling, what, due).0 {
                Due::Release => self.tell(ids, batch.folded.as_ref(), due),
                Due::Hold(until) | Due::Wait(until) => {
                    assert!(until > due);
                    let (batch, all) = match self.quiet.take() {
                        Some((standing, _, mut all)) => {
                            all.extend(ids);
                            (standing.and(batch), all)
                        }
                        None => (batch, ids),
                    };
                    assert_eq!(batch.count, all.len());
                    self.quiet = Some((batch, until, all));
                }
            }
        }
    }

    fn arrive(&mut self, telling: &Telling, id: i64, key: u8, now: Timestamp) {
        let group = self.groups.get(&key);
        let standing = Standing {
            window: self.window.clone(),
            group: group.map(|(batch, due, _)| (batch.clone(), *due)),
            quiet: self.quiet.as_ref().map(|(batch, _, _)| batch.clone()),
        };
        let name = key.to_string();
        let arriving = Arriving {
            group_key: &name,
            ..event(id, now)
        };
        let arrival = arrive(telling, true, standing, &arriving, now);
        if let Some(window) = arrival.window {
            self.window = Some(window);
        }
        match arrival.decision {
            Decision::Tell(folded) => self.tell(vec![id], folded.as_ref(), now),
            Decision::Throttled => self.throttled.push(id),
            Decision::Grouped(batch, due) => {
                let mut ids = self
                    .groups
                    .remove(&key)
                    .map(|(_, _, ids)| ids)
                    .unwrap_or_default();
                ids.push(id);
                self.groups.insert(key, (batch, due, ids));
            }
            Decision::Quiet(batch, due) => {
                let mut ids = self.quiet.take().map(|(_, _, ids)| ids).unwrap_or_default();
                ids.push(id);
                self.quiet = Some((batch, due, ids));
            }
        }
    }
}

proptest! {
    #[test]
    fn no_event_is_in_two_mails_none_is_lost_and_none_is_late(
        throttles in prop::option::of((1_usize..4, 1_u64..7200)),
        groups in prop::option::of((1_u64..7200, 1_usize..6)),
        keeps_quiet in any::<bool>(),
        start in 1_774_600_000_i64..1_774_900_000,
        steps in prop::collection::vec((0_i64..5000, 0_u8..3), 1..120),
    ) {
        let telling = Telling {
            throttle: throttles.map(|(at_most, per)| throttle(at_most, per)),
            group: groups.map(|(wait, max)| group(wait, max)),
            quiet: keeps_quiet.then(quiet),
        };
        let mut small = Small::default();
        let mut now = Timestamp::from_second(start).unwrap();
        let mut came = BTreeMap::new();
        for (id, (step, key)) in (0_i64..).zip(steps) {
            now += SignedDuration::from_secs(step);
            small.wake(&telling, now);
            small.arrive(&telling, id, key, now);
            small.wake(&telling, now);
            came.insert(id, now);
        }
        small.wake(&telling, now + SignedDuration::from_hours(72));
        let mut seen = BTreeSet::new();
        for (ids, when) in &small.told {
            for id in ids {
                prop_assert!(seen.insert(*id), "{} twice", id);
                let wait = groups.map_or(0, |(wait, _)| i64::try_from(wait).unwrap());
                let due = came[id] + SignedDuration::from_secs(wait);
                // Not later than its group was due, unless that was at night; then in the morning.
                let due = telling.quiet.as_ref().and_then(|quiet| quiet.until(due)).unwrap_or(due);
                prop_assert!(*when <= due, "{} came {} and was told {}", id, came[id], when);
                prop_assert!(telling.quiet.as_ref().is_none_or(|quiet| quiet.until(*when).is_none()));
            }
            if let Some((_, max)) = groups
                && !keeps_quiet
            {
                prop_assert!(ids.len() <= max);
            }
        }
        for id in &small.throttled {
            prop_assert!(seen.insert(*id), "{} twice", id);
        }
        prop_assert_eq!(seen.len(), came.len());
        let left = small.window.and_then(|window| window.folded).map_or(0, |folded| folded.count);
        prop_assert_eq!(small.folded_told + left, small.throttled.len() as u64);
    }
}
