//! Numbers as people read them.

use lowrank::digits::grouped;

/// `12,345,678`.
pub fn thousands(number: usize) -> String {
    grouped(number as u64, ',')
}

/// `1 step`, `12 steps`.
pub fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// `512 B`, `1.5 KiB`, `3.2 MiB`.
pub fn bytes(number: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
    let mut size = number as f64;
    if size < 1024.0 {
        return format!("{number} B");
    }
    let mut unit = "B";
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if size < 1024.0 {
            break;
        }
        (size, unit) = (size / 1024.0, next);
    }
    format!("{size:.1} {unit}")
}

/// `4.2 s`, `3 min 20 s`, `2 h 5 min`.
pub fn seconds(seconds: f64) -> String {
    if seconds < 59.95 {
        return format!("{seconds:.1} s");
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive here; saturates")]
    let whole = seconds.round() as u64;
    match whole / 3600 {
        0 => format!("{} min {} s", whole / 60, whole % 60),
        hours => format!("{hours} h {} min", whole % 3600 / 60),
    }
}

/// A number in four digits, in scientific notation where that is shorter.
pub fn short(number: f64) -> String {
    match number.abs() {
        0.0 => "0".into(),
        size if (1e-3..1e5).contains(&size) => format!("{number:.4}"),
        _ if number.is_finite() => format!("{number:.2e}"),
        _ => number.to_string(),
    }
}

/// A shape as PyTorch writes it: `[8, 64, 3]`.
pub fn shape(shape: &[usize]) -> String {
    format!("{shape:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!([0, 999, 1000, 17704, 1_234_567].map(thousands), ["0", "999", "1,000", "17,704", "1,234,567"]);
        assert_eq!([0, 1, 2].map(|number| count(number, "step")), ["0 steps", "1 step", "2 steps"]);
        assert_eq!([0, 1023, 1024, 3 << 19, 5 << 30].map(bytes), ["0 B", "1023 B", "1.0 KiB", "1.5 MiB", "5.0 GiB"]);
        assert_eq!([0.25, 59.99, 200.4, 7500.0].map(seconds), ["0.2 s", "1 min 0 s", "3 min 20 s", "2 h 5 min"]);
        assert_eq!([0.0, 0.5, 1e-7, f64::NAN].map(short), ["0", "0.5000", "1.00e-7", "NaN"]);
    }
}
