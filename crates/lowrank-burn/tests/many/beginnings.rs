//! Every way in which an adapter begins, on every layer.

use burn::module::Module;
use burn::tensor::Device;
use lowrank::Result;
use lowrank::config::{InitLoraWeights, LoraConfig};
use lowrank_burn::train::Trainable;
use lowrank_burn::{Adapters, load};

use crate::net::{LAYERS, Net, config, distance, ids, scrambled};

/// All but `false`, which promises an effect.
const WAYS: [InitLoraWeights; 10] = [
    InitLoraWeights::True,
    InitLoraWeights::Gaussian,
    InitLoraWeights::Orthogonal,
    InitLoraWeights::Pissa,
    InitLoraWeights::PissaNiter(4),
    InitLoraWeights::Olora,
    InitLoraWeights::Mica,
    InitLoraWeights::LoraGa,
    InitLoraWeights::Eva,
    InitLoraWeights::Corda,
];

/// A rank that every group has, twice where directions are taken in pairs.
fn on(layer: &str, way: &InitLoraWeights) -> LoraConfig {
    let groups = match layer {
        "grouped" => 4,
        "plane" | "back" => 2,
        _ => 1,
    };
    let pairs = if *way == InitLoraWeights::Orthogonal { 2 } else { 1 };
    LoraConfig { r: groups * pairs, init_lora_weights: way.clone(), ..config(&[layer]) }
}

/// The network with the adapter before any training, given what it wants to know.
fn begun(config: &LoraConfig) -> Result<(Net, Adapters)> {
    let (device, mut adapters) = (Device::flex(), Adapters::default());
    let net = match config.init_lora_weights {
        InitLoraWeights::LoraGa => {
            let taught = Net::new(&device.clone().autodiff());
            let trainable = Trainable::of_model(&taught);
            let loss = (taught.forward(ids(6, &device.clone().autodiff())) - 1.0).powi_scalar(2).sum();
            let mut flat = vec![0.0; trainable.len()];
            trainable.add_gradients(&taught, &loss.backward(), 1.0, &mut flat);
            let gradients = trainable.by_parameter(&flat);
            adapters.attach_with_gradients(taught, "a", config, 3, &gradients)?.valid()
        }
        InitLoraWeights::Eva | InitLoraWeights::Corda => {
            let (probe, seen) = lowrank_burn::attach(Net::new(&device), &config.with_plain_start(), 3)?;
            let inputs = seen.observe("default", || {
                let _ = probe.forward(ids(6, &device));
                Ok(())
            })?;
            adapters.attach_with_inputs(Net::new(&device), "a", config, 3, &inputs)?
        }
        _ => adapters.attach(Net::new(&device), "a", config, 3)?,
    };
    Ok((net, adapters))
}

#[test]
fn a_new_adapter_changes_nothing_and_a_trained_one_fits_the_original_base() {
    let device = Device::flex();
    let (x, base) = (ids(3, &device), Net::new(&device).forward(ids(3, &device)));
    for (way, layer) in WAYS.iter().flat_map(|way| LAYERS.iter().chain(&["attn"]).map(move |layer| (way, *layer))) {
        let place = format!("{way:?} on {layer}");
        let observes = matches!(way, InitLoraWeights::Eva | InitLoraWeights::Corda);
        if observes && layer == "back" {
            let error = begun(&on(layer, way)).unwrap_err().to_string();
            assert!(error.contains("transposed convolution are not summed up"), "{error}");
            continue;
        }
        let (net, adapters) = begun(&on(layer, way)).unwrap_or_else(|error| panic!("{place}: {error}"));
        assert!(distance(&net.forward(x.clone()), &base) < 1e-5, "{place}: at the start");
        let net = scrambled(net, &adapters, "a");
        let trained = net.forward(x.clone());
        assert!(distance(&trained, &base) > 1e-4, "{place}: trained");
        let folder = tempfile::tempdir().unwrap();
        adapters.save(&net, "a", folder.path(), None).unwrap();
        let (fresh, _) = load(Net::new(&device), folder.path()).unwrap();
        assert!(distance(&fresh.forward(x.clone()), &trained) < 1e-5, "{place}: read again");
    }
}
