//! Adapters that PEFT made, on Burn layers: loaded, run, saved again.

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::nn::PaddingConfig1d;
use burn::nn::conv::{Conv3d, Conv3dConfig};
use burn::tensor::{Device, Int, Tensor, TensorData};
use lowrank::adapter::state_dict::StateDict;
use lowrank::files::{Checkpoint, adapter_dir};
use lowrank_burn::nn::{Conv1d, Conv1dConfig, Conv2d, Conv2dConfig, Embedding, EmbeddingConfig, Linear, LinearConfig};
use lowrank_burn::survey::Survey;
use lowrank_burn::{Adapters, load, values};

/// The layers of the cases, under their names.
#[derive(Module, Debug)]
struct Net {
    conv: Option<Conv>,
    fc: Option<Linear>,
    emb: Option<Embedding>,
    head: Option<Linear>,
}

#[derive(Module, Debug)]
enum Conv {
    One(Conv1d),
    Two(Conv2d),
    Three(Conv3d),
}

fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/adapters").join(case)
}

/// The net of a case with the base's weights.
fn net(case: &str, device: &Device) -> Net {
    let one = |config: Conv1dConfig| {
        Some(Conv::One(Conv1d::new(&config.with_padding(PaddingConfig1d::Explicit(1, 1)), device)))
    };
    let linear = |inputs, outputs| Some(Linear::new(&LinearConfig::new(inputs, outputs), device));
    let none = Net { conv: None, fc: None, emb: None, head: None };
    let net = match case {
        "dora_linear" => Net { fc: linear(8, 6), ..none },
        "dora_embedding" => Net { emb: Some(Embedding::new(&EmbeddingConfig::new(12, 6), device)), ..none },
        "dora_conv1d" => Net { conv: one(Conv1dConfig::new(4, 6, 3)), ..none },
        "dora_conv1d_groups_block" => Net { conv: one(Conv1dConfig::new(8, 6, 3).with_groups(2)), ..none },
        "dora_conv2d" => Net { conv: Some(Conv::Two(Conv2d::new(&Conv2dConfig::new([3, 4], [3, 3]), device))), ..none },
        "dora_conv3d" => Net { conv: Some(Conv::Three(Conv3dConfig::new([2, 3], [2, 1, 3]).init(device))), ..none },
        "dora_chain" => Net { conv: one(Conv1dConfig::new(4, 6, 3).with_stride(2)), head: linear(5, 3), ..none },
        other => panic!("{other}"),
    };
    let base = Checkpoint::open(&golden(case).join("base.safetensors")).unwrap();
    let survey = Survey::of(&net).unwrap();
    let own = survey.params().map(|(site, param)| {
        let stored = base.read(&site.key(param)).unwrap();
        let values = stored.values().unwrap();
        let values = match (param.transposed, stored.shape()) {
            (true, &[rows, columns]) => (0..values.len()).map(|at| values[at % rows * columns + at / rows]).collect(),
            _ => values,
        };
        (param.id, values)
    });
    let own = own.collect();
    values::write(net, own)
}

fn tensor<const D: usize>(io: &Checkpoint, name: &str, device: &Device) -> Tensor<D> {
    let stored = io.read(name).unwrap();
    Tensor::from_data(TensorData::new(stored.values().unwrap(), stored.shape().to_vec()), device)
}

/// The output of the chain, flattened.
fn forward(net: &Net, io: &Checkpoint, device: &Device) -> Vec<f32> {
    if let Some(emb) = &net.emb {
        let ids = io.read("x").unwrap();
        let values: Vec<i64> = ids.data().as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect();
        let ids = Tensor::<2, Int>::from_data(TensorData::new(values, ids.shape().to_vec()), device);
        return values::of(emb.forward(ids));
    }
    if let Some(fc) = &net.fc {
        return values::of(fc.forward(tensor::<2>(io, "x", device)));
    }
    match net.conv.as_ref().unwrap() {
        Conv::One(conv) => {
            let y = conv.forward(tensor(io, "x", device));
            values::of(net.head.as_ref().map_or(y.clone(), |head| head.forward(y)))
        }
        Conv::Two(conv) => values::of(conv.forward(tensor(io, "x", device))),
        Conv::Three(conv) => values::of(conv.forward(tensor(io, "x", device))),
    }
}

/// Names, shapes and values: zeros outside the groups lose their sign.
fn tensors(state: &StateDict) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let tensors = state.to_tensors().into_iter();
    tensors.map(|(name, tensor)| (name, tensor.shape().to_vec(), tensor.values().unwrap())).collect()
}

#[test]
fn adapters_with_dora_give_pefts_outputs_merged_or_not_and_are_saved_as_they_were() {
    let device = Device::flex();
    for case in [
        "dora_linear",
        "dora_embedding",
        "dora_conv1d",
        "dora_conv1d_groups_block",
        "dora_conv2d",
        "dora_conv3d",
        "dora_chain",
    ] {
        let dir = golden(case);
        let io = Checkpoint::open(&dir.join("io.safetensors")).unwrap();
        let expected = io.read("y").unwrap().values().unwrap();
        let close = |net: &Net, what: &str| {
            let found = forward(net, &io, &device);
            assert_eq!(found.len(), expected.len(), "{case}");
            let largest = expected.iter().fold(1.0_f32, |most, value| most.max(value.abs()));
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found - expected).abs() <= 1e-5 * largest, "{case}, {what}: {found}, not {expected}");
            }
        };
        let (net, mut adapters): (Net, Adapters) = load(net(case, &device), &dir.join("adapter")).unwrap();
        close(&net, "beside the base");
        close(&net.clone().materialize(), "as a stock layer sees it");
        let again = tempfile::tempdir().unwrap();
        adapters.save(&net, "default", again.path(), None).unwrap();
        let [ours, theirs] = [again.path(), &dir.join("adapter")].map(|dir| adapter_dir::read(dir).unwrap());
        assert_eq!(tensors(&ours.state), tensors(&theirs.state), "{case}");
        assert_eq!(ours.config.to_json(), theirs.config.to_json(), "{case}");
        let net = adapters.merge(net).unwrap();
        close(&net, "merged");
    }
}
