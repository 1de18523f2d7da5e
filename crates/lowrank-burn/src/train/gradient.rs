//! What is asked of a gradient before it is used: that it is finite, and not too long.

use std::fmt;

use super::optim::ParamSlot;

/// A value that is not a number or infinite, and the parameter it belongs to.
#[derive(Debug, Clone, PartialEq)]
pub struct NonFinite {
    /// The name of the slot.
    pub name: String,
    /// The place within the slot.
    pub index: usize,
    /// NaN or an infinity.
    pub value: f32,
}

impl fmt::Display for NonFinite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}] is {}", self.name, self.index, self.value)
    }
}

/// The first value of the flat vector `values` that is not finite; none when all are.
///
/// Values past the last slot are not looked at.
#[must_use]
pub fn non_finite(slots: &[ParamSlot], values: &[f32]) -> Option<NonFinite> {
    let mut rest = values;
    for slot in slots {
        let (own, next) = rest.split_at(slot.len.min(rest.len()));
        rest = next;
        if let Some(index) = own.iter().position(|value| !value.is_finite()) {
            return Some(NonFinite { name: slot.name.clone(), index, value: own[index] });
        }
    }
    None
}

/// The Euclidean length of `grads`: `sqrt(sum g^2)`.
///
/// Summed in `f64`, so it does not overflow, over eight lanes that depend on the length alone, so it is the same on
/// every machine and thread count. Not finite when a value is not.
#[must_use]
pub fn norm(grads: &[f32]) -> f64 {
    let (blocks, rest) = grads.as_chunks::<8>();
    let mut lanes = [0.0f64; 8];
    for block in blocks {
        for (lane, g) in lanes.iter_mut().zip(block) {
            *lane += f64::from(*g) * f64::from(*g);
        }
    }
    for (lane, g) in lanes.iter_mut().zip(rest) {
        *lane += f64::from(*g) * f64::from(*g);
    }
    lanes.iter().sum::<f64>().sqrt()
}

/// Shortens `grads` to the length `max` if they are longer, and returns the length they had.
///
/// As `PyTorch`'s `clip_grad_norm_`, the factor is `max / (norm + 1e-6)`, at most 1. Unlike there, gradients with a
/// non-finite norm are left as they are, so that [`non_finite`] can still name the culprit.
///
/// ```
/// use lowrank_burn::train::gradient::clip_norm;
///
/// let mut grads = [3.0, 4.0];
/// assert_eq!(clip_norm(&mut grads, 1.0), 5.0);
/// assert!((grads[0] - 0.6).abs() < 1e-6 && (grads[1] - 0.8).abs() < 1e-6);
/// ```
pub fn clip_norm(grads: &mut [f32], max: f64) -> f64 {
    let norm = norm(grads);
    let factor = max / (norm + 1e-6);
    if norm.is_finite() && factor < 1.0 {
        #[expect(clippy::cast_possible_truncation, reason = "the factor is rounded to the gradients' own type")]
        let factor = factor as f32;
        for g in grads {
            *g *= factor;
        }
    }
    norm
}

#[cfg(test)]
#[expect(clippy::unreadable_literal, reason = "numbers as the reference prints them")]
mod tests {
    use super::super::optim::Group;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn clipping_is_pytorchs() {
        // clip_grad_norm_(..., 1.5) of torch 2.15 on these values.
        let values = [0.07833269, 0.5155014, -9.16166, -0.02794155, 0.9881682, 0.24775425, -0.09945526, 0.23150983];
        let expected =
            [0.012721381, 0.083718427, -1.4878713, -0.0045377621, 0.16048044, 0.040235773, -0.016151728, 0.037597645];
        let mut grads = values;
        assert!((clip_norm(&mut grads, 1.5) - 9.236341).abs() < 2e-6);
        for (found, expected) in grads.iter().zip(expected) {
            assert!((f64::from(*found) - expected).abs() < 2e-7, "{found} is not {expected}");
        }
        clip_norm(&mut grads, 100.0);
        assert!((grads[0] - 0.012721381).abs() < 1e-7);
    }

    #[test]
    fn a_non_finite_value_is_named_and_left_for_the_caller() {
        let slot = |name: &str, len| ParamSlot { name: name.to_owned(), len, group: Group::A };
        let slots = [slot("a", 2), slot("b", 0), slot("c", 3)];
        let mut grads = [0.0, 1.0, 2.0, 3.0, 4.0];
        assert_eq!(non_finite(&slots, &grads), None);
        grads[3] = f32::NEG_INFINITY;
        assert_eq!(non_finite(&slots, &grads).unwrap().to_string(), "c[1] is -inf");
        assert!(clip_norm(&mut grads, 1.0).is_infinite());
        assert!((grads[4] - 4.0).abs() < 1e-9);
        grads[0] = f32::NAN;
        assert_eq!(non_finite(&slots, &grads).unwrap().to_string(), "a[0] is NaN");
        assert!(clip_norm(&mut grads, 1.0).is_nan());
    }

    #[test]
    fn huge_values_do_not_overflow() {
        assert!((norm(&[f32::MAX, f32::MAX]) / (f64::from(f32::MAX) * 2f64.sqrt()) - 1.0).abs() < 1e-12);
        assert!(norm(&[]) < 1e-300);
    }

    proptest! {
        #[test]
        fn a_clipped_gradient_is_no_longer_than_asked(mut grads in prop::collection::vec(-1e6f32..1e6, 0..40), max in 0.01..10.0f64) {
            let expected = grads.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
            let found = clip_norm(&mut grads, max);
            prop_assert!((found - expected).abs() <= 1e-12 * expected);
            prop_assert!(norm(&grads) <= max.min(expected) * (1.0 + 1e-6));
        }
    }
}
