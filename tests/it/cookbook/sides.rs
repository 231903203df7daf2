//! The examples in which both sides have to know the same.

use super::example::{Reply, until, with};

/// The session in a response, as the header that sends it back.
fn session(reply: &Reply) -> String {
    let cookie = reply.header("set-cookie").expect("a cookie");
    format!("Cookie: flavour=oat; {}", cookie.split(';').next().expect("a value"))
}

#[test]
fn guard_tells_the_router_who_is_there() {
    with("guard", &[], |example| {
        let mut client = example.connect();
        let ali = session(&client.ask("POST", "/login", &[], "ali"));
        let eve = session(&client.ask("POST", "/login", &[], "eve"));
        assert_ne!(ali, eve);
        for (session, text) in [(&ali, "the account of ali\n"), (&eve, "the account of eve\n")] {
            let reply = client.ask("GET", "/account", &[session], "");
            assert_eq!((reply.status, reply.text()), (200, text));
            assert_eq!(reply.header("cache-control"), Some("private"));
        }

        assert_eq!(client.ask("POST", "/logout", &[&ali], "").status, 200);
        assert_eq!(client.ask("GET", "/account", &[&ali], "").status, 401);
        assert_eq!(client.ask("GET", "/account", &[&eve], "").status, 200);
    });
}

#[test]
fn guard_lets_nobody_in() {
    with("guard", &[], |example| {
        let mut client = example.connect();
        for headers in [&[] as &[&str], &["Cookie: session=0"], &["User: ali", "Remote-User: ali"]] {
            let reply = client.ask("GET", "/account", headers, "");
            assert_eq!((reply.status, reply.text()), (401, ""), "{headers:?}");
        }
        let reply = client.ask("GET", "/account", &["Accept: text/html,*/*"], "");
        assert_eq!((reply.status, reply.header("location")), (303, Some("/login")));
        // A route that was left outside does not run for nobody.
        assert_eq!(client.ask("GET", "/forgotten", &[], "").status, 500);
        assert_eq!(client.ask("GET", "/login", &[], "").status, 200);
        assert_eq!(client.ask("GET", "/elsewhere", &[], "").status, 404);
    });
}

#[test]
fn spans_are_the_same_on_both_sides() {
    with("spans", &[], |example| {
        let reply = example.ask("GET", "/rows", &["X-Request-Id: one"], "");
        assert_eq!(reply.text(), "row 1\nrow 2\nrow 3\n");
        assert_eq!(example.ask("GET", "/", &["X-Request-Id: two"], "").text(), "hello\n");

        let worker = "thread=\"tower-wsgi-worker\"";
        for (id, path, what, thread) in [
            ("one", "/rows", "sync middleware", worker),
            ("one", "/rows", "sync handler", worker),
            ("one", "/rows", "a row of the body", worker),
            ("one", "/rows", "a thread of its own", "thread=\"unnamed\""),
            ("two", "/", "sync middleware", worker),
            ("two", "/", "async handler", worker),
            ("two", "/", "a task", "thread=\"tokio-rt-worker\""),
        ] {
            let begin = format!("request{{id=\"{id}\" path=\"{path}\"}}: {what} {thread}");
            until(&begin, || example.log().contains(&begin).then_some(()));
        }
        let log = example.log();
        assert_eq!(log.matches("a row of the body").count(), 3, "{log}");
        assert!(log.lines().all(|line| line.contains("request{id=")), "{log}");
    });
}

/// What a customer does, and sees.
fn visit(arguments: &[&str], test: impl FnOnce(Vec<(u16, String)>, Vec<String>) + Send + 'static) {
    with("migrate", arguments, |example| {
        let mut client = example.connect();
        let welcome = client.ask("POST", "/login", &[], "ali");
        let ali = session(&welcome);
        let mut replies = vec![welcome];
        for (method, path, cookie, body) in [
            ("GET", "/about", None, ""),
            ("GET", "/basket", None, ""),
            ("POST", "/basket", None, "milk"),
            ("GET", "/basket", Some(&*ali), ""),
            ("POST", "/basket", Some(&*ali), "milk"),
            ("POST", "/basket", Some(&*ali), "bread"),
            ("GET", "/basket", Some(&*ali), ""),
            ("GET", "/basket", Some("Cookie: session=0"), ""),
            ("DELETE", "/basket", Some(&*ali), ""),
            ("GET", "/elsewhere", Some(&*ali), ""),
        ] {
            replies.push(client.ask(method, path, cookie.as_slice(), body));
        }
        let sides = replies.iter().map(|reply| reply.header("x-side").expect("a side").to_owned());
        test(replies.iter().map(|reply| (reply.status, reply.text().to_owned())).collect(), sides.collect());
    });
}

#[test]
fn migrate_answers_the_same_before_and_after() {
    visit(&["before"], |before, sides| {
        assert_eq!(before[7], (200, "ali: milk, bread\n".to_owned()));
        assert!(sides.iter().all(|side| side == "old"), "{sides:?}");
        visit(&["after"], move |after, sides| {
            assert_eq!(before, after);
            let moved: Vec<_> = (0..sides.len()).filter(|i| sides[*i] == "new").collect();
            // Each GET of the basket, and nothing else.
            assert_eq!(moved, [2, 4, 7, 8]);
        });
    });
}
