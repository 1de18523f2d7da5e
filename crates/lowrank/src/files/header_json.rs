//! The JSON of a header, read piece by piece: names twice, unknown fields, numbers out of range and strings without end
//! are refused where they stand.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};

use safetensors::Dtype;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor, value::StrDeserializer};

use super::header::{METADATA, TensorInfo, unreadable};
use super::limits;
use crate::adapter::tensor::byte_len;
use crate::error::{Error, Result, Subject};
use crate::suggest::nearest;

/// The types a file may hold.
const DTYPES: [&str; 22] = [
    "BOOL",
    "F4",
    "F6_E2M3",
    "F6_E3M2",
    "U8",
    "I8",
    "F8_E5M2",
    "F8_E4M3",
    "F8_E8M0",
    "F8_E4M3FNUZ",
    "F8_E5M2FNUZ",
    "I16",
    "U16",
    "F16",
    "BF16",
    "I32",
    "U32",
    "F32",
    "C64",
    "F64",
    "I64",
    "U64",
];

const FIELDS: [&str; 3] = ["dtype", "shape", "data_offsets"];

/// What the JSON held. Where the tensors lie against each other is not checked yet.
#[derive(Default)]
pub(super) struct Parsed {
    pub tensors: Vec<(String, TensorInfo)>,
    pub metadata: BTreeMap<String, String>,
}

/// Reads `length` bytes of JSON that describe `data` bytes of tensors.
pub(super) fn parse(reader: Scan<impl Read>, length: u64, data: u64) -> Result<Parsed> {
    let mut state = State { data, names: BTreeMap::new(), metadata: None, place: None, problem: None };
    let mut json = serde_json::Deserializer::from_reader(reader);
    let read = json.deserialize_map(HeaderVisitor(&mut state)).and_then(|()| json.end());
    if let Err(error) = read {
        let place = state.place.take();
        let problem = state.problem.take().unwrap_or_else(|| json_error(error, length));
        return Err(match place {
            Some(place) => problem.at(place),
            None => problem,
        });
    }
    Ok(Parsed { tensors: state.names.into_iter().collect(), metadata: state.metadata.unwrap_or_default() })
}

fn json_error(error: serde_json::Error, length: u64) -> Error {
    match error.classify() {
        serde_json::error::Category::Io => {
            let source = io::Error::from(error);
            source.downcast::<Error>().unwrap_or_else(unreadable)
        }
        serde_json::error::Category::Data => {
            Error::new(Subject::File, "the header has not the form of a safetensors header")
                .found(&error)
                .because(error)
        }
        _ => {
            Error::new(Subject::File, format!("the {length} bytes of header are not JSON")).found(&error).because(error)
        }
    }
}

struct State {
    data: u64,
    names: BTreeMap<String, TensorInfo>,
    metadata: Option<BTreeMap<String, String>>,
    /// The tensor that is being read, for errors that do not say.
    place: Option<String>,
    /// The error in full; what serde carries along is thrown away for it.
    problem: Option<Error>,
}

impl State {
    fn refuse<E: serde::de::Error>(&mut self, problem: Error) -> E {
        self.problem = Some(problem);
        E::custom("")
    }

    fn name<E: serde::de::Error>(&mut self, name: &str) -> Result<(), E> {
        let problem = if name.is_empty() {
            Error::new(Subject::File, "a tensor without a name")
        } else if name.len() > limits::NAME_BYTES {
            Error::new(Subject::File, "a tensor's name is too long")
                .found(format!("{} bytes", name.len()))
                .expected(format!("at most {}", limits::NAME_BYTES))
        } else if name.chars().any(char::is_control) {
            Error::new(Subject::File, "a tensor's name holds control characters").found(format!("{name:?}"))
        } else if name.starts_with("__") {
            Error::new(Subject::File, "a reserved name").at(format_args!("`{name}`")).expected(format!("`{METADATA}`"))
        } else if self.names.contains_key(name) {
            Error::new(Subject::File, "the name is there twice").at(format_args!("tensor `{name}`"))
        } else if self.names.len() == limits::TENSORS {
            Error::new(Subject::File, "too many tensors").expected(format!("at most {}", limits::TENSORS))
        } else {
            return Ok(());
        };
        Err(self.refuse(problem))
    }
}

struct HeaderVisitor<'a>(&'a mut State);

impl<'de> Visitor<'de> for HeaderVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of tensors")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        let state = self.0;
        while let Some(name) = map.next_key::<String>()? {
            if name == METADATA {
                state.place = Some(format!("`{METADATA}`"));
                if state.metadata.is_some() {
                    state.place = None;
                    let twice = Error::new(Subject::File, "the name is there twice");
                    return Err(state.refuse(twice.at(format_args!("`{METADATA}`"))));
                }
                map.next_value_seed(MetadataSeed(state))?;
            } else {
                state.name::<M::Error>(&name)?;
                state.place = Some(format!("tensor `{name}`"));
                let info = map.next_value_seed(InfoSeed(state))?;
                state.names.insert(name, info);
            }
            state.place = None;
        }
        Ok(())
    }
}

struct MetadataSeed<'a>(&'a mut State);

impl<'de> DeserializeSeed<'de> for MetadataSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for MetadataSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of strings")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        let (mut metadata, mut bytes) = (BTreeMap::new(), 0);
        while let Some((key, value)) = map.next_entry::<String, String>()? {
            bytes += key.len() + value.len();
            if bytes > limits::METADATA_BYTES {
                let expected = format!("at most {} bytes", limits::METADATA_BYTES);
                return Err(self.0.refuse(Error::new(Subject::File, "too much metadata").expected(expected)));
            }
            if metadata.contains_key(&key) {
                let problem = Error::new(Subject::File, "the key is there twice").at(format_args!("{key:?}"));
                return Err(self.0.refuse(problem));
            }
            metadata.insert(key, value);
        }
        self.0.metadata = Some(metadata);
        Ok(())
    }
}

struct InfoSeed<'a>(&'a mut State);

impl<'de> DeserializeSeed<'de> for InfoSeed<'_> {
    type Value = TensorInfo;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<TensorInfo, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for InfoSeed<'_> {
    type Value = TensorInfo;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map with dtype, shape and data_offsets")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<TensorInfo, M::Error> {
        let (mut dtype, mut shape, mut offsets) = (None, None, None);
        while let Some(field) = map.next_key::<String>()? {
            let twice = match field.as_str() {
                "dtype" => dtype.replace(map.next_value::<String>()?).is_some(),
                "shape" => shape.replace(map.next_value::<Numbers>()?.0).is_some(),
                "data_offsets" => offsets.replace(map.next_value::<Numbers>()?.0).is_some(),
                _ => {
                    let mut problem = Error::new(Subject::File, "an unknown field")
                        .found(format!("{field:?}"))
                        .expected(FIELDS.join(", "));
                    if let Some(near) = nearest(&field, FIELDS) {
                        problem = problem.with_hint(format!("did the writer mean `{near}`?"));
                    }
                    return Err(self.0.refuse(problem));
                }
            };
            if twice {
                let problem = Error::new(Subject::File, "the field is there twice").at(format_args!("`{field}`"));
                return Err(self.0.refuse(problem));
            }
        }
        let missing = |field: &str| Error::new(Subject::File, format!("`{field}` is missing"));
        let Some(dtype) = dtype else { return Err(self.0.refuse(missing("dtype"))) };
        let Some(shape) = shape else { return Err(self.0.refuse(missing("shape"))) };
        let Some(offsets) = offsets else { return Err(self.0.refuse(missing("data_offsets"))) };
        check(&dtype, &shape, &offsets, self.0.data).map_err(|problem| self.0.refuse(problem))
    }
}

/// One tensor's own consistency: a known type, a size that can be counted, offsets that hold that size and lie in the
/// file.
fn check(dtype: &str, shape: &[u64], offsets: &[u64], data: u64) -> Result<TensorInfo> {
    let Ok(known) = Dtype::deserialize(StrDeserializer::<serde::de::value::Error>::new(dtype)) else {
        let error =
            Error::new(Subject::File, "an unknown type").found(format!("{dtype:?}")).expected(DTYPES.join(", "));
        return Err(match nearest(dtype, DTYPES) {
            Some(near) => error.with_hint(format!("did the writer mean `{near}`?")),
            None => error,
        });
    };
    if shape.len() > limits::DIMENSIONS {
        return Err(Error::new(Subject::File, "too many dimensions")
            .found(shape.len())
            .expected(format!("at most {}", limits::DIMENSIONS)));
    }
    let &[start, end] = offsets else {
        return Err(Error::new(Subject::File, "wrong number of offsets").found(offsets.len()).expected(2));
    };
    let dims: Option<Vec<usize>> = shape.iter().map(|dim| usize::try_from(*dim).ok()).collect();
    let Some((shape, size)) = dims.and_then(|dims| byte_len(known, &dims).map(|size| (dims, size as u64))) else {
        return Err(Error::new(Subject::File, "a size that cannot be counted in whole bytes")
            .found(format!("{dtype} {shape:?}")));
    };
    if start > end {
        return Err(Error::new(Subject::File, "offsets that run backwards").found(format!("{start} to {end}")));
    }
    if end - start != size {
        return Err(Error::new(Subject::File, format!("offsets that do not hold {dtype} {shape:?}"))
            .found(format!("{} bytes", end - start))
            .expected(size));
    }
    if end > data {
        return Err(Error::new(Subject::File, "it lies past the end of the file")
            .found(format!("an end at {end}"))
            .expected(format!("at most {data}"))
            .with_hint("the file was cut off: download or save it again"));
    }
    Ok(TensorInfo { dtype: known, shape, offsets: start..end })
}

/// A number that a shape or an offset can be.
struct Whole(u64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = Whole;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }

            fn visit_u64<E>(self, number: u64) -> Result<Whole, E> {
                Ok(Whole(number))
            }
        }
        deserializer.deserialize_u64(Number)
    }
}

/// A short list of whole numbers.
struct Numbers(Vec<u64>);

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Numbers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of whole numbers")
            }

            fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<Numbers, S::Error> {
                let mut numbers = Vec::new();
                while let Some(Whole(number)) = seq.next_element()? {
                    // One past the limit is enough to be refused for it.
                    if numbers.len() > limits::DIMENSIONS {
                        return Err(S::Error::custom(format!("more than {} numbers", limits::DIMENSIONS)));
                    }
                    numbers.push(number);
                }
                Ok(Numbers(numbers))
            }
        }
        deserializer.deserialize_seq(List)
    }
}

/// Passes bytes on while no string and no nesting gets out of hand, which a JSON parser would keep in memory first.
pub(super) struct Scan<R> {
    inner: R,
    at_start: bool,
    in_string: bool,
    escaped: bool,
    string: usize,
    depth: usize,
}

impl<R: Read> Scan<R> {
    pub fn new(inner: R) -> Self {
        Self { inner, at_start: true, in_string: false, escaped: false, string: 0, depth: 0 }
    }

    fn step(&mut self, byte: u8) -> Result<()> {
        if self.at_start && byte != b'{' {
            return Err(Error::new(Subject::File, "the header does not begin as JSON")
                .found(format!("{:?}", char::from(byte)))
                .expected("'{'"));
        }
        self.at_start = false;
        if self.in_string {
            self.string += 1;
            if self.string > limits::HEADER_STRING_BYTES {
                return Err(Error::new(Subject::File, "a string in the header is too long")
                    .expected(format!("at most {} bytes", limits::HEADER_STRING_BYTES)));
            }
            if self.escaped {
                self.escaped = false;
            } else {
                self.escaped = byte == b'\\';
                self.in_string = byte != b'"';
            }
            return Ok(());
        }
        match byte {
            b'"' => (self.in_string, self.string) = (true, 0),
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        if self.depth > limits::HEADER_DEPTH {
            return Err(Error::new(Subject::File, "brackets nested too deep in the header")
                .expected(format!("at most {}", limits::HEADER_DEPTH)));
        }
        Ok(())
    }
}

impl<R: Read> Read for Scan<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        for byte in buffer.iter().take(count) {
            self.step(*byte).map_err(io::Error::other)?;
        }
        Ok(count)
    }
}
