use super::*;
use jiff::civil::time;
use proptest::prelude::*;

const HOUR: Duration = Duration::from_secs(3_600);

fn berlin() -> TimeZone {
    TimeZone::get("Europe/Berlin").unwrap()
}

fn at(text: &str) -> Timestamp {
    format!("{text}[Europe/Berlin]")
        .parse::<jiff::Zoned>()
        .unwrap()
        .timestamp()
}

fn remind(every: Duration, hours: Option<(Time, Time)>) -> Ladder {
    Ladder {
        remind: Some(Remind {
            every,
            hours: hours.map(|(from, until)| Hours { from, until }),
            at_most: None,
        }),
        escalate: Vec::new(),
    }
}

fn rung(after: Duration) -> Rung {
    Rung {
        after,
        mails: Vec::new(),
    }
}

/// Asks exactly when told to, and says what was said when, in local time.
fn story(ladder: &Ladder, begun: &str, times: usize) -> Vec<String> {
    let mut now = at(begun);
    let mut climbed = Climbed::begun(now);
    let mut told = Vec::new();
    for _ in 0..times {
        let next = next(ladder, climbed, &berlin(), now);
        for say in &next.say {
            let local = now.to_zoned(berlin()).strftime("%a %H:%M").to_string();
            told.push(match say {
                Say::Reminder(number) => format!("{local} reminder {number}"),
                Say::Rung(place) => format!("{local} rung {place}"),
            });
        }
        climbed = next.climbed;
        match next.due {
            Some(due) => {
                assert!(due > now, "asks again at once");
                now = due;
            }
            None => break,
        }
    }
    told
}

#[test]
fn reminders_come_every_so_often_and_go_on_the_next_morning() {
    let day = Some((time(8, 0, 0, 0), time(18, 0, 0, 0)));
    assert_eq!(
        story(&remind(2 * HOUR, day), "2026-03-02T09:15", 9),
        [
            "Mon 11:15 reminder 1",
            "Mon 13:15 reminder 2",
            "Mon 15:15 reminder 3",
            "Mon 17:15 reminder 4",
            "Tue 08:00 reminder 5",
            "Tue 10:00 reminder 6",
            "Tue 12:00 reminder 7",
            "Tue 14:00 reminder 8",
        ]
    );
}

#[test]
fn the_end_of_the_hours_is_still_within_them() {
    let day = Some((time(8, 0, 0, 0), time(18, 0, 0, 0)));
    assert_eq!(
        story(&remind(2 * HOUR, day), "2026-03-02T16:00", 3),
        ["Mon 18:00 reminder 1", "Tue 08:00 reminder 2"]
    );
}

#[test]
fn hours_may_go_over_midnight() {
    let night = Some((time(22, 0, 0, 0), time(2, 0, 0, 0)));
    assert_eq!(
        story(&remind(3 * HOUR, night), "2026-03-02T20:00", 5),
        [
            "Mon 23:00 reminder 1",
            "Tue 02:00 reminder 2",
            "Tue 22:00 reminder 3",
            "Wed 01:00 reminder 4",
        ]
    );
}

#[test]
fn the_night_the_clocks_change_neither_loses_nor_doubles_a_reminder() {
    let early = Some((time(2, 30, 0, 0), time(18, 0, 0, 0)));
    // 2026-03-29: 02:00 becomes 03:00, so 02:30 is at 03:30.
    assert_eq!(
        story(&remind(12 * HOUR, early), "2026-03-28T12:00", 4),
        [
            "Sun 03:30 reminder 1",
            "Sun 15:30 reminder 2",
            "Mon 03:30 reminder 3"
        ]
    );
}

#[test]
fn rungs_come_once_each_and_in_order_at_any_hour() {
    let ladder = Ladder {
        remind: Some(Remind {
            every: 2 * HOUR,
            hours: Some(Hours {
                from: time(8, 0, 0, 0),
                until: time(18, 0, 0, 0),
            }),
            at_most: Some(2),
        }),
        escalate: vec![rung(3 * HOUR), rung(10 * HOUR)],
    };
    assert_eq!(
        story(&ladder, "2026-03-02T14:00", 20),
        [
            "Mon 16:00 reminder 1",
            "Mon 17:00 rung 0",
            "Mon 18:00 reminder 2",
            "Tue 00:00 rung 1",
        ]
    );
}

#[test]
fn after_a_long_downtime_there_is_one_reminder_and_every_rung_that_came_due() {
    let ladder = Ladder {
        escalate: vec![rung(3 * HOUR), rung(6 * HOUR), rung(1000 * HOUR)],
        ..remind(2 * HOUR, None)
    };
    let begun = Climbed::begun(at("2026-03-02T09:00"));
    let now = at("2026-03-05T09:30");
    let back = next(&ladder, begun, &berlin(), now);
    assert_eq!(back.say, [Say::Reminder(1), Say::Rung(0), Say::Rung(1)]);
    assert_eq!(back.due, Some(at("2026-03-05T11:30")));
    // Asked again at once, it has nothing to say.
    assert_eq!(next(&ladder, back.climbed, &berlin(), now).say, []);
}

#[test]
fn who_comes_back_at_night_waits_for_the_hours_to_begin() {
    let day = Some((time(8, 0, 0, 0), time(18, 0, 0, 0)));
    let begun = Climbed::begun(at("2026-03-02T09:00"));
    let back = next(&remind(2 * HOUR, day), begun, &berlin(), at("2026-03-03T03:00"));
    assert_eq!(back.say, []);
    assert_eq!(back.due, Some(at("2026-03-03T08:00")));
}

#[test]
fn a_little_late_is_not_later_the_next_time() {
    let begun = Climbed::begun(at("2026-03-02T09:00"));
    let said = next(&remind(2 * HOUR, None), begun, &berlin(), at("2026-03-02T11:04"));
    assert_eq!(said.say, [Say::Reminder(1)]);
    assert_eq!(said.due, Some(at("2026-03-02T13:00")));
}

#[test]
fn a_ladder_that_was_shortened_meanwhile_says_nothing_more() {
    let ladder = Ladder {
        remind: None,
        escalate: vec![rung(HOUR)],
    };
    let climbed = Climbed {
        rungs: 3,
        ..Climbed::begun(at("2026-03-02T09:00"))
    };
    let said = next(&ladder, climbed, &berlin(), at("2026-03-04T09:00"));
    assert_eq!((said.say, said.due), (Vec::new(), None));
}

proptest! {
    #[test]
    fn whenever_it_is_asked_numbers_rise_by_one_and_reminders_keep_their_hours(
        every in 1u64..200_000,
        hours in proptest::option::of((0i8..24, 0i8..24)),
        most in proptest::option::of(1u32..6),
        rungs in proptest::collection::vec(1u64..300_000, 0..4),
        steps in proptest::collection::vec(-50_000i64..400_000, 1..40),
    ) {
        let mut rungs = rungs;
        rungs.sort_unstable();
        rungs.dedup();
        let hours = hours.map(|(from, until)| Hours { from: time(from, 0, 0, 0), until: time(until, 0, 0, 0) });
        let ladder = Ladder {
            remind: Some(Remind { every: Duration::from_secs(every), hours, at_most: most }),
            escalate: rungs.iter().map(|after| rung(Duration::from_secs(*after))).collect(),
        };
        let begun = at("2026-03-27T09:00");
        let mut now = begun;
        let mut climbed = Climbed::begun(now);
        let (mut reminders, mut said_rungs) = (0, 0);
        for step in steps {
            now = now.checked_add(SignedDuration::from_secs(step)).unwrap();
            let next = next(&ladder, climbed, &berlin(), now);
            for say in &next.say {
                match say {
                    Say::Reminder(number) => {
                        reminders += 1;
                        prop_assert_eq!(*number, reminders);
                        let local = now.to_zoned(berlin()).time();
                        prop_assert!(hours.is_none_or(|hours| hours.contain(local)), "{} is outside", local);
                        prop_assert!(most.is_none_or(|most| reminders <= most));
                    }
                    Say::Rung(place) => {
                        prop_assert_eq!(*place, said_rungs);
                        said_rungs += 1;
                        prop_assert!(now >= after(begun, ladder.escalate[*place].after));
                    }
                }
            }
            prop_assert!(next.due.is_none_or(|due| due > now), "it would be asked again at once");
            let all = most.is_some_and(|most| reminders == most) && said_rungs == ladder.escalate.len();
            prop_assert_eq!(next.due.is_none(), all);
            climbed = next.climbed;
        }
    }
}
