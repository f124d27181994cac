//! Laws of addresses and their text.

use p2p::{Addr, Error, Swarm as _};

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

/// Writes every local address as text and reads it again.
pub async fn parse_addr_is_the_inverse_of_display<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let nodes: [_; 2] = bed.nodes().await?;
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
    Ok(())
}

/// Tells to an address that was read from its text.
pub async fn a_parsed_address_can_be_told_to<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let [a, b] = bed.nodes().await?;
    let dst = a.parse_addr(&b.addr()?.to_string())?;
    bed.deliver_at(&a, &dst, &b, &letter(0, PLAIN)).await.map(drop)
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
    for given in texts {
        match node.parse_addr(&given) {
            Err(Error::InvalidAddr { text, at, .. }) => {
                ensure!(*text == *given, "reading {given:?}, the error is about {text:?}");
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
