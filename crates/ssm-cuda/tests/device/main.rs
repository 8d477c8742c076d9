//! What only this backend has, on a device. Ignored where there is no device, unless `SSM_REQUIRE` asks for cuda.

mod errors;
mod launches;
mod repeats;

use std::error::Error;
use std::process::{Child, Command, ExitCode, Stdio};

use libtest_mimic::{Arguments, Failed, Trial};
use ssm_core::{Checkpoint, GatedScan};
use ssm_cuda::CudaBackend;

type Failure = Box<dyn Error>;
type Outcome = Result<(), Failure>;

/// What a test needs besides a device.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    Nothing,
    SecondDevice,
    /// What an emulated driver cannot do: lose a context.
    RealDriver,
    /// What a real driver cannot do: be told what to report.
    EmulatedDriver,
}

/// Its name, what it needs, and the test itself.
type Test = (&'static str, Needs, fn() -> Outcome);

const TESTS: [Test; 14] = [
    ("the_easy_layer_computes", Needs::Nothing, launches::the_easy_layer_computes),
    ("a_step_continues_a_forward", Needs::Nothing, launches::a_step_continues_a_forward),
    ("raw_pointers_and_streams_do", Needs::Nothing, launches::raw_pointers_and_streams_do),
    ("streams_are_ordered_by_the_views", Needs::Nothing, launches::streams_are_ordered_by_the_views),
    ("a_foreign_stream_is_refused", Needs::Nothing, launches::a_foreign_stream_is_refused),
    ("a_captured_graph_replays", Needs::Nothing, launches::a_captured_graph_replays),
    ("devices_are_kept_apart", Needs::SecondDevice, launches::devices_are_kept_apart),
    ("every_run_gives_the_same_bits", Needs::Nothing, repeats::every_run_gives_the_same_bits),
    ("so_it_does_beside_another_process", Needs::Nothing, repeats::so_it_does_beside_another_process),
    ("a_captured_training_pass_replays", Needs::Nothing, repeats::a_captured_training_pass_replays),
    ("memory_that_is_not_there_is_an_error", Needs::Nothing, errors::memory_that_is_not_there_is_an_error),
    ("a_faulty_address_loses_the_context", Needs::RealDriver, errors::a_faulty_address_loses_the_context),
    ("a_destroyed_context_is_an_error", Needs::RealDriver, errors::a_destroyed_context_is_an_error),
    ("what_is_missing_has_its_own_error", Needs::EmulatedDriver, errors::what_is_missing_has_its_own_error),
];

/// Set for processes that a test starts: what they are to do.
const ROLE: &str = "SSM_CUDA_ROLE";

fn main() -> ExitCode {
    if let Ok(role) = std::env::var(ROLE) {
        return match play(&role) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{role}: {error}");
                ExitCode::FAILURE
            }
        };
    }
    let required =
        std::env::var("SSM_REQUIRE").is_ok_and(|list| list.split(',').any(|name| name.trim() == "cuda"));
    let opened = CudaBackend::new(0);
    let emulated = opened.as_ref().is_ok_and(is_emulated);
    let several = CudaBackend::count().is_ok_and(|count| count > 1);
    let missing = opened.err().map(|error| error.to_string());
    let trials = TESTS.map(|(name, needs, test)| {
        let missing = missing.clone();
        let met = match needs {
            Needs::Nothing => true,
            Needs::SecondDevice => several,
            Needs::RealDriver => !emulated,
            Needs::EmulatedDriver => emulated,
        };
        let ignored = !met || missing.is_some() && !required;
        let run = move || match missing {
            Some(reason) => Err(Failed::from(reason)),
            None => test().map_err(|error| Failed::from(error.to_string())),
        };
        Trial::test(name, run).with_ignored_flag(ignored)
    });
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit_code()
}

fn play(role: &str) -> Outcome {
    match role {
        "open" => errors::open(),
        "fault" => errors::fault(),
        "reset" => errors::reset(),
        "load" => repeats::load(),
        other => Err(format!("no role {other}").into()),
    }
}

/// This program once more, in a role. It ends when its standard input does, if not before.
fn start(role: &str, environment: &[(&str, &str)]) -> Result<Child, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env(ROLE, role).envs(environment.iter().copied());
    Ok(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
}

/// What a role says; an error where it did not end well, as after a panic or a signal.
fn told(role: &str, environment: &[(&str, &str)]) -> Result<String, Failure> {
    let output = start(role, environment)?.wait_with_output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if !output.status.success() {
        return Err(
            format!("{role}: {}: {}{}", output.status, text(&output.stdout), text(&output.stderr)).into()
        );
    }
    Ok(text(&output.stdout))
}

/// Whether the driver is that of kernels/cuda/host.
fn is_emulated(gpu: &CudaBackend) -> bool {
    gpu.name().is_ok_and(|name| name.starts_with("emulated"))
}

/// One row, one channel: y = [1, 0.5·1 + 2, 0.5·2.5 + 3].
fn small() -> Result<GatedScan, Failure> {
    Ok(GatedScan::builder(1, 3, 1).b(false).c(false).checkpoint(Checkpoint::Nothing).build()?)
}

const X: [f32; 3] = [1.0, 2.0, 3.0];
const A: [f32; 3] = [0.5; 3];
const Y: [f32; 3] = [1.0, 2.5, 4.25];
