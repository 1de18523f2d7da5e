//! Loops over the values of a tensor, in the form that compilers make vectors of: sums and maxima in several lanes, and
//! searches that look at a block before they stop.

use std::array;

use super::delta::Term;

const LANES: usize = 8;
/// Values that a search looks at together.
const BLOCK: usize = 64;

/// The first value that is NaN or infinite, and where it is.
pub(super) fn first_infinite<T: Copy + Into<f64>>(values: &[T]) -> Option<(usize, f64)> {
    let index = position(values, values, |value, _| !value.into().is_finite())?;
    Some((index, values[index].into()))
}

/// Where the first pair is of which `is_it` holds.
pub(super) fn position<T: Copy>(left: &[T], right: &[T], is_it: impl Fn(T, T) -> bool) -> Option<usize> {
    let pair = |(left, right): (&T, &T)| is_it(*left, *right);
    let mut blocks = left.chunks(BLOCK).zip(right.chunks(BLOCK));
    let block =
        blocks.position(|(left, right)| left.iter().zip(right).fold(false, |found, values| found | pair(values)))?;
    let start = block * BLOCK;
    left[start..].iter().zip(&right[start..]).position(pair).map(|index| start + index)
}

/// The largest magnitude, and zero of none.
pub(super) fn largest<T: Copy + Default + Into<f64>>(values: &[T]) -> f64 {
    let mut lanes = [0.0; LANES];
    in_lanes(values, values, |values, _| {
        for (most, value) in lanes.iter_mut().zip(values) {
            let magnitude = value.into().abs();
            *most = if magnitude > *most { magnitude } else { *most };
        }
    });
    lanes.into_iter().fold(0.0, f64::max)
}

/// `left . right`, and the sum of the magnitudes of its terms.
pub(super) fn dot<T: Copy + Default + Into<f64>>(left: &[f64], right: &[T]) -> Term {
    let (mut values, mut magnitudes) = ([0.0; LANES], [0.0; LANES]);
    in_lanes(left, right, |left, right| {
        let right = right.map(Into::into);
        let terms: [f64; LANES] = array::from_fn(|lane| left[lane] * right[lane]);
        values.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
        magnitudes.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term.abs());
    });
    Term { value: values.into_iter().sum(), magnitude: magnitudes.into_iter().sum() }
}

/// Hands pairs over, one to a lane; those that are missing at the end are zero.
fn in_lanes<L: Copy + Default, R: Copy + Default>(
    left: &[L],
    right: &[R],
    mut add: impl FnMut([L; LANES], [R; LANES]),
) {
    let ((left, left_rest), (right, right_rest)) = (left.as_chunks(), right.as_chunks());
    left.iter().zip(right).for_each(|(left, right)| add(*left, *right));
    add(filled(left_rest), filled(right_rest));
}

fn filled<T: Copy + Default>(values: &[T]) -> [T; LANES] {
    let mut lanes = [T::default(); LANES];
    lanes[..values.len()].copy_from_slice(values);
    lanes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lengths around whole lanes and whole blocks.
    const LENGTHS: [usize; 7] = [0, 1, 7, 8, 63, 64, 201];

    fn values(length: usize) -> Vec<f32> {
        (0_u8..).map(|at| (f32::from(at % 17) - 8.0) / 4.0).take(length).collect()
    }

    #[test]
    fn sums_and_maxima_are_those_of_plain_loops() {
        for length in LENGTHS {
            let right = values(length);
            let left: Vec<f64> = right.iter().rev().map(|value| f64::from(*value) + 0.5).collect();
            let mut plain = Term::default();
            left.iter().zip(&right).for_each(|(left, right)| plain.add(left * f64::from(*right)));
            // Multiples of 1/16 are summed without rounding, in any order.
            assert_eq!(dot(&left, &right), plain, "{length}");
            let most = right.iter().fold(0.0, |most: f64, value| most.max(f64::from(value.abs())));
            assert_eq!(largest(&right).to_bits(), most.to_bits(), "{length}");
        }
    }

    #[test]
    fn the_first_of_several_is_found() {
        for length in LENGTHS {
            for first in 0..length {
                let mut values = values(length);
                values[first] = f32::NAN;
                values[length - 1] = f32::INFINITY;
                assert_eq!(first_infinite(&values).map(|(index, _)| index), Some(first), "{length}");
            }
            assert_eq!(first_infinite(&values(length)), None);
        }
    }
}
