//! When streams are opened and opened again, and which nodes are peers.

use super::*;

const NOW: Duration = Duration::from_secs(100);

fn actions(links: &mut Links<u8>) -> Vec<LinkAction<u8>> {
    std::iter::from_fn(|| links.poll_action()).collect()
}

/// Returns the opening that is asked for, and nothing else.
fn opening(links: &mut Links<u8>) -> OpeningId {
    match &*actions(links) {
        [LinkAction::Open { peer: 1, id }] => *id,
        other => panic!("{other:?}"),
    }
}

fn joined(links: &mut Links<u8>) {
    links.handle_connected(&1);
    links.handle_supported(&1, true);
    let id = opening(links);
    assert!(links.handle_opened(&1, id, Version::V1_2));
    let version = Version::V1_2;
    assert_eq!(actions(links), [LinkAction::Join { peer: 1, version }]);
}

#[test]
fn a_connected_node_that_supports_the_protocol_joins_and_leaves_with_its_last_connection() {
    let mut links = Links::new(LinkConfig::default());
    links.handle_supported(&1, true);
    links.handle_connected(&1);
    assert_eq!(actions(&mut links), []);
    joined(&mut links);
    links.handle_disconnected(&1, false);
    assert_eq!(actions(&mut links), [LinkAction::Resume { peer: 1 }]);
    links.handle_disconnected(&1, true);
    let (peer, is_peer) = (1, true);
    assert_eq!(actions(&mut links), [LinkAction::End { peer, is_peer }]);
    assert!(links.is_empty() && !links.handle_inbound(NOW, &1));
}

#[test]
fn only_nodes_that_were_asked_for_join_where_others_are_not_accepted() {
    let accept = false;
    let mut links = Links::new(LinkConfig {
        accept,
        ..LinkConfig::default()
    });
    links.handle_connected(&1);
    links.handle_supported(&1, true);
    assert!(!links.handle_inbound(NOW, &1) && !links.is_connecting(&1));
    assert_eq!(actions(&mut links), []);
    links.connect(&1).expect("room");
    assert!(links.handle_inbound(NOW, &1) && links.is_connecting(&1));
    opening(&mut links);
    links.connect(&2).expect("room");
    assert_eq!(actions(&mut links), [LinkAction::Dial { peer: 2 }]);
    links.handle_dial_failed(&2);
    assert!(!links.is_connecting(&2) && links.len() == 1);
}

#[test]
fn a_lost_stream_is_opened_again_after_doubling_pauses_and_then_given_up() {
    let config = LinkConfig::default();
    let mut links = Links::new(config.clone());
    joined(&mut links);
    let mut now = NOW;
    for retry in 0..config.max_retries {
        links.handle_lost(now, &1);
        // A second report of the same loss changes nothing.
        links.handle_lost(now, &1);
        let due = now + config.retry_pause * (1 << retry);
        assert_eq!(links.poll_timeout(), Some(due));
        links.handle_timeout(due.saturating_sub(Duration::from_nanos(1)));
        assert_eq!(actions(&mut links), []);
        links.handle_timeout(due);
        let id = opening(&mut links);
        assert!(links.handle_opened(&1, id, Version::V1_2) && !links.handle_opened(&1, id, Version::V1_2));
        assert_eq!(actions(&mut links), [LinkAction::Resume { peer: 1 }]);
        now = due;
    }
    links.handle_lost(now, &1);
    let (peer, is_peer) = (1, true);
    assert_eq!(actions(&mut links), [LinkAction::End { peer, is_peer }]);
    assert_eq!(links.poll_timeout(), None);
    assert!(!links.handle_inbound(now, &1), "until it connects anew");
    links.handle_disconnected(&1, true);
    let is_peer = false;
    assert_eq!(actions(&mut links), [LinkAction::End { peer, is_peer }]);
    joined(&mut links);
}

#[test]
fn a_node_that_refuses_the_protocol_is_asked_again_when_it_supports_it() {
    let mut links = Links::new(LinkConfig::default());
    links.handle_connected(&1);
    links.handle_supported(&1, true);
    let id = opening(&mut links);
    links.handle_open_failed(NOW, &1, id, true);
    let (peer, is_peer) = (1, false);
    assert_eq!(actions(&mut links), [LinkAction::End { peer, is_peer }]);
    links.handle_connected(&1);
    links.handle_supported(&1, false);
    assert_eq!((actions(&mut links), links.poll_timeout()), (vec![], None));
    assert!(links.handle_inbound(NOW, &1), "a stream of its own says so");
    let id = opening(&mut links);
    assert!(links.handle_opened(&1, id, Version::V1_2));
    actions(&mut links);
    let is_peer = true;
    links.handle_supported(&1, false);
    assert_eq!(actions(&mut links), [LinkAction::End { peer, is_peer }]);
    joined(&mut links);
}

#[test]
fn an_opening_of_an_earlier_connection_is_not_used() {
    let mut links = Links::new(LinkConfig::default());
    links.handle_connected(&1);
    links.handle_supported(&1, true);
    let early = opening(&mut links);
    links.handle_disconnected(&1, true);
    links.handle_connected(&1);
    links.handle_supported(&1, true);
    let [.., LinkAction::Open { id, .. }] = actions(&mut links)[..] else {
        panic!("it is opened again");
    };
    assert!(!links.handle_opened(&1, early, Version::V1_2));
    links.handle_open_failed(NOW, &1, early, true);
    assert!(links.handle_opened(&1, id, Version::V1_2));
}

#[test]
fn streams_that_a_node_opens_in_a_loop_are_refused_beyond_a_rate() {
    let config = LinkConfig::default();
    let mut links = Links::new(config.clone());
    joined(&mut links);
    let read = (0..1000).filter(|_| links.handle_inbound(NOW, &1)).count();
    assert_eq!(read, config.max_inbound as usize);
    for _ in 0..read {
        links.handle_inbound_ended(&1);
    }
    assert_eq!(actions(&mut links).len(), read, "one for each that was read");
    assert!(links.handle_inbound(NOW + config.inbound_window, &1));
}

#[test]
fn a_peer_that_the_router_removed_joins_again_only_when_it_connects_anew_or_is_asked_for() {
    let mut links = Links::new(LinkConfig::default());
    joined(&mut links);
    links.handle_removed(&1);
    let (peer, is_peer) = (1, false);
    assert_eq!(actions(&mut links), [LinkAction::End { peer, is_peer }]);
    links.handle_supported(&1, true);
    assert!(!links.handle_inbound(NOW, &1));
    assert_eq!(actions(&mut links), []);
    links.connect(&1).expect("room");
    opening(&mut links);
}

#[test]
fn nodes_that_are_dialled_are_limited() {
    let max_wanted = 2;
    let mut links = Links::new(LinkConfig {
        max_wanted,
        ..LinkConfig::default()
    });
    assert!(links.connect(&1).is_ok() && links.connect(&2).is_ok() && links.connect(&1).is_ok());
    assert!(matches!(links.connect(&3), Err(Error::Limit { limit: 2, .. })));
    assert_eq!(actions(&mut links).len(), 2);
    links.handle_removed(&1);
    assert!(links.connect(&3).is_ok());
}
