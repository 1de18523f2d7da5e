//! Batches in which every sample has an adapter of its own.

/// The word for no adapter, as in PEFT.
pub(crate) const BASE: &str = "__base__";

/// Whose change each sample of a batch sees.
#[derive(Debug)]
pub(crate) struct Mixed {
    /// The adapters, each once; none for the base.
    names: Vec<Option<String>>,
    /// For each sample, the place of its adapter in `names`.
    samples: Vec<usize>,
}

/// Samples that see the same.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Share<'a> {
    /// Their adapter; none for the base.
    pub name: Option<&'a str>,
    /// Their places in the batch, ascending.
    pub samples: Vec<usize>,
}

impl Mixed {
    pub fn new(samples: &[&str]) -> Self {
        let mut names: Vec<Option<String>> = Vec::new();
        let place = |name: &&str| {
            let name = (*name != BASE).then_some(*name);
            names.iter().position(|other| other.as_deref() == name).unwrap_or_else(|| {
                names.push(name.map(str::to_owned));
                names.len() - 1
            })
        };
        let samples = samples.iter().map(place).collect();
        Self { names, samples }
    }

    /// The number of samples.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// The batch by what its samples see, in the order in which they first come; an adapter that does not `change`
    /// anything is the base.
    pub fn shares(&self, changes: impl Fn(&str) -> bool) -> Vec<Share<'_>> {
        let names: Vec<Option<&str>> =
            self.names.iter().map(|name| name.as_deref().filter(|name| changes(name))).collect();
        let mut shares: Vec<Share<'_>> = Vec::new();
        for (sample, place) in self.samples.iter().enumerate() {
            let name = names[*place];
            match shares.iter_mut().find(|share| share.name == name) {
                Some(share) => share.samples.push(sample),
                None => shares.push(Share { name, samples: vec![sample] }),
            }
        }
        shares
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_that_see_the_same_are_one_share() {
        let mixed = Mixed::new(&["a", BASE, "b", "a", "c"]);
        assert_eq!(mixed.len(), 5);
        let shares = mixed.shares(|name| name != "c");
        let expected = [(Some("a"), vec![0, 3]), (None, vec![1, 4]), (Some("b"), vec![2])];
        assert_eq!(shares, expected.map(|(name, samples)| Share { name, samples }));
        assert_eq!(mixed.shares(|_| false), [Share { name: None, samples: (0..5).collect() }]);
    }
}
