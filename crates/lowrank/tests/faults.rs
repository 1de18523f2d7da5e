//! Every operation on the file system fails once, and from then on: what was there stays, or what is new is complete.

mod faulty;
mod fixture;

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use faulty::{Faulty, Then};
use lowrank::Error;
use lowrank::files::MergeOptions;
use lowrank::files::merge_checkpoint::merge_checkpoint_to;
use lowrank::files::{Storage, adapter_dir, atomic};
use lowrank::float::FloatType;

/// Runs `action` on a fresh folder with operation 1, 2, 3... failing, until it succeeds; after each run `check` looks at
/// the folder. Returns how many operations there are.
fn every_fault(
    prepare: impl Fn(&Path),
    action: impl Fn(&dyn Storage, &Path) -> Result<(), Error>,
    check: impl Fn(&Path, Option<&Error>, &str),
) -> usize {
    let mut operations = 0;
    for (then, kind) in [(Then::Recovers, ErrorKind::StorageFull), (Then::StaysBroken, ErrorKind::Other)] {
        for n in 1.. {
            let root = fixture::folder();
            prepare(root.path());
            let storage = Faulty::new(n, then, kind);
            let result = action(&storage, root.path());
            check(root.path(), result.as_ref().err(), &format!("operation {n}, {then:?}, {kind}"));
            if storage.count.get() < n {
                result.unwrap();
                operations = n - 1;
                break;
            }
            // Whatever is left is gone after the next time.
            action(&lowrank::files::Disk, root.path()).unwrap();
            check(root.path(), None, "afterwards");
            let left: Vec<_> =
                fixture::contents(root.path()).into_keys().filter(|name| name.contains(".lowrank-")).collect();
            assert!(left.is_empty(), "{left:?} after operation {n}, {then:?}");
        }
    }
    operations
}

#[test]
fn saving_the_next_step_of_an_adapter_leaves_the_old_or_the_new() {
    let config = fixture::config();
    let (old, new) = (fixture::adapter(1), fixture::adapter(2));
    let operations = every_fault(
        |root| adapter_dir::write(&root.join("adapter"), &config, &old, Some("old")).unwrap(),
        |storage, root| adapter_dir::write_to(storage, &root.join("adapter"), &config, &new, Some("old")),
        |root, error, place| {
            let there = adapter_dir::read(&root.join("adapter")).unwrap_or_else(|error| panic!("{place}: {error}"));
            assert!(there.state == old || there.state == new, "{place}");
            assert!(error.is_some() || there.state == new, "{place}");
        },
    );
    assert!(operations > 5, "{operations}");
}

#[test]
fn saving_another_configuration_leaves_each_file_old_or_new() {
    let old = (fixture::config(), fixture::adapter(1));
    let mut new = old.clone();
    new.0.lora_alpha = 3.0;
    new.1 = fixture::adapter(2);
    let whole = |config, state, card| {
        let dir = fixture::folder();
        adapter_dir::write(dir.path(), config, state, Some(card)).unwrap();
        fixture::contents(dir.path())
    };
    let (before, after) = (whole(&old.0, &old.1, "old"), whole(&new.0, &new.1, "new"));
    every_fault(
        |root| adapter_dir::write(&root.join("adapter"), &old.0, &old.1, Some("old")).unwrap(),
        |storage, root| adapter_dir::write_to(storage, &root.join("adapter"), &new.0, &new.1, Some("new")),
        |root, error, place| {
            let there = fixture::contents(&root.join("adapter"));
            for name in ["adapter_config.json", "adapter_model.safetensors", "README.md"] {
                let (old, new) = (there[name] == before[name], there[name] == after[name]);
                assert!(old || new, "{name}: {place}");
                assert!(error.is_some() || new, "{name}: {place}");
            }
        },
    );
}

#[test]
fn saving_the_first_time_leaves_nothing_or_what_is_complete() {
    let (config, state) = (fixture::config(), fixture::adapter(1));
    every_fault(
        |_| {},
        |storage, root| adapter_dir::write_to(storage, &root.join("adapter"), &config, &state, None),
        |root, error, place| match adapter_dir::read(&root.join("adapter")) {
            Ok(read) => assert_eq!(read.state, state, "{place}"),
            Err(_) => assert!(error.is_some(), "{place}"),
        },
    );
}

fn merge(storage: &dyn Storage, root: &Path, base: &str, output: &str) -> Result<(), Error> {
    let (base, adapter, output) = (root.join(base), root.join("adapter"), root.join(output));
    merge_checkpoint_to(
        storage,
        &base,
        &adapter,
        &output,
        MergeOptions { force: true, ..MergeOptions::default() },
        &mut |_| {},
    )
    .map(drop)
}

fn prepare(root: &Path) {
    adapter_dir::write(&root.join("adapter"), &fixture::config(), &fixture::adapter(1), None).unwrap();
    fixture::save(&root.join("base.safetensors"), &fixture::model(FloatType::F32));
    fixture::save(&root.join("old.safetensors"), &BTreeMap::new());
    fixture::save_folder(&root.join("base"), FloatType::F32);
}

#[test]
fn merging_a_file_leaves_the_old_or_the_new() {
    let fresh = fixture::folder();
    prepare(fresh.path());
    let old = fs::read(fresh.path().join("old.safetensors")).unwrap();
    merge(&lowrank::files::Disk, fresh.path(), "base.safetensors", "old.safetensors").unwrap();
    let new = fs::read(fresh.path().join("old.safetensors")).unwrap();
    every_fault(
        prepare,
        |storage, root| merge(storage, root, "base.safetensors", "old.safetensors"),
        |root, error, place| {
            let there = fs::read(root.join("old.safetensors")).unwrap();
            assert!(there == old || there == new, "{place}");
            assert!(error.is_some() || there == new, "{place}");
        },
    );
}

#[test]
fn merging_a_file_over_itself_leaves_the_old_or_the_new() {
    let fresh = fixture::folder();
    prepare(fresh.path());
    let old = fs::read(fresh.path().join("base.safetensors")).unwrap();
    merge(&lowrank::files::Disk, fresh.path(), "base.safetensors", "new.safetensors").unwrap();
    let new = fs::read(fresh.path().join("new.safetensors")).unwrap();
    for n in 1.. {
        let root = fixture::folder();
        prepare(root.path());
        let storage = Faulty::new(n, Then::StaysBroken, ErrorKind::StorageFull);
        let result = merge(&storage, root.path(), "base.safetensors", "base.safetensors");
        let there = fs::read(root.path().join("base.safetensors")).unwrap();
        assert!(there == old || there == new, "operation {n}");
        if storage.count.get() < n {
            result.unwrap();
            assert_eq!(there, new);
            break;
        }
    }
}

#[test]
fn merging_a_folder_leaves_nothing_or_what_is_complete() {
    let fresh = fixture::folder();
    prepare(fresh.path());
    merge(&lowrank::files::Disk, fresh.path(), "base", "out").unwrap();
    let new = fixture::contents(&fresh.path().join("out"));
    let operations = every_fault(
        prepare,
        |storage, root| merge(storage, root, "base", "out"),
        |root, error, place| {
            let out = root.join("out");
            assert!(error.is_some() || out.exists(), "{place}");
            assert!(!out.exists() || fixture::contents(&out) == new, "{place}");
        },
    );
    assert!(operations > 20, "{operations}");
}

#[test]
fn merging_a_folder_over_itself_keeps_the_old_until_the_new_is_complete() {
    let fresh = fixture::folder();
    prepare(fresh.path());
    let old = fixture::contents(&fresh.path().join("base"));
    merge(&lowrank::files::Disk, fresh.path(), "base", "out").unwrap();
    let new = fixture::contents(&fresh.path().join("out"));
    for (then, n) in [Then::Recovers, Then::StaysBroken].into_iter().flat_map(|then| (1..80).map(move |n| (then, n))) {
        let root = fixture::folder();
        prepare(root.path());
        let result = merge(&Faulty::new(n, then, ErrorKind::Other), root.path(), "base", "base");
        let (base, aside) = (root.path().join("base"), root.path().join(".base.lowrank-old"));
        if base.exists() {
            let there = fixture::contents(&base);
            assert!(there == old || there == new, "operation {n}, {then:?}");
            assert!(result.is_err() || there == new, "operation {n}, {then:?}");
        } else {
            assert_eq!(fixture::contents(&aside), old, "operation {n}, {then:?}");
            assert!(result.is_err());
            // The next run puts it back before anything else.
            merge(&lowrank::files::Disk, root.path(), "base", "base").unwrap();
            assert_eq!(fixture::contents(&base), new);
            assert!(!aside.exists());
        }
    }
}

#[test]
fn a_full_disk_is_named_with_what_is_needed() {
    let dir = fixture::folder();
    let path = dir.path().join("report.json");
    for (kind, problem) in [
        (ErrorKind::StorageFull, "the disk is full"),
        (ErrorKind::QuotaExceeded, "the disk quota is used up"),
        (ErrorKind::FileTooLarge, "the file is larger than"),
    ] {
        // 1 lists the folder for leftovers, 2 creates the file, 3 writes it.
        let error = atomic::write_to(&Faulty::new(3, Then::Recovers, kind), &path, &[0; 1234]).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains(problem) && text.contains("report.json") && text.contains("room for 1234 bytes"),
            "{text}"
        );
        assert!(error.hint().unwrap().contains("what was there before is unchanged"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
