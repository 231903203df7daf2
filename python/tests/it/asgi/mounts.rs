//! Applications under prefixes, beside other services, and inside other stacks.

use axum::Router;
use axum::routing::get as axum_get;
use http::Request;
use tower::{Layer, ServiceExt};
use tower_wsgi::{AsgiHandler, Body, Input, SyncHandler};
use tower_wsgi_python::{PyAsgi, PyAsgiLayer};

use super::support::*;

fn where_am_i() -> PyAsgi {
    start_http("await reply(send, [scope['root_path'], scope['path'], scope['raw_path'].decode()])")
}

async fn ask(router: &Router, path: &str) -> String {
    let request = Request::get(path).body(axum::body::Body::empty()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    text(response.map(Body::new)).await
}

#[test]
fn prefixes_split_at_segment_borders() {
    run(async {
        let router =
            Router::new().fallback(|| async { "inner" }).layer(PyAsgiLayer::new(where_am_i()).at("/api/"));
        assert_eq!(ask(&router, "/api/a%20b?c").await, r#"["/api", "/api/a b", "/api/a%20b"]"#);
        assert_eq!(ask(&router, "/api").await, r#"["/api", "/api", "/api"]"#);
        assert_eq!(ask(&router, "/api/").await, r#"["/api", "/api/", "/api/"]"#);
        assert_eq!(ask(&router, "/apiary").await, "inner");
        assert_eq!(ask(&router, "/").await, "inner");
    });
}

#[test]
fn mounts_add_up() {
    run(async {
        let inner =
            Router::new().fallback(|| async { "inner" }).layer(PyAsgiLayer::new(where_am_i()).at("/app"));
        let router = Router::new().nest("/outer", inner).nest_service("/nested", where_am_i());
        assert_eq!(ask(&router, "/outer/app/x").await, r#"["/outer/app", "/outer/app/x", "/outer/app/x"]"#);
        assert_eq!(ask(&router, "/nested/x").await, r#"["/nested", "/nested/x", "/nested/x"]"#);
    });
}

#[test]
fn it_can_be_a_fallback_and_stand_in_front_of_all() {
    run(async {
        let router =
            Router::new().route("/rust", axum_get(|| async { "rust" })).fallback_service(where_am_i());
        assert_eq!(ask(&router, "/rust").await, "rust");
        assert_eq!(ask(&router, "/x").await, r#"["", "/x", "/x"]"#);
        let router = Router::new().fallback(|| async { "inner" }).layer(PyAsgiLayer::new(where_am_i()));
        assert_eq!(ask(&router, "/").await, r#"["", "/", "/"]"#);
    });
}

#[test]
#[should_panic(expected = "starts with a slash")]
fn a_prefix_starts_with_a_slash() {
    let _ = PyAsgiLayer::new(where_am_i()).at("api");
}

/// In a synchronous host there is no runtime that polls anything: the calling thread does.
#[test]
fn it_works_in_a_synchronous_host() {
    run(async {
        let app = start_http("await reply(send, [len(chunk) for chunk in await whole_body(receive)])");
        let handler =
            AsgiHandler::new(PyAsgiLayer::new(app).layer(tower::service_fn(|_: Request<Body>| async {
                Ok::<_, std::convert::Infallible>(http::Response::new(Body::empty()))
            })));
        let answer = tokio::task::spawn_blocking(move || {
            let body = Input::reader(std::io::Cursor::new(vec![b'x'; 1000]));
            let response = handler.call(Request::post("/").body(body).unwrap()).unwrap();
            std::io::read_to_string(response.into_body().into_reader()).unwrap()
        });
        let sizes: Vec<usize> = serde_json::from_str(&answer.await.unwrap()).unwrap();
        assert_eq!(sizes.iter().sum::<usize>(), 1000);
    });
}
