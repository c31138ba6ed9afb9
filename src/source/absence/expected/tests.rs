use super::*;
use crate::source::absence::deadline::{Days, time_of_day, week_days};
use jiff::tz::TimeZone;
use proptest::prelude::*;

/// Every day at 07:00 UTC, with ten minutes of grace.
fn daily(count: u32) -> Expected {
    Expected {
        rhythm: Rhythm::By(Daily {
            at: time_of_day("07:00").unwrap(),
            days: Days::all(),
            zone: TimeZone::UTC,
        }),
        by: "07:00".to_owned(),
        grace: Duration::from_secs(600),
        count,
        tell_missed: true,
    }
}

fn every(hours: u64, count: u32) -> Expected {
    Expected {
        rhythm: Rhythm::Every(Every {
            every: Duration::from_secs(hours * 3600),
            days: Days::all(),
            zone: TimeZone::UTC,
        }),
        grace: Duration::ZERO,
        ..daily(count)
    }
}

/// Day of November 2026 (a Monday is the 2nd) and time of day.
fn at(text: &str) -> Timestamp {
    let (day, time) = text.split_once(' ').unwrap();
    format!("2026-11-{day}T{time}:00Z").parse().unwrap()
}

fn came(text: &str) -> Arrival {
    Arrival {
        at: at(text),
        known: at(text),
        event: Some(1),
    }
}

fn look(certain: &str) -> Look {
    Look {
        certain: Some(at(certain)),
        up_since: at("01 00:00"),
        late: Duration::from_secs(60),
    }
}

/// What happens to cases, in short: `+03 07:00`, `-03 07:00 1h`.
fn shown(steps: Vec<Step>) -> Vec<String> {
    let day = |time: Timestamp| time.to_zoned(TimeZone::UTC).strftime("%d %H:%M").to_string();
    let each = steps.into_iter().map(|step| match step {
        Step::Opens(open) => format!("+{} {}", day(open.deadline), open.found),
        Step::Closes { open, late, .. } => format!("-{} {}m", day(open.deadline), late / 60),
        Step::GivenUp(open) => format!("!{}", day(open.deadline)),
    });
    each.collect()
}

/// A run: what came in each look, and up to when all is known then.
fn run(expected: &Expected, begins: &str, looks: &[(&[&str], &str)]) -> Vec<Vec<String>> {
    let mut progress = Progress::begin(expected, at(begins));
    progress.primed = true;
    let mut all = Vec::new();
    for (arrivals, certain) in looks {
        let arrivals = arrivals.iter().map(|text| came(text)).collect();
        all.push(shown(expected.step(&mut progress, arrivals, &look(certain))));
        // What is kept is all there is.
        let kept = serde_json::to_value(&progress).unwrap();
        assert_eq!(serde_json::from_value::<Progress>(kept).unwrap(), progress);
    }
    all
}

fn steps(expected: &Expected, begins: &str, looks: &[(&[&str], &str)]) -> Vec<String> {
    run(expected, begins, looks).concat()
}

#[test]
fn what_came_in_the_window_or_in_the_grace_is_in_time() {
    assert!(steps(&daily(1), "02 08:00", &[(&["02 09:00"], "03 08:00")]).is_empty());
    assert!(steps(&daily(1), "02 08:00", &[(&["03 07:00"], "03 08:00")]).is_empty());
    assert!(steps(&daily(1), "02 08:00", &[(&["03 07:10"], "03 08:00")]).is_empty());
}

#[test]
fn nothing_is_decided_before_the_grace_is_over_and_all_is_known() {
    let expected = daily(1);
    let all = run(
        &expected,
        "02 08:00",
        &[(&[], "03 07:09"), (&[], "03 07:10"), (&[], "03 07:11")],
    );
    assert_eq!(all, [vec![], vec!["+03 07:00 0".to_owned()], vec![]]);
    assert_eq!(
        expected.wake(&Progress::begin(&expected, at("02 08:00"))),
        Some(at("03 07:10"))
    );
}

#[test]
fn what_comes_late_closes_the_case_says_how_late_and_does_not_count_for_the_next() {
    let looks: [(&[&str], &str); 3] = [(&[], "03 07:30"), (&["03 08:30"], "03 08:31"), (&[], "04 07:30")];
    assert_eq!(
        steps(&daily(1), "02 08:00", &looks),
        ["+03 07:00 0", "-03 07:00 90m", "+04 07:00 0"]
    );
}

#[test]
fn a_day_that_was_left_out_does_not_make_every_day_after_it_late() {
    // Nothing on the 3rd; from then on each file comes an hour before its deadline.
    let looks: [(&[&str], &str); 4] = [
        (&[], "03 07:30"),
        (&["04 06:00"], "04 07:30"),
        (&["05 06:00"], "05 07:30"),
        (&["06 06:00"], "06 07:30"),
    ];
    assert_eq!(
        steps(&daily(1), "02 08:00", &looks),
        ["+03 07:00 0", "-03 07:00 1380m"]
    );
}

#[test]
fn what_comes_before_it_is_known_whether_it_is_late_waits() {
    // The folder was away at the deadline; an event of 09:00 is known, but not yet what came before.
    let looks: [(&[&str], &str); 2] = [(&["03 09:00"], "03 06:00"), (&["03 06:50"], "03 09:10")];
    assert!(steps(&daily(1), "02 08:00", &looks).is_empty());
    let looks: [(&[&str], &str); 2] = [(&["03 09:00"], "03 06:00"), (&[], "03 09:10")];
    assert_eq!(
        steps(&daily(1), "02 08:00", &looks),
        ["+03 07:00 0", "-03 07:00 120m"]
    );
}

#[test]
fn three_of_five_is_too_few_and_the_fifth_closes() {
    let looks: [(&[&str], &str); 3] = [
        (&["02 10:00", "02 11:00", "03 06:00"], "03 07:30"),
        (&["03 08:00"], "03 08:00"),
        (&["03 08:10"], "03 08:20"),
    ];
    assert_eq!(
        steps(&daily(5), "02 08:00", &looks),
        ["+03 07:00 3", "-03 07:00 70m"]
    );
}

#[test]
fn what_comes_in_the_grace_when_all_is_there_counts_for_the_next() {
    let looks: [(&[&str], &str); 2] = [(&["03 06:00", "03 07:05"], "03 07:30"), (&[], "04 07:30")];
    assert!(steps(&daily(1), "02 08:00", &looks).is_empty());
}

#[test]
fn deadlines_that_passed_while_nobody_looked_are_judged_by_what_is_found() {
    let looks: [(&[&str], &str); 1] = [(&["03 06:00", "04 09:00"], "06 07:30")];
    assert_eq!(
        steps(&daily(1), "02 08:00", &looks),
        ["+04 07:00 0", "-04 07:00 120m", "+05 07:00 0", "+06 07:00 0"]
    );
    let skip = Expected {
        tell_missed: false,
        ..daily(1)
    };
    let mut progress = Progress::begin(&skip, at("02 08:00"));
    progress.primed = true;
    let late = Look {
        up_since: at("05 12:00"),
        ..look("06 07:30")
    };
    assert_eq!(shown(skip.step(&mut progress, vec![], &late)), ["+06 07:00 0"]);
}

#[test]
fn working_days_only() {
    let mut expected = daily(1);
    expected.rhythm = Rhythm::By(Daily {
        at: time_of_day("07:00").unwrap(),
        days: Days::new(week_days("mon-fri").unwrap(), vec![]),
        zone: TimeZone::UTC,
    });
    // Friday the 6th, then Monday the 9th.
    let looks: [(&[&str], &str); 3] = [(&["06 06:00"], "06 07:30"), (&[], "08 23:00"), (&[], "09 07:30")];
    assert_eq!(steps(&expected, "05 08:00", &looks), ["+09 07:00 0"]);
    let looks: [(&[&str], &str); 2] = [(&["06 06:00"], "06 07:30"), (&["07 12:00"], "09 07:30")];
    assert!(
        steps(&expected, "05 08:00", &looks).is_empty(),
        "Saturday is in Monday's window"
    );
}

#[test]
fn so_long_after_the_last_one() {
    let looks: [(&[&str], &str); 4] = [
        (&["02 10:00"], "03 09:59"),
        (&[], "03 10:00"),
        (&["03 15:00"], "03 15:00"),
        (&[], "04 15:00"),
    ];
    assert_eq!(
        steps(&every(24, 1), "02 08:00", &looks),
        ["+03 10:00 0", "-03 10:00 300m", "+04 15:00 0"]
    );
}

#[test]
fn so_many_within_a_time() {
    let looks: [(&[&str], &str); 3] = [
        (&["02 10:00", "02 11:00"], "03 08:00"),
        (&["03 08:30"], "03 08:30"),
        (&["03 10:30"], "03 10:30"),
    ];
    // Of three, two came in the first day; the third closes it; and when the first is a day old, only two are left.
    let found = steps(&every(24, 3), "02 08:00", &looks);
    assert_eq!(
        found,
        ["+03 08:00 2", "-03 08:00 30m", "+03 10:00 2", "-03 10:00 30m"]
    );
}

#[test]
fn what_lay_there_when_it_began_counts_if_it_is_not_too_old() {
    let prime = |expected: &Expected, begins: &str, there: &[&str], certain: &str| {
        let mut progress = Progress::begin(expected, at(begins));
        let there = there.iter().map(|text| came(text)).collect();
        let first = expected.prime(&mut progress, there, &look(certain));
        assert!(progress.primed);
        (shown(first), expected.wake(&progress))
    };
    assert!(
        prime(&daily(1), "03 06:30", &["03 05:00"], "03 07:30")
            .0
            .is_empty()
    );
    assert_eq!(
        prime(&daily(1), "03 06:30", &["02 05:00"], "03 07:30").0,
        ["+03 07:00 0"]
    );
    // Began before the deadline, found after it, changed after it.
    assert_eq!(
        prime(&daily(1), "03 06:30", &["03 07:20"], "03 07:30").0,
        ["+03 07:00 0", "-03 07:00 20m"]
    );
    let (steps, wake) = prime(
        &every(24, 1),
        "03 06:00",
        &["01 10:00", "03 01:00", "02 23:00"],
        "03 06:01",
    );
    assert_eq!((steps, wake), (vec![], Some(at("04 01:00"))));
    let (steps, wake) = prime(&every(24, 1), "03 06:00", &["01 10:00"], "03 06:01");
    assert_eq!(
        (steps, wake),
        (vec![], Some(at("04 06:00"))),
        "too old: its time begins now"
    );
}

#[test]
fn a_file_found_after_a_pause_came_when_it_was_changed() {
    let file = |mtime: &str| FileRef {
        root: "/srv".into(),
        relative: "a".into(),
        size: 1,
        mtime_ns: i64::try_from(at(mtime).as_nanosecond()).unwrap(),
    };
    let when =
        |mtime, looked: Option<&str>| Arrival::of_file(&file(mtime), at("03 12:00"), looked.map(at), None).at;
    assert_eq!(when("03 06:00", Some("03 05:00")), at("03 06:00"));
    assert_eq!(
        when("01 06:00", Some("03 05:00")),
        at("03 05:00"),
        "moved in with an old time"
    );
    assert_eq!(
        when("09 06:00", Some("03 05:00")),
        at("03 12:00"),
        "a time that is to come"
    );
    assert_eq!(when("03 06:00", None), at("03 12:00"));
}

#[test]
fn years_of_missed_deadlines_are_not_all_made_up_for() {
    let mut progress = Progress::begin(&daily(1), at("02 08:00"));
    progress.primed = true;
    let years = Look {
        certain: Some("2036-11-02T08:00:00Z".parse().unwrap()),
        up_since: at("01 00:00"),
        late: Duration::ZERO,
    };
    let steps = daily(1).step(&mut progress, vec![], &years);
    assert_eq!(steps.len(), MOST);
    assert_eq!(progress.open.len(), MOST);
}

#[test]
fn when_too_much_is_missing_the_oldest_is_given_up() {
    let mut progress = Progress::begin(&daily(1), at("02 08:00"));
    progress.primed = true;
    let mut given_up = 0;
    for day in 0..i64::try_from(MOST).unwrap() + 5 {
        let certain = at("03 08:00") + SignedDuration::from_hours(24 * day);
        let look = Look {
            certain: Some(certain),
            ..look("03 08:00")
        };
        let steps = daily(1).step(&mut progress, vec![], &look);
        given_up += steps
            .iter()
            .filter(|step| matches!(step, Step::GivenUp(_)))
            .count();
    }
    assert_eq!((given_up, progress.open.len()), (5, MOST));
}

proptest! {
    /// Whatever comes, and however it is cut into looks: each deadline opens at most once, closes at most
    /// once and only after it opened, and the same arrivals give the same cases.
    #[test]
    fn each_deadline_opens_at_most_once_and_closes_after_that(
        minutes in proptest::collection::vec(0..(6 * 1440_i64), 0..30),
        cuts in proptest::collection::vec(1..(6 * 1440_i64), 0..12),
        count in 1..4_u32,
        rolling in any::<bool>(),
    ) {
        let expected = if rolling { every(7, count) } else { daily(count) };
        let begin = at("02 08:00");
        let after = |minutes: i64| begin + SignedDuration::from_mins(minutes);
        let mut minutes = minutes;
        minutes.sort_unstable();
        let run = |cuts: &[i64]| {
            let mut progress = Progress::begin(&expected, begin);
            progress.primed = true;
            let mut steps = Vec::new();
            let mut from = -1;
            for cut in cuts.iter().copied().chain([6 * 1440]) {
                let arrivals = minutes.iter().filter(|m| **m > from && **m <= cut).map(|m| Arrival {
                    at: after(*m), known: after(*m), event: Some(*m),
                }).collect();
                let look = Look { certain: Some(after(cut)), up_since: begin, late: Duration::ZERO };
                steps.extend(expected.step(&mut progress, arrivals, &look));
                from = cut;
            }
            (steps, progress)
        };
        let mut cuts = cuts;
        cuts.sort_unstable();
        let (steps, progress) = run(&cuts);
        let mut open = std::collections::BTreeSet::new();
        let mut ever = std::collections::BTreeSet::new();
        for step in &steps {
            match step {
                Step::Opens(one) => prop_assert!(ever.insert(one.deadline) && open.insert(one.deadline)),
                Step::Closes { open: one, late, .. } => {
                    prop_assert!(open.remove(&one.deadline));
                    prop_assert!(*late > 0);
                }
                Step::GivenUp(_) => prop_assert!(false),
            }
        }
        prop_assert_eq!(open.len(), progress.open.len());
        prop_assert_eq!(&steps, &run(&[]).0, "one look or many");
    }
}
