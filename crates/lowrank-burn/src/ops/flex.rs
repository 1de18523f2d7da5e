//! Flex tensors of `f32` as the slices that the kernels of [`lowrank::kernels`] take.

use burn::backend::TensorMetadata;
use burn::backend::flex::{FlexTensor, Layout};
use burn::tensor::{Bytes, DType, Shape};
use lowrank::kernels::Values;
use lowrank::kernels::buffers::{Buffers, fresh};

/// Whether the kernels take all of these tensors.
pub(super) fn are_f32<const N: usize>(tensors: [&FlexTensor; N]) -> bool {
    tensors.iter().all(|tensor| tensor.dtype() == DType::F32)
}

/// The same tensor with its values one after the other.
pub(super) fn contiguous(tensor: FlexTensor) -> FlexTensor {
    if tensor.layout().is_contiguous() { tensor } else { tensor.to_contiguous() }
}

/// The values of a tensor that is [`contiguous`].
pub(super) fn values(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice().expect("a contiguous tensor of f32")
}

/// Whether the kernels take a frozen weight of this type.
pub(super) fn can_be_held(weight: &FlexTensor) -> bool {
    matches!(weight.dtype(), DType::F32 | DType::F16 | DType::BF16)
}

/// The values of a frozen weight that is [`contiguous`].
pub(super) fn held(weight: &FlexTensor) -> Values<'_> {
    let values = match weight.dtype() {
        DType::F16 => weight.as_slice().map(Values::F16),
        DType::BF16 => weight.as_slice().map(Values::Bf16),
        _ => weight.as_slice().map(Values::F32),
    };
    values.expect("a contiguous weight that can be held")
}

/// The values of a tensor that is [`contiguous`], to overwrite; copied first where somebody else reads them.
pub(super) fn values_mut(tensor: &mut FlexTensor) -> &mut [f32] {
    let (begin, end) = tensor.layout().contiguous_offsets().expect("a contiguous tensor");
    &mut tensor.storage_mut()[begin..end]
}

/// A tensor of these values.
pub(super) fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(shape.into()), DType::F32)
}

/// What a kernel makes of a tensor, in the tensor's own memory where nobody else reads it.
pub(super) fn rewrite(input: FlexTensor, kernel: impl for<'b> FnOnce(Buffers<'b>) -> &'b mut [f32]) -> FlexTensor {
    let mut input = contiguous(input);
    let (begin, end) = input.layout().contiguous_offsets().expect("a contiguous tensor");
    if let Some(storage) = input.try_storage_mut::<f32>() {
        kernel(Buffers::from(&mut storage[begin..end]));
        return input;
    }
    tensor(fresh(values(&input), kernel), input.shape())
}
