use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn schedule(cron: Option<&str>, every: Option<u64>, zone: &str, missed: Missed) -> Schedule {
    Schedule::compile(&ScheduleSpec {
        cron,
        every: every.map(Duration::from_secs),
        timezone: TimeZone::get(zone).unwrap(),
        missed,
    })
    .unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// The first `n` slots after `start`, as wall times with offset.
fn slots(schedule: &Schedule, start: &str, n: usize) -> Vec<String> {
    std::iter::successors(schedule.next(at(start)), |slot| schedule.next(*slot))
        .take(n)
        .map(|slot| {
            slot.to_zoned(schedule.zone.clone())
                .strftime("%m-%dT%H:%M%:z")
                .to_string()
        })
        .collect()
}

#[test]
fn a_time_in_the_spring_gap_is_due_at_its_end() {
    let nightly = schedule(Some("30 2 * * *"), None, "Europe/Berlin", Missed::Once);
    assert_eq!(
        slots(&nightly, "2026-03-28T00:00:00Z", 3),
        ["03-28T02:30+01:00", "03-29T03:00+02:00", "03-30T02:30+02:00"]
    );
    // Two named hours are no interval: neither is lost.
    let twice = schedule(Some("0 2,14 * * *"), None, "Europe/Berlin", Missed::Once);
    assert_eq!(
        slots(&twice, "2026-03-28T22:00:00Z", 2),
        ["03-29T03:00+02:00", "03-29T14:00+02:00"]
    );
    // Half an hour on Lord Howe.
    let howe = schedule(Some("15 2 * * *"), None, "Australia/Lord_Howe", Missed::Once);
    assert_eq!(slots(&howe, "2026-10-03T00:00:00Z", 1), ["10-04T02:30+11:00"]);
}

#[test]
fn a_doubled_time_is_due_once() {
    let nightly = schedule(Some("30 2 * * *"), None, "Europe/Berlin", Missed::Once);
    assert_eq!(
        slots(&nightly, "2026-10-24T12:00:00Z", 2),
        ["10-25T02:30+02:00", "10-26T02:30+01:00"]
    );
    // Also asked from between the two.
    assert_eq!(slots(&nightly, "2026-10-25T00:45:00Z", 1), ["10-26T02:30+01:00"]);
}

#[test]
fn an_hourly_pattern_keeps_its_pace_through_both_changes() {
    let hourly = schedule(Some("0 * * * *"), None, "Europe/Berlin", Missed::Once);
    assert_eq!(
        slots(&hourly, "2026-03-28T23:30:00Z", 3),
        ["03-29T01:00+01:00", "03-29T03:00+02:00", "03-29T04:00+02:00"]
    );
    assert_eq!(
        slots(&hourly, "2026-10-24T23:30:00Z", 3),
        ["10-25T02:00+02:00", "10-25T02:00+01:00", "10-25T03:00+01:00"]
    );
}

#[test]
fn a_day_that_was_left_out_altogether_shifts_its_slot_to_the_next_morning() {
    let daily = schedule(Some("0 9 * * *"), None, "Pacific/Apia", Missed::Once);
    assert_eq!(
        slots(&daily, "2011-12-29T12:00:00Z", 3),
        ["12-29T09:00-10:00", "12-31T00:00+14:00", "12-31T09:00+14:00"]
    );
}

#[test]
fn intervals_stand_on_the_calendar_not_on_the_start() {
    let quarter = schedule(None, Some(900), "Europe/Berlin", Missed::Once);
    assert_eq!(
        slots(&quarter, "2026-01-01T10:07:31Z", 2),
        ["01-01T11:15+01:00", "01-01T11:30+01:00"]
    );
    let six = schedule(None, Some(6 * 3600), "Europe/Berlin", Missed::Once);
    assert_eq!(
        slots(&six, "2026-10-24T22:00:00Z", 4),
        [
            "10-25T06:00+01:00",
            "10-25T12:00+01:00",
            "10-25T18:00+01:00",
            "10-26T00:00+01:00"
        ]
    );
    let daily = schedule(None, Some(86_400), "Europe/Berlin", Missed::Once);
    assert_eq!(
        slots(&daily, "2026-10-24T10:00:00Z", 3),
        ["10-25T00:00+02:00", "10-26T00:00+01:00", "10-27T00:00+01:00"]
    );
    let kolkata = schedule(None, Some(3600), "Asia/Kolkata", Missed::Once);
    assert_eq!(slots(&kolkata, "2026-01-01T00:00:00Z", 1), ["01-01T06:00+05:30"]);
    let odd = schedule(None, Some(7 * 3600), "UTC", Missed::Once);
    let first = odd.next(at("2026-01-01T00:00:00Z")).unwrap();
    assert_eq!(first.as_second() % (7 * 3600), 0);
}

#[test]
fn a_pattern_that_never_comes_is_refused_with_a_hint() {
    for pattern in ["0 0 31 2 *", "0 0 30 2 *", "0 0 31 4,6,9,11 *", "* * 31 2 *"] {
        let error = Schedule::compile(&ScheduleSpec {
            cron: Some(pattern),
            every: None,
            timezone: TimeZone::UTC,
            missed: Missed::Once,
        })
        .unwrap_err();
        assert!(error.message.contains("never comes"), "{error}");
        assert!(error.hint.contains("February"));
    }
    for pattern in [
        "",
        "* * *",
        "61 * * * *",
        "a b c d e",
        "0 0 1 1 * 2031",
        "5/5 * * * *",
        "0 0 * * * * *",
    ] {
        let spec = ScheduleSpec {
            cron: Some(pattern),
            every: None,
            timezone: TimeZone::UTC,
            missed: Missed::Once,
        };
        assert!(Schedule::compile(&spec).is_err(), "{pattern}");
    }
    let leap = schedule(Some("0 0 29 2 *"), None, "UTC", Missed::Once);
    assert_eq!(
        leap.next(at("2026-01-01T00:00:00Z")),
        Some(at("2028-02-29T00:00:00Z"))
    );
}

#[test]
fn nothing_before_the_first_look_is_due() {
    let minutely = schedule(Some("* * * * *"), None, "UTC", Missed::All);
    let now = at("2026-01-01T10:00:30Z");
    assert_eq!(minutely.due(None, now, GRACE), (vec![], now));
}

#[test]
fn the_policy_decides_about_slots_nobody_saw() {
    let (until, now) = (at("2026-01-01T10:00:30Z"), at("2026-01-01T15:00:00.2Z"));
    let due = |missed| {
        schedule(Some("0 * * * *"), None, "UTC", missed)
            .due(Some(until), now, GRACE)
            .0
    };
    let all = due(Missed::All);
    assert_eq!(all.len(), 5);
    assert_eq!(
        all.iter().map(|slot| slot.missed).collect::<Vec<_>>(),
        [true, true, true, true, false]
    );
    let once = due(Missed::Once);
    assert_eq!(
        (once.len(), once[0].due, once[0].missed),
        (1, at("2026-01-01T15:00:00Z"), true)
    );
    let skip = due(Missed::Skip);
    assert_eq!((skip.len(), skip[0].missed), (1, false));
    let later = schedule(Some("0 * * * *"), None, "UTC", Missed::Skip).due(
        Some(until),
        at("2026-01-01T15:10:00Z"),
        GRACE,
    );
    assert_eq!(later, (vec![], at("2026-01-01T15:10:00Z")));
}

#[test]
fn a_year_of_missed_seconds_is_made_up_in_bounded_work() {
    let begun = std::time::Instant::now();
    let secondly = schedule(Some("* * * * * *"), None, "Europe/Berlin", Missed::All);
    let (slots, _) = secondly.due(
        Some(at("2025-01-01T00:00:00Z")),
        at("2026-01-01T00:00:00Z"),
        GRACE,
    );
    assert_eq!(slots.len(), CAP);
    assert_eq!(slots.last().unwrap().due, at("2026-01-01T00:00:00Z"));
    assert!(begun.elapsed() < Duration::from_secs(5));
}

/// Slots by walking through every minute of real time; slow, and written another way.
fn oracle(
    minute: i8,
    hours: &[i8],
    hourly: bool,
    zone: &TimeZone,
    from: Timestamp,
    to: Timestamp,
) -> BTreeSet<Timestamp> {
    let mut found = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut now = from;
    let mut before = from.to_zoned(zone.clone()).datetime();
    while now < to {
        now += SignedDuration::from_mins(1);
        let wall = now.to_zoned(zone.clone()).datetime();
        let fits = |wall: DateTime| wall.minute() == minute && (hourly || hours.contains(&wall.hour()));
        if fits(wall) && (hourly || seen.insert(wall)) {
            found.insert(now);
        }
        // Wall minutes that were jumped over.
        let mut skipped = before.checked_add(1.minute()).unwrap();
        while !hourly && skipped < wall {
            if fits(skipped) && seen.insert(skipped) {
                found.insert(now);
            }
            skipped = skipped.checked_add(1.minute()).unwrap();
        }
        before = wall;
    }
    found
}

#[test]
fn slots_are_those_of_a_slow_oracle_around_every_change_of_offset() {
    let zones = [
        "Europe/Berlin",
        "Europe/London",
        "America/New_York",
        "America/St_Johns",
        "Australia/Lord_Howe",
        "America/Santiago",
        "Africa/Casablanca",
        "Africa/Cairo",
        "Asia/Beirut",
        "Pacific/Chatham",
        "UTC",
    ];
    let patterns: [(i8, &[i8]); 6] = [
        (0, &[0]),
        (30, &[2]),
        (0, &[2, 14]),
        (15, &[1, 2, 3]),
        (59, &[23]),
        (30, &[]),
    ];
    for zone in zones {
        let zone = TimeZone::get(zone).unwrap();
        let start = at("2019-01-01T00:00:00Z");
        let changes: Vec<Timestamp> = zone
            .following(start)
            .map(|change| change.timestamp())
            .take_while(|change| *change < at("2041-01-01T00:00:00Z"))
            .step_by(3)
            .collect();
        for change in changes {
            let (from, to) = (
                change - SignedDuration::from_hours(26),
                change + SignedDuration::from_hours(26),
            );
            for (minute, hours) in patterns {
                let text = match hours {
                    [] => format!("{minute} * * * *"),
                    hours => format!(
                        "{minute} {} * * *",
                        hours.iter().map(i8::to_string).collect::<Vec<_>>().join(",")
                    ),
                };
                let schedule = Schedule::compile(&ScheduleSpec {
                    cron: Some(&text),
                    every: None,
                    timezone: zone.clone(),
                    missed: Missed::All,
                })
                .unwrap();
                let ours: BTreeSet<Timestamp> =
                    std::iter::successors(schedule.next(from), |slot| schedule.next(*slot))
                        .take_while(|slot| *slot <= to)
                        .collect();
                let theirs = oracle(minute, hours, hours.is_empty(), &zone, from, to);
                assert_eq!(ours, theirs, "{text} in {zone:?} around {change}");
            }
        }
    }
}

proptest! {
    #[test]
    fn next_is_later_and_nothing_lies_between(
        cron in prop::option::of((0..60_u8, 0..24_u8)), every in 1..200_000_u64,
        start in 1_500_000_000..2_200_000_000_i64, zone in 0..4_usize,
    ) {
        let zone = ["Europe/Berlin", "Australia/Lord_Howe", "America/Santiago", "UTC"][zone];
        let text = cron.map(|(minute, hour)| format!("{minute} {hour} * * *"));
        let schedule = schedule(text.as_deref(), text.is_none().then_some(every), zone, Missed::All);
        let start = Timestamp::from_second(start).unwrap();
        let next = schedule.next(start).unwrap();
        prop_assert!(next > start);
        // From any place between, the answer is the same.
        let middle = start + next.duration_since(start) / 2;
        prop_assert_eq!(schedule.next(middle), if middle < next { Some(next) } else { schedule.next(next) });
    }

    #[test]
    fn every_slot_since_the_first_look_is_taken_when_all_are_wanted(
        steps in prop::collection::vec((-4_000..9_000_i64, any::<bool>()), 1..60),
    ) {
        let schedule = schedule(Some("*/10 * * * *"), None, "Europe/Berlin", Missed::All);
        let start = at("2026-10-24T22:00:00Z");
        let (_, mut until) = schedule.due(None, start, GRACE);
        let (mut now, mut furthest) = (start, start);
        let mut journal = BTreeSet::new();
        for (step, stays) in steps {
            now = (now + SignedDuration::from_secs(step)).max(start);
            furthest = furthest.max(now);
            let (slots, next) = schedule.due(Some(until), now, GRACE);
            prop_assert!(slots.iter().all(|slot| slot.due > until && slot.due <= now));
            journal.extend(slots.iter().map(|slot| slot.due));
            // A crash before the commit: the memory is the old one.
            if stays {
                until = next;
            }
        }
        let (slots, _) = schedule.due(Some(until), furthest, GRACE);
        journal.extend(slots.iter().map(|slot| slot.due));
        let all: BTreeSet<Timestamp> = std::iter::successors(schedule.next(start), |slot| schedule.next(*slot))
            .take_while(|slot| *slot <= furthest)
            .collect();
        prop_assert_eq!(journal, all);
    }
}
