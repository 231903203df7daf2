//! Django's ORM and admin, as a person at a browser would use them.

use super::host::Site;
use crate::support::client::{Browser, Reply};

pub(super) const PASSWORD: &str = "not a secret";

const FORM: &str = "application/x-www-form-urlencoded";

pub(super) fn keeps_notes(browser: &mut Browser) {
    let titles = browser.post("/notes", FORM, b"title=from+a+form").json();
    assert_eq!(titles["titles"], serde_json::json!(["from a form"]));
    assert_eq!(browser.get("/notes").json(), titles);
}

pub(super) fn has_an_admin(site: &Site) {
    let browser = &mut site.browser();
    let prefix = site.hosting.prefix();

    let login = browser.get("/admin/");
    assert_eq!(login.status, 302);
    let login = login.header("location").expect("a location").to_owned();
    assert_eq!(login, format!("{prefix}/admin/login/?next={prefix}/admin/"));

    let page = browser.follow(&login);
    let style = between(page.text(), "<link rel=\"stylesheet\" href=\"", "\"");
    assert!(style.starts_with(&format!("{prefix}/static/admin/")), "{style}");
    assert_eq!(browser.follow(style).status, 200, "{style}");

    // Without the token, and with another's.
    let form = format!("username=admin&password={}&next={prefix}/admin/", PASSWORD.replace(' ', "+"));
    assert_eq!(browser.post("/admin/login/", FORM, form.as_bytes()).status, 403);
    let entered = submit(browser, &page, "/admin/login/", &form);
    assert_eq!((entered.status, entered.header("location")), (302, Some(&*format!("{prefix}/admin/"))));

    let page = browser.get("/admin/notes/note/add/");
    assert_eq!(page.status, 200);
    let saved = submit(browser, &page, "/admin/notes/note/add/", "title=from+the+admin&text=");
    assert_eq!(saved.status, 302, "{}", saved.text());
    let list = browser.follow(saved.header("location").expect("a location"));
    assert!(list.text().contains(">from the admin</a>"), "{}", list.text());
    // A message of Django's that goes from one response to the next in a cookie.
    assert!(list.text().contains("was added successfully"), "{}", list.text());
}

/// Sends a form with the token that is in its page.
fn submit(browser: &mut Browser, page: &Reply, path: &str, form: &str) -> Reply {
    let token = between(page.text(), "name=\"csrfmiddlewaretoken\" value=\"", "\"");
    browser.post(path, FORM, format!("csrfmiddlewaretoken={token}&{form}").as_bytes())
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("no {before} in {text}"));
    rest.split_once(after).map_or(rest, |(piece, _)| piece)
}
