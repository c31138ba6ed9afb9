//! Sizes and times as people write them: `10MB`, `1h30m`.

use std::time::Duration;

const TIMES: [(&str, u64); 6] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
    ("w", 604_800_000),
];

const SIZES: [(&str, u64); 8] = [
    ("B", 1),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

/// Pattern of a time, for the schema.
pub const TIME_PATTERN: &str = "^([0-9]+(ms|s|m|h|d|w))+$";

/// Pattern of a size, for the schema.
pub const SIZE_PATTERN: &str = "^[0-9]+ ?(B|[kK]B|MB|GB|KiB|MiB|GiB)$";

/// Reads a time: numbers with units, added up (`90s`, `1h30m`, `2d`). Ten years at most.
pub fn time(text: &str) -> Result<Duration, &'static str> {
    const HELP: &str = "a time is a number and a unit: 300ms, 30s, 5m, 2h, 1d, 1w, or several: 1h30m";
    let mut rest = text;
    let mut total: u64 = 0;
    if rest.is_empty() {
        return Err(HELP);
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().map_err(|_| HELP)?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit = TIMES
            .iter()
            .find(|(unit, _)| *unit == &rest[..letters])
            .ok_or(HELP)?
            .1;
        rest = &rest[letters..];
        total = number
            .checked_mul(unit)
            .and_then(|more| total.checked_add(more))
            .filter(|&total| total <= 10 * 366 * 86_400_000)
            .ok_or("that is longer than ten years")?;
    }
    Ok(Duration::from_millis(total))
}

/// Reads a size: `500kB`, `10MB` (10^6), `10MiB` (2^20).
pub fn size(text: &str) -> Result<u64, &'static str> {
    const HELP: &str = "a size is a number and a unit: 100B, 500kB, 10MB, 2GB, or 10MiB for powers of two";
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits].parse().map_err(|_| HELP)?;
    let unit = text[digits..].trim_start_matches(' ');
    let unit = SIZES.iter().find(|(name, _)| *name == unit).ok_or(HELP)?.1;
    number.checked_mul(unit).ok_or("that is too much")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_add_up() {
        assert_eq!(time("300ms"), Ok(Duration::from_millis(300)));
        assert_eq!(time("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(time("0s"), Ok(Duration::ZERO));
        for wrong in [
            "",
            "5",
            "5 m",
            "5 minutes",
            "m",
            "-1s",
            "1.5h",
            "5M",
            "99999999999999999999s",
            "99999d",
            "é",
        ] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_tell_thousands_from_powers_of_two() {
        assert_eq!(size("10MB"), Ok(10_000_000));
        assert_eq!(size("10MiB"), Ok(10_485_760));
        assert_eq!(size("10 kB"), Ok(10_000));
        for wrong in ["", "10", "MB", "10mb", "10 Mb", "99999999999GB", "é"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
