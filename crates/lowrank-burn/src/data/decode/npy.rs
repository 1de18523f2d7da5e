//! Sensor series as NPY: `(samples, channels)`, or one axis for a single channel.

use lowrank::{Error, Result, Subject};
use npyz::{DType, NpyFile, Order, TypeChar};

use super::{MAX_VALUES, Signal, too_long};

/// The header of a plain array takes about 120 bytes.
const MAX_HEADER: usize = 4096;

/// Decodes an NPY series of integers or floats; integers are taken as they are, not scaled.
pub(super) fn decode(bytes: &[u8], rate: f64) -> Result<Signal> {
    let data = check_header(bytes)?;
    let file = NpyFile::new(bytes).map_err(|error| malformed(&error))?;
    let (samples, channels) = match *file.shape() {
        [samples] => (samples, 1),
        [samples, channels] => (samples, channels),
        ref shape => {
            return Err(Error::new(Subject::Data, "not a series")
                .found(format!("shape {shape:?}"))
                .expected("one axis (samples) or two (samples, channels)"));
        }
    };
    let (Ok(samples), Ok(channels)) = (usize::try_from(samples), usize::try_from(channels)) else {
        return Err(too_long());
    };
    if samples.saturating_mul(channels) > MAX_VALUES {
        return Err(too_long());
    }
    check_length(&file, samples * channels, bytes.len() - data)?;
    let order = file.order();
    let values = values(file)?;
    // C order has the channels side by side, Fortran order one after the other.
    let channel = |c: usize| match order {
        Order::C => values.iter().copied().skip(c).step_by(channels).collect(),
        Order::Fortran => values.iter().copied().skip(c * samples).take(samples).collect(),
    };
    Signal::new((0..channels).map(channel).collect(), rate)
}

/// What the parser of the header takes on trust: its length is allocated, its brackets recurse, the product of its
/// numbers is the number of values. Returns where the data begin.
fn check_header(bytes: &[u8]) -> Result<usize> {
    let refused = |problem: &str| Err(Error::new(Subject::Data, format!("not an NPY file: {problem}")));
    let (length, start) = match bytes {
        [0x93, b'N', b'U', b'M', b'P', b'Y', 1, _, a, b, ..] => (usize::from(u16::from_le_bytes([*a, *b])), 10),
        [0x93, b'N', b'U', b'M', b'P', b'Y', _, _, a, b, c, d, ..] => {
            (usize::try_from(u32::from_le_bytes([*a, *b, *c, *d])).unwrap_or(usize::MAX), 12)
        }
        _ => return refused("it does not begin as one"),
    };
    let Some(header) = (length <= MAX_HEADER).then(|| bytes.get(start..start + length)).flatten() else {
        return refused("the header is longer than any array needs, or than the file");
    };
    if header.iter().filter(|byte| matches!(byte, b'(' | b'[' | b'{')).count() > 8 {
        return refused("structured arrays hold no series");
    }
    let numbers = header.split(|byte| !byte.is_ascii_digit()).filter(|digits| !digits.is_empty());
    let product = numbers
        .filter_map(|digits| str::from_utf8(digits).ok())
        .try_fold(1_u64, |product, digits| product.checked_mul(digits.parse::<u64>().ok()?.max(1)));
    if product.is_none() { refused("no memory holds an array of its shape") } else { Ok(start + length) }
}

/// The values have to fill the file exactly: less is a cut, more is a second array that would go unseen.
fn check_length(file: &NpyFile<&[u8]>, values: usize, found: usize) -> Result<()> {
    // Object arrays have no size; they are refused by their type.
    if file.uses_pickled_array() {
        return Ok(());
    }
    let Some(expected) = file.dtype().num_bytes().and_then(|size| size.checked_mul(values)) else {
        return Err(too_long());
    };
    if found == expected {
        return Ok(());
    }
    let problem = if found < expected { "the array is cut short" } else { "data after the end of the array" };
    let error = Error::new(Subject::Data, problem).found(format!("{found} bytes")).expected(expected);
    Err(error.with_hint("fetch or save the file again, one array a file"))
}

/// The values in the order they are stored in.
fn values(file: NpyFile<&[u8]>) -> Result<Vec<f32>> {
    let DType::Plain(kind) = file.dtype() else {
        return Err(Error::new(Subject::Data, "structured arrays hold no series"));
    };
    #[expect(clippy::cast_possible_truncation, reason = "signals are kept in f32; an overflow is refused there")]
    #[expect(clippy::cast_precision_loss, reason = "signals are kept in f32")]
    let values = match (kind.type_char(), kind.size_field()) {
        (TypeChar::Int, 1) => collect(file, |value: i8| f32::from(value)),
        (TypeChar::Int, 2) => collect(file, |value: i16| f32::from(value)),
        (TypeChar::Int, 4) => collect(file, |value: i32| value as f32),
        (TypeChar::Int, 8) => collect(file, |value: i64| value as f32),
        (TypeChar::Uint, 1) => collect(file, |value: u8| f32::from(value)),
        (TypeChar::Uint, 2) => collect(file, |value: u16| f32::from(value)),
        (TypeChar::Uint, 4) => collect(file, |value: u32| value as f32),
        (TypeChar::Uint, 8) => collect(file, |value: u64| value as f32),
        (TypeChar::Float, 4) => collect(file, |value: f32| value),
        (TypeChar::Float, 8) => collect(file, |value: f64| value as f32),
        _ => {
            let error = Error::new(Subject::Data, "not a type that can be read")
                .found(format!("dtype {kind}"))
                .expected("integers, float32 or float64");
            return Err(match kind.type_char() {
                TypeChar::Object => error.with_hint(
                    "object arrays are pickled Python, which can run code and is never loaded: save each recording \
                     as an array of its own",
                ),
                _ => error.with_hint("convert it: numpy.save(path, x.astype(\"float32\"))"),
            });
        }
    };
    values.map_err(|error| malformed(&error))
}

fn collect<T: npyz::Deserialize>(file: NpyFile<&[u8]>, convert: impl Fn(T) -> f32) -> std::io::Result<Vec<f32>> {
    let values = file.data::<T>().map_err(std::io::Error::other)?;
    values.map(|value| value.map(&convert)).collect()
}

fn malformed(error: &std::io::Error) -> Error {
    Error::new(Subject::Data, format!("not an NPY file: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn npy(dtype: &str, fortran: bool, shape: &str, data: &[u8]) -> Vec<u8> {
        let fortran = if fortran { "True" } else { "False" };
        let header = format!("{{'descr': {dtype}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n");
        let length = u16::try_from(header.len()).unwrap().to_le_bytes();
        [b"\x93NUMPY\x01\x00".as_slice(), &length, header.as_bytes(), data].concat()
    }

    fn signal(channels: Vec<Vec<f32>>) -> Signal {
        Signal::new(channels, 50.0).unwrap()
    }

    #[test]
    fn both_orders_and_one_axis() {
        let data: Vec<u8> = (1..=6_i16).flat_map(i16::to_le_bytes).collect();
        let decoded = |fortran, shape| decode(&npy("'<i2'", fortran, shape, &data), 50.0).unwrap();
        assert_eq!(decoded(false, "(3, 2)"), signal(vec![vec![1.0, 3.0, 5.0], vec![2.0, 4.0, 6.0]]));
        assert_eq!(decoded(true, "(3, 2)"), signal(vec![vec![1.0, 2.0, 3.0], vec![4.0, 5.0, 6.0]]));
        assert_eq!(decoded(false, "(6,)"), signal(vec![vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]));
    }

    #[test]
    fn every_number_type_and_byte_order() {
        for (dtype, data) in [
            ("'|i1'", vec![254]),
            ("'>i2'", (-2_i16).to_be_bytes().to_vec()),
            ("'<i4'", (-2_i32).to_le_bytes().to_vec()),
            ("'<i8'", (-2_i64).to_le_bytes().to_vec()),
            ("'<f4'", (-2_f32).to_le_bytes().to_vec()),
            ("'>f8'", (-2_f64).to_be_bytes().to_vec()),
        ] {
            assert_eq!(decode(&npy(dtype, false, "(1,)", &data), 50.0).unwrap(), signal(vec![vec![-2.0]]), "{dtype}");
        }
        for (dtype, data) in [("'|u1'", vec![200]), ("'<u2'", vec![200, 0]), ("'<u4'", vec![200, 0, 0, 0])] {
            assert_eq!(
                decode(&npy(dtype, false, "(1, 1)", &data), 50.0).unwrap(),
                signal(vec![vec![200.0]]),
                "{dtype}"
            );
        }
    }

    #[test]
    fn says_what_it_cannot_read() {
        let message =
            |dtype, shape, data: &[u8]| decode(&npy(dtype, false, shape, data), 50.0).unwrap_err().to_string();
        assert_eq!(message("'<f4'", "(2,)", &[0; 7]), "the array is cut short: found 7 bytes, expected 8");
        assert_eq!(message("'<f4'", "(2,)", &[0; 12]), "data after the end of the array: found 12 bytes, expected 8");
        assert_eq!(
            message("'<f4'", "(1, 1, 1)", &[0; 4]),
            "not a series: found shape [1, 1, 1], expected one axis (samples) or two (samples, channels)"
        );
        assert_eq!(
            message("'<f2'", "(1,)", &[0; 2]),
            "not a type that can be read: found dtype <f2, expected integers, float32 or float64"
        );
        assert_eq!(message("[('a', '<f4')]", "(1,)", &[0; 4]), "structured arrays hold no series");
        assert_eq!(message("'<f4'", "(0, 2)", &[]), "the recording is empty");
        assert_eq!(message("'<f4'", "(2, 0)", &[]), "the recording is empty");
        let pickled = decode(&npy("'|O'", false, "(1,)", &[0; 9]), 50.0).unwrap_err();
        assert!(pickled.hint().unwrap().contains("pickled"));
    }

    #[test]
    fn hostile_headers_are_refused_before_they_are_parsed() {
        let message = |bytes: &[u8]| decode(bytes, 50.0).unwrap_err().to_string();
        assert_eq!(message(b"PK\x03\x04"), "not an NPY file: it does not begin as one");
        assert_eq!(
            message(b"\x93NUMPY\x02\x00\xff\xff\xff\xff{"),
            "not an NPY file: the header is longer than any array needs, or than the file"
        );
        let huge = npy("'<f4'", false, "(4294967296, 4294967296)", &[0; 4]);
        assert_eq!(message(&huge), "not an NPY file: no memory holds an array of its shape");
        let nested = npy(&"(".repeat(3000), false, "(1,)", &[]);
        assert_eq!(message(&nested), "not an NPY file: structured arrays hold no series");
        let long = npy("'<f4'", false, "(1073741824,)", &[0; 4]);
        assert_eq!(message(&long), "the recording is too long: found more than 268435456 values");
    }
}
