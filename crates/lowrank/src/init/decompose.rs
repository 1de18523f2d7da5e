//! Factors from a decomposition of the base weight: which matrix is decomposed, and where its factors go.

use std::borrow::Cow;

use super::{mica, olora, pissa};
use crate::adapter::factors::check_rank;
use crate::adapter::{Factors, GroupMode, Layer};
use crate::random::Random;
use crate::{Error, Result, Subject};

/// `init_lora_weights`: the starts that are read from the base weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Decomposition {
    /// `"pissa"`: the principal part, by a full decomposition.
    Pissa,
    /// `"pissa_niter_N"`: the principal part, by a randomised decomposition of `N` iterations.
    PissaNiter(usize),
    /// `"olora"`: the first columns of `Q` and rows of `R` of `W = Q R`.
    Olora,
    /// `"mica"`: `B` the least of the left singular vectors, `A` zero.
    Mica,
}

impl Decomposition {
    /// Whether the factors hold a part of the weight from the start, which has to be taken out of the base then:
    /// the model begins with `(W - s B_0 A_0) + s B A`, where `B_0` and `A_0` are the factors given here.
    #[must_use]
    pub fn reduces_base(self) -> bool {
        self != Self::Mica
    }
}

/// Factors for `layer` from its `weight`, in the shape `PyTorch` stores.
///
/// A linear weight is the matrix `(out, in)` (transposed where it is stored as `(in, out)`), that of a convolution the
/// matrix `(out, in/g * k)`. In the forms `per_group` and `dense` each group is a matrix `(out/g, in/g * k)` of its own,
/// of rank `r/g`; `dense` factors are zero outside their groups. Only `pissa_niter` draws from `random`.
///
/// ```
/// use lowrank::adapter::{GroupMode, Layer, LayerKind};
/// use lowrank::init::{Decomposition, decompose};
/// use lowrank::random::Random;
///
/// let layer = Layer::new(LayerKind::Linear, &[2, 2], 1)?;
/// let weight = [3.0, 0.0, 0.0, 1.0];
/// let random = &mut Random::new(0, "fc", 0);
/// let factors = decompose(&layer, GroupMode::default(), 1, 2.0, &weight, Decomposition::Pissa, random)?;
/// let delta = factors.delta()?;
/// assert!((delta[0] - 3.0).abs() < 1e-6 && delta[3].abs() < 1e-6); // the nearest matrix of rank 1
/// # Ok::<(), lowrank::Error>(())
/// ```
///
/// # Errors
/// When the rank does not suit the layer and the form ([`Factors::new`]) or is larger than a side of the matrix; when the
/// weight has another number of values, or one that is NaN or infinite; when the decomposition fails.
pub fn decompose(
    layer: &Layer,
    mode: GroupMode,
    rank: usize,
    scale: f32,
    weight: &[f32],
    decomposition: Decomposition,
    random: &mut Random,
) -> Result<Factors> {
    if mode == GroupMode::Dense && layer.groups() > 1 {
        return decompose(layer, GroupMode::PerGroup, rank, scale, weight, decomposition, random)?.to_dense();
    }
    check_rank(layer, mode, rank)?;
    check_values(layer, weight)?;
    let blocks = if mode == GroupMode::Shared { 1 } else { layer.groups() };
    let shape = [layer.out_features() / blocks, weight.len() / layer.out_features()];
    let rank_of_block = rank / blocks;
    check_sides(shape, rank_of_block, blocks)?;
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for block in rows_by_output(layer, weight).chunks_exact(shape[0] * shape[1]) {
        let (block_a, block_b) = match decomposition {
            Decomposition::Pissa => pissa::exact(block, shape, rank_of_block, scale)?,
            Decomposition::PissaNiter(n) => pissa::randomised(block, shape, rank_of_block, scale, n, random)?,
            Decomposition::Olora => olora::factors(block, shape, rank_of_block),
            Decomposition::Mica => (vec![0.0; rank_of_block * shape[1]], mica::left(block, shape, rank_of_block)?),
        };
        a.extend(block_a);
        b.extend(block_b);
    }
    Factors::new(layer.clone(), mode, rank, scale, a, b, None)
}

/// The weight as `(out, ..)`.
fn rows_by_output<'a>(layer: &Layer, weight: &'a [f32]) -> Cow<'a, [f32]> {
    if !layer.kind().is_transposed() {
        return Cow::Borrowed(weight);
    }
    let (inputs, outputs) = (layer.in_features(), layer.out_features());
    Cow::Owned((0..weight.len()).map(|at| weight[at % inputs * outputs + at / inputs]).collect())
}

fn check_values(layer: &Layer, weight: &[f32]) -> Result<()> {
    let expected = layer.weight_shape().iter().product::<usize>();
    if weight.len() != expected {
        return Err(Error::new(Subject::Adapter, "the weight has the wrong number of values")
            .found(weight.len())
            .expected(format!("{expected}, those of {:?}", layer.weight_shape())));
    }
    match weight.iter().find(|value| !value.is_finite()) {
        Some(value) => Err(Error::new(Subject::Adapter, "the base weight cannot be decomposed")
            .found(value)
            .expected("finite numbers")),
        None => Ok(()),
    }
}

fn check_sides([rows, columns]: [usize; 2], rank: usize, blocks: usize) -> Result<()> {
    let most = rows.min(columns);
    if rank <= most {
        return Ok(());
    }
    let groups = if blocks == 1 { String::new() } else { format!(" in each of {blocks} groups") };
    Err(Error::new(Subject::Adapter, "the weight has fewer singular vectors than the adapter has ranks")
        .found(format!("rank {rank} for a matrix of {rows} by {columns}{groups}"))
        .expected(format!("at most {most}"))
        .with_hint(format!(
            "give this module r = {} in rank_pattern, or leave it out of target_modules",
            most * blocks
        )))
}

#[cfg(test)]
mod tests;
