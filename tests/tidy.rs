//! The house rules, as tests over sources and pages. Each rule is a function of a tree of files,
//! and other tests show that it finds a deliberate breach.

#[path = "tidy/breaches.rs"]
mod breaches;
#[path = "tidy/documents.rs"]
mod documents;
#[path = "tidy/facts.rs"]
mod facts;
#[path = "tidy/graph.rs"]
mod graph;
#[path = "tidy/layers.rs"]
mod layers;
#[path = "tidy/names.rs"]
mod names;
#[path = "tidy/prose.rs"]
mod prose;
#[path = "tidy/rooms.rs"]
mod rooms;
#[path = "tidy/sizes.rs"]
mod sizes;
#[path = "tidy/tree.rs"]
mod tree;
#[path = "tidy/words.rs"]
mod words;

use std::process::Command;

use graph::Graph;
use harness::built;
use tree::Tree;

#[track_caller]
fn assert_none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}: {} findings\n  {}", found.len(), found.join("\n  "));
}

#[test]
fn modules_reach_only_the_api_and_the_api_nothing_of_ours() {
    assert_none("across crates", &layers::modules_know_only_the_api(Tree::repository(), Graph::repository()));
}

#[test]
fn nothing_reaches_start_but_the_program() {
    assert_none("start composes, it is no library", &layers::nothing_reaches_start(Graph::repository()));
}

#[test]
fn the_supervisor_reaches_no_module_and_no_shared_lock() {
    assert_none("from supervise", &layers::supervisor_is_apart(Graph::repository()));
}

#[test]
fn the_log_reaches_only_sys_and_error() {
    assert_none("from log", &layers::log_is_lowest(Graph::repository()));
}

#[test]
fn pure_files_reach_no_clock_no_environment_and_no_system_call() {
    assert_none("from a pure file", &layers::pure_files(Tree::repository(), Graph::repository()));
}

#[test]
fn parsers_checks_restart_policy_and_timer_queue_are_marked_as_pure() {
    assert_none("pure, but not marked", &layers::pure_files_are_marked(Tree::repository()));
}

#[test]
fn no_source_is_included_as_text() {
    assert_none("cannot be followed", &layers::nothing_is_included(Graph::repository()));
}

#[test]
fn unsafe_and_libc_are_in_few_files() {
    assert_none("outside the rooms", &rooms::unsafe_is_in_its_rooms(Tree::repository()));
}

#[test]
fn one_function_forks() {
    assert_none("ways to make a process", &rooms::one_function_forks(Tree::repository(), Graph::repository()));
}

#[test]
fn tests_name_no_type_of_the_host() {
    assert_none("a black box has no inside", &layers::tests_are_black_boxes(Tree::repository()));
}

#[test]
fn type_names_are_used_once_in_a_crate() {
    assert_none("types of the same name", &names::type_names_are_used_once(Tree::repository(), Graph::repository()));
}

#[test]
fn no_function_for_others_takes_a_bool() {
    assert_none("bool parameters", &names::no_bool_parameters(Tree::repository(), Graph::repository()));
}

#[test]
fn no_empty_words() {
    assert_none("names that say nothing", &names::no_empty_words(Tree::repository()));
}

#[test]
fn no_file_is_too_long() {
    assert_none("too long", &sizes::no_file_is_too_long(Tree::repository()));
}

#[test]
fn the_host_stays_small() {
    assert_none("too much", &sizes::the_host_stays_small(Tree::repository()));
}

#[test]
fn every_file_of_the_host_says_what_it_is_where_it_runs_and_what_it_never_does() {
    assert_none("header", &sizes::headers_have_three_parts(Tree::repository()));
}

#[test]
fn comments_and_pages_use_plain_words() {
    assert_none("phrases", &words::plain_words(Tree::repository()));
}

#[test]
fn comments_and_pages_have_short_lines() {
    assert_none("wider than 100 columns", &words::short_lines(Tree::repository()));
}

#[test]
fn no_test_sleeps() {
    assert_none("a test waits for an event", &documents::no_test_sleeps(Tree::repository()));
}

#[test]
fn readmes_list_the_parameters() {
    let program = built::host();
    for module in Tree::repository().folders("modules") {
        let library = built::shipped_module(&module);
        let output = Command::new(&program).arg("inspect").arg("--json").arg(&library).output().expect("the host's program");
        let inspected = serde_json::from_slice(&output.stdout).expect("JSON");
        let page = format!("modules/{module}/README.md");
        let readme = Tree::repository().text(&page).expect("a README");
        assert_none(&format!("not in {page}"), &documents::unlisted_parameters(readme, &inspected));
    }
}

#[test]
fn each_promise_has_its_test() {
    assert_none("promises", &documents::each_promise_has_its_test(Tree::repository()));
}

#[test]
fn what_is_named_exists() {
    assert_none("named and not there", &documents::what_is_named_exists(Tree::repository()));
}
