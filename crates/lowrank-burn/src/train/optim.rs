//! `AdamW` and SGD on one flat vector of parameters, with `PyTorch`'s arithmetic and the parameter groups of `LoRA+`.
//!
//! All that trains with an adapter is a few slices of `f32`; the optimiser sees them one behind the other, in the order
//! of their [`ParamSlot`]s. Its state is flat too, so that a checkpoint is three vectors and a number.

use lowrank::{Error, Result, Subject};
use serde::{Deserialize, Serialize};

/// The groups `LoRA+` (<https://huggingface.co/papers/2402.12354>) sorts parameters into, as PEFT's
/// `create_loraplus_optimizer` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Group {
    /// `lora_A`, and every other parameter of two dimensions or more.
    A,
    /// `lora_B`, and vectors that are neither a bias nor part of a `LayerNorm`.
    B,
    /// Both factors of an embedding.
    Embedding,
    /// Biases and the parameters of a `LayerNorm`: never decayed.
    BNoDecay,
}

impl Group {
    /// The group of the parameter `name` (`"encoder.conv1.lora_A.weight"`) with so many `dimensions`; `layer_norm` says
    /// that it belongs to a `LayerNorm`.
    ///
    /// The weight of a `BatchNorm` is in [`Group::B`] and decays, as in PEFT, and so is the magnitude vector of `DoRA` where
    /// it is a vector.
    #[must_use]
    pub fn of(name: &str, dimensions: usize, layer_norm: bool) -> Self {
        if name.contains("lora_embedding_") {
            Self::Embedding
        } else if !name.contains("lora_B") && dimensions != 1 {
            Self::A
        } else if layer_norm || name.contains("bias") {
            Self::BNoDecay
        } else {
            Self::B
        }
    }
}

/// One trained parameter: a run of `len` values in the flat vector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParamSlot {
    /// The dotted path of the parameter, for messages and to recognise it on resume.
    pub name: String,
    /// How many values it has.
    pub len: usize,
    /// Its learning rate and weight decay.
    pub group: Group,
}

/// The learning rates of `LoRA+`; without it every group has the same rate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraPlus {
    /// How many times the rate of A the rate of B is; at least 1, 16 in the paper's experiments.
    pub loraplus_lr_ratio: f64,
    /// The rate of embeddings at the peak of the schedule, whatever the rate of A is.
    #[serde(default = "LoraPlus::embedding")]
    pub loraplus_lr_embedding: f64,
}

impl LoraPlus {
    fn embedding() -> f64 {
        1e-6
    }
}

/// Which optimiser, and its settings, under `PyTorch`'s names and with `PyTorch`'s defaults.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase", deny_unknown_fields)]
pub enum OptimizerConfig {
    /// Adam with decoupled weight decay: `p -= lr * weight_decay * p`, then
    /// `p -= lr * m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps)`.
    AdamW {
        /// How slowly the averages of the gradient and of its square forget.
        #[serde(default = "default_betas")]
        betas: [f64; 2],
        /// Keeps the quotient finite.
        #[serde(default = "default_eps")]
        eps: f64,
        /// Decay of a parameter per unit of learning rate. PEFT's `LoRA+` has 0 here unless told otherwise.
        #[serde(default = "default_weight_decay")]
        weight_decay: f64,
    },
    /// `buf = momentum * buf + g`, `p -= lr * buf`, where `g` includes `weight_decay * p` (coupled, as `PyTorch` has it).
    Sgd {
        /// How slowly the buffer forgets; 0 keeps none.
        #[serde(default)]
        momentum: f64,
        /// Steps along `g + momentum * buf` instead of `buf`.
        #[serde(default)]
        nesterov: bool,
        /// Added to the gradient, times the parameter.
        #[serde(default)]
        weight_decay: f64,
    },
}

fn default_betas() -> [f64; 2] {
    [0.9, 0.999]
}

fn default_eps() -> f64 {
    1e-8
}

fn default_weight_decay() -> f64 {
    0.01
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self::AdamW { betas: default_betas(), eps: default_eps(), weight_decay: default_weight_decay() }
    }
}

impl OptimizerConfig {
    /// Checks that every setting is in its range; all errors at once.
    ///
    /// # Errors
    /// `Subject::Config`, naming the key.
    pub fn validate(&self) -> Result<()> {
        let mut errors = Vec::new();
        let mut check = |key: &str, value: f64, ok: bool, expected: &str| {
            if !ok || !value.is_finite() {
                errors.push(Error::new(Subject::Config, "out of range").at(key).found(value).expected(expected));
            }
        };
        let at_least_zero = "a number of at least 0";
        match *self {
            Self::AdamW { betas, eps, weight_decay } => {
                for beta in betas {
                    check("betas", beta, (0.0..1.0).contains(&beta), "numbers from 0 to below 1");
                }
                check("eps", eps, eps >= 0.0, at_least_zero);
                check("weight_decay", weight_decay, weight_decay >= 0.0, at_least_zero);
            }
            Self::Sgd { momentum, nesterov, weight_decay } => {
                check("momentum", momentum, (0.0..1.0).contains(&momentum), "a number from 0 to below 1");
                check("weight_decay", weight_decay, weight_decay >= 0.0, at_least_zero);
                if nesterov && momentum == 0.0 {
                    errors.push(
                        Error::new(Subject::Config, "Nesterov's step needs momentum")
                            .at("nesterov")
                            .with_hint("set `momentum` (0.9 is usual) or leave `nesterov` out"),
                    );
                }
            }
        }
        Error::all(errors)
    }
}

/// What an optimiser remembers between steps.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct OptimizerState {
    /// Steps taken.
    pub step: u64,
    /// `AdamW`: the running average of the gradient. SGD: the momentum buffer, empty without momentum.
    pub m: Vec<f32>,
    /// `AdamW`: the running average of the squared gradient. SGD: empty.
    pub v: Vec<f32>,
}

/// An optimiser over the flat vector that `slots` describe.
///
/// ```
/// use lowrank_burn::train::optim::{Group, Optimizer, OptimizerConfig, ParamSlot};
///
/// let slots = vec![ParamSlot { name: "conv.lora_B.weight".into(), len: 2, group: Group::B }];
/// let sgd = OptimizerConfig::Sgd { momentum: 0.0, nesterov: false, weight_decay: 0.0 };
/// let mut optimizer = Optimizer::new(sgd, 0.5, None, slots)?;
/// let mut params = [1.0, 2.0];
/// optimizer.step(0.5, &mut params, &[1.0, -1.0])?;
/// assert_eq!(params, [0.5, 2.5]);
/// # Ok::<(), lowrank::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Optimizer {
    config: OptimizerConfig,
    lora_plus: Option<LoraPlus>,
    peak_lr: f64,
    slots: Vec<ParamSlot>,
    state: OptimizerState,
}

impl Optimizer {
    /// An optimiser that has not stepped yet. `peak_lr` is the learning rate before the schedule scales it; `LoRA+` needs
    /// it to scale the rate of embeddings alike.
    ///
    /// # Errors
    /// A setting out of its range.
    pub fn new(
        config: OptimizerConfig,
        peak_lr: f64,
        lora_plus: Option<LoraPlus>,
        slots: Vec<ParamSlot>,
    ) -> Result<Self> {
        config.validate()?;
        let positive = |key: &str, value: f64, least: f64| {
            (value.is_finite() && value > 0.0 && value >= least).then_some(()).ok_or_else(|| {
                let expected = if least > 0.0 { format!("at least {least}") } else { "a number above 0".to_owned() };
                Error::new(Subject::Config, "out of range").at(key).found(value).expected(expected)
            })
        };
        positive("learning_rate", peak_lr, 0.0)?;
        if let Some(plus) = lora_plus {
            positive("loraplus_lr_ratio", plus.loraplus_lr_ratio, 1.0)?;
            positive("loraplus_lr_embedding", plus.loraplus_lr_embedding, 0.0)?;
        }
        let len = slots.iter().map(|slot| slot.len).sum();
        let (m, v) = match config {
            OptimizerConfig::AdamW { .. } => (len, len),
            OptimizerConfig::Sgd { momentum, .. } => (if momentum == 0.0 { 0 } else { len }, 0),
        };
        let state = OptimizerState { step: 0, m: vec![0.0; m], v: vec![0.0; v] };
        Ok(Self { config, lora_plus, peak_lr, slots, state })
    }

    /// The parameters, in the order of the flat vector.
    #[must_use]
    pub fn slots(&self) -> &[ParamSlot] {
        &self.slots
    }

    /// What a checkpoint has to keep.
    #[must_use]
    pub fn state(&self) -> &OptimizerState {
        &self.state
    }

    /// Goes on from where `state` was taken.
    ///
    /// # Errors
    /// `Subject::Config` when the state belongs to another optimiser or to other parameters.
    pub fn restore(&mut self, state: OptimizerState) -> Result<()> {
        for (name, found, expected) in
            [("m", state.m.len(), self.state.m.len()), ("v", state.v.len(), self.state.v.len())]
        {
            if found != expected {
                return Err(Error::new(Subject::Config, format!("the optimiser state `{name}` does not fit"))
                    .found(format!("{found} values"))
                    .expected(expected)
                    .with_hint("resume with the optimiser and the adapter the checkpoint was made with"));
            }
        }
        self.state = state;
        Ok(())
    }

    /// The learning rate of `group` where group A has `lr`.
    #[must_use]
    pub fn group_lr(&self, group: Group, lr: f64) -> f64 {
        match (self.lora_plus, group) {
            (None, _) | (_, Group::A) => lr,
            (Some(plus), Group::B | Group::BNoDecay) => lr * plus.loraplus_lr_ratio,
            (Some(plus), Group::Embedding) => plus.loraplus_lr_embedding * (lr / self.peak_lr),
        }
    }

    /// One step of gradient descent with the learning rate `lr` (group A's, as scheduled).
    ///
    /// Every value depends on its own history alone, in `f32`, so the result is the same on any number of threads.
    /// Gradients are not checked here: see [`non_finite`](super::gradient::non_finite).
    ///
    /// # Errors
    /// When `params` or `grads` are not as long as the slots together; nothing is changed then.
    pub fn step(&mut self, lr: f64, params: &mut [f32], grads: &[f32]) -> Result<()> {
        let len: usize = self.slots.iter().map(|slot| slot.len).sum();
        if params.len() != len || grads.len() != len {
            return Err(Error::new(Subject::Model, "parameters and gradients do not fit the optimiser")
                .found(format!("{} and {} values", params.len(), grads.len()))
                .expected(len));
        }
        self.state.step += 1;
        let lrs: Vec<f64> = self.slots.iter().map(|slot| self.group_lr(slot.group, lr)).collect();
        let OptimizerState { step, m, v } = &mut self.state;
        let (mut params, mut grads, mut m, mut v) = (params, grads, m.as_mut_slice(), v.as_mut_slice());
        for (slot, lr) in self.slots.iter().zip(lrs) {
            let p = params.split_off_mut(..slot.len).unwrap_or_default();
            let g = grads.split_off(..slot.len).unwrap_or_default();
            let decay = |weight_decay| if slot.group == Group::BNoDecay { 0.0 } else { weight_decay };
            match self.config {
                OptimizerConfig::AdamW { betas, eps, weight_decay } => {
                    let adam = AdamW::new(betas, eps, decay(weight_decay), lr, *step);
                    let m = m.split_off_mut(..slot.len).unwrap_or_default();
                    let v = v.split_off_mut(..slot.len).unwrap_or_default();
                    adam.step(p, g, m, v);
                }
                OptimizerConfig::Sgd { momentum, nesterov, weight_decay } => {
                    let sgd = Sgd::new(momentum, nesterov, decay(weight_decay), lr);
                    if momentum == 0.0 {
                        sgd.step(p, g);
                    } else {
                        let buffer = m.split_off_mut(..slot.len).unwrap_or_default();
                        sgd.step_with_momentum(p, g, buffer);
                    }
                }
            }
        }
        Ok(())
    }
}

#[expect(clippy::cast_possible_truncation, reason = "PyTorch rounds the scalars of an f32 operation to f32 as well")]
fn scalar(value: f64) -> f32 {
    value as f32
}

/// The scalars of one `AdamW` step, worked out in `f64` and rounded once.
struct AdamW {
    keep: f32,
    beta1_rest: f32,
    beta2: f32,
    beta2_rest: f32,
    correction2_sqrt: f32,
    eps: f32,
    step_size: f32,
}

impl AdamW {
    fn new([beta1, beta2]: [f64; 2], eps: f64, weight_decay: f64, lr: f64, step: u64) -> Self {
        let exponent = i32::try_from(step).unwrap_or(i32::MAX);
        Self {
            keep: scalar(1.0 - lr * weight_decay),
            beta1_rest: scalar(1.0 - beta1),
            beta2: scalar(beta2),
            beta2_rest: scalar(1.0 - beta2),
            correction2_sqrt: scalar((1.0 - beta2.powi(exponent)).sqrt()),
            eps: scalar(eps),
            step_size: scalar(lr / (1.0 - beta1.powi(exponent))),
        }
    }

    fn step(&self, params: &mut [f32], grads: &[f32], m: &mut [f32], v: &mut [f32]) {
        for (((p, g), m), v) in params.iter_mut().zip(grads).zip(m).zip(v) {
            *m += self.beta1_rest * (g - *m);
            *v = self.beta2 * *v + self.beta2_rest * g * g;
            let denominator = v.sqrt() / self.correction2_sqrt + self.eps;
            *p = *p * self.keep - self.step_size * *m / denominator;
        }
    }
}

struct Sgd {
    momentum: f32,
    nesterov: bool,
    weight_decay: f32,
    lr: f32,
}

impl Sgd {
    fn new(momentum: f64, nesterov: bool, weight_decay: f64, lr: f64) -> Self {
        Self { momentum: scalar(momentum), nesterov, weight_decay: scalar(weight_decay), lr: scalar(lr) }
    }

    fn step(&self, params: &mut [f32], grads: &[f32]) {
        for (p, g) in params.iter_mut().zip(grads) {
            *p -= self.lr * (g + self.weight_decay * *p);
        }
    }

    fn step_with_momentum(&self, params: &mut [f32], grads: &[f32], buffer: &mut [f32]) {
        for ((p, g), buffer) in params.iter_mut().zip(grads).zip(buffer) {
            let gradient = g + self.weight_decay * *p;
            *buffer = self.momentum * *buffer + gradient;
            let direction = if self.nesterov { gradient + self.momentum * *buffer } else { *buffer };
            *p -= self.lr * direction;
        }
    }
}

#[cfg(test)]
#[expect(clippy::unreadable_literal, clippy::cast_possible_truncation, reason = "numbers as the reference prints them")]
mod tests;
