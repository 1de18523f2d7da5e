//! When each character was said.

use std::ops::Range;

/// The likeliest frames of each label (forced alignment: Viterbi over the states of CTC). Blanks between labels belong to
/// none. None when there are fewer frames than the labels need.
///
/// `log_probs` holds the frames, `classes` numbers each.
#[must_use]
pub fn align(log_probs: &[f32], classes: usize, labels: &[usize], blank: usize) -> Option<Vec<Range<usize>>> {
    // A blank before, between and after the labels.
    let states: Vec<usize> = labels.iter().flat_map(|label| [blank, *label]).chain([blank]).collect();
    let mut scores = vec![f64::NEG_INFINITY; states.len()];
    let mut from: Vec<Vec<usize>> = Vec::new();
    for (t, frame) in log_probs.chunks(classes.max(1)).enumerate() {
        let (mut next, mut back) = (vec![f64::NEG_INFINITY; states.len()], vec![0; states.len()]);
        for (state, id) in states.iter().enumerate() {
            let reach = if t == 0 {
                (if state < 2 { 0.0 } else { f64::NEG_INFINITY }, state)
            } else {
                // Of equally likely ways the one that came furthest back, so that ties are settled.
                let skips = state >= 2 && *id != blank && states[state - 2] != *id;
                let steps = [Some(state), state.checked_sub(1), state.checked_sub(2).filter(|_| skips)];
                let first = (f64::NEG_INFINITY, state);
                let better = |best: (f64, usize), at: usize| if scores[at] > best.0 { (scores[at], at) } else { best };
                steps.into_iter().flatten().fold(first, better)
            };
            next[state] = reach.0 + f64::from(frame.get(*id).copied().unwrap_or(f32::NEG_INFINITY));
            back[state] = reach.1;
        }
        scores = next;
        from.push(back);
    }
    let mut state = (states.len().saturating_sub(2)..states.len()).max_by(|a, b| scores[*a].total_cmp(&scores[*b]))?;
    if scores[state] == f64::NEG_INFINITY {
        return None;
    }
    let mut spans: Vec<Range<usize>> = vec![0..0; labels.len()];
    for (t, back) in from.iter().enumerate().rev() {
        if state % 2 == 1 {
            let span = &mut spans[state / 2];
            *span = t..if span.end == 0 { t + 1 } else { span.end };
        }
        state = back[state];
    }
    Some(spans)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(path: &[usize]) -> Vec<f32> {
        path.iter().flat_map(|best| (0..3).map(move |id| if id == *best { -0.1 } else { -3.0 })).collect()
    }

    #[test]
    fn labels_lie_where_they_are_likeliest() {
        let path = [0, 1, 1, 0, 1, 2, 2, 0];
        assert_eq!(align(&frames(&path), 3, &[1, 1, 2], 0), Some(vec![1..3, 4..5, 5..7]));
        // One that is not likely anywhere still gets its place between the others.
        let mut unlikely = frames(&[1, 1, 0, 1]);
        unlikely[2 * 3 + 2] = -2.0;
        assert_eq!(align(&unlikely, 3, &[1, 2, 1], 0), Some(vec![0..2, 2..3, 3..4]));
    }

    #[test]
    fn too_few_frames_hold_no_alignment() {
        // A repeated label needs a blank between.
        assert_eq!(align(&frames(&[1, 1]), 3, &[1, 1], 0), None);
        assert_eq!(align(&frames(&[1, 1, 1]), 3, &[1, 1], 0), Some(vec![0..1, 2..3]));
        assert_eq!(align(&frames(&[0]), 3, &[], 0), Some(vec![]));
    }
}
