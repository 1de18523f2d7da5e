//! Factors as matrices: for each group, `(rows, rank)` times `(rank, columns)`.

use crate::Result;
use crate::adapter::{Factors, GroupMode};
use crate::kernels::gemm::{Matrix, product};
use crate::svd::Svd;

/// The blocks of all groups one behind the other, in `f64`. A layer without groups has one, and so have
/// `shared` factors. Layers that store `(in, out)` are no exception: only their weight is transposed.
#[derive(Debug, Clone)]
pub(crate) struct Blocks {
    pub groups: usize,
    pub rows: usize,
    pub columns: usize,
    /// The rank of one block.
    pub rank: usize,
    /// `(groups, rows, rank)`.
    pub b: Vec<f64>,
    /// `(groups, rank, columns)`.
    pub a: Vec<f64>,
}

impl Blocks {
    /// The factors, with `scale` in `B`.
    pub fn of(factors: &Factors, scale: f64) -> Self {
        let groups = if factors.mode() == GroupMode::Shared { 1 } else { factors.layer().groups() };
        Self {
            groups,
            rows: factors.layer().out_features() / groups,
            columns: factors.a().len() / factors.rank(),
            rank: factors.rank() / groups,
            b: factors.b().iter().map(|value| scale * f64::from(*value)).collect(),
            a: factors.a().iter().map(|value| f64::from(*value)).collect(),
        }
    }

    fn left(&self, group: usize) -> &[f64] {
        &self.b[group * self.rows * self.rank..][..self.rows * self.rank]
    }

    fn right(&self, group: usize) -> &[f64] {
        &self.a[group * self.rank * self.columns..][..self.rank * self.columns]
    }

    /// `sum_i weight_i * B_i A_i`, exactly: `[B_1, B_2, ..]` and `[weight_1 A_1; weight_2 A_2; ..]`, group by group.
    pub fn cat(parts: &[Self], weights: &[f64]) -> Self {
        let Self { groups, rows, columns, .. } = parts[0];
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for group in 0..groups {
            for (part, weight) in parts.iter().zip(weights) {
                a.extend(part.right(group).iter().map(|value| weight * value));
            }
            for row in 0..rows {
                b.extend(parts.iter().flat_map(|part| &part.left(group)[row * part.rank..][..part.rank]));
            }
        }
        Self { groups, rows, columns, rank: parts.iter().map(|part| part.rank).sum(), b, a }
    }

    /// `B A` of every group: the delta as `(out, columns)`.
    pub fn delta(&self) -> Vec<f64> {
        let mut delta = vec![0.0; self.groups * self.rows * self.columns];
        for (group, out) in delta.chunks_exact_mut(self.rows * self.columns).enumerate() {
            let left = Matrix::row_major(self.left(group), [self.rows, self.rank]);
            product(1.0, left, Matrix::row_major(self.right(group), [self.rank, self.columns]), out);
        }
        delta
    }

    /// The nearest blocks of `rank`, or of as much as they have sides and ranks for: `B = U diag(s)`, `A = V^T`.
    pub fn truncate(&self, rank: usize) -> Result<Self> {
        Ok(self.cut(&self.decompose()?, rank))
    }

    /// The nearest blocks of `rank`, or of as much as they have sides for, to a `delta` of the same layout.
    pub fn nearest(&self, delta: &[f64], rank: usize) -> Result<Self> {
        Ok(self.cut(&self.decompose_delta(delta)?, rank))
    }

    /// The decomposition of `B A`, group by group.
    pub fn decompose(&self) -> Result<Vec<Svd>> {
        let sizes = [self.rows, self.rank, self.columns];
        (0..self.groups).map(|group| Svd::of_product(self.left(group), self.right(group), sizes)).collect()
    }

    /// The decomposition of a `delta` of the same layout, group by group.
    pub fn decompose_delta(&self, delta: &[f64]) -> Result<Vec<Svd>> {
        let blocks = delta.chunks_exact(self.rows * self.columns);
        blocks.map(|block| Svd::of(block, [self.rows, self.columns])).collect()
    }

    /// The blocks that decompositions give at `rank`, or at as many as they have values.
    pub fn cut(&self, svds: &[Svd], rank: usize) -> Self {
        let rank = svds.iter().map(|svd| svd.singular_values().len()).fold(rank, usize::min);
        let mut cut = Self { rank, a: Vec::new(), b: Vec::new(), ..*self };
        for svd in svds {
            let scaled =
                svd.left(rank).into_iter().enumerate().map(|(index, u)| u * svd.singular_values()[index % rank]);
            cut.b.extend(scaled);
            cut.a.extend(svd.right(rank));
        }
        cut
    }

    /// The Frobenius norm of the delta, from `B^T B` and `A A^T`.
    pub fn norm(&self) -> f64 {
        let (mut of_b, mut of_a) = (vec![0.0; self.rank * self.rank], vec![0.0; self.rank * self.rank]);
        let mut square = 0.0;
        for group in 0..self.groups {
            let left = Matrix::row_major(self.left(group), [self.rows, self.rank]);
            let right = Matrix::row_major(self.right(group), [self.rank, self.columns]);
            product(1.0, left.transposed(), left, &mut of_b);
            product(1.0, right, right.transposed(), &mut of_a);
            square += of_b.iter().zip(&of_a).map(|(b, a)| b * a).sum::<f64>();
        }
        square.max(0.0).sqrt()
    }
}
