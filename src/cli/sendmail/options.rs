//! The sendmail command line, as programs have written it for forty years. Pure.
//!
//! What changes what is sent is understood; what asks for notices, queues and debugging of another mail system is read
//! and ignored, so that nobody's call fails for it. After the first recipient everything is a recipient: an address
//! that begins with `-` is none of ours to take for an option.

use std::path::PathBuf;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// What is to be done.
    pub mode: Mode,
    /// `-t`: recipients are in the header, too.
    pub by_header: bool,
    /// A line with only a dot ends the message: without `-i`.
    pub dot_ends: bool,
    /// `-f`, `-r`: whose it is, where the message does not say.
    pub sender: Option<String>,
    /// `-F`: the name beside that.
    pub full_name: Option<String>,
    /// Recipients.
    pub recipients: Vec<String>,
    /// `--config`, `-C`: the setup folder.
    pub config: Option<PathBuf>,
    /// `-v`: say what became of it.
    pub verbose: bool,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Take a message from stdin.
    Deliver,
    /// `-bs`: speak SMTP on stdin and stdout.
    Smtp,
    /// `-bp`, `mailq`: what waits.
    List,
    /// `-bi`, `newaliases`: nothing is to be done for it here.
    Aliases,
    /// `-q`: send what waits; the daemon does so by itself.
    Flush,
    /// `-bv`: whether the recipients could be written to.
    Verify,
    /// `--help`
    Help,
}

/// Options without a value.
const ALONE: &str = "intvmUGxsIcEgkaj";
/// Options with one.
const VALUED: &str = "ABCDFLMNOPQRSTVXbefhopr";

/// Reads the arguments behind the command's name.
pub fn read(arguments: &[String]) -> Result<Options, String> {
    let mut options = Options {
        mode: Mode::Deliver,
        by_header: false,
        dot_ends: true,
        sender: None,
        full_name: None,
        recipients: Vec::new(),
        config: None,
        verbose: false,
    };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == "--" {
            break;
        }
        if let Some(long) = argument.strip_prefix("--") {
            match long.split_once('=') {
                Some(("config", value)) => options.config = Some(value.into()),
                None if long == "config" => {
                    let value = rest.next().ok_or("--config needs a folder")?;
                    options.config = Some(value.into());
                }
                None if long == "help" => options.mode = Mode::Help,
                _ => return Err(format!("unknown option {argument}")),
            }
            continue;
        }
        let Some(letters) = argument.strip_prefix('-').filter(|letters| !letters.is_empty()) else {
            options.recipients.push(argument.clone());
            break;
        };
        for (place, letter) in letters.char_indices() {
            let behind = &argument[1 + place + letter.len_utf8()..];
            if letter == 'q' || letter == 'd' {
                // An interval, or categories of debugging, only right behind it.
                if letter == 'q' {
                    options.mode = Mode::Flush;
                }
                break;
            } else if VALUED.contains(letter) {
                let value = match behind {
                    "" => rest
                        .next()
                        .ok_or_else(|| format!("-{letter} needs a value"))?
                        .as_str(),
                    behind => behind,
                };
                valued(letter, value, &mut options)?;
                break;
            }
            match letter {
                'i' => options.dot_ends = false,
                't' => options.by_header = true,
                'v' => options.verbose = true,
                'I' => options.mode = Mode::Aliases,
                other if ALONE.contains(other) => {}
                other => return Err(format!("unknown option -{other}")),
            }
        }
    }
    options.recipients.extend(rest.cloned());
    Ok(options)
}

fn valued(letter: char, value: &str, options: &mut Options) -> Result<(), String> {
    match letter {
        'b' => {
            options.mode = match value {
                "m" => Mode::Deliver,
                "s" => Mode::Smtp,
                "p" => Mode::List,
                "i" => Mode::Aliases,
                "v" => Mode::Verify,
                "d" | "D" => return Err("the daemon is `tidings run`".to_owned()),
                other => return Err(format!("-b{other} is not known here")),
            }
        }
        'f' | 'r' => options.sender = Some(value.to_owned()),
        'F' => options.full_name = Some(value.to_owned()),
        'C' => options.config = Some(value.into()),
        // -oi, and the long form of it.
        'o' if value.starts_with('i') => options.dot_ends = false,
        'O' if value.eq_ignore_ascii_case("IgnoreDots") || value.eq_ignore_ascii_case("IgnoreDots=true") => {
            options.dot_ends = false;
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        read(&words)
    }

    #[test]
    fn what_programs_say_is_understood() {
        for line in [
            "-t -i",
            "-ti",
            "-it -oem",
            "-t -oi -odb -oem",
            "-oi -t -f me@x -Fme -bm -O DeliveryMode=b -B 8BITMIME -N never -R hdrs -em -v",
            "-i -FCronDaemon -B8BITMIME -oem -t",
            "-t -i -fme@x --",
            "-ti -d0.1 -n -L tag -V id",
        ] {
            let options = parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert!(options.by_header && !options.dot_ends, "{line}");
            assert_eq!(options.mode, Mode::Deliver, "{line}");
            assert!(options.recipients.is_empty(), "{line}");
        }
        let options = parse("-f me@x -r you@x -F Me a@x b@x").unwrap();
        assert_eq!(options.sender.as_deref(), Some("you@x"));
        assert_eq!(options.full_name.as_deref(), Some("Me"));
        assert_eq!(options.recipients, ["a@x", "b@x"]);
        assert!(options.dot_ends && !options.by_header);
        assert_eq!(parse("--config /srv/t -t").unwrap().config, Some("/srv/t".into()));
    }

    #[test]
    fn modes_are_told_apart() {
        for (line, mode) in [
            ("-bs", Mode::Smtp),
            ("-b s", Mode::Smtp),
            ("-bp", Mode::List),
            ("-bi", Mode::Aliases),
            ("-q30m", Mode::Flush),
            ("-q", Mode::Flush),
            ("-bv root", Mode::Verify),
            ("-bm", Mode::Deliver),
        ] {
            assert_eq!(parse(line).unwrap().mode, mode, "{line}");
        }
    }

    #[test]
    fn no_recipient_is_taken_for_an_option() {
        for line in ["a@x -t -f evil@x", "-- -t -f evil@x"] {
            let options = parse(line).unwrap();
            assert!(!options.by_header && options.sender.is_none(), "{line}");
            assert!(
                options
                    .recipients
                    .ends_with(&["-t".into(), "-f".into(), "evil@x".into()])
            );
        }
    }

    #[test]
    fn what_cannot_be_done_is_said() {
        for line in ["-f", "-bd", "-bt", "-Z", "--nothing"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
