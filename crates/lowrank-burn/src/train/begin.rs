//! The adapter of a run before its first step, with what its initialisation wants to know of the training data.

use burn::module::Module as _;
use lowrank::Result;
use lowrank::config::{InitLoraWeights, LoraConfig};
use lowrank::random::Random;

use super::flat::Trainable;
use super::run::Run;
use crate::attach::{Adapters, DEFAULT, Inputs};
use crate::models::Network;
use crate::tasks::Examples;
use crate::values;

/// Batches of the first epoch that an initialisation looks at, at most.
const BATCHES: usize = 32;

/// The network with a new adapter.
pub(super) fn attach(
    network: Network,
    lora: &LoraConfig,
    train: &dyn Examples,
    run: &Run,
) -> Result<(Network, Adapters)> {
    let (mut adapters, seed) = (Adapters::default(), run.seed);
    let network = match &lora.init_lora_weights {
        InitLoraWeights::LoraGa => {
            let gradients = gradients(&network, train, run)?;
            adapters.attach_with_gradients(network, DEFAULT, lora, seed, &gradients)?
        }
        InitLoraWeights::Eva | InitLoraWeights::Corda => {
            let (lora, inputs) = inputs(&network, lora, train, run)?;
            adapters.attach_with_inputs(network, DEFAULT, &lora, seed, &inputs)?
        }
        _ => adapters.attach(network, DEFAULT, lora, seed)?,
    };
    Ok((network, adapters))
}

/// The mean gradient of the loss with respect to every weight.
fn gradients(network: &Network, train: &dyn Examples, run: &Run) -> Result<values::Values> {
    network.device().seed(Random::new(run.seed, "lora_ga", 0).bits());
    let network = values::single(network.clone());
    let trainable = Trainable::of_model(&network);
    let batches = batches(train, run);
    #[expect(clippy::cast_precision_loss, reason = "a few batches")]
    let weight = 1.0 / batches.len() as f32;
    let mut flat = vec![0.0; trainable.len()];
    for batch in batches {
        let loss = train.loss(&network, &batch)?;
        trainable.add_gradients(&network, &loss.backward(), weight, &mut flat);
    }
    Ok(trainable.by_parameter(&flat))
}

/// What the modules of the adapter read, and its configuration with the ranks that follow from that.
fn inputs(network: &Network, lora: &LoraConfig, train: &dyn Examples, run: &Run) -> Result<(LoraConfig, Inputs)> {
    // Any start will do to find the modules.
    let plain = lora.with_plain_start();
    let (probe, adapters) = crate::attach(network.clone(), &plain, run.seed)?;
    let probe = probe.valid();
    let inputs = adapters
        .observe(DEFAULT, || batches(train, run).iter().try_for_each(|batch| train.loss(&probe, batch).map(drop)))?;
    if lora.init_lora_weights != InitLoraWeights::Eva {
        return Ok((lora.clone(), inputs));
    }
    let shared = adapters.redistributed(DEFAULT, &inputs, &lora.eva()?)?;
    let (init_lora_weights, eva_config) = (lora.init_lora_weights.clone(), lora.eva_config.clone());
    Ok((LoraConfig { init_lora_weights, eva_config, ..shared }, inputs))
}

fn batches(train: &dyn Examples, run: &Run) -> Vec<Vec<usize>> {
    let order = train.order(run.seed, 0);
    order.chunks(run.config.batch_size).take(BATCHES).map(<[usize]>::to_vec).collect()
}
