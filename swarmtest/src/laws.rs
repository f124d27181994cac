//! The laws: each is a function named after its statement, and listed in [`LAWS`] with its sentence.
//!
//! Laws use nodes only, except those of the group [`wire`], which observe and attack the medium below.

use std::future::Future;
use std::pin::Pin;

use p2p::BoxAddr;

use crate::kind::Needs;
use crate::report::Outcome;
use crate::testbed::Testbed;

pub mod addr;
pub mod ask;
pub mod batch;
pub mod close;
pub mod contents;
pub mod counters;
pub mod exchange;
pub mod garbage;
pub mod receive;
pub mod secure;
pub mod tell;
pub mod wire;

/// A law of a swarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Law {
    /// Its name: group and function, as in `tell::exactly_the_mtu_works`.
    pub name: &'static str,
    /// Its statement.
    pub sentence: &'static str,
    /// The capabilities that a swarm needs for this law.
    pub needs: Needs,
}

impl Law {
    /// Returns the law with this name.
    pub fn named(name: &str) -> Option<&'static Law> {
        LAWS.iter().find(|law| law.name == name)
    }

    /// Returns its group: the part of its name before `::`.
    pub fn group(&self) -> &'static str {
        self.name.split("::").next().unwrap_or(self.name)
    }
}

/// Calls a macro with the list of all laws, which is defined only here.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_law {
    ($($callback:ident)::+ ! ($($args:tt)*)) => {
        $($callback)::+! {
            ($($args)*)
            tell {
                Swarm every_length_up_to_the_mtu_arrives "a message of any length up to the MTU arrives";
                Swarm a_message_arrives_whole "a message arrives with its exact bytes";
                Swarm a_burst_arrives_as_far_as_the_medium_lets_it
                    "messages told in a burst arrive, except for the medium's losses";
                Swarm tells_of_many_tasks_all_arrive "tell may be called from many tasks concurrently";
                Swarm a_message_reaches_its_destination_alone "a message never arrives at another node";
                Swarm a_message_arrives_at_most_once "a message arrives at most once";
                Swarm a_cancelled_tell_leaves_whole_or_not_at_all
                    "a cancelled tell sends the whole message or nothing";
                Swarm short_room_is_no_fault "a packet without headroom arrives like any other";
                Swarm over_the_mtu_is_mtu_exceeded
                    "a payload over the MTU is Error::MtuExceeded with its size and the MTU";
                Swarm over_the_mtu_nothing_is_sent "no part of a payload over the MTU is sent";
                Swarm exactly_the_mtu_works "a payload of exactly the MTU arrives";
                Swarm an_empty_payload_is_a_message "an empty payload is a message";
                Swarm the_mtu_never_changes "mtu() is the same before and after traffic";
                Swarm src_can_be_told_to "the source of a message can be told";
                Swarm dst_is_a_local_address
                    "the destination of a message is one of the receiver's local addresses";
                Swarm an_error_means_it_did_not_leave "a failed tell sends nothing";
                Swarm a_tell_never_waits_for_the_reader "a tell does not wait for the receiver to read";
                Swarm a_stopped_reader_costs_bounded_memory
                    "at most as many messages wait for a stopped reader as the profile permits";
                Swarm a_stopped_reader_stalls_no_other
                    "a stopped reader delays neither other nodes nor its own tells";
                Swarm a_second_flood_keeps_no_more
                    "a second flood leaves no more messages queued for a stopped reader than the first";
                Swarm messages_arrive_again_after_a_flood
                    "messages arrive again as soon as a stopped reader has read its queue";
                Swarm telling_a_stopped_reader_takes_no_longer
                    "telling a stopped reader takes no longer than telling an active one";
                Swarm a_destination_that_is_gone_delays_no_other
                    "messages told concurrently with one to a closed node arrive without delay";
                Swarm a_full_sibling_stalls_nothing
                    "a swarm that is not read holds up none beside it on the same nodes";
                Swarm many_senders_cost_no_more_memory
                    "no more messages of many senders wait for a reader that stopped than the profile says";
            }
            receive {
                Swarm a_message_goes_to_one_caller "each message goes to exactly one of many callers";
                Swarm every_waiting_caller_is_woken
                    "as many waiting callers are woken as messages arrive";
                Swarm cancelling_loses_nothing "cancelling receive loses no message";
                Swarm a_cancelled_caller_passes_its_turn_on
                    "a message whose waiting caller is cancelled goes to the next one that waits";
                Swarm a_waiting_receive_may_move_to_another_task
                    "a receive that was polled in one task and waits in another is woken there";
                Swarm messages_that_wait_stay_as_they_were
                    "messages that wait for a reader keep their contents and sources, also where others are dropped";
            }
            batch {
                Swarm tell_batch_sends_what_tells_would "every message of a batch arrives with its exact bytes";
                Swarm a_refused_message_holds_up_none_behind_it
                    "messages behind a refused one in a batch are sent";
                Swarm tell_batch_says_what_was_refused
                    "the error of a batch reports how many were sent and refused, and why the first";
                Swarm tell_batch_empties_the_batch "a batch is empty after it was told";
                Swarm receive_batch_takes_what_receives_would
                    "receive_batch returns every told message";
                Swarm receive_batch_keeps_to_its_maximum "receive_batch returns no more than its maximum";
                Swarm receive_batch_appends
                    "receive_batch keeps the contents of its buffer and returns how many messages it added";
                Swarm receive_batch_of_none_returns_at_once "receive_batch with a maximum of 0 does not wait";
                Swarm cancelling_receive_batch_loses_nothing "cancelling receive_batch loses no message";
            }
            addr {
                Swarm parse_addr_is_the_inverse_of_display
                    "parse_addr parses the text of an address as the same address";
                Swarm a_parsed_address_can_be_told_to "an address parsed from text can be told";
                Swarm garbage_is_invalid_addr
                    "a text that is not an address is Error::InvalidAddr with the text and the position";
                Swarm junk_around_an_address_is_not_passed_over
                    "an address with junk before, behind or within it is not parsed as that address";
            }
            counters {
                Swarm sent_is_what_left "the counter of sent messages counts successful tells";
                Swarm delivered_is_what_was_received
                    "the counter of delivered messages counts received messages";
                Swarm every_drop_is_counted "a sent message that was not delivered is counted as dropped";
                Swarm they_balance_over_all_nodes
                    "over all nodes, what was sent or duplicated was delivered or dropped once all is read";
                Swarm they_never_fall "no counter falls, in a flood and when nodes close";
                Swarm what_waits_at_close_is_counted
                    "messages that wait at a node when it closes are counted as dropped";
            }
            contents {
                Swarm any_content_of_any_length_arrives_whole
                    "zeros, ones, text and noise of any length arrive unchanged";
                Swarm every_byte_arrives_whole "every byte value arrives unchanged, alone, repeated, first and last";
                Swarm what_looks_like_a_header_arrives_whole
                    "messages that begin like headers of layers arrive unchanged";
            }
            exchange {
                Swarm a_long_exchange_keeps_every_message
                    "in a long exchange of all lengths and contents nothing is lost, repeated, altered or misattributed";
                Swarm two_nodes_exchange_thousands
                    "in an exchange of thousands of short messages nothing is lost, repeated or altered";
                Swarm many_senders_are_told_apart
                    "messages of many senders arrive once each, whole, and with their own source";
                Swarm many_calls_at_once_lose_nothing
                    "with many tells and receives under way, some cancelled, nothing is lost, repeated or altered";
                Swarm ids_of_messages_may_wrap
                    "of more messages than 16 bits count none is lost or repeated";
            }
            ask {
                Ask an_ask_gets_its_response "an ask returns the exact response";
                Ask responses_are_never_mixed_up "each of many concurrent asks gets its own response";
                Ask the_handler_runs_at_most_once "a request is received at most once";
                Ask an_unanswered_ask_ends "an ask without an answer ends with an error";
                Ask a_dropped_request_is_an_error_at_once
                    "a dropped request is Error::Rejected at the asker, immediately";
                Ask a_rejection_carries_its_code "the asker gets the code of a rejection";
                Ask a_cancelled_ask_frees_its_slot
                    "cancelled asks, more than may be in flight, leave room for new ones";
                Ask a_request_over_the_mtu_is_refused
                    "a request over the MTU is Error::MtuExceeded and is not received";
                Ask exactly_the_mtu_works_both_ways "a request and a response of exactly the MTU work";
                Ask empty_works_both_ways "an empty request and an empty response work";
                Ask a_response_over_the_mtu_fails_at_both_ends
                    "a response over the MTU is Error::MtuExceeded at the responder and an error at the asker";
                Ask src_can_be_told_to "the source of a request can be told";
                Ask dst_is_a_local_address
                    "the destination of a request is one of the receiver's local addresses";
                Ask a_slow_handler_holds_up_no_other "asks are answered while another one waits";
                Ask a_stopped_reader_of_tells_stalls_no_ask
                    "asks are answered by a node that does not read its messages";
                Ask a_held_receive_stalls_no_ask
                    "asks are answered while a receive is held at either end, neither polled nor dropped";
                Ask cancelling_receive_ask_loses_nothing "cancelling receive_ask loses no request";
                Ask of_many_asks_each_gets_its_own_response
                    "each of hundreds of asks between three nodes runs once and gets its own response";
                Ask asks_of_every_length_are_answered
                    "requests and responses of every length work, on a lossless medium at the first attempt";
                Ask an_ask_without_a_response_frees_its_slot
                    "rejected and dropped requests, more than may be in flight, leave room for new asks";
                Ask every_code_of_a_rejection_arrives "the asker gets each of the 255 codes of rejections";
                Ask a_dropped_request_takes_no_longer_than_an_answer
                    "the asker gets the error of a dropped request about as fast as a response";
                Ask a_slow_handler_runs_once
                    "a handler that takes seconds runs once for each ask, and answers no other";
                Ask a_late_answer_reaches_no_other_ask
                    "a late response to a cancelled ask reaches no other ask";
                Ask a_server_that_goes_ends_the_asks_of_others
                    "asks of a node end when it is closed or dropped while it holds requests";
                Ask asks_are_answered_while_tells_flood "asks are answered while many messages are told";
                Ask a_handler_may_ask_back "a handler may ask the asker before it answers";
                Ask every_waiting_receive_ask_is_woken
                    "as many waiting callers of receive_ask are woken as there are requests";
                Ask a_held_ask_outlasts_many_others
                    "an ask that waits while thousands of others are answered gets its own response";
                Ask each_ask_has_its_own_deadline
                    "an ask that waits beside one that ends by its deadline goes on until its own";
                Ask asks_may_wait_together "as many asks as may be under way may wait as long as one may alone";
                Ask cancelling_receive_ask_beside_others_loses_nothing
                    "callers of receive_ask that are cancelled beside others lose no request";
            }
            secure {
                Secure src_is_who_it_says "the source of a message names the node that sent it";
                Secure nodes_have_keys_of_their_own "two nodes have different public keys";
                Secure lookup_gives_the_other_nodes_key
                    "a lookup returns the other node's public_key()";
                Secure a_wrong_id_reaches_no_node
                    "a message to a wrong identity at a node's place reaches no node";
                Secure a_wrong_id_has_no_key
                    "a lookup of a wrong identity at a node's place does not return that node's key";
                Secure a_wrong_id_reaches_no_node_beside_the_true_one
                    "a message to a wrong identity reaches no node, even if the true identity at that place is known";
                Secure a_wrong_id_makes_no_node_unreachable
                    "calls to wrong identities at a node's place do not prevent other calls from reaching that node";
                Secure a_flooded_node_proves_its_key
                    "a node with more unread messages than it holds proves its key to another";
                Secure an_id_that_differs_in_one_character_reaches_no_node
                    "a message to an identity that differs from a node's in one character reaches no node";
            }
            garbage {
                Swarm messages_arrive_again_after_garbage
                    "garbage packets from any source do not prevent later messages from arriving";
                Swarm garbage_is_counted "malformed packets are counted as dropped";
            }
            wire {
                Secure tells_cannot_be_read_on_the_wire "no part of a message's contents can be read on the wire";
                SecureAsk asks_cannot_be_read_on_the_wire
                    "no part of a request's or a response's contents can be read on the wire";
                Secure tampering_changes_no_message
                    "despite tampering, each arriving message was told, bit for bit, by the node that it names";
                SecureAsk tampering_changes_no_ask
                    "despite tampering, requests and responses arrive bit for bit as they were sent";
                Secure replay_repeats_no_message
                    "replayed packets, from any source and in any order, repeat no message";
                SecureAsk replay_repeats_no_ask
                    "replayed packets, from any source and in any order, repeat no request";
                Secure an_impostor_gets_no_message
                    "a node with another key at the address of a closed one gets none of its messages";
                SecureAsk an_impostor_gets_no_ask
                    "a node with another key at the address of a closed one gets and answers none of its asks";
                Secure an_impostor_has_no_say
                    "messages of a node with another key at the address of a closed one are not attributed to the closed one";
                Secure an_impostor_has_no_key
                    "a lookup of a closed node does not return the key of another at its address";
                Secure diverted_packets_bring_nothing
                    "packets that are diverted to another node deliver no message and no request to it";
                Secure no_length_can_be_read_on_the_wire
                    "no byte of a message of any length can be read on the wire, and no key stream is used twice";
                Secure the_same_message_never_looks_the_same
                    "the same message told twice yields different packets";
                Secure tampering_at_any_length_changes_no_message
                    "despite tampering with packets of messages of any length, no message arrives changed";
                Secure replay_repeats_no_message_however_late
                    "a packet replayed after tens of thousands of others repeats no message";
                Secure replay_after_a_restart_repeats_nothing
                    "packets replayed to a node that restarted with its key repeat nothing";
                Secure messages_arrive_again_after_tampering
                    "messages arrive again as soon as tampering ends";
                Secure messages_arrive_again_after_replay
                    "messages arrive again as soon as replay ends";
                Secure messages_arrive_again_after_diversion
                    "messages arrive again as soon as diversion ends";
            }
            close {
                Swarm close_is_idempotent "close may be called again, also concurrently";
                Swarm a_pending_receive_is_closed "close ends every pending receive with Error::Closed";
                Ask a_pending_receive_ask_is_closed "close ends every pending receive_ask with Error::Closed";
                Ask a_pending_ask_is_closed "close ends every pending ask with Error::Closed";
                Secure a_pending_lookup_is_closed "close ends every pending lookup with Error::Closed";
                Swarm later_tells_are_closed "tells after close fail with Error::Closed";
                Swarm later_receives_are_closed
                    "receives after close fail with Error::Closed, even if messages wait";
                Ask later_asks_are_closed "asks after close fail with Error::Closed";
                Ask later_receive_asks_are_closed
                    "receive_ask after close fails with Error::Closed, even if requests wait";
                Secure later_lookups_are_closed "lookups after close fail with Error::Closed";
                Swarm closing_closes_no_other_node "other nodes continue to work after one is closed";
                Swarm closing_frees_the_address
                    "the address of a closed node can be reused as soon as close has returned";
                Swarm dropping_frees_the_address "the address of a dropped node can be reused";
                Swarm closing_frees_an_address_in_use
                    "close frees the address even after cancelled calls and with held requests";
                Swarm dropping_frees_an_address_in_use
                    "dropping frees the address also after cancelled calls and where requests are held";
                Swarm dropping_after_a_tell_harms_no_message
                    "what was told right before a node is dropped arrives whole and once or not at all, and the address is freed";
                Swarm a_second_close_frees_the_address_as_well
                    "the address is free when a close has returned that was called beside another";
                Swarm a_close_that_is_given_up_frees_the_address
                    "the address is freed also where close was polled once and given up";
                Swarm a_node_made_again_is_reached_by_others
                    "a node created at the address of a closed one reaches its peers and is reached by them";
                Swarm close_takes_effect_at_its_first_poll
                    "a close that was polled once and dropped has closed the swarm";
                Swarm what_was_told_before_close_arrives
                    "messages that tell accepted before close arrive on a lossless medium";
                Ask what_was_answered_before_close_arrives
                    "a response that was accepted before close arrives on a lossless medium";
                Swarm a_closed_peer_is_no_closed_swarm
                    "calls to a closed peer do not fail with Error::Closed, and the node continues to work";
                Swarm close_may_be_called_by_many_tasks
                    "close completes for each of many calling tasks, even if other calls were cancelled";
                Swarm close_waits_for_no_call_that_is_held
                    "close does not wait for calls that are neither polled nor dropped, and they end with Error::Closed";
                Swarm closing_in_a_flood_ends_every_call
                    "every call of many telling and receiving tasks ends when either end is closed";
            }
        }
    };
}

/// Creates the list and the dispatch of the laws.
macro_rules! registry {
    (() $($group:ident { $($needs:ident $law:ident $sentence:literal;)+ })+) => {
        /// Every law, in the order of reports.
        pub const LAWS: &[Law] = &[$($(Law {
            name: concat!(stringify!($group), "::", stringify!($law)),
            sentence: $sentence,
            needs: Needs::$needs,
        }),+),+];

        /// Returns the law with this name as a task. Without a generic address type, it is compiled in this
        /// crate only.
        pub(crate) fn start(
            name: &'static str,
            testbed: Testbed<BoxAddr>,
        ) -> Pin<Box<dyn Future<Output = Outcome> + Send>> {
            match name {
                $($(concat!(stringify!($group), "::", stringify!($law)) => {
                    Box::pin(async move { $group::$law(&testbed).await })
                })+)+
                _ => Box::pin(async move {
                    Err(crate::report::Unmet::Broken(format!("there is no law {name:?}")))
                }),
            }
        }
    };
}

crate::for_each_law!(registry!());
