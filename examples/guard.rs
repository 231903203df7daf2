//! Synchronous middleware that guards an async router: it asks a session store, which blocks, who is there.
//!
//! ```text
//! cargo run --example guard
//! curl -i http://127.0.0.1:3000/account                              # 401
//! curl -i http://127.0.0.1:3000/account -H 'accept: text/html'       # a browser is sent to /login
//! curl -c jar -X POST http://127.0.0.1:3000/login -d ali
//! curl -b jar http://127.0.0.1:3000/account                          # it knows who
//! curl -b jar -X POST http://127.0.0.1:3000/logout
//! ```
//!
//! The user travels from the sync side to the async one as an extension of the request, which no client can send. Handlers take it as an argument: one that is not behind the guard
//! is told so, and does not run for nobody.
//!
//! Environment: `ADDR` (`127.0.0.1:3000`).

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{FromRequestParts, State};
use axum::routing::{get, post};
use axum::{RequestPartsExt, Router};
use http::header::{ACCEPT, CACHE_CONTROL, COOKIE, LOCATION, SET_COOKIE, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use tokio::net::TcpListener;
use tower_wsgi::{BoxError, Input, Next, Output, WsgiLayer};

/// Who is logged in. Stands for a table: where the lock is taken, a real one is asked by a query that blocks.
#[derive(Clone, Default)]
struct Sessions(Arc<Mutex<HashMap<String, User>>>);

/// The user, as the guard tells it to the handlers.
#[derive(Clone)]
struct User(String);

impl Sessions {
    fn log_in(&self, name: &str) -> String {
        // A real one takes its tokens from a source that is made for secrets.
        let token = format!("{:016x}", RandomState::new().hash_one(name));
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.insert(token.clone(), User(name.to_owned()));
        token
    }

    fn user(&self, headers: &HeaderMap) -> Option<User> {
        let sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.get(token(headers)?).cloned()
    }

    fn log_out(&self, headers: &HeaderMap) {
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        token(headers).and_then(|token| sessions.remove(token));
    }
}

/// The session's token in the cookies.
fn token(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    cookies.flat_map(|cookies| cookies.split(';')).find_map(|cookie| cookie.trim().strip_prefix("session="))
}

/// The guard, sync. What is inside the layer, it reaches by `Next`.
fn guard(sessions: &Sessions, mut request: Request<Input>) -> Result<Response<Output>, BoxError> {
    let next = request.extensions_mut().remove::<Next>().ok_or("not behind WsgiLayer::new")?;
    let Some(user) = sessions.user(request.headers()) else {
        return Ok(refuse(request.headers()));
    };
    request.extensions_mut().insert(user);
    // A tail call: the worker is free while the router is at work.
    let mut response = next.forward(request);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("private"));
    Ok(response)
}

/// A browser is shown where to log in; others are told that they have to.
fn refuse(headers: &HeaderMap) -> Response<Output> {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut response = Response::new(Output::empty());
    if accept.contains("text/html") {
        *response.status_mut() = StatusCode::SEE_OTHER;
        response.headers_mut().insert(LOCATION, HeaderValue::from_static("/login"));
    } else {
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Session"));
    }
    response
}

impl<S: Sync> FromRequestParts<S> for User {
    type Rejection = (StatusCode, &'static str);

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let user = parts.extract::<axum::Extension<Self>>().await;
        user.map(|user| user.0).map_err(|_| (StatusCode::INTERNAL_SERVER_ERROR, "not behind the guard\n"))
    }
}

async fn account(User(name): User) -> String {
    format!("the account of {name}\n")
}

/// A real one asks for more than a name.
async fn log_in(
    State(sessions): State<Sessions>,
    name: String,
) -> ([(http::HeaderName, String); 1], &'static str) {
    let token = sessions.log_in(&name);
    ([(SET_COOKIE, format!("session={token}; HttpOnly; SameSite=Lax; Path=/"))], "welcome\n")
}

async fn log_out(State(sessions): State<Sessions>, headers: HeaderMap) -> &'static str {
    sessions.log_out(&headers);
    "good bye\n"
}

fn router(sessions: Sessions) -> Router {
    let asked = sessions.clone();
    let guarded = Router::new()
        .route("/account", get(account))
        // Only what is above is behind it: the other routes need no worker.
        .route_layer(WsgiLayer::new(move |request: Request<Input>| guard(&asked, request)));

    Router::new()
        .route("/login", get(async || "POST your name\n").post(log_in))
        .route("/logout", post(log_out))
        .route("/forgotten", get(account))
        .with_state(sessions)
        .merge(guarded)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let address = std::env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());
    let listener = TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, router(Sessions::default())).await?;
    Ok(())
}
