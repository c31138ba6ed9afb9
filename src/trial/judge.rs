//! What came against what must follow. Pure.
//!
//! Every mail, case, entry and command answers at most one expectation, and they are given to the expectations so
//! that as many as possible are met: a wish that says little never takes away what a stricter one needs.

use super::ledger::{Case, Held, Ledger, Mail};
use super::{Expected, Trial, Wish};
use crate::config::raw::Many;
use crate::config::raw::tests::{ExpectedCase, ExpectedHeld, ExpectedMail, ExpectedRun};
use crate::config::settings::Settings;
use crate::mail::address::Mailbox;
use crate::trial::script::Ran;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Something that did not follow, or that nobody expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The line of the expectation; `None`: what came is expected nowhere.
    pub line: Option<usize>,
    /// One sentence.
    pub message: String,
    /// What was expected and what came, line by line.
    pub details: Vec<String>,
    /// The time it is about.
    pub from: Timestamp,
    /// Its end.
    pub to: Timestamp,
}

/// Everything that is not as it must be; nothing is good news.
pub fn judge(trial: &Trial, ledger: &Ledger, settings: &Settings) -> Vec<Failure> {
    let judge = Judge {
        trial,
        settings,
        zone: &settings.defaults.timezone,
    };
    let mut failures = Vec::new();
    let others = judge.mails(ledger, &mut failures);
    let cases = judge.cases(ledger, &mut failures);
    judge.held(ledger, &mut failures);
    judge.ran(ledger, &mut failures);
    judge.files(ledger, &mut failures);
    judge.nothing(ledger, &others, &cases, &mut failures);
    failures.sort_by_key(|failure| (failure.line.is_none(), failure.line, failure.from));
    failures
}

struct Judge<'a> {
    trial: &'a Trial,
    settings: &'a Settings,
    zone: &'a TimeZone,
}

/// Gives each of what came to an expectation it fits, so that as many as possible are given.
fn assign(came: usize, room: &[usize], fits: impl Fn(usize, usize) -> bool) -> Vec<Option<usize>> {
    let fitting: Vec<Vec<usize>> = (0..came)
        .map(|one| (0..room.len()).filter(|wish| fits(one, *wish)).collect())
        .collect();
    let mut given: Vec<Option<usize>> = vec![None; came];
    let mut holders: Vec<Vec<usize>> = vec![Vec::new(); room.len()];
    for one in 0..came {
        let mut asked = vec![false; room.len()];
        place(one, &fitting, room, &mut given, &mut holders, &mut asked);
    }
    given
}

fn place(
    one: usize,
    fitting: &[Vec<usize>],
    room: &[usize],
    given: &mut [Option<usize>],
    holders: &mut [Vec<usize>],
    asked: &mut [bool],
) -> bool {
    for &wish in &fitting[one] {
        if std::mem::replace(&mut asked[wish], true) {
            continue;
        }
        if holders[wish].len() < room[wish] {
            holders[wish].push(one);
            given[one] = Some(wish);
            return true;
        }
        for at in 0..holders[wish].len() {
            let holder = holders[wish][at];
            if fitting[holder].len() > 1 && place(holder, fitting, room, given, holders, asked) {
                holders[wish][at] = one;
                given[one] = Some(wish);
                return true;
            }
        }
    }
    false
}

/// What of a wish does not fit: what is meant, wanted, and is.
type Difference = (String, String, String);

impl Judge<'_> {
    fn wishes<'t, T>(&'t self, of: impl Fn(&'t Wish) -> Option<&'t T>) -> Vec<(&'t Expected, &'t T)> {
        let expected = self.trial.expected.iter();
        expected
            .filter_map(|expected| Some((expected, of(&expected.what)?)))
            .collect()
    }

    /// The common part: gives what came to the wishes, tells of the wishes that are not met, and returns what
    /// nobody wished for.
    fn compare<C, W>(
        &self,
        came: &[C],
        wishes: &[(&Expected, &W)],
        words: &Words<'_, C, W>,
        failures: &mut Vec<Failure>,
    ) -> Vec<usize> {
        let in_time = |one: &C, expected: &Expected| {
            let at = (words.at)(one);
            expected.from <= at && at < expected.to
        };
        let room: Vec<usize> = wishes.iter().map(|(expected, _)| expected.times).collect();
        let given = assign(came.len(), &room, |one, wish| {
            let (expected, wanted) = wishes[wish];
            in_time(&came[one], expected) && (words.differences)(&came[one], wanted).is_empty()
        });
        let mut free: Vec<usize> = (0..came.len()).filter(|one| given[*one].is_none()).collect();
        for (number, (expected, wanted)) in wishes.iter().enumerate() {
            let got = given.iter().filter(|wish| **wish == Some(number)).count();
            if got == expected.times {
                continue;
            }
            let mut message = format!("no such {} came", words.what);
            if expected.times > 1 {
                message = format!("{} of {} such {}s came", got, expected.times, words.what);
            }
            let mut details = vec![format!("expected  {}", self.window(expected))];
            details.extend(
                (words.wanted)(wanted)
                    .into_iter()
                    .map(|line| format!("          {line}")),
            );
            let nearest = free
                .iter()
                .enumerate()
                .map(|(place, one)| {
                    let late = usize::from(!in_time(&came[*one], expected));
                    ((words.differences)(&came[*one], wanted).len() + late, place)
                })
                .min();
            match nearest {
                None => details.push(match came.len() {
                    0 => format!("came      no {} at all", words.what),
                    _ => format!(
                        "came      no {} but those that answer other expectations",
                        words.what
                    ),
                }),
                Some((_, place)) => {
                    let one = &came[free.remove(place)];
                    details.push(format!("nearest   {}", (words.shown)(one)));
                    if !in_time(one, expected) {
                        details.push(format!("  - when        {}", self.window(expected)));
                        details.push(format!("  + when        {}", self.time((words.at)(one))));
                    }
                    for (what, wanted, is) in (words.differences)(one, wanted) {
                        details.push(format!("  - {what:11} {wanted}"));
                        details.push(format!("  + {what:11} {is}"));
                    }
                }
            }
            failures.push(Failure {
                line: Some(expected.line),
                message,
                details,
                from: expected.from,
                to: expected.to.min(self.trial.until),
            });
        }
        free
    }

    fn time(&self, at: Timestamp) -> String {
        at.to_zoned(self.zone.clone()).strftime("%a %F %T").to_string()
    }

    /// When something is expected, for people.
    fn window(&self, expected: &Expected) -> String {
        let often = match expected.times {
            1 => String::new(),
            times => format!("{times} times, "),
        };
        let lasts = expected.to.duration_since(expected.from);
        if expected.to > self.trial.until {
            format!("{often}from {} on", self.time(expected.from))
        } else if lasts.as_secs() == 1 {
            format!("{often}at {}", self.time(expected.from))
        } else if lasts.as_secs() <= 60 {
            let from = expected.from.to_zoned(self.zone.clone());
            format!("{often}in the minute of {}", from.strftime("%a %F %H:%M"))
        } else {
            format!(
                "{often}{} to {}",
                self.time(expected.from),
                self.time(expected.to)
            )
        }
    }

    /// The mails that nobody expects.
    fn mails(&self, ledger: &Ledger, failures: &mut Vec<Failure>) -> Vec<usize> {
        let wishes = self.wishes(|wish| match wish {
            Wish::Mail(mail) => Some(&**mail),
            _ => None,
        });
        let words = Words {
            what: "mail",
            at: &|mail: &Mail| mail.at,
            shown: &|mail: &Mail| self.shown(mail),
            wanted: &|wanted: &ExpectedMail| wanted_mail(wanted),
            differences: &|mail: &Mail, wanted: &ExpectedMail| self.mail_differs(mail, wanted),
        };
        let free = self.compare(&ledger.mails, &wishes, &words, failures);
        if !self.trial.others {
            for &one in &free {
                let mail = &ledger.mails[one];
                failures.push(Failure {
                    line: None,
                    message: "a mail that nobody expects".to_owned(),
                    details: vec![
                        format!("came      {}", self.shown(mail)),
                        format!("          by rule {}, account {}", mail.rule, mail.account),
                    ],
                    from: mail.at,
                    to: mail.at,
                });
            }
        }
        free
    }

    fn shown(&self, mail: &Mail) -> String {
        format!(
            "{}, to {}: {}",
            self.time(mail.at),
            mail.to.join(", "),
            mail.subject
        )
    }

    fn cases(&self, ledger: &Ledger, failures: &mut Vec<Failure>) -> Vec<usize> {
        let wishes = self.wishes(|wish| match wish {
            Wish::Case(case) => Some(case),
            _ => None,
        });
        let does = |opened: bool| if opened { "opened" } else { "closed" };
        let words = Words {
            what: "case",
            at: &|case: &Case| case.at,
            shown: &|case: &Case| {
                format!(
                    "{}, {} {}: {}",
                    self.time(case.at),
                    does(case.opened),
                    case.kind,
                    case.about
                )
            },
            wanted: &|wanted: &ExpectedCase| {
                let word = wanted.opened.as_ref().or(wanted.closed.as_ref());
                let mut lines = vec![format!(
                    "{} {}",
                    does(wanted.opened.is_some()),
                    word.map_or("", String::as_str)
                )];
                lines.extend(wanted.rule.iter().map(|rule| format!("rule {rule}")));
                lines.extend(wanted.about.iter().map(|about| format!("about {about}")));
                lines
            },
            differences: &|case: &Case, wanted: &ExpectedCase| {
                let mut all = Vec::new();
                differ(&mut all, "does", does(wanted.opened.is_some()), does(case.opened));
                let word = wanted.opened.as_ref().or(wanted.closed.as_ref());
                differ(&mut all, "of", word.map_or("", String::as_str), &case.kind);
                if let Some(rule) = &wanted.rule {
                    differ(&mut all, "rule", rule, case.rule.as_deref().unwrap_or("none"));
                }
                if let Some(about) = &wanted.about
                    && !fits(about, &case.about)
                {
                    all.push(("about".to_owned(), about.clone(), case.about.clone()));
                }
                all
            },
        };
        self.compare(&ledger.cases, &wishes, &words, failures)
    }

    fn held(&self, ledger: &Ledger, failures: &mut Vec<Failure>) {
        let wishes = self.wishes(|wish| match wish {
            Wish::Held(held) => Some(held),
            _ => None,
        });
        let words = Words {
            what: "held entry",
            at: &|held: &Held| held.at,
            shown: &|held: &Held| format!("{}, of rule {}", self.time(held.at), held.rule),
            wanted: &|wanted: &ExpectedHeld| {
                let rule = wanted.rule.iter().map(|rule| format!("rule {rule}"));
                rule.chain(wanted.reason.iter().map(|reason| format!("reason {reason}")))
                    .collect()
            },
            differences: &|held: &Held, wanted: &ExpectedHeld| {
                let mut all = Vec::new();
                if let Some(rule) = &wanted.rule {
                    differ(&mut all, "rule", rule, &held.rule);
                }
                if let Some(reason) = &wanted.reason
                    && !fits(reason, &held.reason)
                {
                    all.push(("reason".to_owned(), reason.clone(), held.reason.clone()));
                }
                all
            },
        };
        self.compare(&ledger.held, &wishes, &words, failures);
    }

    fn ran(&self, ledger: &Ledger, failures: &mut Vec<Failure>) {
        let wishes = self.wishes(|wish| match wish {
            Wish::Ran(ran) => Some(ran),
            _ => None,
        });
        let words = Words {
            what: "command",
            at: &|ran: &Ran| ran.at,
            shown: &|ran: &Ran| format!("{}, rule {}: {}", self.time(ran.at), ran.rule, ran.command),
            wanted: &|wanted: &ExpectedRun| {
                let rule = wanted.rule.iter().map(|rule| format!("rule {rule}"));
                rule.chain(wanted.command.iter().map(|command| format!("command {command}")))
                    .collect()
            },
            differences: &|ran: &Ran, wanted: &ExpectedRun| {
                let mut all = Vec::new();
                if let Some(rule) = &wanted.rule {
                    differ(&mut all, "rule", rule, &ran.rule);
                }
                if let Some(command) = &wanted.command
                    && !fits(command, &ran.command)
                {
                    all.push(("command".to_owned(), command.clone(), ran.command.clone()));
                }
                all
            },
        };
        self.compare(&ledger.ran, &wishes, &words, failures);
    }

    fn files(&self, ledger: &Ledger, failures: &mut Vec<Failure>) {
        for looked in &ledger.looked {
            let expected = &self.trial.expected[looked.expected];
            let Wish::File(wanted) = &expected.what else {
                continue;
            };
            let wants = wanted.exists.unwrap_or(true);
            if wants != looked.there {
                let is = |there: bool| if there { "there" } else { "not there" };
                failures.push(Failure {
                    line: Some(expected.line),
                    message: format!("{} is {}", wanted.path, is(looked.there)),
                    details: vec![format!("expected  it is {}", is(wants))],
                    from: expected.from,
                    to: expected.to.min(self.trial.until),
                });
            }
        }
    }

    /// Where nothing must follow: what came in that time and answers no expectation.
    fn nothing(&self, ledger: &Ledger, mails: &[usize], cases: &[usize], failures: &mut Vec<Failure>) {
        for (number, expected) in self.trial.expected.iter().enumerate() {
            if !matches!(expected.what, Wish::Nothing) {
                continue;
            }
            // Without an end of its own, until the next thing that is expected.
            let next = self.trial.expected.get(number + 1).map(|next| next.from);
            let to = match next {
                Some(next) if expected.to > self.trial.until => next,
                _ => expected.to,
            };
            let inside = |at: Timestamp| expected.from <= at && at < to;
            let mails = mails.iter().map(|one| &ledger.mails[*one]);
            let cases = cases.iter().map(|one| &ledger.cases[*one]);
            let mut came: Vec<String> = mails
                .filter(|mail| inside(mail.at))
                .map(|mail| format!("came      a mail, {}", self.shown(mail)))
                .collect();
            came.extend(cases.filter(|case| inside(case.at)).map(|case| {
                let does = if case.opened { "opened" } else { "closed" };
                format!(
                    "came      a case, {}, {does} {}: {}",
                    self.time(case.at),
                    case.kind,
                    case.about
                )
            }));
            if !came.is_empty() {
                failures.push(Failure {
                    line: Some(expected.line),
                    message: "nothing must follow, and something did".to_owned(),
                    details: came,
                    from: expected.from,
                    to: to.min(self.trial.until),
                });
            }
        }
    }

    fn mail_differs(&self, mail: &Mail, wanted: &ExpectedMail) -> Vec<Difference> {
        let mut all = Vec::new();
        if let Some(rule) = &wanted.rule {
            differ(&mut all, "rule", rule, &mail.rule);
        }
        if let Some(account) = &wanted.account {
            differ(&mut all, "account", account, &mail.account);
        }
        if let Some(from) = &wanted.from {
            differ(&mut all, "from", &bare(from), &mail.from);
        }
        if let Some(reply_to) = &wanted.reply_to {
            let is = mail.reply_to.as_deref().unwrap_or("none");
            differ(&mut all, "reply_to", &bare(reply_to), is);
        }
        for (what, wanted, is) in [
            ("to", &wanted.to, &mail.to),
            ("cc", &wanted.cc, &mail.cc),
            ("bcc", &wanted.bcc, &mail.bcc),
        ] {
            let Some(wanted) = wanted else { continue };
            let (wanted, is) = (self.everybody(wanted), sorted(is));
            if wanted != is {
                all.push((what.to_owned(), wanted.join(", "), or_none(&is)));
            }
        }
        if let Some(subject) = &wanted.subject
            && !fits(subject, &mail.subject)
        {
            all.push(("subject".to_owned(), subject.clone(), mail.subject.clone()));
        }
        let text = flat(&mail.text);
        let excerpt: String = text.chars().take(300).collect();
        for part in wanted.body.iter().flat_map(|many| &many.0) {
            if !text.contains(&flat(part)) {
                all.push(("body".to_owned(), flat(part), excerpt.clone()));
            }
        }
        for part in wanted.body_lacks.iter().flat_map(|many| &many.0) {
            if text.contains(&flat(part)) {
                all.push(("body_lacks".to_owned(), flat(part), excerpt.clone()));
            }
        }
        if let Some(attachments) = &wanted.attachments {
            let room = vec![1; attachments.len()];
            let given = assign(mail.attachments.len(), &room, |one, wish| {
                fits(&attachments[wish], &mail.attachments[one])
            });
            if given.iter().any(Option::is_none) || mail.attachments.len() != attachments.len() {
                all.push((
                    "attachments".to_owned(),
                    or_none(attachments),
                    or_none(&mail.attachments),
                ));
            }
        }
        for (name, value) in wanted.headers.iter().flatten() {
            let of_name = |(is, _): &&(String, String)| is.eq_ignore_ascii_case(name);
            let mut found = mail.headers.iter().filter(of_name).peekable();
            let is = found.peek().map_or("none", |(_, is)| is.as_str()).to_owned();
            if !found.any(|(_, is)| fits(value, is)) {
                all.push((name.clone(), value.clone(), is));
            }
        }
        all
    }

    /// The addresses that are meant, groups written out.
    fn everybody(&self, wanted: &Many<String>) -> Vec<String> {
        let groups = &self.settings.recipients.groups;
        let mut all = Vec::new();
        for text in &wanted.0 {
            match groups.get(text) {
                Some(members) => {
                    all.extend(
                        members
                            .iter()
                            .map(|member| member.address.to_string().to_lowercase()),
                    );
                }
                None => all.push(bare(text)),
            }
        }
        sorted(&all)
    }
}

/// How one kind of thing is compared and shown.
struct Words<'a, C, W> {
    what: &'a str,
    at: &'a dyn Fn(&C) -> Timestamp,
    shown: &'a dyn Fn(&C) -> String,
    wanted: &'a dyn Fn(&W) -> Vec<String>,
    differences: &'a dyn Fn(&C, &W) -> Vec<Difference>,
}

fn differ(all: &mut Vec<Difference>, what: &str, wanted: &str, is: &str) {
    if wanted != is {
        all.push((what.to_owned(), wanted.to_owned(), is.to_owned()));
    }
}

fn wanted_mail(wanted: &ExpectedMail) -> Vec<String> {
    let mut lines = Vec::new();
    let mut say = |what: &str, value: Option<String>| {
        lines.extend(value.map(|value| format!("{what:11} {value}")));
    };
    let list = |many: &Option<Many<String>>| many.as_ref().map(|many| many.0.join(", "));
    say("rule", wanted.rule.clone());
    say("account", wanted.account.clone());
    say("from", wanted.from.clone());
    say("to", list(&wanted.to));
    say("cc", list(&wanted.cc));
    say("bcc", list(&wanted.bcc));
    say("reply_to", wanted.reply_to.clone());
    say("subject", wanted.subject.clone());
    say("body", list(&wanted.body));
    say("body_lacks", list(&wanted.body_lacks));
    say("attachments", wanted.attachments.as_ref().map(|all| or_none(all)));
    for (name, value) in wanted.headers.iter().flatten() {
        say(name, Some(value.clone()));
    }
    lines
}

/// The address alone, in lower case.
fn bare(text: &str) -> String {
    text.parse::<Mailbox>().map_or_else(
        |_| text.to_lowercase(),
        |mailbox| mailbox.address.to_string().to_lowercase(),
    )
}

fn sorted(all: &[String]) -> Vec<String> {
    let mut all = all.to_vec();
    all.sort();
    all.dedup();
    all
}

fn or_none(all: &[String]) -> String {
    match all {
        [] => "none".to_owned(),
        _ => all.join(", "),
    }
}

/// A text in one line, every gap one space.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether a text fits a pattern: `*` stands for anything, gaps are all the same.
pub fn fits(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (flat(pattern), flat(text));
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_star_stands_for_anything_and_gaps_are_all_the_same() {
        for (pattern, text, fit) in [
            ("*report*", "The report is late", true),
            ("report", "The report", false),
            ("a*b*c", "a--b--c", true),
            ("a*b*c", "a--c--b", false),
            ("a*a", "a", false),
            ("", "", true),
            ("*", "", true),
            ("two  words", "two\n words", true),
            ("*.csv", "x.csv.done", false),
        ] {
            assert_eq!(fits(pattern, text), fit, "{pattern} {text}");
        }
    }

    #[test]
    fn a_vague_wish_never_takes_what_a_strict_one_needs() {
        // The first wish takes both, the second only the first of what came.
        let given = assign(2, &[1, 1], |one, wish| wish == 0 || one == 0);
        assert_eq!(given, [Some(1), Some(0)]);
        assert_eq!(assign(3, &[2], |_, _| true), [Some(0), Some(0), None]);
    }

    proptest! {
        /// As many are given as by trying every way.
        #[test]
        fn as_many_as_possible_are_given(
            fitting in proptest::collection::vec(proptest::collection::vec(any::<bool>(), 4), 0..6),
            room in proptest::collection::vec(0..3_usize, 4),
        ) {
            fn best(one: usize, fitting: &[Vec<bool>], room: &mut [usize]) -> usize {
                let Some(fits) = fitting.get(one) else { return 0 };
                let mut most = best(one + 1, fitting, room);
                for wish in 0..room.len() {
                    if fits[wish] && room[wish] > 0 {
                        room[wish] -= 1;
                        most = most.max(1 + best(one + 1, fitting, room));
                        room[wish] += 1;
                    }
                }
                most
            }
            let given = assign(fitting.len(), &room, |one, wish| fitting[one][wish]);
            for (wish, room) in room.iter().enumerate() {
                prop_assert!(given.iter().filter(|to| **to == Some(wish)).count() <= *room);
            }
            for (one, to) in given.iter().enumerate() {
                prop_assert!(to.is_none_or(|to| fitting[one][to]));
            }
            let most = best(0, &fitting, &mut room.clone());
            prop_assert_eq!(given.iter().flatten().count(), most);
        }
    }
}
