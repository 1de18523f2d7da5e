use super::*;
use lowrank::files;
use proptest::prelude::*;
use tempfile::TempDir;

const FORMAT: SignalFormat = SignalFormat { channels: 2, rate: 10.0, window: 4, hop: 2 };

/// A CSV recording: channel 0 counts the samples from `first`, channel 1 is their negative.
fn counting(first: i32, samples: i32) -> Vec<u8> {
    (first..first + samples).map(|i| format!("{i},{}\n", -i)).collect::<Vec<_>>().concat().into_bytes()
}

fn folder(recordings: &[(&str, Vec<u8>)], manifest: &str) -> (TempDir, Manifest) {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in recordings {
        files::write(&dir.path().join(name), bytes).unwrap();
    }
    let list = dir.path().join("list.csv");
    files::write(&list, manifest.as_bytes()).unwrap();
    let manifest = Manifest::read(&list, None).unwrap();
    (dir, manifest)
}

fn two_recordings() -> (TempDir, Manifest) {
    folder(
        &[("a.csv", counting(0, 20)), ("b.csv", counting(100, 9))],
        "path,label,split,start,end\n\
         b.csv,walk,train,,\n\
         a.csv,run,train,,59%\n\
         a.csv,run,test,1.2,\n\
         a.csv,walk,train,60%,\n",
    )
}

/// The messages of a load that fails, without the folder they are about.
fn errors(dir: &TempDir, manifest: &Manifest, format: &SignalFormat) -> Vec<String> {
    let error = Dataset::load(manifest, Split::Train, format).unwrap_err();
    let folder = format!("{}/", dir.path().display());
    let messages: Vec<&Error> = if error.parts().is_empty() { vec![&error] } else { error.parts().iter().collect() };
    messages.iter().map(|error| error.to_string().replace(&folder, "")).collect()
}

#[test]
fn windows_come_from_their_part_of_the_recording() {
    let (dir, manifest) = two_recordings();
    let train = Dataset::load(&manifest, Split::Train, &FORMAT).unwrap();
    let sources: Vec<(String, usize, usize, &str)> = (0..train.len())
        .map(|index| {
            let source = train.source(index).unwrap();
            let name = source.path.strip_prefix(dir.path()).unwrap().display().to_string();
            (name, source.start, source.end, train.labels()[source.label].as_str())
        })
        .collect();
    let source = |name: &str, start, label| (name.to_owned(), start, start + 4, label);
    assert_eq!(
        sources,
        [
            source("b.csv", 0, "walk"),
            source("b.csv", 2, "walk"),
            source("b.csv", 4, "walk"),
            source("a.csv", 0, "run"), // up to 11 = floor(0.59 * 20)
            source("a.csv", 2, "run"),
            source("a.csv", 4, "run"),
            source("a.csv", 6, "run"),
            source("a.csv", 12, "walk"),
            source("a.csv", 14, "walk"),
            source("a.csv", 16, "walk"),
        ]
    );
    assert_eq!(train.window_labels().collect::<Vec<_>>(), [1, 1, 1, 0, 0, 0, 0, 1, 1, 1]);
    assert!(train.source(train.len()).is_none() && train.warnings().is_empty());
    let test = Dataset::load(&manifest, Split::Test, &FORMAT).unwrap();
    assert_eq!((test.len(), test.source(0).unwrap().start), (3, 12));
}

#[test]
fn a_batch_is_windows_by_channels_by_samples() {
    let (_dir, manifest) = two_recordings();
    let train = Dataset::load(&manifest, Split::Train, &FORMAT).unwrap();
    let (mut batch, mut labels) = (vec![7.0], vec![7]);
    train.fill(&[4, 0], &Normalisation::identity(2), &mut batch, &mut labels).unwrap();
    assert_eq!(
        batch,
        [2.0, 3.0, 4.0, 5.0, -2.0, -3.0, -4.0, -5.0, 100.0, 101.0, 102.0, 103.0, -100.0, -101.0, -102.0, -103.0]
    );
    assert_eq!(labels, [0, 1]);
    let halved = Normalisation { mean: vec![2.0, 0.0], std: vec![0.5, 2.0], per_window: false };
    train.fill(&[4], &halved, &mut batch, &mut labels).unwrap();
    assert_eq!(batch, [0.0, 2.0, 4.0, 6.0, -1.0, -1.5, -2.0, -2.5]);

    let error = train.fill(&[10], &halved, &mut batch, &mut labels).unwrap_err();
    assert_eq!(error.to_string(), "no such window: found 10, expected below 10");
    assert!(train.fill(&[0], &Normalisation::identity(3), &mut batch, &mut labels).is_err());
}

#[test]
fn normalised_windows_have_mean_0_and_deviation_1() {
    let (_dir, manifest) = two_recordings();
    let train = Dataset::load(&manifest, Split::Train, &FORMAT).unwrap();
    let normalisation = Normalisation::fit(&train);
    let (mut batch, mut labels) = (Vec::new(), Vec::new());
    train.fill(&train.order(1, 0), &normalisation, &mut batch, &mut labels).unwrap();
    for channel in 0..2 {
        let values: Vec<f64> =
            batch.chunks(8).flat_map(|window| &window[4 * channel..4 * channel + 4]).map(|v| f64::from(*v)).collect();
        let mean = values.iter().sum::<f64>() / 40.0;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / 40.0;
        assert!(mean.abs() < 1e-6 && (variance - 1.0).abs() < 1e-6, "channel {channel}: {mean}, {variance}");
    }
}

#[test]
fn a_constant_channel_is_centred_and_said_so() {
    let rows = "0.1,1\n0.1,2\n0.1,3\n0.1,4\n".repeat(5);
    let (_dir, manifest) = folder(&[("a.csv", rows.into_bytes())], "path,label\na.csv,x\n");
    let train = Dataset::load(&manifest, Split::Train, &FORMAT).unwrap();
    assert_eq!(train.warnings(), ["train: constant in every window, so not scaled: channel 0 (from 0)"]);
    let normalisation = Normalisation::fit(&train);
    assert_eq!((normalisation.mean[0], normalisation.std[0]), (0.1, 1.0));
    assert!((normalisation.std[1] - 1.118_034).abs() < 1e-6);
}

#[test]
fn the_balance_is_a_table() {
    let (_dir, manifest) = two_recordings();
    let balance = Dataset::load(&manifest, Split::Train, &FORMAT).unwrap().balance();
    assert_eq!(
        balance.to_string(),
        "train  recordings  windows  seconds\n\
         run             1        4      1.1\n\
         walk            2        6      1.7\n\
         total           3       10      2.8\n"
    );
}

#[test]
fn every_recording_that_cannot_be_used_is_named() {
    let (dir, manifest) = folder(
        &[
            ("good.csv", counting(0, 9)),
            ("three.csv", b"1,2,3\n".to_vec()),
            ("nan.csv", b"1,2\n3,nan\n".to_vec()),
            ("text.csv", b"x,y\n1,2\noops,3\n".to_vec()),
        ],
        "path,label\ngood.csv,a\nthree.csv,a\nnan.csv,a\ntext.csv,a\n",
    );
    assert_eq!(
        errors(&dir, &manifest, &FORMAT),
        [
            "three.csv: wrong number of channels: found 3, expected 2",
            "nan.csv: channel 1, sample 1 (counted from 0): not a finite number: found NaN",
            "text.csv: line 3, column 1 (x): not a number: found \"oops\"",
        ]
    );
}

#[test]
fn parts_that_do_not_fit_are_named_with_their_line() {
    let (dir, mut manifest) = folder(
        &[("a.csv", counting(0, 9)), ("short.csv", counting(0, 3))],
        "path,label,start,end\na.csv,x,,\na.csv,x,0.5,2\na.csv,x,50%,70%\nshort.csv,y,,\n",
    );
    let past =
        "list.csv: line 3: a.csv: reaches past the end of the recording: found 0.5 s to 2 s, expected at most 0.9 s";
    assert_eq!(
        errors(&dir, &manifest, &FORMAT),
        [
            past,
            "list.csv: line 4: a.csv: shorter than a window: found 2 samples, expected at least 4",
            "list.csv: line 5: short.csv: shorter than a window: found 3 samples, expected at least 4",
        ]
    );
    manifest.reading.skip_short = true;
    let emptied = "train: every recording of a label is shorter than a window: found \"y\"";
    assert_eq!(errors(&dir, &manifest, &FORMAT), [past, emptied]);
}

#[test]
fn short_recordings_may_be_left_out() {
    let (dir, mut manifest) =
        folder(&[("a.csv", counting(0, 9)), ("b.csv", counting(0, 3))], "path,label\na.csv,x\nb.csv,x\n");
    manifest.reading.skip_short = true;
    let train = Dataset::load(&manifest, Split::Train, &FORMAT).unwrap();
    let warning = train.warnings()[0].replace(&format!("{}/", dir.path().display()), "");
    assert_eq!(
        warning,
        "left out: list.csv: line 3: b.csv: shorter than a window: found 3 samples, expected at least 4"
    );
    assert_eq!((train.warnings().len(), train.len()), (1, 3));
}

#[test]
fn an_empty_split_says_what_there_is() {
    let (_dir, manifest) = two_recordings();
    let error = Dataset::load(&manifest, Split::Valid, &FORMAT).unwrap_err();
    assert!(error.to_string().ends_with("no recordings in the valid split: found 3 train, 0 valid, 1 test"));
    assert_eq!(error.hint(), Some("give some rows \"valid\" in the split column"));
}

#[test]
fn audio_is_mixed_and_resampled_only_as_allowed() {
    let stereo = include_bytes!("../../../tests/data/stereo.flac").to_vec();
    let (dir, mut manifest) = folder(&[("a.flac", stereo)], "path,label\na.flac,x\n");
    let format = SignalFormat { channels: 1, rate: 8000.0, window: 4000, hop: 4000 };
    assert_eq!(errors(&dir, &manifest, &format), ["a.flac: wrong number of channels: found 2, expected 1"]);
    manifest.reading.mix_to_mono = true;
    let train = Dataset::load(&manifest, Split::Train, &format).unwrap();
    assert_eq!((train.len(), train.channels()), (1, 1));
    assert!(!errors(&dir, &manifest, &SignalFormat { channels: 3, ..format }).is_empty());
}

#[test]
fn a_series_has_the_rate_it_is_said_to_have() {
    let (dir, mut manifest) = folder(&[("a.csv", counting(0, 40))], "path,label\na.csv,x\n");
    let windows = |manifest: &Manifest| Dataset::load(manifest, Split::Train, &FORMAT).map(|train| train.len());
    assert_eq!(windows(&manifest).unwrap(), 19);
    manifest.reading.series_rate = Some(20.0);
    assert_eq!(windows(&manifest).unwrap(), 9);
    manifest.reading.series_rate = Some(-1.0);
    assert_eq!(
        errors(&dir, &manifest, &FORMAT),
        ["a.csv: the sample rate must be a positive number: found -1, expected a rate in Hz"]
    );
}

#[test]
fn threads_change_nothing() {
    let tone = include_bytes!("../../../tests/data/tone.ogg").to_vec();
    let names: Vec<String> = (0..6).map(|i| format!("{i}.ogg")).collect();
    let recordings: Vec<(&str, Vec<u8>)> = names.iter().map(|name| (name.as_str(), tone.clone())).collect();
    let rows = names.iter().map(|name| format!("{name},x\n")).collect::<Vec<_>>().concat();
    let (_dir, manifest) = folder(&recordings, &format!("path,label\n{rows}"));
    let format = SignalFormat { channels: 1, rate: 11_025.0, window: 512, hop: 300 };
    let batch = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let train = Dataset::load(&manifest, Split::Train, &format).unwrap();
            let (mut batch, mut labels) = (Vec::new(), Vec::new());
            train.fill(&train.order(3, 1), &Normalisation::fit(&train), &mut batch, &mut labels).unwrap();
            batch.iter().map(|value| value.to_bits()).collect::<Vec<_>>()
        })
    };
    assert_eq!(batch(1), batch(4));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn batches_are_a_permutation_and_a_function_of_seed_and_epoch(seed: u64, epoch in 0_u64..1000, size in 1_usize..12) {
        let (_dir, manifest) = two_recordings();
        let train = Dataset::load(&manifest, Split::Train, &FORMAT).unwrap();
        let order = train.order(seed, epoch);
        let batches: Vec<&[usize]> = order.chunks(size).collect();
        prop_assert_eq!(batches.len(), train.len().div_ceil(size));
        let mut all = batches.concat();
        all.sort_unstable();
        prop_assert_eq!(all, (0..train.len()).collect::<Vec<_>>());
        let again = Dataset::load(&manifest, Split::Train, &FORMAT).unwrap();
        prop_assert_eq!(&again.order(seed, epoch), &order);
    }

    #[test]
    fn every_window_is_inside_its_part(samples in 4_i32..60, from in 0_u32..50, to in 51_u32..=100, window in 1_usize..5) {
        let (_dir, manifest) = folder(
            &[("a.csv", counting(0, samples))],
            &format!("path,label,start,end\na.csv,x,{from}%,{to}%\n"),
        );
        let format = SignalFormat { window, hop: 1, ..FORMAT };
        let length = usize::try_from(samples).unwrap();
        let bound = |percent: u32| length * percent as usize / 100;
        match Dataset::load(&manifest, Split::Train, &format) {
            Ok(train) => {
                for index in 0..train.len() {
                    let source = train.source(index).unwrap();
                    prop_assert!(source.start + 1 >= bound(from) && source.end <= bound(to));
                    prop_assert_eq!(source.end - source.start, window);
                    #[expect(clippy::cast_precision_loss, reason = "test signal")]
                    let first = source.start as f32;
                    prop_assert_eq!(train.samples(index, 0).first(), Some(&first));
                }
            }
            Err(_) => prop_assert!(bound(to) - bound(from) <= window),
        }
    }
}
