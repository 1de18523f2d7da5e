//! Sharded checkpoints and model folders, sound and not.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use lowrank::Error;
use lowrank::adapter::tensor::Dtype;
use lowrank::files::writer::{Writer, pytorch};
use lowrank::files::{Checkpoint, Disk};

fn save(path: &Path, tensors: &[(&str, u8)]) {
    let plan = tensors.iter().map(|(name, _)| ((*name).to_owned(), Dtype::U8, vec![4])).collect();
    let mut writer = Writer::create(&Disk, path, plan, &pytorch()).unwrap();
    for (name, value) in tensors {
        writer.write(name, &[*value; 4]).unwrap();
    }
    writer.finish().unwrap().publish().unwrap();
}

const FIRST: &str = "model-00001-of-00002.safetensors";
const SECOND: &str = "model-00002-of-00002.safetensors";

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    save(&dir.path().join(FIRST), &[("a", 1), ("b", 2)]);
    save(&dir.path().join(SECOND), &[("c", 3)]);
    index(dir.path(), &[("a", FIRST), ("b", FIRST), ("c", SECOND)]);
    dir
}

fn index(dir: &Path, map: &[(&str, &str)]) {
    let entries: Vec<_> = map.iter().map(|(tensor, shard)| format!("{tensor:?}: {shard:?}")).collect();
    let text = format!(r#"{{"metadata": {{"total_size": 12}}, "weight_map": {{{}}}}}"#, entries.join(", "));
    fs::write(dir.join("model.safetensors.index.json"), text).unwrap();
}

fn refusal(dir: &Path) -> Error {
    Checkpoint::open(dir).expect_err("this should be refused")
}

/// What the error and its parts say, without the folder.
fn text(dir: &Path, error: &Error) -> String {
    let mut text = String::new();
    let parts = if error.parts().is_empty() { std::slice::from_ref(error) } else { error.parts() };
    for part in parts {
        writeln!(text, "{part}").unwrap();
        if let Some(hint) = part.hint() {
            writeln!(text, "hint: {hint}").unwrap();
        }
    }
    text.replace(&format!("{}/", dir.display()), "").replace(&dir.display().to_string(), "DIR")
}

#[test]
fn shards_are_read_as_one() {
    let dir = folder();
    for path in [dir.path().to_owned(), dir.path().join("model.safetensors.index.json")] {
        let open = Checkpoint::open(&path).unwrap();
        assert_eq!(open.names().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(open.shards().len(), 2);
        assert_eq!(open.read("c").unwrap().data(), [3; 4]);
    }
}

#[test]
fn an_index_that_disagrees_with_its_shards_is_refused() {
    let dir = folder();
    index(dir.path(), &[("a", FIRST), ("b", SECOND), ("d", SECOND)]);
    let mut report = text(dir.path(), &refusal(dir.path()));
    save(&dir.path().join(SECOND), &[("a", 4), ("c", 3)]);
    index(dir.path(), &[("a", FIRST), ("b", FIRST), ("c", SECOND)]);
    report += &text(dir.path(), &refusal(dir.path()));
    insta::assert_snapshot!(report);
}

#[test]
fn a_malformed_index_is_refused() {
    let dir = folder();
    let mut report = String::new();
    for content in [
        "",
        "[]",
        "{}",
        r#"{"weight_map": []}"#,
        r#"{"weight_map": {}}"#,
        r#"{"weight_map": {"a": 1}}"#,
        r#"{"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}}"#,
        r#"{"weight_map": {}, "weight_map": {}}"#,
        r#"{"weight_map": {"a": "../x.safetensors", "b": "/etc/passwd"}}"#,
        r#"{"weight_map": {"a": "model-00003-of-00002.safetensors"}}"#,
    ] {
        fs::write(dir.path().join("model.safetensors.index.json"), content).unwrap();
        write!(report, "{content}\n{}", text(dir.path(), &refusal(dir.path()))).unwrap();
    }
    let many: Vec<_> = (0..600).map(|i| format!("\"{i}\": \"{i}.safetensors\"")).collect();
    fs::write(dir.path().join("model.safetensors.index.json"), format!("{{\"weight_map\": {{{}}}}}", many.join(",")))
        .unwrap();
    write!(report, "600 shards\n{}", text(dir.path(), &refusal(dir.path()))).unwrap();
    insta::assert_snapshot!(report);
}

#[cfg(unix)]
#[test]
fn links_out_of_the_folder_are_refused() {
    use std::os::unix::fs::symlink;
    let outside = tempfile::tempdir().unwrap();
    save(&outside.path().join("secret.safetensors"), &[("c", 9)]);
    let dir = folder();
    let shard = dir.path().join(SECOND);
    fs::remove_file(&shard).unwrap();
    symlink(outside.path().join("secret.safetensors"), &shard).unwrap();
    let error = refusal(dir.path());
    assert!(error.to_string().contains("a link that leaves its folder"), "{error}");
    // The same through a folder beside it, and with a path that goes up and comes back.
    fs::remove_file(&shard).unwrap();
    fs::create_dir(dir.path().join("inner")).unwrap();
    save(&dir.path().join("inner/c.safetensors"), &[("c", 9)]);
    symlink("inner/c.safetensors", &shard).unwrap();
    assert!(refusal(dir.path()).to_string().contains("a link that leaves its folder"));
    // Within the folder it may point.
    fs::remove_file(&shard).unwrap();
    save(&dir.path().join("c.safetensors"), &[("c", 9)]);
    symlink("c.safetensors", &shard).unwrap();
    assert_eq!(Checkpoint::open(dir.path()).unwrap().read("c").unwrap().data(), [9; 4]);
    // A link to nothing.
    fs::remove_file(&shard).unwrap();
    symlink("nothing", &shard).unwrap();
    assert!(Checkpoint::open(dir.path()).is_err());
}

#[cfg(unix)]
#[test]
fn the_layout_of_the_download_cache_is_read() {
    use std::os::unix::fs::symlink;
    let cache = tempfile::tempdir().unwrap();
    let (blobs, snapshot) = (cache.path().join("blobs"), cache.path().join("snapshots/0123"));
    fs::create_dir_all(&blobs).unwrap();
    fs::create_dir_all(&snapshot).unwrap();
    save(&blobs.join("abc"), &[("a", 1)]);
    symlink("../../blobs/abc", snapshot.join("model.safetensors")).unwrap();
    assert_eq!(Checkpoint::open(&snapshot).unwrap().read("a").unwrap().data(), [1; 4]);
    fs::remove_file(snapshot.join("model.safetensors")).unwrap();
    fs::create_dir(blobs.join("deeper")).unwrap();
    save(&blobs.join("deeper/abc"), &[("a", 1)]);
    symlink("../../blobs/deeper/abc", snapshot.join("model.safetensors")).unwrap();
    assert!(refusal(&snapshot).to_string().contains("a link that leaves its folder"));
}

#[test]
fn folders_without_weights_say_what_is_there_instead() {
    let mut report = String::new();
    for files in [
        &["notes.txt"][..],
        &["adapter_config.json", "adapter_model.safetensors"],
        &["config.json", "pytorch_model.bin"],
        &["config.json", "silero.safetensors"],
        &["model.safetensors", "model.safetensors.index.json"],
        &["tf_model.h5"],
    ] {
        let dir = tempfile::tempdir().unwrap();
        for name in files {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        write!(report, "{}\n{}", files.join(", "), text(dir.path(), &refusal(dir.path()))).unwrap();
    }
    insta::assert_snapshot!(report);
}

#[cfg(unix)]
#[test]
fn only_regular_files_are_opened() {
    let error = Checkpoint::open(Path::new("/dev/zero")).unwrap_err();
    assert!(error.to_string().contains("found a device, pipe or socket"), "{error}");
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("model.safetensors")).unwrap();
    assert!(Checkpoint::open(dir.path()).is_err());
}
