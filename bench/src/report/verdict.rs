//! What the project has promised, and whether it holds in this run.

use std::fmt;

use super::figures::{self, Speed, Summary};
use super::table::Table;
use crate::peer::{Mode, lowrank, python};
use crate::record::{Layer, Part};

/// One promise.
pub struct Bar {
    name: &'static str,
    limit: f64,
    /// The limit is the least that will do, not the most.
    at_least: bool,
    measured: Option<(f64, String)>,
}

impl Bar {
    /// The geometric mean is at most this.
    pub fn geomean(name: &'static str, limit: f64, summary: Option<&Summary>) -> Self {
        let measured = summary.map(|summary| (summary.geomean, format!("over {}", summary.count)));
        Self { name, limit, at_least: false, measured }
    }

    /// The largest is at most this.
    pub fn worst(name: &'static str, limit: f64, summary: Option<&Summary>) -> Self {
        let measured = summary.map(|summary| (summary.worst, summary.worst_name.clone()));
        Self { name, limit, at_least: false, measured }
    }

    /// The smallest is at least this.
    fn least<'a>(name: &'static str, limit: f64, figures: impl Iterator<Item = (&'a str, f64)>) -> Self {
        let smallest = figures.min_by(|a, b| a.1.total_cmp(&b.1));
        Self { name, limit, at_least: true, measured: smallest.map(|(layer, figure)| (figure, layer.to_owned())) }
    }

    fn holds(&self) -> Option<bool> {
        let (measured, _) = self.measured.as_ref()?;
        Some(if self.at_least { *measured >= self.limit } else { *measured <= self.limit })
    }
}

/// Promises as a table.
pub struct Verdict(pub Vec<Bar>);

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(&["promise", "limit", "measured", "of", "holds"]);
        for bar in &self.0 {
            let (measured, of) = match &bar.measured {
                Some((figure, of)) => (format!("{figure:.3}"), of.clone()),
                None => ("-".into(), "not measured".into()),
            };
            let limit = format!("{} {:.2}", if bar.at_least { ">=" } else { "<=" }, bar.limit);
            let holds = bar.holds().map_or("-", |holds| if holds { "yes" } else { "no" });
            table.row([bar.name.into(), limit, measured, of, holds.into()]);
        }
        table.fmt(f)
    }
}

/// The promises about layers.
pub fn layers(part: &Part) -> Verdict {
    Verdict([steps(part), overheads(part), forwards(part)].into_iter().flatten().collect())
}

fn steps(part: &Part) -> Vec<Bar> {
    let train = || figures::main(part, Mode::Train);
    let over_full = |depthwise: bool, full: &str| {
        Summary::ratios(train().filter(|layer| layer.geometry.is_depthwise() == depthwise), lowrank::LORA, full)
    };
    let peft = Summary::ratios(train(), lowrank::LORA, python::PEFT);
    let torch_full = Summary::ratios(train(), lowrank::LORA, python::FULL);
    vec![
        Bar::geomean("step, lowrank / peft, geomean", 0.45, peft.as_ref()),
        Bar::worst("step, lowrank / peft, worst", 0.85, peft.as_ref()),
        Bar::worst("step, lora / full of ours", 1.0, over_full(false, lowrank::FULL).as_ref()),
        Bar::worst("step, lora / full of ours, depthwise", 1.05, over_full(true, lowrank::FULL).as_ref()),
        Bar::worst("step, lora / full of PyTorch", 1.0, torch_full.as_ref()),
    ]
}

fn overheads(part: &Part) -> Vec<Bar> {
    let from = |mode, channels: std::ops::Range<usize>| {
        let wide = figures::main(part, mode).filter(|layer| channels.contains(&layer.geometry.channels()));
        Summary::ratios(wide, lowrank::LORA, lowrank::FROZEN)
    };
    let one_group = |layer: &&Layer| layer.geometry.channels() >= 64 && layer.geometry.groups == 1;
    let ungrouped = figures::main(part, Mode::Train).filter(one_group);
    let ungrouped = Summary::ratios(ungrouped, lowrank::LORA, lowrank::FROZEN);
    let slopes = figures::sweeps(&part.lengths, Mode::Train);
    let slopes = slopes.iter().filter_map(|sweep| Some((sweep[0].geometry.name.as_str(), figures::slope(sweep)?)));
    let slope = Summary::of(slopes);
    vec![
        Bar::geomean("overhead, 64 channels and up, geomean", 1.10, overhead(part).as_ref()),
        Bar::geomean("overhead, 64 channels and up, ungrouped, geomean", 1.10, ungrouped.as_ref()),
        Bar::worst("overhead, 128 channels and up, worst", 1.25, from(Mode::Train, 128..usize::MAX).as_ref()),
        Bar::worst("overhead, 64 to 127 channels, worst", 1.35, from(Mode::Train, 64..128).as_ref()),
        Bar::worst("overhead, largest over smallest length - 1", 0.05, slope.as_ref()),
        Bar::geomean("inference, live / frozen, geomean", 1.03, from(Mode::Infer, 64..usize::MAX).as_ref()),
        Bar::worst("inference, live / frozen, worst", 1.03, from(Mode::Infer, 64..usize::MAX).as_ref()),
    ]
}

fn forwards(part: &Part) -> Vec<Bar> {
    let forward = |memory_bound: bool, share: fn(Speed) -> f64| {
        let layers = figures::main(part, Mode::Infer);
        layers
            .filter(move |layer| figures::is_memory_bound(&layer.geometry, &part.ceilings) == memory_bound)
            .filter_map(move |layer| {
                let speed = Speed::new(&layer.geometry, layer.ms(lowrank::FROZEN)?, &part.ceilings);
                Some((layer.geometry.name.as_str(), share(speed)))
            })
    };
    vec![
        Bar::least("forward, share of gemm, compute-bound", 0.90, forward(false, |speed| speed.of_gemm)),
        Bar::least("forward, share of bandwidth, memory-bound", 0.70, forward(true, |speed| speed.of_bandwidth)),
    ]
}

/// The overhead over the layers that have 64 channels at least.
pub fn overhead(part: &Part) -> Option<Summary> {
    let wide = figures::main(part, Mode::Train).filter(|layer: &&Layer| layer.geometry.channels() >= 64);
    Summary::ratios(wide, lowrank::LORA, lowrank::FROZEN)
}
