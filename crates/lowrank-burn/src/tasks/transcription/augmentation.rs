//! Recordings as they might have been: faster or slower, louder or quieter.

use lowrank::random::Random;

/// How far a recording may be varied.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Augmentation {
    /// Largest change of speed, and with it of pitch: 0.1 is from nine tenths to eleven tenths.
    pub speed: f32,
    /// Largest change of level, in dB.
    pub gain: f32,
}

impl Augmentation {
    /// Whether it changes nothing.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// A variation of a sound, a function of the random numbers; it has at most `longest` samples if the sound has.
    #[must_use]
    pub fn of(&self, sound: &[f32], longest: usize, random: &mut Random) -> Vec<f32> {
        let speed = f64::from(random.uniform(1.0 - self.speed, 1.0 + self.speed));
        let gain = 10_f32.powf(random.uniform(-self.gain, self.gain) / 20.0);
        let speed = speed.max(real(sound.len()) / real(longest.max(1))).max(f64::EPSILON);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive number of samples")]
        let length = (real(sound.len()) / speed) as usize;
        (0..length).map(|at| gain * between(sound, real(at) * speed)).collect()
    }
}

/// The value at a place between samples, by the cubic through the four around it (Catmull and Rom, 1974).
fn between(sound: &[f32], place: f64) -> f32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in the sound")]
    let (at, part) = (place as usize, (place - place.floor()) as f32);
    let sample = |at: Option<usize>| at.and_then(|at| sound.get(at)).copied().unwrap_or(0.0);
    let [a, b, c, d] = [at.checked_sub(1), Some(at), Some(at + 1), Some(at + 2)].map(sample);
    let cubic = [b, (c - a) / 2.0, a - 2.5 * b + 2.0 * c - d / 2.0, (3.0 * (b - c) + d - a) / 2.0];
    cubic.iter().rev().fold(0.0, |sum, factor| sum * part + factor)
}

#[expect(clippy::cast_precision_loss, reason = "a length in memory is far below 2^53")]
fn real(number: usize) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(samples: usize, period: f32) -> Vec<f32> {
        #[expect(clippy::cast_precision_loss, reason = "test signal")]
        (0..samples).map(|at| (std::f32::consts::TAU * at as f32 / period).sin()).collect()
    }

    #[test]
    fn a_faster_tone_is_a_higher_one() {
        let faster: Vec<f32> = (0..300).map(|at| between(&tone(400, 40.0), f64::from(at) * 1.25)).collect();
        let exact = tone(300, 32.0);
        assert!(faster.iter().zip(&exact).all(|(found, exact)| (found - exact).abs() < 2e-3));
    }

    #[test]
    fn variations_differ_fit_and_come_again() {
        let (sound, augmentation) = (tone(1000, 30.0), Augmentation { speed: 0.2, gain: 6.0 });
        let of = |index| augmentation.of(&sound, 1050, &mut Random::new(1, "augmentation", index));
        assert_eq!(of(3), of(3));
        let lengths: Vec<usize> = (0..50).map(|index| of(index).len()).collect();
        assert!(lengths.iter().all(|length| (830..=1050).contains(length)), "{lengths:?}");
        assert!(lengths.iter().any(|length| *length < 900) && lengths.contains(&1050));
        let loudest = |sound: Vec<f32>| sound.into_iter().fold(0.0_f32, |most, value| most.max(value.abs()));
        assert!((0..50).map(|index| loudest(of(index))).all(|peak| (0.49..2.1).contains(&peak)));
        let same = Augmentation::default();
        assert!(same.is_none());
        assert_eq!(same.of(&sound, 2000, &mut Random::new(0, "augmentation", 0)), sound);
    }
}
