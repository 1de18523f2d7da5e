//! The command line.

use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::error::Error;
use clap::{ArgMatches, Args, Command, FromArgMatches, Parser, Subcommand, ValueHint};
use lowrank::adapter::combine::{CombinationType, MajoritySign};
use lowrank::adapter::rank::Cut;
use lowrank::files::WeightNorm;
use lowrank_burn::data::Split;
use lowrank_burn::models::Dtype;
use serde_json::Value;

use crate::keys::{KEYS, Key, defaults};
use crate::output::Output;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const ADAPTER: &str = "Adapter: a folder with adapter_config.json and adapter_model.safetensors";

const ADAPTERS: &str = "Adapters: folders with adapter_config.json and adapter_model.safetensors";

const COMBINATIONS: &str = "\
svd and cat are the weighted sum: cat exactly, with the ranks of all adapters together, svd at the rank you choose. linear, ties,
dare_linear, dare_ties and magnitude_prune add A and B each for itself: small at once, far from the sum unless the adapters had a
common start. The column `distance` says how far.";

const TARGETS: &str = "Only these modules, by path or the end of it: q_proj,v_proj [default: all]";

const SAVE: &str = "Save in full what changed and can take no adapter (modules_to_save, biases)";

const EXTRACTION: &str = "\
Examples:
  lowrank extract model/ tuned/ --energy 0.95             what each module would need
  lowrank extract model/ tuned/ --rank 16 --output a/     an adapter for PEFT and `lowrank merge`
  lowrank extract model/ tuned/ --rank 16 --save --output a/
                                                          with norms and biases, which take no adapter

What differs and is not in the adapter is listed.";

const RESIZING: &str = "\
Examples:
  lowrank resize adapter/ --energy 0.99                   what each module would need
  lowrank resize adapter/ --rank 4 --output small/        the nearest adapter of rank 4
  lowrank resize adapter/ --rank 32 --output large/       the same adapter, with room to train on";

const CONVERSION: &str = "\
Examples:
  lowrank convert lora.safetensors --base unet/ --to peft --output adapter/
                                                          a LyCORIS or kohya file, for PEFT and `lowrank merge`
  lowrank convert adapter/ --to lycoris --output lycoris.safetensors
  lowrank convert adapter/ --to lycoris --prefix lora_unet --output lora.safetensors
                                                          for kohya's tools and those that read their files
  lowrank convert adapter/ --groups conv=4 --to peft --output dense/
                                                          factors that groups share (group_mode \"shared\"), for PEFT
  lowrank convert adapter/ --project --to peft --output fitting/
                                                          dense factors of a grouped convolution, so that they merge

What has no form in the other format is refused by name: merge the adapter, or merge it there and extract one here.";

const PROJECT: &str = "Drop what reaches outside the groups of a convolution, and say how much it is";

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    the answer is no (inspect, check, diff)
  2    wrong input
  3    training diverged
  130  interrupted, and saved";

/// Train, evaluate, merge and inspect LoRA adapters for models with convolutions.
///
/// Adapters are the files that Hugging Face PEFT reads and writes.
#[derive(Debug, Parser)]
#[command(name = "lowrank", bin_name = "lowrank", version, styles = STYLES, after_help = EXIT_CODES)]
#[command(arg_required_else_help = true, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Action,
    #[command(flatten)]
    global: Global,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
struct Global {
    /// End with exactly one JSON object on stdout, errors included
    #[arg(long, global = true)]
    json: bool,
    /// Say nothing on stderr but errors
    #[arg(long, short, global = true)]
    quiet: bool,
}

impl Cli {
    /// How to talk to the user.
    pub fn output(&self) -> Output {
        Output { json: self.global.json, quiet: self.global.quiet }
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Train an adapter, or a new base model, as a run file says
    Train(TrainArgs),
    /// Evaluate a model on one split of a manifest
    Eval(EvalArgs),
    /// Predict the class of every window of recordings, or their text
    Predict(PredictArgs),
    /// Merge an adapter into the weights of its base model
    Merge(MergeArgs),
    /// Combine several adapters of one base model into one
    Combine(CombineArgs),
    /// Extract an adapter from a model and what a training made of it
    Extract(ExtractArgs),
    /// Give an adapter another rank
    Resize(ResizeArgs),
    /// Convert an adapter from or to the form of LyCORIS and kohya, or to PEFT's
    Convert(ConvertArgs),
    /// Check whether an adapter fits a base model
    Check(CheckArgs),
    /// Compare two adapters, or two checkpoints
    Diff(DiffArgs),
    /// Look into an adapter or a safetensors file
    Inspect(InspectArgs),
    /// Show what a run would adapt, train and write, and train nothing
    Plan(PlanArgs),
    /// Print the completions of a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Arguments of `train`.
#[derive(Debug, Args)]
#[command(after_help = "Every key of the run file is a flag, and the flag wins. Ctrl-C saves; --resume goes on.")]
pub struct TrainArgs {
    /// Run file in TOML
    #[arg(help = "Run file: [model], [data], [lora] and [train] in TOML")]
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Go on where an interrupted run in the output directory stopped
    #[arg(long)]
    pub resume: bool,
    /// Settings over those of the file.
    #[command(flatten)]
    pub settings: Flags,
}

/// Arguments of `plan`.
#[derive(Debug, Args)]
#[command(
    after_help = "Every key of the run file is a flag, and the flag wins. A pattern that matches no module is an error."
)]
pub struct PlanArgs {
    /// Run file; without one, flags say it all
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,
    /// Settings over those of the file.
    #[command(flatten)]
    pub settings: Flags,
}

/// A base directory, with or without an adapter, and how to read recordings for it.
#[derive(Debug, Args)]
pub struct ModelArgs {
    /// Base model: a folder with config.json and model.safetensors
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub model: PathBuf,
    /// The adapter.
    #[arg(long, help = ADAPTER, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub adapter: Option<PathBuf>,
    /// How Conv1d and Linear weights are held; auto is as in the file
    #[arg(long, value_name = "TYPE", default_value = "float32", value_parser = one_of(Dtype::ALL, Dtype::name))]
    pub dtype: Dtype,
    /// Rate of CSV and NPY recordings [default: the model's]
    #[arg(long, value_name = "HZ")]
    pub sample_rate: Option<f64>,
    /// Average the channels for a model that takes one
    #[arg(long)]
    pub mix_to_mono: bool,
    /// Leave out recordings shorter than a window, with a warning
    #[arg(long)]
    pub skip_short: bool,
    /// Transcription: seconds of a window, up to the model's [default: the model's]
    #[arg(long, value_name = "S")]
    pub window_seconds: Option<f64>,
    /// Transcription: beams; 1 is greedy
    #[arg(long, value_name = "N", default_value = "1")]
    pub num_beams: std::num::NonZeroUsize,
    /// Windows in a batch
    #[arg(long, value_name = "N", default_value = "64")]
    pub batch_size: std::num::NonZeroUsize,
}

/// Arguments of `eval`.
#[derive(Debug, Args)]
pub struct EvalArgs {
    /// The model.
    #[command(flatten)]
    pub model: ModelArgs,
    /// List of recordings: path,label,split,start,end; for transcription text in place of label
    #[arg(long, value_name = "CSV", value_hint = ValueHint::FilePath)]
    pub manifest: PathBuf,
    /// Split to evaluate on
    #[arg(long, value_name = "SPLIT", default_value = "test", value_parser = one_of(Split::ALL, Split::name))]
    pub split: Split,
}

/// Arguments of `predict`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("recordings").required(true).args(["manifest", "input"]))]
pub struct PredictArgs {
    /// The model.
    #[command(flatten)]
    pub model: ModelArgs,
    /// List of recordings: path,label,split,start,end; for transcription text in place of label
    #[arg(long, value_name = "CSV", value_hint = ValueHint::FilePath)]
    pub manifest: Option<PathBuf>,
    /// Only this split of the manifest [default: all]
    #[arg(long, value_name = "SPLIT", requires = "manifest", value_parser = one_of(Split::ALL, Split::name))]
    pub split: Option<Split>,
    /// Recordings: WAV, FLAC, OGG, MP3, CSV or NPY
    #[arg(long, value_name = "FILE", num_args = 1.., value_hint = ValueHint::FilePath)]
    pub input: Vec<PathBuf>,
    /// Where the predictions go, one JSON object a line; texts also as subtitles, .srt, or as words with times, .ctm [default: stdout]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
}

/// Arguments of `merge`.
#[derive(Debug, Args)]
pub struct MergeArgs {
    /// Weights of the base: a .safetensors file, or a folder with model.safetensors or its shards
    #[arg(long, value_name = "FILE|DIR", value_hint = ValueHint::AnyPath)]
    pub base: PathBuf,
    /// The adapter.
    #[arg(long, help = ADAPTER, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub adapter: PathBuf,
    /// Where the merged weights go: a file or a folder, as the base is
    #[arg(long, value_name = "FILE|DIR", value_hint = ValueHint::AnyPath)]
    pub output: PathBuf,
    /// What becomes of weight normalisation: kept in the form it has, or folded into plain weights
    #[arg(long, value_name = "FORM", default_value = "keep", value_parser = one_of(WeightNorm::ALL, WeightNorm::name))]
    pub weight_norm: WeightNorm,
    /// Replace an output that exists
    #[arg(long)]
    pub force: bool,
}

/// Arguments of `combine`.
#[derive(Debug, Args)]
#[command(after_help = COMBINATIONS)]
pub struct CombineArgs {
    /// The adapters.
    #[arg(help = ADAPTERS, value_name = "DIR", required = true, value_hint = ValueHint::DirPath)]
    pub adapters: Vec<PathBuf>,
    /// A weight for each adapter, of either sign: 0.7,0.3
    #[arg(long, value_name = "W", required = true, value_delimiter = ',', num_args = 1, allow_hyphen_values = true)]
    pub weights: Vec<f64>,
    /// Where the new adapter goes
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub output: PathBuf,
    /// How they are combined, by PEFT's name
    #[arg(long, visible_alias = "type", value_name = "TYPE", default_value = "svd", value_parser = one_of(CombinationType::ALL, CombinationType::name))]
    pub combination_type: CombinationType,
    /// Rank of the types that end in svd [default: the largest of the adapters', module by module]
    #[arg(long, value_name = "R")]
    pub svd_rank: Option<usize>,
    /// Share of values that ties, dare and magnitude pruning keep: above 0, at most 1
    #[arg(long, value_name = "SHARE")]
    pub density: Option<f64>,
    /// Sign that wins in the ties types: of the sum, or of most values [default: total]
    #[arg(long, value_name = "METHOD", value_parser = one_of(MajoritySign::ALL, MajoritySign::name))]
    pub majority_sign_method: Option<MajoritySign>,
    /// Seed of what dare drops [default: 0]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Replace an adapter that exists
    #[arg(long)]
    pub force: bool,
}

/// How much of a delta is kept.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct CutArgs {
    /// Rank of every module
    #[arg(long, value_name = "R")]
    pub rank: Option<usize>,
    /// Instead, the smallest rank of each module that keeps this share of the squared singular values of its delta
    #[arg(long, value_name = "SHARE")]
    pub energy: Option<f64>,
}

impl CutArgs {
    /// The choice that was made.
    pub fn cut(&self) -> Cut {
        self.energy.map_or_else(|| Cut::Rank(self.rank.unwrap_or_default()), Cut::Energy)
    }
}

/// Arguments of `extract`.
#[derive(Debug, Args)]
#[command(after_help = EXTRACTION)]
pub struct ExtractArgs {
    /// Weights before the training: a .safetensors file, or a folder with model.safetensors or its shards
    #[arg(value_name = "BASE", value_hint = ValueHint::AnyPath)]
    pub base: PathBuf,
    /// Weights after it
    #[arg(value_name = "TUNED", value_hint = ValueHint::AnyPath)]
    pub tuned: PathBuf,
    /// The rank.
    #[command(flatten)]
    pub cut: CutArgs,
    /// The modules.
    #[arg(long, help = TARGETS, value_name = "NAME", value_delimiter = ',', num_args = 1)]
    pub target_modules: Vec<String>,
    /// Groups of a convolution, which no weight tells and PEFT needs: conv2=4
    #[arg(long, value_name = "NAME=G", value_delimiter = ',', num_args = 1, value_parser = groups)]
    pub groups: Vec<(String, usize)>,
    /// What takes no adapter.
    #[arg(long, help = SAVE)]
    pub save: bool,
    /// Where the adapter goes [default: nowhere, only the report]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub output: Option<PathBuf>,
    /// Replace an adapter that exists
    #[arg(long, requires = "output")]
    pub force: bool,
}

/// Arguments of `resize`.
#[derive(Debug, Args)]
#[command(after_help = RESIZING)]
pub struct ResizeArgs {
    /// The adapter.
    #[arg(help = ADAPTER, value_name = "ADAPTER", value_hint = ValueHint::DirPath)]
    pub adapter: PathBuf,
    /// The rank.
    #[command(flatten)]
    pub cut: CutArgs,
    /// Where the new adapter goes [default: nowhere, only the report]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub output: Option<PathBuf>,
    /// Replace an adapter that exists
    #[arg(long, requires = "output")]
    pub force: bool,
}

/// Arguments of `convert`.
#[derive(Debug, Args)]
#[command(after_help = CONVERSION)]
pub struct ConvertArgs {
    /// Adapter folder, or a .safetensors file of LyCORIS's or kohya's
    #[arg(value_name = "ADAPTER", value_hint = ValueHint::AnyPath)]
    pub adapter: PathBuf,
    /// The form to convert to
    #[arg(long, value_name = "FORM", value_parser = one_of(Form::ALL, Form::name))]
    pub to: Form,
    /// Weights of the base: what tells the modules of a LyCORIS file, and which linear layers are plain ones
    #[arg(long, value_name = "FILE|DIR", value_hint = ValueHint::AnyPath)]
    pub base: Option<PathBuf>,
    /// What stands before the module in the names of a LyCORIS file, as `lycoris` or `lora_unet` [default: lycoris, or what the file has]
    #[arg(long, value_name = "NAME")]
    pub prefix: Option<String>,
    /// Groups of a convolution, which no weight tells and PEFT needs: conv2=4
    #[arg(long, value_name = "NAME=G", value_delimiter = ',', num_args = 1, value_parser = groups)]
    pub groups: Vec<(String, usize)>,
    /// What does not fit.
    #[arg(long, help = PROJECT)]
    pub project: bool,
    /// Where the new adapter goes: a folder for PEFT's, a .safetensors file for LyCORIS's
    #[arg(long, value_name = "DIR|FILE", value_hint = ValueHint::AnyPath)]
    pub output: PathBuf,
    /// Replace an adapter that exists
    #[arg(long)]
    pub force: bool,
}

/// The forms that `convert` converts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// PEFT's directory.
    Peft,
    /// One file of LyCORIS's, or kohya's.
    Lycoris,
}

impl Form {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Peft, Self::Lycoris];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Peft => "peft",
            Self::Lycoris => "lycoris",
        }
    }
}

/// Arguments of `check`.
#[derive(Debug, Args)]
#[command(after_help = "Exit code 1 when the adapter does not fit; every problem is listed.")]
pub struct CheckArgs {
    /// The adapter.
    #[arg(help = ADAPTER, value_name = "ADAPTER", value_hint = ValueHint::DirPath)]
    pub adapter: PathBuf,
    /// Weights of the base: a .safetensors file, or a folder with model.safetensors or its shards
    #[arg(long, value_name = "FILE|DIR", value_hint = ValueHint::AnyPath)]
    pub base: PathBuf,
}

/// Arguments of `diff`.
#[derive(Debug, Args)]
#[command(after_help = "Exit code 0 when they are equal, 1 when they differ.")]
pub struct DiffArgs {
    /// Adapter folder, model folder, or .safetensors file
    #[arg(value_name = "A", value_hint = ValueHint::AnyPath)]
    pub first: PathBuf,
    /// Another one of the same sort
    #[arg(value_name = "B", value_hint = ValueHint::AnyPath)]
    pub second: PathBuf,
}

/// Arguments of `inspect`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code 1 when an adapter has a NaN or infinite value, or a module whose adapter does nothing."
)]
pub struct InspectArgs {
    /// Adapter folder, model folder, or .safetensors file
    #[arg(value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub path: PathBuf,
}

/// The keys of a run file, each as a flag.
#[derive(Debug)]
pub struct Flags(pub Vec<(&'static Key, Value)>);

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let given = |key: &'static Key| Some((key, matches.get_one::<Value>(&key.flag())?.clone()));
        Ok(Self(KEYS.iter().filter_map(given).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Flags {
    fn augment_args(command: Command) -> Command {
        let defaults = defaults();
        command.args(KEYS.iter().map(|key| key.arg(&defaults)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn groups(text: &str) -> Result<(String, usize), String> {
    let (name, groups) = text.rsplit_once('=').ok_or("expected NAME=G")?;
    match groups.parse() {
        Ok(0) | Err(_) => Err(format!("`{groups}` is no number of groups")),
        Ok(groups) => Ok((name.to_owned(), groups)),
    }
}

/// One of these values, by its name.
fn one_of<T, const N: usize>(
    all: [T; N],
    name: fn(T) -> &'static str,
) -> impl clap::builder::TypedValueParser<Value = T>
where
    T: Copy + Send + Sync + 'static,
{
    use clap::builder::TypedValueParser as _;
    clap::builder::PossibleValuesParser::new(all.map(name))
        .try_map(move |given| all.into_iter().find(|value| name(*value) == given).ok_or("no such value"))
}
