//! `dht`: runs a node of a Kademlia network, and looks up nodes and records.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use p2p::{PeerId, Swarm as _};
use p2p_swarms::kademlia::Progress;
use p2p_swarms::stack::{Kademlia, Overlay, StackNode, StackText};
use serde_json::json;

use crate::cli::{Dht, Find, Get, Join, Key, Put};
use crate::interrupt::interrupt;
use crate::listen;
use crate::output::{Out, print, put_payload, write};
use crate::send::input;
use crate::{Failure, closing, parse};

pub(crate) async fn run(command: Dht, out: Out) -> Result<(), Failure> {
    match command {
        Dht::Join(args) => join(args, out).await,
        Dht::Find(args) => find(args, out).await,
        Dht::Get(args) => get(args, out).await,
        Dht::Put(args) => put(args, out).await,
    }
}

async fn join(args: Join, out: Out) -> Result<(), Failure> {
    let interrupt = interrupt()?;
    tokio::pin!(interrupt);
    let node = tokio::select! {
        () = &mut interrupt => return Ok(()),
        joined = node(network(&args.stack)?, &args.key) => joined?.0,
    };
    listen::serve(&node, args.echo, interrupt, out).await
}

async fn find(args: Find, out: Out) -> Result<(), Failure> {
    let id = args.id.parse()?;
    let (node, kad) = node(network(&args.stack)?.visiting(), &args.key).await?;
    let bar = Bar::new("looking for nodes", out);
    let found = closing(&node.stack, async {
        let finding = kad.swarm().find_node(id)?;
        Ok(finding.watch(|progress| bar.show(progress)).await?)
    });
    let found = found.await?;
    bar.end();
    for contact in &found {
        let (id, addr) = (contact.id.to_string(), contact.addr.to_string());
        out.line(
            &format!("node {id} {addr}"),
            &json!({ "event": "node", "id": id, "addr": addr }),
        )?;
    }
    if found.is_empty() {
        return Err(Failure::Failed("no node answered".to_owned()));
    }
    Ok(())
}

async fn get(args: Get, out: Out) -> Result<(), Failure> {
    let key = key_of(&args.name);
    let (node, kad) = node(network(&args.stack)?.visiting(), &args.key).await?;
    let bar = Bar::new("looking for the record", out);
    let found = closing(&node.stack, async {
        let getting = kad.swarm().get(key)?;
        Ok(getting.watch(|progress| bar.show(progress)).await?)
    });
    let found = found.await?;
    bar.end();
    let Some(record) = found else {
        return Err(Failure::Failed(format!(
            "no node that was asked has a record of {key}"
        )));
    };
    if !out.is_json() {
        return write(&[&record.value, &b"\n"[..]].concat());
    }
    let mut object = json!({
        "event": "record", "key": key.to_string(), "size": record.value.len(), "secs": record.ttl.as_secs(),
    });
    put_payload(&mut object, &record.value);
    print(&object.to_string())
}

async fn put(args: Put, out: Out) -> Result<(), Failure> {
    let key = key_of(&args.name);
    let (node, kad) = node(network(&args.stack)?.visiting(), &args.key).await?;
    let value = input(&args.value, node.stack.mtu())?;
    let (bar, ttl) = (
        Bar::new("putting the record", out),
        Duration::from_secs_f64(args.ttl),
    );
    let copies = closing(&node.stack, async {
        let putting = kad.swarm().put(key, &value, ttl)?;
        Ok(putting.watch(|progress| bar.show(progress)).await?)
    });
    let copies = copies.await?;
    bar.end();
    if copies == 0 {
        let why = "there is no other node, or an earlier record exists under this key";
        return Err(Failure::Failed(format!("no other node stores it: {why}")));
    }
    let size = value.len();
    out.line(
        &format!("put {key} {size} bytes {copies} copies"),
        &json!({ "event": "put", "key": key.to_string(), "size": size, "copies": copies }),
    )
}

/// Returns the text of a stack with a network.
fn network(stack: &str) -> Result<StackText, Failure> {
    let text = parse(stack)?;
    text.check_overlay()?;
    Ok(text)
}

/// Returns a node that has joined the network, and its handle.
async fn node(text: StackText, key: &Key) -> Result<(StackNode, Kademlia), Failure> {
    let node = text.build_node(&key.read(&text)?).await?;
    match node.overlays.last() {
        Some(Overlay::Kademlia(kad)) => {
            let kad = kad.clone();
            Ok((node, kad))
        }
        _ => Err(Failure::Usage(format!(
            "{text} does not support records: kad does"
        ))),
    }
}

/// Parses an id; any other text is hashed to one.
fn key_of(text: &str) -> PeerId {
    let hashed = || PeerId::new(*blake3::hash(text.as_bytes()).as_bytes());
    text.parse().unwrap_or_else(|_| hashed())
}

/// The progress of an operation: on standard error if that is a terminal, or as objects between the results.
struct Bar {
    bar: ProgressBar,
    out: Out,
}

impl Bar {
    fn new(what: &'static str, out: Out) -> Self {
        let style = ProgressStyle::with_template("{spinner} {prefix}  {msg}  {elapsed}");
        let bar = ProgressBar::new_spinner().with_prefix(what);
        let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        bar.enable_steady_tick(Duration::from_millis(100));
        Self { bar, out }
    }

    fn show(&self, progress: Progress) {
        let Progress {
            asked,
            answered,
            failed,
            found,
            hops,
            nearest,
        } = progress;
        self.bar.set_message(format!(
            "{answered} of {asked} nodes answered, {failed} did not, {hops} hops, {found} found"
        ));
        if self.out.is_json() {
            let nearest = nearest.map(|id| id.to_string());
            let object = json!({
                "event": "progress", "asked": asked, "answered": answered, "failed": failed, "found": found,
                "hops": hops, "nearest": nearest,
            });
            // A write error occurs again at the end, and is returned there.
            drop(print(&object.to_string()));
        }
    }

    fn end(self) {
        self.bar.finish_and_clear();
    }
}
