//! `"mica"`: `B` spans the directions of the output that the weight uses least, and stays frozen; `A` trains from zero.
//!
//! Minor component adaptation, arXiv 2604.01694.

use crate::Result;
use crate::svd::Svd;

/// `B`, `(rows, rank)`: the last `rank` left singular vectors of a weight `(rows, columns)`, the smallest value last.
///
/// # Errors
/// When the weight cannot be decomposed.
#[expect(clippy::cast_possible_truncation, reason = "factors are f32")]
pub fn left(weight: &[f32], shape: [usize; 2], rank: usize) -> Result<Vec<f32>> {
    let svd = Svd::of(weight, shape)?;
    let all = svd.singular_values().len();
    Ok(svd.left(all).chunks_exact(all).flat_map(|row| &row[all - rank..]).map(|u| *u as f32).collect())
}
