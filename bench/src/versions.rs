//! Versions of what is measured: of the crates from this workspace's lock file, of the rest from the Python process.

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::peer::python::Server;

const CRATES: [&str; 5] = ["lowrank", "burn", "candle-core", "gemm", "rayon"];

#[derive(Deserialize)]
struct Lock {
    package: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
}

/// By name.
pub fn all(server: &mut Server) -> Result<Map<String, Value>> {
    let mut versions = crates()?;
    versions.extend(server.hello()?);
    Ok(versions)
}

fn crates() -> Result<Map<String, Value>> {
    let lock: Lock = toml::from_str(include_str!("../Cargo.lock")).context("Cargo.lock")?;
    let version = |name: &str| {
        let package = lock.package.iter().find(|package| package.name == name);
        package.map(|package| (name.to_owned(), Value::from(package.version.clone())))
    };
    Ok(CRATES.iter().filter_map(|name| version(name)).collect())
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_crate_has_a_version() {
        assert_eq!(super::crates().unwrap().len(), super::CRATES.len());
    }
}
