//! Line charts as inline SVG. Colours are the page's, by class, so that they follow the light or dark scheme.

use super::escape;
use super::svg::{self, Anchor};

const WIDTH: f64 = 540.0;
const HEIGHT: f64 = 290.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 30.0;
/// The height of the axis of steps.
const BASE: f64 = HEIGHT - 40.0;

/// More points than this are averaged in groups: a screen shows no more.
const POINTS: usize = 400;

/// Up to so many points are dots, more are only a curve.
const FEW: usize = 40;

/// One curve. Points whose `y` is not finite are left out.
pub(super) struct Series<'a> {
    pub(super) name: &'a str,
    /// The class of the style sheet that has its colour.
    pub(super) class: &'a str,
    pub(super) points: Vec<(f64, f64)>,
    /// Draws a smoothed curve over a faint one of the values.
    pub(super) smooth: bool,
}

/// A chart of `series` over optimiser steps, with a dashed line at the step `mark`.
pub(super) fn line_chart(name: &str, series: &[Series<'_>], mark: Option<u64>) -> String {
    let finite = |series: &Series<'_>| -> Vec<(f64, f64)> {
        series.points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite()).collect()
    };
    let curves: Vec<_> = series.iter().map(|series| (series, thin(&finite(series)))).collect();
    let points = || curves.iter().flat_map(|(_, points)| points);
    let Some(x) = Axis::steps(points().map(|point| point.0)) else {
        return format!("<p>{}: no values.</p>", escape(name));
    };
    let y = Axis::values(points().map(|point| point.1));
    let at = |(px, py): (f64, f64)| (LEFT + x.place(px) * inner_width(), BASE - y.place(py) * inner_height());
    let mut content = grid(&x, &y);
    if let Some(step) = mark.map(real).filter(|step| (x.low..=x.high).contains(step)) {
        let px = at((step, y.low)).0;
        let (anchor, gap) = if x.place(step) > 0.85 { (Anchor::End, -5.0) } else { (Anchor::Start, 5.0) };
        content += &svg::line("mark", (px, TOP), (px, BASE));
        content += &svg::text("", (px + gap, TOP + 11.0), anchor, "best");
    }
    for (series, points) in &curves {
        content += &curve(series, points, at);
    }
    svg::picture(name, (WIDTH, HEIGHT), &(content + &legend(series)))
}

fn inner_width() -> f64 {
    WIDTH - LEFT - RIGHT
}

fn inner_height() -> f64 {
    BASE - TOP
}

#[expect(clippy::cast_precision_loss, reason = "a place in a picture")]
fn real(count: u64) -> f64 {
    count as f64
}

/// Averages of neighbours, at most [`POINTS`] of them.
fn thin(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mean = |group: &[(f64, f64)]| {
        let count = real(group.len() as u64);
        (group.iter().map(|p| p.0).sum::<f64>() / count, group.iter().map(|p| p.1).sum::<f64>() / count)
    };
    points.chunks(points.len().div_ceil(POINTS).max(1)).map(mean).collect()
}

/// Every value averaged with its neighbours, a fortieth of the curve to either side.
fn smooth(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let reach = points.len() / 40;
    let average = |(place, point): (usize, &(f64, f64))| {
        let near = &points[place.saturating_sub(reach)..points.len().min(place + reach + 1)];
        (point.0, near.iter().map(|point| point.1).sum::<f64>() / real(near.len() as u64))
    };
    points.iter().enumerate().map(average).collect()
}

fn curve(series: &Series<'_>, points: &[(f64, f64)], at: impl Fn((f64, f64)) -> (f64, f64)) -> String {
    let line = |points: &[(f64, f64)], class: &str| {
        svg::polyline(&format!("curve {}{class}", series.class), points.iter().map(|point| at(*point)))
    };
    if series.smooth && points.len() > FEW {
        return line(points, " faint") + &line(&smooth(points), "");
    }
    let mut drawn = line(points, "");
    if points.len() <= FEW {
        for point in points {
            let title = format!("{}, step {}: {}", series.name, point.0, significant(point.1));
            drawn += &svg::dot(series.class, at(*point), &title);
        }
    }
    drawn
}

fn legend(series: &[Series<'_>]) -> String {
    let (mut drawn, mut x) = (String::new(), LEFT);
    for series in series {
        drawn += &svg::line(&format!("curve {}", series.class), (x, 13.0), (x + 18.0, 13.0));
        drawn += &svg::text("", (x + 24.0, 17.0), Anchor::Start, series.name);
        x += 44.0 + 7.0 * real(series.name.chars().count() as u64);
    }
    drawn
}

fn grid(x: &Axis, y: &Axis) -> String {
    let right = WIDTH - RIGHT;
    let mut drawn = String::new();
    for tick in y.ticks() {
        let py = BASE - y.place(tick) * inner_height();
        drawn += &svg::line("grid", (LEFT, py), (right, py));
        drawn += &svg::text("", (LEFT - 8.0, py + 4.0), Anchor::End, &y.label(tick));
    }
    for tick in x.ticks() {
        let px = LEFT + x.place(tick) * inner_width();
        drawn += &svg::line("axis", (px, BASE), (px, BASE + 4.0));
        drawn += &svg::text("", (px, BASE + 18.0), Anchor::Middle, &x.label(tick));
    }
    drawn += &svg::line("axis", (LEFT, BASE), (right, BASE));
    drawn + &svg::text("", (right, HEIGHT - 5.0), Anchor::End, "step")
}

/// A number with four decimals, or four digits where those say little.
fn significant(value: f64) -> String {
    if (1e-3..1e6).contains(&value.abs()) { format!("{value:.4}") } else { format!("{value:.3e}") }
}

/// A range and where its ticks are: at multiples of 1, 2 or 5 times a power of ten.
#[derive(Debug, PartialEq)]
pub(super) struct Axis {
    pub(super) low: f64,
    pub(super) high: f64,
    step: f64,
}

impl Axis {
    /// The steps from the first to the last; none without any.
    fn steps(values: impl Iterator<Item = f64>) -> Option<Self> {
        let (low, high) = range(values)?;
        let step = nice((high - low) / 7.0).max(1.0);
        Some(if low < high { Self { low, high, step } } else { Self { low: low - 0.5, high: high + 0.5, step: 1.0 } })
    }

    /// Whole tick distances around the values, from 0 where that leaves no large gap.
    fn values(values: impl Iterator<Item = f64>) -> Self {
        let (mut low, mut high) = range(values).unwrap_or((0.0, 1.0));
        let flat = high - low <= 1e-12 * high.abs();
        if low >= 0.0 && high > 0.0 && (low < 0.5 * high || flat) {
            low = 0.0;
        } else if flat {
            (low, high) = (low - 1.0, high + 1.0);
        }
        let step = nice((high - low) / 5.0);
        Self { low: (low / step).floor() * step, high: (high / step).ceil() * step, step }
    }

    /// From 0 at the low end to 1 at the high end.
    fn place(&self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }

    pub(super) fn ticks(&self) -> Vec<f64> {
        let first = (self.low / self.step - 1e-9).ceil();
        let ticks = (0..24).map(|tick| (first + f64::from(tick)) * self.step);
        ticks.take_while(|tick| *tick <= self.high + 1e-9 * self.step).collect()
    }

    /// `tick` with as many digits as tell the ticks apart.
    pub(super) fn label(&self, tick: f64) -> String {
        let scientific = self.high.abs().max(self.low.abs()) < 0.01 || tick.abs() >= 1e7;
        // Rounding may leave a little of 0, which would print as -0.
        let zero = tick.abs() < 1e-9 * self.step;
        if scientific {
            return if zero { "0".to_owned() } else { format!("{tick:.1e}").replace(".0e", "e") };
        }
        let tick = if zero { 0.0 } else { tick };
        let decimals = (0..6).find(|decimals| 10f64.powi(*decimals) * self.step > 0.99).unwrap_or(6);
        format!("{tick:.*}", usize::try_from(decimals).unwrap_or_default())
    }
}

fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.fold(None, |range, value| match range {
        None => Some((value, value)),
        Some((low, high)) => Some((value.min(low), value.max(high))),
    })
}

/// The least of 1, 2, 5 times a power of ten that is not below `least`.
fn nice(least: f64) -> f64 {
    if !(least.is_finite() && least > 0.0) {
        return 1.0;
    }
    let power = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0].map(|factor| factor * power).into_iter().find(|step| *step >= least * 0.999).unwrap_or(10.0 * power)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(low: f64, high: f64) -> Vec<String> {
        let axis = Axis::values([low, high].into_iter());
        axis.ticks().into_iter().map(|tick| axis.label(tick)).collect()
    }

    #[test]
    fn ticks_are_round_and_told_apart() {
        assert_eq!(labels(0.1, 0.93), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(labels(0.61, 0.64), ["0.61", "0.62", "0.63", "0.64"]);
        assert_eq!(labels(0.0, 0.0003), ["0", "1e-4", "2e-4", "3e-4"]);
        assert_eq!(labels(-3.0, 40.0), ["-10", "0", "10", "20", "30", "40"]);
        assert_eq!(labels(2.0, 2.0), ["0.0", "0.5", "1.0", "1.5", "2.0"]);
        assert_eq!(labels(0.0, 0.0).len(), 5);
    }

    #[test]
    fn odd_data_draws_something() {
        let series =
            |points: &[(f64, f64)]| Series { name: "a", class: "train", points: points.to_vec(), smooth: true };
        assert_eq!(line_chart("loss", &[series(&[])], None), "<p>loss: no values.</p>");
        assert_eq!(line_chart("loss", &[series(&[(1.0, f64::NAN)])], None), "<p>loss: no values.</p>");
        let one = line_chart("loss", &[series(&[(5.0, 0.25), (6.0, f64::INFINITY)])], Some(5));
        assert!(one.contains("<title>a, step 5: 0.2500</title>") && one.contains(">best</text>"));
        assert!(!one.contains("NaN") && !one.contains("inf"));
        let many: Vec<_> = (0..100_000).map(|step| (f64::from(step), 1.0)).collect();
        assert!(line_chart("loss", &[series(&many)], None).len() < 20_000);
    }

    #[test]
    fn thinning_keeps_the_mean() {
        let points: Vec<_> = (0..1000).map(|step| (f64::from(step), f64::from(step % 3))).collect();
        let thinned = thin(&points);
        assert!(thinned.len() <= POINTS && thinned.iter().all(|point| (point.1 - 1.0).abs() < 1e-9 || point.0 > 990.0));
    }
}
