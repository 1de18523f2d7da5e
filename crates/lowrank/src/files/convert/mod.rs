//! Adapters from one form into another: PEFT's directory, and LyCORIS's and kohya's file.

mod to_lycoris;
mod to_peft;

pub use to_lycoris::{ToLycoris, convert_to_lycoris};
pub use to_peft::{DENSE_RANK, ToPeft, convert_to_peft};

use crate::adapter::LayerKind;
use crate::adapter::combine::adapters::layer_of;
use crate::adapter::state_dict::ModuleTensors;
use crate::adapter::{Factors, GroupMode, Layer};
use crate::config::LoraConfig;
use crate::error::{Error, Result, Subject};

/// What a conversion made.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Converted {
    /// The modules, by path.
    pub modules: Vec<ConvertedModule>,
    /// What the input has beside them and the output has not.
    pub left_out: Vec<String>,
    /// What is unusual about the configuration that was read.
    pub warnings: Vec<String>,
}

/// What became of one module.
#[derive(Debug, Clone, PartialEq)]
pub struct ConvertedModule {
    /// Its path in the base model.
    pub path: String,
    /// What it was taken for. PEFT's files do not tell a linear layer from transformers' `Conv1D`.
    pub kind: LayerKind,
    /// The groups it was taken to have.
    pub groups: usize,
    /// The rank it had.
    pub from: usize,
    /// The rank it has.
    pub rank: usize,
    /// The Frobenius norm of what was dropped of its delta, as a share of it: 0 but where it reached outside its groups.
    pub dropped: f64,
}

/// The factors of one module of PEFT's file, on the `layer` they are for, and the share that was dropped of them.
fn factors(
    path: &str,
    tensors: &ModuleTensors,
    layer: &Layer,
    config: &LoraConfig,
    project: bool,
) -> Result<(Factors, f64)> {
    let factors = tensors.factors(layer, config.scaling_for(path)?, config.group_mode, config.dora_norm)?;
    let dense = factors.mode() == GroupMode::Dense && layer.groups() > 1;
    if !dense || !project {
        return Ok((factors, 0.0));
    }
    let (projected, dropped) = factors.project();
    if projected.magnitude().is_some() && dropped > 0.0 {
        return Err(Error::new(
            Subject::Adapter,
            "a DoRA adapter cannot be projected: its magnitudes belong to its delta",
        )
        .with_hint("keep it apart, or train it again in the per_group form"));
    }
    Ok((projected, dropped))
}

/// The layer that one module's tensors are for. Those of the form `shared` do not tell its groups: it is taken to have none.
fn layer(tensors: &ModuleTensors) -> Result<Layer> {
    layer_of(&[tensors])
}
