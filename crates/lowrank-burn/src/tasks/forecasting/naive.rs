//! The forecast that any other has to beat: what was one season ago.

/// The mean absolute change of a series from one season to the next, over what is there: what MASE is measured in (Hyndman and
/// Koehler, "Another look at measures of forecast accuracy", 2006). None where there is no pair, or no change.
pub(super) fn scale(past: &[f32], season: usize) -> Option<f64> {
    let changes =
        past.iter().zip(past.get(season..)?).map(|(before, after)| (f64::from(*after) - f64::from(*before)).abs());
    mean(changes).filter(|mean| *mean > 0.0)
}

/// The last season again, step by step; not a number where it is missing.
pub(super) fn seasonal(past: &[f32], season: usize, horizon: usize) -> Vec<f64> {
    (0..horizon)
        .map(|step| {
            let back = season * (step / season + 1);
            (past.len() + step).checked_sub(back).map_or(f64::NAN, |at| f64::from(past[at]))
        })
        .collect()
}

/// [`seasonal`], moved by how much the mean of the last `horizon` steps is above that of the same steps one season before.
pub(super) fn shifted(past: &[f32], season: usize, horizon: usize) -> Vec<f64> {
    let end = past.len();
    let level = |end: usize| mean(past[end.saturating_sub(horizon)..end].iter().map(|value| f64::from(*value)));
    let shift = level(end).zip(end.checked_sub(season).and_then(level)).map_or(f64::NAN, |(now, then)| now - then);
    seasonal(past, season, horizon).into_iter().map(|value| value + shift).collect()
}

/// The mean of the numbers among some values.
pub(super) fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) =
        values.filter(|value| value.is_finite()).fold((0.0, 0_u32), |(sum, n), value| (sum + value, n + 1));
    (count > 0).then(|| sum / f64::from(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAST: [f32; 6] = [1.0, 5.0, 2.0, 6.0, 4.0, 9.0];

    #[test]
    fn the_last_season_is_repeated_as_often_as_it_takes() {
        assert_eq!(seasonal(&PAST, 2, 5), [4.0, 9.0, 4.0, 9.0, 4.0]);
        assert_eq!(seasonal(&PAST, 4, 3), [2.0, 6.0, 4.0]);
        let long = seasonal(&PAST, 7, 2);
        assert!(long[0].is_nan());
        assert_eq!(long[1..], [1.0]);
    }

    #[test]
    fn the_level_is_that_of_the_last_steps() {
        // The last two steps are 2.5 above those before.
        assert_eq!(shifted(&PAST, 2, 2), [6.5, 11.5]);
    }

    #[test]
    fn the_scale_is_the_mean_change_of_what_is_there() {
        assert_eq!(scale(&PAST, 2), Some((1.0 + 1.0 + 2.0 + 3.0) / 4.0));
        assert_eq!(scale(&[1.0, f32::NAN, 4.0], 1), None);
        assert_eq!((scale(&PAST, 6), scale(&PAST, 9), scale(&[3.0; 5], 1)), (None, None, None));
    }
}
