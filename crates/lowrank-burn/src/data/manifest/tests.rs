use super::*;
use crate::data::span::Bound;

fn parse(text: &str, labels: Option<&[&str]>) -> Result<Manifest> {
    let labels: Option<Vec<String>> = labels.map(|labels| labels.iter().map(|label| (*label).to_owned()).collect());
    parse_as(text, labels.as_deref().map_or(Truth::NewLabels, Truth::Labels))
}

fn parse_as(text: &str, truth: Truth<'_>) -> Result<Manifest> {
    Manifest::parse(text, Path::new("data/list.csv"), truth, |path| !path.ends_with("gone.wav"))
}

#[test]
fn texts_stand_where_labels_do() {
    let manifest =
        parse_as("path,text,split\na.wav,good morning,train\nb.wav,\"yes, no\",test\n", Truth::Texts).unwrap();
    let texts: Vec<_> = manifest.recordings().iter().map(|row| manifest.labels()[row.label].as_str()).collect();
    assert_eq!(texts, ["good morning", "yes, no"]);
    assert!(manifest.warnings().is_empty());
    let error = parse_as("path,label\na.wav,walk\n", Truth::Texts).unwrap_err();
    assert!(error.parts()[0].to_string().contains("unknown column: found \"label\", expected path, text"), "{error}");
    assert_eq!(
        error.parts()[1].hint(),
        Some("the first line names the columns: path,text and optionally split,start,end")
    );
}

/// Every error of a manifest, with its hint after an arrow.
fn errors(text: &str, labels: Option<&[&str]>) -> Vec<String> {
    let error = parse(text, labels).unwrap_err();
    let line = |error: &Error| match error.hint() {
        Some(hint) => format!("{error} -> {hint}"),
        None => error.to_string(),
    };
    if error.parts().is_empty() { vec![line(&error)] } else { error.parts().iter().map(line).collect() }
}

#[test]
fn reads_every_column_in_any_order() {
    let text =
        "label,path,end,start,split\nwalk,a.wav,30%,,train\nrun,/abs/b.csv,12.5,2,test\n\"go, stop\",../c.npy,,,\n";
    let manifest = parse(text, None).unwrap_err();
    assert_eq!(manifest.to_string(), "data/list.csv: line 3: a label without a training recording: found \"run\"");
    let manifest = parse(text, Some(&["walk", "run", "go, stop"])).unwrap();
    let row = |path: &str, label, split, start, end, line| Recording {
        path: path.into(),
        label,
        split,
        span: Span { start, end },
        line,
    };
    assert_eq!(
        manifest.recordings(),
        [
            row("data/a.wav", 0, Split::Train, None, Some(Bound::Percent(30.0)), 2),
            row("/abs/b.csv", 1, Split::Test, Some(Bound::Seconds(2.0)), Some(Bound::Seconds(12.5)), 3),
            row("data/../c.npy", 2, Split::Train, None, None, 4),
        ]
    );
}

#[test]
fn labels_are_collected_and_sorted_or_the_models() {
    let text = "path,label\na.wav,walk\nb.wav,run\nc.wav,walk\n";
    assert_eq!(parse(text, None).unwrap().labels(), ["run", "walk"]);
    let manifest = parse(text, Some(&["walk", "sit", "run"])).unwrap();
    assert_eq!(manifest.labels(), ["walk", "sit", "run"]);
    assert_eq!(manifest.warnings(), ["no training recording shows \"sit\": an adapter may unlearn what it never sees"]);
}

#[test]
fn recordings_may_have_the_same_text_and_none_has_none() {
    let manifest =
        parse_as("path,text,split\na.wav,due,train\nb.wav,\"uno, due\",test\nc.wav,due,test\n", Truth::Texts).unwrap();
    assert_eq!(manifest.labels(), ["due", "uno, due"]);
    assert_eq!(manifest.recordings().iter().map(|row| row.label).collect::<Vec<_>>(), [0, 1, 0]);
    assert!(manifest.labelled() && manifest.warnings().is_empty());
    let error = parse_as("path,text\ngone.wav,due\na.wav,\na.wav,x\na.wav,x\n", Truth::Texts).unwrap_err();
    let found: Vec<String> = error.parts().iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "data/list.csv: line 2: no such file: found data/gone.wav",
            "data/list.csv: line 3: no text",
            "data/list.csv: line 5: the row repeats an earlier one: found the whole recording of data/a.wav, as in line 4",
        ]
    );
}

#[test]
fn says_what_is_wrong_with_the_columns() {
    assert_eq!(
        errors("file,labels,path,path\n", None),
        [
            "data/list.csv: line 1: unknown column: found \"file\", expected path, label, split, start, end",
            "data/list.csv: line 1: unknown column: found \"labels\", expected path, label, split, start, end \
             -> did you mean \"label\"?",
            "data/list.csv: line 1: a column twice: found \"path\"",
            "data/list.csv: line 1: a column is missing: expected \"label\" \
             -> the first line names the columns: path,label and optionally split,start,end",
        ]
    );
    assert_eq!(
        errors("path;label\na.wav;x\n", None)[0],
        "data/list.csv: line 1: unknown column: found \"path;label\", expected path, label, split, start, end \
         -> separate the columns with commas"
    );
    let missing = parse("path\na.wav\n", None).unwrap_err().to_string();
    assert_eq!(missing, "data/list.csv: line 1: a column is missing: expected \"label\"");
}

#[test]
fn says_all_that_is_wrong_with_the_rows_at_once() {
    let text = "path,label,split,start,end\n\
                a.wav,wlak,train,,\n\
                gone.wav,walk,train,,\n\
                b.opus,walk,validation,,\n\
                c.wav,,tset,5,2\n\
                d.wav,walk,train,1e,90%\n\
                e.wav,walk\n\
                f.wav,walk,train,10%,50%\n\
                ./f.wav,walk,test,10%,50%\n\
                ,dance,train,,\n\
                g.wav,dance,train,,\n";
    assert_eq!(
        errors(text, Some(&["walk", "run"])),
        [
            "line 2: unknown label: found \"wlak\", expected one of \"walk\", \"run\" -> did you mean \"walk\"?",
            "line 3: no such file: found data/gone.wav -> paths are relative to the manifest's folder, or absolute",
            "line 4: b.opus: not a kind of recording that can be read: found .opus, expected .wav, .flac, .ogg, .mp3, \
             .csv or .npy -> convert it: ffmpeg -i INPUT OUTPUT.flac",
            "line 4: unknown split: found \"validation\", expected train, valid, test -> did you mean \"valid\"?",
            "line 5: no label",
            "line 5: holds no sample: found 5 s to 2 s, expected a start before the end",
            "line 5: unknown split: found \"tset\", expected train, valid, test -> did you mean \"test\"?",
            "line 6: start: not a place in a recording: found \"1e\", expected seconds such as 12.5, or a share such \
             as 30%",
            "line 7: a row of another length than the header: found 2, expected 5 fields -> a field with a comma in \
             it needs quotes: \"a, b.wav\"",
            "line 9: the row repeats an earlier one: found 10% to 50% of data/./f.wav, as in line 8",
            "line 10: no path",
            "line 11: unknown label: found \"dance\", expected one of \"walk\", \"run\" -> a model keeps the labels \
             it was trained with; train a new base for others",
        ]
        .map(|error| format!("data/list.csv: {error}"))
    );
    let error = parse(text, Some(&["walk", "run"])).unwrap_err();
    assert_eq!(error.to_string(), "data/list.csv: 12 errors");
}

#[test]
fn a_manifest_without_rows_is_an_error() {
    for text in ["", "path,label\n", "\n\n"] {
        assert_eq!(errors(text, None), ["data/list.csv: the manifest lists no recordings"], "{text:?}");
    }
}

#[test]
fn many_errors_are_counted() {
    let rows = (0..50).map(|i| format!("{i}.wav,x\n")).collect::<Vec<_>>().concat();
    let errors = errors(&format!("path,label\n{rows}"), Some(&["walk"]));
    assert_eq!((errors.len(), errors[20].as_str()), (21, "data/list.csv: 30 more errors"));
}

#[test]
fn warns_when_samples_are_in_two_splits() {
    let text = "path,label,split,start,end\n\
                a.wav,x,test,35%,\n\
                a.wav,x,train,,30%\n\
                b.wav,x,test,2,4\n\
                b.wav,x,train,0,1\n\
                b.wav,x,train,1,9\n\
                c.wav,x,valid,,\n\
                c.wav,X,train,50%,60%\n\
                d.wav,x,train,,10\n\
                d.wav,x,train,5,15\n\
                d.wav,x,test,15,\n";
    assert_eq!(
        parse(text, None).unwrap().warnings(),
        [
            "data/b.wav: the same samples are in test (line 4) and in train (line 6)",
            "data/c.wav: the same samples are in valid (line 7) and in train (line 8)",
            "two labels differ in case only: \"X\" and \"x\"",
        ]
    );
}

#[test]
fn splits_have_the_names_of_the_manifest() {
    assert_eq!(serde_json::to_string(&Split::ALL).unwrap(), r#"["train","valid","test"]"#);
    assert_eq!(format!("{:>6}", Split::Test), "  test");
}

#[test]
fn bare_recordings_are_whole_and_of_no_label() {
    let dir = tempfile::tempdir().unwrap();
    let paths = ["a.npy", "b.wav", "c.txt"].map(|name| dir.path().join(name));
    std::fs::write(&paths[0], "").unwrap();
    let labels = ["walk".to_owned()];
    let manifest = Manifest::of_recordings(&paths[..1], &labels).unwrap();
    assert_eq!(manifest.recordings()[0].span, Span::default());
    assert_eq!((manifest.labels(), manifest.recordings()[0].split), (&labels[..], Split::Test));
    let error = Manifest::of_recordings(&paths, &labels).unwrap_err();
    let problems: Vec<_> = error.parts().iter().map(Error::problem).collect();
    assert_eq!(problems, ["no such file", "not a kind of recording that can be read"]);
}
