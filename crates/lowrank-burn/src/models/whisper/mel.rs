//! Log-mel spectrograms, as transformers' `WhisperFeatureExtractor` makes them.

use realfft::RealFftPlanner;
use realfft::num_complex::Complex;

/// Samples a second that Whisper hears, in Hz.
pub const RATE: usize = 16_000;
/// Samples from one frame to the next.
const HOP: usize = 160;
/// Samples of a frame.
const FRAME: usize = 400;
/// Frequencies of a frame, from 0 to 8,000 Hz.
const BINS: usize = FRAME / 2 + 1;
/// Frames a second.
const FRAMES_A_SECOND: usize = RATE / HOP;
/// Positions of the encoder a second: it halves the frames.
pub const POSITIONS_A_SECOND: usize = FRAMES_A_SECOND / 2;
/// Energies below this are taken for it.
const FLOOR: f64 = 1e-10;
/// Decades that are kept below the loudest.
const RANGE: f64 = 8.0;

/// Seconds of the longest window of a network with so many `max_source_positions`: 30 for the published checkpoints.
#[must_use]
pub fn longest_window(max_source_positions: f64) -> f64 {
    max_source_positions / real(POSITIONS_A_SECOND)
}

/// Log-mel spectrograms of a number of bins.
///
/// Frames of 400 samples, every 160, under a periodic Hann window; the sound is mirrored at both ends so that frame `t` is
/// about sample `160·t`. Energies go through triangles on Slaney's mel scale (linear to 1 kHz, logarithmic above), each of
/// unit area in Hz. The value is `(max(log10 E, loudest - 8) + 4) / 4`, where the loudest is that of the window. Computed in
/// `f64`.
#[derive(Debug, Clone)]
pub struct LogMel {
    window: Vec<f64>,
    /// Of each mel bin, its first frequency and the weights from there.
    filters: Vec<(usize, Vec<f64>)>,
}

impl LogMel {
    /// With `bins` triangles.
    #[must_use]
    pub fn new(bins: usize) -> Self {
        let turn = |at: usize| std::f64::consts::TAU * real(at) / real(FRAME);
        Self { window: (0..FRAME).map(|at| 0.5 - 0.5 * turn(at).cos()).collect(), filters: filters(bins) }
    }

    /// The spectrogram of `frames` frames from the beginning of a sound at [`RATE`]; silence follows a shorter one, and of a
    /// longer one the rest is left out.
    ///
    /// # Shapes
    /// - output: `[bins, frames]`, row-major
    #[must_use]
    pub fn of(&self, sound: &[f32], frames: usize) -> Vec<f32> {
        let length = frames * HOP;
        let sample = |at: usize| sound.get(at).map_or(0.0, |value| f64::from(*value));
        let transform = RealFftPlanner::<f64>::new().plan_fft_forward(FRAME);
        let (mut input, mut output) = (transform.make_input_vec(), transform.make_output_vec());
        let mut scratch = transform.make_scratch_vec();
        let mut logs = vec![0.0; self.filters.len() * frames];
        let mut loudest = FLOOR.log10();
        for frame in 0..frames {
            for (at, (value, weight)) in input.iter_mut().zip(&self.window).enumerate() {
                *value = weight * sample(mirrored(frame * HOP + at, FRAME / 2, length));
            }
            // The lengths are the plan's own, so there is nothing that can fail.
            let _ = transform.process_with_scratch(&mut input, &mut output, &mut scratch);
            for (bin, (first, weights)) in self.filters.iter().enumerate() {
                let energies = output.iter().skip(*first).map(Complex::norm_sqr);
                let energy: f64 = weights.iter().zip(energies).map(|(weight, energy)| weight * energy).sum();
                let log = energy.max(FLOOR).log10();
                logs[bin * frames + frame] = log;
                loudest = loudest.max(log);
            }
        }
        #[expect(clippy::cast_possible_truncation, reason = "features are f32")]
        let value = |log: f64| ((log.max(loudest - RANGE) + 4.0) / 4.0) as f32;
        logs.into_iter().map(value).collect()
    }
}

/// Position `at` of a sound of `length` samples mirrored by `margin` at both ends, without repeating its ends.
fn mirrored(at: usize, margin: usize, length: usize) -> usize {
    let from_start = at.abs_diff(margin);
    let last = length.saturating_sub(1);
    if from_start <= last { from_start } else { (2 * last).saturating_sub(from_start) }
}

/// Triangles between neighbouring marks, which are equally far apart in mel.
fn filters(bins: usize) -> Vec<(usize, Vec<f64>)> {
    let top = mel(real(RATE) / 2.0);
    let marks: Vec<f64> = (0..bins + 2).map(|at| hertz(top * real(at) / real(bins + 1))).collect();
    let triangle = |marks: &[f64]| {
        let &[low, peak, high] = marks else { return (0, Vec::new()) };
        let weight = |bin: usize| {
            let frequency = real(bin) * real(RATE) / real(FRAME);
            let (up, down) = ((frequency - low) / (peak - low), (high - frequency) / (high - peak));
            up.min(down).max(0.0) * 2.0 / (high - low)
        };
        let first = (0..BINS).find(|bin| weight(*bin) > 0.0).unwrap_or(0);
        (first, (first..BINS).map(weight).take_while(|weight| *weight > 0.0).collect())
    };
    marks.windows(3).map(triangle).collect()
}

/// Slaney's mel scale: 15 mel are 1 kHz, and above it 27 mel a factor of 6.4.
fn mel(hertz: f64) -> f64 {
    if hertz < 1000.0 { 3.0 * hertz / 200.0 } else { 15.0 + (hertz / 1000.0).ln() * 27.0 / 6.4_f64.ln() }
}

fn hertz(mel: f64) -> f64 {
    if mel < 15.0 { 200.0 * mel / 3.0 } else { 1000.0 * ((mel - 15.0) * 6.4_f64.ln() / 27.0).exp() }
}

#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn real(number: usize) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sound_is_mirrored_at_its_ends() {
        let places: Vec<usize> = (0..9).map(|at| mirrored(at, 2, 5)).collect();
        assert_eq!(places, [2, 1, 0, 1, 2, 3, 4, 3, 2]);
    }

    #[test]
    fn the_scale_goes_both_ways() {
        for frequency in [0.0, 440.0, 1000.0, 3000.0, 8000.0] {
            assert!((hertz(mel(frequency)) - frequency).abs() < 1e-9);
        }
    }

    #[test]
    fn a_tone_is_loudest_where_it_is() {
        let tone = |at: usize| (std::f64::consts::TAU * 1000.0 * real(at) / real(RATE)).sin();
        #[expect(clippy::cast_possible_truncation, reason = "test signal")]
        let sound: Vec<f32> = (0..RATE).map(|at| tone(at) as f32).collect();
        let mel = LogMel::new(80).of(&sound, 100);
        let middle: Vec<f32> = (0..80).map(|bin| mel[bin * 100 + 50]).collect();
        let loudest = (0..80).max_by(|a, b| middle[*a].total_cmp(&middle[*b])).unwrap();
        let marks = filters(80);
        let (first, weights) = &marks[loudest];
        assert!((*first..first + weights.len()).contains(&25), "1,000 Hz is bin 25 of 40 Hz each");
    }

    #[test]
    fn silence_is_the_floor() {
        assert!(LogMel::new(80).of(&[0.0; 1600], 10).iter().all(|value| (value + 1.5).abs() < 1e-6));
    }
}
