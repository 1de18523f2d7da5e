//! What the combination types do with tensors of one shape, one an adapter: prune, elect signs, add.

use super::how::{Combination, MajoritySign, Pruning};
use crate::random::Random;

/// `sum_i weight_i * t_i` over the pruned `t_i`; with an election, over those that have the winning sign, by their number.
///
/// The sign is that of the values themselves, whatever their weights, as in PEFT. `draw` has the random numbers of each
/// tensor.
pub(super) fn add(
    mut tasks: Vec<Vec<f64>>,
    weights: &[f64],
    how: &Combination,
    draw: impl Fn(usize) -> Random,
) -> Vec<f64> {
    for (index, task) in tasks.iter_mut().enumerate() {
        match (how.combination_type.pruning(), how.density) {
            (Pruning::Magnitude, Some(density)) => keep_largest(task, density),
            (Pruning::Random, Some(density)) => drop_at_random(task, density, &mut draw(index)),
            _ => {}
        }
    }
    let elects = how.combination_type.elects_sign().then(|| how.majority_sign_method.unwrap_or_default());
    let values = tasks.first().map_or(0, Vec::len);
    (0..values).map(|place| one(tasks.iter().map(|task| task[place]).zip(weights.iter().copied()), elects)).collect()
}

/// One value of the result from those of the tensors with their weights.
fn one(terms: impl Iterator<Item = (f64, f64)> + Clone, elects: Option<MajoritySign>) -> f64 {
    let Some(method) = elects else { return terms.map(|(value, weight)| weight * value).sum() };
    let vote = |value: f64| match method {
        MajoritySign::Total => value,
        MajoritySign::Frequency => sign(value),
    };
    let winner = if terms.clone().map(|(value, _)| vote(value)).sum::<f64>() >= 0.0 { 1.0 } else { -1.0 };
    let (mut sum, mut count) = (0.0, 0.0);
    for (value, weight) in terms.filter(|(value, _)| sign(*value) * winner > 0.0) {
        sum += weight * value;
        count += 1.0;
    }
    if count > 0.0 { sum / count } else { 0.0 }
}

/// -1, 0 or 1.
fn sign(value: f64) -> f64 {
    if value == 0.0 { 0.0 } else { value.signum() }
}

/// Zeros all but the `density * n` values, rounded down, of largest magnitude; of equal ones the first stay.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "as PEFT counts"
)]
fn keep_largest(values: &mut [f64], density: f64) {
    let keep = (density * values.len() as f64) as usize;
    if keep >= values.len() {
        return;
    }
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.select_nth_unstable_by(keep, |x, y| values[*y].abs().total_cmp(&values[*x].abs()).then(x.cmp(y)));
    for place in &order[keep..] {
        values[*place] = 0.0;
    }
}

/// Keeps each value with probability `density`, and divides what stays by it.
fn drop_at_random(values: &mut [f64], density: f64, random: &mut Random) {
    for value in values {
        *value = if f64::from(random.unit()) < density { *value / density } else { 0.0 };
    }
}

#[cfg(test)]
mod tests {
    use super::super::how::CombinationType;
    use super::*;

    fn of(
        kind: CombinationType,
        density: f64,
        sign: Option<MajoritySign>,
        tasks: &[&[f64]],
        weights: &[f64],
    ) -> Vec<f64> {
        let how = Combination { density: Some(density), majority_sign_method: sign, ..Combination::new(kind) };
        let tasks = tasks.iter().map(|task| task.to_vec()).collect();
        add(tasks, weights, &how, |index| Random::new(5, "tasks", index as u64))
    }

    #[test]
    fn the_largest_magnitudes_stay() {
        let kept = of(CombinationType::MagnitudePrune, 0.5, None, &[&[1.0, -4.0, 2.0, -3.0, 0.5]], &[2.0]);
        assert_eq!(kept, [0.0, -8.0, 0.0, -6.0, 0.0]);
        assert_eq!(
            of(CombinationType::MagnitudePrune, 0.5, None, &[&[1.0, -1.0, 1.0, 1.0]], &[1.0]),
            [1.0, -1.0, 0.0, 0.0]
        );
        assert_eq!(of(CombinationType::MagnitudePrune, 0.1, None, &[&[1.0, 2.0]], &[1.0]), [0.0, 0.0]);
        assert_eq!(of(CombinationType::MagnitudePrune, 1.0, None, &[&[1.0, 0.0]], &[1.0]), [1.0, 0.0]);
    }

    #[test]
    fn the_two_ways_to_count_a_vote() {
        let tasks: [&[f64]; 3] = [&[5.0, 1.0, 0.0], &[-2.0, -1.0, 0.0], &[-2.0, 0.0, -3.0]];
        let weights = [1.0, 10.0, 100.0];
        assert_eq!(of(CombinationType::Ties, 1.0, None, &tasks, &weights), [5.0, 1.0, -300.0]);
        let frequency = Some(MajoritySign::Frequency);
        // (10 * -2 + 100 * -2) / 2: a mean over those that agree.
        assert_eq!(of(CombinationType::Ties, 1.0, frequency, &tasks, &weights), [-110.0, 1.0, -300.0]);
    }

    #[test]
    fn a_negative_weight_does_not_change_the_vote() {
        assert_eq!(of(CombinationType::Ties, 1.0, None, &[&[3.0], &[2.0]], &[1.0, -1.0]), [0.5]);
    }

    #[test]
    fn what_is_dropped_at_random_is_made_up_for() {
        let task = vec![1.0; 40_000];
        let kept = of(CombinationType::DareLinear, 0.25, None, &[&task], &[1.0]);
        assert!(kept.iter().all(|value| [0.0, 4.0].contains(value)));
        let mean = kept.iter().sum::<f64>() / 40_000.0;
        assert!((mean - 1.0).abs() < 0.05, "{mean}");
        assert_eq!(of(CombinationType::DareLinear, 0.25, None, &[&task], &[1.0]), kept);
        assert_eq!(of(CombinationType::DareTies, 1.0, None, &[&[1.0, -2.0]], &[1.0]), [1.0, -2.0]);
    }
}
