//! Frozen weights in another type than what they are multiplied with.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};

/// `tensor` in the type of `other`.
pub(super) fn cast_as<B: Backend>(tensor: FloatTensor<B>, other: &FloatTensor<B>) -> FloatTensor<B> {
    let dtype = other.dtype();
    if tensor.dtype() == dtype { tensor } else { B::float_cast(tensor, dtype.into()) }
}
