//! One message on its way through a session: what is still to be said, what was answered. Pure.

use super::super::RecipientVerdict;
use super::{Awaited, Words};
use crate::advice::Symptom;
use crate::mail::address::Address;
use std::collections::VecDeque;

/// One message on its way.
#[derive(Debug, Default)]
pub(super) struct Mail {
    pub(super) recipients: Vec<Address>,
    pub(super) verdicts: Vec<Option<RecipientVerdict>>,
    /// MAIL FROM was refused.
    pub(super) refused: Option<Symptom>,
    /// Groups of commands not yet sent.
    pub(super) groups: VecDeque<(Words, Vec<Awaited>)>,
    /// DATA was answered 354; only the message may follow.
    pub(super) in_data: bool,
    pub(super) past_gate: bool,
    /// There is no message: only the sender was asked about, and this is the answer.
    pub(super) only_asked: Option<String>,
}

impl Mail {
    pub(super) fn any_accepted(&self) -> bool {
        self.verdicts
            .iter()
            .flatten()
            .any(|verdict| matches!(verdict, RecipientVerdict::Accepted))
    }

    pub(super) fn decided(
        &self,
        keep: impl Fn(&RecipientVerdict) -> bool,
    ) -> Vec<(Address, RecipientVerdict)> {
        let pairs = self.recipients.iter().zip(&self.verdicts);
        pairs
            .filter_map(|(address, verdict)| Some((address.clone(), verdict.clone()?)))
            .filter(|(_, verdict)| keep(verdict))
            .collect()
    }

    pub(super) fn refused_ones(&self) -> Vec<(Address, RecipientVerdict)> {
        self.decided(|verdict| matches!(verdict, RecipientVerdict::Refused(_)))
    }
}
