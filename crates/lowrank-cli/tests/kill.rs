//! A run that is killed at any moment can be resumed, and ends with the bits of a run that was not.
//!
//! `LOWRANK_KILLS=200 cargo test --release -p lowrank-cli --test kill` is the long form.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use lowrank::random::Random;

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/watch");

/// A few seconds' work on a part of the example, with dropout, accumulation, and steps that end inside an epoch.
fn run_file(dir: &Path) -> PathBuf {
    let rows = ["PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW"].map(|label| {
        let path = format!("{EXAMPLE}/data/s09_left_{label}.npy");
        format!("{path},{label},train,0%,20%\n{path},{label},valid,20%,30%\n{path},{label},test,35%,50%\n")
    });
    fs::write(dir.join("manifest.csv"), format!("path,label,split,start,end\n{}", rows.concat())).unwrap();
    let file = dir.join("run.toml");
    let text = format!(
        "seed = 3\n[model]\nbase = \"{EXAMPLE}/base\"\n[data]\nmanifest = \"manifest.csv\"\nsample_rate = 50\n\
         [lora]\nr = 2\nlora_alpha = 4\nlora_dropout = 0.1\ntarget_modules = \"all-layers\"\n\
         [train]\nmax_steps = 25\nbatch_size = 4\ngradient_accumulation_steps = 2\nlearning_rate = 5e-3\n\
         checkpoint_every = 2\neval_every = 5\n"
    );
    fs::write(&file, text).unwrap();
    file
}

fn start(file: &Path, output: &Path, threads: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_lowrank"))
        .args(["train".as_ref(), file.as_os_str(), "--output".as_ref(), output.as_os_str(), "--resume".as_ref()])
        .env("RAYON_NUM_THREADS", threads)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Runs to the end.
fn finish(file: &Path, output: &Path, threads: &str) -> Vec<Vec<u8>> {
    let done = start(file, output, threads).wait_with_output().unwrap();
    assert!(done.status.success(), "resuming works: {}", String::from_utf8_lossy(&done.stderr));
    let names = ["adapter_model.safetensors", "adapter_config.json", "README.md"];
    assert!(!output.join("checkpoints").exists(), "what was only needed on the way is gone");
    let mut files = names.map(|name| fs::read(output.join("adapter").join(name)).unwrap()).to_vec();
    files.push(without_times(&fs::read_to_string(output.join("metrics.jsonl")).unwrap()).into_bytes());
    files
}

/// The log but for its seconds.
fn without_times(log: &str) -> String {
    log.lines().map(|line| line.rsplit_once(",\"seconds\"").unwrap().0.to_owned() + "\n").collect()
}

#[test]
fn a_killed_run_resumes_and_ends_with_the_same_bits() {
    let kills = std::env::var("LOWRANK_KILLS").map_or(20, |kills| kills.parse::<u64>().unwrap());
    let root = tempfile::tempdir().unwrap();
    let file = run_file(root.path());
    let whole = finish(&file, &root.path().join("whole"), "2");
    let (mut killed, mut round, mut attempt) = (0, 0, 0);
    while killed < kills {
        let output = root.path().join(format!("killed-{round}"));
        round += 1;
        loop {
            let mut child = start(&file, &output, if killed % 2 == 0 { "1" } else { "2" });
            sleep(Duration::from_millis(Random::new(11, "kill", attempt).below(1500) as u64));
            attempt += 1;
            let done = child.try_wait().unwrap();
            child.kill().unwrap();
            let ended = child.wait_with_output().unwrap();
            if let Some(status) = done {
                assert!(
                    status.success(),
                    "it stops for nothing but the kill: {}",
                    String::from_utf8_lossy(&ended.stderr)
                );
                break;
            }
            killed += 1;
        }
        assert!(finish(&file, &output, "2") == whole, "round {round}: the result is that of the run without kills");
    }
}
