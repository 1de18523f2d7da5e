//! One small network with a layer of every kind, and configurations for it.

use burn::module::Module;
use burn::nn::conv::{Conv3d, Conv3dConfig};
use burn::tensor::{Device, Int, Tensor, TensorData};
use lowrank::config::{InitLoraWeights, LoraConfig, Patterns};
use lowrank::random::Random;
use lowrank_burn::nn::{Conv1d, Conv1dConfig, Conv2d, Conv2dConfig, Embedding, EmbeddingConfig, Linear, LinearConfig};
use lowrank_burn::survey::Survey;
use lowrank_burn::{Adapters, values};

/// Every layer that can have an adapter.
pub const KINDS: [&str; 5] = ["emb", "conv1", "conv2", "conv3", "head"];

#[derive(Module, Debug)]
pub struct Net {
    pub emb: Embedding,
    pub conv1: Conv1d,
    pub conv2: Conv2d,
    pub conv3: Conv3d,
    pub head: Linear,
}

impl Net {
    /// Always the same.
    pub fn new(device: &Device) -> Self {
        let net = Self {
            emb: Embedding::new(&EmbeddingConfig::new(12, 8), device),
            conv1: Conv1d::new(&Conv1dConfig::new(6, 4, 3).with_groups(2), device),
            conv2: Conv2d::new(&Conv2dConfig::new([2, 3], [2, 2]), device),
            conv3: Conv3dConfig::new([2, 4], [1, 2, 2]).with_bias(false).init(device),
            head: Linear::new(&LinearConfig::new(16, 3), device),
        };
        let mut random = Random::new(1, "peft", 0);
        let survey = Survey::of(&net).unwrap();
        let own =
            survey.params().map(|(_, param)| (param.id, (0..param.len()).map(|_| random.normal() * 0.5).collect()));
        let own = own.collect();
        values::write(net, own)
    }

    pub fn forward(&self, device: &Device) -> Vec<f32> {
        values::of(self.output(device))
    }

    pub fn output(&self, device: &Device) -> Tensor<2> {
        let ids: Vec<i64> = (0..12).map(|at| at * 5 % 12).collect();
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [2, 6]), device);
        let x = self.conv1.forward(self.emb.forward(ids));
        let x = self.conv2.forward(x.reshape([2, 2, 3, 4])).tanh();
        let x = self.conv3.forward(x.reshape([2, 2, 1, 3, 3]));
        self.head.forward(x.reshape([2, 16]))
    }

    /// The bits of every parameter of the base.
    pub fn base_bits(&self) -> Vec<Vec<u32>> {
        let survey = Survey::of(self).unwrap();
        let ids: Vec<_> = survey.params().map(|(_, param)| param.id).collect();
        let own = values::read(self, &ids);
        ids.iter().map(|id| own[id].iter().map(|value| value.to_bits()).collect()).collect()
    }
}

/// Factors that have an effect.
pub fn config(targets: &[&str]) -> LoraConfig {
    LoraConfig {
        r: 4,
        lora_alpha: 8.0,
        target_modules: Some(Patterns::List(targets.iter().map(|target| (*target).to_owned()).collect())),
        init_lora_weights: InitLoraWeights::False,
        ..LoraConfig::default()
    }
}

/// The network with an adapter of that name beside those it has.
pub fn with(net: Net, adapters: &mut Adapters, name: &str, config: &LoraConfig, seed: u64) -> Net {
    adapters.attach(net, name, config, seed).unwrap_or_else(|error| panic!("{error}: {:?}", error.parts()))
}

/// The largest difference, as a share of the largest value.
pub fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let largest = a.iter().chain(b).fold(f32::MIN_POSITIVE, |most, value| most.max(value.abs()));
    a.iter().zip(b).fold(0.0_f32, |most, (a, b)| most.max((a - b).abs())) / largest
}
