//! Settings back as a run file, to repeat a run from its own folder.

use std::path::{Component, Path, PathBuf, absolute};

use lowrank::{Error, Result, Subject};
use lowrank_burn::train::TrainConfig;
use serde_json::{Map, Value};

use super::{Section, Settings};
use crate::keys::{KEYS, Kind};

/// The run file that stands for `settings` in the folder `output`: what was said, the defaults of `[train]`, and paths
/// relative to that folder. Where results go is left out.
///
/// # Errors
/// When the current directory is not known.
pub fn run_file(settings: &Settings, train: &TrainConfig, output: &Path) -> Result<String> {
    let failed =
        |error: String| Error::new(Subject::Config, format!("cannot write the settings as a run file: {error}"));
    let mut file = Map::new();
    for section in [Section::Top].into_iter().chain(Section::TABLES) {
        let mut table = settings.table(section);
        for key in KEYS.iter().filter(|key| key.section == section && matches!(key.kind, Kind::Path)) {
            if let Some(path) = settings.path(section, key.name).filter(|_| table.contains_key(key.name)) {
                let path = relative(&path, output).map_err(|error| failed(error.to_string()))?;
                table.insert(key.name.to_owned(), path.display().to_string().into());
            }
        }
        match section {
            Section::Top => {
                table.shift_remove("output");
                file.extend(table);
                continue;
            }
            Section::Train => table = with_defaults(table, train),
            _ => {}
        }
        if settings.has(section) || section == Section::Train {
            file.insert(section.name().to_owned(), Value::Object(table));
        }
    }
    toml::to_string(&file).map_err(|error| failed(error.to_string()))
}

/// The keys that were said as they were, and the others as they count.
fn with_defaults(said: Map<String, Value>, train: &TrainConfig) -> Map<String, Value> {
    let all = serde_json::to_value(train).ok().and_then(|all| all.as_object().cloned()).unwrap_or_default();
    let mut table: Map<_, _> = all.into_iter().filter(|(_, value)| !value.is_null()).collect();
    table.extend(said);
    table
}

/// `path` seen from the folder `from`, by their names alone: links are not followed.
fn relative(path: &Path, from: &Path) -> std::io::Result<PathBuf> {
    let (path, from) = (plain(&absolute(path)?), plain(&absolute(from)?));
    let common = path.components().zip(from.components()).take_while(|(a, b)| a == b).count();
    if common == 0 {
        // Another drive.
        return Ok(path);
    }
    let up = from.components().skip(common).map(|_| Component::ParentDir);
    Ok(up.chain(path.components().skip(common)).collect())
}

/// A path without `..`.
fn plain(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut all, part| {
        if part == Component::ParentDir {
            all.pop();
        } else {
            all.push(part);
        }
        all
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_seen_from_the_folder() {
        let seen = |path: &str, from: &str| relative(path.as_ref(), from.as_ref()).unwrap();
        assert_eq!(seen("watch/base", "runs/x"), Path::new("../../watch/base"));
        assert_eq!(seen("watch/../data/a.csv", "watch/x"), Path::new("../../data/a.csv"));
        assert_eq!(seen("/a/b", "/a"), Path::new("b"));
    }
}
