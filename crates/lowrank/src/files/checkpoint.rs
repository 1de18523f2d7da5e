//! A base model's tensors: one safetensors file, or the shards of a folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::foreign::{is_foreign, refuse_foreign};
use super::header::{Header, TensorInfo};
use super::new_dir::set_aside;
use super::read::{exists, list, open, read_at};
use super::shards::{INDEX, inside, read_index};
use crate::adapter::tensor::Tensor;
use crate::error::{Error, Result, Subject};
use crate::suggest::nearest;

/// The name of the one weights file in a model's folder.
pub const MODEL: &str = "model.safetensors";

/// One open safetensors file.
#[derive(Debug)]
pub struct Shard {
    path: PathBuf,
    file: File,
    data_start: u64,
    metadata: BTreeMap<String, String>,
    tensors: Vec<String>,
}

impl Shard {
    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The free text of its header.
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The names of its tensors, sorted.
    #[must_use]
    pub fn tensors(&self) -> &[String] {
        &self.tensors
    }
}

/// The tensors of a model, found by name, read one at a time or piece by piece.
///
/// All files stay open, so what is read is what was checked, even when something else takes their names. Reads are by
/// position: a file that becomes shorter is an error, where mapped memory would end the process.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    shards: Vec<Shard>,
    tensors: BTreeMap<String, (usize, TensorInfo)>,
}

impl Checkpoint {
    /// Opens a `.safetensors` file, a folder with `model.safetensors` or `model.safetensors.index.json`, or such an
    /// index. Headers are read and checked, tensors are not read.
    ///
    /// # Errors
    /// When nothing is there, when the weights are in another format (the hint converts them), when a header or the
    /// index is malformed, when they disagree, and when a shard is not in the folder itself.
    pub fn open(path: &Path) -> Result<Self> {
        if path.is_dir() {
            return Self::open_dir(path);
        }
        if path.file_name().is_some_and(|name| name == INDEX) {
            return Self::open_shards(path.parent().unwrap_or(Path::new("")), path);
        }
        refuse_foreign(path)?;
        let opened = open_shard(path.to_owned());
        let mut all = Self { path: path.to_owned(), shards: Vec::new(), tensors: BTreeMap::new() };
        all.add(opened.map_err(|error| if exists(path) { error } else { interrupted(path, error) })?)?;
        Ok(all)
    }

    fn open_dir(dir: &Path) -> Result<Self> {
        let names = list(dir)?;
        let has = |name: &str| names.binary_search_by(|candidate| candidate.as_str().cmp(name)).is_ok();
        match (has(MODEL), has(INDEX)) {
            (true, false) => {
                let mut all = Self { path: dir.to_owned(), shards: Vec::new(), tensors: BTreeMap::new() };
                all.add(open_shard(inside(dir, MODEL)?)?)?;
                Ok(all)
            }
            (false, true) => Self::open_shards(dir, &inside(dir, INDEX)?),
            (true, true) => Err(Error::new(Subject::File, "two sets of weights")
                .at(dir.display())
                .found(format!("{MODEL} and {INDEX}"))
                .expected("one of them")
                .with_hint("remove the one that is out of date, or name the one to read")),
            (false, false) => Err(no_weights(dir, &names)),
        }
    }

    fn open_shards(dir: &Path, index: &Path) -> Result<Self> {
        let weight_map = read_index(index)?;
        let mut all = Self { path: dir.to_owned(), shards: Vec::new(), tensors: BTreeMap::new() };
        let names: BTreeSet<&String> = weight_map.values().collect();
        for name in names {
            if !exists(&dir.join(name)) {
                return Err(Error::new(Subject::File, "a shard is missing")
                    .at(index.display())
                    .expected(format!("`{name}` beside it"))
                    .with_hint("the checkpoint is incomplete: download or save it again"));
            }
            all.add(open_shard(inside(dir, name)?)?)?;
        }
        let mut errors = Vec::new();
        let place = |tensor: &str| format!("{}: tensor `{tensor}`", index.display());
        for (tensor, shard) in &weight_map {
            let actual = all.tensors.get(tensor).and_then(|(number, _)| all.shards.get(*number));
            match actual {
                None => errors.push(Error::new(Subject::File, format!("not in `{shard}`")).at(place(tensor))),
                Some(actual) if !actual.path.ends_with(shard) => errors.push(
                    Error::new(Subject::File, "in another shard")
                        .at(place(tensor))
                        .found(format!("`{}`", file_name(&actual.path)))
                        .expected(format!("`{shard}`")),
                ),
                Some(_) => {}
            }
        }
        for (tensor, (number, _)) in all.tensors.iter().filter(|(tensor, _)| !weight_map.contains_key(*tensor)) {
            let shard = all.shards.get(*number).map(|shard| file_name(&shard.path)).unwrap_or_default();
            errors
                .push(Error::new(Subject::File, format!("in `{shard}`, but not in the weight_map")).at(place(tensor)));
        }
        Error::all(errors)?;
        Ok(all)
    }

    fn add(&mut self, (mut shard, header): (Shard, Header)) -> Result<()> {
        shard.tensors = header.tensors.keys().cloned().collect();
        for (name, info) in header.tensors {
            if let Some((other, _)) = self.tensors.get(&name) {
                let other = self.shards.get(*other).map(|shard| file_name(&shard.path)).unwrap_or_default();
                return Err(Error::new(Subject::File, format!("the tensor is in `{other}` too"))
                    .at(format_args!("{}: tensor `{name}`", shard.path.display())));
            }
            self.tensors.insert(name, (self.shards.len(), info));
        }
        self.shards.push(shard);
        Ok(())
    }

    /// What was opened: the file, or the folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files, sorted by name.
    #[must_use]
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Type, shape and place of a tensor, when there is one of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name).map(|(_, info)| info)
    }

    /// Reads one tensor.
    ///
    /// # Errors
    /// When there is none of that name (the hint has the nearest), or the file cannot be read.
    pub fn read(&self, name: &str) -> Result<Tensor> {
        let info = &self.find(name)?.1;
        let mut data = Vec::new();
        self.read_bytes(name, 0..info.byte_len(), &mut data)?;
        Tensor::new(info.dtype, info.shape.clone(), data)
    }

    /// Reads the `bytes` of a tensor, counted from its own start, into `buffer`, which takes their length.
    ///
    /// # Errors
    /// When there is no such tensor, when `bytes` reaches beyond it, or when the file cannot be read.
    pub fn read_bytes(&self, name: &str, bytes: Range<u64>, buffer: &mut Vec<u8>) -> Result<()> {
        let (number, info) = self.find(name)?;
        let within = bytes.start <= bytes.end && bytes.end <= info.byte_len();
        let length = usize::try_from(bytes.end.saturating_sub(bytes.start)).ok().filter(|_| within);
        let (Some(shard), Some(length)) = (self.shards.get(*number), length) else {
            return Err(Error::new(Subject::File, format!("cannot read bytes {bytes:?} of tensor `{name}`"))
                .expected(format!("at most {}", info.byte_len())));
        };
        buffer.resize(length, 0);
        let start = shard.data_start + info.offsets.start + bytes.start;
        read_at(&shard.file, buffer, start).map_err(|error| {
            if error.kind() == std::io::ErrorKind::UnexpectedEof {
                return Error::new(Subject::File, "the file became shorter while it was read").at(shard.path.display());
            }
            Error::io(&shard.path, &format!("read tensor `{name}`"), error)
        })
    }

    fn find(&self, name: &str) -> Result<&(usize, TensorInfo)> {
        self.tensors.get(name).ok_or_else(|| {
            let error = Error::new(Subject::Model, format!("no tensor `{name}`")).at(self.path.display());
            match nearest(name, self.names()) {
                Some(near) => error.with_hint(format!("the nearest name is `{near}`")),
                None => error,
            }
        })
    }
}

fn open_shard(path: PathBuf) -> Result<(Shard, Header)> {
    let (mut file, size) = open(&path)?;
    let mut header = Header::read(&mut file, size).map_err(|error| error.at(path.display()))?;
    let metadata = std::mem::take(&mut header.metadata);
    Ok((Shard { path, file, data_start: header.data_start, metadata, tensors: Vec::new() }, header))
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Why a folder cannot be opened as a model, from what is in it.
fn no_weights(dir: &Path, names: &[String]) -> Error {
    if names.iter().any(|name| name == "adapter_config.json") {
        return Error::new(Subject::File, "an adapter, not a base model")
            .at(dir.display())
            .expected(format!("a folder with {MODEL} or {INDEX}"))
            .with_hint("name the model the adapter was trained on");
    }
    if let Some(Err(error)) =
        names.iter().map(|name| dir.join(name)).find(|path| is_foreign(path)).map(|path| refuse_foreign(&path))
    {
        return error;
    }
    let error = Error::new(Subject::File, "no weights").at(dir.display()).expected(format!("{MODEL} or {INDEX}"));
    match names.iter().find(|name| name.ends_with(".safetensors")) {
        Some(name) => error.with_hint(format!("to read `{name}`, name that file")),
        None => error,
    }
}

/// A path that is missing because a run was killed between two renames.
fn interrupted(path: &Path, error: Error) -> Error {
    let aside = set_aside(path);
    if !exists(&aside) {
        return error;
    }
    error.with_hint(format!("an interrupted run left it at `{}`: rename that back", aside.display()))
}
