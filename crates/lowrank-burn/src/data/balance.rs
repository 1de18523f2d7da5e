//! How much there is of each label.

use std::fmt;

use serde::Serialize;

use super::manifest::Split;

/// How much one label has in one split.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassBalance {
    /// The label.
    pub label: String,
    /// Recordings, or parts of them: rows of the manifest.
    pub recordings: usize,
    /// Windows cut from them.
    pub windows: usize,
    /// How long they are together.
    pub seconds: f64,
}

/// The classes of one split; displays as an aligned table with a line of totals.
///
/// ```
/// # use lowrank_burn::data::{Balance, ClassBalance, Split};
/// let row = |label: &str, recordings, windows, seconds| ClassBalance { label: label.into(), recordings, windows, seconds };
/// let balance = Balance { split: Split::Train, classes: vec![row("run", 2, 30, 12.5), row("walk", 10, 300, 120.0)] };
/// assert_eq!(
///     balance.to_string(),
///     "train  recordings  windows  seconds\n\
///      run             2       30     12.5\n\
///      walk           10      300    120.0\n\
///      total          12      330    132.5\n"
/// );
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Balance {
    /// The split.
    pub split: Split,
    /// Its labels, all the model has, in the model's order.
    pub classes: Vec<ClassBalance>,
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = vec![[self.split.to_string(), "recordings".into(), "windows".into(), "seconds".into()]];
        let cells = |label: &str, recordings: usize, windows: usize, seconds: f64| {
            [label.to_owned(), recordings.to_string(), windows.to_string(), format!("{seconds:.1}")]
        };
        rows.extend(
            self.classes.iter().map(|class| cells(&class.label, class.recordings, class.windows, class.seconds)),
        );
        let total = |count: fn(&ClassBalance) -> usize| self.classes.iter().map(count).sum();
        let seconds = self.classes.iter().map(|class| class.seconds).sum();
        rows.push(cells("total", total(|class| class.recordings), total(|class| class.windows), seconds));

        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths = [width(0), width(1), width(2), width(3)];
        for [label, recordings, windows, seconds] in &rows {
            writeln!(
                f,
                "{label:<0$}  {recordings:>1$}  {windows:>2$}  {seconds:>3$}",
                widths[0], widths[1], widths[2], widths[3]
            )?;
        }
        Ok(())
    }
}
