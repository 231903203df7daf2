//! The examples of what happens when there is too much to do, and at the end.

use std::net::TcpStream;

use super::example::{head, until, with, with_env};

#[test]
fn shedding_refuses_whom_the_queue_has_no_place_for() {
    with("shedding", &[], |example| {
        let working = [(); 2].map(|()| example.begin("/queue?seconds=600"));
        example.says("/stats", "busy 2, queued 0");
        let mut waiting = example.begin("/queue");
        example.says("/stats", "busy 2, queued 1");

        let reply = example.ask("GET", "/queue", &[], "");
        assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")));
        // Those who leave are noticed, and who waits has a worker then.
        drop(working);
        assert_eq!(waiting.reply("GET").expect("a response").text(), "found\n");
        example.says("/stats", "busy 0, queued 0, told 2");
    });
}

#[test]
fn shedding_refuses_who_has_waited_for_too_long() {
    with("shedding", &["200"], |example| {
        let _working = [(); 2].map(|()| example.begin("/queue?seconds=600"));
        example.says("/stats", "busy 2");
        let reply = example.ask("GET", "/patience", &[], "");
        assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")));
        example.says("/stats", "busy 2, queued 0, told 0");
    });
}

#[test]
fn shedding_refuses_who_is_one_too_many() {
    with("shedding", &[], |example| {
        let working = example.begin("/shed?seconds=600");
        example.says("/stats", "busy 1");
        let reply = example.ask("GET", "/shed", &[], "");
        assert_eq!((reply.status, reply.text()), (503, "service overloaded\n"));
        // It has a free worker, and others may take it.
        assert_eq!(example.ask("GET", "/queue", &[], "").text(), "found\n");

        drop(working);
        example.says("/stats", "busy 0, queued 0, told 1");
        assert_eq!(example.ask("GET", "/shed", &[], "").text(), "found\n");
    });
}

#[test]
fn shedding_tells_what_timed_out() {
    with("shedding", &["200"], |example| {
        assert_eq!(example.ask("GET", "/timeout?seconds=600", &[], "").status, 504);
        example.says("/stats", "busy 0, queued 0, told 1");
        // Its worker is free.
        assert_eq!(example.ask("GET", "/queue", &[], "").text(), "found\n");
    });
}

#[test]
fn shared_pool_keeps_slow_work_from_the_rest() {
    with("shared_pool", &[], |example| {
        let _reports = [(); 2].map(|()| example.begin("/reports?seconds=600"));
        example.says("/stats", "reports: 2 of 2 busy, 0 queued");
        let _waiting = example.begin("/reports");
        example.says("/stats", "reports: 2 of 2 busy, 1 queued");
        assert_eq!(example.ask("GET", "/reports", &[], "").status, 503);
        assert_eq!(example.ask("GET", "/shop", &[], "").text(), "the shop\n");
        assert_eq!(example.ask("GET", "/blog", &[], "").text(), "the blog\n");
    });
}

#[test]
fn shared_pool_bounds_all_who_share_it() {
    with("shared_pool", &[], |example| {
        let shop = example.begin("/shop?seconds=600");
        let _blog = example.begin("/blog?seconds=600");
        example.says("/stats", "database: 2 of 2 busy, 0 queued");
        let mut waiting = example.begin("/blog");
        example.says("/stats", "database: 2 of 2 busy, 1 queued");
        assert_eq!(example.ask("GET", "/reports", &[], "").text(), "the report\n");
        drop(shop);
        assert_eq!(waiting.reply("GET").expect("a response").text(), "the blog\n");
    });
}

/// The upload that holds a worker until its sender goes on.
fn upload() -> String {
    head("POST", "/upload", &["Transfer-Encoding: chunked"]) + "\r\n5\r\nfirst\r\n"
}

#[test]
fn shutdown_answers_what_runs_and_what_waits() {
    with_env("shutdown", &[("WORKERS", "1"), ("GRACE", "600000")], |example| {
        let mut idle = example.connect();
        idle.ask("GET", "/stats", &[], "");
        let mut running = example.connect();
        running.send(upload());
        example.says("/stats", "busy: 1,");
        let mut waiting = example.connect();
        waiting.send(head("POST", "/upload", &["Content-Length: 7"]) + "\r\nwaiting");
        example.says("/stats", "queued: 1,");

        example.terminate();
        until("nobody listens", || TcpStream::connect(example.addr).err());
        assert!(idle.reply("GET").is_err(), "an idle connection is closed");

        running.send("6\r\nsecond\r\n0\r\n\r\n");
        assert_eq!(running.reply("POST").expect("a response").text(), "11 bytes\n");
        assert_eq!(waiting.reply("POST").expect("a response").text(), "7 bytes\n");
        assert_eq!(example.wait().code(), Some(0));
        assert_eq!(example.log(), "kept\nkept\nall were answered\n");
    });
}

#[test]
fn shutdown_tells_what_takes_too_long() {
    with_env("shutdown", &[("WORKERS", "1"), ("GRACE", "100")], |example| {
        let mut running = example.connect();
        running.send(upload());
        example.says("/stats", "busy: 1,");
        example.terminate();
        assert_eq!(example.wait().code(), Some(1));
        assert!(running.reply("POST").is_err());
        assert_eq!(example.log(), "cleaned up\nsome were cut off\n");
    });
}
