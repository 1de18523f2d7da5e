//! [`burn::nn::Lstm`] on the fused operation.

use burn::module::{Module, Param};
use burn::nn::activation::Activation;
use burn::nn::{GateController, Linear, LstmState};
use burn::tensor::module::linear;
use burn::tensor::{Device, Tensor};
use lowrank::{Error, Subject};

use crate::ops;

/// The configuration of an [`Lstm`] layer: Burn's own.
pub use burn::nn::LstmConfig;

/// An LSTM of one layer and one direction, as [`burn::nn::Lstm`].
///
/// The parameters are `PyTorch`'s, names and shapes, where Burn has eight linear layers: a checkpoint loads as it is, and
/// the gates of all steps are one product.
#[derive(Module, Debug)]
pub struct Lstm {
    /// `[4·d_hidden, d_input]`: input, forget, cell and output gate.
    pub weight_ih: Param<Tensor<2>>,
    /// `[4·d_hidden, d_hidden]`.
    pub weight_hh: Param<Tensor<2>>,
    /// `[4·d_hidden]`.
    pub bias_ih: Option<Param<Tensor<1>>>,
    /// `[4·d_hidden]`.
    pub bias_hh: Option<Param<Tensor<1>>>,
    /// Size of the hidden state.
    pub d_hidden: usize,
    /// Whether the input is `[batch, time, d_input]`; otherwise `[time, batch, d_input]`.
    pub batch_first: bool,
    /// Whether the sequence is read from its end.
    pub reverse: bool,
}

impl TryFrom<burn::nn::Lstm> for Lstm {
    type Error = Error;

    /// # Errors
    /// When the layer clips its state, couples its gates, or has other activations than σ and tanh: no `PyTorch` layer does.
    fn try_from(layer: burn::nn::Lstm) -> Result<Self, Error> {
        let standard = layer.clip.is_none()
            && matches!(layer.gate_activation, Activation::Sigmoid(_))
            && matches!(layer.cell_activation, Activation::Tanh(_))
            && matches!(layer.hidden_activation, Activation::Tanh(_));
        let (true, Some(forget)) = (standard, &layer.forget_gate) else {
            return Err(Error::new(Subject::Model, "an LSTM with a clip, coupled gates, or other activations")
                .expected("the standard cell: σ for the gates, tanh for the states"));
        };
        let gates = [&layer.input_gate, forget, &layer.cell_gate, &layer.output_gate];
        let weight = |of: fn(&GateController) -> &Linear| {
            let weights = gates.map(|gate| of(gate).weight.val());
            joined(weights.to_vec(), |weights| Tensor::cat(weights, 1).transpose())
        };
        let bias = |of: fn(&GateController) -> &Linear| {
            let biases: Option<_> = gates.iter().map(|gate| of(gate).bias.as_ref().map(Param::val)).collect();
            biases.map(|biases| joined(biases, |biases| Tensor::cat(biases, 0)))
        };
        Ok(Self {
            weight_ih: weight(|gate| &gate.input_transform),
            weight_hh: weight(|gate| &gate.hidden_transform),
            bias_ih: bias(|gate| &gate.input_transform),
            bias_hh: bias(|gate| &gate.hidden_transform),
            d_hidden: layer.d_hidden,
            batch_first: layer.batch_first,
            reverse: layer.reverse,
        })
    }
}

/// A parameter made of those of the gates, trained if they are.
fn joined<const D: usize>(gates: Vec<Tensor<D>>, join: impl FnOnce(Vec<Tensor<D>>) -> Tensor<D>) -> Param<Tensor<D>> {
    let trained = gates.iter().any(Tensor::is_require_grad);
    Param::from_tensor(join(gates).detach()).set_require_grad(trained)
}

impl Lstm {
    /// A layer with Burn's initialisation.
    ///
    /// # Errors
    /// When the configuration is not that of a standard cell.
    pub fn new(config: &LstmConfig, device: &Device) -> Result<Self, Error> {
        config.init(device).try_into()
    }

    /// The hidden state after every step, and the states after the last. Without a state, it starts with zeros.
    ///
    /// # Shapes
    /// - input: `[batch, time, d_input]`, or with the first axes swapped
    /// - output: `[batch, time, d_hidden]`, or with the first axes swapped; states `[batch, d_hidden]`
    ///
    /// # Panics
    /// When a shape does not fit, or there is no step.
    #[must_use]
    pub fn forward(&self, input: Tensor<3>, state: Option<LstmState<2>>) -> (Tensor<3>, LstmState<2>) {
        let input = if self.batch_first { input.swap_dims(0, 1) } else { input };
        let input = if self.reverse { input.flip([0]) } else { input };
        let [time, batch, d_input] = input.dims();
        let state = state.unwrap_or_else(|| LstmState::initial([batch, self.d_hidden], &input.device()));
        let bias = match (&self.bias_ih, &self.bias_hh) {
            (Some(ih), Some(hh)) => Some(ih.val() + hh.val()),
            (one, other) => one.as_ref().or(other.as_ref()).map(Param::val),
        };
        let rows = input.reshape([time * batch, d_input]);
        let gates = linear(rows, self.weight_ih.val().transpose(), bias).reshape([time, batch, 4 * self.d_hidden]);
        let (output, cell) = ops::lstm(gates, self.weight_hh.val(), [state.hidden, state.cell]);
        let hidden = output.clone().narrow(0, time - 1, 1).squeeze_dim(0);
        let output = if self.reverse { output.flip([0]) } else { output };
        let output = if self.batch_first { output.swap_dims(0, 1) } else { output };
        (output, LstmState::new(cell, hidden))
    }
}
