//! Tables of text, aligned: the first column to the left, numbers to the right.

use std::fmt;

/// Rows under a heading.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub fn new(columns: &[&str]) -> Self {
        Self { rows: vec![columns.iter().map(|title| (*title).to_owned()).collect()] }
    }

    /// Adds a row of as many cells as there are columns.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<_> = (0..self.rows[0].len()).map(width).collect();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).enumerate();
            let padded = cells.map(|(column, (cell, width))| match column {
                0 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            });
            writeln!(f, "{}", padded.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}

/// Milliseconds with three or four digits; `-` for none.
pub fn ms(value: Option<f64>) -> String {
    value.map_or("-".into(), |ms| match ms {
        ms if ms >= 100.0 => format!("{ms:.0}"),
        ms if ms >= 10.0 => format!("{ms:.1}"),
        ms if ms >= 1.0 => format!("{ms:.2}"),
        ms if ms >= 0.01 => format!("{ms:.3}"),
        ms => format!("{ms:.5}"),
    })
}

/// A ratio; `-` for none.
pub fn ratio(value: Option<f64>) -> String {
    value.map_or("-".into(), |ratio| format!("{ratio:.2}"))
}

/// A share in percent.
pub fn percent(share: f64) -> String {
    format!("{:.0}%", 100.0 * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(&["layer", "ms"]);
        table.row(["a long name".into(), ms(Some(1.234))]);
        table.row(["short".into(), ms(Some(123.4))]);
        table.row(["none".into(), ms(None)]);
        assert_eq!(table.to_string(), "layer          ms\na long name  1.23\nshort         123\nnone            -\n");
    }
}
