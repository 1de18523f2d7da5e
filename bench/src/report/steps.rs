//! The text about whole models.

use std::fmt::{Result, Write};

use super::figures::Summary;
use super::table::{Table, ms, ratio};
use super::threads;
use super::verdict::{Bar, Verdict};
use crate::peer::{Mode, lowrank, python};
use crate::record::{self, Part, Run, Step, Streaming};

/// `PyTorch`'s forms.
const TWO_PATH: &str = "torch-twopath";
const FORMS: [&str; 4] = [python::PEFT, TWO_PATH, python::WEIGHT, python::FULL];
/// The models, in the order of the closing line.
const MODELS: [&str; 4] = ["tcn", "whisper", "wav2vec2", "hifigan"];

/// All tables, the promises, and the closing line.
pub fn text(run: &Run) -> std::result::Result<String, std::fmt::Error> {
    let mut text = String::new();
    for part in &run.parts {
        writeln!(text, "\nTraining step, {}, in ms\n{}", threads(part), times(part))?;
        if part.steps.iter().any(|step| !step.peak_kb.is_empty()) {
            writeln!(
                text,
                "Peak memory of training above the idle process, {}, in MB\n{}",
                threads(part),
                memory(part)
            )?;
        }
        writeln!(text, "Adapters outside of training, {}, in ms\n{}", threads(part), manage(part))?;
        writeln!(text, "Forward of a batch, 8 adapters or one, {}, in ms\n{}", threads(part), mixed(part))?;
        marks(part, &mut text)?;
        if let Some(streaming) = &part.streaming {
            writeln!(text, "\nSilero VAD, one recording frame by frame, {}\n{}", threads(part), listening(streaming))?;
        }
    }
    if let Some(first) = run.parts.first() {
        writeln!(text, "\n{}:\n{}", threads(first), verdict(first))?;
        closing(first, &mut text)?;
    }
    Ok(text)
}

fn title(step: &Step) -> String {
    format!("{}, batch {}", step.model, step.batch)
}

fn times(part: &Part) -> Table {
    let mut table = Table::new(&[
        "",
        "lowrank",
        "peft",
        "t-two-path",
        "t-weight",
        "t-full",
        "lowrank/fastest",
        "lowrank/peft",
        "parameters",
    ]);
    for step in &part.steps {
        let cell = |peer: &str| {
            let star = if step.marks.contains_key(peer) { "*" } else { "" };
            format!("{}{star}", ms(step.ms(peer)))
        };
        let peft = step.ratio(lowrank::LORA, python::PEFT);
        let parameters = step.trainable.get(lowrank::LORA).map_or("-".into(), usize::to_string);
        let row = [title(step), cell(lowrank::LORA)].into_iter().chain(FORMS.map(cell));
        table.row(row.chain([ratio(over_fastest(step)), ratio(peft), parameters]));
    }
    table
}

/// Ours over the fastest of `PyTorch`'s forms, full fine-tuning among them.
fn over_fastest(step: &Step) -> Option<f64> {
    FORMS.iter().filter_map(|form| step.ratio(lowrank::LORA, form)).max_by(f64::total_cmp)
}

fn memory(part: &Part) -> Table {
    let mut table = Table::new(&["", "lowrank", "peft", "t-weight", "t-full", "lowrank/peft"]);
    for step in &part.steps {
        let peers = [lowrank::LORA, python::PEFT, python::WEIGHT, python::FULL];
        let cell = |peer: &str| step.peak_kb.get(peer).map_or("-".into(), |kb| (kb / 1000).to_string());
        table.row([title(step)].into_iter().chain(peers.map(cell)).chain([ratio(memory_over_peft(step))]));
    }
    table
}

#[expect(clippy::cast_precision_loss, reason = "kilobytes of one machine's memory")]
fn memory_over_peft(step: &Step) -> Option<f64> {
    let peak = |peer| step.peak_kb.get(peer).map(|kb| *kb as f64);
    Some(peak(lowrank::LORA)? / peak(python::PEFT)?)
}

fn manage(part: &Part) -> Table {
    let modes = [Mode::Switch, Mode::Merge, Mode::Unmerge, Mode::Hotswap];
    let titles: Vec<&str> = [""].into_iter().chain(modes.iter().flat_map(|mode| [mode.name(), "peft"])).collect();
    let mut table = Table::new(&titles);
    for step in &part.steps {
        let pair = |mode| [lowrank::LORA, python::PEFT].map(|peer| ms(managed(step, mode, peer)));
        table.row([title(step)].into_iter().chain(modes.into_iter().flat_map(pair)));
    }
    table
}

/// Mixed batches beside batches with one adapter.
fn mixed(part: &Part) -> Table {
    let titles = ["", "mixed 8", "single", "mixed/single", "peft mixed 8", "peft single", "mixed/single"];
    let mut table = Table::new(&titles);
    for step in &part.steps {
        let of = |peer| {
            let [mixed, single] = [Mode::Mixed, Mode::Single].map(|mode| ms(managed(step, mode, peer)));
            [mixed, single, ratio(mixed_over_single(step, peer))]
        };
        table.row([title(step)].into_iter().chain([lowrank::LORA, python::PEFT].into_iter().flat_map(of)));
    }
    table
}

fn mixed_over_single(step: &Step, peer: &str) -> Option<f64> {
    Some(managed(step, Mode::Mixed, peer)? / managed(step, Mode::Single, peer)?)
}

/// The name of each form of a network that listens.
const LISTENERS: [(&str, &str); 2] = [(lowrank::FROZEN, "without an adapter"), (lowrank::LORA, "live adapter")];

fn listening(streaming: &Streaming) -> Table {
    let mut table = Table::new(&["", "ms a frame", "real-time factor", "live/without"]);
    for (peer, title) in LISTENERS {
        let own = streaming.series.iter().find(|series| series.peer == peer).map(|series| series.median_ms);
        #[expect(clippy::cast_precision_loss, reason = "a few frames")]
        let frame = own.map(|ms| ms / streaming.frames as f64);
        let factor = own.map_or("-".into(), |ms| format!("{:.4}", ms / 1e3 / streaming.seconds));
        let over = (peer == lowrank::LORA).then(|| live_over_without(streaming)).flatten();
        table.row([title.into(), ms(frame), factor, ratio(over)]);
    }
    table
}

fn live_over_without(streaming: &Streaming) -> Option<f64> {
    record::ratio(&streaming.series, lowrank::LORA, lowrank::FROZEN)
}

/// What a peer took for something outside of training.
fn managed(step: &Step, mode: Mode, peer: &str) -> Option<f64> {
    let manage = step.manage.iter().find(|manage| manage.mode == mode)?;
    manage.series.iter().find(|series| series.peer == peer).map(|series| series.median_ms)
}

fn marks(part: &Part, text: &mut String) -> Result {
    for step in &part.steps {
        for (peer, mark) in &step.marks {
            writeln!(text, "* {}, {peer}: {mark}", title(step))?;
        }
    }
    Ok(())
}

/// The slowest against `PyTorch` of a model's batches.
fn worst(part: &Part, model: &str) -> Option<f64> {
    let steps = part.steps.iter().filter(|step| step.model == model);
    steps.filter_map(over_fastest).max_by(f64::total_cmp)
}

fn verdict(part: &Part) -> Verdict {
    let over =
        |models: &[&'static str]| Summary::of(models.iter().filter_map(|model| Some((*model, worst(part, model)?))));
    let memory = part.steps.iter().filter_map(|step| Some((step.model.as_str(), memory_over_peft(step)?)));
    let streaming = part.streaming.iter().filter_map(|streaming| Some(("silero_vad", live_over_without(streaming)?)));
    let mixed =
        part.steps.iter().filter_map(|step| Some((step.model.as_str(), mixed_over_single(step, lowrank::LORA)?)));
    Verdict(vec![
        Bar::worst("step of the TCN, lowrank / fastest of PyTorch", 0.70, over(&MODELS[..1]).as_ref()),
        Bar::worst("step of the others, lowrank / fastest of PyTorch", 0.80, over(&MODELS[1..]).as_ref()),
        Bar::worst("peak memory, lowrank / peft", 0.60, Summary::of(memory).as_ref()),
        Bar::worst("batch of 8 adapters / of one", 1.25, Summary::of(mixed).as_ref()),
        Bar::worst("streaming, live adapter / without", 1.05, Summary::of(streaming).as_ref()),
    ])
}

fn closing(part: &Part, text: &mut String) -> Result {
    let figures = MODELS.map(|model| format!("{model} {}", ratio(worst(part, model))));
    writeln!(text, "whole steps: {} (lowrank / fastest PyTorch form)", figures.join(" "))
}
