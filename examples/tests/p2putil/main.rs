//! The output and exit codes of p2putil.

mod dht;
mod discover;
mod gossip;
mod host;
mod keys;
mod process;
mod secure;
mod sim;

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;

use serde_json::Value;

use process::{Listener, done, p2putil, refused, text};

const UDP: &str = "udp=127.0.0.1:0/frag=65536";

#[test]
fn a_message_and_its_echo_cross_two_processes() {
    let mut listener = Listener::start(["listen", UDP, "--echo"]);
    let addr = listener.addr();
    let told = done(["tell", UDP, &addr, "hello\n", "--wait", "30"]);
    let heard = listener.line();
    let src = heard
        .strip_prefix("tell ")
        .and_then(|line| line.strip_suffix(" hello\\n"));
    let src = src.unwrap_or_else(|| panic!("{heard:?}"));
    assert!(src.starts_with("127.0.0.1:") && src != addr);
    assert_eq!(told, format!("told {addr} 6 bytes\ntell {addr} echo:hello\\n\n"));
}

#[test]
fn a_long_message_comes_from_standard_input() {
    let mut listener = Listener::start(["listen", UDP, "--json"]);
    let addr: Value = serde_json::from_str(&listener.line()).expect("JSON");
    let addr = addr["addr"].as_str().expect("an address");
    let mut teller = p2putil(["tell", UDP, addr, "-", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut payload = vec![b'x'; 50_000];
    payload.push(0xff);
    let mut stdin = teller.stdin.take().expect("a pipe");
    stdin.write_all(&payload).expect("it reads");
    drop(stdin);
    let told = teller.wait_with_output().expect("it ends");
    let told: Value = serde_json::from_slice(&told.stdout).expect("one JSON object");
    assert_eq!((&told["event"], &told["size"]), (&"told".into(), &50_001.into()));
    let heard: Value = serde_json::from_str(&listener.line()).expect("JSON");
    assert_eq!(
        (&heard["event"], &heard["size"]),
        (&"tell".into(), &50_001.into())
    );
    let hex = heard["hex"].as_str().expect("not UTF-8, so hex");
    assert!(hex.starts_with("7878") && hex.ends_with("78ff"));
}

#[cfg(unix)]
#[test]
fn a_listener_ends_cleanly_on_a_signal() {
    for signal in ["-INT", "-TERM"] {
        let mut listener = Listener::start(["listen", UDP]);
        listener.addr();
        listener.signal(signal);
        assert_eq!(listener.end(), (Some(0), Vec::new()), "{signal}");
    }
}

#[test]
fn wrong_usage_ends_with_2_and_a_position() {
    let error = refused(["listen", "udp=127.0.0.1:0/frog=9"], 2);
    assert!(
        error.contains("\n  udp=127.0.0.1:0/frog=9\n                  ^\n"),
        "{error}"
    );
    assert!(error.contains("frag"), "it says what is expected: {error}");
    refused(["tell", UDP, "127.0.0.1", "no port"], 2);
    refused(["tell", UDP], 2);
    refused(["bench", UDP, "--secs", "-1"], 2);
    refused(["frobnicate"], 2);
    let error = refused(["bench", "mem/frag=9000/mux=a", "--ask"], 2);
    assert!(error.contains("\n  mem/frag=9000/mux=a\n      ^\n"), "{error}");
    assert!(error.contains("layers that do: mem"), "{error}");
    let error = refused(["ask", UDP, "127.0.0.1:9", "hello"], 2);
    assert!(error.contains("does not support asks"), "{error}");
}

#[test]
fn a_failure_ends_with_1() {
    let error = refused(["tell", "mem=alone", "5", "hello"], 1);
    assert!(error.contains("no node is at 5 in this process"), "{error}");
    refused(["ask", "mem=alone", "5", "hello"], 1);
    refused(["listen", "udp=192.0.2.1:1"], 1);
    let long = "x".repeat(2000);
    let error = refused(["tell", "udp", "127.0.0.1:9", &long], 1);
    assert!(
        error.contains("fragmenting layer"),
        "it names the remedy: {error}"
    );
}

#[test]
fn measurements_are_lines_of_name_value_and_unit() {
    for ask in [None, Some("--ask")] {
        let mut command = p2putil(["bench", "mem=bench/mux=a", "--secs", "0.2", "--size", "64"]);
        let output = command.args(ask).output().expect("it runs");
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let lines: Vec<&str> = text(&output.stdout).lines().collect();
        assert!(lines.len() >= 4, "{lines:?}");
        for line in lines {
            let mut fields = line.split(' ');
            for name in ["name=", "value=", "unit="] {
                assert!(
                    fields.next().is_some_and(|field| field.starts_with(name)),
                    "{line}"
                );
            }
        }
    }
    for line in done(["bench", "udp/frag", "--secs", "0.2", "--json"]).lines() {
        let line: Value = serde_json::from_str(line).expect("JSON");
        assert!(line["name"].is_string() && line["value"].is_number() && line["unit"].is_string());
    }
}

#[test]
fn the_demo_shows_all_results() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock");
    let shown = done(["demo", "--nodes", "5", "--file", file, "--verbose"]);
    assert_eq!(
        shown.matches("5/5 ✓").count(),
        4 + 1,
        "files, and records put: {shown}"
    );
    for done in ["1,250/1,250 ✓", "4/4 ✓", "20/20 ✓", "80/80 ✓", "64/64 ✓"] {
        assert!(shown.contains(done), "{done} of {shown}");
    }
    assert!(!shown.contains('✗'), "{shown}");
    let (table, layers) = shown.split_once("the only route").expect("an explanation");
    let fits = |text: &str, most| text.lines().all(|line| line.chars().count() <= most);
    assert!(fits(table, 80) && fits(layers, 100), "{shown}");
    assert!(shown.contains("frag-piece") && shown.contains("lost "), "{shown}");
    let lines = done(["demo", "--nodes", "3", "--file", file, "--json"]);
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let expected = [
        ("files", 3),
        ("files", 3),
        ("files", 3),
        ("files", 3),
        ("asks", 750),
        ("join", 2),
        ("put", 3),
        ("get", 12),
        ("tell", 6),
        ("publish", 24),
        ("asks over 1", 64),
    ];
    assert_eq!(lines.len(), expected.len());
    for (line, (what, count)) in lines.iter().zip(expected) {
        assert_eq!(
            (&line["what"], &line["of"], &line["done"]),
            (&what.into(), &count.into(), &count.into()),
            "{line}"
        );
        assert_eq!(line["nodes"], 3);
        let of = |name: &str| line[name].as_u64().expect("a count");
        if what == "files" {
            assert_eq!(of("sent"), of("delivered") + of("lost"), "{line}");
        } else {
            assert!(line["p99_us"].as_f64() >= line["p50_us"].as_f64(), "{line}");
        }
    }
    let of = |line: usize, name: &str| lines[line][name].as_u64().expect("a count");
    assert!(
        of(1, "lost") > 0 && of(1, "resent") > 0,
        "the bad network loses: {}",
        lines[1]
    );
    let error = refused(["demo", "--nodes", "1"], 2);
    assert!(error.contains("2..=64"), "{error}");
}

#[test]
fn every_law_has_a_verdict() {
    // Under load a law on real sockets may exceed its time limit, so QUIC has little traffic here.
    let runs = [("mem=laws", None), ("udp/quic", Some("--quick"))].map(|(stack, effort)| {
        let mut run = p2putil(["conformance", stack]);
        run.args(effort).stdout(Stdio::piped()).stderr(Stdio::piped());
        run.spawn().expect("it runs")
    });
    for run in runs {
        let run = run.wait_with_output().expect("it runs");
        let (shown, error) = (text(&run.stdout), text(&run.stderr));
        assert_eq!(run.status.code(), Some(0), "{error}{shown}");
        let mut lines: Vec<&str> = shown.lines().collect();
        let total = lines.pop().expect("a total");
        assert!(total.contains(" passed, 0 failed"), "{total}");
        let laws = p2p_swarmtest::LAWS;
        let mut missing: Vec<&str> = laws.iter().map(|law| law.name).collect();
        for line in lines {
            let (verdict, rest) = line.split_once("  ").expect("a verdict");
            assert!(["passed", "waived"].contains(&verdict), "{line}");
            let name = rest.split(": ").next();
            missing.retain(|law| name != Some(*law));
        }
        assert_eq!(missing, [""; 0], "both stacks can do everything");
    }
}

#[test]
fn a_reader_that_closes_the_pipe_is_not_an_error() {
    let runs: [&[&str]; 5] = [
        &["demo", "--nodes", "4"],
        &[
            "sim",
            "kademlia",
            "--nodes",
            "20",
            "--lookups",
            "9",
            "--records",
            "9",
        ],
        &["conformance", "mem=pipe", "--quick"],
        &["completions", "bash"],
        &["--help"],
    ];
    for args in runs {
        let mut process = p2putil([])
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it runs");
        // As `head -1` does.
        let mut first = String::new();
        let mut stdout = BufReader::new(process.stdout.take().expect("a pipe"));
        stdout.read_line(&mut first).expect("UTF-8");
        drop(stdout);
        assert!(!first.is_empty(), "{args:?}");
        let ended = process.wait_with_output().expect("it ends");
        assert_eq!(
            (ended.status.code(), text(&ended.stderr)),
            (Some(0), ""),
            "{args:?}"
        );
    }
}

#[test]
fn host_names_are_refused_with_a_remedy() {
    for args in [
        ["tell", "udp", "localhost:4000", "hello"],
        ["tell", "udp=localhost:4000", "127.0.0.1:9", "hello"],
        ["ask", "udp/mbapp", "example.org:4000", "hello"],
    ] {
        let error = refused(args, 2);
        let remedy = "host names are not resolved: write IP:PORT, such as 127.0.0.1:4000";
        assert!(error.contains(remedy), "{args:?}: {error}");
    }
}

/// Messages of `told` are sent and arrive, even if the process ends at once.
fn messages_of_fifty_processes_arrive(stack: &str) {
    let mut listener = Listener::start(["listen", stack]);
    let addr = listener.addr();
    for number in 0..50 {
        let payload = format!("message {number}");
        done(["tell", stack, &addr, &payload]);
        let heard = listener.line();
        assert!(heard.starts_with("tell ") && heard.ends_with(&payload), "{heard}");
    }
}

#[test]
fn a_message_of_an_ending_process_over_p2pke_arrives() {
    messages_of_fifty_processes_arrive("udp=127.0.0.1:0/p2pke");
}

#[test]
fn a_message_of_an_ending_process_over_quic_arrives() {
    messages_of_fifty_processes_arrive("udp=127.0.0.1:0/quic");
}

#[test]
fn a_conformance_run_is_written_as_xml_and_json() {
    let folder = keys::Folder::new("laws");
    let [xml, json] = ["laws.xml", "laws.json"].map(|name| folder.path(name));
    done([
        "conformance",
        "mem=reports",
        "--quick",
        "--seed",
        "7",
        "--junit",
        &xml,
        "--report",
        &json,
    ]);
    let [xml, json] = [xml, json].map(|path| std::fs::read_to_string(path).expect("it was written"));
    let json: Value = serde_json::from_str(&json).expect("JSON");
    let laws = json["laws"].as_array().expect("laws");
    assert_eq!(
        (&json["seed"], &json["effort"], &json["failed"]),
        (&7.into(), &"quick".into(), &0.into())
    );
    assert_eq!(xml.matches("<testcase ").count(), laws.len(), "{xml}");
    assert_eq!(
        xml.matches("<skipped ").count() as u64,
        json["waived"].as_u64().expect("a count"),
        "{xml}"
    );
    for law in laws {
        let (group, name) = law["law"]
            .as_str()
            .and_then(|law| law.split_once("::"))
            .expect("a name");
        let case = format!("<testcase name=\"{name}\" classname=\"{group}\"");
        assert!(
            xml.contains(&case) && law["sentence"].is_string(),
            "{case} of {xml}"
        );
    }
    let error = refused(["conformance", "mem", "--junit", "/nonexistent/laws.xml"], 1);
    assert!(
        error.contains("/nonexistent/laws.xml cannot be written"),
        "{error}"
    );
    refused(["conformance", "mem", "--strict", "--quick"], 2);
}

#[cfg(unix)]
#[test]
fn an_interrupted_conformance_run_prints_totals() {
    // Every message is delayed, so that the run takes long enough.
    let mut run = Listener::start(["conformance", "mem=interrupted/faulty,delay=300", "--json"]);
    let first: Value = serde_json::from_str(&run.line()).expect("JSON");
    assert!(first["law"].is_string(), "{first}");
    run.signal("-INT");
    let (code, rest) = run.end();
    assert_eq!(code, Some(1), "{rest:?}");
    let total: Value = serde_json::from_str(rest.last().expect("a total")).expect("JSON");
    let of = |name: &str| total[name].as_u64().expect("a count");
    assert!(of("unchecked") > 0, "{total}");
    let all = ["passed", "failed", "waived", "unchecked"].map(of);
    assert_eq!(
        all.iter().sum::<u64>(),
        p2p_swarmtest::LAWS.len() as u64,
        "{total}"
    );
}

#[test]
fn shells_get_completions() {
    for shell in ["bash", "zsh", "fish"] {
        let script = done(["completions", shell]);
        assert!(
            ["conformance", "inflight", "keygen", "seed"]
                .iter()
                .all(|word| script.contains(word)),
            "{shell}"
        );
    }
}

#[test]
fn help_has_examples() {
    for command in [
        "demo",
        "keygen",
        "id",
        "listen",
        "tell",
        "ask",
        "pub",
        "sub",
        "chat",
        "bench",
        "conformance",
    ] {
        assert!(done([command, "--help"]).contains("Example"), "{command}");
    }
    for command in ["join", "find", "get", "put"] {
        assert!(done(["dht", command, "--help"]).contains("Example"), "{command}");
    }
    assert!(done(["dht", "--help"]).contains("Example"));
    let help = done(["--help"]);
    assert!(
        [
            "frag[=MTU]",
            "p2pke",
            "quic[=MTU]",
            "mbapp[=MTU]",
            "kad[=ADDR",
            "gossip=TOPIC",
            "Exit codes"
        ]
        .iter()
        .all(|word| help.contains(word)),
        "{help}"
    );
}
