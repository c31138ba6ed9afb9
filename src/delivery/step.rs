//! Delivery by a clock that is moved by hand: everything that can be done at this instant.

use super::{Delivery, News};
use crate::clock::Hand;
use crate::store::StoreError;
use jiff::Timestamp;

/// How things stand when nothing more can be done at this instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stepped {
    /// When something waiting may begin, if a time is known.
    pub next: Option<Timestamp>,
    /// How many entries came to an end.
    pub ended: usize,
}

impl Delivery {
    /// Performs everything that is due and can end before the clock moves. What sleeps by the clock (a command
    /// that takes its time) stays under way, and is looked at again by the next step.
    pub async fn step(&mut self, hand: &Hand) -> Result<Stepped, StoreError> {
        let mut ended = 0;
        let mut stirred = hand.stirred();
        self.renew().await;
        'due: loop {
            self.begin_due().await?;
            // Who is done is still among the performers until it is joined. A claim does not sleep.
            loop {
                stirred.mark_unchanged();
                if self.underway.claims.is_empty() && self.underway.performers.len() <= hand.asleep() {
                    let next = self.next;
                    return Ok(Stepped { next, ended });
                }
                tokio::select! {
                    news = self.underway.next() => {
                        let done = matches!(news, News::Ended(_));
                        ended += usize::from(done);
                        if self.heard(news).await? || done {
                            continue 'due;
                        }
                    }
                    _ = stirred.changed() => {}
                }
            }
        }
    }

    /// The setup was changed: what a pause waited for may be mended.
    pub fn replanned(&mut self) {
        self.resume_all();
    }

    /// Ends everything that is under way, as a crash would.
    pub async fn abort(mut self) {
        self.underway.claims.shutdown().await;
        self.underway.performers.shutdown().await;
    }
}
