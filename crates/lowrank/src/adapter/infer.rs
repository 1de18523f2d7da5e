//! What an adapter sits on, from the shape of the weight and those of the factors.

use super::state_dict::ModuleTensors;
use super::{GroupMode, Layer, LayerKind};
use crate::config::LoraConfig;
use crate::error::{Error, Result, Subject};

/// The layer that a stored weight of `weight_shape` and the `tensors` of the module at `path` belong to.
///
/// Files name no classes, but for transposed convolutions, which the configuration lists. The number of axes tells convolutions apart, the tensors' names embeddings, and `in(A)` over
/// `in(W)` the groups: PEFT's `A` sees all inputs, the weight those of one group. A linear weight is transformers'
/// `Conv1D` when its shape says so; only a square one needs `fan_in_fan_out` (which PEFT switches off in the file when
/// it adapted an `nn.Linear` last, so it decides nothing else here).
///
/// # Errors
/// When the shapes do not belong together in any of the supported layers.
pub fn infer_layer(weight_shape: &[usize], tensors: &ModuleTensors, path: &str, config: &LoraConfig) -> Result<Layer> {
    let (a, b) = (tensors.a.shape(), tensors.b.shape());
    let unfit = || {
        Error::new(Subject::Adapter, "the adapter does not fit the weight")
            .found(format!("A {a:?} and B {b:?}"))
            .expected(format!("factors for a weight of {weight_shape:?}"))
            .with_hint("the adapter was trained on another model, or on another version of this one")
    };
    let (&[rank, inputs, ..], &[outputs, columns, ..]) = (a, b) else { return Err(unfit()) };
    let (kind, groups) = match *weight_shape {
        [rows, inner] => {
            let (straight, transposed) = ([rows, inner] == [outputs, inputs], [rows, inner] == [inputs, outputs]);
            let kind = match (straight, transposed) {
                _ if tensors.embedding => LayerKind::Embedding,
                (true, true) if config.fan_in_fan_out => LayerKind::Conv1D,
                (false, true) => LayerKind::Conv1D,
                _ => LayerKind::Linear,
            };
            (kind, 1)
        }
        [_, inner, _, ref rest @ ..] if rest.len() <= 1 && is_conv_transpose(path, config) => (
            [LayerKind::ConvTranspose1d, LayerKind::ConvTranspose2d][rest.len()],
            outputs.checked_div(inner).unwrap_or(0),
        ),
        [_, inner, _, ref rest @ ..] if rest.len() <= 2 && !is_conv_transpose(path, config) => {
            let kind = [LayerKind::Conv1d, LayerKind::Conv2d, LayerKind::Conv3d][rest.len()];
            // Compact factors see the inputs of one group; how many there are is then in B.
            let ratio = if inputs == inner { (rank, columns) } else { (inputs, inner) };
            let groups = ratio.0.checked_div(ratio.1).filter(|groups| groups * ratio.1 == ratio.0).ok_or_else(unfit)?;
            (kind, groups)
        }
        _ => return Err(unfit()),
    };
    let layer = Layer::new(kind, weight_shape, groups)?;
    let fits = |mode| a == layer.a_shape(rank, mode) && b == layer.b_shape(rank, mode);
    let grouped = rank.is_multiple_of(groups) && (fits(GroupMode::Dense) || fits(GroupMode::PerGroup));
    if grouped || fits(GroupMode::Shared) { Ok(layer) } else { Err(unfit()) }
}

/// The kind of layer under the module at `path`, as far as its adapter alone shows it.
#[must_use]
pub fn kind_of(path: &str, tensors: &ModuleTensors, config: &LoraConfig) -> LayerKind {
    match (tensors.a.shape().len(), is_conv_transpose(path, config)) {
        _ if tensors.embedding => LayerKind::Embedding,
        (3, false) => LayerKind::Conv1d,
        (3, true) => LayerKind::ConvTranspose1d,
        (4, false) => LayerKind::Conv2d,
        (4, true) => LayerKind::ConvTranspose2d,
        (5, _) => LayerKind::Conv3d,
        _ if config.fan_in_fan_out => LayerKind::Conv1D,
        _ => LayerKind::Linear,
    }
}

fn is_conv_transpose(path: &str, config: &LoraConfig) -> bool {
    config.conv_transpose.iter().any(|module| module == path)
}

#[cfg(test)]
mod tests {
    use super::super::tensor::{Dtype, Tensor};
    use super::*;

    fn infer(
        weight: &[usize],
        a: &[usize],
        b: &[usize],
        embedding: bool,
        transposed: bool,
    ) -> Option<(LayerKind, usize)> {
        let zeros = |shape: &[usize]| {
            Tensor::new(Dtype::F32, shape.to_vec(), vec![0; 4 * shape.iter().product::<usize>()]).unwrap()
        };
        let tensors = ModuleTensors { a: zeros(a), b: zeros(b), bias: None, magnitude: None, embedding };
        let config = LoraConfig { fan_in_fan_out: transposed, ..LoraConfig::default() };
        infer_layer(weight, &tensors, "m", &config).ok().map(|layer| (layer.kind(), layer.groups()))
    }

    #[test]
    fn the_configuration_says_what_is_transposed() {
        let zeros = |shape: &[usize]| {
            Tensor::new(Dtype::F32, shape.to_vec(), vec![0; 4 * shape.iter().product::<usize>()]).unwrap()
        };
        let config = LoraConfig { conv_transpose: vec!["up".into()], ..LoraConfig::default() };
        for (path, weight, a, b, expected) in [
            ("up", &[6, 4, 3][..], &[2, 6, 3][..], &[4, 2, 1][..], Some((LayerKind::ConvTranspose1d, 1))),
            ("up", &[6, 6, 3], &[2, 6, 3], &[6, 2, 1], Some((LayerKind::ConvTranspose1d, 1))),
            ("up", &[6, 2, 3], &[2, 6, 3], &[4, 1, 1], Some((LayerKind::ConvTranspose1d, 2))),
            ("up", &[6, 2, 3, 3], &[2, 3, 3, 3], &[4, 2, 1, 1], Some((LayerKind::ConvTranspose2d, 2))),
            ("up", &[4, 6, 3], &[2, 6, 3], &[4, 2, 1], None),
            ("up", &[6, 6, 1, 1, 1], &[2, 6, 1, 1, 1], &[6, 2, 1, 1, 1], None),
            ("down", &[6, 6, 3], &[2, 6, 3], &[6, 2, 1], Some((LayerKind::Conv1d, 1))),
            ("down", &[6, 4, 3], &[2, 6, 3], &[4, 2, 1], None),
        ] {
            let tensors = ModuleTensors { a: zeros(a), b: zeros(b), bias: None, magnitude: None, embedding: false };
            let found = infer_layer(weight, &tensors, path, &config).ok();
            assert_eq!(found.map(|layer| (layer.kind(), layer.groups())), expected, "{path} {weight:?}");
        }
    }

    #[test]
    fn shapes_tell_the_kind_and_the_groups() {
        use LayerKind::{Conv1D, Conv1d, Conv2d, Conv3d, Embedding, Linear};
        for (weight, a, b, embedding, transposed, expected) in [
            (&[5, 7][..], &[4, 7][..], &[5, 4][..], false, false, (Linear, 1)),
            (&[5, 7], &[4, 7], &[5, 4], false, true, (Linear, 1)),
            (&[12, 7], &[4, 12], &[7, 4], false, false, (Conv1D, 1)),
            (&[7, 7], &[4, 7], &[7, 4], false, false, (Linear, 1)),
            (&[7, 7], &[4, 7], &[7, 4], false, true, (Conv1D, 1)),
            (&[11, 6], &[4, 11], &[6, 4], true, false, (Embedding, 1)),
            (&[6, 6], &[4, 6], &[6, 4], true, true, (Embedding, 1)),
            (&[8, 6, 3], &[4, 6, 3], &[8, 4, 1], false, false, (Conv1d, 1)),
            (&[12, 4, 5], &[4, 8, 5], &[12, 2, 1], false, false, (Conv1d, 2)),
            (&[12, 4, 5], &[4, 4, 5], &[12, 2, 1], false, false, (Conv1d, 2)),
            (&[64, 1, 3], &[64, 64, 3], &[64, 1, 1], false, false, (Conv1d, 64)),
            (&[64, 1, 3], &[3, 1, 3], &[64, 3, 1], false, false, (Conv1d, 1)),
            (&[4, 1, 3, 3], &[4, 1, 3, 3], &[4, 4, 1, 1], false, false, (Conv2d, 1)),
            (&[2, 4, 1, 2, 2], &[4, 4, 1, 2, 2], &[2, 4, 1, 1, 1], false, false, (Conv3d, 1)),
        ] {
            assert_eq!(infer(weight, a, b, embedding, transposed), Some(expected), "{weight:?} {a:?} {b:?}");
        }
    }

    #[test]
    fn strangers_are_refused() {
        for (weight, a, b, embedding) in [
            (&[5, 7][..], &[4, 8][..], &[5, 4][..], false),
            (&[5, 7], &[4, 7, 1], &[5, 4, 1], false),
            (&[5, 7], &[4, 5], &[7, 3], false),
            (&[5], &[4, 7], &[5, 4], false),
            (&[11, 6], &[4, 6], &[11, 4], true),
            (&[8, 6, 3], &[4, 6, 4], &[8, 4, 1], false),
            (&[8, 6, 3], &[4, 6], &[8, 4], false),
            (&[8, 5, 3], &[4, 6, 3], &[8, 4, 1], false),
            (&[12, 4, 5], &[4, 8, 5], &[12, 4, 1], false),
            (&[9, 4, 5], &[4, 8, 5], &[9, 2, 1], false),
            (&[0, 0, 5], &[4, 8, 5], &[9, 2, 1], false),
            (&[8, 6, 3, 3, 3, 3], &[4, 6, 3, 3, 3, 3], &[8, 4, 1, 1, 1, 1], false),
        ] {
            assert_eq!(infer(weight, a, b, embedding, false), None, "{weight:?} {a:?} {b:?}");
        }
    }
}
