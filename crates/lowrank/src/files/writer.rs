//! Writing safetensors files: the header first, then one tensor after another, and nothing under the final name until
//! all is there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use super::atomic::AtomicFile;
use super::limits;
use super::storage::Storage;
use crate::adapter::tensor::{Tensor, byte_len};
use crate::error::{Error, Result, Subject};

/// The metadata that `PyTorch` users' tools write and look for: `{"format": "pt"}`.
#[must_use]
pub fn pytorch() -> BTreeMap<String, String> {
    BTreeMap::from([("format".to_owned(), "pt".to_owned())])
}

/// A safetensors file being written, byte for byte as the `safetensors` library lays it out: larger types first, names
/// sorted within a type, the header padded to eight bytes.
///
/// No more memory is used than the header takes; the caller decides how much of a tensor it holds.
pub struct Writer<'s> {
    file: AtomicFile<'s>,
    order: Vec<(String, u64)>,
    next: usize,
    written: u64,
}

impl<'s> Writer<'s> {
    /// Begins `path`, which will hold `tensors` (name, type, shape). Their bytes are then expected in [`Self::order`].
    ///
    /// # Errors
    /// When a name is used twice or not fit for a header, when a size cannot be counted, when the header becomes longer
    /// than the format allows, or when the file cannot be created.
    pub fn create(
        storage: &'s dyn Storage,
        path: &Path,
        tensors: Vec<(String, Dtype, Vec<usize>)>,
        metadata: &BTreeMap<String, String>,
    ) -> Result<Self> {
        let here = |error: Error| error.at(path.display());
        let Layout { header, order } = Layout::new(tensors, metadata).map_err(here)?;
        let size = 8 + header.len() as u64 + order.iter().map(|(_, length)| length).sum::<u64>();
        let mut file = AtomicFile::create(storage, path, size)?;
        file.write(&(header.len() as u64).to_le_bytes())?;
        file.write(&header)?;
        let mut writer = Self { file, order, next: 0, written: 0 };
        writer.pass_complete();
        Ok(writer)
    }

    /// The tensors as they must come: names with their lengths in bytes.
    #[must_use]
    pub fn order(&self) -> &[(String, u64)] {
        &self.order
    }

    /// Appends to the tensor `name`, which is the next one in order that is not complete.
    ///
    /// # Errors
    /// When it is another's turn, when the bytes are more than the header says, or when they cannot be written.
    pub fn write(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let wrong =
            |problem: &str| Err(Error::new(Subject::File, problem.to_owned()).at(format_args!("tensor `{name}`")));
        let Some((expected, length)) = self.order.get(self.next) else {
            // An empty tensor is complete before it is written.
            return if bytes.is_empty() { Ok(()) } else { wrong("written after the last tensor") };
        };
        if bytes.is_empty() {
            return Ok(());
        }
        if expected != name {
            return wrong("written out of turn");
        }
        if bytes.len() as u64 > length - self.written {
            return wrong("more bytes than its shape holds");
        }
        self.written += bytes.len() as u64;
        self.file.write(bytes)?;
        self.pass_complete();
        Ok(())
    }

    /// Makes the content durable; it has no name yet. For several files that should appear together.
    ///
    /// # Errors
    /// When a tensor is missing or incomplete, or when the system cannot store the file.
    pub fn finish(mut self) -> Result<AtomicFile<'s>> {
        if let Some((name, length)) = self.order.get(self.next) {
            return Err(Error::new(Subject::File, format!("tensor `{name}` is incomplete"))
                .found(format!("{} bytes", self.written))
                .expected(length));
        }
        self.file.sync()?;
        Ok(self.file)
    }

    /// Goes on to the next tensor when the present one, and those after it that are empty, are complete.
    fn pass_complete(&mut self) {
        while self.order.get(self.next).is_some_and(|(_, length)| self.written == *length) {
            self.next += 1;
            self.written = 0;
        }
    }
}

/// A whole file of tensors that are in memory, complete on the medium but not yet in its place.
///
/// # Errors
/// As [`Writer::create`] and [`Writer::finish`].
pub fn complete<'s, 't>(
    storage: &'s dyn Storage,
    path: &Path,
    tensors: impl IntoIterator<Item = (&'t str, &'t Tensor)>,
) -> Result<AtomicFile<'s>> {
    complete_with(storage, path, tensors, &pytorch())
}

/// [`complete()`], with other metadata.
///
/// # Errors
/// As [`complete()`].
pub fn complete_with<'s, 't>(
    storage: &'s dyn Storage,
    path: &Path,
    tensors: impl IntoIterator<Item = (&'t str, &'t Tensor)>,
    metadata: &BTreeMap<String, String>,
) -> Result<AtomicFile<'s>> {
    let tensors: BTreeMap<&str, &Tensor> = tensors.into_iter().collect();
    let plan =
        tensors.iter().map(|(name, tensor)| ((*name).to_owned(), tensor.dtype(), tensor.shape().to_vec())).collect();
    let mut writer = Writer::create(storage, path, plan, metadata)?;
    for (name, _) in writer.order().to_vec() {
        if let Some(tensor) = tensors.get(name.as_str()) {
            writer.write(&name, tensor.data())?;
        }
    }
    writer.finish()
}

/// The header's bytes, and the tensors with their lengths in the order of their offsets.
struct Layout {
    header: Vec<u8>,
    order: Vec<(String, u64)>,
}

impl Layout {
    fn new(mut tensors: Vec<(String, Dtype, Vec<usize>)>, metadata: &BTreeMap<String, String>) -> Result<Self> {
        tensors.sort_by(|(a_name, a, _), (b_name, b, _)| b.cmp(a).then_with(|| a_name.cmp(b_name)));
        let (mut infos, mut order, mut end) = (Vec::new(), Vec::new(), 0_usize);
        let mut names = BTreeSet::new();
        for (name, dtype, shape) in tensors {
            check_name(&name)?;
            if !names.insert(name.clone()) {
                return Err(Error::new(Subject::File, "the name is there twice").at(format_args!("tensor `{name}`")));
            }
            let sizes = byte_len(dtype, &shape).and_then(|length| Some((length, end.checked_add(length)?)));
            let Some((length, next)) = sizes.filter(|_| shape.len() <= limits::DIMENSIONS) else {
                return Err(Error::new(Subject::File, "too large to be stored")
                    .at(format_args!("tensor `{name}`"))
                    .found(format!("{dtype} {shape:?}")));
            };
            infos.push((name.clone(), TensorInfo { dtype, shape, data_offsets: (end, next) }));
            order.push((name, length as u64));
            end = next;
        }
        Ok(Self { header: encode(infos, metadata)?, order })
    }
}

fn check_name(name: &str) -> Result<()> {
    let fit = !name.is_empty() && name.len() <= limits::NAME_BYTES && !name.chars().any(char::is_control);
    if fit && !name.starts_with("__") {
        return Ok(());
    }
    Err(Error::new(Subject::File, "not a name for a tensor").found(format!("{name:?}")))
}

fn encode(infos: Vec<(String, TensorInfo)>, metadata: &BTreeMap<String, String>) -> Result<Vec<u8>> {
    let count = infos.len();
    let text = (!metadata.is_empty()).then(|| metadata.clone().into_iter().collect());
    let refused = |reason: String| Error::new(Subject::File, format!("the safetensors library refuses it: {reason}"));
    let header = Metadata::new(text, infos).map_err(|error| refused(error.to_string()))?;
    let mut bytes = serde_json::to_vec(&header).map_err(|error| refused(error.to_string()))?;
    bytes.resize(bytes.len().next_multiple_of(8), b' ');
    if bytes.len() as u64 > limits::HEADER_BYTES || count > limits::TENSORS {
        return Err(Error::new(Subject::File, "too many tensors for one file")
            .found(format!("{count} with {} bytes of header", bytes.len()))
            .expected(format!("at most {} and {}", limits::TENSORS, limits::HEADER_BYTES)));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use safetensors::SafeTensors;

    use super::super::storage::Disk;
    use super::*;

    fn plan() -> Vec<(String, Dtype, Vec<usize>)> {
        [
            ("b", Dtype::F32, vec![2]),
            ("a", Dtype::F16, vec![3]),
            ("empty", Dtype::F32, vec![0, 4]),
            ("c", Dtype::F32, vec![1]),
        ]
        .map(|(name, dtype, shape)| (name.to_owned(), dtype, shape))
        .to_vec()
    }

    #[test]
    fn files_are_those_of_the_safetensors_library() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        let mut writer = Writer::create(&Disk, &path, plan(), &pytorch()).unwrap();
        assert_eq!(writer.order().iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["b", "c", "empty", "a"]);
        writer.write("b", &[1, 2, 3]).unwrap();
        writer.write("b", &[4, 5, 6, 7, 8]).unwrap();
        writer.write("c", &[9; 4]).unwrap();
        writer.write("empty", &[]).unwrap();
        writer.write("a", &[7; 6]).unwrap();
        writer.finish().unwrap().publish().unwrap();
        let bytes = fs::read(&path).unwrap();
        let read = SafeTensors::deserialize(&bytes).unwrap();
        let again = safetensors::serialize(read.iter(), Some(pytorch().into_iter().collect())).unwrap();
        assert_eq!(bytes, again);
    }

    #[test]
    fn tensors_come_complete_and_in_turn_or_nothing_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        let begin = || Writer::create(&Disk, &path, plan(), &pytorch()).unwrap();
        let mut writer = begin();
        assert!(writer.write("a", &[0; 6]).unwrap_err().to_string().contains("out of turn"));
        assert!(writer.write("b", &[0; 9]).unwrap_err().to_string().contains("more bytes"));
        writer.write("b", &[0; 7]).unwrap();
        let error = writer.finish().err().unwrap().to_string();
        assert_eq!(error, "tensor `b` is incomplete: found 7 bytes, expected 8");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn names_and_sizes_that_cannot_be_read_back_are_not_written() {
        for (name, shape) in [
            ("", vec![1]),
            ("__metadata__", vec![1]),
            ("a\nb", vec![1]),
            ("big", vec![usize::MAX, 2]),
            ("deep", vec![1; 17]),
        ] {
            assert!(Layout::new(vec![(name.into(), Dtype::F32, shape)], &pytorch()).is_err(), "{name:?}");
        }
        let twice = vec![("a".into(), Dtype::F32, vec![1]); 2];
        assert!(Layout::new(twice, &pytorch()).is_err());
    }
}
