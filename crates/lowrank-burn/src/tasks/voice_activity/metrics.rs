//! How well speech is found: counts of frames, and what is made of them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::tasks::Score;
use crate::tasks::classification::{MeanLoss, figure};

/// From this probability on, a frame is taken for speech.
const THRESHOLD: f32 = 0.5;

/// The figures of some frames. What would be a division by zero is none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// How many frames were heard.
    pub frames: u64,
    /// How many of them are speech.
    pub speech: u64,
    /// Frames that are none and were taken for speech.
    pub false_alarms: u64,
    /// Frames of speech that were not found.
    pub misses: u64,
    /// `2 hits / (2 hits + false alarms + misses)`, at a probability of 0.5.
    pub f1: Option<f64>,
    /// The area under the ROC curve: how often a frame of speech has a larger logit than another frame. Ties count half.
    pub auc: Option<f64>,
    /// False alarms over frames that are no speech.
    pub false_alarm_rate: Option<f64>,
    /// Misses over frames of speech.
    pub miss_rate: Option<f64>,
    /// False alarms and misses over frames of speech, as pyannote.metrics has the detection error rate.
    pub detection_error: Option<f64>,
}

/// The figures of one recording.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordingFigures {
    /// The file.
    pub path: String,
    /// Its figures.
    #[serde(flatten)]
    pub figures: Figures,
}

/// One pass over recordings with labels. Displays as a table, a recording a line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// The mean binary cross-entropy of a frame.
    pub loss: Option<f64>,
    /// Of all frames together.
    #[serde(flatten)]
    pub all: Figures,
    /// Recording by recording, in the order of the manifest.
    pub recordings: Vec<RecordingFigures>,
}

/// What was said of a frame, and whether it is speech.
pub(super) type Scored = (f32, bool);

/// Whether a logit says speech.
pub(super) fn is_speech(logit: f32) -> bool {
    sigmoid(logit) >= THRESHOLD
}

/// The probability of speech.
pub(super) fn sigmoid(logit: f32) -> f32 {
    1.0 / (1.0 + (-logit).exp())
}

impl Figures {
    /// The figures of frames, each with its logit and its label.
    pub(super) fn of(scored: &[Scored]) -> Self {
        let count = |wanted: fn(&Scored) -> bool| scored.iter().filter(|one| wanted(one)).count() as u64;
        let (frames, speech) = (scored.len() as u64, count(|(_, speech)| *speech));
        let false_alarms = count(|(logit, speech)| !speech && is_speech(*logit));
        let misses = count(|(logit, speech)| *speech && !is_speech(*logit));
        let hits = speech - misses;
        Self {
            frames,
            speech,
            false_alarms,
            misses,
            f1: ratio(2 * hits, 2 * hits + false_alarms + misses),
            auc: auc(scored),
            false_alarm_rate: ratio(false_alarms, frames - speech),
            miss_rate: ratio(misses, speech),
            detection_error: ratio(false_alarms + misses, speech),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of frames are far below 2^53")]
fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// The area under the ROC curve, from the ranks of the frames of speech (Mann and Whitney, 1947).
fn auc(scored: &[Scored]) -> Option<f64> {
    let mut sorted = scored.to_vec();
    sorted.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    let (mut others, mut wins) = (0_u64, 0_u64);
    for tied in sorted.chunk_by(|(a, _), (b, _)| a.total_cmp(b).is_eq()) {
        let speech = tied.iter().filter(|(_, speech)| *speech).count() as u64;
        let rest = tied.len() as u64 - speech;
        // In halves, so that a tie counts one.
        wins += speech * (2 * others + rest);
        others += rest;
    }
    ratio(wins, 2 * others * (scored.len() as u64 - others))
}

/// `-log` of the probability that the network gives to the truth.
pub(super) fn cross_entropy(logit: f32, speech: bool) -> f64 {
    let z = f64::from(if speech { logit } else { -logit });
    (-z.abs()).exp().ln_1p() + (-z).max(0.0)
}

impl Evaluation {
    /// The figures of recordings, each with its frames.
    pub(super) fn new(recordings: Vec<(String, Vec<Scored>)>) -> Self {
        let mut loss = MeanLoss::default();
        let all: Vec<Scored> = recordings.iter().flat_map(|(_, scored)| scored.iter().copied()).collect();
        for (logit, speech) in &all {
            loss.add(cross_entropy(*logit, *speech), 1);
        }
        let figures = |(path, scored): (String, Vec<Scored>)| RecordingFigures { path, figures: Figures::of(&scored) };
        Self { loss: loss.mean(), all: Figures::of(&all), recordings: recordings.into_iter().map(figures).collect() }
    }

    /// The figures that are told first, the loss last.
    #[must_use]
    pub fn scores(&self) -> Vec<Score> {
        let lower =
            |name, title, value| Score { better: crate::tasks::Better::Lower, ..Score::share(name, title, value) };
        vec![
            Score::share("f1", "F1", self.all.f1),
            Score::share("auc", "AUC", self.all.auc),
            lower("false_alarm_rate", "false alarms", self.all.false_alarm_rate),
            lower("miss_rate", "misses", self.all.miss_rate),
            lower("detection_error", "detection error", self.all.detection_error),
            Score::loss(self.loss),
        ]
    }
}

impl fmt::Display for Evaluation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |path: &str| path.rsplit(['/', '\\']).next().unwrap_or(path).to_owned();
        let rows = self.recordings.iter().map(|one| (name(&one.path), &one.figures));
        let rows: Vec<_> = rows.chain([("all".to_owned(), &self.all)]).collect();
        let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
        writeln!(f, "{:width$}  frames  speech     F1    AUC  false alarms  misses  detection error", "")?;
        for (name, one) in &rows {
            let [f1, auc, alarms, misses, error] =
                [one.f1, one.auc, one.false_alarm_rate, one.miss_rate, one.detection_error]
                    .map(|value| figure(value, 3));
            writeln!(
                f,
                "{name:width$}  {:>6}  {:>6}  {f1:>5}  {auc:>5}  {alarms:>12}  {misses:>6}  {error:>15}",
                one.frames, one.speech
            )?;
        }
        write!(f, "loss {}", figure(self.loss, 4))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn figures_are_the_textbooks() {
        // Two hits, a miss, a false alarm, a right silence.
        let scored = [(2.0, true), (0.0, true), (-1.0, true), (1.0, false), (-3.0, false)];
        let figures = Figures::of(&scored);
        assert_eq!((figures.frames, figures.speech, figures.false_alarms, figures.misses), (5, 3, 1, 1));
        assert_eq!(figures.f1, Some(4.0 / 6.0));
        assert_eq!((figures.false_alarm_rate, figures.miss_rate), (Some(0.5), Some(1.0 / 3.0)));
        assert_eq!(figures.detection_error, Some(2.0 / 3.0));
        // Of six pairs, speech wins four: 2 > 1, and all three > -3.
        assert_eq!(figures.auc, Some(4.0 / 6.0));
    }

    #[test]
    fn without_speech_there_are_false_alarms_only() {
        let figures = Figures::of(&[(1.0, false), (-1.0, false)]);
        assert_eq!((figures.f1, figures.auc), (Some(0.0), None));
        assert_eq!((figures.false_alarm_rate, figures.miss_rate, figures.detection_error), (Some(0.5), None, None));
        assert_eq!(Figures::of(&[]).f1, None);
    }

    #[test]
    fn cross_entropy_is_minus_the_log_of_the_sigmoid() {
        for logit in [-3.0_f32, -0.2, 0.0, 1.0, 6.0] {
            let p = 1.0 / (1.0 + f64::from(-logit).exp());
            assert!((cross_entropy(logit, true) + p.ln()).abs() < 1e-12);
            assert!((cross_entropy(logit, false) + (1.0 - p).ln()).abs() < 1e-12);
        }
        assert!((cross_entropy(-1000.0, true) - 1000.0).abs() < 1e-9);
    }

    #[test]
    fn json_comes_back_and_the_table_is_aligned() {
        let recordings = vec![
            ("a/b.wav".to_owned(), vec![(2.0, true), (-1.0, false)]),
            ("music.wav".to_owned(), vec![(1.0, false), (-1.0, false)]),
        ];
        let evaluation = Evaluation::new(recordings);
        let json = serde_json::to_value(crate::tasks::Evaluation::VoiceActivity(evaluation.clone())).unwrap();
        assert_eq!((&json["task"], &json["speech"]), (&"voice_activity".into(), &1.into()));
        assert_eq!(json["recordings"][1]["false_alarm_rate"], 0.5);
        let back: crate::tasks::Evaluation = serde_json::from_value(json).unwrap();
        assert_eq!(back, crate::tasks::Evaluation::VoiceActivity(evaluation.clone()));
        let expected = [
            "           frames  speech     F1    AUC  false alarms  misses  detection error",
            "b.wav           2       1  1.000  1.000         0.000   0.000            0.000",
            "music.wav       2       0  0.000      -         0.500       -                -",
            "all             4       1  0.667  1.000         0.333   0.000            1.000",
            "loss 0.5167",
        ];
        assert_eq!(evaluation.to_string().lines().collect::<Vec<_>>(), expected);
    }

    proptest! {
        /// Against all pairs.
        #[test]
        fn auc_is_the_share_of_pairs_in_order(
            scored in prop::collection::vec((-3i8..3, any::<bool>()), 0..40)
        ) {
            let scored: Vec<Scored> = scored.into_iter().map(|(logit, speech)| (f32::from(logit), speech)).collect();
            let (mut wins, mut pairs) = (0.0, 0.0);
            for (a, _) in scored.iter().filter(|(_, speech)| *speech) {
                for (b, _) in scored.iter().filter(|(_, speech)| !speech) {
                    pairs += 1.0;
                    wins += if a > b { 1.0 } else if a.total_cmp(b).is_eq() { 0.5 } else { 0.0 };
                }
            }
            prop_assert_eq!(auc(&scored), (pairs > 0.0).then(|| wins / pairs));
        }
    }
}
