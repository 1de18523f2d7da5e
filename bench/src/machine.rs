//! The machine, the moment, and the command.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// What the kernel says of the machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name, family, model and stepping.
    pub processor: String,
    /// Logical processors.
    pub processors: usize,
    /// Its vector extensions.
    pub vectors: Vec<String>,
    /// Its largest cache.
    pub cache: String,
    /// Memory in GB.
    pub memory_gb: f64,
    /// The kernel's version.
    pub kernel: String,
}

/// Gives every computing thread but the main one, which is one of them as in the command ([`lowrank::threads::take_part`]),
/// a processor of its own.
///
/// Where the kernel leaves two of them on one, until it balances its load some milliseconds later, a short call takes twice
/// as long: a toss of a coin that a median does not hide. The `PyTorch` process has `OMP_PROC_BIND` for the same.
pub fn pin_threads() -> anyhow::Result<()> {
    let processors = core_affinity::get_core_ids().unwrap_or_default();
    let pin = move |index: usize| {
        if let Some(processor) = processors.get(index) {
            core_affinity::set_for_current(*processor);
        }
    };
    Ok(rayon::ThreadPoolBuilder::new().use_current_thread().start_handler(pin).build_global()?)
}

/// Gives the main thread the processor that is left. What it starts afterwards has that one only.
pub fn pin_main() {
    if let Some(first) = core_affinity::get_core_ids().unwrap_or_default().first() {
        core_affinity::set_for_current(*first);
    }
}

impl Machine {
    /// This one.
    pub fn here() -> Self {
        let (cpu, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
        let cpu = |key| value(&cpu, key).unwrap_or_default();
        let vector =
            |flag: &&str| ["avx", "fma", "amx", "sse4", "asimd", "sve"].iter().any(|own| flag.starts_with(own));
        let memory_kb: f64 =
            value(&memory, "MemTotal").and_then(|text| text.split(' ').next()?.parse().ok()).unwrap_or(0.0);
        Self {
            processor: format!(
                "{}, family {}, model {}, stepping {}",
                cpu("model name"),
                cpu("cpu family"),
                cpu("model"),
                cpu("stepping")
            ),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            vectors: cpu("flags").split(' ').filter(vector).map(str::to_owned).collect(),
            cache: cpu("cache size"),
            memory_gb: (memory_kb / 1e5).round() / 10.0,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The value of `key : value` in one of the kernel's files.
fn value(text: &str, key: &str) -> Option<String> {
    let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.find(|(own, _)| own.trim() == key).map(|(_, value)| value.trim().to_owned())
}

/// The value of a `VmRSS` or `VmHWM` of this process, in kilobytes.
pub fn memory_kb(key: &str) -> u64 {
    let text = value(&read("/proc/self/status"), key).unwrap_or_default();
    text.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// `2026-11-24 09:30 UTC`.
pub fn date() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
    let (year, month, day) = civil(seconds / 86_400);
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", seconds / 3600 % 24, seconds / 60 % 60)
}

/// Year, month and day of a number of days since 1970.
fn civil(days: u64) -> (u64, u64, u64) {
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let (mut year, mut rest) = (1970, days);
    while rest >= 365 + u64::from(leap(year)) {
        rest -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while rest >= lengths[month] {
        rest -= lengths[month];
        month += 1;
    }
    (year, month as u64 + 1, rest + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_of_the_calendar() {
        assert_eq!(
            [civil(0), civil(59), civil(11_016), civil(20_786)],
            [(1970, 1, 1), (1970, 3, 1), (2000, 2, 29), (2026, 11, 29),]
        );
    }
}
