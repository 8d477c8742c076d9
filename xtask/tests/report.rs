//! The report as files: what is in them, what is refused.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// Runs `xtask report` into a folder of the test's own.
fn report(test: &str, files: &[PathBuf]) -> (PathBuf, Output) {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("report").join(test);
    if out.exists() {
        std::fs::remove_dir_all(&out).expect("an old report can be removed");
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    let output = command.arg("report").args(files).arg("--out").arg(&out).output().expect("xtask runs");
    (out, output)
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.as_ref().display()))
}

fn json(name: &str) -> Value {
    serde_json::from_str(&read(fixture(name))).expect("JSON")
}

fn rows(text: &str) -> Vec<csv::StringRecord> {
    csv::Reader::from_reader(text.as_bytes())
        .records()
        .map(|r| r.expect("as many cells as columns"))
        .collect()
}

#[test]
fn fixtures_follow_the_schema() {
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/results.schema.json");
    let schema: Value = serde_json::from_str(&read(schema)).expect("JSON");
    let validator = jsonschema::validator_for(&schema).expect("the schema is one");
    for name in ["quick-cpu.json", "made-up.json"] {
        let json = json(name);
        let errors: Vec<String> =
            validator.iter_errors(&json).map(|e| format!("{}: {e}", e.instance_path())).collect();
        assert!(errors.is_empty(), "{name}: {errors:#?}");
    }
    let mut curve = json("made-up.json");
    curve["curves"][0]["points"][0]["accuracy"] = 1.5.into();
    assert!(!validator.is_valid(&curve), "more right than all");
}

#[test]
fn every_row_is_in_every_form() {
    let names = ["quick-cpu.json", "made-up.json"];
    let (out, output) = report("forms", &names.map(fixture));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let count =
        |kind: &str| names.iter().map(|n| json(n)[kind].as_array().map_or(0, Vec::len)).sum::<usize>();
    let results = rows(&read(out.join("results.csv")));
    assert_eq!(results.len(), count("results"));
    assert_eq!(rows(&read(out.join("errors.csv"))).len(), count("errors"));
    let points: usize =
        (0..3).map(|i| json("made-up.json")["curves"][i]["points"].as_array().map_or(0, Vec::len)).sum();
    assert_eq!(rows(&read(out.join("curves.csv"))).len(), points);
    assert!(results.iter().all(|row| [Some("A"), Some("B")].contains(&row.get(0))));

    let page = read(out.join("report.html"));
    let (_, table) = page.split_once("id=\"rows\"").expect("the table of every row");
    let (table, _) = table.split_once("</table>").expect("its end");
    assert_eq!(table.matches("<tr").count(), count("results") + 1, "with the head");
    // Names of namespaces are the only addresses.
    assert_eq!(page.matches("http").count(), page.matches("http://www.w3.org/2000/svg").count());
    assert!(page.contains("made up &lt;without&gt; an adapter"), "what a file says is text, not markup");

    let text = read(out.join("report.md"));
    let plots: Vec<&str> = text.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect();
    assert!(plots.len() > 10 && plots.iter().all(|plot| out.join(plot).exists()), "{plots:?}");
    let widths = |line: &str| line.replace("\\|", "").matches('|').count();
    let lines: Vec<&str> = text.lines().collect();
    for pair in lines.windows(2).filter(|pair| pair.iter().all(|line| line.starts_with('|'))) {
        assert_eq!(widths(pair[0]), widths(pair[1]), "{pair:?}");
    }
    assert!(text.contains("Run A: the machine was busy"), "a noisy run says so");
}

#[test]
fn a_file_of_the_first_version_makes_a_report() {
    let old = Path::new(env!("CARGO_MANIFEST_DIR")).join("../benches/tests/fixtures/schema-1.json");
    let (out, output) = report("old", &[old]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let page = read(out.join("report.html"));
    assert!(
        page.contains("id=\"bandwidth-forward\"") && !page.contains("id=\"error\""),
        "what there is, and no more"
    );
    assert!(!out.join("curves.csv").exists());
}

#[test]
fn a_comparison_ends_as_the_threshold_says() {
    let slower = Path::new(env!("CARGO_TARGET_TMPDIR")).join("slower.json");
    let mut json = json("made-up.json");
    let row = &mut json["results"][0];
    for (name, factor) in [("median_ns", 1.2), ("p10_ns", 1.2), ("p90_ns", 1.2), ("fraction", 1.0 / 1.2)] {
        row[name] = (row[name].as_f64().expect("a number") * factor).into();
    }
    std::fs::write(&slower, json.to_string()).expect("a file can be written");
    let compare = |old: &Path, new: &Path, threshold: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        let output = command.arg("compare").args([old, new]).args(["--threshold", threshold]).output();
        let output = output.expect("xtask runs");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let old = fixture("made-up.json");
    let (passed, said) = compare(&old, &slower, "5");
    assert!(!passed && said.contains("SLOWER") && said.contains("+20.0 %"), "{said}");
    let (passed, said) = compare(&old, &slower, "30");
    assert!(passed && said.contains("slower"), "{said}");
    let (passed, said) = compare(&slower, &old, "5");
    assert!(passed && said.contains("faster"), "{said}");
}

#[test]
fn what_is_no_results_file_is_named_and_refused() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (broken, later) = (folder.join("broken.json"), folder.join("later.json"));
    std::fs::write(&broken, "{}").expect("a file can be written");
    let mut json = json("made-up.json");
    json["schema"] = 99.into();
    std::fs::write(&later, json.to_string()).expect("a file can be written");
    let cases = [(broken, "broken.json"), (later, "schema 99"), (folder.join("absent.json"), "absent.json")];
    for (i, (file, says)) in cases.into_iter().enumerate() {
        let (out, output) = report(&format!("refused-{i}"), &[fixture("made-up.json"), file]);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && message.contains(says), "{message}");
        assert!(!out.exists(), "nothing is written when one file is refused");
    }
}
