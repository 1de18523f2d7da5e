//! The few shapes the pictures are made of. Colours and fonts are the style sheet's, by class.

use super::escape;

/// Where a text is relative to its place.
#[derive(Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

impl Anchor {
    fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Middle => "middle",
            Self::End => "end",
        }
    }
}

/// A picture of so many units, described by `name`, that fills its place on the page.
pub(super) fn picture(name: &str, (width, height): (f64, f64), content: &str) -> String {
    let name = escape(name);
    format!("<svg viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" aria-label=\"{name}\">\n{content}</svg>\n")
}

pub(super) fn line(class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) -> String {
    format!("<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>\n")
}

pub(super) fn polyline(class: &str, points: impl Iterator<Item = (f64, f64)>) -> String {
    let points: Vec<String> = points.map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    format!("<polyline class=\"{class}\" points=\"{}\"/>\n", points.join(" "))
}

/// A dot that says `title` when pointed at.
pub(super) fn dot(class: &str, (x, y): (f64, f64), title: &str) -> String {
    let title = escape(title);
    format!("<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.6\"><title>{title}</title></circle>\n")
}

/// A square of side `side` whose upper left corner is at `x`, `y`.
pub(super) fn square(class: &str, (x, y): (f64, f64), side: f64, opacity: f64) -> String {
    format!(
        "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{side:.1}\" height=\"{side:.1}\" rx=\"3\" \
         fill-opacity=\"{opacity:.3}\"/>\n"
    )
}

pub(super) fn text(class: &str, (x, y): (f64, f64), anchor: Anchor, text: &str) -> String {
    let (anchor, text) = (anchor.name(), escape(text));
    format!("<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>\n")
}

/// Text from the bottom to the top.
pub(super) fn text_upwards(class: &str, (x, y): (f64, f64), anchor: Anchor, text: &str) -> String {
    let (anchor, text) = (anchor.name(), escape(text));
    let place = format!("translate({x:.1} {y:.1}) rotate(-90)");
    format!("<text class=\"{class}\" transform=\"{place}\" text-anchor=\"{anchor}\">{text}</text>\n")
}
