//! Factors from what a training changed: the nearest adapter to the difference of two weights.

use super::blocks::Blocks;
use super::combine::narrow;
use super::rank::{Cut, lost};
use super::{Factors, GroupMode, Layer};
use crate::{Error, Result, Subject};

/// Factors that stand for a delta, and what they leave out of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Nearest {
    /// The factors.
    pub factors: Factors,
    /// The share of the delta's energy, the sum of its squares, that they keep.
    pub energy: f64,
    /// The Frobenius norm of what is missing, as a share of the delta's: `sqrt(1 - energy)`.
    pub error: f64,
}

/// The nearest factors to `delta`, which has the layout of the weight of `layer`, in the Frobenius norm: those of the
/// singular value decomposition of the delta as the matrix `(out, in/g * k)`, of a grouped one group by group unless `mode`
/// is [`GroupMode::Shared`]. The scale is 1.
///
/// ```
/// use lowrank::adapter::extract::extract;
/// use lowrank::adapter::rank::Cut;
/// use lowrank::adapter::{GroupMode, Layer, LayerKind};
///
/// let layer = Layer::new(LayerKind::Linear, &[2, 2], 1)?;
/// let found = extract(&[3.0, 0.0, 0.0, 4.0], &layer, GroupMode::PerGroup, Cut::Rank(1))?;
/// assert!((found.factors.delta()?[3] - 4.0).abs() < 1e-6);
/// assert!((found.energy - 16.0 / 25.0).abs() < 1e-12 && (found.error - 3.0 / 5.0).abs() < 1e-12);
/// # Ok::<(), lowrank::Error>(())
/// ```
///
/// # Errors
/// When `delta` has not the values of the weight, when one is not finite, and when `cut` is wrong.
pub fn extract(delta: &[f64], layer: &Layer, mode: GroupMode, cut: Cut) -> Result<Nearest> {
    cut.check()?;
    let shape = layer.weight_shape();
    if delta.len() != shape.iter().product::<usize>() {
        return Err(Error::new(Subject::Adapter, "the delta has the wrong number of values")
            .found(delta.len())
            .expected(format!("those of {shape:?}")));
    }
    let mode = if mode == GroupMode::Shared { mode } else { GroupMode::PerGroup };
    let groups = if mode == GroupMode::Shared { 1 } else { layer.groups() };
    let (rows, columns) = (layer.out_features() / groups, delta.len() / layer.out_features());
    let whole = Blocks { groups, rows, columns, rank: 0, b: Vec::new(), a: Vec::new() };
    let by_output: Vec<f64> = layer.by_output().map(|at| delta[at]).collect();
    let svds = whole.decompose_delta(&by_output)?;
    let blocks = whole.cut(&svds, cut.of_group(&svds));
    let lost = lost(&svds, blocks.rank);
    let (a, b) = (narrow(&blocks.a)?, narrow(&blocks.b)?);
    let factors = Factors::new(layer.clone(), mode, blocks.rank * groups, 1.0, a, b, None)?;
    Ok(Nearest { factors, energy: 1.0 - lost, error: lost.sqrt() })
}

#[cfg(test)]
mod tests;
