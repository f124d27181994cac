//! Peer scores: gossipsub v1.1, "The Score Function".
//!
//! Scores are kept for a while after a peer leaves, so that a reconnect does not reset them; the number of
//! kept scores is bounded. Scores are local and never sent.

use std::collections::{BTreeMap, VecDeque};
use std::hash::Hash;
use std::net::IpAddr;
use std::time::Duration;

use super::peer::PeerKey;
use super::score_params::{ScoreConfig, TopicScoreParams};
use super::topic::Topic;
use crate::hash::HashMap;

/// Number of kept scores that are searched for one without a penalty.
const LOOKED_AT: usize = 64;

/// Counters of one peer in one topic.
#[derive(Clone, Copy, Debug, Default)]
struct TopicStats {
    /// The time at which it joined the mesh.
    in_mesh: Option<Duration>,
    first_message_deliveries: f64,
    mesh_message_deliveries: f64,
    mesh_failure_penalty: f64,
    invalid_message_deliveries: f64,
    /// Whether it was ever the first with a valid message.
    proven: bool,
}

#[derive(Debug, Default)]
struct PeerStats {
    /// The time at which it first became a peer, as far as is known.
    since: Duration,
    topics: BTreeMap<Topic, TopicStats>,
    app_specific: f64,
    behaviour_penalty: f64,
    ip: Option<IpAddr>,
}

/// The standing of a peer in a topic; peers of a later standing are chosen later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// It was the first with a message at least once; or no proof is required.
    Proven,
    /// It has not had enough time for that.
    Newcomer,
    /// It has had enough time, and never was.
    Idle,
}

/// The scores of all peers; see the [module](self). `W` identifies a peer across connections.
#[derive(Debug)]
pub(super) struct Scores<W> {
    config: Option<ScoreConfig>,
    peers: BTreeMap<PeerKey, PeerStats>,
    /// Number of peers by IP address.
    ips: HashMap<IpAddr, usize>,
    left: HashMap<W, (Duration, PeerStats)>,
    /// Peers that left, the earliest first. The entry of a peer that came back and left again is obsolete.
    left_order: VecDeque<(Duration, W)>,
}

impl PeerStats {
    fn is_penalized(&self) -> bool {
        let of_topic = |stats: &TopicStats| stats.mesh_failure_penalty + stats.invalid_message_deliveries;
        self.behaviour_penalty + self.topics.values().map(of_topic).sum::<f64>() > 0.0
    }
}

impl TopicStats {
    /// Returns the number of missing deliveries, once they count.
    fn deficit(&self, now: Duration, params: &TopicScoreParams) -> f64 {
        let since = self.in_mesh.map(|since| now.saturating_sub(since));
        let counts = since.is_some_and(|time| time > params.mesh_message_deliveries_activation);
        let missing = params.mesh_message_deliveries_threshold - self.mesh_message_deliveries;
        if counts { missing.max(0.0) } else { 0.0 }
    }

    fn score(&self, now: Duration, params: &TopicScoreParams) -> f64 {
        let quantum = params.time_in_mesh_quantum.as_secs_f64();
        let time = self.in_mesh.map_or(0.0, |since| {
            (now.saturating_sub(since).as_secs_f64() / quantum).min(params.time_in_mesh_cap)
        });
        let deficit = self.deficit(now, params);
        let invalid = self.invalid_message_deliveries;
        params.topic_weight
            * (params.time_in_mesh_weight * time
                + params.first_message_deliveries_weight * self.first_message_deliveries
                + params.mesh_message_deliveries_weight * deficit * deficit
                + params.mesh_failure_penalty_weight * self.mesh_failure_penalty
                + params.invalid_message_deliveries_weight * invalid * invalid)
    }

    /// Removes the peer from the mesh, and records its missing deliveries.
    fn prune(&mut self, now: Duration, params: &TopicScoreParams) {
        let deficit = self.deficit(now, params);
        self.mesh_failure_penalty += deficit * deficit;
        self.in_mesh = None;
    }

    fn is_nothing(&self) -> bool {
        let sum = self.first_message_deliveries
            + self.mesh_message_deliveries
            + self.mesh_failure_penalty
            + self.invalid_message_deliveries;
        self.in_mesh.is_none() && sum <= 0.0 && !self.proven
    }
}

impl<W: Clone + Eq + Hash> Scores<W> {
    pub(super) fn new(config: Option<ScoreConfig>) -> Self {
        Self {
            config,
            peers: BTreeMap::new(),
            ips: HashMap::default(),
            left: HashMap::default(),
            left_order: VecDeque::new(),
        }
    }

    pub(super) fn config(&self) -> Option<&ScoreConfig> {
        self.config.as_ref()
    }

    pub(super) fn add_peer(&mut self, now: Duration, key: PeerKey, identity: &W, ip: Option<IpAddr>) {
        if self.config.is_none() {
            return;
        }
        let kept = self.left.remove(identity).filter(|(until, _)| *until > now);
        let mut stats = kept.map_or_else(
            || PeerStats {
                since: now,
                ..PeerStats::default()
            },
            |(_, stats)| stats,
        );
        stats.ip = ip.filter(|ip| !ip.is_loopback());
        if let Some(ip) = stats.ip {
            *self.ips.entry(ip).or_default() += 1;
        }
        self.peers.insert(key, stats);
    }

    pub(super) fn remove_peer(&mut self, now: Duration, key: PeerKey, identity: W) {
        let (Some(config), Some(mut stats)) = (&self.config, self.peers.remove(&key)) else {
            return;
        };
        if let Some(ip) = stats.ip
            && let Some(count) = self.ips.get_mut(&ip)
        {
            *count -= 1;
            if *count == 0 {
                self.ips.remove(&ip);
            }
        }
        for (topic, stats) in &mut stats.topics {
            if let Some(params) = config.topic(topic) {
                stats.prune(now, params);
            }
        }
        let until = now.saturating_add(config.retain_score);
        let max = config.max_retained.max(1);
        while self.left_order.len() >= max {
            // Peers that come and leave in large numbers must not displace the penalties of others.
            let mut oldest = self.left_order.iter().take(LOOKED_AT);
            let harmless = oldest.position(|(until, identity)| {
                let kept = self.left.get(identity).filter(|(of, _)| of == until);
                kept.is_none_or(|(_, stats)| !stats.is_penalized())
            });
            let Some((until, identity)) = self.left_order.remove(harmless.unwrap_or(0)) else {
                break;
            };
            self.forget(until, &identity);
        }
        self.left_order.push_back((until, identity.clone()));
        self.left.insert(identity, (until, stats));
    }

    /// Returns the score of a peer: its behaviour, and its IP address.
    pub(super) fn score(&self, now: Duration, key: PeerKey) -> f64 {
        let (Some(config), Some(stats)) = (&self.config, self.peers.get(&key)) else {
            return 0.0;
        };
        let topics = stats.topics.iter().filter_map(|(topic, stats)| {
            let params = config.topic(topic)?;
            Some(stats.score(now, params))
        });
        let neighbours = stats.ip.and_then(|ip| self.ips.get(&ip)).copied().unwrap_or(0);
        let surplus = neighbours.saturating_sub(config.ip_colocation_factor_threshold);
        let surplus = f64::from(u32::try_from(surplus).unwrap_or(u32::MAX));
        let penalty = (stats.behaviour_penalty - config.behaviour_penalty_threshold).max(0.0);
        config.capped(topics.sum())
            + config.app_specific_weight * stats.app_specific
            + config.ip_colocation_factor_weight * surplus * surplus
            + config.behaviour_penalty_weight * penalty * penalty
    }

    /// Returns the standing of a peer, if [`ScoreConfig::newcomer_time`] is finite.
    pub(super) fn standing(&self, now: Duration, key: PeerKey, topic: &Topic) -> Standing {
        let time = self.config.as_ref().map(|config| config.newcomer_time);
        let (Some(time), Some(stats)) = (time.filter(|time| *time < Duration::MAX), self.peers.get(&key))
        else {
            return Standing::Proven;
        };
        if stats.topics.get(topic).is_some_and(|stats| stats.proven) {
            Standing::Proven
        } else if now.saturating_sub(stats.since) <= time {
            Standing::Newcomer
        } else {
            Standing::Idle
        }
    }

    /// Returns the interval at which an idle peer is accepted, if there are idle peers.
    pub(super) fn idle_graft_every(&self) -> Option<Duration> {
        let config = self.config.as_ref();
        let config = config.filter(|config| config.newcomer_time < Duration::MAX)?;
        Some(config.idle_graft_every)
    }

    pub(super) fn set_app_specific(&mut self, key: PeerKey, score: f64) {
        if let Some(stats) = self.peers.get_mut(&key) {
            stats.app_specific = if score.is_finite() { score } else { 0.0 };
        }
    }

    /// P7: records `count` cases of misbehaviour.
    pub(super) fn penalize(&mut self, key: PeerKey, count: u32) {
        if let Some(stats) = self.peers.get_mut(&key) {
            stats.behaviour_penalty += f64::from(count);
        }
    }

    pub(super) fn graft(&mut self, now: Duration, key: PeerKey, topic: &Topic) {
        self.with(key, topic, |stats, _| stats.in_mesh = Some(now));
    }

    pub(super) fn prune(&mut self, now: Duration, key: PeerKey, topic: &Topic) {
        self.with(key, topic, |stats, params| stats.prune(now, params));
    }

    /// Records that the peer was the first with a valid message.
    pub(super) fn first(&mut self, key: PeerKey, topic: &Topic) {
        self.with(key, topic, |stats, params| {
            let cap = params.first_message_deliveries_cap;
            stats.first_message_deliveries = (stats.first_message_deliveries + 1.0).min(cap);
            stats.proven = true;
        });
        self.near_first(key, topic);
    }

    /// Records that the peer sent a valid message about as early as the first one.
    pub(super) fn near_first(&mut self, key: PeerKey, topic: &Topic) {
        self.with(key, topic, |stats, params| {
            if stats.in_mesh.is_some() {
                let cap = params.mesh_message_deliveries_cap;
                stats.mesh_message_deliveries = (stats.mesh_message_deliveries + 1.0).min(cap);
            }
        });
    }

    /// P4: records an invalid message.
    pub(super) fn invalid(&mut self, key: PeerKey, topic: &Topic) {
        self.with(key, topic, |stats, _| stats.invalid_message_deliveries += 1.0);
    }

    /// Returns the time after acceptance within which another delivery of a message counts.
    pub(super) fn window(&self, topic: &Topic) -> Duration {
        let params = self.config.as_ref().and_then(|config| config.topic(topic));
        params.map_or(Duration::ZERO, |params| params.mesh_message_delivery_window)
    }

    /// Decays the counters after one [`ScoreConfig::decay_interval`].
    pub(super) fn decay(&mut self, now: Duration) {
        let Some(config) = &self.config else { return };
        let decay = |value: &mut f64, factor: f64| {
            *value *= factor;
            if *value < config.decay_to_zero {
                *value = 0.0;
            }
        };
        for stats in self.peers.values_mut() {
            for (topic, stats) in &mut stats.topics {
                let Some(params) = config.topic(topic) else {
                    continue;
                };
                decay(
                    &mut stats.first_message_deliveries,
                    params.first_message_deliveries_decay,
                );
                decay(
                    &mut stats.mesh_message_deliveries,
                    params.mesh_message_deliveries_decay,
                );
                decay(&mut stats.mesh_failure_penalty, params.mesh_failure_penalty_decay);
                decay(
                    &mut stats.invalid_message_deliveries,
                    params.invalid_message_deliveries_decay,
                );
            }
            stats.topics.retain(|_, stats| !stats.is_nothing());
            decay(&mut stats.behaviour_penalty, config.behaviour_penalty_decay);
        }
        while self.left_order.front().is_some_and(|(until, _)| *until <= now)
            && let Some((until, identity)) = self.left_order.pop_front()
        {
            self.forget(until, &identity);
        }
    }

    /// Removes the score of a peer that left, unless the peer came back and left again.
    fn forget(&mut self, until: Duration, identity: &W) {
        if self.left.get(identity).is_some_and(|(of, _)| *of == until) {
            self.left.remove(identity);
        }
    }

    fn with(&mut self, key: PeerKey, topic: &Topic, change: impl FnOnce(&mut TopicStats, &TopicScoreParams)) {
        let Some(config) = &self.config else { return };
        if let (Some(params), Some(stats)) = (config.topic(topic), self.peers.get_mut(&key)) {
            if let Some(stats) = stats.topics.get_mut(topic) {
                return change(stats, params);
            }
            change(stats.topics.entry(topic.clone()).or_default(), params);
        }
    }
}
