//! Forks of processes that log, with a logdag without features: run `cargo test -p jlog-fork`
//! alone. When the whole workspace is tested, logdag has all features.

use testkit::forks;

#[test]
fn children_are_usable_and_double_nothing_and_the_parent_does_not_notice() {
    forks::children_are_usable_and_double_nothing(None);
}

#[test]
fn a_child_of_a_process_whose_queue_is_full_and_stuck_goes_on() {
    forks::a_child_of_a_stuck_process_goes_on(None);
}
