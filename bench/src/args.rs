//! The command line.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use serde::Serialize;

use crate::conv1d::{self, Extent, Plan};
use crate::geometry::Geometry;
use crate::machine::{Machine, date};
use crate::record::{Part, Run};
use crate::{folder, report, step};

/// Rounds of the short form of conv1d.
const QUICK_ROUNDS: usize = 9;

/// Measures lowrank beside PyTorch, PEFT, stock Burn and candle.
#[derive(Parser)]
#[command(version, max_term_width = 120)]
struct Args {
    #[command(subcommand)]
    command: Subject,
}

#[derive(Subcommand)]
enum Subject {
    /// Conv1d layers: inference and training step, against the machine's own ceilings.
    Conv1d(Conv1d),
    /// Whole training steps of models, their peak memory, and an adapter's switch and merge.
    Step(Common),
    /// One process of `conv1d`; prints its part.
    #[command(hide = true)]
    Conv1dPart(Conv1d),
    /// One process of `step`; prints its part.
    #[command(hide = true)]
    StepPart(Common),
    /// Peak memory of training a model, in this process.
    #[command(hide = true)]
    Memory { model: String, batch: usize },
}

#[derive(clap::Args)]
struct Common {
    /// The short form, in less than 3 minutes.
    #[arg(long)]
    quick: bool,
    /// Rounds of every measurement, at least.
    #[arg(long, default_value_t = 15, value_name = "N")]
    rounds: usize,
    /// Threads of every peer: 2, and 1 as well in the full form of conv1d, unless told otherwise.
    #[arg(long, value_delimiter = ',', value_name = "N,..")]
    threads: Option<Vec<usize>>,
    /// Folder that the table and JSON (and SVG) are written to.
    #[arg(long, value_name = "DIR", default_value_os_t = folder().join("results"))]
    output: PathBuf,
}

#[derive(clap::Args)]
struct Conv1d {
    #[command(flatten)]
    common: Common,
    /// The layers.
    #[arg(long, value_name = "FILE", default_value_os_t = folder().join("geometries.toml"))]
    geometries: PathBuf,
    /// Only the layers whose name contains this.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Neither other ranks nor sweeps.
    #[arg(long, hide = true)]
    layers: bool,
}

/// Does what the command line says.
pub fn run() -> Result<()> {
    match Args::parse().command {
        Subject::Conv1d(args) => {
            let threads = if args.common.quick { [2].as_slice() } else { [2, 1].as_slice() };
            let rounds = args.common.rounds(QUICK_ROUNDS);
            let run = gather(&args.common, rounds, threads, &["conv1d-part"], &["conv1d-part", "--layers"])?;
            report::conv1d(&run, &args.common.output)
        }
        Subject::Step(args) => {
            let run = gather(&args, args.rounds(step::QUICK_ROUNDS), &[2], &["step-part"], &["step-part"])?;
            report::step(&run, &args.output)
        }
        Subject::Conv1dPart(args) => print(&conv1d::measure(&args.plan()?)?),
        Subject::StepPart(args) => {
            print(&step::measure(args.rounds(step::QUICK_ROUNDS), rayon::current_num_threads(), args.quick)?)
        }
        Subject::Memory { model, batch } => print(&step::memory::measure(&model, batch)?),
    }
}

impl Common {
    /// The rounds that are asked for; in the short form, `most` of them.
    fn rounds(&self, most: usize) -> usize {
        if self.quick { self.rounds.min(most) } else { self.rounds }
    }
}

impl Conv1d {
    fn plan(&self) -> Result<Plan> {
        let (quick, rounds) = (self.common.quick, self.common.rounds(QUICK_ROUNDS));
        let named = |geometry: &Geometry| self.only.as_ref().is_none_or(|text| geometry.name.contains(text));
        let mut geometries = Geometry::read(&self.geometries)?;
        geometries.retain(|geometry| named(geometry) && (geometry.quick || !quick));
        ensure!(!geometries.is_empty(), "no layer is left to measure");
        let extent = match (self.layers, quick) {
            (true, _) => Extent::Layers,
            (false, true) => Extent::Quick,
            (false, false) => Extent::Full,
        };
        Ok(Plan { geometries, threads: rayon::current_num_threads(), rounds, extent })
    }
}

/// Measures every number of threads in a process of its own, which is told what to do and gets this one's arguments.
fn gather(args: &Common, rounds: usize, threads: &[usize], first: &[&str], further: &[&str]) -> Result<Run> {
    let threads = args.threads.as_deref().unwrap_or(threads);
    ensure!(args.rounds > 0 && !threads.is_empty() && !threads.contains(&0), "nothing to measure");
    let parts = threads.iter().enumerate();
    let parts = parts.map(|(at, threads)| measure(if at == 0 { first } else { further }, *threads));
    let own = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
    Ok(Run {
        command: format!("bench/{own}"),
        date: date(),
        machine: Machine::here(),
        rounds,
        parts: parts.collect::<Result<_>>()?,
    })
}

fn measure(part: &[&str], threads: usize) -> Result<Part> {
    let child = Command::new(std::env::current_exe()?)
        .args(part)
        .args(std::env::args_os().skip(2))
        .env("RAYON_NUM_THREADS", threads.to_string())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "the measurement with {threads} threads failed");
    serde_json::from_slice(&output.stdout).context("what the measuring process printed")
}

fn print(value: &impl Serialize) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    serde_json::to_writer(&mut stdout, value)?;
    Ok(writeln!(stdout)?)
}
