use super::*;
use crate::config::calendar::Calendar;
use proptest::prelude::*;

fn file(events: &str) -> String {
    format!("BEGIN:VCALENDAR\r\nVERSION:2.0\r\n{events}END:VCALENDAR\r\n")
}

fn event(lines: &str) -> String {
    file(&format!("BEGIN:VEVENT\n{lines}\nSUMMARY:Closed\nEND:VEVENT\n"))
}

fn calendar(text: &str) -> Calendar {
    let mut calendar = Calendar::default();
    calendar.add_ics(read(text).unwrap());
    calendar
}

/// The days of some years that a rule hits.
fn hits(lines: &str, from: &str, to: &str) -> Vec<String> {
    let calendar = calendar(&event(lines));
    let (mut day, to): (Date, Date) = (from.parse().unwrap(), to.parse().unwrap());
    let mut found = Vec::new();
    while day <= to {
        if calendar.has(day) {
            found.push(day.to_string());
        }
        day = day.tomorrow().unwrap();
    }
    found
}

#[test]
fn whole_days_count_and_hours_do_not() {
    let all = |lines| hits(lines, "2026-12-20", "2027-01-10");
    assert_eq!(all("DTSTART;VALUE=DATE:20261225"), ["2026-12-25"]);
    assert_eq!(
        all("DTSTART;VALUE=DATE:20261224\nDTEND;VALUE=DATE:20261227"),
        ["2026-12-24", "2026-12-25", "2026-12-26"],
        "the end is the day after"
    );
    assert_eq!(
        all("DTSTART;TZID=Europe/Berlin:20261231T000000\nDTEND;TZID=Europe/Berlin:20270102T000000"),
        ["2026-12-31", "2027-01-01"]
    );
    assert_eq!(all("DTSTART;VALUE=DATE:20261231\nDURATION:P2D").len(), 2);
    assert!(all("DTSTART:20261224T090000Z\nDTEND:20261224T100000Z").is_empty());
    assert!(all("DTSTART:20261224T000000\nDURATION:PT1H").is_empty());
    assert!(all("DTSTART;VALUE=DATE:20261225\nSTATUS:CANCELLED").is_empty());
}

#[test]
fn a_rule_repeats_by_year_month_week_and_day() {
    let years = |rule: &str| {
        hits(
            &format!("DTSTART;VALUE=DATE:20241003\nRRULE:{rule}"),
            "2024-01-01",
            "2028-12-31",
        )
    };
    assert_eq!(years("FREQ=YEARLY").len(), 5);
    assert_eq!(
        years("FREQ=YEARLY;UNTIL=20261003"),
        ["2024-10-03", "2025-10-03", "2026-10-03"]
    );
    assert_eq!(years("FREQ=YEARLY;COUNT=2"), ["2024-10-03", "2025-10-03"]);
    assert_eq!(
        years("FREQ=YEARLY;INTERVAL=2"),
        ["2024-10-03", "2026-10-03", "2028-10-03"]
    );
    // The fourth Thursday of November, the last Monday of May.
    let fourth = hits(
        "DTSTART;VALUE=DATE:20251127\nRRULE:FREQ=YEARLY;BYMONTH=11;BYDAY=4TH",
        "2025-01-01",
        "2027-12-31",
    );
    assert_eq!(fourth, ["2025-11-27", "2026-11-26", "2027-11-25"]);
    let last = hits(
        "DTSTART;VALUE=DATE:20250526\nRRULE:FREQ=YEARLY;BYMONTH=5;BYDAY=-1MO",
        "2025-01-01",
        "2027-12-31",
    );
    assert_eq!(last, ["2025-05-26", "2026-05-25", "2027-05-31"]);
    let month_ends = hits(
        "DTSTART;VALUE=DATE:20260131\nRRULE:FREQ=MONTHLY;BYMONTHDAY=-1",
        "2026-01-01",
        "2026-04-30",
    );
    assert_eq!(
        month_ends,
        ["2026-01-31", "2026-02-28", "2026-03-31", "2026-04-30"]
    );
    let fridays = hits(
        "DTSTART;VALUE=DATE:20260102\nRRULE:FREQ=WEEKLY;INTERVAL=2;BYDAY=FR",
        "2026-01-01",
        "2026-02-01",
    );
    assert_eq!(fridays, ["2026-01-02", "2026-01-16", "2026-01-30"]);
    let leap = hits(
        "DTSTART;VALUE=DATE:20240229\nRRULE:FREQ=YEARLY",
        "2024-01-01",
        "2029-01-01",
    );
    assert_eq!(leap, ["2024-02-29", "2028-02-29"]);
}

#[test]
fn single_days_of_a_rule_can_be_left_out_added_and_moved() {
    let text = file(
        "BEGIN:VEVENT\nUID:a\nDTSTART;VALUE=DATE:20240501\nRRULE:FREQ=YEARLY\nEXDATE;VALUE=DATE:20250501\n\
         RDATE;VALUE=DATE:20250502,20250503\nBEGIN:VALARM\nTRIGGER:-PT1H\nDURATION:PT1H\nEND:VALARM\nEND:VEVENT\n\
         BEGIN:VEVENT\nUID:a\nRECURRENCE-ID;VALUE=DATE:20260501\nDTSTART;VALUE=DATE:20260504\nEND:VEVENT\n",
    );
    let calendar = calendar(&text);
    let has = |day: &str| calendar.has(day.parse().unwrap());
    assert!(
        has("2024-05-01") && has("2025-05-02") && has("2025-05-03") && has("2026-05-04") && has("2027-05-01")
    );
    assert!(!has("2025-05-01") && !has("2026-05-01") && !has("2023-05-01"));
}

#[test]
fn folded_lines_are_one_and_a_colon_in_quotes_ends_no_name() {
    let text = event("DTSTART;TZID=\"a:b\";VALUE=DATE:202612\r\n 25\nDESCRIPTION:one\r\n  two: three");
    assert!(calendar(&text).has("2026-12-25".parse().unwrap()));
}

#[test]
fn what_is_not_understood_is_a_fault_with_its_line() {
    let of = |text: &str| read(text).unwrap_err();
    assert_eq!(of("hello").line, 1);
    assert_eq!(of("").line, 1);
    for (rule, said) in [
        ("FREQ=HOURLY", "FREQ=HOURLY"),
        ("INTERVAL=1", "no FREQ"),
        ("FREQ=YEARLY;BYSETPOS=1;BYDAY=MO", "BYSETPOS=1"),
        ("FREQ=YEARLY;INTERVAL=0", "INTERVAL=0"),
        ("FREQ=YEARLY;BYMONTH=13", "BYMONTH=13"),
        ("FREQ=YEARLY;BYDAY=XX", "BYDAY=XX"),
        ("FREQ=YEARLY;COUNT=4000000000", "too far"),
    ] {
        let fault = of(&event(&format!("DTSTART;VALUE=DATE:20260101\nRRULE:{rule}")));
        assert_eq!(fault.line, 5, "{rule}");
        assert!(fault.message.contains(said), "{fault:?}");
    }
    assert_eq!(of(&event("DTSTART;VALUE=DATE:20261325")).line, 4);
    assert!(of(&event("SUMMARY:x")).message.contains("DTSTART"));
    assert!(
        of("BEGIN:VCALENDAR\nBEGIN:VEVENT\nDTSTART:20260101")
            .message
            .contains("cut off")
    );
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "(BEGIN:V(CALENDAR|EVENT)|END:VEVENT|DTSTART:|DTEND:|RRULE:FREQ=|YEARLY|;COUNT=|;BYDAY=|-?[0-9]{1,9}|MO|é|\n|\n ){0,30}") {
        let _ = read(&format!("BEGIN:VCALENDAR\n{text}"));
    }
}
