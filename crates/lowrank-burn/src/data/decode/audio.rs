//! WAV, FLAC, OGG Vorbis and MP3.

use std::io::{Cursor, ErrorKind};

use lowrank::{Error, Result, Subject};
use symphonia::core::codecs::audio::{AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error as SymphoniaError;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, Track, TrackType};
use symphonia::core::io::{MediaSource, MediaSourceStream, MediaSourceStreamOptions, ReadOnlySource};
use symphonia::core::meta::MetadataOptions;
use symphonia::default::{get_codecs, get_probe};

use super::{MAX_VALUES, Signal, too_long};

/// Decodes an audio file; integer samples are scaled to -1..1.
///
/// Encoder padding is trimmed where the file says how much there is. A checksum (FLAC) is verified, and a file that
/// ends before the length it states is refused.
pub(super) fn decode(bytes: Vec<u8>, extension: &str) -> Result<Signal> {
    check_wav_channels(&bytes)?;
    let cursor = Cursor::new(bytes);
    // An MP3 without a length tag would be cut at a length guessed from its first frame's bit rate; a source that
    // cannot seek is not guessed about.
    let mp3 = extension == "mp3";
    let source: Box<dyn MediaSource> = if mp3 { Box::new(ReadOnlySource::new(cursor)) } else { Box::new(cursor) };
    let stream = MediaSourceStream::new(source, MediaSourceStreamOptions::default());
    let mut hint = Hint::new();
    hint.with_extension(extension);
    let (format_options, metadata_options) = (FormatOptions::default(), MetadataOptions::default());
    let mut format = get_probe().probe(&hint, stream, format_options, metadata_options).map_err(failed)?;

    let track = only_track(format.as_ref())?;
    let (id, stated) = (track.id, track.num_frames);
    if stated.is_none() && matches!(extension, "ogg" | "oga") {
        return Err(cut_short().found("a stream without its last page"));
    }
    let parameters = track.codec_params.as_ref().and_then(|parameters| parameters.audio());
    let parameters = parameters.ok_or_else(|| Error::new(Subject::Data, "the audio codec is not stated"))?;
    let mut decoder = get_codecs()
        .make_audio_decoder(parameters, &AudioDecoderOptions::default().verify(true))
        .map_err(|error| failed(error).with_hint("convert it: ffmpeg -i INPUT OUTPUT.flac"))?;

    let (channels, rate) = decode_packets(format.as_mut(), decoder.as_mut(), id)?;
    if decoder.finalize().verify_ok == Some(false) {
        return Err(Error::new(Subject::Data, "damaged audio: its checksum does not match"));
    }
    let samples = channels.first().map_or(0, Vec::len);
    if let Some(stated) = stated.filter(|stated| *stated > samples as u64) {
        return Err(cut_short().found(format!("{samples} samples")).expected(stated));
    }
    Signal::new(channels, f64::from(rate))
}

/// A WAV file's channel count is multiplied by the sample size before anything checks it; more than these overflow.
fn check_wav_channels(bytes: &[u8]) -> Result<()> {
    const MAX_CHANNELS: u16 = 1024;
    let Some((b"RIFF", mut chunks)) = bytes.get(..4).zip(bytes.get(12..)) else {
        return Ok(());
    };
    while let Some(([id @ .., l0, l1, l2, l3], body)) = chunks.split_first_chunk::<8>() {
        if let (b"fmt ", [_, _, low, high, ..]) = (id, body) {
            let channels = u16::from_le_bytes([*low, *high]);
            if channels > MAX_CHANNELS {
                let error = Error::new(Subject::Data, "too many channels").found(channels);
                return Err(error.expected(format!("at most {MAX_CHANNELS}")));
            }
        }
        // Chunks are padded to an even length.
        let length = u64::from(u32::from_le_bytes([*l0, *l1, *l2, *l3])).next_multiple_of(2);
        chunks = usize::try_from(length).ok().and_then(|length| body.get(length..)).unwrap_or_default();
    }
    Ok(())
}

fn only_track(format: &dyn FormatReader) -> Result<&Track> {
    let mut tracks = format.tracks().iter().filter(|track| track.track_type() == Some(TrackType::Audio));
    let first = tracks.next().ok_or_else(|| Error::new(Subject::Data, "no audio in the file"))?;
    match tracks.count() {
        0 => Ok(first),
        more => Err(Error::new(Subject::Data, "several audio tracks in one file").found(more + 1).expected(1)),
    }
}

/// All samples of a track, a channel each, and their rate.
fn decode_packets(
    format: &mut dyn FormatReader,
    decoder: &mut dyn AudioDecoder,
    track: u32,
) -> Result<(Vec<Vec<f32>>, u32)> {
    let mut channels: Vec<Vec<f32>> = Vec::new();
    let mut rate = 0;
    let mut planes: Vec<Vec<f32>> = Vec::new();
    while let Some(packet) = format.next_packet().map_err(failed)? {
        if packet.track_id != track {
            continue;
        }
        let buffer = decoder.decode(&packet).map_err(failed)?;
        let found = (buffer.num_planes(), buffer.spec().rate());
        if channels.is_empty() {
            channels = vec![Vec::new(); found.0];
            rate = found.1;
        }
        if found != (channels.len(), rate) {
            return Err(Error::new(Subject::Data, "channels or rate change within the file")
                .found(format!("{} channels at {} Hz", found.0, found.1))
                .expected(format!("{} at {rate} Hz as before", channels.len())));
        }
        let samples = channels.first().map_or(0, Vec::len);
        if (samples + buffer.frames()).saturating_mul(channels.len()) > MAX_VALUES {
            return Err(too_long());
        }
        buffer.copy_to_vecs_planar(&mut planes);
        for (channel, plane) in channels.iter_mut().zip(&planes) {
            channel.extend_from_slice(plane);
        }
    }
    Ok((channels, rate))
}

fn cut_short() -> Error {
    Error::new(Subject::Data, "the audio is cut short").with_hint(
        "fetch or export the file again; if it was written by a recorder that never closed it, convert it: \
         ffmpeg -i INPUT OUTPUT.flac",
    )
}

fn failed(error: SymphoniaError) -> Error {
    match &error {
        SymphoniaError::IoError(source) if source.kind() == ErrorKind::UnexpectedEof => cut_short().because(error),
        SymphoniaError::ResetRequired => {
            Error::new(Subject::Data, "several recordings chained in one file").with_hint("split it into one file each")
        }
        _ => Error::new(Subject::Data, format!("cannot decode the audio: {error}")).because(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAC: &[u8] = include_bytes!("../../../tests/data/tone.flac");
    const STEREO: &[u8] = include_bytes!("../../../tests/data/stereo.flac");
    const OGG: &[u8] = include_bytes!("../../../tests/data/tone.ogg");
    const MP3: &[u8] = include_bytes!("../../../tests/data/tone.mp3");
    const MP3_NO_TAG: &[u8] = include_bytes!("../../../tests/data/tone-no-tag.mp3");

    /// A WAV file of 8 kHz; `kind` 1 is PCM, 3 is float.
    fn wav(kind: u16, channels: u16, bits: u16, data: &[u8]) -> Vec<u8> {
        let (rate, length) = (8000_u32, u32::try_from(data.len()).unwrap());
        let frame = channels * bits / 8;
        let mut file = b"RIFF".to_vec();
        file.extend((36 + length).to_le_bytes());
        file.extend(b"WAVEfmt \x10\0\0\0");
        file.extend([kind, channels].into_iter().flat_map(u16::to_le_bytes));
        file.extend([rate, rate * u32::from(frame)].into_iter().flat_map(u32::to_le_bytes));
        file.extend([frame, bits].into_iter().flat_map(u16::to_le_bytes));
        file.extend(b"data");
        file.extend(length.to_le_bytes());
        file.extend(data);
        file
    }

    fn message(bytes: &[u8], extension: &str) -> String {
        decode(bytes.to_vec(), extension).unwrap_err().to_string()
    }

    #[test]
    fn wav_of_every_width() {
        let decoded = |kind, channels, bits, data: &[u8]| decode(wav(kind, channels, bits, data), "wav").unwrap();
        let data: Vec<u8> = [0_i16, 16384, -32768, -16384].into_iter().flat_map(i16::to_le_bytes).collect();
        let stereo = decoded(1, 2, 16, &data);
        assert_eq!((stereo.channels(), stereo.rate()), ([vec![0.0, -1.0], vec![0.5, -0.5]].as_slice(), 8000.0));
        assert_eq!(decoded(1, 1, 8, &[128, 192, 0]).channels(), [[0.0, 0.5, -1.0]]);
        assert_eq!(decoded(1, 1, 24, &[0, 0, 0xc0, 0, 0, 0x40]).channels(), [[-0.5, 0.5]]);
        let data: Vec<u8> = [0.25_f32, -1.5].into_iter().flat_map(f32::to_le_bytes).collect();
        assert_eq!(decoded(3, 1, 32, &data).channels(), [[0.25, -1.5]]);
    }

    #[test]
    fn a_tone_is_the_same_from_every_encoding() {
        // A sample's shift would be 0.09 off. Encoders disturb the ends; the tag-less MP3 keeps its encoder's delay.
        for (bytes, extension, tolerance) in [(FLAC, "flac", 1e-3), (OGG, "ogg", 0.02), (MP3, "mp3", 0.03)] {
            let tone = decode(bytes.to_vec(), extension).unwrap();
            assert_eq!((tone.channels().len(), tone.samples(), tone.rate()), (1, 8000, 16_000.0), "{extension}");
            for (i, value) in tone.channels()[0].iter().enumerate().skip(1000).take(6000) {
                #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "test signal")]
                let exact = (0.5 * (std::f64::consts::TAU * 440.0 * i as f64 / 16_000.0).sin()) as f32;
                assert!((value - exact).abs() < tolerance, "{extension}: sample {i} is {value}, not {exact}");
            }
        }
        assert_eq!(decode(STEREO.to_vec(), "flac").unwrap().channels().len(), 2);
        assert!(decode(MP3_NO_TAG.to_vec(), "mp3").unwrap().samples() > 8000);
    }

    #[test]
    fn what_is_cut_short_is_refused() {
        let data = [0; 8000];
        let whole = wav(1, 1, 16, &data);
        assert_eq!(decode(whole.clone(), "wav").unwrap().samples(), 4000);
        for length in [whole.len() - 1, whole.len() - 4000, 50] {
            assert!(message(&whole[..length], "wav").starts_with("the audio is cut short"), "WAV at {length}");
        }
        for (bytes, extension) in [(FLAC, "flac"), (OGG, "ogg"), (MP3, "mp3")] {
            for share in [50, 90, 99] {
                let message = message(&bytes[..bytes.len() * share / 100], extension);
                assert!(message.contains("cut short"), "{extension} at {share} %: {message}");
            }
        }
    }

    #[test]
    fn damage_is_found_where_the_format_can_tell() {
        let mut damaged = FLAC.to_vec();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 0x10;
        assert!(decode(damaged, "flac").is_err());
    }

    #[test]
    fn what_is_no_audio_is_refused_and_nothing_panics() {
        for (bytes, extension) in [(b"".as_slice(), "wav"), (b"hello, world", "wav"), (&[0xff; 500], "mp3")] {
            assert!(decode(bytes.to_vec(), extension).is_err());
        }
        let mut many = wav(1, 1, 16, &[0; 8]);
        many[22..24].copy_from_slice(&[0xff, 0xff]);
        assert_eq!(message(&many, "wav"), "too many channels: found 65535, expected at most 1024");
        let silent = wav(1, 1, 16, &[]);
        assert_eq!(message(&silent, "wav"), "the recording is empty");
        let nan: Vec<u8> = [0.5, f32::NAN].into_iter().flat_map(f32::to_le_bytes).collect();
        assert_eq!(
            message(&wav(3, 1, 32, &nan), "wav"),
            "channel 0, sample 1 (counted from 0): not a finite number: found NaN"
        );
        for cut in 0..120 {
            let _ = decode(wav(1, 2, 16, &[1; 64])[..cut.min(108)].to_vec(), "wav");
            let _ = decode(FLAC[..cut].to_vec(), "flac");
            let _ = decode(OGG[..cut].to_vec(), "ogg");
            let _ = decode(MP3[..cut].to_vec(), "mp3");
        }
    }
}
