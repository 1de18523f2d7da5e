//! The tables of the README and of `docs/` name tests: every one of them is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn document(name: &str) -> String {
    fs::read_to_string(root().join("docs").join(name)).unwrap()
}

/// The pairs of a file and a function in it, each in backticks, one behind the other.
fn named(text: &str) -> Vec<(&str, &str)> {
    let words: Vec<&str> = text.split('`').collect();
    // Behind an odd number of backticks is code.
    let code = words.iter().enumerate().filter(|(at, _)| at % 2 == 1);
    let files = code.filter(|(_, word)| word.contains('/') && matches!(language(word), Some("rs" | "py")));
    files
        .filter(|(at, _)| words.get(at + 1) == Some(&" "))
        .filter_map(|(at, file)| Some((*file, *words.get(at + 2)?)))
        .collect()
}

fn language(file: &str) -> Option<&str> {
    Path::new(file).extension()?.to_str()
}

#[test]
fn every_test_that_a_table_names_is_in_the_source() {
    for (name, least) in [("features.md", 40), ("peft-tests.md", 60)] {
        let text = document(name);
        let named = named(&text);
        assert!(named.len() >= least, "{name} names {}", named.len());
        for (file, function) in named {
            let source =
                fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{name}: {file}: {error}"));
            let definition = if language(file) == Some("rs") { "fn" } else { "\ndef" };
            assert!(source.contains(&format!("{definition} {function}(")), "{name}: {file} has no `{function}`");
        }
    }
}

#[test]
fn every_number_in_the_table_of_features_is_a_test_and_every_test_is_used() {
    let (list, readme) = (document("features.md"), fs::read_to_string(root().join("README.md")).unwrap());
    let (_, tables) = readme.split_once("### Files, running, merging").unwrap();
    let (tables, _) = tables.split_once("### Notes").unwrap();
    let listed: Vec<u32> = list.lines().filter_map(|line| line.split('|').nth(1)?.trim().parse().ok()).collect();
    assert!(listed.iter().copied().eq(1..=u32::try_from(listed.len()).unwrap()), "numbered in order");
    let mut used = BTreeSet::new();
    for cell in tables.lines().filter(|line| line.starts_with('|')).flat_map(|line| line.split('|')) {
        let Some((peft, ours)) = cell.trim().split_once("; ") else { continue };
        assert!(["yes", "no", "part", "n/a"].contains(&peft), "{cell}");
        assert!(ours != "no" || peft == "no", "PEFT has what we have not: {cell}");
        for word in ours.split(' ').filter(|word| !["no", "n/a"].contains(word)) {
            used.insert(word.parse::<u32>().unwrap_or_else(|_| panic!("{cell}")));
        }
    }
    assert_eq!(used.into_iter().collect::<Vec<_>>(), listed);
}
