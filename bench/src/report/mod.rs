//! What a run says: a text with tables and closing lines, JSON, and a picture.

mod figures;
mod layers;
mod picture;
mod steps;
mod svg;
mod table;
mod verdict;

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::record::{Part, Run};

/// Prints and writes `conv1d.txt`, `conv1d.json` and `conv1d.svg`.
pub fn conv1d(run: &Run, folder: &Path) -> Result<()> {
    let text = format!("{}{}", heading(run)?, layers::text(run)?);
    write(folder, "conv1d", run, &text)?;
    fs::write(folder.join("conv1d.svg"), picture::draw(run))?;
    Ok(())
}

/// Prints and writes `step.txt` and `step.json`.
pub fn step(run: &Run, folder: &Path) -> Result<()> {
    let text = format!("{}{}", heading(run)?, steps::text(run)?);
    write(folder, "step", run, &text)
}

fn write(folder: &Path, name: &str, run: &Run, text: &str) -> Result<()> {
    print!("{text}");
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    fs::write(folder.join(format!("{name}.txt")), text)?;
    // One layer a line.
    let json = serde_json::to_string(run)?.replace("{\"geometry\":", "\n{\"geometry\":");
    Ok(fs::write(folder.join(format!("{name}.json")), json + "\n")?)
}

/// The command, the machine, and what was measured.
fn heading(run: &Run) -> Result<String> {
    let (machine, mut text) = (&run.machine, String::new());
    writeln!(text, "{}, {}", run.command, run.date)?;
    writeln!(
        text,
        "{}; {} processors, {} GB, cache {}, Linux {}",
        machine.processor, machine.processors, machine.memory_gb, machine.cache, machine.kernel
    )?;
    let versions = run.parts.first().map(|part| &part.versions).into_iter().flatten();
    let version = |(name, value): (&String, &serde_json::Value)| match value.as_str() {
        Some(version) => format!("{name} {version}"),
        None => format!("{name} {value}"),
    };
    writeln!(text, "{}", versions.map(version).collect::<Vec<_>>().join(", "))?;
    writeln!(text, "f32; medians of {} rounds or more, all peers in turn in every round", run.rounds)?;
    Ok(text)
}

/// The heading of a part.
fn threads(part: &Part) -> String {
    if part.threads == 1 { "1 thread".into() } else { format!("{} threads", part.threads) }
}
