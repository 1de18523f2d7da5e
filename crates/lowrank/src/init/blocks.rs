//! A layer as the matrices that its factors are made from, one for each block of rows of `A`.

use std::borrow::Cow;

use crate::adapter::factors::check_rank;
use crate::adapter::{Factors, GroupMode, Layer};
use crate::{Error, Result, Subject};

/// The factors that are wanted.
#[derive(Clone, Copy)]
pub(super) struct Blocks<'a> {
    pub layer: &'a Layer,
    pub mode: GroupMode,
    pub rank: usize,
    pub scale: f32,
}

/// Factors of a layer from those, `(A, B)`, that `of` makes of each block: its number, the shape `(rows, columns)` of its
/// matrix, and the rank of its own. Dense factors are zero outside their groups.
pub(super) fn by_blocks(
    wanted: Blocks<'_>,
    mut of: impl FnMut(usize, [usize; 2], usize) -> Result<(Vec<f32>, Vec<f32>)>,
) -> Result<Factors> {
    let Blocks { layer, mode, rank, scale } = wanted;
    if mode == GroupMode::Dense && layer.groups() > 1 {
        return by_blocks(Blocks { mode: GroupMode::PerGroup, ..wanted }, of)?.to_dense();
    }
    check_rank(layer, mode, rank)?;
    let blocks = if mode == GroupMode::Shared { 1 } else { layer.groups() };
    let rank_of_block = rank / blocks;
    let columns = layer.weight_shape().iter().product::<usize>() / layer.out_features();
    let shape = [layer.out_features() / blocks, columns];
    check_sides(shape, rank_of_block, blocks)?;
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for block in 0..blocks {
        let (block_a, block_b) = of(block, shape, rank_of_block)?;
        a.extend(block_a);
        b.extend(block_b);
    }
    Factors::new(layer.clone(), mode, rank, scale, a, b, None)
}

/// The values of a weight, or of its gradient, as a matrix `(out, ..)`.
pub(super) struct Matrices<'a>(Cow<'a, [f32]>);

impl<'a> Matrices<'a> {
    /// From the shape `PyTorch` stores.
    pub fn new(layer: &Layer, values: &'a [f32]) -> Result<Self> {
        check_values(layer, values)?;
        if !layer.kind().is_transposed() {
            return Ok(Self(Cow::Borrowed(values)));
        }
        Ok(Self(layer.by_output().map(|at| values[at]).collect()))
    }

    /// One block of that shape.
    pub fn block(&self, block: usize, [rows, columns]: [usize; 2]) -> &[f32] {
        &self.0[block * rows * columns..][..rows * columns]
    }
}

fn check_values(layer: &Layer, values: &[f32]) -> Result<()> {
    let expected = layer.weight_shape().iter().product::<usize>();
    if values.len() != expected {
        return Err(Error::new(Subject::Adapter, "the weight has the wrong number of values")
            .found(values.len())
            .expected(format!("{expected}, those of {:?}", layer.weight_shape())));
    }
    match values.iter().find(|value| !value.is_finite()) {
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
