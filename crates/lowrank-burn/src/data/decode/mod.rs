//! Files to signals.

mod audio;
mod npy;
mod series;

use std::path::Path;

use lowrank::{Error, Result, Subject};

use super::signal::Signal;

/// Larger recordings are refused: a run keeps all of them in memory.
const MAX_FILE: u64 = 1 << 30;

/// Values (channels x samples) one recording may decode to, 1 GiB of `f32`: a few bytes of a compressed file can stand
/// for any length of silence.
const MAX_VALUES: usize = 1 << 28;

/// How a recording is stored, by its file's extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Audio,
    Csv,
    Npy,
}

impl Encoding {
    pub(super) fn of(path: &Path) -> Result<Self> {
        match extension(path).as_str() {
            "wav" | "wave" | "flac" | "ogg" | "oga" | "mp3" => Ok(Self::Audio),
            "csv" => Ok(Self::Csv),
            "npy" => Ok(Self::Npy),
            other => {
                let found = if other.is_empty() { "no extension".to_owned() } else { format!(".{other}") };
                let error = Error::new(Subject::Data, "not a kind of recording that can be read")
                    .at(path.display())
                    .found(found)
                    .expected(".wav, .flac, .ogg, .mp3, .csv or .npy");
                Err(match other {
                    "npz" => error.with_hint("save each recording with numpy.save, as .npy"),
                    "opus" | "m4a" | "aac" | "wma" | "webm" | "mp4" | "aiff" => {
                        error.with_hint("convert it: ffmpeg -i INPUT OUTPUT.flac")
                    }
                    _ => error,
                })
            }
        }
    }
}

fn extension(path: &Path) -> String {
    path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase()
}

/// Reads the recording at `path`; `series_rate` in Hz is for the kinds of file that carry no rate.
pub(super) fn decode(path: &Path, series_rate: f64) -> Result<Signal> {
    let encoding = Encoding::of(path)?;
    let bytes = lowrank::files::read_bytes(path, MAX_FILE)?;
    match encoding {
        Encoding::Audio => audio::decode(bytes, &extension(path)),
        Encoding::Csv => series::decode(&bytes, series_rate),
        Encoding::Npy => npy::decode(&bytes, series_rate),
    }
    .map_err(|error| error.at(path.display()))
}

fn too_long() -> Error {
    Error::new(Subject::Data, "the recording is too long")
        .found(format!("more than {MAX_VALUES} values"))
        .with_hint("cut it into several files")
}
