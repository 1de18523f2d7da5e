use std::fs::{self, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};

use proptest::prelude::*;

use super::super::faulty::Faulty;
use super::super::log::scores;
use super::super::optim::Group;
use super::*;
use crate::tasks::classification::{self, ConfusionMatrix, MeanLoss};

fn evaluation(label: &str, loss: MeanLoss) -> Evaluation {
    let mut confusion = ConfusionMatrix::new(vec![label.to_owned(), "ü".to_owned()]);
    confusion.add(0, 1).unwrap();
    Evaluation::Classification(classification::Evaluation::new(confusion, loss))
}

fn slots(lens: &[usize]) -> Vec<ParamSlot> {
    let slot = |(number, len): (usize, &usize)| ParamSlot { name: format!("p{number}"), len: *len, group: Group::A };
    lens.iter().enumerate().map(slot).collect()
}

fn checkpoint(step: u64) -> Checkpoint {
    let value = f32::from(u16::try_from(step).unwrap());
    let mut loss = MeanLoss::default();
    loss.add(0.1 + 0.2, 3);
    let baseline = evaluation("a", loss);
    let mut early_stopping = EarlyStopping::new(Some(3));
    early_stopping.observe(step, &baseline);
    let progress = Progress {
        step,
        epoch: 1,
        batch: step,
        seed: u64::MAX,
        config_digest: sha256(b"[train]\n"),
        slots: slots(&[1, 2]),
        early_stopping,
        history: vec![LogLine { step, eval: Some(scores(&baseline)), seconds: 0.1, ..LogLine::default() }],
        baseline: Some(baseline),
        counters: BTreeMap::from([("skipped_steps".to_owned(), 2)]),
        seconds: 1.0 / 3.0,
    };
    Checkpoint {
        progress,
        params: vec![value, -0.0, 1e-42],
        optimizer: OptimizerState { step, m: vec![0.1, 0.2, 0.3], v: vec![0.0, value, 1.0] },
        best_params: step.is_multiple_of(2).then(|| vec![1.0, 2.0, f32::MAX]),
        frozen: if step.is_multiple_of(3) { vec![value, 0.5] } else { vec![] },
    }
}

fn names(dir: &Path) -> Vec<String> {
    list(dir).unwrap()
}

fn latest(dir: &Path) -> Latest {
    Checkpoint::latest(dir).unwrap().unwrap()
}

#[test]
fn the_newest_two_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("checkpoints");
    assert_eq!(Checkpoint::latest(&dir).unwrap(), None);
    for step in [9, 10, 11] {
        checkpoint(step).save(&dir).unwrap();
    }
    assert_eq!(names(&dir), ["step-00000010", "step-00000011"]);
    assert_eq!(latest(&dir), Latest { path: dir.join("step-00000011"), checkpoint: checkpoint(11), warnings: vec![] });
    // The same step again, with another state, does not touch the one that is there.
    let mut again = checkpoint(11);
    again.progress.epoch = 7;
    assert_eq!(again.save(&dir).unwrap(), dir.join("step-00000011-1"));
    assert_eq!(latest(&dir).checkpoint, again);
    assert_eq!(names(&dir), ["step-00000011", "step-00000011-1"]);
}

#[test]
fn any_damage_to_the_newest_falls_back_to_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    checkpoint(1).save(dir.path()).unwrap();
    let newest = checkpoint(2).save(dir.path()).unwrap();
    assert_eq!(names(&newest), ["best.safetensors", MANIFEST, "optimizer.safetensors", "params.safetensors"]);
    let falls_back = |what: &str| {
        let found = latest(dir.path());
        assert_eq!(found.checkpoint, checkpoint(1), "{what}");
        assert!(
            found.warnings.len() == 1 && found.warnings[0].contains("step-00000002"),
            "{what}: {:?}",
            found.warnings
        );
    };
    for name in names(&newest) {
        let path = newest.join(&name);
        let whole = fs::read(&path).unwrap();
        let mut file = OpenOptions::new().write(true).open(&path).unwrap();
        let mut put = |place: usize, bytes: &[u8], len: usize| {
            file.seek(SeekFrom::Start(place as u64)).unwrap();
            file.write_all(bytes).unwrap();
            file.set_len(len as u64).unwrap();
        };
        for place in 0..whole.len() {
            put(place, &[whole[place] ^ (1 << (place % 8))], whole.len());
            falls_back(&format!("{name}: a bit of byte {place} flipped"));
            put(place, &[], place);
            falls_back(&format!("{name}: cut to {place} bytes"));
            put(place, &whole[place..], whole.len());
        }
        put(whole.len(), b"\n", whole.len() + 1);
        falls_back(&format!("{name}: a byte more"));
        fs::remove_file(&path).unwrap();
        falls_back(&format!("{name}: gone"));
        fs::write(&path, whole).unwrap();
    }
    assert_eq!(latest(dir.path()).checkpoint, checkpoint(2));
}

#[test]
fn a_damaged_checkpoint_does_not_count_and_goes() {
    let dir = tempfile::tempdir().unwrap();
    for step in [1, 2] {
        checkpoint(step).save(dir.path()).unwrap();
    }
    fs::write(dir.path().join("step-00000002/params.safetensors"), b"").unwrap();
    fs::create_dir(dir.path().join("step-00000009")).unwrap();
    checkpoint(3).save(dir.path()).unwrap();
    assert_eq!(names(dir.path()), ["step-00000001", "step-00000003"]);
}

#[test]
fn without_a_whole_checkpoint_every_reason_is_given() {
    let dir = tempfile::tempdir().unwrap();
    let path = checkpoint(5).save(dir.path()).unwrap();
    fs::rename(&path, dir.path().join("step-00000006")).unwrap();
    fs::create_dir(dir.path().join("step-00000007")).unwrap();
    fs::create_dir(dir.path().join("other")).unwrap();
    let error = Checkpoint::latest(dir.path()).unwrap_err();
    assert_eq!(error.parts().len(), 2);
    assert!(error.parts()[1].to_string().ends_with("the checkpoint of another step: found 5, expected 6"), "{error:?}");
    assert!(error.parts()[1].hint().unwrap().contains("start from the beginning"));
}

#[test]
fn a_later_format_is_refused_by_its_number() {
    let dir = tempfile::tempdir().unwrap();
    let path = checkpoint(5).save(dir.path()).unwrap().join(MANIFEST);
    let text = fs::read_to_string(&path).unwrap();
    let body = text.split_once("\",\n").unwrap().1.replace("\"format\": 1", "\"format\": 2");
    fs::write(&path, format!("{{\n\"sha256\": \"{}\",\n{body}", sha256(body.as_bytes()))).unwrap();
    let error = Checkpoint::load(path.parent().unwrap()).unwrap_err();
    assert!(error.to_string().ends_with("another format: found version 2, expected version 1"), "{error}");
    assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
}

#[test]
fn what_is_not_finite_or_does_not_fit_is_not_saved() {
    let dir = tempfile::tempdir().unwrap();
    let place = |spoil: fn(&mut Checkpoint)| {
        let mut spoilt = checkpoint(2);
        spoil(&mut spoilt);
        spoilt.save(dir.path()).unwrap_err()
    };
    let error = place(|checkpoint| checkpoint.params[2] = f32::NAN);
    assert_eq!(
        (error.subject(), error.to_string().as_str()),
        (Subject::Diverged, "`params` is not finite: p1[1] is NaN")
    );
    assert_eq!(place(|checkpoint| checkpoint.optimizer.v[0] = f32::INFINITY).subject(), Subject::Diverged);
    assert_eq!(place(|checkpoint| checkpoint.optimizer.m[0] = f32::NAN).subject(), Subject::Diverged);
    let error = place(|checkpoint| checkpoint.best_params = Some(vec![0.0]));
    assert_eq!(error.to_string(), "`best_params` does not fit the parameters: found 1 values, expected 3");
    assert!(names(dir.path()).is_empty());
}

/// Two saved on a sound disk, two more on `storage`; what is then found is at least what was acknowledged.
fn save_on(storage: &Faulty, dir: &Path) -> bool {
    for step in [1, 2] {
        checkpoint(step).save_on(&Faulty::never(), dir).unwrap();
    }
    let mut acknowledged = 2;
    let mut all = true;
    for step in [3, 4] {
        match checkpoint(step).save_on(storage, dir) {
            Ok(_) => acknowledged = step,
            Err(_) => all = false,
        }
    }
    let found = latest(dir);
    let place = format!("operation {}", storage.operations());
    assert!(found.checkpoint.progress.step >= acknowledged, "{place}");
    assert_eq!(found.checkpoint, checkpoint(found.checkpoint.progress.step), "{place}");
    assert_eq!(found.warnings, Vec::<String>::new(), "{place}");
    // The next run saves as if nothing had happened, and cleans up.
    checkpoint(5).save_on(&Faulty::never(), dir).unwrap();
    let names = names(dir);
    assert!(names.len() == 2 && names.iter().all(|name| name.starts_with("step-")), "{place}: {names:?}");
    assert_eq!(latest(dir).checkpoint, checkpoint(5), "{place}");
    all
}

#[test]
fn killed_at_any_operation_a_complete_checkpoint_is_found() {
    for operations in 0.. {
        let dir = tempfile::tempdir().unwrap();
        if save_on(&Faulty::dies_after(operations), dir.path()) {
            assert!(operations > 30, "a save is more than {operations} operations");
            return;
        }
    }
}

#[test]
fn a_full_disk_at_any_operation_costs_at_most_the_checkpoint_that_fails() {
    let dir = tempfile::tempdir().unwrap();
    let counting = Faulty::never();
    assert!(save_on(&counting, dir.path()));
    for operation in 1..=counting.operations() {
        let dir = tempfile::tempdir().unwrap();
        save_on(&Faulty::once(operation), dir.path());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn every_bit_comes_back(
        (lens, bits) in prop::collection::vec(0..9usize, 0..4)
            .prop_flat_map(|lens| (Just(lens.clone()), prop::collection::vec(any::<u32>(), 4 * lens.iter().sum::<usize>()))),
        (step, seed, seconds, counts) in (any::<u64>(), any::<u64>(), 0.0..1e9f64, prop::collection::vec(any::<u64>(), 0..3)),
        (momentum, best, score) in (any::<bool>(), any::<bool>(), any::<f64>()),
        label in "\\PC{0,6}",
    ) {
        let finite = |bits: &u32| Some(f32::from_bits(*bits)).filter(|value| value.is_finite()).unwrap_or(-0.0);
        let values: Vec<f32> = bits.iter().map(finite).collect();
        let mut parts = values.chunks((values.len() / 4).max(1));
        let mut part = || if values.is_empty() { vec![] } else { parts.next().unwrap().to_vec() };
        let saved = Checkpoint {
            progress: Progress {
                step,
                seed,
                seconds,
                slots: slots(&lens),
                counters: counts.into_iter().enumerate().map(|(n, count)| (format!("{label}{n}"), count)).collect(),
                baseline: Some(evaluation(&label, MeanLoss::default())),
                early_stopping: EarlyStopping {
                    best: score.is_finite().then_some(super::super::early_stopping::Best { step, value: score }),
                    ..EarlyStopping::default()
                },
                ..Progress::default()
            },
            params: part(),
            optimizer: OptimizerState { step, m: if momentum { part() } else { vec![] }, v: part() },
            best_params: best.then(part),
            frozen: values.clone(),
        };
        let dir = tempfile::tempdir().unwrap();
        let loaded = Checkpoint::load(&saved.save_on(&Faulty::never(), dir.path()).unwrap()).unwrap();
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(&loaded.params), bits(&saved.params));
        prop_assert_eq!(bits(&loaded.optimizer.m), bits(&saved.optimizer.m));
        prop_assert_eq!(bits(&loaded.optimizer.v), bits(&saved.optimizer.v));
        prop_assert_eq!(loaded.best_params.as_deref().map(bits), saved.best_params.as_deref().map(bits));
        prop_assert_eq!(bits(&loaded.frozen), bits(&saved.frozen));
        prop_assert_eq!(loaded.progress.seconds.to_bits(), saved.progress.seconds.to_bits());
        prop_assert_eq!(loaded, saved);
    }
}
