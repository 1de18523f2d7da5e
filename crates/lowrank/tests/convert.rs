//! Adapters from and to LyCORIS's and kohya's form: what LyCORIS wrote and merged, and what PEFT did.

mod fixture;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use lowrank::adapter::state_dict::{ModuleTensors, StateDict};
use lowrank::adapter::tensor::{Dtype, Tensor};
use lowrank::adapter::{DoraNorm, Factors, GroupMode, Layer, LayerKind};
use lowrank::config::{LoraConfig, Patterns};
use lowrank::files::convert::{Converted, ToLycoris, ToPeft, convert_to_lycoris, convert_to_peft};
use lowrank::files::{Checkpoint, adapter_dir, check_adapter, merge_checkpoint};
use lowrank::float::FloatType;
use lowrank::{Error, Result};

type Model = BTreeMap<String, Tensor>;

fn golden(folder: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden").join(folder);
    let mut cases: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    cases
}

fn read(path: &Path) -> Model {
    let file = Checkpoint::open(path).unwrap();
    file.names().map(|name| (name.to_owned(), file.read(name).unwrap())).collect()
}

fn merged(base: &Path, adapter: &Path) -> Model {
    let dir = fixture::folder();
    let output = dir.path().join("merged.safetensors");
    merge_checkpoint(base, adapter, &output, false, &mut |_| {}).unwrap_or_else(|error| panic!("{}", text(&error)));
    read(&output)
}

fn text(error: &Error) -> String {
    let parts = if error.parts().is_empty() { std::slice::from_ref(error) } else { error.parts() };
    parts.iter().fold(String::new(), |mut text, part| {
        let _ = writeln!(text, "{part}\n  hint: {}", part.hint().unwrap_or("none"));
        text
    })
}

fn to_peft(input: &Path, base: Option<&Path>, output: &Path) -> Result<Converted> {
    convert_to_peft(input, &ToPeft { base, ..ToPeft::default() }, output, true)
}

fn assert_near(found: &Model, expected: &Model, tolerance: f32, what: &str) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{what}");
    for (name, expected) in expected {
        let (found, expected) = (found[name].values().unwrap(), expected.values().unwrap());
        let largest = expected.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() <= tolerance * largest, "{what}: {name}: {found} {expected}");
        }
    }
}

#[test]
fn what_lycoris_wrote_merges_to_the_weights_it_merged() {
    let cases = golden("lycoris");
    assert!(cases.len() >= 9);
    for case in cases {
        let [base, file, expected] = ["base", "lycoris", "merged"].map(|name| case.join(format!("{name}.safetensors")));
        let dir = fixture::folder();
        let what = case.display().to_string();
        let adapter = dir.path().join("adapter");
        let converted =
            to_peft(&file, Some(&base), &adapter).unwrap_or_else(|error| panic!("{what}: {}", text(&error)));
        assert_eq!(converted.modules.len(), read(&base).keys().filter(|name| name.ends_with(".weight")).count());
        assert_eq!(converted.left_out, [""; 0]);
        assert!(check_adapter(&base, &adapter).unwrap().problems.is_empty(), "{what}");
        assert_near(&merged(&base, &adapter), &read(&expected), 1e-5, &what);
        // And back: the same tensors, but for a folded Tucker decomposition, and half precision's alpha.
        let again = dir.path().join("again.safetensors");
        let prefix = read(&file).into_keys().next().unwrap();
        let prefix = ["lycoris", "lora_unet", "lora_te1"].into_iter().find(|known| prefix.starts_with(known)).unwrap();
        convert_to_lycoris(&adapter, &ToLycoris { prefix: prefix.into(), ..ToLycoris::default() }, &again, false)
            .unwrap();
        let metadata = Checkpoint::open(&again).unwrap().shards()[0].metadata().clone();
        assert!(metadata["format"] == "pt" && metadata["ss_network_module"] == "lycoris.kohya", "{metadata:?}");
        assert_eq!(metadata["ss_network_dim"], adapter_dir::read(&adapter).unwrap().config.r.to_string());
        let (again, file) = (read(&again), read(&file));
        if file.keys().any(|name| name.ends_with("lora_mid.weight")) {
            continue;
        }
        assert_eq!(again.keys().collect::<Vec<_>>(), file.keys().collect::<Vec<_>>(), "{what}");
        for (name, tensor) in &file {
            assert_eq!(again[name].shape(), tensor.shape(), "{what}: {name}");
            assert_eq!(again[name].values(), tensor.values(), "{what}: {name}");
        }
    }
}

/// Every golden adapter of PEFT's: to LyCORIS's form and back, where there is a way.
#[test]
fn what_peft_wrote_comes_back_with_the_same_merged_weights() {
    let (mut passed, mut refused) = (0, BTreeMap::new());
    for case in golden("adapters") {
        let name = case.file_name().unwrap().to_str().unwrap().to_owned();
        let (base, dir) = (case.join("base.safetensors"), fixture::folder());
        let described: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(case.join("case.json")).unwrap()).unwrap();
        let adapter = case.join(described["adapter"].as_str().unwrap());
        let (file, again) = (dir.path().join("lycoris.safetensors"), dir.path().join("again"));
        let how = ToLycoris { base: Some(&base), ..ToLycoris::default() };
        match convert_to_lycoris(&adapter, &how, &file, false) {
            Ok(_) => {
                to_peft(&file, Some(&base), &again).unwrap_or_else(|error| panic!("{name}: {}", text(&error)));
                let tolerance = if described["dtype"] == "float32" { 1e-6 } else { 1e-2 };
                assert_near(&merged(&base, &again), &merged(&base, &adapter), tolerance, &name);
                passed += 1;
            }
            Err(error) => {
                assert!(!file.exists(), "{name}");
                refused.insert(name, text(&error).lines().next().unwrap().to_owned());
            }
        }
    }
    assert!(passed >= 35, "{passed}");
    let refused: Vec<String> = refused.iter().map(|(name, why)| format!("{name}: {why}")).collect();
    insta::assert_snapshot!(refused.join("\n"));
}

/// A grouped convolution with `shared` factors, in a folder with its base: its path, and its delta.
fn shared(dir: &Path, r: usize, groups: usize, dora: bool) -> Vec<f32> {
    let layer = Layer::new(LayerKind::Conv1d, &[2 * groups, 2, 3], groups).unwrap();
    let draw = |what: &str, shape: Vec<usize>| fixture::values(what, 5, shape.iter().product());
    let (a, b) = (draw("A", layer.a_shape(r, GroupMode::Shared)), draw("B", layer.b_shape(r, GroupMode::Shared)));
    let factors = Factors::new(layer, GroupMode::Shared, r, 0.5, a, b, None).unwrap();
    let delta = factors.delta().unwrap();
    let magnitude = lowrank::adapter::Magnitude { values: vec![1.0; 2 * groups], norm: DoraNorm::Exact };
    let factors = if dora { factors.with_magnitude(magnitude).unwrap() } else { factors };
    let config = LoraConfig {
        r,
        lora_alpha: 0.5 * f64::from(u32::try_from(r).unwrap()),
        target_modules: Some(Patterns::List(vec!["net.conv".into()])),
        group_mode: GroupMode::Shared,
        use_dora: dora,
        ..LoraConfig::default()
    };
    let tensors = ModuleTensors::from_factors(&factors, FloatType::F32).unwrap();
    let state = StateDict { modules: [("net.conv".to_owned(), tensors)].into(), ..StateDict::default() };
    adapter_dir::write(&dir.join("adapter"), &config, &state, None).unwrap();
    delta
}

fn groups(name: &str, groups: usize) -> ToPeft<'static> {
    ToPeft { groups: vec![(name.to_owned(), groups)], ..ToPeft::default() }
}

#[test]
fn shared_factors_become_dense_ones_of_the_same_delta() {
    for (r, count) in [(1, 2), (3, 4), (2, 512)] {
        let dir = fixture::folder();
        let delta = shared(dir.path(), r, count, false);
        let output = dir.path().join("dense");
        let converted = convert_to_peft(&dir.path().join("adapter"), &groups("conv", count), &output, false).unwrap();
        assert_eq!((converted.modules[0].from, converted.modules[0].rank), (r, r * count));
        let read = adapter_dir::read(&output).unwrap();
        assert_eq!((read.config.r, read.config.group_mode), (r * count, GroupMode::default()));
        let tensors = &read.state.modules["net.conv"];
        assert_eq!(tensors.a.shape(), [r * count, 2 * count, 3]);
        assert_eq!(tensors.b.shape(), [2 * count, r, 1]);
        let layer = Layer::new(LayerKind::Conv1d, &[2 * count, 2, 3], count).unwrap();
        assert_eq!(read.state.factors("net.conv", &layer, &read.config).unwrap().delta().unwrap(), delta);
    }
}

#[test]
fn what_has_no_dense_form_says_why() {
    let dir = fixture::folder();
    let (adapter, output) = (dir.path().join("adapter"), dir.path().join("dense"));
    let refused = |how: &ToPeft<'_>| text(&convert_to_peft(&adapter, how, &output, true).unwrap_err());
    shared(dir.path(), 3, 512, false);
    let mut report = vec![refused(&groups("conv", 512)), refused(&ToPeft::default()), refused(&groups("cnov", 512))];
    report.push(refused(&groups("conv", 5)));
    report.push(
        refused(&ToPeft { base: Some(&adapter), ..ToPeft::default() }).replace(adapter.to_str().unwrap(), "adapter"),
    );
    shared(dir.path(), 3, 4, true);
    report.push(refused(&groups("conv", 4)));
    assert!(!output.exists());
    insta::assert_snapshot!(report.concat());
}

#[test]
fn dense_factors_are_projected_when_asked_to() {
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/adapters/conv1d_groups_dense");
    let (dir, base) = (fixture::folder(), case.join("base.safetensors"));
    let output = dir.path().join("projected");
    let how = ToPeft { project: true, ..ToPeft::default() };
    let converted = convert_to_peft(&case.join("adapter"), &how, &output, false).unwrap();
    let [module] = converted.modules.as_slice() else { panic!("{converted:?}") };
    assert!(module.dropped > 0.1 && module.dropped < 1.0, "{module:?}");
    let (read, found) = (adapter_dir::read(&case.join("adapter")).unwrap(), merged(&base, &output));
    let (path, tensors) = read.state.modules.iter().next().unwrap();
    let layer =
        Layer::new(LayerKind::Conv1d, self::read(&base)[&format!("{path}.weight")].shape(), module.groups).unwrap();
    let scale = read.config.scaling_for(path).unwrap();
    let factors = tensors.factors(&layer, scale, GroupMode::Dense, DoraNorm::Peft).unwrap();
    let (nearest, dropped) = factors.project();
    assert!((dropped - module.dropped).abs() < 1e-12);
    let weight = self::read(&base)[&format!("{path}.weight")].values().unwrap();
    let expected: Vec<f32> =
        weight.iter().zip(nearest.delta().unwrap()).map(|(weight, delta)| weight + delta).collect();
    let found = found[&format!("{path}.weight")].values().unwrap();
    assert!(found.iter().zip(&expected).all(|(found, expected)| (found - expected).abs() < 1e-6));
    // To LyCORIS's form as well.
    let file = dir.path().join("lycoris.safetensors");
    assert!(convert_to_lycoris(&case.join("adapter"), &ToLycoris::default(), &file, false).is_err());
    convert_to_lycoris(&case.join("adapter"), &ToLycoris { project: true, ..ToLycoris::default() }, &file, false)
        .unwrap();
    let again = dir.path().join("again");
    to_peft(&file, Some(&base), &again).unwrap();
    assert_near(&merged(&base, &again), &merged(&base, &output), 1e-6, "projected");
}

/// A small LyCORIS file with one thing changed, and what is said of it.
#[test]
fn malformed_files_are_refused() {
    let tensor = |shape: &[usize]| fixture::tensor(shape, FloatType::F32, 0.5);
    let base: Model = [
        ("a.b_c.weight", &[4, 3][..]),
        ("fc.weight", &[4, 3]),
        ("a_b.c.weight", &[4, 3]),
        ("down.conv.weight", &[4, 3, 5]),
    ]
    .into_iter()
    .map(|(name, shape)| (name.to_owned(), tensor(shape)))
    .chain([("scalar.weight".to_owned(), tensor(&[4]))])
    .collect();
    let good: Model = [("down_conv.lora_down.weight", &[2, 3, 5][..]), ("down_conv.lora_up.weight", &[4, 2, 1])]
        .into_iter()
        .map(|(name, shape)| (format!("lycoris_{name}"), tensor(shape)))
        .collect();
    let pair = |module: &str, inputs: usize| {
        let keys =
            [(format!("{module}.lora_down.weight"), vec![2, inputs]), (format!("{module}.lora_up.weight"), vec![4, 2])];
        keys.map(|(key, shape)| (key, tensor(&shape)))
    };
    let with = |more: Vec<(String, Tensor)>| good.clone().into_iter().chain(more).collect::<Model>();
    let one = |key: &str, tensor: Tensor| with(vec![(format!("lycoris_down_conv.{key}"), tensor)]);
    let cases = [
        ("nothing", Model::new()),
        ("ambiguous", with(pair("lycoris_a_b_c", 3).into())),
        ("unknown", with(pair("lycoris_down_cnov", 3).into())),
        ("a longer path", with(pair("lycoris_unet_down_conv", 3).into())),
        ("a shorter path", with(pair("lycoris_conv", 3).into())),
        ("a module without a matrix", with(pair("lycoris_scalar", 3).into())),
        ("another shape", one("lora_down.weight", tensor(&[2, 3, 4]))),
        ("another rank", one("lora_up.weight", tensor(&[4, 3, 1]))),
        ("a middle of another rank", one("lora_mid.weight", tensor(&[3, 3, 5]))),
        ("a magnitude of another length", one("dora_scale", tensor(&[3, 1, 1]))),
        ("a magnitude of the inputs", one("dora_scale", tensor(&[1, 3, 1]))),
        ("alpha of integers", one("alpha", Tensor::new(Dtype::I64, vec![], vec![0; 8]).unwrap())),
        ("DoRA of some", one("dora_scale", tensor(&[4, 1, 1])).into_iter().chain(pair("lycoris_fc", 3)).collect()),
        ("PEFT's keys", with(vec![("base_model.model.fc.lora_A.weight".into(), tensor(&[2, 3]))])),
        ("not finite", one("lora_up.weight", fixture::tensor(&[4, 2, 1], FloatType::F32, f32::NAN))),
    ];
    let dir = fixture::folder();
    let (root, file) = (dir.path(), dir.path().join("x.safetensors"));
    fixture::save(&root.join("base.safetensors"), &base);
    let mut report = String::new();
    for (name, tensors) in cases {
        fixture::save(&file, &tensors);
        let output = root.join("adapter");
        let error = to_peft(&file, Some(&root.join("base.safetensors")), &output).expect_err(name);
        let _ = writeln!(report, "{name}\n{}", text(&error).replace(&format!("{}/", root.display()), ""));
        assert!(!output.exists(), "{name}");
    }
    fixture::save(&file, &good);
    let _ = writeln!(report, "no base\n{}", text(&to_peft(&file, None, &root.join("adapter")).unwrap_err()));
    insta::assert_snapshot!(report.replace(&format!("{}/", root.display()), ""));
    to_peft(&file, Some(&root.join("base.safetensors")), &root.join("adapter")).unwrap();
}

#[test]
fn two_paths_of_one_name_cannot_be_written() {
    let dir = fixture::folder();
    let layer = Layer::new(LayerKind::Linear, &[4, 3], 1).unwrap();
    let factors = Factors::new(layer, GroupMode::PerGroup, 1, 1.0, vec![1.0; 3], vec![1.0; 4], None).unwrap();
    let tensors = ModuleTensors::from_factors(&factors, FloatType::F32).unwrap();
    let modules = ["a.b_c", "a_b.c"].map(|path| (path.to_owned(), tensors.clone()));
    let names = modules.iter().map(|(path, _)| path.clone()).collect();
    let config =
        LoraConfig { r: 1, lora_alpha: 1.0, target_modules: Some(Patterns::List(names)), ..LoraConfig::default() };
    let state = StateDict { modules: modules.into(), ..StateDict::default() };
    adapter_dir::write(&dir.path().join("adapter"), &config, &state, None).unwrap();
    let file = dir.path().join("x.safetensors");
    let error = convert_to_lycoris(&dir.path().join("adapter"), &ToLycoris::default(), &file, false).unwrap_err();
    assert_eq!(error.problem(), "two modules have one name in a LyCORIS file");
    assert!(!file.exists());
}
