//! The nearest right name for a misspelt one.

/// The candidate nearest to `word`, when it is near enough to be what was meant.
///
/// Distance is the number of single-character edits or swaps of neighbours; up to a third of the word's length counts
/// as a slip. Case, `-` and `_` are not told apart.
///
/// ```
/// # use lowrank::suggest::nearest;
/// assert_eq!(nearest("target_module", ["target_modules", "r"]), Some("target_modules"));
/// assert_eq!(nearest("rank", ["lora_alpha"]), None);
/// ```
#[must_use]
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = fold(word);
    let limit = (word.len() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(&word, &fold(candidate)), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn fold(word: &str) -> Vec<char> {
    word.chars().map(|c| if c == '-' { '_' } else { c.to_ascii_lowercase() }).collect()
}

/// Edits between two words (optimal string alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let cost = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(row[j - 1] + 1).min(rows[i - 1][j - 1] + cost);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_slips_and_leaves_strangers_alone() {
        let keys = ["lora_alpha", "lora_dropout", "target_modules", "rank_pattern", "use_rslora"];
        for (typo, right) in [
            ("lora_alhpa", "lora_alpha"),
            ("LoRA-Dropout", "lora_dropout"),
            ("traget_modules", "target_modules"),
            ("use_rs_lora", "use_rslora"),
        ] {
            assert_eq!(nearest(typo, keys), Some(right), "{typo}");
        }
        assert_eq!(nearest("epochs", keys), None);
    }
}
