//! What one rendering may still do, on this thread, and the zone it shows times in.
//!
//! It lies with the thread because helpers and the escaping are called by the library, which hands nothing on.

use crate::template::{MAX_OUTPUT, MAX_TURNS};
use jiff::tz::TimeZone;
use std::cell::RefCell;

struct Budget {
    turns: u64,
    bytes: usize,
    spent: Option<&'static str>,
    zone: TimeZone,
}

thread_local! {
    static BUDGET: RefCell<Option<Budget>> = const { RefCell::new(None) };
}

/// What is said when the bytes run out.
pub const TOO_LONG: &str = "the result is longer than 10 MB";
const TOO_MANY_TURNS: &str = "its loops turn more than 100,000 times";

/// Takes turns and bytes off the budget; the first shortage is remembered.
pub fn spend(turns: u64, bytes: usize) -> Result<(), &'static str> {
    BUDGET.with_borrow_mut(|budget| {
        let Some(budget) = budget else { return Ok(()) };
        match (budget.turns.checked_sub(turns), budget.bytes.checked_sub(bytes)) {
            (Some(turns), Some(bytes)) => {
                (budget.turns, budget.bytes) = (turns, bytes);
                Ok(())
            }
            (None, _) => Err(*budget.spent.insert(TOO_MANY_TURNS)),
            (_, None) => Err(*budget.spent.insert(TOO_LONG)),
        }
    })
}

/// The zone of the rendering that runs on this thread.
pub fn zone() -> TimeZone {
    BUDGET.with_borrow(|budget| {
        budget
            .as_ref()
            .map_or(TimeZone::UTC, |budget| budget.zone.clone())
    })
}

/// Begins a rendering on this thread.
pub fn begin(zone: &TimeZone) {
    BUDGET.set(Some(Budget {
        turns: MAX_TURNS,
        bytes: MAX_OUTPUT,
        spent: None,
        zone: zone.clone(),
    }));
}

/// Ends it; what ran out, if anything did.
pub fn end() -> Option<&'static str> {
    BUDGET.take().and_then(|budget| budget.spent)
}
