//! How factors start: PEFT's distributions.

use crate::Result;
use crate::adapter::{Factors, GroupMode, Layer};
use crate::random::Random;

/// `init_lora_weights`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Init {
    /// `true`.
    #[default]
    Default,
    /// `"gaussian"`.
    Gaussian,
    /// `false`.
    False,
}

/// Factors.
///
/// # Errors
/// x
pub fn initialise(
    layer: &Layer,
    mode: GroupMode,
    rank: usize,
    scale: f32,
    _lora_bias: bool,
    _init: Init,
    _random: &mut Random,
) -> Result<Factors> {
    Factors::new(layer.clone(), mode, rank, scale, vec![], vec![], None)
}
