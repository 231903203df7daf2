//! A real browser: Chromium without a window, driven by `WebDriver`.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::cgi::web::{Group, installed};

/// How long a browser may take to start, or to do a thing, where others want the processor, too.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// What keeps it from talking to anybody but the page.
const SWITCHES: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];

/// A browser with a profile of its own. It ends when dropped.
pub(super) struct Browser {
    runtime: Runtime,
    client: Client<HttpConnector, Full<Bytes>>,
    driver: SocketAddr,
    session: String,
    // In the order of their drop.
    _process: Group,
    _profile: TempDir,
}

impl Browser {
    /// Starts it, if it is installed. Where everything is meant to be tested it has to be.
    pub(super) fn start() -> Option<Self> {
        let [chromium, chromedriver] = installed(["chromium", "chromedriver"])?;
        let profile = TempDir::new().expect("a directory");
        // It takes a free port, and says which.
        let mut command = Command::new(chromedriver);
        let mut process = Group::spawn(command.arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()));
        let stdout = process.child().stdout.take().expect("a pipe");
        let (sender, port) = mpsc::channel();
        // All is read: a pipe that is closed would end it.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let port =
                    line.split_once("successfully on port ").map(|(_, port)| port.trim_end_matches('.'));
                if let Some(port) = port.and_then(|port| port.parse::<u16>().ok()) {
                    let _ = sender.send(port);
                }
            }
        });
        let port = port.recv_timeout(PATIENCE).expect("a port");

        let mut browser = Self {
            runtime: Runtime::new().expect("a runtime"),
            client: Client::builder(TokioExecutor::new()).build_http(),
            driver: SocketAddr::from(([127, 0, 0, 1], port)),
            session: String::new(),
            _process: process,
            _profile: profile,
        };
        let profile = format!("--user-data-dir={}", browser._profile.path().display());
        let switches: Vec<_> = SWITCHES.into_iter().chain([profile.as_str()]).collect();
        let chrome = json!({ "binary": chromium, "args": switches });
        let wanted = json!({ "capabilities": { "alwaysMatch": { "goog:chromeOptions": chrome } } });
        let session = browser.command(Method::POST, "/session", &wanted);
        browser.session = format!("/session/{}", session["sessionId"].as_str().expect("a session"));
        Some(browser)
    }

    /// Goes to a page.
    pub(super) fn open(&self, url: &str) {
        self.command(Method::POST, &format!("{}/url", self.session), &json!({ "url": url }));
    }

    /// Runs a script in the page, for what it returns.
    pub(super) fn run(&self, script: &str) -> Value {
        let script = json!({ "script": script, "args": [] });
        self.command(Method::POST, &format!("{}/execute/sync", self.session), &script)
    }

    fn command(&self, method: Method, path: &str, body: &Value) -> Value {
        self.try_command(method, path, body).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn try_command(&self, method: Method, path: &str, body: &Value) -> Result<Value, String> {
        let body = if method == Method::DELETE { Full::default() } else { Full::from(body.to_string()) };
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.driver))
            .header("content-type", "application/json")
            .body(body)
            .expect("a request");
        self.runtime.block_on(async {
            let exchange = async {
                let response = self.client.request(request).await.map_err(|error| error.to_string())?;
                let body = response.into_body().collect().await.map_err(|error| error.to_string())?;
                serde_json::from_slice::<Value>(&body.to_bytes()).map_err(|error| error.to_string())
            };
            let mut answer = timeout(PATIENCE, exchange).await.map_err(|error| error.to_string())??;
            let value = answer["value"].take();
            if value["error"].is_string() { Err(value.to_string()) } else { Ok(value) }
        })
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver has the browser in a group of its own: it has to be told.
        if !self.session.is_empty() {
            let _ = self.try_command(Method::DELETE, &self.session, &Value::Null);
        }
    }
}
