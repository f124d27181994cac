//! Laws of addresses and their text.

use p2p::{Addr, Error, Packet, Swarm as _};

use crate::field::{PLAIN, broken, ensure, letter};
use crate::report::Outcome;
use crate::testbed::{Testbed, chain};

/// Texts that no kind of address should understand.
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

/// Writes every local address as text and reads it again, many times.
pub async fn parse_addr_is_the_inverse_of_display<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let nodes: [_; 4] = bed.nodes().await?;
    for _ in 0..bed.amount(50) {
        for addr in nodes.iter().flat_map(p2p::Swarm::local_addrs) {
            for node in &nodes {
                let text = addr.to_string();
                match node.parse_addr(&text) {
                    Ok(read) if read == addr => {}
                    Ok(read) => broken!("{text:?} was read as {read:?} and not as {addr:?}"),
                    Err(error) => broken!(
                        "{text:?}, the text of an address, was not read: {}",
                        chain(&error)
                    ),
                }
            }
        }
    }
    Ok(())
}

/// Tells to addresses that were read from their text.
pub async fn a_parsed_address_can_be_told_to<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let [a, b, c] = bed.nodes().await?;
    for number in 0..bed.amount(60) as u32 {
        for node in [&b, &c] {
            let dst = a.parse_addr(&node.addr()?.to_string())?;
            let packet = || Packet::from(&letter(number, PLAIN)[..]);
            let came = bed.deliver_once(&a, &dst, node, &packet).await?;
            ensure!(
                node.local_addrs().contains(&came.dst),
                "what was told to {dst} arrived for {}",
                came.dst
            );
        }
    }
    Ok(())
}

/// What is put before, behind, and into addresses. No sign and no digit: numbers may be read with those.
const JUNK: [&str; 21] = [
    " ", "  ", "\t", "\n", "\r\n", "\0", "\0\0", "\u{a0}", "\u{200b}", "\u{feff}", "/", "//", "@", ":", ",",
    ";", "#", "?", "%", "\"", "\\",
];

/// Reads real addresses with junk before, behind and at places within, and twice in a row. None of them is that address, and
/// what is read all the same has the text that was given.
pub async fn junk_around_an_address_is_not_passed_over<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let [a, b] = bed.nodes().await?;
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
            let step = text.len().div_ceil(bed.amount(40)).max(1);
            for (at, _) in text.char_indices().filter(|(at, _)| at % step == 0) {
                texts.push(format!("{}{junk}{}", &text[..at], &text[at..]));
            }
        }
        // Digits and separators of the address itself, once too often.
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
                        "reading {given:?}, the error is about byte {at} of {text:?}"
                    ),
                    Err(error) => broken!("reading {given:?} failed with: {error}"),
                    Ok(addr) => {
                        ensure!(addr != real, "{given:?} was read as {text}: junk was passed over");
                        let again = node.parse_addr(&addr.to_string()).ok();
                        ensure!(
                            again.as_ref() == Some(&addr),
                            "{given:?} was read as {addr}, which is no address"
                        );
                    }
                }
            }
        }
    }
    Ok(())
}

/// Reads nonsense, alone and before and behind a real address.
pub async fn garbage_is_invalid_addr<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let [node] = bed.nodes().await?;
    let real = node.addr()?.to_string();
    let around = ["\0", " ", "🙂"].map(|garbage| [format!("{real}{garbage}"), format!("{garbage}{real}")]);
    let mut texts: Vec<String> = GARBAGE.map(String::from).into();
    texts.extend(around.into_iter().flatten());
    texts.push("x".repeat(10_000));
    // Every beginning of a real address: some are addresses, none may panic.
    texts.extend(real.char_indices().map(|(at, _)| real[..at].to_owned()));
    for given in texts.iter().cycle().take(texts.len() * bed.amount(5)) {
        match node.parse_addr(given) {
            Err(Error::InvalidAddr { text, at, .. }) => {
                ensure!(*text == **given, "reading {given:?}, the error is about {text:?}");
                ensure!(
                    given.is_char_boundary(at),
                    "reading {given:?} fails at byte {at}, where nothing begins"
                );
            }
            Err(error) => broken!("reading {given:?} failed with: {error}"),
            // Then it was an address; but then it has a text that is read as the same.
            Ok(addr) => {
                let again = node.parse_addr(&addr.to_string()).ok();
                ensure!(
                    again.as_ref() == Some(&addr),
                    "{given:?} was read as {addr}, which is no address"
                );
            }
        }
    }
    Ok(())
}
