//! Efforts and waivers.

use p2p_swarmtest::{Effort, Profile};

#[test]
fn effort_scales_amounts_and_never_to_nothing() {
    let of = |effort: Effort, normal| effort.amount(normal);
    assert_eq!((of(Effort::Quick, 1000), of(Effort::Quick, 4)), (100, 1));
    assert_eq!((of(Effort::Normal, 7), of(Effort::Strict, 7)), (7, 70));
    assert_eq!("strict".parse(), Ok(Effort::Strict));
    assert!("lazy".parse::<Effort>().is_err());
}

#[test]
#[should_panic(expected = "no law")]
fn a_waiver_of_nothing_is_refused() {
    let _ = Profile::default().waive("tell::no_such_law", "because");
}
