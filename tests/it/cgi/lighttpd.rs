//! The example's program behind lighttpd's `mod_cgi`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use super::example;
use super::web::{self, Web, broken, installed};
use crate::support::blocking;

/// A lighttpd in front of what `config` says.
pub(super) fn command(lighttpd: &Path, place: &web::Place<'_>, config: &str) -> Command {
    let web::Place { dir, port, token } = place;
    let root = dir.join("www");
    fs::create_dir_all(&root).expect("a directory");
    fs::write(root.join("token"), token).expect("a file");
    let config = format!(
        r#"
server.document-root = "{root}"
server.bind = "127.0.0.1"
server.port = {port}
server.upload-dirs = ("{dir}")
# By default both are decoded or refused before any program sees them.
server.http-parseopts = ("url-path-2f-decode" => "disable", "url-invalid-utf8-reject" => "disable")
server.modules = ("mod_alias", "mod_cgi", "mod_fastcgi", "mod_setenv")
{config}
"#,
        root = root.display(),
        dir = dir.display(),
    );
    let file = dir.join("lighttpd.conf");
    fs::write(&file, config).expect("a configuration");
    let mut command = Command::new(lighttpd);
    command.arg("-D").arg("-f").arg(file);
    command
}

/// Starts one that lets bodies through as they come, or gathers uploads first.
async fn start(streams_uploads: bool) -> Option<Web> {
    let [lighttpd] = installed(["lighttpd"])?;
    let program = example("cgi");
    let web = blocking(move || {
        let dir = tempfile::tempdir().expect("a directory");
        symlink(program, dir.path().join("app")).expect("a link");
        Web::start(dir, Vec::new(), |place| {
            let config = format!(
                r#"
alias.url = ("/app" => "{dir}/app")
cgi.assign = ("/app" => "")
setenv.add-environment = ("NOTE_FILE" => "{dir}/note")
server.stream-request-body = {streams}
server.stream-response-body = 1
"#,
                dir = place.dir.display(),
                streams = u8::from(streams_uploads),
            );
            command(&lighttpd, place, &config)
        })
    });
    Some(web.await)
}

#[tokio::test]
async fn b1_pages_behind_lighttpd() {
    let Some(web) = start(true).await else { return };
    web::pages(&web).await;
    web::redirects(&web).await;
    web::cookies(&web).await;
}

#[tokio::test]
async fn c1_requests_behind_lighttpd() {
    let Some(web) = start(true).await else { return };
    web::described(&web).await;
}

#[tokio::test]
async fn a1_uploads_behind_lighttpd() {
    let Some(web) = start(true).await else { return };
    web::upload(&web, "/app/sha256", true).await;
}

/// CGI cannot tell a program that no length is known: lighttpd has to gather such a body.
#[tokio::test]
async fn a1_uploads_in_chunks_behind_lighttpd() {
    let Some(web) = start(false).await else { return };
    web::upload(&web, "/app/sha256", false).await;
}

#[tokio::test]
async fn a3_downloads_behind_lighttpd() {
    let Some(web) = start(true).await else { return };
    web::download(&web).await;
    web::streamed(&web, "/app/ticks").await;
}

#[tokio::test]
async fn b4_background_tasks_behind_lighttpd() {
    let Some(web) = start(true).await else { return };
    web::background(&web).await;
}

/// What broke off is seen by its length alone: lighttpd does not look at the exit code.
#[tokio::test]
async fn a6_bodies_that_break_off_behind_lighttpd() {
    let Some(web) = start(true).await else { return };
    let whole = web::text(web.get("/app/fail-late").await).await;
    assert_eq!(whole, "the first of many rows\n");
    // A connection that is to be kept is only cut when it has been idle for too long.
    let mut request = web.request(http::Method::GET, "/app/fail-late?length=100", tower_wsgi::Body::empty());
    request.headers_mut().insert("connection", "close".parse().expect("a value"));
    let response = web.send(request).await;
    assert_eq!(response.status(), 200);
    assert_eq!(broken(response).await, b"the first of many rows\n");
}
