//! Trackers: what the cell learns, what members can do to each other, and the effects of garbled values.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use p2p_discovery::cell::Swap;
use p2p_discovery::tracker::{MAX_RECORDS, open_value, seal_value};
use p2p_discovery::{
    Addrs, Announcement, Cell, Discovery as _, Error, MemoryCell, Node, Result, Secret, Topic, Tracker,
    TrackerConfig, UnixTime, keep_announced,
};
use p2p_formats::x509::{Registry, Signer, sha3_256, shake256};
use proptest::prelude::*;
use tokio::time::{sleep, timeout};

use crate::testbeds::{addrs, key};

const MINUTE: Duration = Duration::from_mins(1);

fn secret() -> Secret {
    Secret::new([7; 32])
}

fn topic() -> Topic {
    "chat".parse().expect("a topic")
}

fn signer(seed: u8) -> Box<dyn Signer> {
    Registry::default().signer(&key(seed)).expect("a good key")
}

fn tracker<C: Cell>(cell: &Arc<C>, seed: u8) -> Tracker<Arc<C>> {
    with(cell, seed, TrackerConfig::default())
}

fn with<C: Cell>(cell: &Arc<C>, seed: u8, config: TrackerConfig) -> Tracker<Arc<C>> {
    Tracker::new(cell.clone(), secret(), &key(seed), config).expect("a good key")
}

fn now() -> UnixTime {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("after 1970");
    UnixTime::from_millis(since.as_millis().try_into().expect("soon"))
}

/// Returns an announcement by the node of `seed`, created and expiring some time from now.
fn announcement(seed: u8, made: UnixTime, ttl: Duration) -> Announcement {
    Announcement {
        topic: topic(),
        node: Node {
            id: shake256(signer(seed).public_key()),
            addrs: addrs(seed),
        },
        made,
        expires: made.after(ttl),
    }
}

/// Puts records into a cell as a misbehaving member could.
async fn put(cell: &MemoryCell, records: &[Vec<u8>]) {
    let records: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
    let value = seal_value(&secret(), &records).expect("few");
    let before = cell.load().await.expect("memory");
    let swap = cell.compare_and_swap(&before, &value).await;
    assert_eq!(swap.expect("memory"), Swap::Done);
}

#[tokio::test(start_paused = true)]
async fn the_cell_learns_only_the_length_in_kib() {
    let cell = Arc::new(MemoryCell::default());
    let tracker = tracker(&cell, 1);
    let addrs = Addrs::new(["a-very-telling-address:4000"]).expect("addresses");
    tracker.announce(&topic(), &addrs, MINUTE).await.expect("room");
    let value = cell.load().await.expect("memory");
    assert_eq!(value.len(), 1024);
    let shows = |what: &[u8]| value.windows(what.len()).any(|window| window == what);
    let id = tracker.id().expect("it has a key");
    assert!(!shows(b"telling") && !shows(b"chat") && !shows(id.as_ref()));
    assert!(!shows(signer(1).public_key().key_bytes()));
    // The same contents encrypt to different bytes.
    tracker.announce(&topic(), &addrs, MINUTE).await.expect("room");
    let again = cell.load().await.expect("memory");
    let same = value.iter().zip(&again).skip(1).filter(|(a, b)| a == b).count();
    assert!(same < 50, "{same} of 1023 bytes are the same");
}

#[tokio::test(start_paused = true)]
async fn another_secret_opens_nothing_and_changes_nothing() {
    let cell = Arc::new(MemoryCell::default());
    tracker(&cell, 1)
        .announce(&topic(), &addrs(1), MINUTE)
        .await
        .expect("room");
    let before = cell.load().await.expect("memory");
    let other = Tracker::new(
        cell.clone(),
        Secret::new([8; 32]),
        &key(2),
        TrackerConfig::default(),
    );
    let other = other.expect("a good key");
    assert!(matches!(
        other.find(&topic()).await,
        Err(Error::Garbled { at: 13, .. })
    ));
    let announced = other.announce(&topic(), &addrs(2), MINUTE).await;
    assert!(matches!(announced, Err(Error::Garbled { .. })));
    assert_eq!(cell.load().await.expect("memory"), before);
    assert_ne!(Secret::new([8; 32]).cell_id(), secret().cell_id());
}

#[tokio::test(start_paused = true)]
async fn no_node_can_announce_for_another() {
    let cell = Arc::new(MemoryCell::default());
    let honest = tracker(&cell, 1);
    honest.announce(&topic(), &addrs(1), MINUTE).await.expect("room");
    let own = open_value(&secret(), &cell.load().await.expect("memory"))
        .expect("its own")
        .remove(0);
    // Signed by another's key, in another's name, later than the honest announcement.
    let mut forged = announcement(1, now().after(Duration::from_secs(5)), MINUTE);
    forged.node.addrs = addrs(66);
    assert!(
        matches!(forged.sign(&*signer(2)), Err(Error::Invalid { .. })),
        "not by this library"
    );
    let good = announcement(2, now(), MINUTE).sign(&*signer(2)).expect("its own");
    // So it is another's record with the id changed.
    let id = shake256(signer(2).public_key());
    let mut forged = good.clone();
    let at = forged
        .windows(32)
        .position(|window| window == id.as_ref())
        .expect("it is there");
    forged[at..at + 32].copy_from_slice(honest.id().expect("it has a key").as_ref());
    let error = Announcement::open(&forged, &Registry::default(), now()).expect_err("forged");
    let why = std::error::Error::source(&error).expect("a cause").to_string();
    assert!(
        why.starts_with("the signature at byte ") && why.ends_with(" is not valid"),
        "{why}"
    );
    put(&cell, &[forged, own, good, b"not even a record".to_vec()]).await;
    let found = honest.find(&topic()).await.expect("what is right is found");
    let mut expected = [1, 2].map(|seed| announcement(seed, now(), MINUTE).node);
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[tokio::test(start_paused = true)]
async fn a_key_has_its_two_ids_and_no_other() {
    let mut quic = announcement(1, now(), MINUTE);
    quic.node.id = sha3_256(signer(1).public_key());
    let record = quic.sign(&*signer(1)).expect("its own");
    assert_eq!(
        Announcement::open(&record, &Registry::default(), now()).expect("its own"),
        quic
    );
}

#[tokio::test(start_paused = true)]
async fn an_announcement_that_lasts_too_long_is_ignored() {
    let cell = Arc::new(MemoryCell::default());
    let year = Duration::from_hours(24 * 365);
    let records = [
        announcement(1, now(), year),
        announcement(2, now().after(year), MINUTE),
        announcement(3, UnixTime::from_millis(u64::MAX), year),
        announcement(4, now(), MINUTE),
        announcement(5, UnixTime::from_millis(0), MINUTE),
    ];
    let records: Vec<Vec<u8>> = (1..)
        .zip(&records)
        .map(|(seed, announcement)| announcement.sign(&*signer(seed)).expect("its own"))
        .collect();
    put(&cell, &records).await;
    let found = tracker(&cell, 9).find(&topic()).await.expect("it opens");
    assert_eq!(found, [announcement(4, now(), MINUTE).node]);
}

#[tokio::test(start_paused = true)]
async fn the_later_of_two_announcements_of_a_node_applies() {
    let cell = Arc::new(MemoryCell::default());
    let old = announcement(1, now(), MINUTE);
    let mut new = announcement(1, now().after(Duration::from_secs(1)), MINUTE);
    new.node.addrs = addrs(2);
    let [old, new] = [&old, &new].map(|announcement| announcement.sign(&*signer(1)).expect("its own"));
    for records in [[old.clone(), new.clone()], [new, old]] {
        put(&cell, &records).await;
        let found = tracker(&cell, 9).find(&topic()).await.expect("it opens");
        assert_eq!(found[0].addrs, addrs(2));
        assert_eq!(found.len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_tracker_refuses_new_nodes_until_an_announcement_expires() {
    let cell = Arc::new(MemoryCell::default());
    let config = || TrackerConfig {
        announcements: 2,
        ..TrackerConfig::default()
    };
    let [a, b, c] = [1, 2, 3].map(|seed| with(&cell, seed, config()));
    a.announce(&topic(), &addrs(1), MINUTE).await.expect("room");
    b.announce(&topic(), &addrs(2), 2 * MINUTE).await.expect("room");
    let refused = c.announce(&topic(), &addrs(3), MINUTE).await;
    assert!(
        matches!(refused, Err(Error::Limit { limit: 2, .. })),
        "{refused:?}"
    );
    // A node in the tracker can announce again.
    b.announce(&topic(), &addrs(4), 2 * MINUTE)
        .await
        .expect("its own room");
    assert_eq!(c.find(&topic()).await.expect("it opens").len(), 2);
    sleep(MINUTE).await;
    c.announce(&topic(), &addrs(3), MINUTE).await.expect("room");
    let found = c.announcements().await.expect("it opens");
    let ids: Vec<_> = found.iter().map(|found| Some(found.node.id)).collect();
    assert_eq!(ids, [b.id(), c.id()]);
    // Expired announcements take no room in the cell either.
    let value = cell.load().await.expect("memory");
    assert_eq!(open_value(&secret(), &value).expect("its own").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_small_cell_refuses_an_oversize_value_and_keeps_the_current_one() {
    let cell = Arc::new(MemoryCell::new(1024));
    tracker(&cell, 1)
        .announce(&topic(), &addrs(1), MINUTE)
        .await
        .expect("room");
    let long = Addrs::new((0..9).map(|number| format!("{number}{}", "x".repeat(200)))).expect("addresses");
    let refused = tracker(&cell, 2).announce(&topic(), &long, MINUTE).await;
    assert!(
        matches!(refused, Err(Error::Limit { limit: 1024, .. })),
        "{refused:?}"
    );
    assert_eq!(tracker(&cell, 2).find(&topic()).await.expect("it opens").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_tracker_without_a_key_is_read_only() {
    let cell = Arc::new(MemoryCell::default());
    tracker(&cell, 1)
        .announce(&topic(), &addrs(1), MINUTE)
        .await
        .expect("room");
    let reader = Tracker::reader(cell, secret(), TrackerConfig::default());
    assert_eq!(reader.find(&topic()).await.expect("it opens").len(), 1);
    assert!(matches!(
        reader.announce(&topic(), &addrs(2), MINUTE).await,
        Err(Error::ReadOnly(_))
    ));
    assert!(matches!(reader.withdraw(&topic()).await, Err(Error::ReadOnly(_))));
}

/// A cell that another writer changes each time, or that fails at first.
struct Contested {
    inner: MemoryCell,
    tries: AtomicUsize,
    fails: usize,
}

#[async_trait]
impl Cell for Contested {
    fn max(&self) -> usize {
        self.inner.max()
    }

    async fn load(&self) -> Result<Vec<u8>> {
        if self.tries.fetch_add(1, Ordering::Relaxed) < self.fails {
            return Err(Error::Refused {
                status: 503,
                reason: "not now".into(),
            });
        }
        self.inner.load().await
    }

    async fn compare_and_swap(&self, current: &[u8], new: &[u8]) -> Result<Swap> {
        if self.fails > 0 {
            return self.inner.compare_and_swap(current, new).await;
        }
        self.tries.fetch_add(1, Ordering::Relaxed);
        Ok(Swap::Differs(Vec::new()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_that_never_succeeds_is_an_error_in_time() {
    let cell = Arc::new(Contested {
        inner: MemoryCell::default(),
        tries: AtomicUsize::new(0),
        fails: 0,
    });
    let (node, topic, addrs) = (tracker(&cell, 1), topic(), addrs(1));
    let announced = timeout(MINUTE, node.announce(&topic, &addrs, MINUTE)).await;
    let announced = announced.expect("in time");
    assert!(
        matches!(announced, Err(Error::Contended { attempts: 32 })),
        "{announced:?}"
    );
    assert_eq!(cell.tries.load(Ordering::Relaxed), 33);
}

#[tokio::test(start_paused = true)]
async fn a_kept_announcement_stays_found_after_initial_failures() {
    let cell = Arc::new(Contested {
        inner: MemoryCell::default(),
        tries: AtomicUsize::new(0),
        fails: 3,
    });
    let node = tracker(&cell, 1);
    let failures = Arc::new(AtomicUsize::new(0));
    let keeper = {
        let (node, failures) = (node.clone(), failures.clone());
        tokio::spawn(async move {
            let failed = |_| {
                failures.fetch_add(1, Ordering::Relaxed);
            };
            keep_announced(&node, &topic(), &addrs(1), MINUTE, failed).await
        })
    };
    sleep(MINUTE).await;
    for _ in 0..20 {
        sleep(MINUTE / 3).await;
        assert_eq!(node.find(&topic()).await.expect("it opens").len(), 1);
    }
    assert_eq!(failures.load(Ordering::Relaxed), 3);
    keeper.abort();
    sleep(MINUTE).await;
    assert_eq!(node.find(&topic()).await.expect("it opens"), []);
}

#[test]
fn the_records_of_a_value_are_bounded() {
    let records = vec![&b"x"[..]; MAX_RECORDS];
    let value = seal_value(&secret(), &records).expect("as many as fit");
    assert_eq!(open_value(&secret(), &value).expect("its own").len(), MAX_RECORDS);
    let more = vec![&b"x"[..]; MAX_RECORDS + 1];
    assert!(matches!(seal_value(&secret(), &more), Err(Error::Limit { .. })));
    assert!(matches!(
        seal_value(&secret(), &[b"one", b""]),
        Err(Error::Invalid { .. })
    ));
}

#[test]
fn errors_of_garbled_values_have_a_reason_and_a_position() {
    let good = seal_value(&secret(), &[b"one", b"two"]).expect("few");
    let error = |value: &[u8]| open_value(&secret(), value).expect_err("garbled").to_string();
    assert_eq!(
        error(&[9, 1, 2]),
        "a tracker's value is garbled: at byte 0, its version is 9, expected 1"
    );
    assert_eq!(
        error(&good[..5]),
        "a tracker's value is garbled: at byte 5, it is truncated"
    );
    let changed =
        "a tracker's value is garbled: at byte 13, it was not encrypted with this secret, or was changed";
    assert_eq!(error(&good[..1000]), changed);
    for at in [1, 13, 20, good.len() - 1] {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        assert_eq!(error(&bytes), changed, "byte {at}");
    }
}

#[test]
fn secrets_parse_in_canonical_form_and_are_not_shown() {
    let text = secret().to_text();
    assert_eq!(text.len(), 43);
    assert_eq!(text.parse::<Secret>().expect("its own"), secret());
    assert!(!format!("{:?} {:?}", secret(), secret().write_token()).contains("Bwc"));
    for bad in [
        "",
        "BwcH",
        &text[1..],
        &format!("{}A", *text),
        &text.replace('w', "+"),
        "ü",
    ] {
        let error = bad.parse::<Secret>().expect_err("no secret").to_string();
        assert!(error.starts_with("invalid secret: "), "{error}");
    }
    // The last character has two bits beyond the 256.
    assert!(format!("{}d", &text[..42]).parse::<Secret>().is_err());
    assert_eq!(secret().cell_id(), secret().write_token().cell_id());
    let token = secret().write_token().to_text();
    assert_eq!(
        token
            .parse::<p2p_discovery::tracker::WriteToken>()
            .expect("its own")
            .cell_id(),
        secret().cell_id()
    );
}

#[test]
fn the_encodings_are_pinned() {
    let path = format!("{}/tests/vectors/tracker.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).expect("the vectors are there");
    let vectors: serde_json::Value = serde_json::from_str(&text).expect("and are JSON");
    let text = |name: &str| vectors[name].as_str().expect("a text");
    let bytes = |name: &str| -> Vec<u8> {
        let digits = text(name).as_bytes().chunks(2);
        let digits = digits.map(|pair| std::str::from_utf8(pair).expect("ASCII"));
        digits
            .map(|pair| u8::from_str_radix(pair, 16).expect("hex"))
            .collect()
    };
    let secret: Secret = text("secret").parse().expect("a secret");
    assert_eq!(*secret.write_token().to_text(), text("token"));
    assert_eq!(secret.cell_id().to_string(), text("cell"));
    let said = &vectors["announcement"];
    let millis = |name: &str| UnixTime::from_millis(said[name].as_u64().expect("a number"));
    let addrs = said["addrs"].as_array().expect("a list").iter();
    let announcement = Announcement {
        topic: said["topic"].as_str().expect("a text").parse().expect("a topic"),
        node: Node {
            id: said["id"].as_str().expect("a text").parse().expect("an id"),
            addrs: Addrs::new(addrs.map(|addr| addr.as_str().expect("a text"))).expect("addresses"),
        },
        made: millis("made"),
        expires: millis("expires"),
    };
    assert_eq!(announcement.sign(&*signer(1)).expect("its own"), bytes("record"));
    let opened = Announcement::open(&bytes("record"), &Registry::default(), millis("made"));
    assert_eq!(opened.expect("its own"), announcement);
    // The nonce is random, so a value is decrypted and not encrypted.
    assert_eq!(
        open_value(&secret, &bytes("value")).expect("its own"),
        [bytes("record")]
    );
}

proptest! {
    #[test]
    fn any_value_is_garbled_or_valid(value in proptest::collection::vec(any::<u8>(), 1..300), version in any::<bool>()) {
        let mut value = value;
        if version {
            value[0] = 1;
        }
        let opened = open_value(&secret(), &value);
        let is_garbled = matches!(opened, Err(Error::Garbled { at, .. }) if at <= value.len());
        prop_assert!(is_garbled, "{:?}", opened);
    }

    #[test]
    fn any_records_round_trip(records in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..400), 0..20)) {
        let all: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
        let value = seal_value(&secret(), &all).expect("few");
        prop_assert_eq!(value.len() % 1024, 0);
        prop_assert_eq!(open_value(&secret(), &value).expect("its own"), records);
    }

    /// Whatever a member seals, announcements of well-behaved nodes are still found.
    #[test]
    fn any_records_of_a_member_leave_others_found(records in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..200), 0..5)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
        runtime.block_on(async {
            let cell = Arc::new(MemoryCell::default());
            put(&cell, &records).await;
            tracker(&cell, 1).announce(&topic(), &addrs(1), MINUTE).await.expect("room");
            assert_eq!(tracker(&cell, 2).find(&topic()).await.expect("it opens").len(), 1);
        });
    }

    #[test]
    fn any_payload_that_is_signed_is_an_announcement_or_an_error(payload in proptest::collection::vec(any::<u8>(), 0..200), real in any::<bool>()) {
        let mut payload = payload;
        if real {
            // The valid id in front, so that parsing continues.
            payload.splice(..0, *shake256(signer(1).public_key()).as_bytes());
        }
        let context = "p2p discovery announcement 1";
        let record = p2p_formats::record::SignedRecord::sign(&*signer(1), context, &payload).expect("short");
        if let Ok(read) = Announcement::open(&record, &Registry::default(), now()) {
            prop_assert_eq!(Announcement::open(&read.sign(&*signer(1)).expect("its own"), &Registry::default(), now()).expect("the same"), read);
        }
    }
}
