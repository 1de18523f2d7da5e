//! Large whole numbers as people read them.

/// `number` with `separator` between groups of three digits.
///
/// ```
/// # use lowrank::digits::grouped;
/// assert_eq!(grouped(118_959, ','), "118,959");
/// assert_eq!(grouped(7, ','), "7");
/// ```
#[must_use]
pub fn grouped(number: u64, separator: char) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(separator);
        }
        text.push(digit);
    }
    text
}
