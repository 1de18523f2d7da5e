//! The benchmark of whole models, as far as one process with one number of threads goes.

mod layers;
mod manager;
pub mod memory;
mod models;
mod streaming;
mod trainer;

use anyhow::Result;
use lowrank::config::{InitLoraWeights, LoraConfig, Patterns};

use crate::peer::lowrank::LORA;
use crate::peer::python::{self, PythonPeer, Server, Shared};
use crate::peer::{Mode, Peer};
use crate::record::{Ceilings, Manage, Part, Step};
use crate::{machine, rounds, versions};
use models::{Net, task};

/// The models, with the examples of a step.
const MODELS: [(&str, usize); 5] = [("tcn", 16), ("tcn", 64), ("whisper", 8), ("wav2vec2", 2), ("hifigan", 1)];
const QUICK: [(&str, usize); 4] = [("tcn", 16), ("whisper", 8), ("wav2vec2", 2), ("hifigan", 1)];
/// Rounds of the short form, at most.
pub const QUICK_ROUNDS: usize = 5;
/// The adapter that trains.
const ADAPTER: &str = lowrank_burn::attach::DEFAULT;
/// Whose memory is measured.
const REMEMBERED: [&str; 4] = [LORA, python::PEFT, python::WEIGHT, python::FULL];

/// The adapter of a model: as `peers/step.py` has it, and random in both factors, so that nothing can be left out.
fn config<M: Net>() -> LoraConfig {
    let targets = match M::TARGETS {
        [word] => Patterns::Regex((*word).into()),
        names => Patterns::List(names.iter().map(|name| (*name).into()).collect()),
    };
    LoraConfig {
        r: 8,
        lora_alpha: 16.0,
        target_modules: Some(targets),
        init_lora_weights: InitLoraWeights::False,
        ..LoraConfig::default()
    }
}

/// Measures every model, and says on stderr where it is. The short form has fewer rounds and leaves memory out.
pub fn measure(rounds: usize, threads: usize, quick: bool) -> Result<Part> {
    let server = Server::start(threads)?;
    let versions = versions::all(&mut server.borrow_mut())?;
    let models = if quick { QUICK.as_slice() } else { MODELS.as_slice() };
    let mut peaks = Vec::new();
    for (model, examples) in models.iter().filter(|_| !quick) {
        eprintln!("{threads} threads, {model}, batch {examples}, memory");
        peaks.push(memory::of_peers(model, *examples, &REMEMBERED, threads)?);
    }
    machine::pin_main();
    let mut steps = Vec::new();
    for (at, (model, examples)) in models.iter().enumerate() {
        eprintln!("{threads} threads, {model}, batch {examples}");
        let step = timed_step(model, *examples, rounds, &server)?;
        steps.push(Step { peak_kb: peaks.get(at).cloned().unwrap_or_default(), ..step });
    }
    eprintln!("{threads} threads, silero_vad, streaming");
    let streaming = Some(streaming::measure(rounds)?);
    let (layers, lengths, ranks) = (Vec::new(), Vec::new(), Vec::new());
    Ok(Part { threads, versions, ceilings: Ceilings::default(), layers, lengths, ranks, steps, streaming })
}

fn timed_step(model: &str, examples: usize, rounds: usize, server: &Shared) -> Result<Step> {
    let task = task(model)?;
    let built = server.borrow_mut().model(model, examples)?;
    let trainer = task.trainer(examples)?;
    let mut trainable = built.trainable.clone();
    trainable.extend(trainer.trainable().map(|count| (LORA.to_owned(), count)));
    let python = |name: &str, modes| Box::new(PythonPeer::new(name, &built, modes, server)) as Box<dyn Peer>;
    let mut peers = vec![trainer];
    peers.extend(built.peers.iter().map(|name| python(name, &[Mode::Step])));
    let series = rounds::measure(&mut peers, Mode::Step, rounds)?;

    // Where PEFT cannot, there is nothing of its to manage.
    let mut managers = vec![task.manager(examples)?];
    managers.extend((!built.marks.contains_key(python::PEFT)).then(|| python(python::PEFT, &Mode::MANAGE)));
    let mut manage = |mode| Ok(Manage { mode, series: rounds::measure(&mut managers, mode, rounds)? });
    let manage = Mode::MANAGE.into_iter().map(&mut manage).collect::<Result<_>>()?;
    server.borrow_mut().release()?;
    let peak_kb = std::collections::BTreeMap::new();
    Ok(Step { model: model.to_owned(), batch: examples, series, trainable, marks: built.marks, peak_kb, manage })
}
