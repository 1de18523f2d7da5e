//! A part of a recording, as a manifest's `start` and `end` name it.

use std::fmt;
use std::ops::Range;

use lowrank::{Error, Result, Subject};

/// One end of a [`Span`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// Seconds from the start of the recording; the nearest sample is meant.
    Seconds(f64),
    /// A share of the recording, 0 to 100: sample `floor(percent / 100 * samples)`, as numpy slices with
    /// `x[int(0.3 * len(x)):]`.
    Percent(f64),
}

impl Bound {
    /// Reads `12.5` (seconds) or `30%`.
    ///
    /// # Errors
    /// For anything else, a negative number and more than 100 %.
    pub fn parse(text: &str) -> Result<Self> {
        let (number, percent) = match text.strip_suffix('%') {
            Some(number) => (number.trim_end(), true),
            None => (text, false),
        };
        let limit = if percent { 100.0 } else { f64::MAX };
        match number.parse::<f64>() {
            Ok(value) if (0.0..=limit).contains(&value) => {
                Ok(if percent { Self::Percent(value) } else { Self::Seconds(value) })
            }
            _ => Err(Error::new(Subject::Data, "not a place in a recording")
                .found(format!("\"{text}\""))
                .expected("seconds such as 12.5, or a share such as 30%")),
        }
    }

    fn sample(self, samples: usize, rate: f64) -> usize {
        #[expect(clippy::cast_precision_loss, reason = "a length in memory is far below 2^53")]
        let place = match self {
            Self::Seconds(seconds) => (seconds * rate).round(),
            Self::Percent(percent) => (percent / 100.0 * samples as f64).floor(),
        };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative; saturates")]
        let place = place as usize;
        place
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seconds(seconds) => write!(f, "{seconds} s"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// From `start` up to `end`, without it. `None` is the recording's own start or end.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Span {
    /// The first sample.
    pub start: Option<Bound>,
    /// The sample after the last.
    pub end: Option<Bound>,
}

impl Span {
    /// The samples meant, in a recording of `samples` samples at `rate` Hz.
    ///
    /// # Errors
    /// When the span begins or ends after the recording does, or holds no sample.
    pub fn resolve(&self, samples: usize, rate: f64) -> Result<Range<usize>> {
        let start = self.start.map_or(0, |bound| bound.sample(samples, rate));
        let end = self.end.map_or(samples, |bound| bound.sample(samples, rate));
        if start.max(end) > samples {
            #[expect(clippy::cast_precision_loss, reason = "a length in memory is far below 2^53")]
            let seconds = samples as f64 / rate;
            return Err(Error::new(Subject::Data, "reaches past the end of the recording")
                .found(self)
                .expected(format!("at most {seconds} s")));
        }
        if start >= end {
            return Err(Error::new(Subject::Data, "holds no sample").found(self).expected("a start before the end"));
        }
        Ok(start..end)
    }

    /// Start and end in seconds, when it has no percentage; an open end is infinite.
    pub(super) fn seconds(&self) -> Option<(f64, f64)> {
        let value = |bound| match bound {
            Bound::Seconds(seconds) => Some(seconds),
            Bound::Percent(_) => None,
        };
        Some((self.start.map_or(Some(0.0), value)?, self.end.map_or(Some(f64::INFINITY), value)?))
    }

    /// Start and end in percent, when it has no seconds.
    pub(super) fn percent(&self) -> Option<(f64, f64)> {
        let value = |bound| match bound {
            Bound::Seconds(_) => None,
            Bound::Percent(percent) => Some(percent),
        };
        Some((self.start.map_or(Some(0.0), value)?, self.end.map_or(Some(100.0), value)?))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.start, self.end) {
            (None, None) => f.write_str("the whole recording"),
            (Some(start), None) => write!(f, "from {start}"),
            (None, Some(end)) => write!(f, "up to {end}"),
            (Some(start), Some(end)) => write!(f, "{start} to {end}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn span(start: &str, end: &str) -> Span {
        let bound = |text: &str| (!text.is_empty()).then(|| Bound::parse(text).unwrap());
        Span { start: bound(start), end: bound(end) }
    }

    #[test]
    fn shares_are_floored_as_numpy_slices_and_seconds_go_to_the_nearest_sample() {
        assert_eq!(span("", "30%").resolve(1743, 50.0).unwrap(), 0..522); // int(0.3 * 1743) = int(522.9)
        assert_eq!(span("35%", "").resolve(1743, 50.0).unwrap(), 610..1743);
        assert_eq!(span("29%", "57 %").resolve(100, 50.0).unwrap(), 28..56); // 0.29 * 100 is below 29 in binary
        assert_eq!(span("0.29", "1.1").resolve(200, 100.0).unwrap(), 29..110);
        assert_eq!(span("", "").resolve(7, 1.0).unwrap(), 0..7);
        assert_eq!(span("0", "100%").resolve(7, 1.0).unwrap(), 0..7);
    }

    #[test]
    fn says_what_is_wrong_with_a_span() {
        let message = |start, end| span(start, end).resolve(100, 10.0).unwrap_err().to_string();
        assert_eq!(
            message("2", "10.5"),
            "reaches past the end of the recording: found 2 s to 10.5 s, expected at most 10 s"
        );
        assert!(span("1e300", "").resolve(100, 10.0).is_err());
        assert_eq!(message("50%", "5"), "holds no sample: found 50% to 5 s, expected a start before the end");
        for text in ["-1", "abc", "101%", "nan", "inf", "%", "1 s"] {
            assert_eq!(
                Bound::parse(text).unwrap_err().to_string(),
                format!(
                    "not a place in a recording: found \"{text}\", expected seconds such as 12.5, or a share such as 30%"
                )
            );
        }
    }

    proptest! {
        #[test]
        fn complementary_shares_neither_overlap_nor_leave_a_gap(percent in 0.1_f64..99.9, samples in 1000_usize..100_000) {
            let cut = Some(Bound::Percent(percent));
            let head = Span { start: None, end: cut }.resolve(samples, 1.0).unwrap();
            let tail = Span { start: cut, end: None }.resolve(samples, 1.0).unwrap();
            prop_assert_eq!((head.start, head.end, tail.end), (0, tail.start, samples));
        }
    }
}
