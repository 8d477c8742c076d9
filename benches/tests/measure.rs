//! The measuring core over a plain loop, and the rows that come of it against the published JSON Schema.

#![allow(missing_docs, unreachable_pub, reason = "a test")]

mod plain;

use std::sync::Arc;

use plain::{Plain, PlainHarness};
use serde_json::Value;
use ssm_benches::case::{Case, Direction, Variant};
use ssm_benches::devices::{Device, Found, Lane};
use ssm_benches::measure::{Budget, Measurement};
use ssm_benches::results::{
    Absent, Condition, Curve, CurvePoint, ErrorRow, Host, Results, Row, SCHEMA, Skipped,
};
use ssm_benches::run::{Options, run};
use ssm_core::DType;
use ssm_testkit::Failure;

const BUDGET: Budget = Budget { seconds: 0.02, least: 3, most: 5 };

fn case(direction: Direction) -> Case {
    Case { shape: [2, 37, 30], dtype: DType::F32, direction, variant: Variant::default() }
}

fn measure(plain: Plain, case: &Case) -> Result<Measurement, Failure> {
    Lane::new(Arc::new(PlainHarness(plain))).measure(case, BUDGET, 7)
}

fn results() -> Results {
    let rows = [Direction::Forward, Direction::Backward, Direction::Train].map(|direction| {
        let case = case(direction);
        measure(Plain::default(), &case).expect("the plain loop runs").row("plain", "one core", &case)
    });
    let error = ErrorRow {
        backend: "plain".to_owned(),
        device: "one core".to_owned(),
        op: "gated_scan".to_owned(),
        gates: "slow".to_owned(),
        dtype: "f32".to_owned(),
        algorithm: "sequential".to_owned(),
        len: 1024,
        output: "da".to_owned(),
        error: None,
    };
    let curve = Curve {
        task: "copy".to_owned(),
        model: "a layer".to_owned(),
        backend: "plain".to_owned(),
        device: "one core".to_owned(),
        dtype: "bf16".to_owned(),
        seed: 7,
        points: vec![CurvePoint { step: 0, loss: Some(2.3), accuracy: None }],
    };
    Results {
        schema: SCHEMA,
        host: Host { after: Some(Condition::read()), ..Host::read(true, 7) },
        results: rows.into(),
        absent: vec![Absent { backend: "cuda".to_owned(), why: "no driver".to_owned() }],
        skipped: vec![Skipped {
            backend: "plain".to_owned(),
            case: "…".to_owned(),
            why: "no f16".to_owned(),
        }],
        errors: vec![error],
        curves: vec![curve],
    }
}

#[test]
fn every_direction_is_timed_beside_its_reference() {
    for row in results().results {
        let fraction = row.fraction.expect("a reference ran");
        assert!(row.p10_ns > 0.0 && row.p10_ns <= row.median_ns && row.median_ns <= row.p90_ns, "{row:?}");
        let (low, high) = (row.fraction_p10.expect("as above"), row.fraction_p90.expect("as above"));
        assert!(low <= fraction && fraction <= high, "{row:?}");
        // A scalar loop on one core is no triad, and a triad is no thousand times a loop.
        assert!(fraction > 0.001 && fraction < 1.5, "{row:?}");
        let tensor = 2 * 37 * 30 * 4;
        let tensors = match row.direction.as_str() {
            "forward" => 5,
            "backward" => 9,
            _ => 14,
        };
        assert_eq!(row.bytes, tensors * tensor);
        assert!((row.gb_per_s - row.bytes as f64 / row.median_ns).abs() < 1e-9);
        assert_eq!((row.samples >= 3, row.algorithm.as_str()), (true, "sequential"));
    }
}

#[test]
fn an_output_that_no_kernel_wrote_fails_the_case() {
    let message = measure(Plain { lazy: true }, &case(Direction::Forward)).unwrap_err().to_string();
    assert!(message.contains("y holds NaN"), "{message}");
}

#[test]
fn a_type_that_the_device_lacks_is_an_error_and_not_a_row() {
    let f16 = Case { dtype: DType::F16, ..case(Direction::Forward) };
    assert!(measure(Plain::default(), &f16).unwrap_err().to_string().contains("plain has no f16"));
}

#[test]
fn results_follow_the_schema_and_read_back() {
    let schema: Value = serde_json::from_str(include_str!("../../docs/results.schema.json")).unwrap();
    let validator = jsonschema::validator_for(&schema).expect("the schema is one");
    let written = results();
    let mut json = serde_json::to_value(&written).unwrap();
    let errors: Vec<String> =
        validator.iter_errors(&json).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:#?}");

    let path = std::env::temp_dir().join(format!("results-{}.json", std::process::id()));
    written.write(&path).unwrap();
    let read = Results::read(&path).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), json);

    json["schema"] = (SCHEMA + 1).into();
    std::fs::write(&path, json.to_string()).unwrap();
    assert!(Results::read(&path).unwrap_err().to_string().contains("reads up to"));
    std::fs::remove_file(&path).unwrap();

    let mut broken = json;
    broken["results"][0]["median_ns"] = "fast".into();
    assert!(!validator.is_valid(&broken), "a schema that refuses nothing proves nothing");
}

#[test]
fn files_of_older_versions_still_load() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/schema-1.json");
    let json: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(json["schema"], 1);
    let schema: Value = serde_json::from_str(include_str!("../../docs/results.schema.json")).unwrap();
    let validator = jsonschema::validator_for(&schema).expect("the schema is one");
    assert!(validator.is_valid(&json), "what was valid stays valid");
    let read = Results::read(&path).unwrap();
    assert_eq!(read.results.len(), json["results"].as_array().unwrap().len());
    assert_eq!((read.errors.len(), read.curves.len(), read.results[0].fraction_p10), (0, 0, None));
    // The same file, claiming to be of this version, lacks what this version has.
    let claims = {
        let mut json = json;
        json["schema"] = SCHEMA.into();
        json
    };
    assert!(!validator.is_valid(&claims));
}

#[test]
fn a_run_says_what_a_reader_has_to_know() {
    let mut run = results();
    (run.host.busy, run.host.dirty, run.host.quick) = (false, Some(false), false);
    run.results.iter_mut().for_each(|row| row.noisy = false);
    assert_eq!(run.cautions(), Vec::<String>::new());
    (run.host.busy, run.host.dirty, run.results[1].noisy) = (true, Some(true), true);
    let cautions = run.cautions().join("\n");
    assert!(
        ["busy", "1 of 3 rows are noisy", "differed"].iter().all(|word| cautions.contains(word)),
        "{cautions}"
    );
}

#[test]
fn a_run_measures_what_it_can_and_says_what_it_cannot() {
    let mut found = Found::default();
    found.add("plain", Ok(Arc::new(PlainHarness::default())));
    found.add::<PlainHarness>("cuda", Err("no driver".to_owned()));
    let options = Options { quick: true, backends: vec![], filter: Some("64x37x300/plain".to_owned()) };
    let results = run(found, &options);
    let keys: Vec<String> = results.results.iter().map(Row::key).collect();
    let want = ["forward", "backward", "train"].map(|d| format!("plain/gated_scan/{d}/f32/64x37x300/plain"));
    assert_eq!(keys, want);
    assert_eq!(results.absent[0].why, "no driver");
    assert!(results.host.after.is_some() && results.errors.is_empty(), "errors obey the filter");
    assert_eq!(results.skipped.len(), 4, "f16 and bf16, there and back: {:?}", results.skipped);

    let mut found = Found::default();
    found.add("plain", Ok(Arc::new(PlainHarness::default())));
    let options = Options { backends: vec!["cuda".to_owned()], ..options };
    let results = run(found, &options);
    assert_eq!(
        (results.results.len(), results.absent.len()),
        (0, 1),
        "asked for, not found: {:?}",
        results.absent
    );
}
