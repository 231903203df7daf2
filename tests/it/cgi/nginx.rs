//! The example's program behind nginx, with fcgiwrap in between.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::example;
use super::web::{self, Group, Web, broken, installed};
use crate::support::{PATIENCE, blocking};

/// An nginx with these additions to its `http` block and to its `server`.
pub(super) fn command(nginx: &Path, place: &web::Place<'_>, http: &str, server: &str) -> Command {
    let web::Place { dir, port, token } = place;
    let dir = dir.display();
    let config = format!(
        r#"
daemon off;
# Its workers would be another user's.
master_process off;
pid {dir}/nginx.pid;
error_log {dir}/output.log;
events {{}}
http {{
    access_log off;
    client_max_body_size 0;
    client_body_temp_path {dir}/client;
    fastcgi_temp_path {dir}/fastcgi;
    proxy_temp_path {dir}/proxy;
    scgi_temp_path {dir}/scgi;
    uwsgi_temp_path {dir}/uwsgi;
    {http}
    server {{
        listen 127.0.0.1:{port};
        location = /token {{ return 200 "{token}"; }}
        {server}
    }}
}}
"#
    );
    let file = place.dir.join("nginx.conf");
    fs::write(&file, config).expect("a configuration");
    let mut command = Command::new(nginx);
    command.arg("-p").arg(place.dir).arg("-c").arg(file);
    command
}

/// The `FastCGI` parameters that every application gets here, mounted at `/app`.
pub(super) const PARAMETERS: &str = r"
            include /etc/nginx/fastcgi_params;
            fastcgi_split_path_info ^(/app)(.*)$;
            fastcgi_param PATH_INFO $fastcgi_path_info;
";

async fn start() -> Option<Web> {
    let [nginx, fcgiwrap] = installed(["nginx", "fcgiwrap"])?;
    let program = example("cgi");
    let web = blocking(move || {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("fcgiwrap.sock");
        let mut behind = Command::new(fcgiwrap);
        behind.args(["-c", "2", "-s"]).arg(format!("unix:{}", socket.display()));
        let behind = Group::start(&mut behind, &dir.path().join("output.log"));
        wait_for(&socket);
        Web::start(dir, vec![behind], |place| {
            let location = format!(
                r"location /app {{
            {PARAMETERS}
            fastcgi_param SCRIPT_FILENAME {program};
            fastcgi_param NOTE_FILE {dir}/note;
            fastcgi_param NO_BUFFERING 1;
            fastcgi_buffering off;
            fastcgi_request_buffering off;
            fastcgi_pass unix:{socket};
        }}",
                program = program.display(),
                dir = place.dir.display(),
                socket = socket.display(),
            );
            command(&nginx, place, "", &location)
        })
    });
    Some(web.await)
}

fn wait_for(socket: &Path) {
    let deadline = Instant::now() + PATIENCE;
    while UnixStream::connect(socket).is_err() {
        assert!(Instant::now() < deadline, "fcgiwrap does not start");
        // Nothing announces it.
        thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test]
async fn b1_pages_behind_nginx() {
    let Some(web) = start().await else { return };
    web::pages(&web).await;
    web::redirects(&web).await;
    web::cookies(&web).await;
}

#[tokio::test]
async fn c1_requests_behind_nginx() {
    let Some(web) = start().await else { return };
    web::described(&web).await;
}

#[tokio::test]
async fn a1_uploads_behind_nginx() {
    let Some(web) = start().await else { return };
    web::upload(&web, "/app/sha256", true).await;
}

/// Without a length, and with `HTTP_TRANSFER_ENCODING`, the body ends with the input.
#[tokio::test]
async fn a1_uploads_in_chunks_behind_nginx() {
    let Some(web) = start().await else { return };
    web::upload(&web, "/app/sha256", false).await;
}

#[tokio::test]
async fn a3_downloads_behind_nginx() {
    let Some(web) = start().await else { return };
    web::download(&web).await;
    web::streamed(&web, "/app/ticks").await;
}

#[tokio::test]
async fn b4_background_tasks_behind_nginx() {
    let Some(web) = start().await else { return };
    web::background(&web).await;
}

/// What broke off is seen by its length alone: fcgiwrap passes the exit code on, and nginx does not look at it.
#[tokio::test]
async fn a6_bodies_that_break_off_behind_nginx() {
    let Some(web) = start().await else { return };
    let whole = web::text(web.get("/app/fail-late").await).await;
    assert_eq!(whole, "the first of many rows\n");
    let response = web.get("/app/fail-late?length=100").await;
    assert_eq!(response.status(), 200);
    assert_eq!(broken(response).await, b"the first of many rows\n");
}
