//! Kaiming uniform with `a = sqrt(5)`: how `PyTorch` starts linear layers and convolutions, and PEFT starts `A`.

use crate::random::Random;

/// Uniform in `[-1/sqrt(fan_in), 1/sqrt(fan_in))`.
///
/// That is `kaiming_uniform_(a=sqrt(5))`: its gain is `sqrt(2 / (1 + 5))`, its bound `sqrt(3 / fan_in)` times the gain.
/// The bias of a layer has the same bound.
pub fn fill(values: &mut [f32], fan_in: usize, random: &mut Random) {
    #[expect(clippy::cast_precision_loss, reason = "a rounded fan-in changes nothing that matters")]
    let bound = 1.0 / (fan_in.max(1) as f32).sqrt();
    values.fill_with(|| random.uniform(-bound, bound));
}
