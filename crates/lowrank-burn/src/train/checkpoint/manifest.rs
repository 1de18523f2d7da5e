//! The manifest of a checkpoint: where the run is, and what every file of the checkpoint has to be.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use lowrank::files::{read_bytes, read_to_string};
use lowrank::{Error, Result, Subject};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Checkpoint, Progress};

/// The name of the manifest.
pub(super) const MANIFEST: &str = "manifest.json";

/// The version of the format this crate writes.
const FORMAT: u32 = 1;

/// Bytes of a manifest: thousands of parameters and a hundred thousand evaluations fit.
const MANIFEST_BYTES: u64 = 64 << 20;

/// The SHA-256 of `bytes`, in lower-case hexadecimal.
///
/// ```
/// # use lowrank_burn::train::checkpoint::sha256;
/// assert_eq!(&sha256(b"abc")[..16], "ba7816bf8f01cfea");
/// ```
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    sha256_of([bytes])
}

/// The SHA-256 of these parts, one after the other.
pub fn sha256_of(parts: impl IntoIterator<Item = impl AsRef<[u8]>>) -> String {
    let mut hash = Sha256::new();
    parts.into_iter().for_each(|part| hash.update(part));
    hash.finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What a file has to be.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fingerprint {
    bytes: u64,
    sha256: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest<'a> {
    format: u32,
    lowrank: String,
    optimizer_step: u64,
    progress: Cow<'a, Progress>,
    files: BTreeMap<String, Fingerprint>,
}

/// The manifest as it is stored. The digest is of all bytes after its own line, so no byte of the file is unguarded.
#[derive(Deserialize)]
struct Sealed {
    #[serde(rename = "sha256")]
    _sha256: String,
    manifest: Manifest<'static>,
}

const HEAD: &str = "{\n\"sha256\": \"";
const HEAD_END: &str = "\",\n";

impl<'a> Manifest<'a> {
    pub(super) fn new(checkpoint: &'a Checkpoint) -> Self {
        Self {
            format: FORMAT,
            lowrank: env!("CARGO_PKG_VERSION").to_owned(),
            optimizer_step: checkpoint.optimizer.step,
            progress: Cow::Borrowed(&checkpoint.progress),
            files: BTreeMap::new(),
        }
    }

    pub(super) fn add(&mut self, name: &str, bytes: &[u8]) {
        self.files.insert(name.to_owned(), Fingerprint { bytes: bytes.len() as u64, sha256: sha256(bytes) });
    }

    /// The text of the manifest's file.
    pub(super) fn seal(&self) -> Result<String> {
        let json = serde_json::to_string_pretty(self)
            .map_err(|error| Error::new(Subject::File, "cannot write the manifest").at(MANIFEST).because(error))?;
        let body = format!("\"manifest\": {json}\n}}\n");
        Ok(format!("{HEAD}{}{HEAD_END}{body}", sha256(body.as_bytes())))
    }
}

impl Manifest<'static> {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let text = read_to_string(path, MANIFEST_BYTES)?;
        let parts = text.strip_prefix(HEAD).and_then(|rest| rest.split_once(HEAD_END));
        if parts.is_none_or(|(digest, body)| digest != sha256(body.as_bytes())) {
            return Err(Error::new(Subject::File, "damaged: its digest does not fit").at(path.display()));
        }
        // The version first: another one may have other keys.
        let format = serde_json::from_str::<serde_json::Value>(&text).ok();
        let format = format.and_then(|value| value.get("manifest")?.get("format")?.as_u64());
        if format != Some(FORMAT.into()) {
            return Err(Error::new(Subject::File, "a checkpoint of another format")
                .at(path.display())
                .found(format.map_or_else(|| "no version".to_owned(), |format| format!("version {format}")))
                .expected(format!("version {FORMAT}"))
                .with_hint("resume with the version of lowrank that wrote it"));
        }
        let sealed: Sealed = serde_json::from_str(&text).map_err(|error| {
            Error::new(Subject::File, format!("not a manifest: {error}")).at(path.display()).because(error)
        })?;
        Ok(sealed.manifest)
    }

    pub(super) fn optimizer_step(&self) -> u64 {
        self.optimizer_step
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.files.contains_key(name)
    }

    /// The bytes of the checkpoint's file `name`, which are those that were written.
    pub(super) fn read(&self, dir: &Path, name: &str) -> Result<Vec<u8>> {
        let path = dir.join(name);
        let damaged = |problem: &str| Error::new(Subject::File, problem).at(path.display());
        let fingerprint = self.files.get(name).ok_or_else(|| damaged("not in the manifest"))?;
        let bytes = read_bytes(&path, fingerprint.bytes)?;
        if bytes.len() as u64 != fingerprint.bytes {
            return Err(damaged("damaged: it was cut short")
                .found(format!("{} bytes", bytes.len()))
                .expected(fingerprint.bytes));
        }
        let found = sha256(&bytes);
        if found != fingerprint.sha256 {
            return Err(damaged("damaged: its digest does not fit").found(found).expected(&fingerprint.sha256));
        }
        Ok(bytes)
    }

    pub(super) fn into_progress(self) -> Progress {
        self.progress.into_owned()
    }
}
