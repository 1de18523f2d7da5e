//! The header of a safetensors file, read by our own rules first and by the `safetensors` crate's after.
//!
//! A file is eight bytes of length, that many bytes of JSON, and the tensors' bytes without a gap. Everything the header
//! states is checked before it is used: the length against the file's size, strings and brackets while the JSON is read
//! (it is never in memory as a whole), names against each other, shapes and offsets against the size. What passes here
//! must pass the crate's parser too, so nothing is accepted that other readers refuse.

use std::collections::BTreeMap;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::ops::Range;

use safetensors::Dtype;
use safetensors::tensor::Metadata;

use super::header_json::{Scan, parse};
use super::limits;
use crate::error::{Error, Result, Subject};

/// The name under which a header keeps its metadata.
pub const METADATA: &str = "__metadata__";

/// One tensor of a file, as the header describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// The stored type.
    pub dtype: Dtype,
    /// The shape; empty for a scalar.
    pub shape: Vec<usize>,
    /// Its bytes, counted from the end of the header.
    pub offsets: Range<u64>,
}

impl TensorInfo {
    /// Bytes it takes.
    #[must_use]
    pub fn byte_len(&self) -> u64 {
        self.offsets.end - self.offsets.start
    }
}

/// A header that has passed every check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The tensors by name.
    pub tensors: BTreeMap<String, TensorInfo>,
    /// The free text that goes with the file: `{"format": "pt"}` where `PyTorch` wrote it.
    pub metadata: BTreeMap<String, String>,
    /// Where the first tensor begins in the file.
    pub data_start: u64,
}

impl Header {
    /// Reads the header of a file of `size` bytes.
    ///
    /// # Errors
    /// For every way in which the file is not a complete safetensors file; the error names the tensor or key, what was
    /// found and what was expected. The caller puts the file's name in front.
    pub fn read(file: &mut (impl Read + Seek), size: u64) -> Result<Self> {
        let length = header_length(file, size)?;
        let data_start = length + 8;
        let data = size - data_start;
        let mut parsed = parse(Scan::new(BufReader::new(file.by_ref().take(length))), length, data)?;
        tile(&mut parsed.tensors, data)?;
        referee(file, length, data)?;
        Ok(Self { tensors: parsed.tensors.into_iter().collect(), metadata: parsed.metadata, data_start })
    }
}

/// The length prefix, checked against the file's size and the format's limit.
fn header_length(file: &mut impl Read, size: u64) -> Result<u64> {
    let mut prefix = [0; 8];
    if size < 8 {
        return Err(Error::new(Subject::File, "too short for a safetensors file")
            .found(format!("{size} bytes"))
            .expected("8 bytes of header length, then the header")
            .with_hint("the file is empty or was cut off: download or save it again"));
    }
    file.read_exact(&mut prefix).map_err(unreadable)?;
    let length = u64::from_le_bytes(prefix);
    // Only a length that cannot be one is taken for something else: 640 bytes of header begin as a pickle does.
    if length > limits::HEADER_BYTES.min(size - 8)
        && let Some((found, hint)) = other_format(prefix)
    {
        return Err(Error::new(Subject::File, "not a safetensors file").found(found).with_hint(hint));
    }
    if length > limits::HEADER_BYTES {
        return Err(Error::new(Subject::File, "the header is too long, or this is no safetensors file")
            .found(format!("{length} bytes"))
            .expected(format!("at most {}", limits::HEADER_BYTES)));
    }
    if length > size - 8 {
        return Err(Error::new(Subject::File, "the file ends inside its header")
            .found(format!("{} bytes after the length", size - 8))
            .expected(format!("{length} bytes of header"))
            .with_hint("the file was cut off: download or save it again"));
    }
    if length < 2 {
        return Err(Error::new(Subject::File, "the header is too short")
            .found(format!("{length} bytes"))
            .expected("at least `{}`"));
    }
    Ok(length)
}

/// What a file that is no safetensors file probably is, and the way out.
fn other_format(prefix: [u8; 8]) -> Option<(&'static str, &'static str)> {
    const CONVERT: &str = "load it with the program that wrote it and save it as safetensors";
    match prefix {
        [b'v', b'e', b'r', b's', b'i', b'o', b'n', b' '] => {
            Some(("a Git LFS pointer", "fetch the file it stands for: `git lfs pull`"))
        }
        [b'P', b'K', 3, 4, ..] => Some(("a zip archive: PyTorch (.pt, .bin) or NumPy (.npz)", CONVERT)),
        [0x80, 2..=5, ..] => Some(("a Python pickle", CONVERT)),
        [b'G', b'G', b'U', b'F', ..] => Some(("a GGUF file", CONVERT)),
        [0x89, b'H', b'D', b'F', ..] => Some(("an HDF5 file (.h5)", CONVERT)),
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => Some(("a NumPy array (.npy)", CONVERT)),
        _ => None,
    }
}

/// Checks that the tensors lie one after another, from the header's end to the file's, and puts them in that order.
fn tile(tensors: &mut [(String, TensorInfo)], data: u64) -> Result<()> {
    tensors.sort_by_key(|(_, info)| (info.offsets.start, info.offsets.end));
    let (mut end, mut previous) = (0, "the header".to_owned());
    for (name, info) in &*tensors {
        let start = info.offsets.start;
        if start != end {
            let problem = if start < end {
                format!("its bytes overlap those of {previous}")
            } else {
                format!("a gap of {} bytes after {previous}", start - end)
            };
            return Err(Error::new(Subject::File, problem)
                .at(format_args!("tensor `{name}`"))
                .found(format!("a start at {start}"))
                .expected(end));
        }
        (end, previous) = (info.offsets.end, format!("`{name}`"));
    }
    if end != data {
        return Err(Error::new(Subject::File, "bytes after the last tensor")
            .found(format!("{data} bytes of tensors"))
            .expected(format!("{end}")));
    }
    Ok(())
}

/// The crate's own parser has the last word.
fn referee(file: &mut (impl Read + Seek), length: u64, data: u64) -> Result<()> {
    file.seek(SeekFrom::Start(8)).map_err(unreadable)?;
    let refused = |reason: String| Error::new(Subject::File, format!("the safetensors library refuses it: {reason}"));
    let metadata: Metadata = serde_json::from_reader(BufReader::new(file.by_ref().take(length)))
        .map_err(|error| refused(error.to_string()))?;
    if metadata.data_len() as u64 != data {
        return Err(refused(format!("its tensors end at {}, the file at {data}", metadata.data_len())));
    }
    Ok(())
}

pub(super) fn unreadable(source: std::io::Error) -> Error {
    Error::new(Subject::File, format!("cannot read: {source}")).because(source)
}
