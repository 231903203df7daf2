//! The order of the checks: first what must leave no trace on standard error, then what must.

use super::host::{Hosting, Site};
use super::{App, Interface, admin, asynchronous, pages, transfer};
use crate::support::client::Browser;
use crate::support::{until, watched};

/// Starts an application and checks everything that its framework can do.
pub(super) fn app(app: App, hosting: Hosting) {
    // The whole list inside the validator, which sees what the host and the framework do to each other.
    let site = Site::start(app, app.validated.unwrap_or(app.target), hosting);
    let guard = site.server.guard();
    watched(move || all(site));
    drop(guard);
    // And without it what it hides: the host's own input and file wrapper, which may do more than PEP 3333 asks for.
    if app.validated.is_some() {
        let site = Site::start(app, app.target, hosting);
        let _guard = site.server.guard();
        watched(move || bodies(site));
    }
}

fn all(site: Site) {
    let browser = &mut site.browser();

    pages::says_hello(&site, browser);
    pages::knows_its_request(&site, browser);
    pages::takes_json_and_forms(browser);
    pages::keeps_sessions_and_cookies(&site);
    pages::builds_urls(&site, browser);
    pages::serves_static_files(&site, browser);
    pages::shows_its_own_error_pages(&site, browser);
    transfer::takes_large_uploads(browser);
    transfer::sends_large_files(&site, browser);
    transfer::streams(browser);
    if !site.app.logs_leavers {
        transfer::stops_for_leavers(&site, browser);
    }
    if site.hosting == Hosting::Mounted {
        leaves_the_rest_to_axum(&site);
    }
    if site.app.admin {
        admin::keeps_notes(browser);
        admin::has_an_admin(&site);
    }
    if site.app.interface == Interface::Asgi {
        asynchronous::all(&site, browser);
    }
    is_silent(&site);

    pages::keeps_other_files_to_itself(browser);
    pages::fails_with_a_page(&site, browser);
    until("the traceback is in the log", || site.server.log().text().contains("RuntimeError: boom"));
    pages::says_hello(&site, browser);

    if site.app.logs_leavers {
        transfer::stops_for_leavers(&site, browser);
    }
    // Some frameworks log what they refuse.
    if site.app.interface == Interface::Asgi {
        transfer::takes_bodies_without_a_length(&site, browser);
    }
    stops(site);
}

fn bodies(site: Site) {
    let browser = &mut site.browser();
    pages::takes_json_and_forms(browser);
    pages::serves_static_files(&site, browser);
    transfer::takes_large_uploads(browser);
    transfer::sends_large_files(&site, browser);
    transfer::streams(browser);
    transfer::stops_for_leavers(&site, browser);
    is_silent(&site);
    transfer::takes_bodies_without_a_length(&site, browser);
    stops(site);
}

fn is_silent(site: &Site) {
    let log = site.server.log().text();
    let own = |line: &&str| !site.app.noise.iter().any(|noise| line.contains(noise));
    let lines: Vec<_> = log.lines().filter(own).collect();
    assert!(lines.is_empty(), "on standard error:\n{}", lines.join("\n"));
}

/// Stops as it should, and says nothing of what was left behind.
fn stops(mut site: Site) {
    let status = site.server.stop();
    assert!(status.success(), "{status}");
    assert_eq!(site.last_words(), if site.app.lifespan { "stopped\n" } else { "" });
    let log = site.server.log().text();
    for bad in ["garbage collected", "never awaited", "never retrieved", "was destroyed"] {
        assert!(!log.contains(bad), "{bad}");
    }
}

impl Site {
    /// A client that has no cookies yet.
    pub(super) fn browser(&self) -> Browser {
        Browser::new(self.server.addr, self.hosting.prefix())
    }
}

/// A mount owns what is below its prefix, and nothing else.
fn leaves_the_rest_to_axum(site: &Site) {
    let mut outside = Browser::new(site.server.addr, "");
    let reply = outside.get("/rust");
    assert_eq!((reply.status, reply.text()), (200, "Hello from Rust\n"));
    // It shares its first letters with the prefix only.
    let beside = format!("{}abouts/json", site.hosting.prefix());
    for path in ["/json", &beside] {
        let reply = outside.get(path);
        assert_eq!((reply.status, reply.text()), (404, ""), "{path}");
    }
}
