//! `docs/limits.md` names every field of every configuration, and tests that exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const CRATES: [&str; 4] = ["protocols", "swarms", "discovery", "examples"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The Rust files under a folder, but for those that were built.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            sources(&path, found);
        } else if path.extension().is_some_and(|of| of == "rs") {
            found.push(path);
        }
    }
}

/// The configurations that a file defines: names and public fields.
fn configurations(text: &str) -> Vec<(String, Vec<String>)> {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    let mut is_within = false;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("pub struct ") {
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric()).collect();
            is_within = ["Config", "Limits", "Params"]
                .iter()
                .any(|end| name.ends_with(end));
            if is_within {
                found.push((name, Vec::new()));
            }
        } else if line == "}" {
            is_within = false;
        } else if let Some((field, _)) = line
            .strip_prefix("    pub ")
            .and_then(|rest| rest.split_once(": "))
            && is_within
            && let Some((_, fields)) = found.last_mut()
        {
            fields.push(field.to_owned());
        }
    }
    found
}

/// What stands between backquotes.
fn quoted(text: &str) -> BTreeSet<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

#[test]
fn every_limit_of_every_configuration_is_in_the_table_with_tests_that_exist() {
    let doc = fs::read_to_string(root().join("docs/limits.md")).expect("docs/limits.md");
    let mut files = Vec::new();
    for name in CRATES {
        sources(&root().join(name), &mut files);
    }
    let texts: Vec<(PathBuf, String)> = files
        .into_iter()
        .map(|path| (path.clone(), fs::read_to_string(path).expect("text")))
        .collect();
    let (mut missing, mut known) = (Vec::new(), BTreeSet::new());
    let mut configs = 0;
    for (path, text) in &texts {
        let path = path
            .strip_prefix(root())
            .expect("it is below")
            .to_string_lossy()
            .into_owned();
        if !path.contains("/src/") || path.contains("/fuzz/") || path.contains("/bench-") {
            continue;
        }
        for (name, fields) in configurations(text) {
            configs += 1;
            let heading = format!("\n## `{name}` in {path}\n");
            let Some((_, section)) = doc.split_once(&heading) else {
                missing.push(format!("a section \"{}\"", heading.trim()));
                continue;
            };
            let section = section.split("\n## ").next().unwrap_or_default();
            let named = quoted(section);
            known.extend(fields.iter().cloned());
            let unnamed = fields.iter().filter(|field| !named.contains(field.as_str()));
            missing.extend(unnamed.map(|field| format!("{path}: {name}::{field}")));
        }
    }
    assert!(configs >= 20, "{configs} configurations were found");
    // A test is named by the law that it states, in at least four words.
    let named = quoted(&doc)
        .into_iter()
        .filter(|name| name.matches('_').count() >= 3);
    let laws: Vec<&str> = named
        .filter(|name| name.chars().all(|c| c.is_alphanumeric() || c == '_'))
        .collect();
    assert!(laws.len() >= 50, "{} tests are named", laws.len());
    for law in laws {
        // A test that several types share is a generic function.
        let heads = [format!("fn {law}("), format!("fn {law}<")];
        let is_there = |text: &String| heads.iter().any(|head| text.contains(head));
        if !known.contains(law) && !texts.iter().any(|(_, text)| is_there(text)) {
            missing.push(format!("a test {law}"));
        }
    }
    assert!(
        missing.is_empty(),
        "docs/limits.md is without\n{}",
        missing.join("\n")
    );
}
