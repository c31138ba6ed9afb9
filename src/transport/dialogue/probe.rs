//! Asking whether a server takes a sender, without a message: MAIL, then RSET. Pure.

use super::mail::Mail;
use super::{Awaited, Dialogue, Words};
use crate::mail::address::Address;
use std::collections::VecDeque;

impl Dialogue {
    /// Asks about `from` on an open session. The report is `Accepted` with the reply to MAIL, or says why not; no
    /// message is begun, whatever it says.
    pub fn ask_sender(&mut self, from: &Address) {
        let mut mail = format!("MAIL FROM:<{from}>");
        if from.is_international() && self.offers.smtputf8 {
            mail.push_str(" SMTPUTF8");
        }
        self.mail = Some(Mail {
            groups: VecDeque::from([
                (Words::line(&mail), vec![Awaited::Mail]),
                (Words::line("RSET"), vec![Awaited::Rset { probe: false }]),
            ]),
            only_asked: Some(String::new()),
            ..Mail::default()
        });
        self.go_on();
    }
}
