//! The promises of the way back: async services in synchronous hosts.

use axum::{Router, routing::get};
use http::Request;
use tower_wsgi::{AsgiHandler, Input, SyncHandler};

use crate::support::watched;

#[test]
fn b1_a_service_answers_on_a_plain_thread() {
    watched(|| {
        let router = Router::<()>::new().route("/", get(|| async { "Hello World!" }));
        let request = Request::get("/").body(Input::empty()).expect("a request");
        let response = AsgiHandler::new(router).call(request).expect("a response");
        let text = std::io::read_to_string(response.into_body().into_reader()).expect("a body");
        assert_eq!(text, "Hello World!");
    });
}
