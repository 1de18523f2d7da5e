//! Adapters that PEFT made, on Burn layers: loaded, run, merged, saved again. Every one of `golden/adapters`.

mod chain;

use std::fs;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use chain::{Case, Chain};
use lowrank::adapter::state_dict::StateDict;
use lowrank::config::{LoraConfig, Patterns};
use lowrank::files::{Checkpoint, adapter_dir};
use lowrank_burn::nn::{Linear, LinearConfig, MultiheadAttention};
use lowrank_burn::survey::Survey;
use lowrank_burn::{Adapters, attach, load, values};

/// How far two outputs may be from each other, as a share of the largest value.
fn tolerance(case: &Case) -> f64 {
    // PEFT computes in the type of the base; here activations are in single precision.
    match case.json["dtype"].as_str().unwrap() {
        "float16" => 2e-3,
        "bfloat16" => 2e-2,
        _ => 1e-5,
    }
}

#[track_caller]
fn assert_close(place: &str, found: &[f32], expected: &[f32], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{place}");
    let largest = expected.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
    for (found, expected) in found.iter().zip(expected) {
        assert!(
            f64::from((found - expected).abs()) <= tolerance * f64::from(largest),
            "{place}: {found}, not {expected}"
        );
    }
}

/// The output that a case has to give: PEFT's, or where PEFT forgets dilation or padding mode, that of the merged weights.
fn expected(io: &Checkpoint) -> Vec<f32> {
    let name = if io.get("y_merged").is_some() { "y_merged" } else { "y" };
    io.read(name).unwrap().values().unwrap()
}

/// A case that is left out, or for which one of the four is, fails the counts at the end.
#[test]
fn every_golden_adapter_is_loaded_forwarded_merged_and_saved_as_it_was() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/adapters");
    let cases: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let (mut forwarded, mut saved, mut merged, mut unmergeable) = (0, 0, 0, Vec::new());
    for dir in &cases {
        let case = Case::open(dir);
        let (net, mut adapters) = load(case.chain(&Device::flex()), &case.adapter())
            .unwrap_or_else(|error| panic!("{}: {error} {:?}", case.name(), error.parts()));
        forwards(&case, &net, "live");
        forwarded += 1;
        saves(&case, &net, &adapters);
        saved += 1;
        if case.json["merged_by"].is_null() {
            let error = adapters.merge(net).unwrap_err();
            assert!(error.to_string().contains("group"), "{}: {error}", case.name());
            unmergeable.push(case.name().to_owned());
        } else {
            forwards(&case, &net.clone().materialize(), "as a stock layer sees it");
            let net = adapters.merge(net).unwrap();
            forwards(&case, &net, "merged");
            merges(&case, &adapters.merge_and_unload(net).unwrap());
            merged += 1;
        }
    }
    unmergeable.sort();
    assert_eq!(unmergeable, ["conv1d_depthwise_dense", "conv1d_groups_dense"], "A reaches into other groups");
    assert!(cases.len() >= 66, "{}", cases.len());
    assert_eq!([forwarded, saved, merged + unmergeable.len()], [cases.len(); 3]);
}

fn forwards(case: &Case, net: &Chain, how: &str) {
    let (_, y) = net.forward(case.input(&Device::flex())).into_parts();
    assert_close(&format!("{}, {how}", case.name()), &y, &expected(&case.io()), tolerance(case));
}

/// The merged weights are the recorded ones.
fn merges(case: &Case, plain: &Chain) {
    let io = case.io();
    let recorded = io.names().filter_map(|name| name.strip_prefix("merged.")).map(str::to_owned);
    let mut recorded: Vec<String> = recorded.filter(|name| !name.ends_with("num_batches_tracked")).collect();
    let mut found = Vec::new();
    for (name, shape, values) in plain.state() {
        let stored = io.read(&format!("merged.{name}")).unwrap();
        assert_eq!(stored.shape(), shape, "{}: {name}", case.name());
        // In half precision PEFT may round the update before it adds it.
        let tolerance = stored.float().map_or(0.0, |float| (2.0 * float.epsilon()).max(1e-6));
        assert_close(&format!("{}: {name}", case.name()), &values, &stored.values().unwrap(), tolerance);
        found.push(name);
    }
    found.sort();
    recorded.sort();
    assert_eq!(found, recorded, "{}", case.name());
}

/// Names, shapes and values: zeros outside the groups lose their sign. Counters are integers.
fn tensors(state: &StateDict) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let numbers = state.to_tensors().into_iter().map(|(name, tensor)| {
        let bytes = || tensor.data().iter().map(|byte| f32::from(*byte)).collect();
        (name, tensor.shape().to_vec(), tensor.values().unwrap_or_else(bytes))
    });
    numbers.collect()
}

/// What is saved has the tensors and the configuration that were read.
fn saves(case: &Case, net: &Chain, adapters: &Adapters) {
    let again = tempfile::tempdir().unwrap();
    adapters.save(net, "default", again.path(), None).unwrap();
    let [ours, theirs] = [again.path(), &case.adapter()].map(|dir| adapter_dir::read(dir).unwrap());
    assert_eq!(tensors(&ours.state), tensors(&theirs.state), "{}", case.name());
    assert_eq!(ours.config.to_json(), theirs.config.to_json(), "{}", case.name());
}

#[derive(Module, Debug)]
struct WithAttention {
    attn: MultiheadAttention,
    head: Linear,
}

/// The model of `golden/attention`.
fn with_attention(device: &Device) -> WithAttention {
    let base = Checkpoint::open(&attention("base.safetensors")).unwrap();
    let net = WithAttention {
        attn: MultiheadAttention::new(8, 2, true, device),
        head: Linear::new(&LinearConfig::new(8, 3), device),
    };
    let survey = Survey::of(&net).unwrap();
    let values = survey.params().map(|(site, param)| {
        let own = base.read(&site.key(param)).unwrap().values().unwrap();
        let &[rows, columns] = param.shape.as_slice() else { return (param.id, own) };
        assert!(param.transposed);
        (param.id, (0..own.len()).map(|at| own[at % columns * rows + at / columns]).collect())
    });
    values::write(net, values.collect())
}

fn attention(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/attention").join(file)
}

/// What it makes of the recorded inputs, beside what PyTorch does with the merged weights.
fn attends(net: &WithAttention, how: &str) {
    let io = Checkpoint::open(&attention("outputs.safetensors")).unwrap();
    let read = |name: &str| {
        let tensor = io.read(name).unwrap();
        let shape: [usize; 3] = tensor.shape().try_into().unwrap();
        Tensor::<3>::from_data(TensorData::new(tensor.values().unwrap(), shape), &Device::flex())
    };
    let [query, key, value] = ["query", "key", "value"].map(read);
    let outputs = [net.attn.self_attention(query.clone(), false), net.attn.forward(query, key, value)];
    for (name, output) in ["self", "cross"].into_iter().zip(outputs) {
        let expected = io.read(name).unwrap().values().unwrap();
        assert_close(&format!("{name}, {how}"), &values::of(output), &expected, 1e-5);
    }
}

fn targets(adapters: &Adapters) -> Vec<String> {
    adapters.targets("default").unwrap().iter().map(|target| target.path.clone()).collect()
}

#[test]
fn an_adapter_on_an_attention_changes_both_projections_once() {
    let (net, mut adapters) = load(with_attention(&Device::flex()), &attention("adapter")).unwrap();
    assert_eq!(targets(&adapters), ["attn", "attn.out_proj"]);
    attends(&net, "live");
    let again = tempfile::tempdir().unwrap();
    adapters.save(&net, "default", again.path(), None).unwrap();
    let written = |dir: &Path| fs::read(dir.join("adapter_model.safetensors")).unwrap();
    assert!(written(again.path()) == written(&attention("adapter")));
    let net = adapters.merge(net).unwrap();
    attends(&net, "merged");
    let net = adapters.unmerge(net);
    attends(&net, "unmerged");
    let state = values::of(adapters.merge_and_unload(net).unwrap().attn.in_proj_weight.base());
    let merged = Checkpoint::open(&attention("merged.safetensors")).unwrap();
    let expected = merged.read("attn.in_proj_weight").unwrap().values().unwrap();
    let expected: Vec<_> = (0..expected.len()).map(|at| expected[at % 24 * 8 + at / 24]).collect();
    assert_close("in_proj_weight", &state, &expected, 1e-6);
}

#[test]
fn an_attention_is_named_with_its_output_projection() {
    let of = |patterns: Patterns| {
        let config = LoraConfig { target_modules: Some(patterns), ..LoraConfig::default() };
        let (net, adapters) = attach(with_attention(&Device::flex()), &config, 1).unwrap();
        (targets(&adapters), adapters.state(&net, "default").unwrap().0.target_modules.unwrap())
    };
    let list = |names: &[&str]| Patterns::List(names.iter().map(|name| (*name).to_owned()).collect());
    let both = vec!["attn".to_owned(), "attn.out_proj".to_owned()];
    assert_eq!(of(list(&["attn"])), (both.clone(), list(&["attn"])));
    assert_eq!(of(list(&["out_proj"])).0, ["attn.out_proj"]);
    let all = of(Patterns::Regex("all-layers".into()));
    assert_eq!(all, ([both, vec!["head".to_owned()]].concat(), list(&["attn", "head"])));
    assert_eq!(of(Patterns::Regex("all-linear".into())).0, ["attn.out_proj", "head"], "as in PEFT");
    let dora = LoraConfig { use_dora: true, target_modules: Some(list(&["attn"])), ..LoraConfig::default() };
    let error = attach(with_attention(&Device::flex()), &dora, 1).unwrap_err().to_string();
    assert!(error.contains("attn") && error.contains("use_dora"), "{error}");
}
