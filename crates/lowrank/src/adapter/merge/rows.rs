//! Merging a weight that need not be in memory as a whole.

use super::{MergeReport, Tensor};
use crate::adapter::Factors;
use crate::float::FloatType;
use crate::{Error, Result, Subject};

/// [`merge`](super::merge), some rows at a time: what a row becomes, and the check of it, depend on no other row.
///
/// `DoRA` is the exception, as its norm may run down a column of the weight: where [`Self::measures`] says so, all rows
/// pass through [`Self::measure`] before the first is merged.
///
/// ```
/// use lowrank::adapter::merge::RowMerge;
/// use lowrank::adapter::{Factors, GroupMode, Layer, LayerKind, merge};
/// use lowrank::float::FloatType;
///
/// let layer = Layer::new(LayerKind::Linear, &[3, 2], 1)?;
/// let factors = Factors::new(layer, GroupMode::default(), 1, 2.0, vec![1.0, -3.0], vec![0.25, 0.5, 1.0], None)?;
/// let base = FloatType::F32.encode(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
/// let merging = RowMerge::new(FloatType::F32, &[&factors])?;
/// assert_eq!((merging.rows(), merging.row_bytes()), (3, 8));
/// let (first, _) = merging.merge(0, &base[..8])?;
/// let (rest, _) = merging.merge(1, &base[8..])?;
/// assert_eq!([first, rest].concat(), merge(base, FloatType::F32, &[&factors])?.weight());
/// # Ok::<(), lowrank::Error>(())
/// ```
pub struct RowMerge(Inner);

enum Inner {
    Single(Tensor<f32>),
    Double(Tensor<f64>),
}

impl RowMerge {
    /// Begins to merge `adapters` into a weight of `dtype`.
    ///
    /// # Errors
    /// When there are no adapters, when they are not for layers of one shape, when one is not finite, and when a `dense`
    /// adapter does not fit its grouped weight.
    pub fn new(dtype: FloatType, adapters: &[&Factors]) -> Result<Self> {
        let Some(first) = adapters.first() else {
            return Err(Error::new(Subject::Merge, "there is nothing to merge").expected("at least one adapter"));
        };
        let shape = first.layer().weight_shape().to_vec();
        Ok(Self(if dtype == FloatType::F64 {
            Inner::Double(Tensor::weight(dtype, adapters, shape)?)
        } else {
            Inner::Single(Tensor::weight(dtype, adapters, shape)?)
        }))
    }

    /// Rows of the weight, which is seen as the matrix of its first axis by all others.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.shape().0.first().copied().unwrap_or(0)
    }

    /// Bytes of a row.
    #[must_use]
    pub fn row_bytes(&self) -> usize {
        let (shape, dtype) = self.shape();
        shape.iter().skip(1).product::<usize>() * dtype.size()
    }

    /// Whether the base has to be measured first: an adapter has a magnitude.
    #[must_use]
    pub fn measures(&self) -> bool {
        match &self.0 {
            Inner::Single(tensor) => tensor.measures(),
            Inner::Double(tensor) => tensor.measures(),
        }
    }

    /// Takes in the rows of the base from `first` on, in order.
    ///
    /// # Errors
    /// When `base` is no whole number of rows, is not the next, or reaches beyond the weight, and when it is not finite.
    pub fn measure(&mut self, first: usize, base: &[u8]) -> Result<()> {
        match &mut self.0 {
            Inner::Single(tensor) => tensor.measure(first, base),
            Inner::Double(tensor) => tensor.measure(first, base),
        }
    }

    /// The merged rows from `first` on, given those of the base.
    ///
    /// # Errors
    /// When `base` is no whole number of rows or reaches beyond the weight; when it should have been measured first; and
    /// as [`merge`](super::merge) for what the rows hold.
    pub fn merge(&self, first: usize, base: &[u8]) -> Result<(Vec<u8>, MergeReport)> {
        let mut merged = vec![0; base.len()];
        let range = first..first.saturating_add(base.len() / self.row_bytes());
        let report = match &self.0 {
            Inner::Single(tensor) => tensor.merge_blocks(range, base, &mut merged)?,
            Inner::Double(tensor) => tensor.merge_blocks(range, base, &mut merged)?,
        };
        Ok((merged, report))
    }

    fn shape(&self) -> (&[usize], FloatType) {
        match &self.0 {
            Inner::Single(tensor) => (&tensor.shape, tensor.dtype),
            Inner::Double(tensor) => (&tensor.shape, tensor.dtype),
        }
    }
}
