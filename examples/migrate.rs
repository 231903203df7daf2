//! An old synchronous application moves to axum, route by route, under the same URLs.
//!
//! ```text
//! cargo run --example migrate                # or, as it was before: cargo run --example migrate -- before
//! curl -c jar -d ali http://127.0.0.1:3000/login
//! curl -b jar -d milk http://127.0.0.1:3000/basket
//! curl -i -b jar http://127.0.0.1:3000/basket
//! curl http://127.0.0.1:3000/about
//! ```
//!
//! First the whole application is put behind a router without routes: nothing changes. Then one route after the other gets an async handler, and the rest of it stays. Both sides have the same
//! state, and read the same session cookie, so that nobody has to log in again. `x-side` tells which of them answered.
//!
//! Environment: `ADDR` (`127.0.0.1:3000`).

use axum::Router;
use axum::routing::get;
use http::Request;
use tokio::net::TcpListener;
use tower::Layer;
use tower_wsgi::{BoxError, Input, WsgiLayer};

/// What both sides know.
mod shop {
    use std::collections::HashMap;
    use std::hash::{BuildHasher, RandomState};
    use std::sync::{Arc, Mutex, PoisonError};

    use http::HeaderMap;
    use http::header::COOKIE;

    /// Who is logged in, and what is in their baskets. Stands for a database.
    #[derive(Clone, Default)]
    pub(crate) struct Shop(Arc<Mutex<HashMap<String, Session>>>);

    struct Session {
        name: String,
        basket: Vec<String>,
    }

    impl Shop {
        pub(crate) fn log_in(&self, name: String) -> String {
            let token = format!("{:016x}", RandomState::new().hash_one(&name));
            let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            sessions.insert(token.clone(), Session { name, basket: Vec::new() });
            token
        }

        /// Works on the basket of whoever sent these headers.
        pub(crate) fn basket<T>(
            &self,
            headers: &HeaderMap,
            work: impl FnOnce(&str, &mut Vec<String>) -> T,
        ) -> Option<T> {
            let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
            let mut cookies = cookies.flat_map(|cookies| cookies.split(';'));
            let token = cookies.find_map(|cookie| cookie.trim().strip_prefix("session="))?;
            let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let session = sessions.get_mut(token)?;
            Some(work(&session.name, &mut session.basket))
        }
    }
}

/// The old application: synchronous, and as it always was.
mod old {
    use std::io::{self, Read};

    use http::header::SET_COOKIE;
    use http::{Method, Request, Response, StatusCode};
    use tower_wsgi::{BoxError, Input};

    use super::shop::Shop;

    pub(crate) fn app(shop: &Shop, request: Request<Input>) -> Result<Response<String>, BoxError> {
        let response = Response::builder().header("x-side", "old");
        let (head, body) = request.into_parts();
        let text = || io::read_to_string(body.take(1000));
        Ok(match (&head.method, head.uri.path()) {
            (&Method::GET, "/about") => response.body("the best shop in town\n".into())?,
            (&Method::POST, "/login") => {
                let token = shop.log_in(text()?);
                let cookie = format!("session={token}; HttpOnly; SameSite=Lax; Path=/");
                response.header(SET_COOKIE, cookie).body("welcome\n".into())?
            }
            (&Method::GET, "/basket") => {
                match shop.basket(&head.headers, |name, basket| describe(name, basket)) {
                    Some(text) => response.body(text)?,
                    None => response.status(StatusCode::UNAUTHORIZED).body("who are you?\n".into())?,
                }
            }
            (&Method::POST, "/basket") => {
                let item = text()?;
                match shop.basket(&head.headers, |_, basket| basket.push(item)) {
                    Some(()) => response.status(StatusCode::CREATED).body("added\n".into())?,
                    None => response.status(StatusCode::UNAUTHORIZED).body("who are you?\n".into())?,
                }
            }
            _ => response.status(StatusCode::NOT_FOUND).body("no such page\n".into())?,
        })
    }

    /// Where both sides need it, it is moved, too; until then the new one borrows it.
    pub(crate) fn describe(name: &str, basket: &[String]) -> String {
        format!("{name}: {}\n", basket.join(", "))
    }
}

/// What has been moved.
mod new {
    use axum::extract::State;
    use http::{HeaderMap, StatusCode};

    use super::{old, shop::Shop};

    type Answer = (StatusCode, [(&'static str, &'static str); 1], String);

    pub(crate) async fn basket(State(shop): State<Shop>, headers: HeaderMap) -> Answer {
        let text = shop.basket(&headers, |name, basket| old::describe(name, basket));
        let status = if text.is_some() { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
        (status, [("x-side", "new")], text.unwrap_or_else(|| "who are you?\n".into()))
    }
}

fn router(after: bool) -> Router {
    let shop = shop::Shop::default();
    let theirs = shop.clone();
    let old = WsgiLayer::adapter().layer(move |request: Request<Input>| old::app(&theirs, request));
    if !after {
        return Router::new().fallback_service(old);
    }
    Router::new()
        // Its GET has moved. The other methods have not: without their fallback, they would be 405.
        .route("/basket", get(new::basket).fallback_service(old.clone()))
        .fallback_service(old)
        .with_state(shop)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let after = match std::env::args().nth(1).as_deref() {
        None | Some("after") => true,
        Some("before") => false,
        Some(other) => return Err(format!("`before` or `after`, not `{other}`").into()),
    };
    let address = std::env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());
    let listener = TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, router(after)).await?;
    Ok(())
}
