//! The program's three parts, for a short time. Each waits for idle threads to end, which takes ten seconds.

use std::process::Command;

fn run(arguments: &[&str]) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_tower-wsgi-soak")).args(arguments).output().expect("a program");
    let [stdout, stderr] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(output.status.success(), "{}\n{stdout}\n{stderr}", output.status);
}

#[test]
fn faults_of_all_kinds_leave_the_server_as_it_was() {
    run(&["soak", "--seconds", "5", "--rounds", "1"]);
}

#[test]
fn no_request_is_lost_at_an_orderly_end_under_load() {
    run(&["shutdown", "--rounds", "3"]);
}

#[test]
fn a_thousand_connections_are_served_beside_stalled_ones() {
    run(&["connections", "--number", "1000"]);
}
