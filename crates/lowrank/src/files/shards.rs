//! The index of a sharded checkpoint, and which file names it may use.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use super::limits;
use super::read::read_to_string;
use crate::error::{Error, Result, Subject};

/// The name of the index in a model's folder.
pub const INDEX: &str = "model.safetensors.index.json";

/// Tensor name to shard name, as the index of `path` says.
///
/// # Errors
/// When the index cannot be read, is no JSON object with a `weight_map`, names a tensor twice, names more shards than
/// [`limits::SHARDS`], or a shard by anything but one plain file name.
pub(super) fn read_index(path: &Path) -> Result<BTreeMap<String, String>> {
    let text = read_to_string(path, limits::INDEX_BYTES)?;
    let index: Index = serde_json::from_str(&text).map_err(|error| {
        Error::new(Subject::File, "not the index of a sharded checkpoint")
            .at(path.display())
            .found(&error)
            .because(error)
    })?;
    let shards: BTreeSet<&str> = index.0.values().map(String::as_str).collect();
    let mut errors: Vec<Error> = shards.iter().filter_map(|shard| plain_name(shard).err()).collect();
    if shards.is_empty() {
        errors.push(Error::new(Subject::File, "the weight_map is empty"));
    }
    if shards.len() > limits::SHARDS {
        errors.push(
            Error::new(Subject::File, "too many shards")
                .found(shards.len())
                .expected(format!("at most {}", limits::SHARDS)),
        );
    }
    Error::all(errors.into_iter().map(|error| error.at(path.display())).collect())?;
    Ok(index.0)
}

/// Checks that `name` is one plain file name of a safetensors file: no path, no drive, nothing a terminal would act on.
fn plain_name(name: &str) -> Result<()> {
    let wrong = |problem: &str| {
        Err(Error::new(Subject::File, format!("a shard's name {problem}"))
            .found(format!("{name:?}"))
            .expected("one plain file name ending in .safetensors"))
    };
    if name.contains(['/', '\\']) {
        return wrong("is a path");
    }
    if name.contains(':') {
        return wrong("holds a colon");
    }
    if name.chars().any(char::is_control) {
        return wrong("holds control characters");
    }
    if name.len() > 255 {
        return wrong("is too long");
    }
    let stem = name.strip_suffix(".safetensors").unwrap_or_default();
    if stem.is_empty() || stem.starts_with('.') {
        return wrong("is not that of a safetensors file");
    }
    Ok(())
}

/// `name` in `dir`, unless that is a link that leads elsewhere.
///
/// Links within the folder are fine, and so are those of the Hugging Face cache, whose `snapshots/REVISION` folders hold
/// links into `blobs` two levels up.
///
/// # Errors
/// When the file is missing, or is a link that leaves the folder.
pub(super) fn inside(dir: &Path, name: &str) -> Result<PathBuf> {
    let path = dir.join(name);
    let failed = |error| Error::io(&path, "find", error);
    let link = fs::symlink_metadata(&path).map_err(failed)?.is_symlink();
    if link {
        let home = dir.canonicalize().map_err(failed)?;
        let target = path.canonicalize().map_err(failed)?;
        let snapshots = home.parent().filter(|parent| parent.ends_with("snapshots"));
        let blobs = snapshots.and_then(Path::parent).map(|cache| cache.join("blobs"));
        if target.parent() != Some(&home) && (blobs.is_none() || target.parent() != blobs.as_deref()) {
            return Err(Error::new(Subject::File, "a link that leaves its folder")
                .at(path.display())
                .found(target.display())
                .expected(format!("a file in {}", home.display()))
                .with_hint("put the file itself in its place, if you trust it"));
        }
    }
    Ok(path)
}

struct Index(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Index {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(IndexVisitor)
    }
}

struct IndexVisitor;

impl<'de> Visitor<'de> for IndexVisitor {
    type Value = Index;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a weight_map")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Index, M::Error> {
        let mut weight_map = None;
        while let Some(key) = map.next_key::<String>()? {
            if key != "weight_map" {
                map.next_value::<IgnoredAny>()?;
            } else if weight_map.replace(map.next_value::<WeightMap>()?.0).is_some() {
                return Err(M::Error::custom("`weight_map` is there twice"));
            }
        }
        weight_map.map(Index).ok_or_else(|| M::Error::custom("`weight_map` is missing"))
    }
}

struct WeightMap(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = WeightMap;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from tensor names to shard names")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<WeightMap, M::Error> {
                let mut entries = BTreeMap::new();
                while let Some((tensor, shard)) = map.next_entry::<String, String>()? {
                    if entries.contains_key(&tensor) {
                        return Err(M::Error::custom(format!("tensor {tensor:?} is there twice")));
                    }
                    entries.insert(tensor, shard);
                }
                Ok(WeightMap(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_plain_component_names_a_shard() {
        for fine in ["model.safetensors", "model-00001-of-00002.safetensors", "a b.safetensors", "ü.safetensors"] {
            assert!(plain_name(fine).is_ok(), "{fine}");
        }
        let long = format!("{}.safetensors", "x".repeat(255));
        for evil in [
            "",
            ".",
            "..",
            "/",
            "\\",
            ".safetensors",
            "..safetensors",
            ".hidden.safetensors",
            "/etc/passwd",
            "/etc/x.safetensors",
            "../x.safetensors",
            "../../x.safetensors",
            "a/../x.safetensors",
            "a/x.safetensors",
            "./x.safetensors",
            "x.safetensors/",
            "x.safetensors/..",
            "..\\x.safetensors",
            "a\\x.safetensors",
            "\\\\server\\share\\x.safetensors",
            "//server/share/x.safetensors",
            "C:x.safetensors",
            "C:\\x.safetensors",
            "C:/x.safetensors",
            "x.safetensors:stream",
            "x:y.safetensors",
            "file:///x.safetensors",
            "x\0.safetensors",
            "x.safetensors\0",
            "x\n.safetensors",
            "x\r.safetensors",
            "\u{1b}[2Jx.safetensors",
            "x\u{7f}.safetensors",
            "x\u{85}.safetensors",
            "~/x.safetensors",
            "$HOME/x.safetensors",
            "x.bin",
            "x.pt",
            "x.safetensors.bin",
            "x.SAFETENSORS",
            "x.safetensors ",
            "x.safetensors.",
            "model",
            "\\\\?\\C:\\x.safetensors",
            "\\\\.\\x.safetensors",
            "a/b/c/d.safetensors",
            "....//x.safetensors",
            "..%2fx.safetensors/..",
            "/proc/self/mem",
            "/dev/zero",
            "/dev/stdin.safetensors",
            "x.safetensors\t",
            "\tx.safetensors",
            "https://a/x.safetensors",
            "a//x.safetensors",
            "x/.safetensors",
            "x/..safetensors",
            "...",
            "...safetensors",
            long.as_str(),
        ] {
            let error = plain_name(evil).expect_err(evil);
            assert!(error.to_string().starts_with("a shard's name"), "{error}");
        }
    }
}
