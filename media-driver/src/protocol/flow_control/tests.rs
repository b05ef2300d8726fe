use proptest::prelude::{Just, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::strategy::Strategy as _;

use super::*;
use crate::DriverSettings;

const S: i64 = 1_000_000_000;
const TIMEOUT: i64 = 5 * S;
const WINDOW: i64 = 1000;

fn at(nanos: i64) -> NanoTime {
    NanoTime(nanos)
}

fn facts(receiver_id: i64, position: i64) -> StatusFacts {
    StatusFacts {
        receiver_id,
        position,
        window: WINDOW,
        group_tag: None,
        is_eos: false,
    }
}

fn min(min_size: i32) -> FlowControl {
    FlowControl::new(
        Strategy::Min(Box::new(MinFlowControl::new(None, min_size, TIMEOUT))),
        4,
    )
}

fn tagged(tag: i64, min_size: i32) -> FlowControl {
    FlowControl::new(
        Strategy::Min(Box::new(MinFlowControl::new(Some(tag), min_size, TIMEOUT))),
        4,
    )
}

fn context() -> DriverContext {
    DriverSettings::defaults().conclude().unwrap()
}

#[test]
fn unicast_and_max_follow_the_furthest_grant_and_never_go_back() {
    for strategy in [Strategy::Unicast, Strategy::Max] {
        let mut flow = FlowControl::new(strategy, 16);
        assert!(flow.has_required_receivers());
        let limit = flow.on_status_message(at(0), &facts(1, 0), 0);
        assert_eq!(limit, 1000);
        assert_eq!(flow.on_status_message(at(0), &facts(2, 500), limit), 1500);
        assert_eq!(flow.on_status_message(at(0), &facts(1, 100), 1500), 1500);
        assert_eq!(flow.on_idle(at(100 * S), 1500), 1500);
        assert_eq!(flow.receivers(), None);
        assert_eq!(flow.next_deadline(), None);
    }
}

#[test]
fn min_follows_the_slowest() {
    let mut flow = min(0);
    let mut limit = flow.on_status_message(at(0), &facts(1, 0), 0);
    assert_eq!(limit, 1000);
    limit = flow.on_status_message(at(0), &facts(2, 400), limit);
    assert_eq!(limit, 1000, "the first receiver is still at 0");
    limit = flow.on_status_message(at(0), &facts(1, 300), limit);
    assert_eq!(limit, 1300);
    limit = flow.on_status_message(at(0), &facts(1, 900), limit);
    assert_eq!(limit, 1400, "now the second one is the slowest");
    assert_eq!(flow.receivers(), Some(2));
}

#[test]
fn a_status_message_never_lowers_the_limit_but_an_idle_pass_does() {
    let mut flow = min(0);
    let limit = flow.on_status_message(at(0), &facts(1, 1000), 0);
    assert_eq!(limit, 2000);
    let back = StatusFacts {
        window: 200,
        ..facts(1, 1000)
    };
    assert_eq!(flow.on_status_message(at(0), &back, limit), 2000);
    assert_eq!(flow.on_idle(at(0), 2000), 1200);
}

#[test]
fn a_silent_receiver_is_forgotten_after_its_timeout() {
    let mut flow = min(0);
    flow.on_status_message(at(0), &facts(1, 0), 0);
    flow.on_status_message(at(S), &facts(2, 500), 1000);
    assert_eq!(flow.next_deadline(), Some(at(TIMEOUT + 1)));
    assert_eq!(flow.on_idle(at(TIMEOUT), 1000), 1000);
    assert_eq!(flow.receivers(), Some(2), "at the timeout it is still there");
    assert_eq!(flow.on_idle(at(TIMEOUT + 1), 1000), 1500);
    assert_eq!(flow.receivers(), Some(1));
    assert_eq!(
        flow.on_idle(at(3 * TIMEOUT), 1500),
        1500,
        "nobody: the limit stays"
    );
    assert_eq!(flow.receivers(), Some(0));
}

#[test]
fn a_receiver_that_leaves_stops_counting_in_the_next_idle_pass() {
    let mut flow = min(0);
    flow.on_status_message(at(0), &facts(1, 0), 0);
    flow.on_status_message(at(0), &facts(2, 500), 1000);
    let leave = StatusFacts {
        is_eos: true,
        ..facts(1, 0)
    };
    assert_eq!(flow.on_status_message(at(0), &leave, 1000), 1000);
    assert_eq!(flow.on_idle(at(0), 1000), 1500);
    let stranger = StatusFacts {
        is_eos: true,
        ..facts(3, 0)
    };
    flow.on_status_message(at(0), &stranger, 1500);
    assert_eq!(flow.receivers(), Some(1), "who leaves does not join");
    flow.on_error(2);
    flow.on_idle(at(0), 1500);
    assert_eq!(flow.receivers(), Some(0), "a refusal counts as leaving");
}

#[test]
fn a_receiver_far_behind_is_not_admitted() {
    let mut flow = min(0);
    let mut limit = flow.on_status_message(at(0), &facts(1, 10_000), 0);
    assert_eq!(limit, 11_000);
    limit = flow.on_status_message(at(0), &facts(2, 8_999), limit);
    assert_eq!((limit, flow.receivers()), (11_000, Some(1)));
    flow.on_status_message(at(0), &facts(3, 9_000), limit);
    assert_eq!(
        flow.receivers(),
        Some(2),
        "one window behind the slowest edge is near enough"
    );
}

#[test]
fn the_limit_stays_until_the_group_is_complete() {
    let mut flow = min(2);
    assert!(!flow.has_required_receivers());
    assert_eq!(flow.on_status_message(at(0), &facts(1, 0), 0), 0);
    assert_eq!(flow.on_idle(at(0), 0), 0);
    assert!(!flow.has_required_receivers());
    assert_eq!(flow.on_status_message(at(0), &facts(2, 0), 0), 1000);
    assert!(flow.has_required_receivers());
    assert_eq!(flow.on_idle(at(TIMEOUT + 1), 1000), 1000);
    assert!(!flow.has_required_receivers());
}

#[test]
fn tagged_flow_control_follows_its_group_only() {
    let mut flow = tagged(77, 1);
    let member = |id, position| StatusFacts {
        group_tag: Some(77),
        ..facts(id, position)
    };
    assert_eq!(flow.on_status_message(at(0), &facts(1, 0), 0), 0, "no member yet");
    assert!(!flow.has_required_receivers());
    assert_eq!(flow.on_status_message(at(0), &member(2, 500), 0), 1500);
    assert!(flow.has_required_receivers());
    let other = StatusFacts {
        group_tag: Some(78),
        ..facts(3, 0)
    };
    assert_eq!(flow.on_status_message(at(0), &other, 1500), 1500);
    assert_eq!(
        flow.on_idle(at(0), 1500),
        1500,
        "slow strangers do not slow the stream"
    );
    assert_eq!(flow.receivers(), Some(1));
}

#[test]
fn without_members_and_without_a_minimum_untagged_receivers_move_the_limit() {
    let mut flow = tagged(77, 0);
    assert!(flow.has_required_receivers());
    let limit = flow.on_status_message(at(0), &facts(1, 200), 0);
    assert_eq!(limit, 1200);
    let member = StatusFacts {
        group_tag: Some(77),
        ..facts(2, 300)
    };
    assert_eq!(flow.on_status_message(at(0), &member, limit), 1300);
    assert_eq!(flow.on_status_message(at(0), &facts(1, 5000), 1300), 1300);
}

#[test]
fn an_elicited_setup_holds_the_limit_until_somebody_joins() {
    let mut flow = min(0);
    let mut limit = flow.on_status_message(at(0), &facts(1, 0), 0);
    flow.on_setup(at(0), limit);
    limit = flow.on_status_message(at(0), &facts(1, 100), limit);
    assert_eq!(limit, 1100, "a SETUP that nobody asked for holds nothing");
    flow.on_trigger_send_setup(None);
    flow.on_setup(at(0), limit);
    limit = flow.on_status_message(at(0), &facts(1, 600), limit);
    assert_eq!(limit, 1100, "held");
    assert_eq!(flow.on_idle(at(0), limit), 1100);
    limit = flow.on_status_message(at(1), &facts(2, 600), limit);
    assert_eq!(
        limit, 1100,
        "the joiner is in; its message still counts under the hold"
    );
    assert_eq!(flow.on_idle(at(1), limit), 1600);
}

#[test]
fn a_hold_ends_with_the_receiver_timeout() {
    let mut flow = min(0);
    let limit = flow.on_status_message(at(0), &facts(1, 0), 0);
    flow.on_trigger_send_setup(None);
    flow.on_setup(at(0), limit);
    flow.on_status_message(at(TIMEOUT), &facts(1, 500), limit);
    assert_eq!(flow.on_idle(at(TIMEOUT), limit), 1000);
    assert_eq!(flow.on_idle(at(TIMEOUT + 1), limit), 1500);
}

#[test]
fn only_a_request_of_the_group_arms_the_hold_of_tagged_flow_control() {
    let mut flow = tagged(77, 0);
    let member = |position| StatusFacts {
        group_tag: Some(77),
        ..facts(1, position)
    };
    let limit = flow.on_status_message(at(0), &member(0), 0);
    flow.on_trigger_send_setup(None);
    flow.on_setup(at(0), limit);
    assert_eq!(flow.on_status_message(at(0), &member(100), limit), 1100);
    flow.on_trigger_send_setup(Some(77));
    flow.on_setup(at(0), 1100);
    assert_eq!(flow.on_status_message(at(0), &member(500), 1100), 1100);
}

#[test]
fn the_channel_chooses_and_the_settings_fill_in() {
    let context = context();
    let parse = |text: &str| {
        let uri =
            fulmar::uri::ChannelUri::parse(&format!("aeron:udp?endpoint=224.0.1.1:4050|fc={text}")).unwrap();
        uri.params().flow_control().unwrap()
    };
    let of = |text: &str| FlowControl::group(parse(text).as_ref(), &context).unwrap();
    assert!(matches!(of("max").strategy, Strategy::Max));
    assert!(!of("min,g:/3").has_required_receivers());
    assert!(of("min").has_required_receivers());
    assert!(!of("tagged,g:5/1").has_required_receivers());
    let default = FlowControl::group(None, &context).unwrap();
    assert!(matches!(default.strategy, Strategy::Max));
    let term = 16 * 1024 * 1024;
    let unicast = FlowControl::unicast(&context);
    assert_eq!(unicast.max_retransmit_length(131_072, term), 16 * 131_072);
    assert_eq!(default.max_retransmit_length(131_072, term), 4 * 131_072);
    assert_eq!(
        of("max,rrwm:8").max_retransmit_length(131_072, 65_536),
        8 * 32_768
    );
}

#[test]
fn the_default_strategy_has_the_names_of_either_driver() {
    for name in [
        "min",
        "aeron_min_flow_control_strategy_supplier",
        "io.aeron.driver.MinMulticastFlowControlSupplier",
    ] {
        assert_eq!(
            default_strategy(name).unwrap(),
            FlowControlStrategy::Min,
            "{name}"
        );
    }
    for name in [
        "max",
        "aeron_max_multicast_flow_control_strategy_supplier",
        "io.aeron.driver.MaxMulticastFlowControlSupplier",
    ] {
        assert_eq!(
            default_strategy(name).unwrap(),
            FlowControlStrategy::Max,
            "{name}"
        );
    }
    assert_eq!(default_strategy("tagged").unwrap(), FlowControlStrategy::Tagged);
    assert_eq!(
        default_strategy("fast").unwrap_err().code,
        ErrorCode::GenericError
    );
}

#[derive(Clone, Debug)]
enum Step {
    Status {
        receiver: i64,
        position: i64,
        window: i64,
        eos: bool,
    },
    Idle,
    Trigger,
    Setup,
    Refuse {
        receiver: i64,
    },
    Wait {
        nanos: i64,
    },
}

fn step() -> impl proptest::strategy::Strategy<Value = Step> {
    prop_oneof![
        6 => (0..5i64, 0..50_000i64, 0..8_192i64, prop::bool::weighted(0.1)).prop_map(
            |(receiver, position, window, eos)| Step::Status { receiver, position, window, eos }
        ),
        2 => Just(Step::Idle),
        1 => Just(Step::Trigger),
        1 => Just(Step::Setup),
        1 => (0..5i64).prop_map(|receiver| Step::Refuse { receiver }),
        2 => (0..TIMEOUT).prop_map(|nanos| Step::Wait { nanos }),
    ]
}

proptest! {
    /// Whatever receivers say: the limit never passes what some receiver has granted, nor, while a group is followed,
    /// what every followed receiver granted last.
    #[test]
    fn flow_control_grants_no_more_than_the_receivers_did(
        steps in prop::collection::vec(step(), 1..200),
        kind in 0..4usize,
    ) {
        let mut flow = match kind {
            0 => FlowControl::new(Strategy::Unicast, 16),
            1 => FlowControl::new(Strategy::Max, 4),
            2 => min(2),
            _ => min(0),
        };
        let mut now = 0;
        let mut limit = 0;
        let mut furthest_grant = 0;
        for step in steps {
            let before = limit;
            match step {
                Step::Status { receiver, position, window, eos } => {
                    let facts = StatusFacts { receiver_id: receiver, position, window, group_tag: None, is_eos: eos };
                    furthest_grant = furthest_grant.max(facts.edge());
                    limit = flow.on_status_message(at(now), &facts, limit);
                    prop_assert!(limit >= before, "a status message never takes back");
                }
                Step::Idle => {
                    limit = flow.on_idle(at(now), limit);
                    if kind < 2 {
                        prop_assert_eq!(limit, before);
                    }
                    if let (Strategy::Min(min), true) = (&flow.strategy, kind >= 2)
                        && min.count() > 0 && min.has_required_receivers()
                    {
                        // After an idle pass the limit is what the slowest granted, or less while held.
                        prop_assert!(limit <= furthest_grant);
                    }
                }
                Step::Trigger => flow.on_trigger_send_setup(None),
                Step::Setup => flow.on_setup(at(now), limit),
                Step::Refuse { receiver } => flow.on_error(receiver),
                Step::Wait { nanos } => now += nanos,
            }
            prop_assert!(limit <= furthest_grant, "{limit} was granted by nobody");
            if kind == 2 && !flow.has_required_receivers() {
                prop_assert!(limit <= before, "an incomplete group grants nothing");
            }
        }
    }

    /// A model that keeps every receiver's last edge in a map agrees with the table, as long as nobody expires.
    #[test]
    fn min_agrees_with_a_model(
        messages in prop::collection::vec((0..4i64, 0..4000i64), 1..100),
    ) {
        let mut flow = min(0);
        let mut edges = std::collections::BTreeMap::new();
        let mut limit = 0;
        for (receiver, position) in messages {
            let edge = position + WINDOW;
            let slowest = edges.values().copied().min();
            let is_near = slowest.is_none_or(|slowest: i64| edge >= slowest - WINDOW);
            if edges.contains_key(&receiver) || is_near {
                edges.insert(receiver, edge);
            }
            limit = flow.on_status_message(at(0), &facts(receiver, position), limit);
            let slowest = edges.values().copied().min().unwrap();
            prop_assert!(limit >= slowest);
            prop_assert_eq!(flow.receivers(), Some(edges.len()));
            limit = flow.on_idle(at(0), limit);
            prop_assert_eq!(limit, slowest);
        }
    }
}

#[test]
fn a_hold_that_is_over_is_no_deadline_any_more() {
    let mut flow = min(0);
    let limit = flow.on_status_message(at(0), &facts(1, 0), 0);
    flow.on_trigger_send_setup(None);
    flow.on_setup(at(0), limit);
    flow.on_status_message(at(4 * S), &facts(1, 100), limit);
    assert_eq!(flow.next_deadline(), Some(at(TIMEOUT + 1)));
    flow.on_idle(at(TIMEOUT + 1), limit);
    assert_eq!(
        flow.next_deadline(),
        Some(at(4 * S + TIMEOUT + 1)),
        "only the receiver's own"
    );
}
