//! Files that are not what they should be: each is refused, with a message that says where and why.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use lowrank::files::{Checkpoint, Header};
use lowrank::random::Random;

/// A file with this header and as many bytes of tensors.
fn file(header: &str, data: usize) -> Vec<u8> {
    raw(header.len() as u64, header.as_bytes(), data)
}

fn raw(length: u64, header: &[u8], data: usize) -> Vec<u8> {
    [&length.to_le_bytes()[..], header, &vec![0; data]].concat()
}

fn tensor(name: &str, dtype: &str, shape: &str, offsets: &str) -> String {
    format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}"#)
}

/// One tensor of two floats, in a header that is changed in one place.
fn changed(from: &str, to: &str) -> Vec<u8> {
    let header = format!("{{{}}}", tensor("a", "F32", "[2]", "[0,8]"));
    assert!(header.contains(from), "{from}");
    file(&header.replace(from, to), 8)
}

/// Two tensors of two floats with these offsets, in a file with `data` bytes of tensors.
fn two(first: &str, second: &str, data: usize) -> Vec<u8> {
    file(&format!("{{{},{}}}", tensor("a", "F32", "[2]", first), tensor("b", "F32", "[2]", second)), data)
}

fn cases() -> Vec<(&'static str, Vec<u8>)> {
    let metadata =
        |text: &str| file(&format!(r#"{{"__metadata__":{text},{}}}"#, tensor("a", "F32", "[2]", "[0,8]")), 8);
    let long = "x".repeat(2000);
    vec![
        ("length: empty file", vec![]),
        ("length: seven bytes", vec![1; 7]),
        ("length: nothing after it", 100_u64.to_le_bytes().to_vec()),
        ("length: zero", raw(0, b"", 0)),
        ("length: one", raw(1, b"{", 0)),
        ("length: longer than the file", raw(100, b"{}", 8)),
        ("length: longer than the limit", raw(100_000_001, b"{}", 8)),
        ("length: the largest", raw(u64::MAX, b"{}", 8)),
        ("other: zip", b"PK\x03\x04\x14\x00\x00\x00\x08\x08 and so on".to_vec()),
        ("other: pickle", b"\x80\x02}q\x00X\x06\x00\x00\x00weight".to_vec()),
        ("other: GGUF", b"GGUF\x03\x00\x00\x00 and so on".to_vec()),
        ("other: HDF5", b"\x89HDF\r\n\x1a\n and so on".to_vec()),
        ("other: NumPy", b"\x93NUMPY\x01\x00v\x00 and so on".to_vec()),
        ("other: Git LFS", b"version https://git-lfs.github.com/spec/v1\noid sha256:0".to_vec()),
        ("UTF-8: in a name", raw(11, b"{\"\xff\xfe\":null}", 0)),
        ("UTF-8: outside strings", raw(4, b"{\xff\xfe}", 0)),
        ("UTF-8: lone surrogate", file(r#"{"\ud800":null}"#, 0)),
        ("JSON: not an object", file("[1,2,3]", 0)),
        ("JSON: text", file("hello world", 0)),
        ("JSON: blank first", file(" {}", 0)),
        ("JSON: unfinished", file(r#"{"a":{"dtype":"F32""#, 0)),
        ("JSON: more after it", file("{}{}", 0)),
        ("JSON: comma at the end", changed("[2],", "[2,],")),
        ("JSON: nested too deep", changed("[2]", "[[[[[[2]]]]]]")),
        ("JSON: a million brackets", file(&format!("{{\"a\":{}", "[".repeat(1_000_000)), 0)),
        ("JSON: endless string", file(&format!("{{\"{}", "x".repeat(1_000_000)), 0)),
        ("JSON: blanks for ever", file(&format!("{{{}", " ".repeat(100_000)), 0)),
        ("JSON: NaN", changed("[2]", "[NaN]")),
        ("number: negative", changed("[2]", "[-2]")),
        ("number: fraction", changed("[2]", "[2.5]")),
        ("number: beyond 64 bits", changed("[2]", "[18446744073709551616]")),
        ("number: text", changed("[2]", "[\"2\"]")),
        ("number: huge exponent", changed("[0,8]", "[0,1e999]")),
        ("name: twice", file(&format!("{{{0},{0}}}", tensor("a", "F32", "[2]", "[0,8]")), 8)),
        (
            "name: twice by an escape",
            file(
                &format!("{{{},{}}}", tensor("a", "F32", "[2]", "[0,8]"), tensor("\\u0061", "F32", "[2]", "[8,16]")),
                16,
            ),
        ),
        ("name: empty", changed("\"a\"", "\"\"")),
        ("name: reserved", changed("\"a\"", "\"__secret__\"")),
        ("name: control characters", changed("\"a\"", "\"a\\u001b[2J\"")),
        ("name: too long", changed("\"a\"", &format!("\"{long}\""))),
        ("metadata: twice", file(r#"{"__metadata__":{},"__metadata__":{}}"#, 0)),
        ("metadata: a key twice", metadata(r#"{"format":"pt","format":"np"}"#)),
        ("metadata: not a map", metadata("[1]")),
        ("metadata: not text", metadata(r#"{"format":1}"#)),
        ("metadata: nested", metadata(r#"{"format":{"a":"b"}}"#)),
        (
            "metadata: too much",
            metadata(&format!(
                "{{{}}}",
                (0..8).map(|i| format!("\"{i}\":\"{}\"", "x".repeat(200_000))).collect::<Vec<_>>().join(",")
            )),
        ),
        ("field: dtype missing", changed("\"dtype\":\"F32\",", "")),
        ("field: shape missing", changed("\"shape\":[2],", "")),
        ("field: offsets missing", changed(",\"data_offsets\":[0,8]", "")),
        ("field: twice", changed("\"shape\":[2]", "\"shape\":[2],\"shape\":[2]")),
        ("field: unknown", changed("\"shape\":[2]", "\"shape\":[2],\"shap\":[2]")),
        ("field: a tensor that is null", file(r#"{"a":null}"#, 0)),
        ("field: a tensor that is a list", file(r#"{"a":[1]}"#, 0)),
        ("dtype: unknown", changed("F32", "F23")),
        ("dtype: lower case", changed("F32", "f32")),
        ("dtype: empty", changed("F32", "")),
        ("dtype: a number", changed("\"F32\"", "32")),
        ("shape: a number", changed("[2]", "2")),
        ("shape: null", changed("[2]", "null")),
        ("shape: overflows in elements", changed("[2]", "[4294967296,4294967296,4294967296]")),
        ("shape: overflows in bytes", changed("[2]", "[4611686018427387904]")),
        ("shape: overflows before a zero", changed("[2]", "[9223372036854775807,9223372036854775807,0]")),
        ("shape: too many dimensions", changed("[2]", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]")),
        ("shape: endless", changed("[2]", &format!("[{}1]", "1,".repeat(1000)))),
        ("shape: half a byte", file(&format!("{{{}}}", tensor("a", "F4", "[3]", "[0,2]")), 2)),
        ("shape: larger than the offsets", changed("[2]", "[3]")),
        ("shape: smaller than the offsets", changed("[2]", "[1]")),
        ("offsets: one", changed("[0,8]", "[0]")),
        ("offsets: three", changed("[0,8]", "[0,8,8]")),
        ("offsets: none", changed("[0,8]", "[]")),
        ("offsets: backwards", changed("[0,8]", "[8,0]")),
        ("offsets: gap at the start", changed("[0,8]", "[8,16]")),
        ("offsets: gap between", two("[0,8]", "[16,24]", 24)),
        ("offsets: overlap", two("[0,8]", "[4,12]", 12)),
        ("offsets: the same bytes twice", two("[0,8]", "[0,8]", 8)),
        ("offsets: gap before the first", two("[8,16]", "[16,24]", 24)),
        ("offsets: past the end", two("[0,8]", "[8,16]", 15)),
        ("offsets: far past the end", changed("[0,8]", "[18446744073709551607,18446744073709551615]")),
        ("offsets: an empty tensor elsewhere", file(&format!("{{{}}}", tensor("a", "F32", "[0]", "[4,4]")), 8)),
        ("data: bytes after the last tensor", two("[0,8]", "[8,16]", 17)),
        ("data: bytes and no tensors", file("{}", 4)),
    ]
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn every_malformed_file_is_refused_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    let mut report = String::new();
    for (name, bytes) in cases() {
        fs::write(&path, &bytes).unwrap();
        let error = Checkpoint::open(&path).expect_err(name);
        let message = error.to_string();
        assert!(message.contains("model.safetensors: "), "{name}: the file is not named: {message}");
        assert!(message.len() < 1500, "{name}: {} bytes of message", message.len());
        assert_eq!(names(dir.path()), ["model.safetensors"], "{name} leaves something behind");
        assert_eq!(fs::read(&path).unwrap(), bytes, "{name} changes the file");
        let place = format!("{}/", dir.path().display());
        writeln!(report, "{name}\n  {}", message.replace(&place, "")).unwrap();
        if let Some(hint) = error.hint() {
            writeln!(report, "  hint: {hint}").unwrap();
        }
    }
    insta::assert_snapshot!(report);
}

#[test]
fn what_we_accept_the_library_accepts() {
    // The other way round is not asked for: the library takes names twice, reserved names and unknown fields.
    for (name, bytes) in cases() {
        let ours = Header::read(&mut std::io::Cursor::new(&bytes), bytes.len() as u64);
        assert!(ours.is_err(), "{name}");
    }
    let (bytes, _) = sound();
    assert!(safetensors::SafeTensors::deserialize(&bytes).is_ok());
    assert!(Header::read(&mut std::io::Cursor::new(&bytes), bytes.len() as u64).is_ok());
}

/// A sound file of several types, and its tensors.
fn sound() -> (Vec<u8>, BTreeMap<String, Vec<u8>>) {
    use safetensors::tensor::{Dtype, TensorView};
    let mut random = Random::new(1, "sound", 0);
    let mut tensors = BTreeMap::new();
    for (name, dtype, shape) in [
        ("encoder.conv1.weight", Dtype::F32, vec![8, 6, 3]),
        ("encoder.conv1.bias", Dtype::F32, vec![8]),
        ("norm.num_batches_tracked", Dtype::I64, vec![]),
        ("half", Dtype::F16, vec![5]),
        ("brain", Dtype::BF16, vec![2, 3]),
        ("empty", Dtype::U8, vec![0, 7]),
        ("mask", Dtype::BOOL, vec![3]),
    ] {
        let length = shape.iter().product::<usize>() * dtype.bitsize() / 8;
        let bytes: Vec<u8> = (0..length).map(|_| random.bits().to_le_bytes()[0]).collect();
        tensors.insert(name.to_owned(), (dtype, shape, bytes));
    }
    let views = tensors
        .iter()
        .map(|(name, (dtype, shape, bytes))| (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    let bytes = safetensors::serialize(views, Some([("format".into(), "pt".into())].into())).unwrap();
    (bytes, tensors.into_iter().map(|(name, (_, _, bytes))| (name, bytes)).collect())
}

#[test]
fn sound_files_are_read_to_the_byte() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    let (bytes, tensors) = sound();
    fs::write(&path, &bytes).unwrap();
    let open = Checkpoint::open(&path).unwrap();
    assert_eq!(open.shards()[0].metadata()["format"], "pt");
    assert_eq!(open.names().collect::<Vec<_>>(), tensors.keys().collect::<Vec<_>>());
    for (name, expected) in &tensors {
        assert_eq!(open.read(name).unwrap().data(), expected, "{name}");
    }
    let mut part = Vec::new();
    open.read_bytes("encoder.conv1.weight", 5..9, &mut part).unwrap();
    assert_eq!(part, tensors["encoder.conv1.weight"][5..9]);
    assert!(open.read_bytes("half", 0..11, &mut part).is_err());
    let error = open.read("encoder.conv1.wieght").unwrap_err();
    assert_eq!(error.hint(), Some("the nearest name is `encoder.conv1.weight`"));
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    let (bytes, _) = sound();
    for length in 0..bytes.len() {
        fs::write(&path, &bytes[..length]).unwrap();
        let error = Checkpoint::open(&path).expect_err(&format!("cut to {length} of {}", bytes.len()));
        assert!(error.to_string().contains("x.safetensors: "), "{error}");
    }
}

#[test]
fn a_flipped_bit_is_an_error_or_stays_in_its_tensor() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    let (bytes, tensors) = sound();
    let mut random = Random::new(2, "flips", 0);
    let (mut refused, mut seen) = (0, 0);
    for _ in 0..1000 {
        let mut flipped = bytes.clone();
        let (place, bit) = (random.below(bytes.len()), random.below(8));
        flipped[place] ^= 1 << bit;
        fs::write(&path, &flipped).unwrap();
        let Ok(open) = Checkpoint::open(&path) else {
            refused += 1;
            continue;
        };
        let header = 8 + usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
        let different =
            tensors.iter().filter(|(name, data)| open.read(name).is_ok_and(|read| read.data() == *data)).count();
        if place >= header {
            assert_eq!(different, tensors.len() - 1, "byte {place}, bit {bit}");
            seen += 1;
        } else {
            // Inside the header a flip can rename a tensor, change the metadata, or make one type another of its size.
            assert!(different >= tensors.len() - 2, "byte {place}, bit {bit}");
        }
    }
    assert!(refused > 300 && seen > 300, "{refused} refused, {seen} in tensors");
}

#[test]
fn a_file_that_shrinks_while_open_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    let (bytes, _) = sound();
    fs::write(&path, &bytes).unwrap();
    let open = Checkpoint::open(&path).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_len(100).unwrap();
    let error = open.read("mask").unwrap_err().to_string();
    assert!(error.contains("became shorter"), "{error}");
}
