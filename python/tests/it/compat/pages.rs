//! Requests and responses that fit in a hand, URLs, and error pages.

use super::host::{Hosting, Site};
use crate::support::client::{Browser, Payload};

pub(super) fn says_hello(site: &Site, browser: &mut Browser) {
    let hello = browser.get("/");
    assert_eq!(hello.status, 200, "{hello:?}");
    assert!(hello.text().starts_with("Hello from "), "{hello:?}");
    assert!(hello.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")), "{hello:?}");
    // Where the application says none, the host may still find one.
    if site.app.lengths || hello.header("content-length").is_some() {
        assert_eq!(hello.header("content-length"), Some(&*hello.body.len().to_string()), "{hello:?}");
    }

    let head = browser.send("HEAD", "/", &[], &Payload::None);
    assert_eq!(head.status, if site.app.head { 200 } else { 405 }, "{head:?}");
    if let Some(length) = head.header("content-length").filter(|_| site.app.head) {
        assert_eq!(length, hello.body.len().to_string(), "{head:?}");
    }

    // On the same connection: a response without a body leaves nothing in the next one's way.
    let empty = browser.send("DELETE", "/empty", &[], &Payload::None);
    assert_eq!(empty.status, 204, "{empty:?}");
    assert_eq!(empty.header("transfer-encoding"), None, "{empty:?}");
}

pub(super) fn knows_its_request(site: &Site, browser: &mut Browser) {
    let reply = browser.send("GET", "/request?q=a%26b%20%C3%BC", &[("X-Test", "a, b")], &Payload::None);
    let facts = reply.json();
    let url = facts["url"].as_str().and_then(|url| url.split('?').next()).expect("a URL");
    let prefix = site.hosting.prefix().repeat(if site.app.doubles_prefix { 2 } else { 1 });
    assert_eq!(url, format!("http://{}{prefix}/request", site.server.addr));
    assert_eq!(facts["method"], "GET");
    assert_eq!(facts["query"], "a&b ü");
    assert_eq!(facts["client"], "127.0.0.1");
    assert_eq!(facts["header"], "a, b");
}

pub(super) fn takes_json_and_forms(browser: &mut Browser) {
    let sum =
        browser.post("/json", "application/json", r#"{"name": "Kuí", "numbers": [1, 2, 39]}"#.as_bytes());
    assert_eq!(sum.json(), serde_json::json!({"name": "Kuí", "sum": 42}));

    let form = browser.post(
        "/form",
        "application/x-www-form-urlencoded",
        b"name=J%C3%BCrgen+%26+Co&tag=a&tag=b%3Dc",
    );
    assert_eq!(form.json(), serde_json::json!({"name": "Jürgen & Co", "tags": ["a", "b=c"]}));
}

pub(super) fn keeps_sessions_and_cookies(site: &Site) {
    let [mut one, mut other] = [site.browser(), site.browser()];
    for visits in 1..=3 {
        assert_eq!(one.get("/session").json()["visits"], visits);
    }
    assert_eq!(other.get("/session").json()["visits"], 1);

    // Two of them in one response, and both in the next request.
    assert_eq!(
        other
            .get("/cookies")
            .headers
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie"))
            .count(),
        2
    );
    let cookies = other.get("/cookies").json();
    assert_eq!(cookies["first"], "1", "{cookies}");
    assert_eq!(cookies["second"], "two-words", "{cookies}");
}

pub(super) fn builds_urls(site: &Site, browser: &mut Browser) {
    let redirect = browser.get("/redirect");
    assert!(matches!(redirect.status, 302 | 303 | 307), "{redirect:?}");
    let location = redirect.header("location").expect("a location");
    assert_eq!(browser.path_of(location), format!("{}/hello/world", site.hosting.prefix()));
    assert_eq!(browser.follow(location).text(), "Hello, world");

    let url = browser.get("/url");
    assert!(
        browser.path_of(url.text()).starts_with(&format!("{}/hello/J%C3%BCrgen", site.hosting.prefix())),
        "{url:?}"
    );
    assert_eq!(browser.follow(url.text()).text(), "Hello, Jürgen & Co");
}

pub(super) fn serves_static_files(site: &Site, browser: &mut Browser) {
    let content = "Hello from a static file.\n";
    let file = browser.get("/static/hello.txt");
    assert_eq!((file.status, file.text()), (200, content), "{file:?}");
    assert!(file.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")), "{file:?}");
    assert_eq!(browser.get("/static/missing.txt").status, 404);

    if let Some(modified) = file.header("last-modified") {
        let again =
            browser.send("GET", "/static/hello.txt", &[("If-Modified-Since", modified)], &Payload::None);
        assert_eq!(again.status, if site.app.conditional { 304 } else { 200 }, "{again:?}");
    } else {
        assert!(!site.app.conditional, "{file:?}");
    }
    let part = browser.send("GET", "/static/hello.txt", &[("Range", "bytes=6-9")], &Payload::None);
    let (status, expected) = if site.app.ranges { (206, "from") } else { (200, content) };
    assert_eq!((part.status, part.text()), (status, expected), "{part:?}");
}

pub(super) fn shows_its_own_error_pages(site: &Site, browser: &mut Browser) {
    for (path, status, piece) in
        [("/missing", 404, site.app.not_found), ("/forbidden", 403, site.app.forbidden)]
    {
        let page = browser.get(path);
        assert_eq!(page.status, status, "{page:?}");
        assert!(page.text().contains(piece), "{page:?}");
    }
}

/// Some frameworks log it.
pub(super) fn keeps_other_files_to_itself(browser: &mut Browser) {
    for path in ["/static/../app.py", "/static/%2E%2E/app.py", "/static/..%2Fapp.py"] {
        let outside = browser.get(path);
        assert!(matches!(outside.status, 400 | 403 | 404), "{path}: {outside:?}");
    }
}

pub(super) fn fails_with_a_page(site: &Site, browser: &mut Browser) {
    let page = browser.get("/boom");
    assert_eq!(page.status, 500, "{page:?}");
    match site.app.failure {
        Some(piece) => assert!(page.text().contains(piece), "{page:?}"),
        // The host's own, in which nothing of the failure may be.
        None => assert!(!page.text().contains("boom"), "{page:?}"),
    }
    // Not even of a host that has one.
    assert!(site.hosting != Hosting::Server || !page.text().contains("Traceback"), "{page:?}");
}
