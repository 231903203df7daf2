//! The examples with an async host.

use super::example::{Example, head, with};

#[test]
fn mixed_stack_compresses_and_times_what_the_router_says() {
    with("mixed_stack", &[], |example| {
        let plain = example.ask("GET", "/report", &[], "");
        assert_eq!((plain.status, plain.header("content-encoding")), (200, None));
        assert!(plain.text().starts_with("All is well"));

        let packed = example.ask("GET", "/report", &["Accept-Encoding: gzip"], "");
        assert_eq!(packed.header("content-encoding"), Some("gzip"));
        assert!(packed.body.starts_with(&[0x1f, 0x8b]));
        assert!(packed.body.len() < plain.body.len() / 10);
        for reply in [plain, packed] {
            assert!(reply.header("server-timing").is_some_and(|value| value.starts_with("app;dur=")));
        }
    });
}

#[test]
fn mixed_stack_shows_the_router_what_sync_middleware_set() {
    with("mixed_stack", &[], |example| {
        let mut client = example.connect();
        let mut user = |headers: &[&str]| client.ask("GET", "/whoami", headers, "").text().to_owned();
        assert_eq!(user(&["Authorization: Bearer open-sesame"]), "ali at 127.0.0.1\n");
        assert_eq!(user(&["Authorization: Bearer open-barley"]), "nobody at 127.0.0.1\n");
        assert_eq!(user(&["Remote-User: ali", "REMOTE_USER: ali"]), "nobody at 127.0.0.1\n");
    });
}

#[test]
fn mixed_router_answers_the_same_in_both_hosts() {
    for arguments in [&[] as &[&str], &["sync"]] {
        with("mixed_router", arguments, |example| {
            let mut client = example.connect();
            let mut text = |path: &str| {
                let reply = client.ask("GET", path, &[], "");
                (reply.status, reply.text().to_owned())
            };
            assert_eq!(text("/wsgi/hello"), (200, "sync: /hello below /wsgi\n".to_owned()));
            assert_eq!(text("/asgi/hello"), (200, "async: /hello below /asgi\n".to_owned()));
            for path in ["/", "/elsewhere", "/wsgiary", "/asgiary"] {
                assert_eq!(text(path), (404, String::new()), "{path}");
            }
        });
    }
}

#[test]
fn timing_is_told_in_each_order() {
    with("timing", &[], |example| {
        for (path, inner, outer) in [
            ("/async-around-sync", "sync\n", "async;dur="),
            ("/sync-around-sync", "sync\n", "sync;dur="),
            ("/sync-around-async", "async\n", "sync;dur="),
        ] {
            let reply = example.ask("GET", path, &[], "");
            assert_eq!(reply.text(), inner);
            let timing = reply.header("server-timing").expect("a header");
            let took = timing.strip_prefix(outer).expect("who took it");
            // What is inside sleeps for 20 ms.
            assert!(took.parse::<u32>().expect("a number") >= 20, "{timing}");
        }
    });
}

fn json_api_keeps_its_word(example: &Example) {
    let mut client = example.connect();
    let reply = client.ask("GET", "/health", &[], "");
    assert_eq!((reply.status, reply.text()), (200, r#"{"status":"ok"}"#));
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let reply = client.ask("HEAD", "/health", &[], "");
    assert_eq!((reply.status, reply.header("content-length")), (200, Some("15")));

    let reply = client.ask("POST", "/echo", &[], r#"{"message": "hé", "times": 2}"#);
    assert_eq!((reply.status, reply.text()), (200, r#"{"echo":["hé","hé"]}"#));
    let reply = client.ask("POST", "/echo", &[], r#"{"message""#);
    assert_eq!(reply.status, 400);
    assert!(reply.text().contains("EOF while parsing"), "{}", reply.text());

    assert_eq!(client.ask("GET", "/elsewhere", &[], "").status, 404);
    let reply = client.ask("DELETE", "/echo", &[], "");
    assert_eq!((reply.status, reply.header("allow")), (405, Some("POST")));

    let long = format!(r#"{{"message": "{}"}}"#, "a".repeat(100_000));
    assert_eq!(example.ask("POST", "/echo", &[], &long).status, 413);
    // Nobody knows beforehand how long this is: the handler's read finds out.
    let mut client = example.connect();
    client.send(head("POST", "/echo", &["Transfer-Encoding: chunked"]) + "\r\n");
    client.send(format!("{:x}\r\n{long}\r\n0\r\n\r\n", long.len()));
    assert_eq!(client.reply("POST").expect("a response").status, 413);
}

#[test]
fn json_api_answers_in_axum() {
    with("json_api", &[], json_api_keeps_its_word);
}

#[test]
fn json_api_answers_in_hyper() {
    with("json_api", &["hyper"], json_api_keeps_its_word);
}

#[test]
fn metrics_count_what_clients_saw_and_what_the_pool_refused() {
    with("metrics", &[], |example| {
        let statuses: Vec<u16> = std::thread::scope(|scope| {
            let ask = || example.ask("GET", "/report", &[], "").status;
            let calls: Vec<_> = (0..24).map(|_| scope.spawn(ask)).collect();
            calls.into_iter().map(|call| call.join().expect("no panic")).collect()
        });
        let of = |status: u16| statuses.iter().filter(|seen| **seen == status).count();
        // Four workers and two that wait: whether others came while these were there, who knows. None is lost in the books.
        assert!(of(200) >= 6 && of(200) + of(503) == 24, "{statuses:?}");
        let page = example.ask("GET", "/metrics", &[], "").text().to_owned();
        let value = |name: &str| -> f64 {
            let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("{name} in {page}")).parse().expect("a number")
        };
        assert_eq!(value("http_responses_total{status=\"2xx\"}"), of(200) as f64);
        assert_eq!(value("http_responses_total{status=\"5xx\"}"), of(503) as f64);
        assert_eq!(value("pool_requests_rejected_total"), of(503) as f64);
        assert_eq!((value("pool_workers"), value("pool_requests_queued")), (4.0, 0.0));
        assert!((1.0..=4.0).contains(&value("pool_threads")), "{page}");
        assert!(value("http_response_seconds_total") >= 6.0 * 0.02, "{page}");
    });
}
