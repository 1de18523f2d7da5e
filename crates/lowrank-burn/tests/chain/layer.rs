//! The layers of a chain, from their description under `PyTorch`'s names.

use burn::module::Module;
use burn::nn::{PaddingConfig1d, PaddingConfig2d, PaddingConfig3d};
use burn::tensor::{DType, Device};
use lowrank_burn::nn::{
    BatchNorm, BatchNormConfig, Conv1d, Conv1dConfig, Conv2d, Conv2dConfig, Conv3d, Conv3dConfig, Embedding,
    EmbeddingConfig, GroupNorm, GroupNormConfig, HfConv1D, Linear, LinearConfig,
};
use serde_json::Value;

use super::Signal;
use super::padding;

#[derive(Module, Debug)]
pub enum Layer {
    Linear(Linear),
    Conv1D(HfConv1D),
    Embedding(Embedding),
    Conv1d(Conv1d),
    Conv2d(Conv2d),
    Conv3d(Conv3d),
    GroupNorm(GroupNorm),
    BatchNorm(BatchNorm),
}

impl Layer {
    /// A layer of that description, with whatever weights.
    pub fn of(row: &Value, device: &Device) -> Self {
        let n = |name: &str| usize::try_from(row[name].as_u64().unwrap()).unwrap();
        let bias = row["bias"].as_bool().unwrap_or(false);
        let linear = |inputs, outputs| Linear::new(&LinearConfig::new(inputs, outputs).with_bias(bias), device);
        match row["class"].as_str().unwrap() {
            "Linear" => Self::Linear(linear(n("in_features"), n("out_features"))),
            "Conv1D" => Self::Conv1D(HfConv1D::new(n("nx"), n("nf"), device)),
            "Embedding" => {
                Self::Embedding(Embedding::new(&EmbeddingConfig::new(n("num_embeddings"), n("embedding_dim")), device))
            }
            "Conv1d" => Self::Conv1d(conv1d(row, bias, device)),
            "Conv2d" => Self::Conv2d(conv2d(row, bias, device)),
            "Conv3d" => Self::Conv3d(conv3d(row, bias, device)),
            "GroupNorm" => {
                let config = GroupNormConfig::new(n("num_groups"), n("num_channels"));
                Self::GroupNorm(GroupNorm::new(&config.with_epsilon(row["eps"].as_f64().unwrap()), device))
            }
            "BatchNorm1d" => {
                let config = BatchNormConfig::new(n("num_features")).with_epsilon(row["eps"].as_f64().unwrap());
                Self::BatchNorm(BatchNorm::new(&config, device))
            }
            other => panic!("no layer for {other}"),
        }
    }

    pub fn forward(&self, x: Signal) -> Signal {
        match (self, x) {
            (Self::Embedding(layer), Signal::Ids(ids)) => Signal::Three(layer.forward(ids)),
            (Self::Linear(layer), Signal::Two(x)) => Signal::Two(layer.forward(x)),
            (Self::Linear(layer), Signal::Three(x)) => Signal::Three(layer.forward(x)),
            (Self::Linear(layer), Signal::Four(x)) => Signal::Four(layer.forward(x)),
            (Self::Linear(layer), Signal::Five(x)) => Signal::Five(layer.forward(x)),
            (Self::Conv1D(layer), Signal::Two(x)) => Signal::Two(layer.forward(x)),
            (Self::Conv1D(layer), Signal::Three(x)) => Signal::Three(layer.forward(x)),
            (Self::Conv1D(layer), Signal::Four(x)) => Signal::Four(layer.forward(x)),
            (Self::Conv1D(layer), Signal::Five(x)) => Signal::Five(layer.forward(x)),
            (Self::Conv1d(layer), Signal::Three(x)) => Signal::Three(layer.forward(x)),
            (Self::Conv2d(layer), Signal::Four(x)) => Signal::Four(layer.forward(x)),
            (Self::Conv3d(layer), Signal::Five(x)) => Signal::Five(layer.forward(x)),
            (Self::GroupNorm(layer), Signal::Three(x)) => Signal::Three(layer.forward(x)),
            (Self::BatchNorm(layer), Signal::Three(x)) => Signal::Three(layer.forward(x)),
            (layer, _) => panic!("an input of another rank than {layer:?} takes"),
        }
    }

    /// The layer with its weight in a type, if it can hold that.
    pub fn held_in(self, dtype: DType) -> Self {
        match self {
            Self::Linear(mut layer) => {
                layer.weight = layer.weight.map(|weight| weight.cast(dtype).detach());
                Self::Linear(layer)
            }
            Self::Conv1D(mut layer) => {
                layer.weight = layer.weight.map(|weight| weight.cast(dtype).detach());
                Self::Conv1D(layer)
            }
            Self::Conv1d(mut layer) => {
                layer.weight = layer.weight.map(|weight| weight.cast(dtype).detach());
                Self::Conv1d(layer)
            }
            other => other,
        }
    }
}

/// What a convolution is described by, over `N` axes.
struct Geometry<const N: usize> {
    channels: [usize; 2],
    groups: usize,
    kernel: [usize; N],
    stride: [usize; N],
    dilation: [usize; N],
    /// What the layer itself adds; nothing where the input is padded before.
    padding: [(usize, usize); N],
}

impl<const N: usize> Geometry<N> {
    fn of(row: &Value) -> Self {
        let n = |name: &str| usize::try_from(row[name].as_u64().unwrap()).unwrap();
        let along = |name: &str| padding::along(&row[name]).try_into().unwrap();
        let outside = padding::before(row).is_some();
        Self {
            channels: [n("in_channels"), n("out_channels")],
            groups: n("groups"),
            kernel: along("kernel_size"),
            stride: along("stride"),
            dilation: along("dilation"),
            padding: if outside { [(0, 0); N] } else { padding::sides(row).try_into().unwrap() },
        }
    }
}

fn conv1d(row: &Value, bias: bool, device: &Device) -> Conv1d {
    let Geometry { channels, groups, kernel, stride, dilation, padding } = Geometry::<1>::of(row);
    let config = Conv1dConfig::new(channels[0], channels[1], kernel[0])
        .with_stride(stride[0])
        .with_dilation(dilation[0])
        .with_groups(groups)
        .with_padding(PaddingConfig1d::Explicit(padding[0].0, padding[0].1))
        .with_bias(bias);
    Conv1d::new(&config, device).with_padding_mode(padding::mode(row))
}

fn conv2d(row: &Value, bias: bool, device: &Device) -> Conv2d {
    let Geometry { channels, groups, kernel, stride, dilation, padding } = Geometry::<2>::of(row);
    let [(top, bottom), (left, right)] = padding;
    let config = Conv2dConfig::new(channels, kernel)
        .with_stride(stride)
        .with_dilation(dilation)
        .with_groups(groups)
        .with_padding(PaddingConfig2d::Explicit(top, left, bottom, right))
        .with_bias(bias);
    Conv2d::new(&config, device)
}

fn conv3d(row: &Value, bias: bool, device: &Device) -> Conv3d {
    let Geometry { channels, groups, kernel, stride, dilation, padding } = Geometry::<3>::of(row);
    let [depth, height, width] = padding.map(|(before, _)| before);
    let config = Conv3dConfig::new(channels, kernel)
        .with_stride(stride)
        .with_dilation(dilation)
        .with_groups(groups)
        .with_padding(PaddingConfig3d::Explicit(depth, height, width))
        .with_bias(bias);
    Conv3d::new(&config, device)
}
