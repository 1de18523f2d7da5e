//! Settings as a plan: typed, complete, and in their ranges.

use std::path::{Path, PathBuf};

use lowrank::config::LoraConfig;
use lowrank::{Error, Result, Subject};
use lowrank_burn::data::{Reading, SignalFormat};
use lowrank_burn::models::{Architecture, Dtype};
use lowrank_burn::train::TrainConfig;
use serde_json::{Map, Value};

use super::{Section, Settings, rewrite};

/// Where runs go that do not say.
const OUTPUT: &str = "lowrank-runs";

/// What a run file and its flags ask for.
#[derive(Debug)]
pub struct RunPlan {
    /// Seed of everything random.
    pub seed: u64,
    /// Where the result goes.
    pub output: PathBuf,
    /// What is trained.
    pub model: Model,
    /// The type in which the weights of a base are held.
    pub dtype: Dtype,
    /// The list of recordings.
    pub manifest: Option<PathBuf>,
    /// How recordings are read.
    pub reading: Reading,
    /// The adapter; without one, all weights train.
    pub lora: Option<LoraConfig>,
    /// How to train.
    pub train: TrainConfig,
    /// All settings as they count, as a run file in the output folder would have them.
    pub settings: String,
}

/// What is trained.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a run has one")]
pub enum Model {
    /// A base directory.
    Base(PathBuf),
    /// A new base.
    New {
        /// The network.
        architecture: Architecture,
        /// What it hears.
        signal: SignalFormat,
    },
}

impl RunPlan {
    /// The plan that settings make.
    ///
    /// # Errors
    /// Whatever is missing, contradicts itself, or is out of range: all of it.
    pub fn new(settings: &Settings) -> Result<Self> {
        let mut errors = Vec::new();
        let (model, dtype) = (keep(model(settings), &mut errors), keep(dtype(settings), &mut errors));
        let lora = if settings.has(Section::Lora) { keep(lora(settings).map(Some), &mut errors) } else { Some(None) };
        let train = keep(train(settings), &mut errors);
        let reading = keep(reading(settings), &mut errors);
        if let (Some(Model::New { .. }), Some(Some(_))) = (&model, &lora) {
            let error = Error::new(Subject::Config, "a new base has no adapter yet: [lora] needs `base` in [model]");
            errors.push(error.with_hint("train the base first, without [lora]; then adapt it"));
        }
        let (Some(model), Some(dtype), Some(lora), Some(train), Some(reading)) = (model, dtype, lora, train, reading)
        else {
            Error::all(errors)?;
            return Err(Error::new(Subject::Config, "the settings make no run"));
        };
        Error::all(errors)?;
        let output = output(settings);
        Ok(Self {
            settings: rewrite::run_file(settings, &train, &output)?,
            seed: settings.setting(Section::Top, "seed").and_then(|seed| seed.value.as_u64()).unwrap_or(0),
            output,
            model,
            dtype,
            manifest: settings.path(Section::Data, "manifest"),
            reading,
            lora,
            train,
        })
    }

    /// The list of recordings, which training cannot do without.
    ///
    /// # Errors
    /// When the settings name none.
    pub fn manifest(&self) -> Result<&Path> {
        self.manifest.as_deref().ok_or_else(|| {
            let error = Error::new(Subject::Config, "no recordings: `manifest` is missing in [data]");
            error.with_hint("name a CSV file with the columns path and label")
        })
    }
}

/// The value, or nothing and its errors one by one.
fn keep<T>(result: Result<T>, errors: &mut Vec<Error>) -> Option<T> {
    result.map_err(|error| errors.extend(leaves(error))).ok()
}

/// The single errors of a compound one.
fn leaves(error: Error) -> Vec<Error> {
    if error.parts().is_empty() {
        return vec![error];
    }
    error.parts().iter().map(|part| with_hint_of(part, Error::new(part.subject(), part.to_string()))).collect()
}

fn with_hint_of(from: &Error, to: Error) -> Error {
    match from.hint() {
        Some(hint) => to.with_hint(hint),
        None => to,
    }
}

fn output(settings: &Settings) -> PathBuf {
    settings.path(Section::Top, "output").unwrap_or_else(|| {
        let stem = settings.file.as_deref().and_then(Path::file_stem);
        Path::new(OUTPUT).join(stem.unwrap_or("run".as_ref()))
    })
}

fn model(settings: &Settings) -> Result<Model> {
    let mut keys = settings.table(Section::Model);
    let at = |name: &str| settings.place(Section::Model, name);
    if let Some(base) = settings.path(Section::Model, "base") {
        keys.remove("base");
        keys.remove("dtype");
        let errors = keys.keys().map(|name| {
            let error = Error::new(Subject::Config, format!("`{name}` is for a new base, and `base` names one"));
            error.at(at(name)).with_hint("a base brings its architecture along: leave one of the two out")
        });
        Error::all(errors.collect())?;
        return Ok(Model::Base(base));
    }
    keys.remove("dtype");
    let Some(Value::String(model_type)) = keys.shift_remove("model_type") else {
        let error = Error::new(Subject::Config, "no model: [model] has neither `base` nor `model_type`");
        return Err(error.at(at("base")).with_hint("name a base directory, or the architecture of a new base"));
    };
    let (rate, window, hop) = (keys.shift_remove("sample_rate"), keys.shift_remove("window"), keys.shift_remove("hop"));
    let architecture = Architecture::from_map(&model_type, keys).map_err(|error| error.at(at("model_type")))?;
    let signal = Map::from_iter([
        ("channels".to_owned(), architecture.channels().into()),
        ("sample_rate".to_owned(), rate.ok_or_else(|| missing("sample_rate", &at("model_type")))?),
        ("window".to_owned(), window.clone().ok_or_else(|| missing("window", &at("model_type")))?),
        ("hop".to_owned(), hop.or(window).unwrap_or_default()),
    ]);
    let signal: SignalFormat = serde_json::from_value(Value::Object(signal))
        .map_err(|error| Error::new(Subject::Config, error.to_string()).at(at("model_type")))?;
    signal.validate().map_err(|error| error.at(at("model_type")))?;
    Ok(Model::New { architecture, signal })
}

/// The type in which a base's weights are held, which are frozen only beside an adapter.
fn dtype(settings: &Settings) -> Result<Dtype> {
    let Some(setting) = settings.setting(Section::Model, "dtype") else { return Ok(Dtype::default()) };
    let wrong = |error: Error| error.at(settings.place(Section::Model, "dtype"));
    let dtype: Dtype = serde_json::from_value(setting.value.clone())
        .map_err(|error| wrong(Error::new(Subject::Config, error.to_string())))?;
    if dtype != Dtype::default() && !settings.has(Section::Lora) {
        let error = Error::new(Subject::Config, "`dtype` is for frozen weights, and without [lora] all weights train");
        return Err(wrong(error.with_hint("leave `dtype` out, or train an adapter")));
    }
    Ok(dtype)
}

fn missing(name: &str, place: &str) -> Error {
    Error::new(Subject::Config, format!("`{name}` is missing in [model], which a new base needs")).at(place)
}

fn reading(settings: &Settings) -> Result<Reading> {
    let flag =
        |name| settings.setting(Section::Data, name).and_then(|setting| setting.value.as_bool()).unwrap_or(false);
    let series_rate = settings.setting(Section::Data, "sample_rate").and_then(|rate| rate.value.as_f64());
    if let Some(rate) = series_rate.filter(|rate| *rate <= 0.0) {
        let error = Error::new(Subject::Config, "sample_rate: out of range").found(rate).expected("a positive number");
        return Err(error.at(settings.place(Section::Data, "sample_rate")));
    }
    let window_seconds = settings.setting(Section::Data, "window_seconds").and_then(|window| window.value.as_f64());
    Ok(Reading { series_rate, mix_to_mono: flag("mix_to_mono"), skip_short: flag("skip_short"), window_seconds })
}

fn lora(settings: &Settings) -> Result<LoraConfig> {
    const ORIGIN: &str = "[lora]";
    let mut config = LoraConfig::from_table(&settings.table(Section::Lora), ORIGIN)
        .map_err(|error| settings.placed(error, Section::Lora, ORIGIN))?;
    let base = settings.setting(Section::Model, "base").and_then(|base| base.value.as_str());
    config.base_model_name_or_path = config.base_model_name_or_path.or_else(|| base.map(str::to_owned));
    Ok(config)
}

fn train(settings: &Settings) -> Result<TrainConfig> {
    let keys = Value::Object(settings.table(Section::Train));
    let config: TrainConfig =
        serde_json::from_value(keys).map_err(|error| Error::new(Subject::Config, error.to_string()).at("[train]"))?;
    config.validate().map_err(|error| settings.placed(error, Section::Train, ""))?;
    Ok(config)
}

impl Settings {
    /// Errors of a configuration with the lines or flags they come from. Its messages begin with `origin`, then name
    /// their key.
    fn placed(&self, error: Error, section: Section, origin: &str) -> Error {
        let errors = leaves(error).into_iter().map(|error| {
            let text = error.to_string();
            let text = text.strip_prefix(origin).map_or(&*text, |text| text.trim_start_matches([':', ' ']));
            let of_section = self.values.iter().filter(|setting| setting.section == section);
            let key = of_section.map(|setting| &*setting.name).find(|name| {
                let rest = text.strip_prefix("unknown key `").or(Some(text)).and_then(|text| text.strip_prefix(name));
                rest.is_some_and(|rest| rest.starts_with([':', '`']))
            });
            with_hint_of(&error, Error::new(error.subject(), text).at(self.place(section, key.unwrap_or_default())))
        });
        Error::all(errors.collect()).err().unwrap_or_else(|| Error::new(Subject::Config, "wrong settings"))
    }
}
