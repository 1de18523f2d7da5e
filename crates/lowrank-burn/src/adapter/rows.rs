//! Single rows of an embedding that train: `trainable_token_indices`.

use burn::module::{Module, Param};
use burn::tensor::module::embedding;
use burn::tensor::{IndexingUpdateOp, Int, Tensor, TensorData};

/// Rows that take the place of some of a weight's.
#[derive(Module, Debug)]
pub struct Rows {
    /// The rows, `[rows, dim]`.
    pub value: Param<Tensor<2>>,
    /// The adapter's name.
    #[module(skip)]
    pub adapter: String,
    /// Which rows of the weight they are.
    #[module(skip)]
    pub indices: Vec<usize>,
}

impl Rows {
    /// The weight with the rows in it, to the bit; the gradient that reaches them is that of their places.
    pub(crate) fn put_into<const D: usize>(&self, weight: Tensor<D>) -> Tensor<D> {
        let (shape, dtype, device) = (weight.shape(), weight.dtype(), weight.device());
        let height = shape[0];
        let weight = weight.reshape([height, shape.num_elements() / height.max(1)]);
        let indices = self.indices.iter().map(|index| i64::try_from(*index).unwrap_or(i64::MAX)).collect();
        let indices = Tensor::<1, Int>::from_data(TensorData::new::<i64, _>(indices, [self.indices.len()]), &device);
        // What is there minus itself is zero, and zero plus a row that row.
        let there = weight.clone().select(0, indices.clone());
        let emptied = weight.select_assign(0, indices.clone(), there.neg(), IndexingUpdateOp::Add);
        let filled = emptied.select_assign(0, indices, self.value.val().cast(dtype), IndexingUpdateOp::Add);
        filled.reshape(shape)
    }

    /// What an embedding has `found` for these ids, with the rows where they are asked for.
    pub(crate) fn look_up(&self, found: Tensor<3>, ids: Tensor<2, Int>) -> Tensor<3> {
        let ([batch, length, dim], device, dtype) = (found.dims(), found.device(), found.dtype());
        let height = self.indices.iter().max().map_or(0, |last| last + 1);
        // Where each row is in the small table, behind a row of zeros for those that are not in it.
        let mut places = vec![0_i64; height + 1];
        for (place, index) in (1..).zip(&self.indices) {
            places[*index] = place;
        }
        let places = Tensor::<1, Int>::from_data(TensorData::new(places, [height + 1]), &device);
        let beyond = i64::try_from(height).unwrap_or(i64::MAX);
        let ids = ids.reshape([batch * length]).clamp_max(beyond);
        let places = places.select(0, ids).reshape([batch, length]);
        let others = places.clone().equal_elem(0).float().reshape([batch, length, 1]).cast(dtype);
        let rows = Tensor::cat(vec![Tensor::zeros([1, dim], &device), self.value.val()], 0);
        found * others + embedding(rows, places).cast(dtype)
    }
}
