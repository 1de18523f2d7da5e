//! A confusion matrix as a heat map.

use super::escape;
use super::svg::{self, Anchor};
use crate::tasks::classification::ConfusionMatrix;

/// Labels longer than this are cut; pointing at a cell shows them whole.
const LABEL: usize = 18;

/// The counts of `matrix`, the darker the larger their share of the row.
pub(super) fn heat_map(name: &str, matrix: &ConfusionMatrix) -> String {
    let classes = matrix.labels().len();
    if classes == 0 {
        return String::from("<p>No classes.</p>");
    }
    let cell = match classes {
        ..=4 => 64.0,
        5..=8 => 50.0,
        9..=14 => 38.0,
        _ => 28.0,
    };
    let longest = matrix.labels().iter().map(|label| label.chars().count().min(LABEL)).max().unwrap_or_default();
    let margin = 38.0 + 6.8 * real(longest as u64);
    let side = cell * real(classes as u64);
    let mut content = String::new();
    for (number, (label, counts)) in matrix.labels().iter().zip(matrix.counts()).enumerate() {
        let offset = margin + cell * real(number as u64);
        let (middle, edge) = (offset + cell / 2.0 + 4.0, margin - 8.0);
        content += &svg::text("label", (edge, middle), Anchor::End, &short(label));
        content += &svg::text_upwards("label", (middle, edge), Anchor::Start, &short(label));
        content += &cells(matrix, label, counts, (margin, offset), cell);
    }
    let middle = margin + side / 2.0;
    content += &svg::text("", (middle, 12.0), Anchor::Middle, "predicted");
    content += &svg::text_upwards("", (12.0, middle), Anchor::Middle, "truth");
    let whole = margin + side + 8.0;
    // No wider than its text needs, on however wide a page.
    format!("<div style=\"max-width:{whole:.0}px\">\n{}</div>\n", svg::picture(name, (whole, whole), &content))
}

/// One row of cells.
fn cells(matrix: &ConfusionMatrix, truth: &str, counts: &[u64], (left, top): (f64, f64), cell: f64) -> String {
    let total: u64 = counts.iter().sum();
    let mut drawn = String::new();
    for (column, (count, predicted)) in counts.iter().zip(matrix.labels()).enumerate() {
        let share = if total == 0 { 0.0 } else { real(*count) / real(total) };
        let x = left + cell * real(column as u64);
        let title = escape(&format!("{truth} taken for {predicted}: {count} of {total}"));
        let square = svg::square("cell", (x + 1.0, top + 1.0), cell - 2.0, 0.04 + 0.96 * share);
        // A large matrix is read by its colours: zeros would only be noise.
        let number = if *count > 0 || cell > 40.0 {
            let class = if share > 0.5 { "count on" } else { "count" };
            svg::text(class, (x + cell / 2.0, top + cell / 2.0 + 4.0), Anchor::Middle, &count.to_string())
        } else {
            String::new()
        };
        drawn += &["<g><title>", &title, "</title>\n", &square, &number, "</g>\n"].concat();
    }
    drawn
}

fn short(label: &str) -> String {
    let short: String = label.chars().take(LABEL).collect();
    if short.len() < label.len() { short + "…" } else { short }
}

#[expect(clippy::cast_precision_loss, reason = "a place in a picture")]
fn real(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_say_their_counts() {
        let mut matrix = ConfusionMatrix::new(vec!["<cat>".to_owned(), "a label of some length".to_owned()]);
        for (truth, predicted) in [(0, 0), (0, 0), (0, 1)] {
            matrix.add(truth, predicted).unwrap();
        }
        let svg = heat_map("after", &matrix);
        assert!(svg.contains("<title>&lt;cat&gt; taken for &lt;cat&gt;: 2 of 3</title>"), "{svg}");
        assert!(svg.contains("a label of some le…</text>"), "{svg}");
        assert_eq!(svg.matches("class=\"cell\"").count(), 4);
        assert_eq!(svg.matches("class=\"count on\"").count(), 1);
        assert_eq!(heat_map("none", &ConfusionMatrix::new(vec![])), "<p>No classes.</p>");
    }
}
