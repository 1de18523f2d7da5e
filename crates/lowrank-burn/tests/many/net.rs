//! A network of every drop-in layer, random adapters for it, and what it computes.

use burn::module::{Module, ModuleVisitor, Param};
use burn::nn::{PaddingConfig1d, PaddingConfig2d, PaddingConfig3d};
use burn::tensor::{Device, Int, Tensor, TensorData};
use lowrank::adapter::{DoraNorm, GroupMode};
use lowrank::config::{Bias, InitLoraWeights, LoraConfig, Patterns};
use lowrank::random::Random;
use lowrank_burn::nn::{
    Conv1d, Conv1dConfig, Conv2d, Conv2dConfig, Conv3d, Conv3dConfig, ConvTranspose1d, ConvTranspose1dConfig,
    Embedding, EmbeddingConfig, HfConv1D, Linear, LinearConfig, MultiheadAttention,
};
use lowrank_burn::{Adapters, values};
use proptest::prelude::*;

/// Positions of a sample.
pub const LENGTH: usize = 12;

#[derive(Module, Debug)]
pub struct Net {
    pub embed: Embedding,
    pub conv: Conv1d,
    pub grouped: Conv1d,
    pub back: ConvTranspose1d,
    pub plane: Conv2d,
    pub volume: Conv3d,
    pub project: HfConv1D,
    pub attn: MultiheadAttention,
    pub head: Linear,
}

impl Net {
    /// Always the same: Burn's own generator is shared by all tests.
    pub fn new(device: &Device) -> Self {
        let same = PaddingConfig1d::Same;
        let net = Self {
            embed: Embedding::new(&EmbeddingConfig::new(7, 4), device),
            conv: Conv1d::new(&Conv1dConfig::new(4, 8, 3).with_dilation(2).with_padding(same.clone()), device),
            grouped: Conv1d::new(&Conv1dConfig::new(8, 8, 3).with_groups(4).with_padding(same), device),
            back: ConvTranspose1d::new(
                &ConvTranspose1dConfig::new([8, 8], 3).with_groups(2).with_dilation(2).with_padding(2),
                device,
            ),
            plane: Conv2d::new(
                &Conv2dConfig::new([2, 4], [3, 3]).with_groups(2).with_padding(PaddingConfig2d::Same),
                device,
            ),
            volume: Conv3d::new(&Conv3dConfig::new([4, 4], [3, 1, 3]).with_padding(PaddingConfig3d::Same), device),
            project: HfConv1D::new(4, 4, device),
            attn: MultiheadAttention::new(4, 2, true, device),
            head: Linear::new(&LinearConfig::new(4, 3), device),
        };
        let (mut params, mut random) = (Params::default(), Random::new(3, "net", 0));
        net.visit(&mut params);
        let drawn = params.0.into_iter().map(|(id, n)| (id, (0..n).map(|_| random.uniform(-0.6, 0.6)).collect()));
        values::write(net, drawn.collect())
    }

    /// `[batch, LENGTH]` to `[batch, 3]`.
    pub fn forward(&self, ids: Tensor<2, Int>) -> Tensor<2> {
        let [batch, length] = ids.dims();
        let x = self.embed.forward(ids).swap_dims(1, 2);
        let x = self.grouped.forward(self.conv.forward(x).tanh()).tanh();
        let x = self.back.forward(x).tanh();
        let x = self.plane.forward(x.reshape([batch, 2, 4, length])).tanh();
        let x = self.volume.forward(x.reshape([batch, 4, 2, 2, length])).tanh();
        let x = x.reshape([batch, 4, 4 * length]).swap_dims(1, 2);
        let x = self.attn.self_attention(self.project.forward(x).tanh(), false);
        self.head.forward(x).mean_dim(1).squeeze_dim(1)
    }

    /// The bits of everything in the base.
    pub fn bits(&self) -> Vec<u32> {
        let biases = [&self.conv.bias, &self.grouped.bias, &self.back.bias, &self.plane.bias, &self.volume.bias];
        let biases = biases.into_iter().chain([&self.head.bias]).map(|bias| bias.as_ref().unwrap());
        let mut all = vec![values::of(self.embed.weight.base()), values::of(self.conv.weight.base())];
        all.extend([values::of(self.grouped.weight.base()), values::of(self.back.weight.base())]);
        all.extend([values::of(self.plane.weight.base()), values::of(self.volume.weight.base())]);
        all.extend([values::of(self.project.weight.base()), values::of(self.head.weight.base())]);
        let attn = &self.attn;
        all.extend([values::of(attn.in_proj_weight.base()), values::of(attn.out_proj.weight.base())]);
        let biases = biases.chain([attn.in_proj_bias.as_ref().unwrap(), attn.out_proj.bias.as_ref().unwrap()]);
        all.extend(biases.chain([&self.project.bias]).map(|bias| values::of(bias.base())));
        all.concat().into_iter().map(f32::to_bits).collect()
    }
}

#[derive(Default)]
struct Params(Vec<(burn::module::ParamId, usize)>);

impl ModuleVisitor for Params {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.push((param.id, param.dims().iter().product()));
    }
}

/// Different for every sample.
pub fn ids(batch: usize, device: &Device) -> Tensor<2, Int> {
    let mut random = Random::new(4, "ids", 0);
    let drawn: Vec<i64> = (0..batch * LENGTH).map(|_| i64::try_from(random.below(7)).unwrap()).collect();
    Tensor::from_data(TensorData::new(drawn, [batch, LENGTH]), device)
}

/// With an effect from the start.
pub fn config(targets: &[&str]) -> LoraConfig {
    LoraConfig {
        r: 4,
        lora_alpha: 4.0,
        target_modules: Some(Patterns::List(targets.iter().map(|target| (*target).to_owned()).collect())),
        init_lora_weights: InitLoraWeights::False,
        ..LoraConfig::default()
    }
}

/// The layers that take any adapter; `attn` takes no `DoRA` and no `lora_bias`.
pub const LAYERS: [&str; 8] = ["embed", "conv", "grouped", "back", "plane", "volume", "project", "head"];

prop_compose! {
    /// Any adapter: some of the layers, of any form, with what PEFT trains beside them.
    pub fn any_config()(
        chosen in prop::collection::vec(any::<bool>(), LAYERS.len()),
        mode in prop_oneof![Just(GroupMode::PerGroup), Just(GroupMode::Shared), Just(GroupMode::Dense)],
        norm in prop_oneof![Just(DoraNorm::Exact), Just(DoraNorm::Peft)],
        (use_dora, lora_bias, saves, pissa) in (any::<bool>(), any::<bool>(), any::<bool>(), prop::bool::weighted(0.2)),
        (attends, use_rslora, patterns) in (any::<bool>(), any::<bool>(), any::<bool>()),
        bias in prop_oneof![3 => Just(Bias::None), 1 => Just(Bias::All), 1 => Just(Bias::LoraOnly)],
    ) -> LoraConfig {
        let mut targets: Vec<_> = LAYERS.into_iter().zip(chosen).filter(|(_, chosen)| *chosen).collect();
        let saves = saves && !targets.contains(&("head", true));
        if targets.is_empty() {
            targets.push(("conv", true));
        }
        let pissa = pissa && targets.contains(&("conv", true));
        if pissa {
            // It takes no more ranks than a weight has, which the others do not have.
            targets = vec![("conv", true)];
        }
        let lora_bias = lora_bias && !use_dora && !targets.contains(&("embed", true));
        if attends && !use_dora && !lora_bias && !pissa {
            targets.push(("attn", true));
        }
        let has = |layer| patterns && targets.contains(&(layer, true));
        let rank_pattern = if has("grouped") { vec![("grouped".into(), 8)] } else { Vec::new() };
        let alphas = [("attn", 3.0), ("back", 2.0)].into_iter().filter(|(layer, _)| has(layer));
        LoraConfig {
            use_dora,
            dora_norm: norm,
            use_rslora,
            rank_pattern,
            alpha_pattern: alphas.map(|(layer, alpha)| (layer.into(), alpha)).collect(),
            lora_bias,
            bias,
            group_mode: mode,
            modules_to_save: saves.then(|| vec!["head".into()]),
            init_lora_weights: if pissa && !lora_bias { InitLoraWeights::Pissa } else { InitLoraWeights::False },
            ..config(&targets.into_iter().map(|(name, _)| name).collect::<Vec<_>>())
        }
    }
}

pub const NAMES: [&str; 3] = ["a", "b", "c"];

/// The network with adapters `a`, `b` and `c`, none of which leaves a value that it trains as it began.
pub fn adapted(configs: &[LoraConfig], device: &Device) -> (Net, Adapters) {
    let (mut net, mut adapters) = (Net::new(device), Adapters::default());
    for (seed, (name, config)) in (0..).zip(NAMES.iter().zip(configs)) {
        net = adapters.attach(net, name, config, seed).unwrap();
        net = scrambled(net, &adapters, name);
    }
    (net, adapters)
}

/// The network with other values in everything that an adapter trains.
pub fn scrambled(net: Net, adapters: &Adapters, name: &str) -> Net {
    let tensors = adapters.trainable_tensors(name).unwrap();
    let mut random = Random::new(1, name, 0);
    let mut own = values::read(&net, &tensors.iter().map(|tensor| tensor.id).collect::<Vec<_>>());
    for tensor in &tensors {
        own.get_mut(&tensor.id).unwrap().iter_mut().for_each(|value| *value += random.uniform(-0.2, 0.2));
    }
    values::write(net, own)
}

/// The largest difference, over the largest magnitude where that is above 1.
pub fn distance(found: &Tensor<2>, expected: &Tensor<2>) -> f32 {
    let scale: f32 = expected.clone().abs().max().into_scalar();
    let most: f32 = (found.clone() - expected.clone()).abs().max().into_scalar();
    assert!(most.is_finite());
    most / scale.max(1.0)
}
