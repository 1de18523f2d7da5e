//! From a character's probability in each frame to the characters that were said.

use std::collections::BTreeMap;

/// The likeliest output of every frame, repetitions taken once and blanks left out.
///
/// `log_probs` holds the frames, `classes` numbers each.
#[must_use]
pub fn greedy(log_probs: &[f32], classes: usize, blank: usize) -> Vec<usize> {
    let best = |frame: &[f32]| {
        let first = (0, f32::NEG_INFINITY);
        frame.iter().enumerate().fold(first, |best, (at, value)| if *value > best.1 { (at, *value) } else { best }).0
    };
    let mut path: Vec<usize> = log_probs.chunks(classes.max(1)).map(best).collect();
    path.dedup();
    path.retain(|id| *id != blank);
    path
}

/// Log-probabilities of one sequence of characters so far: of the ways that end in a blank, and of the others.
#[derive(Debug, Clone, Copy)]
struct Ways {
    blank: f64,
    character: f64,
}

impl Ways {
    const NONE: Self = Self { blank: f64::NEG_INFINITY, character: f64::NEG_INFINITY };

    fn total(self) -> f64 {
        log_add(self.blank, self.character)
    }
}

/// The likeliest characters of the `beams` sequences that are kept after every frame, all ways to each of them counted
/// together (prefix beam search: Hannun, Maas, Jurafsky and Ng, "First-Pass Large Vocabulary Continuous Speech Recognition
/// using Bi-Directional Recurrent DNNs", 2014, without a language model).
///
/// `log_probs` holds the frames, `classes` numbers each. Of equally likely sequences the first by their numbers is kept.
#[must_use]
pub fn beam_search(log_probs: &[f32], classes: usize, blank: usize, beams: usize) -> Vec<usize> {
    let mut kept: Vec<(Vec<usize>, Ways)> = vec![(Vec::new(), Ways { blank: 0.0, ..Ways::NONE })];
    for frame in log_probs.chunks(classes.max(1)) {
        let mut next: BTreeMap<Vec<usize>, Ways> = BTreeMap::new();
        for (prefix, ways) in &kept {
            extend(&mut next, prefix, *ways, frame, blank);
        }
        kept = next.into_iter().collect();
        kept.sort_by(|(_, a), (_, b)| b.total().total_cmp(&a.total()));
        kept.truncate(beams.max(1));
    }
    kept.into_iter().next().map(|(prefix, _)| prefix).unwrap_or_default()
}

/// All that one more frame makes of a sequence.
fn extend(next: &mut BTreeMap<Vec<usize>, Ways>, prefix: &[usize], ways: Ways, frame: &[f32], blank: usize) {
    for (id, log_prob) in frame.iter().enumerate() {
        let log_prob = f64::from(*log_prob);
        if id == blank {
            let same = next.entry(prefix.to_vec()).or_insert(Ways::NONE);
            same.blank = log_add(same.blank, ways.total() + log_prob);
            continue;
        }
        let repeats = prefix.last() == Some(&id);
        if repeats {
            // The same character held, or said again after a blank.
            let same = next.entry(prefix.to_vec()).or_insert(Ways::NONE);
            same.character = log_add(same.character, ways.character + log_prob);
        }
        let before = if repeats { ways.blank } else { ways.total() };
        if before > f64::NEG_INFINITY {
            let longer = next.entry([prefix, &[id]].concat()).or_insert(Ways::NONE);
            longer.character = log_add(longer.character, before + log_prob);
        }
    }
}

/// `log(eᵃ + eᵇ)`.
fn log_add(a: f64, b: f64) -> f64 {
    let (large, small) = if a > b { (a, b) } else { (b, a) };
    if large == f64::NEG_INFINITY { large } else { large + (small - large).exp().ln_1p() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn logs(probabilities: &[f64]) -> Vec<f32> {
        #[expect(clippy::cast_possible_truncation, reason = "as a network has them")]
        let logs = probabilities.iter().map(|p| p.ln() as f32).collect();
        logs
    }

    #[test]
    fn repetitions_are_one_and_blanks_none() {
        let path = [0, 1, 1, 0, 1, 2, 2, 0];
        let frames: Vec<f64> =
            path.iter().flat_map(|best| (0..3).map(move |id| if id == *best { 0.8 } else { 0.1 })).collect();
        assert_eq!(greedy(&logs(&frames), 3, 0), [1, 1, 2]);
        assert_eq!(beam_search(&logs(&frames), 3, 0, 8), [1, 1, 2]);
    }

    /// The textbook case: blank is likeliest in both frames, but the ways to `1` are likelier together.
    #[test]
    fn a_search_counts_all_ways() {
        let frames = logs(&[0.6, 0.4, 0.6, 0.4]);
        assert!(greedy(&frames, 2, 0).is_empty());
        assert_eq!(beam_search(&frames, 2, 0, 4), [1]);
    }

    /// The sum over every path, by enumeration.
    fn best_by_enumeration(probabilities: &[f64], classes: usize, frames: usize) -> (Vec<usize>, f64, f64) {
        let mut sums: BTreeMap<Vec<usize>, f64> = BTreeMap::new();
        for number in 0..classes.pow(u32::try_from(frames).unwrap()) {
            let path: Vec<usize> =
                (0..frames).map(|t| number / classes.pow(u32::try_from(t).unwrap()) % classes).collect();
            let p: f64 = path.iter().enumerate().map(|(t, id)| probabilities[t * classes + id]).product();
            let mut labels = path;
            labels.dedup();
            labels.retain(|id| *id != 0);
            *sums.entry(labels).or_default() += p;
        }
        let mut all: Vec<_> = sums.into_iter().collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1));
        (all[0].0.clone(), all[0].1, all.get(1).map_or(0.0, |second| second.1))
    }

    proptest! {
        #[test]
        fn a_wide_search_finds_the_likeliest_text(weights in prop::collection::vec(0.05..1.0f64, 12)) {
            let probabilities: Vec<f64> = weights.chunks(3).flat_map(|frame| {
                let sum: f64 = frame.iter().sum();
                frame.iter().map(move |weight| weight / sum).collect::<Vec<_>>()
            }).collect();
            let (best, first, second) = best_by_enumeration(&probabilities, 3, 4);
            prop_assume!(first - second > 1e-5);
            prop_assert_eq!(beam_search(&logs(&probabilities), 3, 0, 1000), best);
        }
    }
}
