//! Whole runs on recordings made up here: what they learn, how they stop, and that they go on to the bit.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use lowrank::config::{InitLoraWeights, LoraConfig, Patterns};
use lowrank::files::{RunLock, adapter_dir};
use lowrank::{Error, Result, Subject};
use lowrank_burn::data::{self, SignalFormat, Split};
use lowrank_burn::models::{Architecture, BaseModel, Dtype};
use lowrank_burn::tasks::{Evaluation, Manifest};
use lowrank_burn::train::{ADAPTER, Event, MODEL, Observer, OptimizerName, Outcome, Run, Start, TrainConfig, run};
use serde_json::json;

/// Two classes of one channel: a slow and a fast wave, with another phase in each recording.
fn recordings(dir: &Path, speed: f64) -> Manifest {
    let mut manifest = vec!["path,label,split".to_owned()];
    for (label, rate) in [("slow", 0.05), ("fast", 0.15)] {
        for number in 0..6 {
            let value =
                |t: usize| (f64::from(u32::try_from(t).unwrap()) * rate * speed * 6.3 + f64::from(number)).sin();
            let text: Vec<String> = (0..96).map(|t| format!("{:.5}", value(t))).collect();
            let name = format!("{label}{number}.csv");
            fs::write(dir.join(&name), text.join("\n")).unwrap();
            let split = ["train", "train", "train", "train", "valid", "test"][usize::try_from(number).unwrap()];
            manifest.push(format!("{name},{label},{split}"));
        }
    }
    let path = dir.join("manifest.csv");
    fs::write(&path, manifest.join("\n")).unwrap();
    Manifest::Recordings(data::Manifest::read(&path, None).unwrap())
}

fn new_base() -> Start {
    let keys = json!({"in_channels": 1, "channels": 4, "stem_kernel_size": 3, "dilations": [1, 2], "dropout": 0.1});
    let architecture = Architecture::from_map("tcn", keys.as_object().unwrap().clone()).unwrap();
    Start::New { architecture, signal: SignalFormat { channels: 1, rate: 10.0, window: 32, hop: 16 } }
}

/// Burn has one random generator for the whole process, so one run at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

struct Setting {
    _turn: MutexGuard<'static, ()>,
    folder: tempfile::TempDir,
    start: Start,
    manifest: Manifest,
}

/// A base that knows the waves at one speed, and recordings of another.
fn setting() -> Setting {
    let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let first = folder.path().join("first");
    fs::create_dir(&first).unwrap();
    let config = TrainConfig { epochs: 20, learning_rate: 1e-2, ..TrainConfig::default() };
    let base = folder.path().join("base");
    let job = Run {
        start: new_base(),
        lora: None,
        manifest: recordings(&first, 1.0),
        config,
        seed: 1,
        output: base.clone(),
        resume: false,
        command: "test".into(),
        settings: String::new(),
    };
    let outcome = run(&job, &mut ()).unwrap();
    assert!(outcome.after.unwrap().score("accuracy").unwrap() > 0.9 && outcome.before.is_none());
    let model = BaseModel::load(&base.join(MODEL), &burn::tensor::Device::flex(), Dtype::Float32).unwrap();
    let second = folder.path().join("second");
    fs::create_dir(&second).unwrap();
    let manifest = recordings(&second, 0.6);
    Setting { _turn: turn, folder, start: Start::Base(Box::new(model)), manifest }
}

impl Setting {
    fn run(&self, output: &str, config: &TrainConfig, dropout: f64) -> Run {
        let lora = LoraConfig {
            r: 2,
            lora_alpha: 4.0,
            lora_dropout: dropout,
            target_modules: Some(Patterns::Regex("all-layers".into())),
            ..LoraConfig::default()
        };
        Run {
            start: self.start.clone(),
            lora: Some(lora),
            manifest: self.manifest.clone(),
            config: config.clone(),
            seed: 5,
            output: self.folder.path().join(output),
            resume: true,
            command: "test".into(),
            settings: String::new(),
        }
    }
}

/// Stops after so many steps.
struct StopAfter(u64);

impl Observer for StopAfter {
    fn event(&mut self, event: &Event<'_>) {
        if let Event::Step { .. } = event {
            self.0 = self.0.saturating_sub(1);
        }
    }

    fn interrupted(&self) -> bool {
        self.0 == 0
    }
}

fn adapter(run: &Run) -> Vec<u8> {
    fs::read(run.output.join(ADAPTER).join("adapter_model.safetensors")).unwrap()
}

/// The figures, without seconds and place.
fn figures(outcome: &Outcome) -> Outcome {
    Outcome { seconds: 0.0, output: String::new(), ..outcome.clone() }
}

#[test]
fn an_interrupted_run_ends_as_one_that_was_not() {
    let setting = setting();
    let adamw = TrainConfig { max_steps: Some(13), batch_size: 4, learning_rate: 1e-2, ..TrainConfig::default() };
    for (number, (config, dropout)) in [
        (adamw.clone(), 0.0),
        (TrainConfig { gradient_accumulation_steps: 3, eval_every: Some(2), ..adamw.clone() }, 0.3),
        (TrainConfig { optimizer: OptimizerName::Sgd, loraplus_lr_ratio: Some(4.0), ..adamw.clone() }, 0.3),
        (TrainConfig { early_stopping_patience: Some(2), eval_every: Some(1), ..adamw }, 0.0),
    ]
    .into_iter()
    .enumerate()
    {
        let whole = setting.run(&format!("whole{number}"), &config, dropout);
        let expected = run(&whole, &mut ()).unwrap();
        for every in [1, 5] {
            let parts = setting.run(&format!("parts{number}-{every}"), &config, dropout);
            let outcome = loop {
                match run(&parts, &mut StopAfter(every)) {
                    Ok(outcome) => break outcome,
                    Err(error) => assert_eq!(error.subject(), Subject::Interrupted, "{error}"),
                }
            };
            assert_eq!(figures(&outcome), figures(&expected), "case {number}, stopped every {every}");
            assert!(adapter(&parts) == adapter(&whole), "case {number}, stopped every {every}: the same bits");
        }
        let again = run(&whole, &mut ()).unwrap();
        assert_eq!(again, expected, "a finished run gives its result again");
    }
}

/// The magnitudes are trained, kept in checkpoints, and written under PEFT's key.
#[test]
fn a_run_with_dora_trains_magnitudes_and_goes_on_to_the_bit() {
    let setting = setting();
    let config = TrainConfig { max_steps: Some(13), batch_size: 4, learning_rate: 1e-2, ..TrainConfig::default() };
    for dropout in [0.0, 0.3] {
        let with_dora = |output: &str| {
            let job = setting.run(output, &config, dropout);
            Run { lora: job.lora.clone().map(|lora| LoraConfig { use_dora: true, ..lora }), ..job }
        };
        let whole = with_dora(&format!("whole-{dropout}"));
        run(&whole, &mut ()).unwrap();
        let parts = with_dora(&format!("parts-{dropout}"));
        while let Err(error) = run(&parts, &mut StopAfter(5)) {
            assert_eq!(error.subject(), Subject::Interrupted, "{error}");
        }
        assert!(adapter(&parts) == adapter(&whole), "the same bits");

        let trained = adapter_dir::read(&whole.output.join(ADAPTER)).unwrap();
        assert!(trained.config.use_dora && !trained.state.modules.is_empty());
        let Start::Base(base) = &setting.start else { panic!("a base") };
        let (fresh, adapters) = lowrank_burn::attach(base.network.clone(), whole.lora.as_ref().unwrap(), 5).unwrap();
        let fresh = adapters.state(&fresh, "default").unwrap().1;
        for (path, module) in &trained.state.modules {
            assert!(module.magnitude.is_some() && module.magnitude != fresh.modules[path].magnitude, "{path}");
        }
    }
}

#[test]
fn a_resumed_run_keeps_what_its_adapter_began_with() {
    let setting = setting();
    let config = TrainConfig { max_steps: Some(5), batch_size: 4, learning_rate: 1e-2, ..TrainConfig::default() };
    let job = |name: &str| {
        let mut job = setting.run(name, &config, 0.0);
        let lora = job.lora.as_mut().unwrap();
        lora.init_lora_weights = InitLoraWeights::Pissa;
        lora.target_modules = Some(Patterns::Regex("all-conv".into()));
        lora.r = 1;
        job
    };
    let (whole, parts) = (job("whole"), job("parts"));
    let expected = run(&whole, &mut ()).unwrap();
    assert_eq!(run(&parts, &mut StopAfter(2)).unwrap_err().subject(), Subject::Interrupted);
    let checkpoints = parts.output.join("checkpoints");
    let newest = fs::read_dir(checkpoints).unwrap().next().unwrap().unwrap().path();
    assert!(newest.join("frozen.safetensors").exists());
    assert_eq!(figures(&run(&parts, &mut ()).unwrap()), figures(&expected));
    assert!(adapter(&parts) == adapter(&whole), "the same bits");
}

#[test]
fn lora_ga_begins_from_the_gradient_and_leaves_the_base_alone() {
    let setting = setting();
    let config = TrainConfig { epochs: 25, batch_size: 4, learning_rate: 1e-2, ..TrainConfig::default() };
    let begun = |output: &str, config: &TrainConfig| {
        let mut job = setting.run(output, config, 0.0);
        let lora = job.lora.as_mut().unwrap();
        lora.init_lora_weights = InitLoraWeights::LoraGa;
        // The head has two rows and the stem three columns: no more singular vectors than one for each factor.
        lora.rank_pattern = vec![("head".into(), 1), ("stem".into(), 1)];
        job
    };
    let job = begun("gradient", &config);
    let outcome = run(&job, &mut ()).unwrap();
    let accuracy = |evaluation: &Option<Evaluation>| evaluation.as_ref().unwrap().score("accuracy").unwrap();
    assert!(accuracy(&outcome.after) > accuracy(&outcome.before) + 0.2, "{outcome:?}");

    // What is saved is a plain adapter that fits the base: its evaluation is that of the run.
    let Start::Base(base) = &setting.start else { panic!("a base") };
    let (network, adapters) = lowrank_burn::load(base.network.clone(), &job.output.join(ADAPTER)).unwrap();
    assert_eq!(adapters.config("default").unwrap().init_lora_weights, InitLoraWeights::True);
    let test = base.config.task.load(&setting.manifest, Split::Test, &config).unwrap();
    let again = test.evaluate(&network, 64).unwrap();
    assert!((again.score("loss").unwrap() - outcome.after.unwrap().score("loss").unwrap()).abs() < 1e-5);

    // One that is not trained changes nothing, and the same seed begins with the same bits.
    let still = TrainConfig { max_steps: Some(1), learning_rate: 1e-30, weight_decay: 0.0, ..config };
    let outcomes = ["one", "two"].map(|output| run(&begun(output, &still), &mut ()).unwrap());
    let loss = |evaluation: &Option<Evaluation>| evaluation.as_ref().unwrap().score("loss").unwrap();
    assert!((loss(&outcomes[0].after) - loss(&outcomes[0].before)).abs() < 1e-5, "{:?}", outcomes[0]);
    assert_eq!(loss(&outcomes[0].after).to_bits(), loss(&outcomes[1].after).to_bits());

    let error = lowrank_burn::attach(base.network.clone(), job.lora.as_ref().unwrap(), 5).unwrap_err();
    assert_each_says(&error, "begins from the gradient of the loss");
}

/// One error for every module.
fn assert_each_says(error: &Error, what: &str) {
    assert!(!error.parts().is_empty());
    for error in error.parts() {
        assert!(error.to_string().contains(what), "{error}");
    }
}

#[test]
fn eva_and_corda_begin_from_what_the_layers_read() {
    let setting = setting();
    let config = TrainConfig { epochs: 25, batch_size: 4, learning_rate: 1e-2, ..TrainConfig::default() };
    let begun = |output: &str, config: &TrainConfig, init: InitLoraWeights| {
        let mut job = setting.run(output, config, 0.0);
        job.lora.as_mut().unwrap().init_lora_weights = init;
        job
    };
    let score = |evaluation: &Option<Evaluation>, name: &str| evaluation.as_ref().unwrap().score(name).unwrap();
    for (name, init) in [("eva", InitLoraWeights::Eva), ("corda", InitLoraWeights::Corda)] {
        let job = begun(name, &config, init.clone());
        let outcome = run(&job, &mut ()).unwrap();
        let gain = score(&outcome.after, "accuracy") - score(&outcome.before, "accuracy");
        assert!(gain > 0.2, "{name} {outcome:?}");
        let Start::Base(base) = &setting.start else { panic!("a base") };
        let (network, adapters) = lowrank_burn::load(base.network.clone(), &job.output.join(ADAPTER)).unwrap();
        let test = base.config.task.load(&setting.manifest, Split::Test, &config).unwrap();
        let again = test.evaluate(&network, 64).unwrap().score("loss").unwrap();
        assert!((again - score(&outcome.after, "loss")).abs() < 1e-5, "{name}");
        let plain =
            lowrank_burn::attach(base.network.clone(), &setting.run("", &config, 0.0).lora.unwrap(), 5).unwrap().1;
        let ranks = |adapters: &lowrank_burn::Adapters| -> usize {
            adapters.targets("default").unwrap().iter().map(|target| target.rank).sum()
        };
        // EVA moves ranks and keeps their number; what began as a part of the base is saved at twice the rank.
        assert_eq!(ranks(&adapters), ranks(&plain) * if name == "eva" { 1 } else { 2 });

        let still = TrainConfig { max_steps: Some(1), learning_rate: 1e-30, weight_decay: 0.0, ..config.clone() };
        let outcomes = [1, 2].map(|at| run(&begun(&format!("{name}{at}"), &still, init.clone()), &mut ()).unwrap());
        assert!((score(&outcomes[0].after, "loss") - score(&outcomes[0].before, "loss")).abs() < 1e-5, "{outcomes:?}");
        let losses = outcomes.map(|outcome| score(&outcome.after, "loss").to_bits());
        assert_eq!(losses[0], losses[1]);

        let error = lowrank_burn::attach(base.network.clone(), job.lora.as_ref().unwrap(), 5).unwrap_err();
        assert_each_says(&error, "begin from the module's inputs");
    }
}

#[test]
fn lorafa_trains_b_alone_and_helps_too() {
    let setting = setting();
    let config = TrainConfig { epochs: 25, batch_size: 4, learning_rate: 2e-2, lorafa: true, ..TrainConfig::default() };
    let outcome = run(&setting.run("frozen-a", &config, 0.0), &mut ()).unwrap();
    let accuracy = |evaluation: &Option<Evaluation>| evaluation.as_ref().unwrap().score("accuracy").unwrap();
    assert!(accuracy(&outcome.after) > accuracy(&outcome.before) + 0.2, "{outcome:?}");
    let whole = run(&setting.run("whole", &TrainConfig { lorafa: false, ..config.clone() }, 0.0), &mut ()).unwrap();
    assert!(outcome.trainable_parameters < whole.trainable_parameters);
    let factors = |output: &str| {
        let file = fs::read(setting.folder.path().join(output).join(ADAPTER).join(adapter_dir::WEIGHTS)).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
        let of = |factor: &str| {
            let own = tensors.tensors().into_iter().filter(|(name, _)| name.contains(factor));
            own.map(|(name, view)| (name, view.data().to_vec())).collect::<std::collections::BTreeMap<_, _>>()
        };
        (of("lora_A"), of("lora_B"))
    };
    // The same seed made both adapters, so that an A that did not train is a start of the other's.
    let first = TrainConfig { max_steps: Some(1), ..config };
    run(&setting.run("one-step", &first, 0.0), &mut ()).unwrap();
    let ((a, b), (first_a, first_b), (whole_a, _)) = (factors("frozen-a"), factors("one-step"), factors("whole"));
    assert!(a == first_a && b != first_b && a != whole_a && !a.is_empty());

    let full = Run { lora: None, ..setting.run("full", &TrainConfig { lorafa: true, ..TrainConfig::default() }, 0.0) };
    assert_eq!(
        run(&full, &mut ()).unwrap_err().to_string(),
        "lorafa: LoRA-FA needs an adapter, and all weights train here"
    );
}

#[test]
fn adapting_helps_and_says_by_how_much() {
    let setting = setting();
    let config = TrainConfig { epochs: 25, batch_size: 4, learning_rate: 2e-2, ..TrainConfig::default() };
    let job = setting.run("adapted", &config, 0.0);
    let outcome = run(&job, &mut ()).unwrap();
    let accuracy = |evaluation: &Option<Evaluation>| evaluation.as_ref().unwrap().score("accuracy").unwrap();
    assert!(accuracy(&outcome.after) > accuracy(&outcome.before) + 0.2, "{outcome:?}");
    for name in
        ["report.html", "metrics.jsonl", "result.json", "run.toml", "adapter/README.md", "adapter/adapter_config.json"]
    {
        assert!(job.output.join(name).exists(), "{name}");
    }
}

#[test]
fn a_run_that_diverges_stops_and_keeps_its_checkpoint() {
    let setting = setting();
    let config = TrainConfig {
        max_steps: Some(50),
        checkpoint_every: Some(1),
        learning_rate: 1e18,
        max_grad_norm: None,
        warmup_ratio: 0.0,
        max_skipped_steps: 3,
        ..TrainConfig::default()
    };
    let job = setting.run("diverged", &config, 0.0);
    let error = run(&job, &mut ()).unwrap_err();
    assert_eq!(error.subject(), Subject::Diverged, "{error}");
    assert!(!job.output.join(ADAPTER).exists(), "nothing is passed off as a result");
}

#[test]
fn a_warm_up_is_as_long_as_the_run_at_most() {
    let setting = setting();
    let of = |output: &str, steps| {
        let config =
            TrainConfig { max_steps: Some(6), batch_size: 4, warmup_steps: Some(steps), ..TrainConfig::default() };
        run(&setting.run(output, &config, 0.0), &mut ())
    };
    assert_eq!(of("some", 5).unwrap().steps, 6);
    let error = of("more", 7).unwrap_err().to_string();
    assert!(error.contains("the warm-up is longer than the run: found 7, expected at most 6"), "{error}");
}

#[test]
fn other_settings_and_other_folders_are_refused() {
    let setting = setting();
    let config = TrainConfig { max_steps: Some(6), batch_size: 4, ..TrainConfig::default() };
    let job = setting.run("one", &config, 0.0);
    let stopped: Result<Outcome, Error> = run(&job, &mut StopAfter(2));
    assert_eq!(stopped.unwrap_err().subject(), Subject::Interrupted);
    let message = |job: &Run| run(job, &mut ()).unwrap_err().to_string();
    assert!(message(&Run { seed: 6, ..job.clone() }).contains("other settings"));
    assert!(message(&Run { resume: false, ..job.clone() }).contains("holds an earlier run"));
    let other = RunLock::acquire(&job.output).unwrap();
    assert!(message(&job).contains("the folder is in use"));
    drop(other);
    let taken = setting.folder.path().join("taken");
    fs::create_dir(&taken).unwrap();
    fs::write(taken.join("thesis.txt"), "x").unwrap();
    assert!(message(&Run { output: taken.clone(), ..job.clone() }).contains("not ours"));
    assert_eq!(fs::read(taken.join("thesis.txt")).unwrap(), b"x");
    let file: PathBuf = setting.folder.path().join("file");
    fs::write(&file, "x").unwrap();
    assert!(run(&Run { output: file, ..job }, &mut ()).is_err());
}
