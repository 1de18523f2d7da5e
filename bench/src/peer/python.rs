//! The `PyTorch` and PEFT peers: a process that serves one JSON object a line each way.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::rc::Rc;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::{Mode, Peer};
use crate::geometry::Geometry;

/// PEFT's layer, or its two-path form written by hand where PEFT cannot.
pub const PEFT: &str = "torch-peft";
/// The adapter folded into the weight, gradients through the fold.
pub const WEIGHT: &str = "torch-weight";
/// The layer alone.
pub const FROZEN: &str = "torch-frozen";
/// The weight and the bias trained.
pub const FULL: &str = "torch-full";

/// The Python process.
pub struct Server {
    process: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// The server, as its peers share it.
pub type Shared = Rc<RefCell<Server>>;

/// What a layer or a model was built as.
#[derive(Debug, Deserialize)]
pub struct Built {
    /// The peers there are.
    pub peers: Vec<String>,
    /// Remarks by peer.
    #[serde(default)]
    pub marks: BTreeMap<String, String>,
    /// Trained parameters by peer.
    #[serde(default)]
    pub trainable: BTreeMap<String, usize>,
}

impl Server {
    /// Starts the process, for so many threads.
    pub fn start(threads: usize) -> Result<Shared> {
        let mut process = command()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start Python; LOWRANK_PYTHON names one that has torch and peft")?;
        let requests = process.stdin.take().context("the Python process has no input")?;
        let answers = process.stdout.take().context("the Python process has no output")?;
        let mut server = Self { process, requests, answers: BufReader::new(answers) };
        server.ask::<Value>(&json!({"cmd": "threads", "n": threads}))?;
        Ok(Rc::new(RefCell::new(server)))
    }

    /// Versions of what computes there.
    pub fn hello(&mut self) -> Result<Map<String, Value>> {
        self.ask(&json!({"cmd": "hello"}))
    }

    /// Builds a layer.
    pub fn layer(&mut self, geometry: &Geometry, rank: usize) -> Result<Built> {
        let (batch, length) = (geometry.batch, geometry.length);
        self.ask(&json!({"cmd": "layer", "geometry": geometry, "rank": rank, "batch": batch, "length": length}))
    }

    /// Builds a model.
    pub fn model(&mut self, model: &str, batch: usize) -> Result<Built> {
        self.ask(&json!({"cmd": "step", "model": model, "batch": batch}))
    }

    /// Frees the present layer or model.
    pub fn release(&mut self) -> Result<()> {
        self.ask::<Value>(&json!({"cmd": "drop"})).map(drop)
    }

    fn ask<T: DeserializeOwned>(&mut self, request: &Value) -> Result<T> {
        writeln!(self.requests, "{request}")
            .and_then(|()| self.requests.flush())
            .context("the Python process is gone")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let answer: Value = serde_json::from_str(&line).with_context(|| format!("no answer to {request}"))?;
        if let Some(error) = answer.get("error") {
            bail!("{request}: {}", error.as_str().unwrap_or_default());
        }
        serde_json::from_value(answer).with_context(|| format!("an answer to {request}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It holds nothing that could be lost.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The command that runs `torch_peer.py`.
pub fn command() -> Command {
    let python = std::env::var("LOWRANK_PYTHON").unwrap_or_else(|_| "python3".into());
    let mut command = Command::new(python);
    command.arg("-B").arg(crate::folder().join("peers/torch_peer.py")).env("OMP_PROC_BIND", "true");
    command
}

#[derive(Deserialize)]
struct Timed {
    ms: f64,
}

/// One of the server's peers.
pub struct PythonPeer {
    name: String,
    mark: Option<String>,
    modes: &'static [Mode],
    server: Shared,
}

impl PythonPeer {
    /// The peer `name` of what the server has built.
    pub fn new(name: &str, built: &Built, modes: &'static [Mode], server: &Shared) -> Self {
        Self { name: name.to_owned(), mark: built.marks.get(name).cloned(), modes, server: Rc::clone(server) }
    }
}

impl Peer for PythonPeer {
    fn name(&self) -> &str {
        &self.name
    }

    fn mark(&self) -> Option<&str> {
        self.mark.as_deref()
    }

    fn takes(&self, mode: Mode) -> bool {
        self.modes.contains(&mode)
    }

    fn run(&mut self, mode: Mode) -> Result<f64> {
        let request = if Mode::MANAGE.contains(&mode) {
            json!({"cmd": "manage", "what": mode.name()})
        } else {
            json!({"cmd": "run", "peer": self.name, "mode": mode.name()})
        };
        self.server.borrow_mut().ask::<Timed>(&request).map(|timed| timed.ms)
    }
}
