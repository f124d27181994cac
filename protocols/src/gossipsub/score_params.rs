//! Parameters of peer scores, and what must be true of them.
//!
//! gossipsub v1.1, "Overview of New Parameters", under its names. [`ScoreConfig::check`] holds them against the
//! specification's constraints and against three properties, which are those that real configurations were found to
//! lack (Kumar et al., "Formal Model-Driven Analysis of Resilience of `GossipSub` to Attacks from Misbehaving Peers",
//! CVE-2022-47547):
//! 1. Who stays in a mesh and forwards nothing gets a negative score, however long it stays.
//! 2. That is so too if it forwards as well as can be in all other topics.
//! 3. A few invalid messages or broken promises make a graylisted peer of the best one.

use std::collections::BTreeMap;
use std::time::Duration;

use p2p::{Error, Result};

use super::topic::Topic;

/// Invalid messages, or misbehaviours, that a peer of the best score gets away with at most.
const FORGIVEN: u32 = 100;

/// What behaviour in one topic is worth.
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
    /// P3, `MeshMessageDeliveriesWeight`. Default: 0, as how many messages a topic has is not known.
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

/// How peers are scored, and from which score on what happens.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreConfig {
    /// Parameters of topics.
    pub topics: BTreeMap<Topic, TopicScoreParams>,
    /// Those of all other topics; without, what happens in these does not count. Default: the defaults.
    pub other_topics: Option<TopicScoreParams>,
    /// `TopicScoreCap`, what all topics together are worth at most; 0 is no cap. Default: 20.
    pub topic_score_cap: f64,
    /// P5, `AppSpecificWeight`. Default: 1.
    pub app_specific_weight: f64,
    /// P6, `IPColocationFactorWeight`. Default: -5.
    pub ip_colocation_factor_weight: f64,
    /// `IPColocationFactorThreshold`, peers of one IP address that are free. Loopback addresses are always free.
    /// Default: 10.
    pub ip_colocation_factor_threshold: usize,
    /// P7, `BehaviourPenaltyWeight`. Default: -10.
    pub behaviour_penalty_weight: f64,
    /// How much misbehaviour is free. Default: 0.
    pub behaviour_penalty_threshold: f64,
    /// `BehaviourPenaltyDecay`. Default: 0.98.
    pub behaviour_penalty_decay: f64,
    /// `DecayInterval`. Default: 1 s.
    pub decay_interval: Duration,
    /// `DecayToZero`. Default: 0.01.
    pub decay_to_zero: f64,
    /// `RetainScore`, how long the score of a peer that left is remembered. Default: 1 h.
    pub retain_score: Duration,
    /// Scores of peers that left; the one kept longest without a penalty is forgotten, of the 64 kept longest, or else the one kept
    /// longest. Default: 4096.
    pub max_retained: usize,
    /// `GossipThreshold`. Default: -10.
    pub gossip_threshold: f64,
    /// `PublishThreshold`. Default: -50.
    pub publish_threshold: f64,
    /// `GraylistThreshold`. Default: -80.
    pub graylist_threshold: f64,
    /// `AcceptPXThreshold`. Default: 30, which only the application's P5 can give.
    pub accept_px_threshold: f64,
    /// `OpportunisticGraftThreshold`. Default: 1.
    pub opportunistic_graft_threshold: f64,
    /// For how long a peer that was never the first with a message of a topic is taken for a newcomer there. After that it
    /// is idle: others are grafted before it, and its GRAFT finds no room in a mesh that has `d_lo`, unless this node turned
    /// to it, or [`idle_graft_every`](Self::idle_graft_every) lets it in. So Sybils without number cannot take turns in the
    /// places up to `d_hi`, each of them until P3 counts. Not in the specification, which leaves to each router whom it
    /// takes. Default: for ever, as if it were not there.
    pub newcomer_time: Duration,
    /// How often one idle peer's GRAFT finds room up to `d_hi` all the same, since honest nodes that publish nothing are
    /// idle for those whose mesh they are not in. The first time comes by chance. Default: 30 min.
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
    /// The parameters of the paper's evaluation, which expect something of everyone in a mesh (P3): who delivered fewer
    /// than ten messages in the last minutes, a minute after it came into the mesh, gets a negative score.
    ///
    /// For topics of three messages a second or more, of many publishers. With fewer, honest peers would be thought to
    /// keep still. Source: github.com/libp2p/gossipsub-hardening, `scripts/configs/1k-attack-*.json`, "topic".
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

    /// What a topic of so many messages a second, of many publishers, lets expect of everyone in a mesh (P3): one in 120
    /// of them first, or as good as first. That is a tenth of the least share of a mesh of twelve; with few publishers,
    /// there are honest peers that are farther from all of them than this node is, and never are first.
    ///
    /// Who keeps still loses five times what can be gained, so that nobody stays for what it did before: after twenty
    /// seconds if it never delivered, and within thirty if it did, however much (what is counted for P3 has a cap at twice
    /// of what is expected, so that the past weighs little). That is remembered for an hour (P3b). Below five messages a
    /// second all of it takes longer in proportion. **Only for topics that never fall silent**: where nobody publishes for
    /// twenty seconds, everybody keeps still. Anything but a positive number is taken for the smallest.
    pub fn expecting(messages_per_second: f64) -> Self {
        // In so many seconds the least share of an honest peer is twelve messages: enough to tell it from chance.
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
            // From here it takes as long to fall below the threshold as until P3 counts, about.
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
                "mesh_message_deliveries_cap is below the threshold, or that is not positive",
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

    /// The best that one can get in this topic.
    fn best(&self) -> f64 {
        self.longest()
            + self.topic_weight * self.first_message_deliveries_weight * self.first_message_deliveries_cap
    }

    /// What staying for long is worth.
    fn longest(&self) -> f64 {
        self.topic_weight * self.time_in_mesh_weight * self.time_in_mesh_cap
    }

    /// What it costs to forward nothing, where that counts.
    fn silence(&self) -> Option<f64> {
        let deficit = self.mesh_message_deliveries_threshold * self.mesh_message_deliveries_threshold;
        let cost = self.topic_weight * self.mesh_message_deliveries_weight * deficit;
        (cost < 0.0).then_some(cost)
    }
}

impl ScoreConfig {
    /// The parameters of the paper's evaluation, for networks in which Sybils may outnumber honest nodes by far, and whose
    /// topics are as [`TopicScoreParams::evaluated`] says.
    ///
    /// Thresholds are those of github.com/libp2p/gossipsub-hardening, `scripts/configs/1k-attack-cold-boot-covert-flash-*.json`,
    /// but that of peer exchange, which is 0 there: nobody of so low a score should name others. P7 came after the evaluation:
    /// six misbehaviours are free, as several go with losses. P6, which the evaluation switched off, is that of the default.
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

    /// Parameters for networks in which Sybils may outnumber honest nodes, and whose topics have so many messages a second,
    /// of many publishers: see [`TopicScoreParams::expecting`].
    ///
    /// Who keeps still leaves the meshes and goes on getting gossip; five invalid messages or a dozen misbehaviours
    /// graylist a peer. Six misbehaviours are free, as several go with losses.
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

    /// The parameters of a topic.
    pub fn topic(&self, topic: &Topic) -> Option<&TopicScoreParams> {
        self.topics.get(topic).or(self.other_topics.as_ref())
    }

    /// The best score that a peer can get from topics, if `others` more than the configured ones are joined.
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

    /// Whether the specification's constraints and those properties hold that make a score mean something.
    ///
    /// # Errors
    /// [`Error::Invalid`] names the first rule that is broken.
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
                "ip_colocation_factor_weight is positive, or its threshold zero",
            ),
            (
                self.behaviour_penalty_weight < 0.0 && self.behaviour_penalty_threshold >= 0.0,
                "behaviour_penalty_weight is not negative, or its threshold is",
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
        // The worst case of a bounded number of topics without parameters of their own; a cap makes it any number.
        let best = self.best(if self.topic_score_cap > 0.0 { 1 << 20 } else { 1 });
        for params in all() {
            if let Some(silence) = params.silence() {
                if params.longest() + silence >= 0.0 {
                    return broken("who forwards nothing in a mesh can keep a score that is not negative");
                }
                // What all topics give is capped as a whole, so other topics may give more than the cap.
                let others = self.uncapped_best() - params.best();
                if self.capped(others + params.longest() + silence) >= 0.0 {
                    return broken("who forwards nothing in one topic can make up for it in the others");
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
            return broken("a hundred misbehaviours do not graylist a peer");
        }
        Ok(())
    }

    /// The best of the configured topics and one other, without the cap.
    fn uncapped_best(&self) -> f64 {
        self.topics
            .values()
            .chain(&self.other_topics)
            .map(TopicScoreParams::best)
            .sum()
    }
}
