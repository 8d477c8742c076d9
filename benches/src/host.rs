//! Reads the machine and the conditions of a run. What cannot be read is null, never guessed.

use std::path::Path;
use std::process::Command;

use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

use crate::results::{Condition, Host};

impl Host {
    /// This machine, now.
    pub fn read(quick: bool, seed: u64) -> Self {
        let system = system();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let cpu = system.as_ref().and_then(|s| s.cpus().first());
        let load = System::load_average().ok().map(|l| l.one);
        let unix_time = std::time::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_secs());
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let git = |args: &[&str]| output(Command::new("git").arg("-C").arg(&root).args(args));
        let now = Condition::read();
        Self {
            cpu: cpu.map_or("unknown", |c| c.brand()).trim().to_owned(),
            cores,
            threads: rayon::current_num_threads(),
            memory_bytes: system.as_ref().map(System::total_memory),
            os: [System::long_os_version(), System::kernel_version()]
                .map(Result::unwrap_or_default)
                .join(", "),
            gpu: smi("name"),
            driver: smi("driver_version"),
            gpu_state: now.gpu_state,
            // Of the build where it says so: what runs elsewhere has no repository, or another commit of it.
            commit: option_env!("BENCH_COMMIT").map(str::to_owned).or_else(|| git(&["rev-parse", "HEAD"])),
            dirty: option_env!("BENCH_DIRTY")
                .map(|dirty| dirty == "true")
                .or_else(|| git(&["status", "--porcelain", "--untracked-files=no"]).map(|s| !s.is_empty())),
            unix_time,
            date: date(unix_time),
            load,
            busy: load.is_some_and(|l| l > cores as f64 / 4.0),
            allocator: "system".to_owned(),
            rustc: env!("BENCH_RUSTC").to_owned(),
            flags: [env!("BENCH_PROFILE"), env!("BENCH_RUSTFLAGS")].join(" ").trim().to_owned(),
            cpu_mhz: now.cpu_mhz,
            power: sys("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
                .or_else(|| sys("/sys/firmware/acpi/platform_profile")),
            cpu_celsius: now.cpu_celsius,
            seed,
            quick,
            after: None,
        }
    }
}

impl Condition {
    /// This machine, now.
    pub fn read() -> Self {
        let mhz = system().and_then(|s| s.cpus().first().map(|cpu| cpu.frequency() as f64));
        let milli = sys("/sys/class/thermal/thermal_zone0/temp").and_then(|text| text.parse::<f64>().ok());
        Self {
            cpu_mhz: mhz.filter(|mhz| *mhz > 0.0),
            cpu_celsius: milli.map(|milli| milli / 1000.0),
            gpu_state: smi("clocks.sm,clocks.mem,temperature.gpu,power.limit"),
        }
    }
}

fn system() -> Option<System> {
    let kind = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    System::new_with_specifics(kind.with_cpu(CpuRefreshKind::nothing().with_frequency())).ok()
}

fn sys(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// What NVIDIA's driver says of every GPU.
fn smi(query: &str) -> Option<String> {
    let mut command = Command::new("nvidia-smi");
    let lines = output(command.arg(format!("--query-gpu={query}")).arg("--format=csv,noheader"))?;
    Some(lines.replace('\n', "; "))
}

/// What a command printed, if it could be run and succeeded.
fn output(command: &mut Command) -> Option<String> {
    let out = command.output().ok().filter(|out| out.status.success())?;
    Some(String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

/// The civil date of a second since 1970, UTC, by counting the days of 400-year cycles that begin in March.
fn date(unix: u64) -> String {
    let (days, second) = (unix / 86_400 + 719_468, unix % 86_400);
    let (cycle, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = cycle * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01T00:00:00Z");
        assert_eq!(date(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(date(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(date(1_735_689_599), "2024-12-31T23:59:59Z");
    }

    #[test]
    fn this_machine_has_cores_and_memory() {
        let host = Host::read(true, 1);
        assert!(host.cores > 0 && host.memory_bytes > Some(0) && host.rustc.starts_with("rustc"), "{host:?}");
    }
}
