//! What finding the rules of an event costs: 10, 1,000 and 10,000 rules, of which one is concerned.
//! The figure is the ratio of the medians, taken in turn in one run.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints, and fails by panicking"
)]

use globset::Glob;
use jiff::Timestamp;
use std::hint::black_box;
use std::path::PathBuf;
use std::time::Instant;
use tidings::action::Overlap;
use tidings::event::{Event, EventId, FileRef, Kind, NewEvent};
use tidings::rule::index::Rules;
use tidings::rule::{Outcome, Rule, Trigger};
use tidings::source::Wanted;

fn rules(count: usize) -> Rules {
    Rules::new(
        (0..count)
            .map(|number| Rule {
                name: format!("rule-{number}"),
                description: None,
                place: String::new(),
                triggers: vec![Trigger::FileArrives {
                    watch: format!("watch-{number}"),
                    wanted: Wanted {
                        matching: Glob::new("*.pdf").unwrap().compile_matcher(),
                        ignore: tidings::source::wanted::Ignore::default(),
                        recursive: false,
                        min_size: 0,
                        max_size: None,
                    },
                }],
                condition: None,
                data: serde_json::Value::Null,
                work: Vec::new(),
                overlap: Overlap::Queue,
                mails: Vec::new(),
                emits: Vec::new(),
                on_success: Outcome::default(),
                on_failure: Outcome::default(),
                on_recovery: Outcome::default(),
                asks: tidings::rule::demand::Asks::default(),
                ladder: tidings::rule::ladder::Ladder::default(),
                telling: tidings::rule::gather::Telling::default(),
            })
            .collect(),
    )
}

fn event() -> Event {
    Event {
        id: EventId(1),
        happening: NewEvent {
            key: "k".into(),
            kind: Kind::FileArrives,
            source: "watch-7".into(),
            subject: "/srv/a.pdf".into(),
            time: Timestamp::UNIX_EPOCH,
            facts: serde_json::Map::new(),
            file: Some(FileRef {
                root: PathBuf::from("/srv"),
                relative: PathBuf::from("a.pdf"),
                size: 1,
                mtime_ns: 0,
            }),
            origin: None,
            case: None,
        },
        recorded: Timestamp::UNIX_EPOCH,
        recovers: false,
    }
}

/// Nanoseconds an event, over so many.
fn time(rules: &Rules, event: &Event, times: u32) -> f64 {
    let start = Instant::now();
    for _ in 0..times {
        black_box(rules.find(black_box(event)));
    }
    start.elapsed().as_secs_f64() * 1e9 / f64::from(times)
}

fn main() {
    let event = event();
    let sets: Vec<(usize, Rules)> = [10, 1000, 10_000]
        .into_iter()
        .map(|count| (count, rules(count)))
        .collect();
    for (_, rules) in &sets {
        assert_eq!(rules.find(&event).len(), 1);
    }
    let mut figures: Vec<Vec<f64>> = vec![Vec::new(); sets.len()];
    for _ in 0..21 {
        for (index, (_, rules)) in sets.iter().enumerate() {
            figures[index].push(time(rules, &event, 5000));
        }
    }
    let medians: Vec<f64> = figures
        .iter_mut()
        .map(|figures| {
            figures.sort_by(f64::total_cmp);
            figures[figures.len() / 2]
        })
        .collect();
    for ((count, _), median) in sets.iter().zip(&medians) {
        println!(
            "{count:>6} rules: {median:>8.0} ns an event, {:.2} of the first",
            median / medians[0]
        );
    }
}
