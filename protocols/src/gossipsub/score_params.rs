//! Parameters of peer scores, and the conditions that they must meet.
//!
//! The names are those of gossipsub v1.1, "Overview of New Parameters".

use std::collections::BTreeMap;
use std::time::Duration;

use p2p::{Error, Result};

use super::topic::Topic;

/// Maximum number of invalid messages, or cases of misbehaviour, that the peer with the best score can
/// afford.
const FORGIVEN: u32 = 100;

/// Score parameters of one topic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TopicScoreParams {
    /// `TopicWeight`. Default: 1.
    pub topic_weight: f64,
    /// P1, `TimeInMeshWeight`. Default: 0.01.
    pub time_in_mesh_weight: f64,
    /// `TimeInMeshQuantum`. Default: 1 s.
    pub time_in_mesh_quantum: Duration,
    /// `TimeInMeshCap`, in quanta. Default: 100.
    pub time_in_mesh_cap: f64,
    /// P2, `FirstMessageDeliveriesWeight`. Default: 0.2.
    pub first_message_deliveries_weight: f64,
    /// `FirstMessageDeliveriesDecay`. Default: 0.98.
    pub first_message_deliveries_decay: f64,
    /// `FirstMessageDeliveriesCap`. Default: 50.
    pub first_message_deliveries_cap: f64,
    /// P3, `MeshMessageDeliveriesWeight`. Default: 0, because the message rate of a topic is unknown.
    pub mesh_message_deliveries_weight: f64,
    /// `MeshMessageDeliveriesDecay`. Default: 0.98.
    pub mesh_message_deliveries_decay: f64,
    /// `MeshMessageDeliveriesThreshold`. Default: 1.
    pub mesh_message_deliveries_threshold: f64,
    /// `MeshMessageDeliveriesCap`. Default: 100.
    pub mesh_message_deliveries_cap: f64,
    /// `MeshMessageDeliveriesActivation`. Default: 30 s.
    pub mesh_message_deliveries_activation: Duration,
    /// `MeshMessageDeliveryWindow`. Default: 5 ms.
    pub mesh_message_delivery_window: Duration,
    /// P3b, `MeshFailurePenaltyWeight`. Default: 0.
    pub mesh_failure_penalty_weight: f64,
    /// `MeshFailurePenaltyDecay`. Default: 0.98.
    pub mesh_failure_penalty_decay: f64,
    /// P4, `InvalidMessageDeliveriesWeight`. Default: -1.
    pub invalid_message_deliveries_weight: f64,
    /// `InvalidMessageDeliveriesDecay`. Default: 0.99.
    pub invalid_message_deliveries_decay: f64,
}

impl Default for TopicScoreParams {
    fn default() -> Self {
        Self {
            topic_weight: 1.0,
            time_in_mesh_weight: 0.01,
            time_in_mesh_quantum: Duration::from_secs(1),
            time_in_mesh_cap: 100.0,
            first_message_deliveries_weight: 0.2,
            first_message_deliveries_decay: 0.98,
            first_message_deliveries_cap: 50.0,
            mesh_message_deliveries_weight: 0.0,
            mesh_message_deliveries_decay: 0.98,
            mesh_message_deliveries_threshold: 1.0,
            mesh_message_deliveries_cap: 100.0,
            mesh_message_deliveries_activation: Duration::from_secs(30),
            mesh_message_delivery_window: Duration::from_millis(5),
            mesh_failure_penalty_weight: 0.0,
            mesh_failure_penalty_decay: 0.98,
            invalid_message_deliveries_weight: -1.0,
            invalid_message_deliveries_decay: 0.99,
        }
    }
}

/// Score parameters, and the thresholds of the score.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreConfig {
    /// Parameters of individual topics.
    pub topics: BTreeMap<Topic, TopicScoreParams>,
    /// Parameters of all other topics; with `None`, these do not count. Default: the defaults.
    pub other_topics: Option<TopicScoreParams>,
    /// `TopicScoreCap`, the maximum score of all topics together; 0 means no cap. Default: 20.
    pub topic_score_cap: f64,
    /// P5, `AppSpecificWeight`. Default: 1.
    pub app_specific_weight: f64,
    /// P6, `IPColocationFactorWeight`. Default: -5.
    pub ip_colocation_factor_weight: f64,
    /// `IPColocationFactorThreshold`, peers with one IP address without a penalty. Loopback addresses have no
    /// penalty. Default: 10.
    pub ip_colocation_factor_threshold: usize,
    /// P7, `BehaviourPenaltyWeight`. Default: -10.
    pub behaviour_penalty_weight: f64,
    /// Misbehaviour without a penalty. Default: 0.
    pub behaviour_penalty_threshold: f64,
    /// `BehaviourPenaltyDecay`. Default: 0.98.
    pub behaviour_penalty_decay: f64,
    /// `DecayInterval`. Default: 1 s.
    pub decay_interval: Duration,
    /// `DecayToZero`. Default: 0.01.
    pub decay_to_zero: f64,
    /// `RetainScore`, the time for which the score of a peer that left is kept. Default: 1 h.
    pub retain_score: Duration,
    /// Kept scores of peers that left. At the limit, of the 64 oldest, the oldest without a penalty is
    /// forgotten, or else the oldest. Default: 4096.
    pub max_retained: usize,
    /// `GossipThreshold`. Default: -10.
    pub gossip_threshold: f64,
    /// `PublishThreshold`. Default: -50.
    pub publish_threshold: f64,
    /// `GraylistThreshold`. Default: -80.
    pub graylist_threshold: f64,
    /// `AcceptPXThreshold`. Default: 30, which only the application-specific score (P5) can reach.
    pub accept_px_threshold: f64,
    /// `OpportunisticGraftThreshold`. Default: 1.
    pub opportunistic_graft_threshold: f64,
    /// Time for which a peer that was never the first with a message of a topic counts as a newcomer. After
    /// that it is idle: other peers are grafted before it, and its GRAFT finds no room in a mesh with `d_lo`
    /// peers, unless the peer is outbound or [`idle_graft_every`](Self::idle_graft_every) allows it. So
    /// unlimited Sybils cannot take turns in the places up to `d_hi`, each until P3 counts. Not part of the
    /// specification, which leaves the choice to each router. Default: unlimited, which disables it.
    pub newcomer_time: Duration,
    /// Interval at which one idle peer's GRAFT finds room up to `d_hi`, because honest nodes that publish
    /// nothing are idle for nodes that do not have them in the mesh. The first time is random. Default: 30
    /// min.
    pub idle_graft_every: Duration,
}

impl Default for ScoreConfig {
    fn default() -> Self {
        Self {
            topics: BTreeMap::new(),
            other_topics: Some(TopicScoreParams::default()),
            topic_score_cap: 20.0,
            app_specific_weight: 1.0,
            ip_colocation_factor_weight: -5.0,
            ip_colocation_factor_threshold: 10,
            behaviour_penalty_weight: -10.0,
            behaviour_penalty_threshold: 0.0,
            behaviour_penalty_decay: 0.98,
            decay_interval: Duration::from_secs(1),
            decay_to_zero: 0.01,
            retain_score: Duration::from_hours(1),
            max_retained: 4096,
            gossip_threshold: -10.0,
            publish_threshold: -50.0,
            graylist_threshold: -80.0,
            accept_px_threshold: 30.0,
            opportunistic_graft_threshold: 1.0,
            newcomer_time: Duration::MAX,
            idle_graft_every: Duration::from_mins(30),
        }
    }
}

impl TopicScoreParams {
    /// Returns the parameters of the paper's evaluation, which expect deliveries from every mesh peer (P3): a
    /// peer that delivered fewer than ten messages in the last minutes gets a negative score, from one minute
    /// after it joined the mesh.
    ///
    /// For topics with three messages a second or more, from many publishers. With fewer, honest peers would
    /// count as silent. Source: github.com/libp2p/gossipsub-hardening, `scripts/configs/1k-attack-*.json`,
    /// "topic".
    pub fn evaluated() -> Self {
        Self {
            topic_weight: 0.25,
            time_in_mesh_weight: 0.0027,
            time_in_mesh_quantum: Duration::from_secs(1),
            time_in_mesh_cap: 3600.0,
            first_message_deliveries_weight: 0.664,
            first_message_deliveries_decay: 0.9916,
            first_message_deliveries_cap: 1500.0,
            mesh_message_deliveries_weight: -0.25,
            mesh_message_deliveries_decay: 0.997,
            mesh_message_deliveries_threshold: 10.0,
            mesh_message_deliveries_cap: 400.0,
            mesh_message_deliveries_activation: Duration::from_mins(1),
            mesh_message_delivery_window: Duration::from_millis(5),
            mesh_failure_penalty_weight: -0.25,
            mesh_failure_penalty_decay: 0.997,
            invalid_message_deliveries_weight: -99.0,
            invalid_message_deliveries_decay: 0.9994,
        }
    }

    /// Returns parameters for a topic with this message rate, from many publishers, which expect deliveries
    /// from every mesh peer (P3): one in 120 messages first, or nearly first. That is a tenth of the smallest
    /// share in a mesh of twelve. With few publishers, some honest peers are farther from all of them than
    /// this node is, and are never first.
    ///
    /// A silent peer loses five times the score that it can gain, so that earlier deliveries do not keep its
    /// place: after twenty seconds if it never delivered, and within thirty if it did, however much (the cap
    /// of the P3 counter is twice the expected number, so that the past has little weight). The penalty is
    /// kept for an hour (P3b). Below five messages a second, all of these times are longer in proportion.
    /// **Only for topics that are never silent**: if no node publishes for twenty seconds, every peer counts
    /// as silent. A value that is not positive counts as the smallest rate.
    pub fn expecting(messages_per_second: f64) -> Self {
        // In this number of seconds, the smallest share of an honest peer is twelve messages: enough to
        // distinguish it from chance.
        let is_sound = messages_per_second > 1e-3;
        let rate = if is_sound {
            messages_per_second.min(1e6)
        } else {
            1e-3
        };
        let memory = (150.0 / rate).max(30.0);
        let share = rate * memory / 12.0;
        let decay = (-1.0 / memory).exp();
        let (threshold, first_cap) = (share / 10.0, share * 1.5);
        let (usual, longest) = (10.0, 1.0);
        let first = usual / share;
        let silence = -5.0 * (first * first_cap + longest) / (threshold * threshold);
        Self {
            topic_weight: 1.0,
            time_in_mesh_weight: longest / 100.0,
            time_in_mesh_cap: 100.0,
            first_message_deliveries_weight: first,
            first_message_deliveries_decay: decay,
            first_message_deliveries_cap: first_cap,
            mesh_message_deliveries_weight: silence,
            mesh_message_deliveries_decay: decay,
            mesh_message_deliveries_threshold: threshold,
            // From this cap, falling below the threshold takes about as long as the time until P3 counts.
            mesh_message_deliveries_cap: threshold * 2.0,
            mesh_message_deliveries_activation: Duration::from_secs_f64(memory * 2.0 / 3.0),
            mesh_failure_penalty_weight: silence,
            mesh_failure_penalty_decay: 0.9997,
            invalid_message_deliveries_weight: -20.0,
            invalid_message_deliveries_decay: 0.9994,
            ..Self::default()
        }
    }

    fn broken_rule(&self) -> Option<&'static str> {
        let decay = |decay: f64| decay > 0.0 && decay < 1.0;
        let at_least_zero = |number: f64| number >= 0.0 && number.is_finite();
        let at_most_zero = |number: f64| number <= 0.0 && number.is_finite();
        let rules = [
            (at_least_zero(self.topic_weight), "topic_weight is negative"),
            (
                at_least_zero(self.time_in_mesh_weight) && at_least_zero(self.time_in_mesh_cap),
                "time_in_mesh_weight or its cap is negative",
            ),
            (
                !self.time_in_mesh_quantum.is_zero(),
                "time_in_mesh_quantum is zero",
            ),
            (
                at_least_zero(self.first_message_deliveries_weight)
                    && at_least_zero(self.first_message_deliveries_cap),
                "first_message_deliveries_weight or its cap is negative",
            ),
            (
                at_most_zero(self.mesh_message_deliveries_weight),
                "mesh_message_deliveries_weight is positive",
            ),
            (
                at_most_zero(self.mesh_failure_penalty_weight),
                "mesh_failure_penalty_weight is positive",
            ),
            (
                self.invalid_message_deliveries_weight < 0.0
                    && self.invalid_message_deliveries_weight.is_finite(),
                "invalid_message_deliveries_weight is not negative",
            ),
            (
                self.mesh_message_deliveries_threshold > 0.0
                    && self.mesh_message_deliveries_cap >= self.mesh_message_deliveries_threshold,
                "mesh_message_deliveries_cap is below the threshold, or the threshold is not positive",
            ),
            (
                decay(self.first_message_deliveries_decay)
                    && decay(self.mesh_message_deliveries_decay)
                    && decay(self.mesh_failure_penalty_decay)
                    && decay(self.invalid_message_deliveries_decay),
                "a decay is not between 0 and 1",
            ),
        ];
        rules.iter().find(|(holds, _)| !holds).map(|(_, rule)| *rule)
    }

    /// Returns the maximum score in this topic.
    fn best(&self) -> f64 {
        self.longest()
            + self.topic_weight * self.first_message_deliveries_weight * self.first_message_deliveries_cap
    }

    /// Returns the maximum score for time in the mesh.
    fn longest(&self) -> f64 {
        self.topic_weight * self.time_in_mesh_weight * self.time_in_mesh_cap
    }

    /// Returns the penalty for forwarding nothing, if there is one.
    fn silence(&self) -> Option<f64> {
        let deficit = self.mesh_message_deliveries_threshold * self.mesh_message_deliveries_threshold;
        let cost = self.topic_weight * self.mesh_message_deliveries_weight * deficit;
        (cost < 0.0).then_some(cost)
    }
}

impl ScoreConfig {
    /// Returns the parameters of the paper's evaluation, for networks in which Sybils may far outnumber
    /// honest nodes, with topics as described at [`TopicScoreParams::evaluated`].
    ///
    /// The thresholds are those of github.com/libp2p/gossipsub-hardening,
    /// `scripts/configs/1k-attack-cold-boot-covert-flash-*.json`, except that of peer exchange, which is 0
    /// there: a peer with such a low score should not name others. P7 was specified after the evaluation: six
    /// cases of misbehaviour have no penalty, because losses cause several. P6, which the evaluation
    /// disabled, has its default.
    pub fn evaluated() -> Self {
        Self {
            other_topics: Some(TopicScoreParams::evaluated()),
            topic_score_cap: 0.0,
            behaviour_penalty_threshold: 6.0,
            gossip_threshold: -4000.0,
            publish_threshold: -5000.0,
            graylist_threshold: -10_000.0,
            accept_px_threshold: 1000.0,
            opportunistic_graft_threshold: 10.0,
            ..Self::default()
        }
    }

    /// Returns parameters for networks in which Sybils may outnumber honest nodes, with topics of this
    /// message rate, from many publishers: see [`TopicScoreParams::expecting`].
    ///
    /// A silent peer is removed from the meshes and still gets gossip; five invalid messages or a dozen cases
    /// of misbehaviour graylist a peer. Six cases of misbehaviour have no penalty, because losses cause
    /// several.
    pub fn expecting(messages_per_second: f64) -> Self {
        Self {
            other_topics: Some(TopicScoreParams::expecting(messages_per_second)),
            topic_score_cap: 50.0,
            behaviour_penalty_threshold: 6.0,
            gossip_threshold: -200.0,
            publish_threshold: -300.0,
            graylist_threshold: -400.0,
            accept_px_threshold: 100.0,
            opportunistic_graft_threshold: 5.0,
            newcomer_time: Duration::from_secs(30),
            ..Self::default()
        }
    }

    /// Returns the parameters of a topic.
    pub fn topic(&self, topic: &Topic) -> Option<&TopicScoreParams> {
        self.topics.get(topic).or(self.other_topics.as_ref())
    }

    /// Returns the maximum score from topics if `others` topics besides the configured ones are joined.
    fn best(&self, others: u32) -> f64 {
        let configured: f64 = self.topics.values().map(TopicScoreParams::best).sum();
        let other = self.other_topics.as_ref().map_or(0.0, TopicScoreParams::best);
        self.capped(configured + other * f64::from(others))
    }

    pub(super) fn capped(&self, topics: f64) -> f64 {
        if self.topic_score_cap > 0.0 {
            topics.min(self.topic_score_cap)
        } else {
            topics
        }
    }

    /// Checks the specification's constraints, and three properties that make a score effective.
    ///
    /// Real configurations were found to lack these properties (Ankit Kumar et al., "Formal Model-Driven Analysis
    /// of Resilience of `GossipSub` to Attacks from Misbehaving Peers", CVE-2022-47547):
    /// 1. A peer that stays in a mesh and forwards nothing gets a negative score, however long it stays.
    /// 2. The same holds if it forwards perfectly in all other topics.
    /// 3. A few invalid messages or broken promises graylist even the peer with the best score.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the first violated rule.
    pub fn check(&self) -> Result<()> {
        let broken = |rule: &str| Err(Error::invalid("score parameters", rule));
        let rules = [
            (self.gossip_threshold < 0.0, "gossip_threshold is not negative"),
            (
                self.publish_threshold <= self.gossip_threshold,
                "publish_threshold exceeds gossip_threshold",
            ),
            (
                self.graylist_threshold < self.publish_threshold && self.graylist_threshold.is_finite(),
                "graylist_threshold is not below publish_threshold",
            ),
            (self.accept_px_threshold >= 0.0, "accept_px_threshold is negative"),
            (
                self.opportunistic_graft_threshold >= 0.0,
                "opportunistic_graft_threshold is negative",
            ),
            (self.topic_score_cap >= 0.0, "topic_score_cap is negative"),
            (
                self.app_specific_weight >= 0.0 && self.app_specific_weight.is_finite(),
                "app_specific_weight is negative",
            ),
            (
                self.ip_colocation_factor_weight <= 0.0 && self.ip_colocation_factor_threshold >= 1,
                "ip_colocation_factor_weight is positive, or its threshold is zero",
            ),
            (
                self.behaviour_penalty_weight < 0.0 && self.behaviour_penalty_threshold >= 0.0,
                "behaviour_penalty_weight is not negative, or its threshold is negative",
            ),
            (
                self.behaviour_penalty_decay > 0.0 && self.behaviour_penalty_decay < 1.0,
                "a decay is not between 0 and 1",
            ),
            (
                self.decay_interval >= Duration::from_millis(1),
                "decay_interval is below 1 ms",
            ),
        ];
        if let Some((_, rule)) = rules.iter().find(|(holds, _)| !holds) {
            return broken(rule);
        }
        let all = || self.topics.values().chain(&self.other_topics);
        if let Some(rule) = all().find_map(TopicScoreParams::broken_rule) {
            return broken(rule);
        }
        // The worst case for a bounded number of topics without their own parameters; with a cap, for any
        // number.
        let best = self.best(if self.topic_score_cap > 0.0 { 1 << 20 } else { 1 });
        for params in all() {
            if let Some(silence) = params.silence() {
                if params.longest() + silence >= 0.0 {
                    return broken(
                        "a peer that forwards nothing in a mesh can keep a score that is not negative",
                    );
                }
                // The cap applies to the sum of all topics, so the sum of the others may exceed it.
                let others = self.uncapped_best() - params.best();
                if self.capped(others + params.longest() + silence) >= 0.0 {
                    return broken(
                        "a peer that forwards nothing in one topic can compensate for it in other topics",
                    );
                }
            }
            let cost = params.topic_weight * params.invalid_message_deliveries_weight;
            if best + cost * f64::from(FORGIVEN * FORGIVEN) >= self.graylist_threshold {
                return broken("a hundred invalid messages do not graylist a peer");
            }
        }
        let surplus = f64::from(FORGIVEN) - self.behaviour_penalty_threshold;
        if surplus <= 0.0
            || best + self.behaviour_penalty_weight * surplus * surplus >= self.graylist_threshold
        {
            return broken("a hundred cases of misbehaviour do not graylist a peer");
        }
        Ok(())
    }

    /// Returns the maximum score of the configured topics and one other, without the cap.
    fn uncapped_best(&self) -> f64 {
        self.topics
            .values()
            .chain(&self.other_topics)
            .map(TopicScoreParams::best)
            .sum()
    }
}
