//! The referee against a convolution that shares nothing with it: pad first, by slices, then slide.

use lowrank::geometry::{Axis, ConvGeometry, Padding, PaddingMode};
use lowrank::kernels::reference::{conv, conv_transpose};
use proptest::prelude::*;

use crate::problem::{Problem, Spec, any, wide};
use crate::properties::{assert_close, cases};

/// One channel with one kernel.
fn slide(axis: Axis, mode: PaddingMode, channel: &[f64], kernel: &[f64]) -> Vec<f64> {
    let (before, after) = match axis.padding {
        Padding::Valid => (0, 0),
        // PyTorch: the total is dilation * (kernel - 1), and the front gets the smaller half.
        Padding::Same => {
            let total = axis.dilation * (axis.kernel - 1);
            (total / 2, total.div_ceil(2))
        }
        Padding::Explicit(before, after) => (before, after),
    };
    let length = channel.len();
    let reversed: Vec<f64> = channel.iter().rev().copied().collect();
    let (front, back) = match mode {
        PaddingMode::Zeros => (vec![0.0; before], vec![0.0; after]),
        PaddingMode::Replicate => (vec![channel[0]; before], vec![channel[length - 1]; after]),
        PaddingMode::Circular => (channel[length - before..].to_vec(), channel[..after].to_vec()),
        PaddingMode::Reflect => (reversed[length - 1 - before..length - 1].to_vec(), reversed[1..=after].to_vec()),
    };
    let padded = [&front[..], channel, &back].concat();
    let span = axis.dilation * (axis.kernel - 1) + 1;
    let window = |window: &[f64]| window.iter().step_by(axis.dilation).zip(kernel).map(|(x, w)| x * w).sum();
    padded.windows(span).step_by(axis.stride).map(window).collect()
}

/// `(batch, out, ..)` of `(batch, in, length)`, channel by channel.
fn conv1d(geometry: &ConvGeometry, length: usize, x: &[f64], w: &[f64]) -> Vec<f64> {
    let (inputs, outputs) = (geometry.in_channels() / geometry.groups(), geometry.out_channels() / geometry.groups());
    let axis = geometry.axes()[0];
    let mut y = Vec::new();
    for sample in x.chunks_exact(geometry.in_channels() * length) {
        for (o, kernels) in w.chunks_exact(inputs * axis.kernel).enumerate() {
            let channels = sample.chunks_exact(length).skip(o / outputs * inputs).take(inputs);
            let slid: Vec<Vec<f64>> = channels
                .zip(kernels.chunks_exact(axis.kernel))
                .map(|(channel, kernel)| slide(axis, geometry.padding_mode(), channel, kernel))
                .collect();
            y.extend((0..slid[0].len()).map(|place| slid.iter().map(|channel| channel[place]).sum::<f64>()));
        }
    }
    y
}

/// A transposed convolution over one axis, of all samples: each value of the input puts a kernel onto the padded output.
fn scatter1d(geometry: &ConvGeometry, length: usize, x: &[f64], w: &[f64]) -> Vec<f64> {
    let (axis, (before, after)) = (geometry.axes()[0], geometry.padding(0));
    let (inputs, groups) = (geometry.out_channels(), geometry.groups());
    let (inputs_per_group, outputs) = (inputs / groups, geometry.in_channels() / groups);
    let mut y = Vec::new();
    for sample in x.chunks_exact(inputs * geometry.output_lengths(&[length]).unwrap()[0]) {
        let channels: Vec<&[f64]> = sample.chunks_exact(sample.len() / inputs).collect();
        for output in 0..geometry.in_channels() {
            let mut padded = vec![0.0; before + length + after];
            let first = output / outputs * inputs_per_group;
            for input in first..first + inputs_per_group {
                let kernel = &w[(input * outputs + output % outputs) * axis.kernel..][..axis.kernel];
                for (place, x) in channels[input].iter().enumerate() {
                    let onto = padded[place * axis.stride..].iter_mut().step_by(axis.dilation);
                    onto.zip(kernel).for_each(|(y, w)| *y += x * w);
                }
            }
            y.extend(&padded[before..before + length]);
        }
    }
    y
}

/// Slides along one axis of an array.
fn slide_axis(
    axis: Axis,
    mode: PaddingMode,
    index: usize,
    lengths: &mut [usize],
    x: &[f64],
    kernel: &[f64],
) -> Vec<f64> {
    let inner: usize = lengths[index + 1..].iter().product();
    let length = lengths[index];
    let mut columns = Vec::new();
    for block in x.chunks_exact(length * inner) {
        for offset in 0..inner {
            let column: Vec<f64> = block.iter().skip(offset).step_by(inner).copied().collect();
            columns.push(slide(axis, mode, &column, kernel));
        }
    }
    lengths[index] = columns[0].len();
    let block = |columns: &[Vec<f64>]| {
        (0..columns[0].len()).flat_map(|place| columns.iter().map(move |c| c[place]).collect::<Vec<_>>()).collect()
    };
    columns.chunks_exact(inner).flat_map(|columns| -> Vec<f64> { block(columns) }).collect()
}

proptest! {
    #![proptest_config(cases(2_500))]

    #[test]
    fn one_axis_is_pad_and_slide(spec in any()) {
        let problem = Problem::new(&spec);
        let (weight, mode) = (wide(&problem.weight), spec.padding_mode);
        if let Some((geometry, lengths)) = problem.conv.as_ref().filter(|_| problem.has_output() && spec.axes.len() == 1) {
            if spec.kind.is_conv_transpose() {
                let y = conv_transpose::forward(geometry, lengths, &problem.x, &weight, None).unwrap();
                assert_close("output", &y, &scatter1d(geometry, lengths[0], &problem.x, &weight), |_| 1e-9);
                assert_eq!(y.len(), spec.batch * geometry.in_channels() * lengths[0]);
                return Ok(());
            }
            let y = conv::forward(geometry, lengths, &problem.x, &weight, None).unwrap();
            assert_close("output", &y, &conv1d(geometry, lengths[0], &problem.x, &weight), |_| 1e-9);
            let expected = geometry.output_lengths(lengths).unwrap();
            assert_eq!(y.len(), spec.batch * geometry.out_channels() * expected[0], "{mode}");
        }
    }

    /// A kernel that is an outer product slides along one axis after the other.
    #[test]
    fn several_axes_are_one_after_the_other(spec in any()) {
        if spec.kind.is_conv_transpose() {
            return Ok(());
        }
        let single = Spec { features: (1, 1), groups: 1, batch: 1, ..spec };
        let problem = Problem::new(&single);
        if let Some((geometry, lengths)) = problem.conv.as_ref().filter(|_| problem.has_output()) {
            let kernels: Vec<Vec<f64>> = single.axes.iter().map(|(axis, _)| problem.draw(axis.kernel)).collect();
            let outer = |product: Vec<f64>, kernel: &Vec<f64>| -> Vec<f64> {
                product.iter().flat_map(|p| kernel.iter().map(move |k| p * k)).collect()
            };
            let weight = kernels.iter().fold(vec![1.0], outer);
            let y = conv::forward(geometry, lengths, &problem.x, &weight, None).unwrap();
            let (mut expected, mut now) = (problem.x.clone(), lengths.clone());
            for (index, ((axis, _), kernel)) in single.axes.iter().zip(&kernels).enumerate() {
                expected = slide_axis(*axis, single.padding_mode, index, &mut now, &expected, kernel);
            }
            assert_eq!(geometry.output_lengths(lengths).unwrap(), now);
            assert_close("output", &y, &expected, |_| 1e-9);
        }
    }
}
