//! Factors from a decomposition of the base weight: which matrix is decomposed, and where its factors go.

use super::blocks::{Blocks, Matrices, by_blocks};
use super::{mica, olora, pissa};
use crate::Result;
use crate::adapter::{Factors, GroupMode, Layer};
use crate::random::Random;

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
/// A linear weight is the matrix `(out, in)` (transposed where it is stored as `(in, out)`), that of a convolution,
/// transposed or not, the matrix `(out, in/g * k)`. In the forms `per_group` and `dense` each group is a matrix `(out/g, in/g * k)` of its own,
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
    let matrices = Matrices::new(layer, weight)?;
    by_blocks(Blocks { layer, mode, rank, scale }, |block, shape, rank| {
        let matrix = matrices.block(block, shape);
        match decomposition {
            Decomposition::Pissa => pissa::exact(matrix, shape, rank, scale),
            Decomposition::PissaNiter(iterations) => pissa::randomised(matrix, shape, rank, scale, iterations, random),
            Decomposition::Olora => Ok(olora::factors(matrix, shape, rank)),
            Decomposition::Mica => Ok((vec![0.0; rank * shape[1]], mica::left(matrix, shape, rank)?)),
        }
    })
}

#[cfg(test)]
mod tests;
