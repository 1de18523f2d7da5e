//! Problems that other implementations get wrong, by name.

use lowrank::adapter::{Factors, GroupMode, Layer, LayerKind, merge};
use lowrank::float::FloatType;
use lowrank::geometry::{Axis, Padding, PaddingMode};

use crate::problem::Spec;
use crate::properties::{exporting, gradients, merging, reaching_outside, two_ways};

/// Every property of one problem, in every form of its factors.
fn holds(spec: &Spec) {
    for mode in [GroupMode::Dense, GroupMode::PerGroup, GroupMode::Shared] {
        let spec = Spec { mode, ..spec.clone() };
        two_ways(&spec);
        gradients(&spec);
        for dtype in [FloatType::F64, FloatType::F32, FloatType::F16, FloatType::Bf16] {
            merging(&spec, dtype);
        }
        if spec.groups > 1 {
            exporting(&spec);
        }
    }
}

fn padded(kernel: usize, dilation: usize, before: usize, after: usize) -> Axis {
    Axis { dilation, padding: Padding::Explicit(before, after), ..Axis::new(kernel) }
}

#[test]
fn hand_checked_delta() {
    let layer = Layer::new(LayerKind::Conv1d, &[2, 2, 2], 1).unwrap();
    let a = vec![1.0, 2.0, 3.0, 4.0];
    let factors = Factors::new(layer, GroupMode::PerGroup, 1, 2.0, a, vec![1.0, -1.0], None).unwrap();
    let merged = merge(vec![0; 32], FloatType::F32, &[&factors]).unwrap();
    assert_eq!(FloatType::F32.decode(merged.weight()), [2.0, 4.0, 6.0, 8.0, -2.0, -4.0, -6.0, -8.0]);
}

#[test]
fn dilated_causal_convolution_of_a_tcn() {
    holds(&Spec { batch: 3, rank: 2, ..Spec::conv1d((3, 4), 1, padded(3, 8, 16, 0), 20) });
}

#[test]
fn dilation_hidden_by_same_padding() {
    let axis = Axis { dilation: 3, padding: Padding::Same, ..Axis::new(4) };
    holds(&Spec::conv1d((2, 2), 1, axis, 11));
}

#[test]
fn padding_modes_at_the_borders() {
    for padding_mode in [PaddingMode::Reflect, PaddingMode::Replicate, PaddingMode::Circular] {
        holds(&Spec { padding_mode, ..Spec::conv1d((2, 3), 1, padded(5, 1, 2, 2), 6) });
    }
}

#[test]
fn the_shortest_inputs_that_padding_modes_take() {
    holds(&Spec { padding_mode: PaddingMode::Reflect, ..Spec::conv1d((1, 1), 1, padded(3, 1, 3, 3), 4) });
    holds(&Spec { padding_mode: PaddingMode::Circular, ..Spec::conv1d((1, 1), 1, padded(3, 1, 3, 3), 3) });
    holds(&Spec { padding_mode: PaddingMode::Replicate, ..Spec::conv1d((1, 1), 1, padded(3, 1, 3, 3), 1) });
}

#[test]
fn kernel_of_one_tap() {
    holds(&Spec { base_bias: true, lora_bias: true, ..Spec::conv1d((3, 10), 1, Axis::new(1), 10) });
}

#[test]
fn volume_kernel_of_one_by_one_by_three() {
    let axes = vec![(Axis::new(1), 2), (Axis::new(1), 3), (padded(3, 1, 1, 1), 4)];
    holds(&Spec { kind: LayerKind::Conv3d, axes, ..Spec::conv1d((2, 3), 1, Axis::new(1), 1) });
}

#[test]
fn plane_kernel_of_one_by_one() {
    let axes = vec![(Axis::new(1), 3), (Axis { stride: 2, ..Axis::new(1) }, 4)];
    holds(&Spec { kind: LayerKind::Conv2d, axes, ..Spec::conv1d((5, 10), 1, Axis::new(1), 1) });
}

#[test]
fn grouped_positional_convolution_of_wav2vec2() {
    holds(&Spec { rank: 2, base_bias: true, ..Spec::conv1d((2, 2), 4, padded(16, 1, 8, 8), 9) });
}

#[test]
fn depthwise_convolution_of_a_conformer() {
    holds(&Spec { batch: 2, lora_bias: true, ..Spec::conv1d((1, 1), 12, padded(31, 1, 15, 15), 12) });
}

#[test]
fn depthwise_convolution_with_a_multiplier() {
    holds(&Spec { rank: 3, ..Spec::conv1d((1, 3), 4, Axis { stride: 2, ..Axis::new(3) }, 9) });
}

#[test]
fn strided_feature_extractor_of_wav2vec2() {
    holds(&Spec { base_bias: true, ..Spec::conv1d((1, 4), 1, Axis { stride: 5, ..Axis::new(10) }, 33) });
}

#[test]
fn an_empty_batch() {
    holds(&Spec { batch: 0, lora_bias: true, base_bias: true, ..Spec::conv1d((2, 2), 2, Axis::new(3), 5) });
}

#[test]
fn an_input_shorter_than_the_kernel() {
    holds(&Spec::conv1d((2, 2), 1, Axis { dilation: 4, ..Axis::new(3) }, 8));
}

#[test]
fn bias_of_b_without_a_bias_in_the_layer() {
    holds(&Spec { lora_bias: true, ..Spec::conv1d((2, 2), 1, Axis::new(2), 4) });
}

#[test]
fn transposed_linear_layer() {
    let flat =
        Spec { kind: LayerKind::Conv1D, axes: vec![], batch: 3, rank: 2, ..Spec::conv1d((4, 6), 1, Axis::new(1), 1) };
    holds(&Spec { base_bias: true, lora_bias: true, ..flat });
}

#[test]
fn dense_factors_trained_by_peft_on_a_grouped_convolution() {
    let mode = GroupMode::Dense;
    let spec = Spec { mode, reaches_outside: true, rank: 2, ..Spec::conv1d((2, 2), 2, padded(3, 2, 2, 2), 7) };
    reaching_outside(&spec);
}
