//! Listening: frames as they come in.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};

use super::{SileroVad, State};
use crate::adapter::{Control, LoraAdapter};

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
        let mut controls = Controls::default();
        vad.visit(&mut controls);
        let (controls, state) = (controls.0, vad.start(batch, device));
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

/// What says which adapters are in force, of every parameter that has some.
#[derive(Default)]
struct Controls(Vec<Control>);

impl ModuleVisitor for Controls {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.extend(param.reparameterization::<LoraAdapter>().map(LoraAdapter::control).cloned());
    }
}
