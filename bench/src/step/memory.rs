//! Peak memory of training, in a fresh process.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::models::task;
use crate::machine::memory_kb;
use crate::peer::{Mode, lowrank, python};

const STEPS: usize = 3;

/// Resident memory of a process, in kilobytes.
#[derive(Debug, Serialize, Deserialize)]
#[expect(clippy::struct_field_names, reason = "the unit; the names are those of `peers/memory.py`")]
pub struct Memory {
    /// Before there was a model: all is loaded, and one small product computed.
    pub idle_kb: u64,
    /// At most, from then on to the last step.
    pub peak_kb: u64,
    /// The difference.
    pub step_kb: u64,
}

/// Builds a model in this process and trains it for a few steps.
pub fn measure(model: &str, examples: usize) -> Result<Memory> {
    let ones = || Tensor::<2>::ones([2, 2], &Device::flex());
    drop(ones().matmul(ones()).into_data());
    let idle_kb = memory_kb("VmRSS");
    fs::write("/proc/self/clear_refs", "5").context("the peak could not be reset")?;
    let mut trainer = task(model)?.trainer(examples)?;
    for _ in 0..STEPS {
        trainer.run(Mode::Step)?;
    }
    let peak_kb = memory_kb("VmHWM");
    Ok(Memory { idle_kb, peak_kb, step_kb: peak_kb.saturating_sub(idle_kb) })
}

/// The peak of each peer above its idle process, each in a process of its own.
pub fn of_peers(model: &str, examples: usize, peers: &[&str], threads: usize) -> Result<BTreeMap<String, u64>> {
    let (examples, threads) = (examples.to_string(), threads.to_string());
    let own = || -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["memory", model, &examples]);
        Ok(command)
    };
    let of_python = |peer: &str| {
        let mut command = python::command();
        command.args(["--memory", model, peer, &examples, "--threads", &threads]);
        command
    };
    let peak = |peer: &&str| {
        let command = if *peer == lowrank::LORA { own()? } else { of_python(peer) };
        Ok(((*peer).to_owned(), child(command)?.step_kb))
    };
    peers.iter().map(peak).collect()
}

fn child(mut command: Command) -> Result<Memory> {
    let output = command.stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "{command:?} failed");
    serde_json::from_slice(&output.stdout).with_context(|| format!("what {command:?} printed"))
}
