//! Power loss: what was not made durable may be there, be missing, or be half there.
//!
//! A recording file system notes every operation. For every moment the states that a disk may show afterwards are built
//! in memory: names change in the order they were changed, but any number of changes since the last synced folder may
//! be missing; content that was not synced is there, gone, or torn. Each state must show the old or the new.

mod fixture;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::Permissions;
use std::io;
use std::path::{Path, PathBuf};

use lowrank::files::MergeOptions;
use lowrank::files::merge_checkpoint::merge_checkpoint_to;
use lowrank::files::storage::OpenFile;
use lowrank::files::{Disk, Storage, adapter_dir};
use lowrank::float::FloatType;

#[derive(Debug, Clone)]
enum Operation {
    Create(PathBuf),
    Write(PathBuf, Vec<u8>),
    Sync(PathBuf),
    Rename(PathBuf, PathBuf),
    SyncDir,
    Remove(PathBuf),
}

#[derive(Default)]
struct Recorder(RefCell<Vec<Operation>>);

impl Recorder {
    fn note(&self, operation: Operation) {
        self.0.borrow_mut().push(operation);
    }
}

impl Storage for Recorder {
    fn create(&self, path: &Path, permissions: Option<&Permissions>) -> io::Result<OpenFile> {
        self.note(Operation::Create(path.into()));
        Disk.create(path, permissions)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        Disk.create_dir(path)
    }

    fn write(&self, file: &mut OpenFile, bytes: &[u8]) -> io::Result<()> {
        self.note(Operation::Write(file.path.clone(), bytes.into()));
        Disk.write(file, bytes)
    }

    fn sync(&self, file: &OpenFile) -> io::Result<()> {
        self.note(Operation::Sync(file.path.clone()));
        Disk.sync(file)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.note(Operation::Rename(from.into(), to.into()));
        Disk.rename(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.note(Operation::SyncDir);
        Disk.sync_dir(dir)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.note(Operation::Remove(path.into()));
        Disk.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        Disk.list(dir)
    }
}

/// What became of content that was not synced.
#[derive(Debug, Clone, Copy)]
enum Unsynced {
    There,
    Gone,
    Torn,
}

/// The files after a power loss at `moment`, with the changes to names up to `names` and the content as `unsynced` says.
fn state(
    before: &BTreeMap<PathBuf, Vec<u8>>,
    operations: &[Operation],
    moment: usize,
    names: usize,
    unsynced: Unsynced,
) -> BTreeMap<PathBuf, Vec<u8>> {
    // Content is followed under the name the file was created with.
    let mut content: BTreeMap<PathBuf, (Vec<u8>, usize)> = BTreeMap::new();
    for operation in &operations[..moment] {
        match operation {
            Operation::Create(path) => drop(content.insert(path.clone(), (Vec::new(), 0))),
            Operation::Write(path, bytes) => content.get_mut(path).unwrap().0.extend(bytes),
            Operation::Sync(path) => {
                let file = content.get_mut(path).unwrap();
                file.1 = file.0.len();
            }
            _ => {}
        }
    }
    for (bytes, synced) in content.values_mut() {
        let rest = bytes.len() - *synced;
        match unsynced {
            Unsynced::There => {}
            Unsynced::Gone => bytes.truncate(*synced),
            Unsynced::Torn => bytes.truncate(*synced + rest / 2),
        }
    }
    let mut files: BTreeMap<PathBuf, Vec<u8>> = before.clone();
    for operation in &operations[..names] {
        match operation {
            Operation::Create(path) => drop(files.insert(path.clone(), content[path].0.clone())),
            Operation::Rename(from, to) => {
                let moved: Vec<_> = files.keys().filter(|path| path.starts_with(from)).cloned().collect();
                for path in moved {
                    let bytes = files.remove(&path).unwrap();
                    let rest = path.strip_prefix(from).unwrap();
                    files.insert(if rest.as_os_str().is_empty() { to.clone() } else { to.join(rest) }, bytes);
                }
            }
            Operation::Remove(path) => files.retain(|file, _| !file.starts_with(path)),
            _ => {}
        }
    }
    files
}

fn below(files: &BTreeMap<PathBuf, Vec<u8>>, dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let inside = files.iter().filter_map(|(path, bytes)| Some((path.strip_prefix(dir).ok()?, bytes)));
    let ours =
        inside.filter(|(path, _)| !path.starts_with(".lowrank-") && !path.to_str().unwrap().contains("/.lowrank-"));
    ours.filter(|(path, _)| !path.to_str().unwrap().starts_with(".lowrank-"))
        .map(|(path, bytes)| (path.to_str().unwrap().to_owned(), bytes.clone()))
        .collect()
}

/// Runs `action` while recording and calls `check` with every state a disk may show; returns how many there are.
fn every_state(root: &Path, action: impl Fn(&dyn Storage), check: impl Fn(&BTreeMap<PathBuf, Vec<u8>>, &str)) -> usize {
    let before = fixture::contents(root).into_iter().map(|(name, bytes)| (root.join(name), bytes)).collect();
    let recorder = Recorder::default();
    action(&recorder);
    let operations = recorder.0.into_inner();
    let mut states = 0;
    for moment in 0..=operations.len() {
        let synced =
            operations[..moment].iter().rposition(|operation| matches!(operation, Operation::SyncDir)).unwrap_or(0);
        for names in synced..=moment {
            for unsynced in [Unsynced::There, Unsynced::Gone, Unsynced::Torn] {
                check(
                    &state(&before, &operations, moment, names, unsynced),
                    &format!("{moment}, {names}, {unsynced:?}"),
                );
                states += 1;
            }
        }
    }
    states
}

#[test]
fn an_adapter_is_the_old_or_the_new() {
    let root = fixture::folder();
    let dir = root.path().join("adapter");
    let config = fixture::config();
    adapter_dir::write(&dir, &config, &fixture::adapter(1), Some("old")).unwrap();
    let old = fixture::contents(&dir);
    let other = root.path().join("other");
    adapter_dir::write(&other, &config, &fixture::adapter(2), Some("new")).unwrap();
    let new = fixture::contents(&other);
    let states = every_state(
        root.path(),
        |storage| adapter_dir::write_to(storage, &dir, &config, &fixture::adapter(2), Some("new")).unwrap(),
        |files, place| {
            let there = below(files, &dir);
            for name in old.keys() {
                let content = there.get(name).unwrap_or_else(|| panic!("{name} is gone: {place}"));
                assert!(*content == old[name] || *content == new[name], "{name}: {place}");
            }
        },
    );
    assert!(states > 100, "{states}");
}

#[test]
fn a_merged_folder_is_complete_or_not_there() {
    let root = fixture::folder();
    let (base, adapter, out) = (root.path().join("base"), root.path().join("adapter"), root.path().join("out"));
    fixture::save_folder(&base, FloatType::F16);
    adapter_dir::write(&adapter, &fixture::config(), &fixture::adapter(1), None).unwrap();
    let merge = |storage: &dyn Storage, to: &Path| {
        merge_checkpoint_to(
            storage,
            &base,
            &adapter,
            to,
            MergeOptions { force: true, ..MergeOptions::default() },
            &mut |_| {},
        )
        .unwrap();
    };
    merge(&Disk, &root.path().join("again"));
    let new = fixture::contents(&root.path().join("again"));
    let states = every_state(
        root.path(),
        |storage| merge(storage, &out),
        |files, place| {
            let there = below(files, &out);
            assert!(there.is_empty() || there == new, "{place}");
        },
    );
    assert!(states > 200, "{states}");
}

#[test]
fn a_folder_merged_over_itself_is_the_old_or_the_new_or_aside() {
    let root = fixture::folder();
    let (base, adapter) = (root.path().join("base"), root.path().join("adapter"));
    fixture::save_folder(&base, FloatType::F32);
    adapter_dir::write(&adapter, &fixture::config(), &fixture::adapter(1), None).unwrap();
    let old = fixture::contents(&base);
    let out = root.path().join("out");
    merge_checkpoint_to(
        &Disk,
        &base,
        &adapter,
        &out,
        MergeOptions { force: false, ..MergeOptions::default() },
        &mut |_| {},
    )
    .unwrap();
    let new = fixture::contents(&out);
    let merge = |storage: &dyn Storage| {
        merge_checkpoint_to(
            storage,
            &base,
            &adapter,
            &base,
            MergeOptions { force: true, ..MergeOptions::default() },
            &mut |_| {},
        )
        .unwrap();
    };
    every_state(root.path(), merge, |files, place| {
        let (there, aside) = (below(files, &base), below(files, &root.path().join(".base.lowrank-old")));
        assert!(there == old || there == new || there.is_empty() && aside == old, "{place}");
    });
}
