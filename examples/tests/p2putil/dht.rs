//! A Kademlia network of processes: nodes join through one, find each other, and store records.

use p2p::PeerId;
use serde_json::Value;

use crate::keys::Folder;
use crate::process::{Listener, done, p2putil, refused, text};

const STACK: &str = "udp=127.0.0.1:0/p2pke/mbapp/kad";

/// Returns the text behind the expected words of the next lines.
fn words<const N: usize>(node: &mut Listener, expected: [&str; N]) -> [String; N] {
    expected.map(|word| {
        let line = node.line();
        let rest = line.strip_prefix(word).and_then(|rest| rest.strip_prefix(' '));
        rest.unwrap_or_else(|| panic!("{line:?} is not a line of {word}"))
            .to_owned()
    })
}

/// Returns nodes with their ids, and the stack with which others join through the first.
fn network(count: usize) -> (Vec<(Listener, String)>, String) {
    let mut first = Listener::start(["dht", "join", STACK, "--echo"]);
    let [id, bootstrap] = words(&mut first, ["addr", "bootstrap"]);
    assert!(bootstrap.starts_with(&format!("{id}@127.0.0.1:")), "{bootstrap}");
    let stack = format!("{STACK}={bootstrap}");
    let mut nodes = vec![(first, id)];
    while nodes.len() < count {
        let mut node = Listener::start(["dht", "join", &stack, "--echo"]);
        let [id, _] = words(&mut node, ["addr", "bootstrap"]);
        nodes.push((node, id));
    }
    (nodes, stack)
}

fn objects(lines: &str) -> Vec<Value> {
    let object = |line| serde_json::from_str(line).expect("JSON");
    lines.lines().map(object).collect()
}

#[test]
fn nodes_are_told_and_asked_by_id() {
    let (mut nodes, stack) = network(3);
    for (node, id) in &mut nodes {
        let told = done(["tell", &stack, id, "hello", "--wait", "30"]);
        assert_eq!(told, format!("told {id} 5 bytes\ntell {id} echo:hello\n"));
        assert!(node.line().ends_with(" hello"));
        assert_eq!(done(["ask", &stack, id, "hello", "--timeout", "30"]), "olleh\n");
    }
    let found = done(["dht", "find", &stack, &nodes[2].1]);
    let found: Vec<&str> = found.lines().collect();
    assert_eq!(found.len(), 3, "the searching node is not found: {found:?}");
    let nearest = format!("node {id} {id}@127.0.0.1:", id = nodes[2].1);
    assert!(found[0].starts_with(&nearest), "{found:?}");
}

#[test]
fn records_outlive_the_nodes_that_put_them() {
    let (mut nodes, stack) = network(3);
    let put = done(["dht", "put", &stack, "greeting", "hello\nthere"]);
    let key = put
        .strip_prefix("put ")
        .and_then(|put| put.strip_suffix(" 11 bytes 3 copies\n"));
    let key = key.unwrap_or_else(|| panic!("{put:?}"));
    assert_eq!(done(["dht", "get", &stack, "greeting"]), "hello\nthere\n");
    drop(nodes.pop());
    assert_eq!(
        done(["dht", "get", &stack, key]),
        "hello\nthere\n",
        "the key's own text"
    );
    let error = refused(["dht", "put", &stack, "greeting", "another"], 1);
    assert!(error.contains("no other node stores it"), "{error}");
    let error = refused(["dht", "get", &stack, "a key of nothing"], 1);
    assert!(error.contains("has a record"), "{error}");
}

/// Returns the commands of the README block with this line, with this address in place of the written one.
fn readme(line: &str, id: &str, addr: &str) -> Vec<Vec<String>> {
    let readme = include_str!("../../../docs/p2putil.md");
    let block = readme.split("```").find(|block| block.contains(line));
    let commands = block
        .expect("a block")
        .lines()
        .filter(|line| line.starts_with("p2putil "));
    let command = |line: &str| {
        let said = line.split(" #").next().unwrap_or(line);
        let words = said.split_whitespace().skip(1);
        let word = |word: &str| word.replace("127.0.0.1:4000", addr).replace("ID", id);
        words.map(word).collect()
    };
    commands.map(command).collect()
}

#[test]
fn the_readme_shows_a_network_that_works() {
    let folder = Folder::new("readme");
    let key = folder.path("node.pem");
    let ids = done(["keygen", "--out", &key]);
    let id = ids
        .lines()
        .find_map(|line| line.strip_prefix("p2pke "))
        .expect("an id");
    let commands = readme("p2putil dht join udp=", id, "127.0.0.1:0");
    let mut join = p2putil([]);
    join.args(
        commands[0]
            .iter()
            .map(|word| if word == "node.pem" { &key } else { word }),
    );
    let mut node = Listener::spawn(join);
    let [addr, bootstrap] = words(&mut node, ["addr", "bootstrap"]);
    assert_eq!(addr, id);
    let (_, place) = bootstrap.split_once('@').expect("a place");
    let commands = readme("p2putil dht join udp=", id, place);
    let printed: Vec<String> = commands[1..4]
        .iter()
        .map(|args| {
            let output = p2putil([]).args(args).output().expect("it runs");
            assert_eq!(
                output.status.code(),
                Some(0),
                "{args:?}: {}",
                text(&output.stderr)
            );
            text(&output.stdout).to_owned()
        })
        .collect();
    assert!(
        printed[0].starts_with("put ") && printed[0].ends_with(" 5 bytes 1 copies\n"),
        "{printed:?}"
    );
    assert_eq!((&*printed[1], &*printed[2]), ("hello\n", "olleh\n"));
}

#[test]
fn events_of_a_network_are_one_object_per_line() {
    let (nodes, stack) = network(2);
    let found = objects(&done(["dht", "find", &stack, &nodes[0].1, "--json"]));
    let (progress, found) = found.split_at(found.len() - 2);
    let last = progress.last().expect("some steps");
    assert_eq!(
        (&last["event"], &last["answered"]),
        (&"progress".into(), &2.into())
    );
    assert_eq!(
        (&found[0]["event"], &found[0]["id"]),
        (&"node".into(), &nodes[0].1.as_str().into())
    );
    assert!(found[1]["addr"].is_string());
    let put = objects(&done(["dht", "put", &stack, "k", "v", "--ttl", "60", "--json"])).pop();
    let put = put.expect("a result");
    assert_eq!(
        (&put["event"], &put["copies"], &put["size"]),
        (&"put".into(), &2.into(), &1.into())
    );
    let got = objects(&done(["dht", "get", &stack, "k", "--json"]))
        .pop()
        .expect("a result");
    assert_eq!(
        (&got["event"], &got["text"], &got["key"]),
        (&"record".into(), &"v".into(), &put["key"])
    );
    assert!(
        (1..=60).contains(&got["secs"].as_u64().expect("seconds")),
        "{got}"
    );
}

#[test]
fn a_stack_without_a_network_is_refused() {
    let error = refused(["dht", "get", "udp/p2pke/mbapp/frag", "k"], 2);
    assert!(
        error.contains("\n  udp/p2pke/mbapp/frag\n                  ^\n"),
        "{error}"
    );
    assert!(error.contains("kad"), "{error}");
    let error = refused(["dht", "get", "udp/p2pke/kad", "k"], 2);
    assert!(error.contains("kad needs asks below"), "{error}");
    let error = refused(["dht", "find", STACK, "no id"], 2);
    assert!(error.contains("is not an address"), "{error}");
    refused(["dht", "put", "mem=alone/kad", "k", "v", "--ttl", "0"], 2);
    let error = refused(["dht", "put", "mem=alone/kad", "k", "v"], 1);
    assert!(error.contains("no other node stores it"), "{error}");
    refused(["dht", "get", "mem=alone/kad", "k"], 1);
    let error = refused(["dht", "find", "mem=alone/kad", &PeerId::ZERO.to_string()], 1);
    assert!(error.contains("no node answered"), "{error}");
    let error = refused(["dht", "join", "mem=alone/kad=7"], 1);
    assert!(
        error.contains("no node answered") && error.contains("\n                ^\n"),
        "{error}"
    );
}

#[cfg(unix)]
#[test]
fn a_node_serves_until_a_signal_ends_it() {
    let (nodes, _) = network(2);
    for (node, _) in nodes {
        node.signal("-INT");
        assert_eq!(node.end(), (Some(0), Vec::new()));
    }
}
