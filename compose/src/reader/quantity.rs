//! Numbers with a unit as people write them: `1m30s`, `512m`, `1.5`.

use tug_model::{Bytes, Millis, NanoCpus};

const BILLION: u128 = 1_000_000_000;

/// A duration like `1h5m30s20ms`: Go's notation, with days and weeks.
pub(crate) fn duration(text: &str) -> Result<Millis, String> {
    let example = "write e.g. 30s or 1m30s";
    let bad = || format!("\"{}\" is not a duration; {example}", short(text));
    let mut rest = text.trim();
    if rest.starts_with('-') {
        return Err(format!("\"{}\" is negative; {example}", short(text)));
    }
    if rest == "0" {
        return Ok(Millis(0));
    }
    if !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("\"{0}\" has no unit; write {0}s for seconds", short(text)));
    }
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let (number, after) = rest.split_at(number);
        let unit = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let size: u128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => BILLION,
            "m" => 60 * BILLION,
            "h" => 3600 * BILLION,
            "d" => 24 * 3600 * BILLION,
            "w" => 7 * 24 * 3600 * BILLION,
            _ => return Err(bad()),
        };
        let billionths = decimal(number).ok_or_else(bad)?;
        nanos += billionths.checked_mul(size).ok_or_else(bad)? / BILLION;
        rest = after;
    }
    let millis = nanos / 1_000_000;
    let longest = 366 * 24 * 3600 * 1000;
    if text.trim().is_empty() || millis > longest {
        return Err(format!("\"{}\" is not a duration of at most a year; {example}", short(text)));
    }
    u64::try_from(millis).map(Millis).map_err(|_| bad())
}

/// A size like `512m`, `1.5G`, `64MB`, `2gib`, or a number of bytes. The units are powers of 1024, as in Docker.
pub(crate) fn bytes(text: &str) -> Result<Bytes, String> {
    let bad = || format!("\"{}\" is not a size; write e.g. 512m or 2g", short(text));
    let all = text.trim();
    let at = all.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(all.len());
    let (number, unit) = all.split_at(at);
    let size: u128 = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        "p" | "pb" | "pib" => 1 << 50,
        _ => return Err(bad()),
    };
    let bytes = decimal(number).ok_or_else(bad)?.checked_mul(size).ok_or_else(bad)? / BILLION;
    match i64::try_from(bytes) {
        Ok(bytes) => u64::try_from(bytes).map(Bytes).map_err(|_| bad()),
        Err(_) => Err(bad()),
    }
}

/// Processor time like `0.5` or `2`.
pub(crate) fn cpus(text: &str) -> Result<NanoCpus, String> {
    let bad = || format!("\"{}\" is not a number of processors; write e.g. 0.5 or 2", short(text));
    let billionths = decimal(text.trim()).ok_or_else(bad)?;
    if billionths > 4096 * BILLION {
        return Err(bad());
    }
    u64::try_from(billionths).map(NanoCpus).map_err(|_| bad())
}

/// A decimal number without a sign, in billionths; finer digits are cut.
fn decimal(text: &str) -> Option<u128> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.len() <= 20 && text.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && part.is_empty()) || !digits(whole) || !digits(part) {
        return None;
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let nine: String = part.chars().chain("000000000".chars()).take(9).collect();
    whole.checked_mul(BILLION)?.checked_add(nine.parse().ok()?)
}

fn short(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in [
            ("30s", 30_000),
            ("1m30s", 90_000),
            ("1.5h", 5_400_000),
            ("20ms", 20),
            ("999us", 0),
            ("0", 0),
            ("0s", 0),
            ("2d", 172_800_000),
            ("1w", 604_800_000),
        ] {
            assert_eq!(duration(text), Ok(Millis(millis)), "{text}");
        }
        for text in
            ["", "s", "5 apples", "-1s", "1.2.3s", "10 s", "1e3s", "99999999999999999999999h", "9999w"]
        {
            assert!(duration(text).is_err(), "{text}");
        }
        assert_eq!(duration("30").unwrap_err(), "\"30\" has no unit; write 30s for seconds");
    }

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("10", 10),
            ("512m", 512 << 20),
            ("1.5G", 3 << 29),
            ("64MB", 64 << 20),
            ("2gib", 2 << 30),
            ("50 M", 50 << 20),
            ("0.5k", 512),
        ] {
            assert_eq!(bytes(text), Ok(Bytes(expected)), "{text}");
        }
        for text in ["", "-1g", "1e99g", "5 apples", "m", "NaN", "99999999999t", "1..2m"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn processors() {
        assert_eq!(cpus("0.5"), Ok(NanoCpus(500_000_000)));
        assert_eq!(cpus("2"), Ok(NanoCpus(2_000_000_000)));
        assert_eq!(cpus(".25"), Ok(NanoCpus(250_000_000)));
        for text in ["NaN", "", "-1", "1e3", "inf", "99999", "."] {
            assert!(cpus(text).is_err(), "{text}");
        }
    }
}
