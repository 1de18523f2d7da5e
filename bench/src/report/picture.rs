//! The picture: every layer's forward under the machine's two ceilings, and the adapter's overhead over the length.

use super::figures::{self, Speed};
use super::svg::{Scale, dot, line, polyline, text};
use super::threads;
use crate::peer::{Mode, lowrank, python};
use crate::record::{Layer, Part, Run};

const WIDTH: f64 = 1080.0;
const HEIGHT: f64 = 460.0;
/// Top and bottom of both panels.
const TOP: f64 = 64.0;
const BOTTOM: f64 = 400.0;
const STYLE: &str = include_str!("picture.css");

/// The picture of a run's first part.
pub fn draw(run: &Run) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
         aria-label=\"Conv1d forward against the machine's ceilings, and LoRA's overhead against length\">\n<style>\n\
         {STYLE}</style>\n<rect class=\"page\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>\n"
    );
    if let Some(part) = run.parts.first() {
        svg += &roofline(part);
        svg += &overheads(part);
        svg +=
            &text("note", "start", (64.0, 444.0), &format!("{}, {}, {}", run.command, run.date, run.machine.processor));
    }
    svg += "</svg>\n";
    svg
}

fn roofline(part: &Part) -> String {
    let (gemm, bandwidth) = (part.ceilings.gemm(), part.ceilings.bandwidth());
    let x = Scale::logarithmic(0.5..1000.0, 64.0..540.0);
    let y = Scale::logarithmic(1.0..400.0, BOTTOM..TOP);
    let mut svg = text("title", "start", (64.0, 28.0), &format!("Forward of the layers, {}", threads(part)));
    svg += &text("label", "start", (64.0, 48.0), "GFLOP/s over FLOP a byte");
    for value in [1.0, 10.0, 100.0, 1000.0] {
        svg += &vertical(&x, value, &value.to_string());
    }
    for value in [1.0, 3.0, 10.0, 30.0, 100.0, 300.0] {
        svg += &horizontal(&y, value, (64.0, 540.0), &value.to_string());
    }
    let place = |intensity: f64, gflops: f64| (x.place(intensity), y.place(gflops));
    svg += &polyline("ceiling", &[place(0.5, 0.5 * bandwidth), place(gemm / bandwidth, gemm), place(1000.0, gemm)]);
    let ceiling = format!("gemm 2048: {gemm:.0} GFLOP/s");
    svg += &text("label", "end", (536.0, y.place(gemm) - 8.0), &ceiling);
    let (right, below) = place(1.5, 1.5 * bandwidth);
    svg += &text("label", "start", (right + 8.0, below + 14.0), &format!("memory: {bandwidth:.0} GB/s"));
    for (class, peer) in [("torch", python::FROZEN), ("ours", lowrank::FROZEN)] {
        for layer in figures::main(part, Mode::Infer) {
            let Some(ms) = layer.ms(peer) else { continue };
            let gflops = Speed::new(&layer.geometry, ms, &part.ceilings).gflops;
            let title = format!("{}, {peer}: {gflops:.0} GFLOP/s", layer.geometry.name);
            svg += &dot(class, place(layer.geometry.intensity(), gflops), &title);
        }
    }
    svg += &legend(400.0, 340.0, &[("ours", "lowrank"), ("torch", "PyTorch")]);
    svg
}

fn overheads(part: &Part) -> String {
    let x = Scale::logarithmic(900.0..1_200_000.0, 620.0..1050.0);
    let largest = part.lengths.iter().filter_map(figures::overhead).fold(1.5, f64::max);
    let y = Scale::linear(0.9..largest, BOTTOM..TOP);
    let mut svg = text("title", "start", (620.0, 28.0), &format!("What the adapter costs, {}", threads(part)));
    svg += &text("label", "start", (620.0, 48.0), "LoRA over frozen, against samples");
    for (value, name) in [(1e3, "1k"), (1e4, "10k"), (1e5, "100k"), (1e6, "1M")] {
        svg += &vertical(&x, value, name);
    }
    for value in [0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 2.0, 2.5, 3.0].into_iter().filter(|value| *value <= largest) {
        svg += &horizontal(&y, value, (620.0, 1050.0), &format!("{value:.1}"));
    }
    let sweeps = |mode| figures::sweeps(&part.lengths, mode);
    let mut names = Vec::new();
    for (mode, what) in [(Mode::Train, "step"), (Mode::Infer, "inference")] {
        for (at, sweep) in sweeps(mode).iter().enumerate() {
            let class = format!("sweep{at} {what}");
            svg += &curve(&class, sweep, &x, &y);
            names.push((class, format!("{}, {what}", sweep[0].geometry.name)));
        }
    }
    let names: Vec<_> = names.iter().map(|(class, name)| (class.as_str(), name.as_str())).collect();
    svg += &legend(860.0, 84.0, &names);
    svg
}

fn curve(class: &str, sweep: &[&Layer], x: &Scale, y: &Scale) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a million at most")]
    let length = |layer: &Layer| layer.geometry.length as f64;
    let point =
        |layer: &&Layer| Some((x.place(length(layer)), y.place(figures::overhead(layer)?), figures::overhead(layer)?));
    let points: Vec<_> = sweep.iter().filter_map(point).collect();
    let line = polyline(class, &points.iter().map(|(x, y, _)| (*x, *y)).collect::<Vec<_>>());
    points.iter().fold(line, |svg, (x, y, overhead)| svg + &dot(class, (*x, *y), &format!("{overhead:.3}")))
}

fn vertical(x: &Scale, value: f64, name: &str) -> String {
    let x = x.place(value);
    line("grid", (x, TOP), (x, BOTTOM)) + &text("label", "middle", (x, BOTTOM + 18.0), name)
}

fn horizontal(y: &Scale, value: f64, (left, right): (f64, f64), name: &str) -> String {
    let y = y.place(value);
    line("grid", (left, y), (right, y)) + &text("label", "end", (left - 8.0, y + 4.0), name)
}

fn legend(x: f64, y: f64, entries: &[(&str, &str)]) -> String {
    let mut place = y;
    let mut svg = String::new();
    for (class, name) in entries {
        svg += &dot(class, (x, place - 4.0), name);
        svg += &text("label", "start", (x + 10.0, place), name);
        place += 18.0;
    }
    svg
}
