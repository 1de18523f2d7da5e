use std::fs;

use burn::module::Module;
use lowrank::random::Random;

use super::*;
use crate::data::{Reading, SignalFormat};
use crate::models::silero_vad::SileroVadConfig;
use crate::models::tcn::{Tcn, TcnConfig};

/// A small network, whose frames are 32 samples.
fn network(device: &Device) -> Network {
    let config = SileroVadConfig { frame: 32, context: 4, n_fft: 16, hop_length: 8, channels: [6, 4, 4, 6] };
    device.seed(0);
    Network::SileroVad(SileroVad::new(&config, device))
}

fn signal() -> SignalFormat {
    SignalFormat { channels: 1, rate: 1000.0, window: 4 * 32, hop: 3 * 32 }
}

/// A folder with a recording of 20 frames and a bit, one of 3 frames, a label track and a manifest.
fn folder(rows: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let mut random = Random::new(0, "recordings", 0);
    for (name, samples) in [("long.csv", 20 * 32 + 5), ("short.csv", 3 * 32)] {
        let text: Vec<String> = (0..samples).map(|_| format!("{}\n", 0.3 * random.normal())).collect();
        fs::write(folder.path().join(name), text.concat()).unwrap();
    }
    fs::write(folder.path().join("long.txt"), "0.032\t0.128\tspeech\n0.320\t0.512\tspeech\n").unwrap();
    let path = folder.path().join("list.csv");
    fs::write(&path, format!("path,label,split,start,end\n{rows}")).unwrap();
    (folder, path)
}

fn load(path: &Path, split: Split, reading: Reading) -> Result<Recordings> {
    let mut manifest = Manifest::read_tracks(path)?;
    manifest.reading = reading;
    Recordings::load(&manifest, split, &Detector { signal: signal() }, &TrainConfig::default())
}

fn frames(recordings: &Recordings, part: usize, count: usize) -> Vec<bool> {
    recordings.parts[part].track.frames(recordings.parts[part].range.start, 32, count)
}

#[test]
fn labels_come_from_tracks_and_rules() {
    let (_folder, path) = folder(
        "long.csv,long.txt,train,0,\nlong.csv,none,test,,\nshort.csv,energy,test,,\nlong.csv,long.txt,test,0.1,0.35\n",
    );
    let train = load(&path, Split::Train, Reading::default()).unwrap();
    let spoken: Vec<usize> =
        frames(&train, 0, 21).iter().enumerate().filter(|(_, speech)| **speech).map(|(at, _)| at).collect();
    assert_eq!(spoken, [1, 2, 3, 10, 11, 12, 13, 14, 15]);
    // Windows of 4 frames every 3, while a whole one fits.
    assert_eq!(train.windows.iter().map(|(_, start)| start / 32).collect::<Vec<_>>(), [0, 3, 6, 9, 12, 15]);

    let test = load(&path, Split::Test, Reading::default()).unwrap();
    assert_eq!(frames(&test, 0, 20), [false; 20]);
    assert_eq!(frames(&test, 1, 3), [true; 3]);
    // From 0.1 s on, the track goes on to 0.128 s, and begins again at 0.32 s: frames of the part, not of the recording.
    assert_eq!(frames(&test, 2, 8), [true, false, false, false, false, false, false, true]);
    assert!(Track::default() == test.parts[0].track);
}

#[test]
fn a_short_recording_is_one_window_or_left_out() {
    let (_folder, path) = folder("long.csv,none,train,,\nshort.csv,energy,train,,\n");
    let whole = load(&path, Split::Train, Reading::default()).unwrap();
    assert_eq!(whole.windows.last(), Some(&(1, 0)));
    let device = Device::flex();
    let loss = whole.loss(&network(&device), &[whole.len() - 1]).unwrap();
    assert!(loss.into_scalar::<f32>().is_finite());
    let without = load(&path, Split::Train, Reading { skip_short: true, ..Reading::default() }).unwrap();
    assert_eq!((without.len(), without.warnings().len()), (whole.len() - 1, 1));
}

#[test]
fn what_cannot_be_used_is_all_named() {
    let (folder, path) =
        folder("long.csv,gone.txt,train,,\nshort.csv,long.txt,train,,\nlong.csv,long.csv,train,,0.4\n");
    let error = load(&path, Split::Train, Reading::default()).unwrap_err();
    let text = error.parts().iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    let text = text.replace(&folder.path().display().to_string(), "");
    assert!(
        text.starts_with(
            "/list.csv: line 2: no such label track: found /gone.txt, expected none, energy, or a file of start and end in seconds\n\
             /list.csv: line 3: /long.txt: reaches past the end of the recording: found 0.512 s, expected at most 0.096 s\n\
             /list.csv: line 4: /long.csv: "
        ),
        "{text}"
    );
    let error = load(&path, Split::Valid, Reading::default()).unwrap_err().to_string();
    assert!(error.contains("no recordings in the valid split"), "{error}");
}

#[test]
fn batches_of_recordings_do_not_change_what_is_said_of_one() {
    let (_folder, path) = folder("long.csv,long.txt,test,,\nshort.csv,none,test,,\nlong.csv,none,test,0.2,0.5\n");
    let recordings = load(&path, Split::Test, Reading::default()).unwrap();
    let network = network(&Device::flex());
    let (alone, together) = (recordings.logits(&network, 1).unwrap(), recordings.logits(&network, 3).unwrap());
    assert_eq!(alone.iter().map(Vec::len).collect::<Vec<_>>(), [21, 3, 10]);
    for (alone, together) in alone.iter().flatten().zip(together.iter().flatten()) {
        assert!((alone - together).abs() < 1e-5);
    }
    let tasks::Evaluation::VoiceActivity(evaluation) = recordings.evaluate(&network, 2).unwrap() else {
        panic!("another task")
    };
    assert_eq!((evaluation.all.frames, evaluation.all.speech), (34, 9));
    assert_eq!(evaluation.recordings.len(), 3);

    let predictions = recordings.predict(&network, 2).unwrap();
    let line: serde_json::Value = serde_json::from_str(&predictions.lines[2]).unwrap();
    assert_eq!((line["frame"].as_f64(), line["probabilities"].as_array().unwrap().len()), (Some(0.032), 10));
    assert_eq!(predictions.counts[0], ("recordings", 3));
}

#[test]
fn segments_are_runs_of_frames_in_seconds_of_the_recording() {
    let found = segments(&[1.0, 0.0, -1.0, 2.0, -2.0, 3.0], 32, &(100..100 + 5 * 32 + 7), 1000.0);
    let expected = [(0.1, 0.164), (0.196, 0.228), (0.26, 0.267)];
    assert_eq!(found, expected.map(|(start, end)| Segment { start, end }));
}

#[test]
fn training_lowers_the_loss_and_another_network_is_refused() {
    let (_folder, path) = folder("long.csv,long.txt,train,,\n");
    let recordings = load(&path, Split::Train, Reading::default()).unwrap();
    let device = Device::flex().autodiff();
    let network = network(&device);
    let indices: Vec<usize> = (0..recordings.len()).collect();
    let trainable = crate::train::Trainable::of_model(&network);
    let (mut params, first) = (trainable.read(&network), recordings.loss(&network, &indices).unwrap());
    let first_loss = first.clone().into_scalar::<f32>();
    let mut gradient = vec![0.0; trainable.len()];
    trainable.add_gradients(&network, &first.backward(), 1.0, &mut gradient);
    params.iter_mut().zip(&gradient).for_each(|(value, slope)| *value -= 0.05 * slope);
    let network = trainable.write(network, &params);
    assert!(recordings.loss(&network, &indices).unwrap().into_scalar::<f32>() < first_loss);
    // The label of a frame is where its sound is: the mean of the single windows is that of all.
    let single: f32 = indices.iter().map(|at| recordings.loss(&network, &[*at]).unwrap().into_scalar::<f32>()).sum();
    let all = recordings.loss(&network, &indices).unwrap().into_scalar::<f32>();
    #[expect(clippy::cast_precision_loss, reason = "a few windows")]
    let mean = single / indices.len() as f32;
    assert!((mean - all).abs() < 1e-5);

    let keys = serde_json::json!({"in_channels": 1, "channels": 2, "dilations": [1]});
    let config: TcnConfig = serde_json::from_value(keys).unwrap();
    let other = Network::Tcn(Tcn::new(&config, 2, &device)).valid();
    assert_eq!(recordings.predict(&other, 1).unwrap_err().to_string(), "not a network for voice activity");
}
