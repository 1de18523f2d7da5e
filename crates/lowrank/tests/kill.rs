//! A process that ends at any operation, without a chance to clean up, leaves the old or the new.

mod faulty;
mod fixture;

use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use faulty::{Faulty, Then};
use lowrank::files::MergeOptions;
use lowrank::files::merge_checkpoint::merge_checkpoint_to;
use lowrank::files::{Disk, RunLock, Storage, adapter_dir};
use lowrank::float::FloatType;

const AT: &str = "LOWRANK_TEST_DIES_AT";
const IN: &str = "LOWRANK_TEST_FOLDER";

fn save(storage: &dyn Storage, root: &Path) {
    let _lock = RunLock::acquire(root).unwrap();
    adapter_dir::write_to(storage, &root.join("adapter"), &fixture::config(), &fixture::adapter(2), None).unwrap();
    merge_checkpoint_to(
        storage,
        &root.join("base"),
        &root.join("adapter"),
        &root.join("out"),
        MergeOptions { force: true, ..MergeOptions::default() },
        &mut |_| {},
    )
    .unwrap();
}

/// The part that dies: does nothing unless the test below has started it.
#[test]
fn child() {
    let (Ok(at), Ok(root)) = (std::env::var(AT), std::env::var(IN)) else { return };
    save(&Faulty::new(at.parse().unwrap(), Then::Dies, ErrorKind::Other), Path::new(&root));
}

#[test]
fn a_process_may_end_at_any_operation() {
    let root = fixture::folder();
    let (adapter, out) = (root.path().join("adapter"), root.path().join("out"));
    fixture::save_folder(&root.path().join("base"), FloatType::Bf16);
    adapter_dir::write(&adapter, &fixture::config(), &fixture::adapter(2), None).unwrap();
    save(&Disk, root.path());
    let merged = fixture::contents(&out);
    std::fs::remove_dir_all(&out).unwrap();
    adapter_dir::write(&adapter, &fixture::config(), &fixture::adapter(1), None).unwrap();
    let (old, new) = (fixture::adapter(1), fixture::adapter(2));
    for n in 1.. {
        let this = std::env::current_exe().unwrap();
        let status = Command::new(this)
            .args(["--exact", "child"])
            .env(AT, n.to_string())
            .env(IN, root.path())
            .output()
            .unwrap()
            .status;
        let state = adapter_dir::read(&adapter).unwrap().state;
        assert!(state == old || state == new, "operation {n}");
        assert!(!out.exists() || fixture::contents(&out) == merged, "operation {n}");
        if status.success() {
            assert!(n > 30, "{n}");
            break;
        }
        assert_eq!(status.code(), Some(9), "operation {n}");
        // Begin again with the old adapter and no output; leftovers stay for the next process to find.
        if out.exists() {
            std::fs::remove_dir_all(&out).unwrap();
        }
        adapter_dir::write(&adapter, &fixture::config(), &old, None).unwrap();
    }
    save(&Disk, root.path());
    let left: Vec<_> = fixture::contents(root.path()).into_keys().filter(|name| name.contains(".lowrank")).collect();
    assert!(left.is_empty(), "{left:?}");
}
