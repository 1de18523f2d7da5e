//! A base model on disk: `config.json` and `model.safetensors` in one directory.

use std::path::Path;

use burn::module::Module;
use burn::tensor::Device;
use lowrank::files::{self, Checkpoint, Disk, writer};
use lowrank::{Error, Result, Subject};
use serde_json::{Map, Value};

use super::{Architecture, Dtype, Network, huggingface, weights};
use crate::tasks::Task;

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
/// A configuration is a page of text; more is something else.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// What a base model's `config.json` says.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The network: `model_type` and its keys.
    pub architecture: Architecture,
    /// What it is for, with the keys of that.
    pub task: Task,
}

/// A network and what goes with it.
#[derive(Debug, Clone)]
pub struct BaseModel {
    /// What `config.json` says.
    pub config: ModelConfig,
    /// The network, with its weights.
    pub network: Network,
}

impl ModelConfig {
    /// Reads a `config.json`, and what a task has beside it in `dir`.
    ///
    /// # Errors
    /// When it is not JSON, or a key is unknown, missing or wrong.
    pub fn from_json(text: &str, dir: &Path) -> Result<Self> {
        Self::from_keys(keys(text)?, dir)
    }

    /// Reads the `config.json` of a base directory, and what other files there say.
    ///
    /// # Errors
    /// As [`ModelConfig::from_json`], and when a file cannot be read.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(CONFIG);
        let text = files::read_to_string(&path, MAX_CONFIG_BYTES)?;
        let mut keys = keys(&text).map_err(|error| error.at(path.display()))?;
        huggingface::complete(&mut keys, dir)?;
        Self::from_keys(keys, dir).map_err(|error| error.at(path.display()))
    }

    fn from_keys(mut keys: Map<String, Value>, dir: &Path) -> Result<Self> {
        let Some(Value::String(model_type)) = keys.shift_remove("model_type") else {
            return Err(Error::new(Subject::Model, "missing").at("model_type").expected("the name of an architecture"));
        };
        let task = Task::take(&model_type, &mut keys, dir)?;
        let architecture = Architecture::from_map(&model_type, keys)?;
        task.check(&architecture)?;
        Ok(Self { architecture, task })
    }

    /// Writes a `config.json`.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut keys = self.architecture.to_map();
        keys.extend(self.task.to_map());
        format!("{:#}\n", Value::Object(keys))
    }
}

fn keys(text: &str) -> Result<Map<String, Value>> {
    serde_json::from_str(text).map_err(|error| Error::new(Subject::Model, error.to_string()))
}

impl BaseModel {
    /// Reads a base directory; `dtype` is the type in which weights are held while they are frozen.
    ///
    /// # Errors
    /// When a file is missing or malformed, or the weights do not fit the network.
    pub fn load(dir: &Path, device: &Device, dtype: Dtype) -> Result<Self> {
        let config = ModelConfig::read(dir)?;
        let checkpoint = Checkpoint::open(dir)?;
        let network = config.architecture.init(config.task.outputs(), device).materialize();
        let network =
            weights::load(network, &checkpoint, dtype).map_err(|error| error.at(dir.join(WEIGHTS).display()))?;
        Ok(Self { config, network })
    }

    /// Writes a base directory, in single precision: the weights first, the configuration that makes it one last.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<()> {
        files::create_dir(dir)?;
        let tensors = weights::save(&self.network.clone().materialize())?;
        let tensors = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
        writer::complete(&Disk, &dir.join(WEIGHTS), tensors)?.publish()?;
        self.config.task.write(dir)?;
        files::write(&dir.join(CONFIG), self.config.to_json().as_bytes())
    }
}
