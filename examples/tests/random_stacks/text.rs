//! Random stack texts, with all words and options of the grammar.

use std::fmt::Write as _;

use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;

/// Maximum number of words of a text.
const DEEPEST: usize = 5;
/// Number of addresses in a list of allowed addresses: more than the nodes of a run.
const ALLOWED: usize = 4000;

/// Placeholder for the address of a node through which others join an overlay.
pub(crate) const JOIN: &str = "JOIN";

const LAYERS: [&str; 15] = [
    // `faulty` twice: it is the most likely to reveal faults.
    "faulty", "faulty", "frag", "mux", "mux16", "mux32", "mux64", "muxv", "allow", "p2pke", "quic", "mbapp",
    "kad", "chord", "gossip",
];

/// Returns a text of one to [`DEEPEST`] words. Not all of them can be built: overlays need asks below, and
/// lists of allowed addresses are those of `mem`.
pub(crate) fn random(rng: &mut StdRng, number: usize) -> String {
    let mut text = if rng.random() {
        // A realm for each stack.
        format!("mem=random-{number}")
    } else {
        let base = ["udp", "udp=127.0.0.1:0", "udp=[::1]:0"]
            .choose(rng)
            .expect("some");
        let mtu = option(rng, 0.3, "mtu", |rng| match rng.random_range(0..8) {
            0 => rng.random_range(1..600),
            1 => rng.random_range(9000..=65_507),
            _ => rng.random_range(600..9000),
        });
        format!("{base}{mtu}")
    };
    let joins = rng.random();
    for _ in 1..rng.random_range(1..=DEEPEST) {
        text.push('/');
        layer(rng, &mut text, joins);
    }
    text
}

/// Adds a layer. If nodes are to join through others, each overlay has a place for their addresses: one without would make a
/// network of its own for each node.
fn layer(rng: &mut StdRng, text: &mut String, joins: bool) {
    let word = *LAYERS.choose(rng).expect("some");
    text.push_str(word);
    match word {
        "faulty" => {
            let chance = |rng: &mut StdRng| f64::from(rng.random_range(1..=30)) / 100.0;
            let rare = |rng: &mut StdRng| f64::from(rng.random_range(1..=50)) / 1000.0;
            text.push_str(&option(rng, 0.4, "loss", chance));
            text.push_str(&option(rng, 0.3, "dup", chance));
            text.push_str(&option(rng, 0.3, "reorder", chance));
            text.push_str(&option(rng, 0.2, "corrupt", rare));
            text.push_str(&option(rng, 0.3, "delay", |rng| rng.random_range(1..=30)));
            text.push_str(&option(rng, 0.3, "jitter", |rng| rng.random_range(1..=30)));
            // From the slowest rate on which laws can be checked.
            text.push_str(&option(rng, 0.2, "rate", |rng| {
                100_000 * 10_u64.pow(rng.random_range(0..4)) * rng.random_range(1..10)
            }));
            text.push_str(&option(rng, 0.5, "seed", |rng| rng.random_range(0..1000)));
        }
        "frag" | "mbapp" | "quic" if rng.random() => {
            let mtu = if rng.random_bool(0.1) {
                rng.random_range(1..2048)
            } else {
                (1 << rng.random_range(11..18)) + rng.random_range(-9..=9)
            };
            let _ = write!(text, "={mtu}");
        }
        "mux" => {
            let name = ["channel", "c", "\u{fc}ber", "a name of some length"];
            let _ = write!(text, "={}", name.choose(rng).expect("some"));
        }
        "mux16" => {
            let _ = write!(text, "={}", rng.random::<u16>());
        }
        "mux32" => {
            let _ = write!(text, "={}", rng.random::<u32>());
        }
        "mux64" | "muxv" => {
            let _ = write!(text, "={}", rng.random::<u64>() >> rng.random_range(0..64));
        }
        "gossip" if joins => {
            let _ = write!(text, "=topic,peers={JOIN}");
        }
        "gossip" => text.push_str("=topic"),
        "kad" | "chord" if joins => {
            let _ = write!(text, "={JOIN}");
        }
        "allow" => {
            let list: Vec<String> = (0..ALLOWED).map(|addr| addr.to_string()).collect();
            let _ = write!(text, "={}", list.join(";"));
        }
        _ => {}
    }
}

/// Returns `,name=value` with this probability.
fn option<T: ToString>(
    rng: &mut StdRng,
    chance: f64,
    name: &str,
    value: impl FnOnce(&mut StdRng) -> T,
) -> String {
    if rng.random_bool(chance) {
        format!(",{name}={}", value(rng).to_string())
    } else {
        String::new()
    }
}

/// Returns the text with up to three characters changed, removed or inserted.
pub(crate) fn broken(rng: &mut StdRng, text: &str) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    let signs: Vec<char> = "/,;=.-0123456789abcdefgmpqux@ü\n\u{0}".chars().collect();
    for _ in 0..rng.random_range(1..=3) {
        let at = rng.random_range(0..=chars.len());
        let sign = *signs.choose(rng).expect("some");
        match rng.random_range(0..3) {
            0 => chars.insert(at, sign),
            1 if at < chars.len() => drop(chars.remove(at)),
            _ if at < chars.len() => chars[at] = sign,
            _ => chars.push(sign),
        }
    }
    chars.into_iter().collect()
}

/// Returns the text for display: without the list of all addresses.
pub(crate) fn shown(text: &str) -> String {
    let pieces = text.split('/').map(|piece| {
        if piece.starts_with("allow=0;1;") {
            "allow=0;1;…"
        } else {
            piece
        }
    });
    pieces.collect::<Vec<_>>().join("/")
}
