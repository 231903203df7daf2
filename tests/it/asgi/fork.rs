//! B1 in a process that forks after its handlers were made, as pre-forking servers do.

use std::env;
use std::panic::catch_unwind;
use std::process::{Command, Stdio, exit};
use std::thread;
use std::time::{Duration, Instant};

use fork::Fork;
use http::{Request, Response};
use tower::service_fn;
use tower_wsgi::{AsgiHandler, BackgroundTasks, Body};

use super::{Answer, answer};
use crate::support::{PATIENCE, watched};

/// Set in the process that forks.
const INSIDE: &str = "TOWER_WSGI_TEST_FORKS";

/// A service that needs all of its runtime.
async fn busy(request: Request<Body>) -> Answer {
    tokio::time::sleep(Duration::from_millis(1)).await;
    let tasks = request.extensions().get::<BackgroundTasks>().cloned().ok_or("no tasks")?;
    tasks.spawn(tokio::time::sleep(Duration::from_millis(1)));
    let text = tokio::spawn(async { "Hello World!" }).await?;
    Ok(Response::new(Body::from(text)))
}

/// The process that forks: a test of its own, so that it has no other threads.
fn forks() {
    let handler = AsgiHandler::new(service_fn(busy));
    let children = [(); 3].map(|()| match fork::fork().expect("to fork") {
        Fork::Parent(child) => child,
        Fork::Child => {
            let handler = handler.clone();
            let answers = catch_unwind(|| watched(move || [answer(&handler), answer(&handler)]));
            exit(i32::from(!answers.is_ok_and(|answers| answers == ["Hello World!"; 2])));
        }
    });
    for child in children {
        let status = fork::waitpid(child).expect("to wait");
        assert_eq!(status, 0, "a child failed");
    }
    // The parent has not called it yet.
    assert_eq!(answer(&handler), "Hello World!");
}

#[test]
fn b1_a_child_of_a_fork_starts_a_runtime_of_its_own() {
    if env::var_os(INSIDE).is_some() {
        return forks();
    }
    let this = env::current_exe().expect("a path");
    // With one thread a test runs on the main one.
    let mut forking = Command::new(this)
        .args(["--exact", "asgi::fork::b1_a_child_of_a_fork_starts_a_runtime_of_its_own"])
        .args(["--test-threads=1", "--nocapture"])
        .env(INSIDE, "1")
        .stdout(Stdio::null())
        .spawn()
        .expect("a process");
    // Children watch themselves, each for as long as this.
    let deadline = Instant::now() + PATIENCE * 2;
    let status = loop {
        if let Some(status) = forking.try_wait().expect("to wait") {
            break status;
        }
        if Instant::now() >= deadline {
            forking.kill().expect("to kill");
            panic!("it hangs");
        }
        thread::sleep(Duration::from_millis(5));
    };
    assert!(status.success(), "{status}");
}
