//! The text about layers.

use std::collections::BTreeMap;
use std::fmt::{Result, Write};

use super::figures::{self, Speed, Summary};
use super::table::{Table, ms, percent, ratio};
use super::{threads, verdict};
use crate::conv1d::RANK;
use crate::peer::{Mode, candle, lowrank, python, stock};
use crate::record::{Layer, Part, Run};

/// All tables, the promises, and the closing lines.
pub fn text(run: &Run) -> std::result::Result<String, std::fmt::Error> {
    let mut text = String::new();
    for part in &run.parts {
        one(part, &mut text)?;
    }
    if let [two, one] = run.parts.as_slice() {
        writeln!(
            text,
            "\n{} over {}: geometric mean of the speed-up\n{}",
            threads(two),
            threads(one),
            speed_up(two, one)
        )?;
    }
    if let Some(first) = run.parts.first() {
        writeln!(text, "\n{}:\n{}", threads(first), verdict::layers(first))?;
        closing(first, &mut text)?;
    }
    Ok(text)
}

fn one(part: &Part, text: &mut String) -> Result {
    let (gemm, bandwidth) = (part.ceilings.gemm(), part.ceilings.bandwidth());
    writeln!(text, "\n{}: matrix product {gemm:.0} GFLOP/s, memory {bandwidth:.1} GB/s", threads(part))?;
    writeln!(text, "\nTraining step, r = {RANK}, {}, in ms\n{}", threads(part), train(part))?;
    writeln!(text, "Inference, r = {RANK}, {}, in ms\n{}", threads(part), infer(part))?;
    for (title, table) in [("Ranks", ranks(part)), ("Lengths", lengths(part)), ("Rank sweep", rank_sweep(part))] {
        if let Some(table) = table {
            writeln!(text, "{title}, {}\n{table}", threads(part))?;
        }
    }
    for (mark, names) in marks(part) {
        writeln!(text, "* {mark}: {}", names.join(", "))?;
    }
    Ok(())
}

/// The cell of a peer, with a star where there is something to say.
fn cell(layer: &Layer, peer: &str) -> String {
    let star = if layer.marks.contains_key(peer) { "*" } else { "" };
    format!("{}{star}", ms(layer.ms(peer)))
}

fn train(part: &Part) -> Table {
    let peers = [lowrank::FROZEN, lowrank::LORA, lowrank::FULL, python::FROZEN, python::PEFT, python::WEIGHT]
        .into_iter()
        .chain([python::FULL, stock::WEIGHT, candle::CANDLE]);
    let mut table = Table::new(&[
        "",
        "frozen",
        "lora",
        "full",
        "t-frozen",
        "peft",
        "t-weight",
        "t-full",
        "burn",
        "candle",
        "lora/peft",
        "lora/frozen",
        "lora/full",
    ]);
    for layer in figures::main(part, Mode::Train) {
        let name = [layer.geometry.name.clone()];
        let ratios = [python::PEFT, lowrank::FROZEN, lowrank::FULL].map(|over| ratio(layer.ratio(lowrank::LORA, over)));
        table.row(name.into_iter().chain(peers.clone().map(|peer| cell(layer, peer))).chain(ratios));
    }
    table
}

fn infer(part: &Part) -> Table {
    let peers =
        [lowrank::FROZEN, lowrank::LORA, python::FROZEN, python::PEFT, python::WEIGHT, stock::WEIGHT, candle::CANDLE];
    let mut table = Table::new(&[
        "",
        "frozen",
        "lora",
        "t-frozen",
        "peft",
        "t-weight",
        "burn",
        "candle",
        "lora/frozen",
        "FLOP/byte",
        "GFLOP/s",
        "of gemm",
        "of memory",
        "bound by",
    ]);
    for layer in figures::main(part, Mode::Infer) {
        let geometry = &layer.geometry;
        let mut row = vec![geometry.name.clone()];
        row.extend(peers.iter().map(|peer| cell(layer, peer)));
        row.extend([ratio(figures::overhead(layer)), format!("{:.1}", geometry.intensity())]);
        match layer.ms(lowrank::FROZEN).map(|ms| Speed::new(geometry, ms, &part.ceilings)) {
            Some(Speed { gflops, of_gemm, of_bandwidth }) => {
                row.extend([format!("{gflops:.0}"), percent(of_gemm), percent(of_bandwidth)]);
            }
            None => row.extend(["-"; 3].map(String::from)),
        }
        let memory = figures::is_memory_bound(geometry, &part.ceilings);
        row.push(if memory { "memory" } else { "arithmetic" }.into());
        table.row(row);
    }
    table
}

/// Geometric means over the layers, at each rank.
fn ranks(part: &Part) -> Option<Table> {
    let mut table =
        Table::new(&["r", "layers", "step lora/peft", "worst", "step lora/t-weight", "inference lora/peft"]);
    let mut ranks: Vec<_> = part.layers.iter().map(|layer| layer.rank).collect();
    ranks.sort_unstable();
    ranks.dedup();
    for rank in &ranks {
        let summary = |mode, over| Summary::ratios(figures::layers(part, *rank, mode), lowrank::LORA, over);
        let (peft, weight) = (summary(Mode::Train, python::PEFT), summary(Mode::Train, python::WEIGHT));
        let geomean = |summary: &Option<Summary>| ratio(summary.as_ref().map(|summary| summary.geomean));
        table.row([
            rank.to_string(),
            peft.as_ref().map_or(0, |summary| summary.count).to_string(),
            geomean(&peft),
            ratio(peft.as_ref().map(|summary| summary.worst)),
            geomean(&weight),
            geomean(&summary(Mode::Infer, python::PEFT)),
        ]);
    }
    (ranks.len() > 1).then_some(table)
}

fn lengths(part: &Part) -> Option<Table> {
    sweep(&part.lengths, "length", |layer| layer.geometry.length)
}

fn rank_sweep(part: &Part) -> Option<Table> {
    sweep(&part.ranks, "r", |layer| layer.rank)
}

fn sweep(layers: &[Layer], swept: &str, value: fn(&Layer) -> usize) -> Option<Table> {
    let mut table = Table::new(&[
        "",
        swept,
        "step frozen",
        "step lora",
        "lora/frozen",
        "inference frozen",
        "inference lora",
        "lora/frozen",
    ]);
    for pair in layers.chunks_exact(2) {
        let cells = |layer: &Layer| {
            [ms(layer.ms(lowrank::FROZEN)), ms(layer.ms(lowrank::LORA)), ratio(figures::overhead(layer))]
        };
        let (infer, train) = (&pair[0], &pair[1]);
        let start = [train.geometry.name.clone(), value(train).to_string()];
        table.row(start.into_iter().chain(cells(train)).chain(cells(infer)));
    }
    (!layers.is_empty()).then_some(table)
}

/// Remarks, each with the layers that it belongs to.
fn marks(part: &Part) -> BTreeMap<String, Vec<String>> {
    let mut marks: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for layer in figures::main(part, Mode::Train) {
        for (peer, mark) in &layer.marks {
            marks.entry(format!("{peer}: {mark}")).or_default().push(layer.geometry.name.clone());
        }
    }
    marks
}

fn speed_up(two: &Part, one: &Part) -> Table {
    let mut table = Table::new(&["", "inference", "step"]);
    for peer in [lowrank::FROZEN, lowrank::LORA, python::FROZEN, python::PEFT, stock::WEIGHT, candle::CANDLE] {
        let of = |mode| {
            let pairs = figures::main(two, mode).zip(figures::main(one, mode));
            let figures =
                pairs.filter_map(|(two, one)| Some((two.geometry.name.as_str(), one.ms(peer)? / two.ms(peer)?)));
            ratio(Summary::of(figures).map(|summary| summary.geomean))
        };
        table.row([peer.to_owned(), of(Mode::Infer), of(Mode::Train)]);
    }
    table
}

fn closing(part: &Part, text: &mut String) -> Result {
    let peft = Summary::ratios(figures::main(part, Mode::Train), lowrank::LORA, python::PEFT);
    if let Some(Summary { geomean, worst, worst_name, count }) = peft {
        writeln!(text, "step: geomean lowrank/peft {geomean:.2} worst {worst:.2} ({worst_name}) over {count}")?;
    }
    let sweeps = figures::sweeps(&part.lengths, Mode::Train);
    let slope = sweeps.iter().filter_map(|sweep| figures::slope(sweep)).max_by(f64::total_cmp);
    if let Some((Summary { geomean, worst, worst_name, .. }, slope)) = verdict::overhead(part).zip(slope) {
        let slope = 100.0 * slope;
        writeln!(
            text,
            "overhead: geomean lora/frozen {geomean:.2} worst {worst:.2} ({worst_name}); slope over length {slope:.1} %"
        )?;
    }
    Ok(())
}
