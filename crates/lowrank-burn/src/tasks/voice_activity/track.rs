//! Where in a recording somebody speaks.

use std::ops::Range;

use lowrank::{Error, Result, Subject};

/// Below the loudest frame of a recording by this factor of energy, 40 dB, it is taken for silence.
const QUIET: f64 = 1e-4;
/// Silences of as many frames belong to the speech around them.
const GAP: usize = 5;
/// Frames of the rule by energy a second, about.
const FRAMES_PER_SECOND: f64 = 31.25;

/// The parts of a recording that are speech, in samples, in order and apart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Track {
    parts: Vec<Range<usize>>,
}

impl Track {
    /// Reads a label track as Audacity exports it: a line for each part, its start and end in seconds and the word
    /// `speech` or nothing, separated by tabs. Parts may touch and overlap, in any order. `rate` is that of the samples, in Hz.
    ///
    /// # Errors
    /// All lines that are something else.
    pub fn parse(text: &str, rate: f64) -> Result<Self> {
        let (mut parts, mut errors) = (Vec::new(), Vec::new());
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            match part(line, rate) {
                Ok(part) => parts.push(part),
                Err(error) => errors.push(error.at(format!("line {}", number + 1))),
            }
        }
        Error::all(errors)?;
        Ok(Self::of(parts))
    }

    /// The parts of a clean recording that are not silent: frames of 32 ms with an energy above that of the loudest less
    /// 40 dB, gaps of up to five frames closed.
    #[must_use]
    pub fn by_energy(samples: &[f32], rate: f64) -> Self {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive rate; saturates")]
        let frame = ((rate / FRAMES_PER_SECOND).round() as usize).max(1);
        let energy = |frame: &[f32]| frame.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>();
        let energies: Vec<f64> = samples.chunks(frame).map(energy).collect();
        let loudest = energies.iter().copied().fold(0.0, f64::max);
        let loud = energies.iter().enumerate().filter(|(_, energy)| **energy > QUIET * loudest);
        let ends = |at: usize| at * frame..((at + 1) * frame).min(samples.len());
        Self::joined(loud.map(|(at, _)| ends(at)).collect(), GAP * frame)
    }

    /// Parts in any order.
    fn of(mut parts: Vec<Range<usize>>) -> Self {
        parts.sort_by_key(|part| part.start);
        Self::joined(parts, 0)
    }

    /// Parts in order, those at most `gap` apart as one.
    fn joined(parts: Vec<Range<usize>>, gap: usize) -> Self {
        let mut joined: Vec<Range<usize>> = Vec::new();
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            match joined.last_mut().filter(|last| part.start <= last.end + gap) {
                Some(last) => last.end = last.end.max(part.end),
                None => joined.push(part),
            }
        }
        Self { parts: joined }
    }

    /// What of it is in a part of the recording.
    #[must_use]
    pub fn within(self, range: &Range<usize>) -> Self {
        let cut = |part: Range<usize>| part.start.max(range.start)..part.end.min(range.end);
        Self { parts: self.parts.into_iter().map(cut).filter(|part| !part.is_empty()).collect() }
    }

    /// The sample after the last that is speech.
    #[must_use]
    pub fn end(&self) -> usize {
        self.parts.last().map_or(0, |part| part.end)
    }

    /// Whether at least half of each frame is speech, for `count` frames of `frame` samples from `start` on.
    #[must_use]
    pub fn frames(&self, start: usize, frame: usize, count: usize) -> Vec<bool> {
        let spoken = |at: usize| {
            let (from, to) = (start + at * frame, start + (at + 1) * frame);
            let first = self.parts.partition_point(|part| part.end <= from);
            let inside = self.parts[first..].iter().take_while(|part| part.start < to);
            let samples: usize = inside.map(|part| part.end.min(to) - part.start.max(from)).sum();
            2 * samples >= frame
        };
        (0..count).map(spoken).collect()
    }
}

/// One line of a label track.
fn part(line: &str, rate: f64) -> Result<Range<usize>> {
    let malformed = || {
        let error = Error::new(Subject::Data, "not a part of a label track").found(format!("\"{line}\""));
        error.expected("start and end in seconds and the word speech, separated by tabs")
    };
    let mut fields = line.split('\t').map(str::trim);
    let mut second = || fields.next()?.parse::<f64>().ok().filter(|second| (0.0..1e9).contains(second));
    let (start, end) = second().zip(second()).ok_or_else(malformed)?;
    match fields.next() {
        None | Some("" | "speech") if start <= end => {}
        None | Some("" | "speech") => return Err(malformed()),
        Some(other) => {
            let error = Error::new(Subject::Data, "unknown label").found(format!("\"{other}\"")).expected("speech");
            return Err(error.with_hint("what is no speech has no line"));
        }
    }
    if fields.next().is_some() {
        return Err(malformed());
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative; saturates")]
    let sample = |second: f64| (second * rate).round() as usize;
    Ok(sample(start)..sample(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_track_is_what_audacity_exports() {
        let track = Track::parse("0.500000\t1.000000\tspeech\n\n0.9\t1.2\t\r\n3\t4\n2\t2\tspeech\n", 10.0).unwrap();
        assert_eq!(track.parts, [5..12, 30..40]);
        assert_eq!(track.end(), 40);
        assert_eq!(Track::parse("", 10.0).unwrap(), Track::default());
    }

    #[test]
    fn wrong_lines_are_all_named() {
        let error = Track::parse("1\t0.5\n0\t1\tmusic\nx\t1\n1\n0\t1\tspeech\tx\n-1\t1\n", 10.0).unwrap_err();
        let parts: Vec<String> = error.parts().iter().map(ToString::to_string).collect();
        let expected = "expected start and end in seconds and the word speech, separated by tabs";
        assert_eq!(parts.len(), 6);
        assert_eq!(parts[0], format!("line 1: not a part of a label track: found \"1\t0.5\", {expected}"));
        assert_eq!(parts[1], "line 2: unknown label: found \"music\", expected speech");
        assert_eq!(parts[3], format!("line 4: not a part of a label track: found \"1\", {expected}"));
    }

    #[test]
    fn a_frame_is_speech_from_half_on() {
        let track = Track { parts: vec![5..12, 30..31, 33..40] };
        assert_eq!(track.frames(0, 10, 5), [true, false, false, true, false]);
        assert_eq!(track.frames(8, 4, 2), [true, false]);
        // Two halves of one frame add up.
        assert_eq!(track.frames(29, 6, 1), [true]);
        assert_eq!(track.frames(29, 8, 1), [true]);
        assert_eq!(track.frames(29, 9, 1), [true]);
        assert_eq!(track.frames(26, 8, 1), [false]);
        assert_eq!(track.within(&(6..31)).parts, [6..12, 30..31]);
    }

    #[test]
    fn by_energy_short_gaps_are_speech_and_long_ones_are_not() {
        let frame = |value: f32| vec![value; 32];
        let quiet = 0.009;
        let mut samples = [frame(0.0), frame(1.0)].concat();
        (0..5).for_each(|_| samples.extend(frame(quiet)));
        samples.extend(frame(0.5));
        (0..6).for_each(|_| samples.extend(frame(quiet)));
        samples.extend(frame(0.02));
        samples.extend([0.0; 3]);
        assert_eq!(Track::by_energy(&samples, 1000.0).parts, [32..8 * 32, 14 * 32..15 * 32]);
        assert_eq!(Track::by_energy(&[0.0; 100], 1000.0), Track::default());
    }
}
