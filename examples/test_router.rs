//! An axum router under test, called like a function: plain `#[test]`s, no server, no runtime, no `async`.
//!
//! ```text
//! cargo test --example test_router
//! cargo run --example test_router            # and this is the router
//! curl -d '{"item": "milk"}' -H 'content-type: application/json' http://127.0.0.1:3000/list
//! curl http://127.0.0.1:3000/list
//! ```
//!
//! `AsgiHandler::new(router)` is all it takes. Every layer and extractor is run as it is in the server; what is missing is the network. Requests can come from many threads at once, a body can break off,
//! and one that streams can be read step by step.
//!
//! Environment: `ADDR` (`127.0.0.1:3000`).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tower_http::timeout::TimeoutLayer;
use tower_wsgi::BoxError;

/// A shopping list.
#[derive(Clone, Default)]
struct List(Arc<Mutex<Vec<Item>>>);

#[derive(Clone, Deserialize, Serialize)]
struct Item {
    item: String,
}

fn router() -> Router {
    Router::new()
        .route("/list", get(show).post(add))
        .route("/never", get(std::future::pending::<()>))
        .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, Duration::from_millis(50)))
        .with_state(List::default())
}

async fn show(State(List(list)): State<List>) -> Json<Vec<Item>> {
    Json(list.lock().unwrap_or_else(PoisonError::into_inner).clone())
}

async fn add(State(List(list)): State<List>, Json(item): Json<Item>) -> StatusCode {
    list.lock().unwrap_or_else(PoisonError::into_inner).push(item);
    StatusCode::CREATED
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let address = std::env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());
    let listener = TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, router()).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read};
    use std::thread;

    use http::{Request, StatusCode};
    use tower_wsgi::{AsgiHandler, Input, SyncHandler};

    use super::router;

    /// Sends a request and reads its response.
    fn send(app: &impl SyncHandler, request: Request<Input>) -> (StatusCode, String) {
        let response = app.call(request).expect("a response");
        let status = response.status();
        (status, io::read_to_string(response.into_body().into_reader()).expect("a whole body"))
    }

    fn show() -> Request<Input> {
        Request::get("/list").body(Input::empty()).expect("a request")
    }

    fn add(body: impl Into<Input>) -> Request<Input> {
        let request = Request::post("/list").header("content-type", "application/json");
        request.body(body.into()).expect("a request")
    }

    #[test]
    fn what_is_added_is_on_the_list() {
        let app = AsgiHandler::new(router());
        assert_eq!(send(&app, show()), (StatusCode::OK, "[]".to_owned()));
        assert_eq!(send(&app, add(r#"{"item": "milk"}"#)).0, StatusCode::CREATED);
        assert_eq!(send(&app, show()), (StatusCode::OK, r#"[{"item":"milk"}]"#.to_owned()));
    }

    #[test]
    fn what_is_no_item_is_refused() {
        let app = AsgiHandler::new(router());
        assert_eq!(send(&app, add("{")).0, StatusCode::BAD_REQUEST);
        assert_eq!(send(&app, add("{}")).0, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(send(&app, show()).1, "[]");
    }

    #[test]
    fn an_upload_that_breaks_off_adds_nothing() {
        struct Gone;
        impl Read for Gone {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::ConnectionReset.into())
            }
        }

        let app = AsgiHandler::new(router());
        let body = Input::reader(r#"{"item": "milk"}"#.as_bytes().chain(Gone));
        assert_eq!(send(&app, add(body)).0, StatusCode::BAD_REQUEST);
        assert_eq!(send(&app, show()).1, "[]");
    }

    #[test]
    fn timers_run_as_in_a_server() {
        let app = AsgiHandler::new(router());
        let never = Request::get("/never").body(Input::empty()).expect("a request");
        assert_eq!(send(&app, never).0, StatusCode::GATEWAY_TIMEOUT);
    }

    #[test]
    fn many_can_add_at_once() {
        let app = AsgiHandler::new(router());
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| assert_eq!(send(&app, add(r#"{"item": "milk"}"#)).0, StatusCode::CREATED));
            }
        });
        assert_eq!(send(&app, show()).1.matches("milk").count(), 8);
    }
}
