//! The tensors of a safetensors file, or of a model's folder.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::path::Path;

use lowrank::Error;
use lowrank::files::{self, Checkpoint};
use serde::Serialize;

use super::ADAPTER_CONFIG;
use crate::commands::{Exit, Failure};
use crate::output::Output;
use crate::output::table::{Align, Table};
use crate::output::units;

#[derive(Debug, Serialize)]
struct Report {
    path: String,
    files: Vec<File>,
    tensors: Vec<TensorLine>,
    parameters: usize,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct File {
    path: String,
    tensors: usize,
    metadata: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
struct TensorLine {
    name: String,
    dtype: String,
    shape: Vec<usize>,
    bytes: u64,
}

/// Lists the tensors at `path`.
pub fn run(path: &Path, output: Output) -> Result<Exit, Failure> {
    let checkpoint = Checkpoint::open(path).map_err(|error| with_adapters(error, path))?;
    let mut tensors = Vec::new();
    for name in checkpoint.names() {
        if let Some(info) = checkpoint.get(name) {
            let (dtype, shape, bytes) = (info.dtype.to_string(), info.shape.clone(), info.byte_len());
            tensors.push(TensorLine { name: name.to_owned(), dtype, shape, bytes });
        }
    }
    let files = checkpoint.shards().iter().map(|shard| File {
        path: shard.path().display().to_string(),
        tensors: shard.tensors().len(),
        metadata: shard.metadata().clone(),
    });
    output.result(&Report {
        path: path.display().to_string(),
        files: files.collect(),
        parameters: tensors.iter().map(|tensor| tensor.shape.iter().product::<usize>()).sum(),
        bytes: tensors.iter().map(|tensor| tensor.bytes).sum(),
        tensors,
    })?;
    Ok(Exit::Done)
}

/// Points to adapters in sub-folders, where PEFT puts those with a name.
fn with_adapters(error: Error, path: &Path) -> Error {
    let names = files::list(path).unwrap_or_default();
    match names.into_iter().find(|name| files::exists(&path.join(name).join(ADAPTER_CONFIG))) {
        Some(name) => error.with_hint(format!("there is an adapter in `{}`", path.join(name).display())),
        None => error,
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = [("tensor", Align::Left), ("type", Align::Left), ("shape", Align::Left), ("bytes", Align::Right)];
        let mut table = Table::new(&columns);
        for tensor in &self.tensors {
            let bytes = units::bytes(tensor.bytes);
            table.row([tensor.name.clone(), tensor.dtype.clone(), units::shape(&tensor.shape), bytes]);
        }
        writeln!(f, "{table}")?;
        for file in &self.files {
            let metadata = file.metadata.iter().map(|(key, value)| format!("  {key}={}", shortened(value)));
            let tensors = units::count(file.tensors as u64, "tensor");
            writeln!(f, "{}: {tensors}{}", file.path, metadata.collect::<String>())?;
        }
        writeln!(f, "{} parameters, {}", units::thousands(self.parameters), units::bytes(self.bytes))
    }
}

/// Metadata can be a page long; JSON output has all of it.
fn shortened(text: &str) -> String {
    let line: String = text.chars().take(60).map(|char| if char.is_control() { ' ' } else { char }).collect();
    if text.chars().count() > 60 { format!("{line}...") } else { line }
}
