//! Laws of addresses and their text.

use p2p::{Addr, Error, Packet, Swarm as _};

use crate::harness::{PLAIN, Tells, broken, ensure, numbered_payload};
use crate::report::Outcome;
use crate::testbed::{Testbed, chain};

/// Texts that are not an address of any kind.
const GARBAGE: [&str; 14] = [
    "",
    " ",
    "\0",
    "\n",
    "@",
    "@@",
    "://",
    "::::::::::::",
    "%zz",
    "not an address!",
    "🙂",
    "é@ü://",
    "99999999999999999999999999999999999999999:99999999999999999",
    "[[[[[[[[",
];

/// Formats every local address and parses it again, many times.
pub async fn parse_addr_is_the_inverse_of_display<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let nodes: [_; 4] = testbed.nodes().await?;
    for _ in 0..testbed.amount(50) {
        for addr in nodes.iter().flat_map(p2p::Swarm::local_addrs) {
            for node in &nodes {
                let text = addr.to_string();
                match node.parse_addr(&text) {
                    Ok(read) if read == addr => {}
                    Ok(read) => broken!("{text:?} was parsed as {read:?} instead of {addr:?}"),
                    Err(error) => broken!(
                        "{text:?}, the text of an address, was not parsed: {}",
                        chain(&error)
                    ),
                }
            }
        }
    }
    Ok(())
}

/// Tells addresses that were parsed from their text.
pub async fn a_parsed_address_can_be_told_to<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b, c] = testbed.nodes().await?;
    for number in 0..testbed.amount(60) as u32 {
        for node in [&b, &c] {
            let dst = a.parse_addr(&node.addr()?.to_string())?;
            let packet = || Packet::from(&numbered_payload(number, PLAIN)[..]);
            let came = testbed
                .deliver_packet(&a, &dst, node, Tells::Once, &packet)
                .await?;
            ensure!(
                node.local_addrs().contains(&came.dst),
                "a message that was told to {dst} arrived for {}",
                came.dst
            );
        }
    }
    Ok(())
}

/// Characters that are inserted before, behind, and within addresses. No sign and no digit, since numbers may
/// be parsed with those.
const JUNK: [&str; 21] = [
    " ", "  ", "\t", "\n", "\r\n", "\0", "\0\0", "\u{a0}", "\u{200b}", "\u{feff}", "/", "//", "@", ":", ",",
    ";", "#", "?", "%", "\"", "\\",
];

/// Parses real addresses with junk before, behind and within, and repeated. No such text is parsed as that
/// address, and an address that is parsed nevertheless has the given text.
pub async fn junk_around_an_address_is_not_passed_over<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b] = testbed.nodes().await?;
    for real in [a.addr()?, b.addr()?] {
        let text = real.to_string();
        let mut texts = vec![
            format!("{text} {text}"),
            format!("{text},{text}"),
            format!("{text}/{text}"),
            format!("{text}@{text}"),
        ];
        for junk in JUNK {
            texts.extend([
                format!("{junk}{text}"),
                format!("{text}{junk}"),
                format!("{junk}{text}{junk}"),
            ]);
            texts.push(format!("{text}{junk}x"));
            let step = text.len().div_ceil(testbed.amount(40)).max(1);
            for (at, _) in text.char_indices().filter(|(at, _)| at % step == 0) {
                texts.push(format!("{}{junk}{}", &text[..at], &text[at..]));
            }
        }
        // Digits and separators of the address itself, repeated.
        for (at, one) in text.char_indices() {
            if !one.is_alphanumeric() {
                texts.push(format!("{}{one}{}", &text[..at], &text[at..]));
            }
        }
        for given in texts {
            for node in [&a, &b] {
                match node.parse_addr(&given) {
                    Err(Error::InvalidAddr { text, at, .. }) => ensure!(
                        *text == *given && given.is_char_boundary(at),
                        "parsing {given:?}, the error is about byte {at} of {text:?}"
                    ),
                    Err(error) => broken!("reading {given:?} failed with: {error}"),
                    Ok(addr) => {
                        // Equal addresses may have different texts: of peers with an id, at another place.
                        ensure!(
                            addr.to_string() != text,
                            "{given:?} was parsed as {text}: junk was ignored"
                        );
                        let again = node.parse_addr(&addr.to_string()).ok();
                        ensure!(
                            again.as_ref() == Some(&addr),
                            "{given:?} was parsed as {addr}, which is not an address"
                        );
                    }
                }
            }
        }
    }
    Ok(())
}

/// Parses nonsense, alone and before and behind a real address.
pub async fn garbage_is_invalid_addr<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [node] = testbed.nodes().await?;
    let real = node.addr()?.to_string();
    let around = ["\0", " ", "🙂"].map(|garbage| [format!("{real}{garbage}"), format!("{garbage}{real}")]);
    let mut texts: Vec<String> = GARBAGE.map(String::from).into();
    texts.extend(around.into_iter().flatten());
    texts.push("x".repeat(10_000));
    // Every prefix of a real address: some are addresses, none may panic.
    texts.extend(real.char_indices().map(|(at, _)| real[..at].to_owned()));
    for given in texts.iter().cycle().take(texts.len() * testbed.amount(5)) {
        match node.parse_addr(given) {
            Err(Error::InvalidAddr { text, at, .. }) => {
                ensure!(*text == **given, "parsing {given:?}, the error is about {text:?}");
                ensure!(
                    given.is_char_boundary(at),
                    "parsing {given:?} fails at byte {at}, which is not a character boundary"
                );
            }
            Err(error) => broken!("reading {given:?} failed with: {error}"),
            // Then the text is an address, and must have a text that is parsed as the same.
            Ok(addr) => {
                let again = node.parse_addr(&addr.to_string()).ok();
                ensure!(
                    again.as_ref() == Some(&addr),
                    "{given:?} was parsed as {addr}, which is not an address"
                );
            }
        }
    }
    Ok(())
}
