//! What the fuzzer has found interesting, and what it has found broken, on every toolchain: no nightly, no libFuzzer.

use std::path::Path;

use tower_wsgi_fuzz::{Target, boundary, cgi_request, cgi_response, check_all, crossing, input, output};

/// Checks a target's files.
fn replay(name: &str, check: Target) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let corpus = check_all(&root.join("corpus").join(name), check);
    let regressions = check_all(&root.join("regressions").join(name), check);
    println!("{name}: {corpus} files of the corpus, {regressions} regressions");
    assert!(corpus > 0, "{name} has a corpus");
}

#[test]
fn c1_c2_c3_requests_cross_the_boundary_unchanged() {
    replay("boundary", boundary::check);
}

#[test]
fn c3_a_cgi_request_is_what_its_variables_say() {
    replay("cgi_request", cgi_request::check);
}

#[test]
fn a6_a7_c3_a_cgi_response_is_one_that_a_host_can_parse() {
    replay("cgi_response", cgi_response::check);
}

#[test]
fn a6_a8_a9_a_crossing_ends_right_on_any_schedule() {
    replay("crossing", crossing::check);
}

#[test]
fn a2_an_input_reads_like_its_model() {
    replay("input", input::check);
}

#[test]
fn a6_a7_a9_an_output_is_complete_or_fails() {
    replay("output", output::check);
}
