//! Heads that are large in number, in size, or in what is to be done about them.

use std::io::empty;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, Request, Response, Version};
use tower_wsgi::gateway;
use tower_wsgi::{Body, Environ, Input, Output, Scope, Variables, WsgiLayer, WsgiService};

use tower::Layer as _;

use super::{LINEAR, cgi_get, gateway as program, growth, send, timed};
use crate::support::{Events, VERSIONS, serve, soon};

#[tokio::test]
async fn a10_heads_over_the_servers_limits_reach_no_handler() {
    let calls = Events::new();
    let tell = calls.teller();
    let server = serve(WsgiService::new(move |request: Request<Input>| {
        tell(request.headers().len());
        Response::new("hello")
    }))
    .await;
    let end = "Host: a\r\nConnection: close\r\n\r\n";
    for (name, lines, taken) in [
        ("98 and two", "X: y\r\n".repeat(98), Some(100)),
        ("99 and two", "X: y\r\n".repeat(99), None),
        ("20,000", "X: y\r\n".repeat(20_000), None),
        ("one of 300 KB", format!("X: {}\r\n", "y".repeat(300_000)), Some(3)),
        ("one of 1 MB", format!("X: {}\r\n", "y".repeat(1 << 20)), None),
        ("a name of 1 MB", format!("{}: y\r\n", "x".repeat(1 << 20)), None),
        ("a name of 64 KB", format!("{}: y\r\n", "x".repeat(1 << 16)), None),
    ] {
        let answers = send(&server, format!("GET / HTTP/1.1\r\n{lines}{end}")).await;
        let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
        // A refusal may get lost where the server closes on what was not read.
        let is_refused = statuses.iter().all(|status| matches!(status, 400 | 431));
        assert!(if taken.is_some() { statuses == [200] } else { is_refused }, "{name}: {statuses:?}");
        assert_eq!(calls.drain(), taken.into_iter().collect::<Vec<_>>(), "{name}");
    }
    // 16 KiB over HTTP/2, as it counts them.
    for (count, taken) in [(300, true), (600, false)] {
        let mut request = server.request("GET", "/", Body::empty());
        for _ in 0..count {
            request.headers_mut().append("x", HeaderValue::from_static("y"));
        }
        let answer = soon(server.send(Version::HTTP_2, request)).await;
        assert_eq!(answer.is_ok_and(|response| response.status() == 200), taken, "{count}");
        assert_eq!(calls.drain().len(), usize::from(taken), "{count}");
    }
}

#[test]
fn c1_cookies_in_20000_crumbs_are_joined_in_linear_time() {
    let work = |crumbs| {
        let mut request = Request::new(());
        for _ in 0..crumbs {
            request
                .headers_mut()
                .append("cookie", HeaderValue::from_static("a=0123456789012345678901234567890123456789"));
        }
        let (took, variables) = timed(|| Variables::of(&request));
        assert_eq!(variables.get("HTTP_COOKIE").map(<[u8]>::len), Some(crumbs * 44 - 2));
        took
    };
    let growth = growth(work, 2_500);
    assert!(growth < LINEAR, "eight times the crumbs take {growth} times as long");
}

#[test]
fn c1_a_table_of_20000_variables_becomes_a_request_in_linear_time() {
    let work = |count: usize| {
        let variables: Variables = (0..count).map(|n| (format!("HTTP_X_{n}"), "v")).collect();
        let (took, request) = timed(|| variables.into_request().expect("a request"));
        assert_eq!(request.headers().len(), count);
        took
    };
    let growth = growth(work, 2_500);
    assert!(growth < LINEAR, "eight times the variables take {growth} times as long");
}

#[test]
fn c1_more_headers_than_a_map_can_hold_are_no_request() {
    // A `HeaderMap` ends at 24,576 names, by a panic where nobody looks.
    for (count, taken) in [(24_000, true), (25_000, false), (40_000, false)] {
        let more: Vec<_> = (0..count).map(|n| format!("HTTP_X_{n}")).collect();
        let variables = cgi_get("/", more.iter().map(|name| (name.as_str(), &b"v"[..])));
        let (answer, served) = program(|_: Request<Input>| Response::new("hello"), variables, empty());
        assert_eq!(answer.status, if taken { 200 } else { 400 }, "{count}");
        assert_eq!(served.is_err_and(|error| error.is_request()), !taken, "{count}");
    }
}

#[test]
fn c1_a_query_as_long_as_a_target_can_be_is_taken_in_linear_time() {
    for piece in ["a=b&", "%zz", "é", "<\">", "&&&&", "a[]=1&"] {
        let work = |size: usize| {
            let query = piece.repeat(size / piece.len());
            let variables = cgi_get("/", [("QUERY_STRING", query.as_bytes())]);
            // One that is over what a URI can hold is refused, as quickly.
            let (took, taken) = timed(|| variables.into_request().map(|request| Variables::of(&request)));
            if let Ok(variables) = taken {
                assert!(variables.get("QUERY_STRING").is_some_and(|query| query.len() >= size / 2));
            }
            took
        };
        let growth = growth(work, 7_500);
        assert!(growth < LINEAR, "{piece}: eight times the query take {growth} times as long");
    }
}

/// Names that all fall on one another in a table whose hash is FNV-1a, cut to `bits`: from each state two ways lead to the same next one.
fn colliding(doublings: usize, bits: u32) -> Vec<String> {
    let mask = (1_u64 << bits) - 1;
    // As `http` begins: with the discriminant of a name that is not a standard one.
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let mut state = 1_u64.to_le_bytes().into_iter().fold(0xcbf2_9ce4_8422_2325, step);
    let mut names = vec![String::new()];
    for _ in 0..doublings {
        let mut seen = std::collections::HashMap::new();
        let letters = || b'a'..=b'z';
        let blocks = letters().flat_map(|a| letters().flat_map(move |b| letters().map(move |c| [a, b, c])));
        let mut found = None;
        for block in blocks {
            let next = block.into_iter().fold(state, step);
            if let Some(other) = seen.insert(next & mask, block) {
                found = Some((other, block, next));
                break;
            }
        }
        let (one, other, next) = found.expect("two ways to one state");
        // The lower bits of a product depend on the lower bits of its factors alone.
        state = next & mask;
        let text = |block: [u8; 3]| String::from_utf8(block.to_vec()).expect("letters");
        names = names
            .iter()
            .flat_map(|name| [format!("{name}{}", text(one)), format!("{name}{}", text(other))])
            .collect();
    }
    let hash = |name: &String| {
        let start = 1_u64.to_le_bytes().into_iter().fold(0xcbf2_9ce4_8422_2325, step);
        name.bytes().fold(start, step) & mask
    };
    assert!(names.iter().all(|name| hash(name) == hash(&names[0])), "they do not collide");
    names
}

#[tokio::test]
async fn c1_names_that_collide_cost_little_within_a_servers_limits() {
    // `http::HeaderMap` is quadratic for them: in 1.5 its other hash comes into play only where names displace others. Our own tables are trees. So what bounds it is how many names
    // a server lets in: 100 over HTTP/1, 16 KiB over HTTP/2, some 32 KB of a CGI host.
    let names = colliding(10, 15);
    let server = serve(WsgiService::new(|request: Request<Input>| {
        let variables = Variables::of(&request);
        let names = variables.iter().filter(|(name, _)| name.starts_with("HTTP_"));
        Response::new(names.count().to_string())
    }))
    .await;
    let lines: String = names.iter().take(98).map(|name| format!("{name}: v\r\n")).collect();
    let head = format!("GET / HTTP/1.1\r\n{lines}Host: a\r\nConnection: close\r\n\r\n");
    assert_eq!(send(&server, head).await[0].body, "100");
    let (took, ()) = timed(|| {
        let pairs = names.iter().map(|name| (format!("HTTP_{}", name.to_uppercase()), "v"));
        let request = pairs.collect::<Variables>().into_request().expect("a request");
        assert_eq!(request.headers().len(), names.len());
        let variables = Variables::of(&request);
        assert_eq!(variables.iter().filter(|(name, _)| name.starts_with("HTTP_")).count(), names.len());
    });
    // A thousand of them; some milliseconds with optimisations.
    assert!(took < Duration::from_secs(3), "{took:?}");
}

/// A head with so many headers, all of which its `Connection` headers name.
fn connected(count: usize, lists: usize) -> (Response<Output>, Vec<HeaderName>) {
    let names: Vec<_> = (0..count).map(|n| format!("x-{n}")).collect();
    let mut response = Response::new(Output::empty());
    for list in names.chunks(count / lists) {
        let list = HeaderValue::try_from(list.join(", ")).expect("a value");
        response.headers_mut().append("connection", list);
    }
    let names: Vec<_> = names.iter().map(|name| HeaderName::try_from(name).expect("a name")).collect();
    for name in &names {
        response.headers_mut().append(name, HeaderValue::from_static("v"));
    }
    (response, names)
}

#[test]
fn c3_many_names_in_a_connection_header_cost_what_it_takes_to_remove_them() {
    for lists in [1, 100] {
        let (response, names) = connected(20_000, lists);
        let mut headers = response.headers().clone();
        let (alone, ()) = timed(|| names.iter().for_each(|name| drop(headers.remove(name))));
        let response = std::sync::Mutex::new(Some(response));
        let handler = move |_: Request<Input>| response.lock().expect("a lock").take().expect("one request");
        let (took, response) = timed(|| gateway::respond(&handler, Request::new(Input::empty())));
        assert_eq!(response.headers().len(), 1, "but for its length");
        assert!(took < alone * 20 + Duration::from_millis(50), "{took:?}, to remove them takes {alone:?}");
    }
}

#[test]
fn c2_paths_of_many_segments_are_taken_apart_in_linear_time() {
    for piece in ["/", "/a", "/%2f", "/..", "//"] {
        let work = |size: usize| {
            let path = piece.repeat(size / piece.len());
            let mut request = Request::new(());
            *request.uri_mut() = path.parse().expect("a target");
            let prefix = piece.repeat(size / piece.len() / 2);
            let (took, again) = timed(|| {
                assert!(Environ::shift(&mut request, &prefix));
                Variables::of(&request).into_request().expect("a request")
            });
            assert_eq!(Scope::of(&again).uri().path(), path);
            took
        };
        let growth = growth(work, 7_500);
        assert!(growth < LINEAR, "{piece}: eight times the path take {growth} times as long");
    }
}

#[tokio::test]
async fn c1_methods_and_versions_are_no_way_to_memory() {
    let server = serve(
        WsgiLayer::adapter()
            .workers(1)
            .layer(|request: Request<Input>| Response::new(request.method().as_str().len().to_string())),
    )
    .await;
    let long = "X".repeat(60_000);
    let answers = send(&server, format!("{long} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).await;
    assert_eq!(answers[0].body, "60000");
    for version in VERSIONS {
        assert_eq!(server.ask(version, "GET", "/").await.status(), 200);
    }
    assert!(Method::from_bytes(long.as_bytes()).is_ok());
}
