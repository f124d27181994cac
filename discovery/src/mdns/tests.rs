//! Received announcements: what each id, each topic and a flood of them can displace.

use super::*;

fn heard(max: usize) -> Heard {
    Heard {
        instances: Mutex::default(),
        used: Mutex::default(),
        version: watch::Sender::new(0),
        max,
        max_each: 8,
    }
}

fn node(id: u16, addrs: impl IntoIterator<Item = String>) -> Node {
    let mut bytes = [7; 32];
    bytes[..2].copy_from_slice(&id.to_be_bytes());
    let addrs: Vec<String> = addrs.into_iter().collect();
    Node {
        id: PeerId::new(bytes),
        addrs: Addrs::new(addrs.iter().map(String::as_str)).expect("addresses"),
    }
}

fn topic(name: &str) -> Topic {
    name.parse().expect("a topic")
}

/// Returns whether all addresses of a node are known.
fn knows(heard: &Heard, topic: &Topic, node: &Node) -> bool {
    let nodes = heard.nodes(topic);
    let known = nodes.iter().find(|known| known.id == node.id);
    known.is_some_and(|known| {
        node.addrs
            .iter()
            .all(|addr| known.addrs.iter().any(|other| other == addr))
    })
}

#[test]
fn an_instance_that_names_another_id_displaces_none_of_its_addresses() {
    let (heard, chat) = (heard(64), topic("chat"));
    let victim = node(1, (0..4).map(|at| format!("true{at}")));
    let own = format!("{}._p2p._udp.local.", instance(&victim.id, &chat));
    for own_first in [true, false] {
        let set_own = || heard.set(&own, Some((chat.clone(), victim.clone())));
        if own_first {
            set_own();
        }
        for liar in 0..100 {
            let lie = node(1, (0..MAX_ADDRS).map(|at| format!("false{liar}at{at}")));
            heard.set(&format!("0{liar}._p2p._udp.local."), Some((chat.clone(), lie)));
        }
        set_own();
        assert!(knows(&heard, &chat, &victim), "{:?}", heard.nodes(&chat));
        assert!(heard.instances().len() <= 9);
        heard.instances().clear();
    }
}

#[test]
fn without_an_own_instance_each_instance_contributes_in_turn() {
    let (heard, chat) = (heard(64), topic("chat"));
    let other = node(1, ["other".to_owned()]);
    heard.set("z.local.", Some((chat.clone(), other.clone())));
    for liar in 0..7 {
        let lie = node(1, (0..MAX_ADDRS).map(|at| format!("false{liar}at{at}")));
        heard.set(&format!("0{liar}.local."), Some((chat.clone(), lie)));
    }
    assert!(knows(&heard, &chat, &other));
}

#[test]
fn a_flood_of_instances_leaves_room_for_new_nodes_and_other_topics() {
    let (heard, chat, quiet) = (heard(64), topic("chat"), topic("quiet"));
    let honest = node(9000, ["quiet".to_owned()]);
    heard.set("honest.local.", Some((quiet.clone(), honest.clone())));
    for liar in 0..1000 {
        let lie = node(liar, ["false".to_owned()]);
        heard.set(&format!("{liar}.local."), Some((chat.clone(), lie)));
    }
    assert_eq!(heard.instances().len(), 64);
    assert!(knows(&heard, &quiet, &honest));
    let newcomer = node(9001, ["new".to_owned()]);
    heard.set("newcomer.local.", Some((chat.clone(), newcomer.clone())));
    assert!(knows(&heard, &chat, &newcomer));
}

/// The announcement of each member of a crowd: an id, and a topic.
type Crowd = (&'static str, fn(u16) -> (u16, String));

const CROWDS: [Crowd; 4] = [
    ("one id in many topics", |nth| (7, format!("crowd{nth}"))),
    ("many ids in one topic", |nth| (nth, "crowd".to_owned())),
    ("many ids, each in a topic of its own", |nth| {
        (nth, format!("crowd{nth}"))
    }),
    ("many ids in topics of two", |nth| {
        (nth, format!("crowd{}", nth / 2))
    }),
];

#[test]
fn a_flood_under_other_topics_displaces_no_node_of_a_topic_that_this_node_uses() {
    for (crowd, member) in CROWDS {
        for name in ["a", "zz"] {
            let (heard, used) = (heard(64), topic(name));
            heard.uses(&used);
            let flood = |from: u16| {
                for nth in from..from + 1000 {
                    let (id, under) = member(nth);
                    let lie = node(id, ["false".to_owned()]);
                    heard.set(&format!("{nth}.local."), Some((topic(&under), lie)));
                    assert!(heard.instances().len() <= 64, "{crowd}");
                }
            };
            let honest: Vec<Node> = (0..5).map(|at| node(9000 + at, ["true".to_owned()])).collect();
            let announce = |of: &[Node]| {
                for node in of {
                    let name = format!("{}._p2p._udp.local.", instance(&node.id, &used));
                    heard.set(&name, Some((used.clone(), node.clone())));
                }
            };
            // Nodes that are known before the flood stay, and nodes that come during it find room.
            announce(&honest[..3]);
            flood(0);
            announce(&honest[3..]);
            flood(1000);
            for node in &honest {
                assert!(knows(&heard, &used, node), "{crowd}, {name}: {}", node.id);
            }
        }
    }
}

#[test]
fn a_flood_under_a_topic_that_this_node_uses_leaves_room_for_newcomers() {
    let (heard, used) = (heard(64), topic("chat"));
    heard.uses(&used);
    for nth in 0..1000 {
        heard.set(
            &format!("{nth}.local."),
            Some((used.clone(), node(nth, ["false".to_owned()]))),
        );
    }
    // All places are of the topic: one of another topic gets none.
    heard.set(
        "other.local.",
        Some((topic("other"), node(9001, ["x".to_owned()]))),
    );
    assert!(heard.nodes(&topic("other")).is_empty());
    assert_eq!(heard.instances().len(), 64);
    let newcomer = node(9000, ["true".to_owned()]);
    heard.set("newcomer.local.", Some((used.clone(), newcomer.clone())));
    assert!(knows(&heard, &used, &newcomer));
}
