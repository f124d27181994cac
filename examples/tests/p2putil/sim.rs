//! Simulations: correct results, equal results for equal seeds, and plots as files.

use std::process::Command;

use serde_json::Value;

fn sim(args: &[&str]) -> Vec<Value> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_p2putil"));
    let output = command
        .args(["--json", "sim"])
        .args(args)
        .output()
        .expect("it runs");
    let (text, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{errors}");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("an object"))
        .collect()
}

fn percent<'a>(lines: &'a [Value], what: &str) -> &'a Value {
    let line = lines.iter().find(|line| line["what"] == what);
    &line.unwrap_or_else(|| panic!("{what}: {lines:?}"))["percent"]
}

#[test]
fn a_stable_network_finds_everything_and_equal_seeds_give_equal_results() {
    for overlay in ["kademlia", "chord"] {
        let args = [
            overlay,
            "--nodes",
            "40",
            "--lookups",
            "40",
            "--records",
            "10",
            "--seed",
        ];
        let run = |seed| sim(&[&args[..], &[seed]].concat());
        let (lines, again, other) = (run("1"), run("1"), run("2"));
        for what in ["records put", "lookups", "records read"] {
            assert_eq!(percent(&lines, what), 100.0, "{overlay}");
        }
        let trace = |lines: &[Value]| lines.last().expect("a summary")["trace"].clone();
        assert_eq!(trace(&lines), trace(&again));
        assert_ne!(trace(&lines), trace(&other));
    }
}

#[test]
fn failures_and_churn_are_survived_and_plotted() {
    let file = std::env::temp_dir().join(format!("p2putil-sim-{}.svg", std::process::id()));
    let path = file.to_str().expect("text");
    let lines = sim(&[
        "kademlia",
        "--nodes",
        "60",
        "--lookups",
        "40",
        "--records",
        "20",
        "--fail",
        "20",
        "--churn",
        "10",
        "--minutes",
        "3",
        "--svg",
        path,
    ]);
    let svg = std::fs::read_to_string(&file);
    std::fs::remove_file(&file).expect("it was written");
    assert!(svg.is_ok_and(|svg| svg.contains("</svg>") && svg.contains("records read")));
    assert_eq!(percent(&lines, "20 % failed, 10 minutes later: lookups"), 100.0);
    let read = percent(&lines, "3 minutes of churn: records read").as_f64();
    assert!(read >= Some(95.0), "{read:?}");
}

#[test]
fn reads_of_records_that_were_not_put_fail() {
    let lines = sim(&[
        "kademlia",
        "--nodes",
        "20",
        "--lookups",
        "5",
        "--records",
        "10",
        "--loss",
        "0.99",
    ]);
    let of = |what| lines.iter().find(|line| line["what"] == what).expect(what);
    let (put, read) = (of("records put"), of("records read"));
    assert_eq!(
        (&put["of"], &put["right"]),
        (&10.into(), &0.into()),
        "nodes cannot reach each other: {put}"
    );
    assert_eq!(
        (&read["of"], &read["percent"]),
        (&0.into(), &Value::Null),
        "{read}"
    );
}

#[test]
fn a_plot_that_cannot_be_written_is_an_error_with_its_reason() {
    let unwritable = if cfg!(target_os = "linux") {
        "/dev/full"
    } else {
        "/nonexistent/plot.svg"
    };
    for path in [unwritable, "/nonexistent/plot.svg", env!("CARGO_MANIFEST_DIR")] {
        for overlay in ["kademlia", "gossip"] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_p2putil"));
            command.args(["sim", overlay, "--nodes", "20", "--svg", path]);
            if overlay == "kademlia" {
                command.args(["--lookups", "4", "--records", "4"]);
            }
            let output = command.output().expect("it runs");
            let error = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{error}");
            assert!(error.contains(&format!("{path} cannot be written: ")), "{error}");
        }
    }
}

#[test]
fn invalid_options_are_refused() {
    for args in [
        ["chord", "--loss", "1.5"],
        ["kademlia", "--loss", "1"],
        ["gossip", "--loss", "1"],
        ["kademlia", "--nodes", "1"],
        ["pastry", "--nodes", "9"],
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_p2putil"));
        let output = command.arg("sim").args(args).output().expect("it runs");
        assert_eq!(output.status.code(), Some(2), "{args:?}");
    }
}
