//! Runs cases of `interop/`: each with its adapters on a Burn model, live, merged and saved again.
//!
//! ```text
//! live FOLDER...   # each with a case.json; what came out is put into FOLDER/ours
//! ```
//!
//! A case is one of the golden folders (`golden/README.md`), or its `case.json` has beside: `adapters`, the names and folders
//! of those that are active together; or `lora` and `seed`, the settings of an adapter that is not read but made here.

#[path = "../tests/chain/mod.rs"]
mod chain;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::Device;
use chain::{Case, Chain};
use lowrank::config::LoraConfig;
use lowrank::random::Random;
use lowrank::{Error, Result};
use lowrank_burn::attach::DEFAULT;
use lowrank_burn::{Adapters, load, values};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;

fn main() {
    for folder in std::env::args_os().skip(1) {
        let case = Case::open(Path::new(&folder));
        let out = case.dir.join("ours");
        fs::create_dir_all(&out).unwrap();
        let mut outcome = Outcome::default();
        let error = run(&case, &out, &mut outcome).err();
        let said = json!({
            "error": error.map(|error| said(&error)),
            "merge_error": outcome.merge_error.as_ref().map(said),
            "restored": outcome.restored,
        });
        fs::write(out.join("outcome.json"), said.to_string()).unwrap();
        outcome.save(&out.join("outcome.safetensors"));
    }
}

/// An error with its parts and hints.
fn said(error: &Error) -> String {
    let parts: Vec<String> =
        error.parts().iter().map(|part| format!("{part} (hint: {})", part.hint().unwrap_or("none"))).collect();
    format!("{error}: {}", parts.join("; "))
}

/// Named tensors, and what was refused.
#[derive(Default)]
struct Outcome {
    tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    merge_error: Option<Error>,
    /// Whether unmerging gave the bits of the base again.
    restored: Option<bool>,
}

impl Outcome {
    fn save(&self, path: &Path) {
        let bytes: Vec<(&String, &Vec<usize>, Vec<u8>)> = self
            .tensors
            .iter()
            .map(|(name, (shape, values))| (name, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect()))
            .collect();
        let views = bytes
            .iter()
            .map(|(name, shape, bytes)| (*name, TensorView::new(Dtype::F32, (*shape).clone(), bytes).unwrap()));
        safetensors::serialize_to_file(views, None, path).unwrap();
    }
}

fn run(case: &Case, out: &Path, outcome: &mut Outcome) -> Result<()> {
    let device = Device::flex();
    let x = case.input(&device);
    let base = case.chain(&device);
    let outputs = &mut outcome.tensors;
    let mut put = |name: &str, net: &Chain| {
        outputs.insert(name.to_owned(), net.forward(x.clone()).into_parts());
    };
    let mut adapters = Adapters::default();
    let mut net = base.clone();
    let mut names = Vec::new();
    if let Some(settings) = case.json["lora"].as_object() {
        let seed = case.json["seed"].as_u64().unwrap();
        net = adapters.attach(net, DEFAULT, &LoraConfig::from_table(settings, case.name())?, seed)?;
        put("y.start", &net);
        net = trained(net, &adapters, seed)?;
        names.push(DEFAULT.to_owned());
    } else {
        for (name, dir) in listed(case) {
            net = adapters.load(net, &name, &dir)?;
            names.push(name);
        }
    }
    adapters.set_active(&names.iter().map(String::as_str).collect::<Vec<_>>())?;

    put("y", &net);
    adapters.disabled(|| put("y.off", &net));
    for name in &names {
        adapters.save(&net, name, &out.join(name), None)?;
    }
    if let [name] = &names[..] {
        let (again, _) = load(base.clone(), &out.join(name))?;
        put("y.again", &again);
    }
    match adapters.merge(net) {
        Ok(merged) => {
            put("y.merged", &merged);
            let restored = adapters.unmerge(merged);
            outcome.restored = Some(restored.state() == base.state());
            put("y.unmerged", &restored);
            put("y.folded", &restored.clone().materialize());
            let plain = adapters.merge_and_unload(restored)?;
            let state = plain.state().into_iter();
            outcome.tensors.extend(state.map(|(name, shape, values)| (format!("merged.{name}"), (shape, values))));
        }
        Err(error) => outcome.merge_error = Some(error),
    }
    Ok(())
}

/// The adapters of a case, each with its folder.
fn listed(case: &Case) -> Vec<(String, PathBuf)> {
    match case.json["adapters"].as_object() {
        Some(several) => {
            several.iter().map(|(name, dir)| (name.clone(), case.dir.join(dir.as_str().unwrap()))).collect()
        }
        None => vec![(case.json["adapter_name"].as_str().unwrap().to_owned(), case.adapter())],
    }
}

/// The model with an adapter that has the look of a trained one: everything that trains has moved.
fn trained(net: Chain, adapters: &Adapters, seed: u64) -> Result<Chain> {
    let tensors = adapters.trainable_tensors(DEFAULT)?;
    let ids: Vec<_> = tensors.iter().map(|tensor| tensor.id).collect();
    let mut own = values::read(&net, &ids);
    let moved = tensors.iter().map(|tensor| {
        let mut random = Random::new(seed, &tensor.name, 0);
        let magnitude = tensor.name.ends_with("lora_magnitude_vector");
        let values = own
            .remove(&tensor.id)
            .unwrap_or_default()
            .into_iter()
            .map(|value| if magnitude { value * random.uniform(0.8, 1.2) } else { value + 0.3 * random.normal() });
        (tensor.id, values.collect())
    });
    let moved = moved.collect();
    Ok(values::write(net, moved))
}
