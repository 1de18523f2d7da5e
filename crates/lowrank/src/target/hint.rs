//! Names that might have been meant.

use std::collections::BTreeSet;

use super::ModuleInfo;
use super::names::ends;
use crate::suggest;

/// The longest name that is compared with the model's: comparing takes time in proportion to both lengths.
const MAX_COMPARED: usize = 128;

/// A remedy for `wanted`, which matches nothing: the nearest name of as many parts among `modules`, or some names that
/// there are.
pub(super) fn nearest<'a>(wanted: &str, modules: impl Iterator<Item = &'a ModuleInfo>) -> String {
    let parts = wanted.matches('.').count();
    let (mut same_length, mut last) = (BTreeSet::new(), BTreeSet::new());
    for module in modules {
        let path = module.path.as_str();
        let tails = || std::iter::once(path).chain(ends(path));
        same_length.extend(tails().find(|tail| tail.matches('.').count() == parts));
        last.extend(tails().last().filter(|name| !name.bytes().all(|byte| byte.is_ascii_digit())));
    }
    let near = if wanted.len() <= MAX_COMPARED { suggest::nearest(wanted, same_length) } else { None };
    match near {
        Some(right) => format!("did you mean `{right}`?"),
        None if last.is_empty() => "the model has no module that could be meant".into(),
        None => format!("the model's modules are called {}", listed(last.into_iter())),
    }
}

/// The first few of `items`, and how many more there are.
pub(super) fn listed<'a>(items: impl ExactSizeIterator<Item = &'a str>) -> String {
    const SHOWN: usize = 6;
    let more = items.len().saturating_sub(SHOWN);
    let shown: Vec<_> = items.take(SHOWN).collect();
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}
