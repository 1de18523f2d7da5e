//! A model of one layer.

use std::collections::HashMap;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::nn as stock;
use burn::nn::{PaddingConfig1d, PaddingConfig2d, PaddingConfig3d};
use burn::tensor::{Device, Gradients, Int, Tensor};
use lowrank::adapter::LayerKind;
use lowrank::geometry::{Axis, ConvGeometry, Padding};
use lowrank_burn::{nn, values};

use super::{Problem, Route, Shape};

#[derive(Module, Debug)]
pub struct Net {
    layer: Layer,
}

#[derive(Module, Debug)]
enum Layer {
    Conv1d(nn::Conv1d),
    StockConv1d(stock::conv::Conv1d),
    Conv2d(nn::Conv2d),
    StockConv2d(stock::conv::Conv2d),
    Conv3d(nn::Conv3d),
    StockConv3d(stock::conv::Conv3d),
    ConvTranspose1d(nn::ConvTranspose1d),
    StockConvTranspose1d(stock::conv::ConvTranspose1d),
    ConvTranspose2d(nn::ConvTranspose2d),
    StockConvTranspose2d(stock::conv::ConvTranspose2d),
    Linear(nn::Linear),
    StockLinear(stock::Linear),
    HfConv1D(nn::HfConv1D),
    Embedding(nn::Embedding),
    StockEmbedding(stock::Embedding),
}

impl Net {
    pub fn new(problem: &Problem, route: Route, device: &Device) -> Self {
        let dropin = route == Route::DropIn;
        let layer = match &problem.shape {
            Shape::Conv { geometry, .. } if geometry.axes().len() == 1 => {
                let conv = conv1d(geometry, problem.bias).init(device);
                let mode = geometry.padding_mode();
                if dropin {
                    Layer::Conv1d(nn::Conv1d::from(conv).with_padding_mode(mode))
                } else {
                    Layer::StockConv1d(conv)
                }
            }
            Shape::Transposed { conv, padding_out, .. } if conv.axes().len() == 1 => {
                let conv = conv_transpose1d(conv, padding_out, problem.bias).init(device);
                if dropin { Layer::ConvTranspose1d(conv.into()) } else { Layer::StockConvTranspose1d(conv) }
            }
            Shape::Transposed { conv, padding_out, .. } => {
                let conv = conv_transpose2d(conv, padding_out, problem.bias).init(device);
                if dropin { Layer::ConvTranspose2d(conv.into()) } else { Layer::StockConvTranspose2d(conv) }
            }
            Shape::Conv { geometry, .. } if geometry.axes().len() == 3 => {
                let conv = conv3d(geometry, problem.bias).init(device);
                if dropin { Layer::Conv3d(conv.into()) } else { Layer::StockConv3d(conv) }
            }
            Shape::Conv { geometry, .. } => {
                let conv = conv2d(geometry, problem.bias).init(device);
                if dropin { Layer::Conv2d(conv.into()) } else { Layer::StockConv2d(conv) }
            }
            Shape::Linear { inputs, outputs, of: LayerKind::Conv1D } => {
                Layer::HfConv1D(nn::HfConv1D::new(*inputs, *outputs, device))
            }
            Shape::Linear { inputs, outputs, .. } => {
                let linear = stock::LinearConfig::new(*inputs, *outputs).with_bias(problem.bias).init(device);
                if dropin { Layer::Linear(linear.into()) } else { Layer::StockLinear(linear) }
            }
            Shape::Embedding { rows, dim } => {
                let embedding = stock::EmbeddingConfig::new(*rows, *dim).init(device);
                if dropin { Layer::Embedding(embedding.into()) } else { Layer::StockEmbedding(embedding) }
            }
        };
        Self { layer }
    }

    /// The base's values by parameter; Burn holds the transpose of a linear weight.
    pub fn base_values(&self, w: &[f32], bias: Option<&[f32]>) -> HashMap<ParamId, Vec<f32>> {
        let (weight, own_bias, linear) = match &self.layer {
            Layer::Conv1d(layer) => (layer.weight.id, layer.bias.as_ref(), None),
            Layer::StockConv1d(layer) => (layer.weight.id, layer.bias.as_ref(), None),
            Layer::Conv2d(layer) => (layer.weight.id, layer.bias.as_ref(), None),
            Layer::StockConv2d(layer) => (layer.weight.id, layer.bias.as_ref(), None),
            Layer::Conv3d(layer) => (layer.weight.id, layer.bias.as_ref(), None),
            Layer::StockConv3d(layer) => (layer.weight.id, layer.bias.as_ref(), None),
            Layer::ConvTranspose1d(layer) => (layer.weight.id, layer.bias.as_ref(), None),
            Layer::StockConvTranspose1d(layer) => (layer.weight.id, layer.bias.as_ref(), None),
            Layer::ConvTranspose2d(layer) => (layer.weight.id, layer.bias.as_ref(), None),
            Layer::StockConvTranspose2d(layer) => (layer.weight.id, layer.bias.as_ref(), None),
            Layer::Linear(layer) => (layer.weight.id, layer.bias.as_ref(), Some(layer.weight.dims())),
            Layer::StockLinear(layer) => (layer.weight.id, layer.bias.as_ref(), Some(layer.weight.dims())),
            Layer::HfConv1D(layer) => (layer.weight.id, Some(&layer.bias), None),
            Layer::Embedding(layer) => (layer.weight.id, None, None),
            Layer::StockEmbedding(layer) => (layer.weight.id, None, None),
        };
        let w = match linear {
            Some([inputs, outputs]) => (0..w.len()).map(|at| w[(at % outputs) * inputs + at / outputs]).collect(),
            None => w.to_vec(),
        };
        let bias = own_bias.zip(bias).map(|(own, bias)| (own.id, bias.to_vec()));
        [(weight, w)].into_iter().chain(bias).collect()
    }

    pub fn forward(&self, x: Tensor<1>, problem: &Problem) -> Tensor<1> {
        let flat = |y: Tensor<3>| y.flatten(0, 2);
        let batch = problem.batch;
        match (&self.layer, &problem.shape) {
            (Layer::Conv1d(layer), Shape::Conv { geometry, lengths }) => {
                flat(layer.forward(x.reshape([batch, geometry.in_channels(), lengths[0]])))
            }
            (Layer::StockConv1d(layer), Shape::Conv { geometry, lengths }) => {
                flat(layer.forward(x.reshape([batch, geometry.in_channels(), lengths[0]])))
            }
            (Layer::Conv2d(layer), Shape::Conv { geometry, lengths }) => {
                layer.forward(x.reshape([batch, geometry.in_channels(), lengths[0], lengths[1]])).flatten(0, 3)
            }
            (Layer::StockConv2d(layer), Shape::Conv { geometry, lengths }) => {
                layer.forward(x.reshape([batch, geometry.in_channels(), lengths[0], lengths[1]])).flatten(0, 3)
            }
            (Layer::Conv3d(layer), Shape::Conv { geometry, lengths }) => {
                let shape = [batch, geometry.in_channels(), lengths[0], lengths[1], lengths[2]];
                layer.forward(x.reshape(shape)).flatten(0, 4)
            }
            (Layer::StockConv3d(layer), Shape::Conv { geometry, lengths }) => {
                let shape = [batch, geometry.in_channels(), lengths[0], lengths[1], lengths[2]];
                layer.forward(x.reshape(shape)).flatten(0, 4)
            }
            (Layer::ConvTranspose1d(layer), Shape::Transposed { conv, lengths, .. }) => {
                flat(layer.forward(x.reshape([batch, conv.out_channels(), lengths[0]])))
            }
            (Layer::StockConvTranspose1d(layer), Shape::Transposed { conv, lengths, .. }) => {
                flat(layer.forward(x.reshape([batch, conv.out_channels(), lengths[0]])))
            }
            (Layer::ConvTranspose2d(layer), Shape::Transposed { conv, lengths, .. }) => {
                layer.forward(x.reshape([batch, conv.out_channels(), lengths[0], lengths[1]])).flatten(0, 3)
            }
            (Layer::StockConvTranspose2d(layer), Shape::Transposed { conv, lengths, .. }) => {
                layer.forward(x.reshape([batch, conv.out_channels(), lengths[0], lengths[1]])).flatten(0, 3)
            }
            (Layer::Linear(layer), Shape::Linear { inputs, .. }) => flat(layer.forward(x.reshape([1, batch, *inputs]))),
            (Layer::StockLinear(layer), Shape::Linear { inputs, .. }) => {
                flat(layer.forward(x.reshape([1, batch, *inputs])))
            }
            (Layer::HfConv1D(layer), Shape::Linear { inputs, .. }) => {
                flat(layer.forward(x.reshape([1, batch, *inputs])))
            }
            (layer, shape) => panic!("{layer:?} does not take {shape:?}"),
        }
    }

    pub fn look_up(&self, ids: Tensor<2, Int>) -> Tensor<1> {
        match &self.layer {
            Layer::Embedding(layer) => layer.forward(ids).flatten(0, 2),
            Layer::StockEmbedding(layer) => layer.forward(ids).flatten(0, 2),
            layer => panic!("{layer:?} takes no indices"),
        }
    }

    /// The gradients of the given parameters; none may be missing, and no other may have one.
    pub fn gradients(&self, gradients: &Gradients, ids: &[ParamId]) -> HashMap<ParamId, Vec<f32>> {
        let mut found = Found { gradients, found: HashMap::new() };
        self.visit(&mut found);
        assert_eq!(found.found.len(), ids.len(), "the adapter's tensors have gradients, and nothing else");
        found.found
    }
}

struct Found<'a> {
    gradients: &'a Gradients,
    found: HashMap<ParamId, Vec<f32>>,
}

impl ModuleVisitor for Found<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = param.val().grad(self.gradients) {
            self.found.insert(param.id, values::of(gradient));
        }
    }
}

fn conv1d(geometry: &ConvGeometry, bias: bool) -> stock::conv::Conv1dConfig {
    let Axis { kernel, stride, dilation, padding } = geometry.axes()[0];
    let padding = match padding {
        Padding::Valid => PaddingConfig1d::Valid,
        Padding::Same => PaddingConfig1d::Same,
        Padding::Explicit(before, after) => PaddingConfig1d::Explicit(before, after),
    };
    stock::conv::Conv1dConfig::new(geometry.in_channels(), geometry.out_channels(), kernel)
        .with_stride(stride)
        .with_dilation(dilation)
        .with_padding(padding)
        .with_groups(geometry.groups())
        .with_bias(bias)
}

fn conv2d(geometry: &ConvGeometry, bias: bool) -> stock::conv::Conv2dConfig {
    let each = |of: fn(&Axis) -> usize| [of(&geometry.axes()[0]), of(&geometry.axes()[1])];
    let ((top, bottom), (left, right)) = (geometry.padding(0), geometry.padding(1));
    stock::conv::Conv2dConfig::new([geometry.in_channels(), geometry.out_channels()], each(|axis| axis.kernel))
        .with_stride(each(|axis| axis.stride))
        .with_dilation(each(|axis| axis.dilation))
        .with_padding(PaddingConfig2d::Explicit(top, left, bottom, right))
        .with_groups(geometry.groups())
        .with_bias(bias)
}

fn conv3d(geometry: &ConvGeometry, bias: bool) -> stock::conv::Conv3dConfig {
    let each = |of: fn(&Axis) -> usize| std::array::from_fn(|at| of(&geometry.axes()[at]));
    let [depth, height, width] = std::array::from_fn(|at| geometry.padding(at).0);
    stock::conv::Conv3dConfig::new([geometry.in_channels(), geometry.out_channels()], each(|axis| axis.kernel))
        .with_stride(each(|axis| axis.stride))
        .with_dilation(each(|axis| axis.dilation))
        .with_padding(PaddingConfig3d::Explicit(depth, height, width))
        .with_groups(geometry.groups())
        .with_bias(bias)
}

fn conv_transpose1d(conv: &ConvGeometry, padding_out: &[usize], bias: bool) -> stock::conv::ConvTranspose1dConfig {
    let Axis { kernel, stride, dilation, .. } = conv.axes()[0];
    stock::conv::ConvTranspose1dConfig::new([conv.out_channels(), conv.in_channels()], kernel)
        .with_stride(stride)
        .with_dilation(dilation)
        .with_padding(conv.padding(0).0)
        .with_padding_out(padding_out[0])
        .with_groups(conv.groups())
        .with_bias(bias)
}

fn conv_transpose2d(conv: &ConvGeometry, padding_out: &[usize], bias: bool) -> stock::conv::ConvTranspose2dConfig {
    let each = |of: fn(&Axis) -> usize| [of(&conv.axes()[0]), of(&conv.axes()[1])];
    stock::conv::ConvTranspose2dConfig::new([conv.out_channels(), conv.in_channels()], each(|axis| axis.kernel))
        .with_stride(each(|axis| axis.stride))
        .with_dilation(each(|axis| axis.dilation))
        .with_padding([conv.padding(0).0, conv.padding(1).0])
        .with_padding_out([padding_out[0], padding_out[1]])
        .with_groups(conv.groups())
        .with_bias(bias)
}
