//! What the documents say of the code is so.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ssm_testkit::{Erased, ReferenceHarness, Subject, checks};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The text of every Rust file below a folder.
fn sources(folder: &Path, into: &mut String) {
    for entry in std::fs::read_dir(folder).expect("a folder of the repository") {
        let path = entry.expect("an entry").path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push_str(&std::fs::read_to_string(&path).expect("a source file"));
        }
    }
}

/// The parts of a text between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn invariants_name_tests_that_exist() {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let (_, table) = text.split_once("| What always holds |").expect("the table of invariants");
    let mut code = String::new();
    ["crates", "tests", "benches", "xtask"]
        .iter()
        .for_each(|folder| sources(&root().join(folder), &mut code));
    let subject: Arc<dyn Subject> = Arc::new(Erased(Arc::new(ReferenceHarness::default())));
    // The reference has one algorithm: laws between two are found in the source.
    let trials: Vec<String> = checks("reference", &subject).into_iter().map(|check| check.name).collect();
    let mut missing = BTreeSet::new();
    for name in table.lines().filter_map(|line| line.split('|').nth(2)).flat_map(quoted) {
        let last = name.rsplit("::").next().unwrap_or(name);
        let is_trial = trials.iter().any(|trial| trial.contains(&format!("::{name}::")));
        let known =
            is_trial || code.contains(&format!("fn {last}(")) || code.contains(&format!("\"{last}\""));
        // A file, or a type that the compiler holds to its word.
        if !known && !name.ends_with(".rs") && !name.chars().any(char::is_uppercase) {
            missing.insert(name);
        }
    }
    assert_eq!(missing, BTreeSet::new());
}

#[test]
fn the_map_names_files_that_exist() {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let (_, map) = text.split_once("## Map").expect("the map");
    let (map, _) = map.split_once("\n## ").expect("the end of the map");
    let mut folders: Vec<(usize, PathBuf)> = Vec::new();
    let mut named = 0;
    for line in map.lines().filter(|line| line.starts_with("    ")) {
        let indent = line.len() - line.trim_start().len();
        folders.retain(|(at, _)| *at < indent);
        let here = folders.last().map_or_else(root, |(_, path)| path.clone());
        for word in line.split_whitespace() {
            let name = word.trim_end_matches(',');
            if name.ends_with('/') {
                folders.push((indent, here.join(name)));
            } else if !name.ends_with(".rs") {
                break;
            }
            assert!(here.join(name).exists(), "{name} in: {line}");
            named += 1;
        }
    }
    assert!(named > 40, "only {named} names were read");
}

/// Lines without their indentation.
fn trimmed(text: &str) -> String {
    text.lines().map(|line| line.trim().to_owned() + "\n").collect()
}

#[test]
fn quotes_are_as_the_code_is() {
    let mut code = String::new();
    ["crates", "tests"].iter().for_each(|folder| sources(&root().join(folder), &mut code));
    let code = trimmed(&code);
    for name in ["adding-a-backend.md", "adding-an-op.md"] {
        let text = std::fs::read_to_string(root().join("docs").join(name)).expect("a document");
        let quotes: Vec<&str> =
            text.split("```rust\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
        assert!(!quotes.is_empty(), "{name} quotes nothing");
        for quote in quotes {
            assert!(code.contains(&trimmed(quote)), "{name}: no longer in the code:\n{quote}");
        }
    }
}

#[test]
fn the_readmes_layer_is_the_one_that_is_tested() {
    let block = |name: &str| {
        let text = std::fs::read_to_string(root().join(name)).expect("a README");
        let blocks = text.split("```").skip(1).step_by(2);
        let mut models = blocks.filter(|block| block.contains("derive(Module"));
        models.find_map(|block| block.split_once('\n')).map(|(_, code)| code.to_owned()).expect("a model")
    };
    assert_eq!(block("README.md"), block("crates/ssm-burn/README.md"));
}
