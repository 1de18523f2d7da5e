//! The few shapes the picture is made of, and a scale for its axes.

use std::ops::Range;

/// From values to places along an axis, linear or by powers of ten.
#[derive(Clone)]
pub struct Scale {
    values: Range<f64>,
    places: Range<f64>,
    logarithmic: bool,
}

impl Scale {
    /// By powers of ten.
    pub fn logarithmic(values: Range<f64>, places: Range<f64>) -> Self {
        Self { values, places, logarithmic: true }
    }

    /// Even.
    pub fn linear(values: Range<f64>, places: Range<f64>) -> Self {
        Self { values, places, logarithmic: false }
    }

    /// The place of a value; the end of the axis for values beyond.
    pub fn place(&self, value: f64) -> f64 {
        let position = |value: f64| if self.logarithmic { value.ln() } else { value };
        let (start, end) = (position(self.values.start), position(self.values.end));
        let share = ((position(value) - start) / (end - start)).clamp(0.0, 1.0);
        self.places.start + share * (self.places.end - self.places.start)
    }
}

/// A line of a class of the style sheet.
pub fn line(class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) -> String {
    format!("<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>\n")
}

/// A line through points.
pub fn polyline(class: &str, points: &[(f64, f64)]) -> String {
    let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    format!("<polyline class=\"{class}\" points=\"{}\"/>\n", points.join(" "))
}

/// A dot that says `title` when pointed at.
pub fn dot(class: &str, (x, y): (f64, f64), title: &str) -> String {
    let title = escape(title);
    format!("<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"><title>{title}</title></circle>\n")
}

/// Text that starts, has its middle or ends (`start`, `middle`, `end`) at a place.
pub fn text(class: &str, anchor: &str, (x, y): (f64, f64), text: &str) -> String {
    let text = escape(text);
    format!("<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>\n")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
