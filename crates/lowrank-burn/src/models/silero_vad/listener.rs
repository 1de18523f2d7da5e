//! Listening: frames as they come in.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use super::{SileroVad, State};
use crate::adapter::{Control, LoraAdapter};
use crate::nn::Conv1d;

/// A network that hears recordings as they come in, one or several side by side.
///
/// The active adapters are folded into the weights once, and not at every frame, whose own work is less than that. Adapters stay
/// live: one that is switched or scaled is heard from the next call on, after one more fold.
#[derive(Debug)]
pub struct Listener {
    vad: SileroVad,
    folded: SileroVad,
    controls: Vec<Control>,
    revision: u64,
    state: State,
}

impl Listener {
    /// A listener that has heard nothing yet.
    #[must_use]
    pub fn new(vad: SileroVad, batch: usize, device: &Device) -> Self {
        let (controls, state) = (controls(&vad), vad.start(batch, device));
        Self { folded: vad.clone().materialize(), revision: revision(&controls), controls, vad, state }
    }

    /// The logits of the next frames. Shapes and panics as [`SileroVad::forward`].
    #[must_use]
    pub fn hear(&mut self, frames: Tensor<2>) -> Tensor<2> {
        let revision = revision(&self.controls);
        if revision != self.revision {
            self.folded = self.vad.clone().materialize();
            self.revision = revision;
        }
        let (logits, state) = self.folded.forward(frames, self.state.clone());
        self.state = state;
        logits
    }
}

/// Changes whenever one of them does.
fn revision(controls: &[Control]) -> u64 {
    controls.iter().map(Control::revision).sum()
}

/// What says which adapters are in force, of every parameter that has some. Visitors are not shown them.
fn controls(vad: &SileroVad) -> Vec<Control> {
    fn of<const D: usize>(param: &Param<Tensor<D>>) -> Option<Control> {
        param.reparameterization::<LoraAdapter>().map(|adapter| adapter.control().clone())
    }
    let convolutions = [&vad.stft_conv, &vad.conv1, &vad.conv2, &vad.conv3, &vad.conv4, &vad.final_conv];
    let of_convolution = |conv: &Conv1d| [of(&conv.weight), conv.bias.as_ref().and_then(of)];
    let cell = &vad.lstm_cell;
    let biases = [&cell.bias_ih, &cell.bias_hh].map(|bias| bias.as_ref().and_then(of));
    let of_cell = [of(&cell.weight_ih), of(&cell.weight_hh)].into_iter().chain(biases);
    convolutions.into_iter().flat_map(of_convolution).chain(of_cell).flatten().collect()
}
