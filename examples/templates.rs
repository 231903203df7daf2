//! Pages made of templates, by a synchronous handler.
//!
//! ```text
//! cargo run --example templates
//! curl 'http://127.0.0.1:3000/hello?name=Ali'
//! curl -G --data-urlencode 'name=<script>' http://127.0.0.1:3000/hello      # escaped
//! curl -i http://127.0.0.1:3000/broken                                        # a template that fails: a clean 500
//! ```
//!
//! A page is rendered as a whole before it is sent: a template that fails half way is then a 500 and not half a page. The names of the templates end in `.html`, and so
//! what they show is escaped.
//!
//! Environment: `ADDR` (`127.0.0.1:3000`).

use std::io;
use std::sync::Arc;

use axum::Router;
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode};
use minijinja::{Environment, UndefinedBehavior, Value, context};
use percent_encoding::percent_decode_str;
use tokio::net::TcpListener;
use tower::Layer;
use tower_wsgi::{BoxError, Error, Input, Output, WsgiLayer};

/// What all pages have in common.
const BASE: &str = r#"<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>{% block title %}{% endblock %}</title></head>
<body>{% block body %}{% endblock %}</body>
</html>
"#;

const HELLO: &str = r#"{% extends "base.html" %}
{% block title %}Hello {{ name }}{% endblock %}
{% block body %}<h1>Hello {{ name }}!</h1>
<ul>{% for (header, value) in headers %}
<li>{{ header }}: {{ value }}</li>{% endfor %}
</ul>{% endblock %}
"#;

/// It names something that nobody gives it.
const BROKEN: &str = r#"{% extends "base.html" %}
{% block body %}<h1>Dear {{ customer.name }}!</h1>{% endblock %}
"#;

const ERROR: &str = r#"{% extends "base.html" %}
{% block title %}{{ status }}{% endblock %}
{% block body %}<h1>{{ status }}</h1>{% endblock %}
"#;

fn templates() -> Result<Environment<'static>, minijinja::Error> {
    let mut templates = Environment::new();
    // What is missing is an error and not an empty space on the page.
    templates.set_undefined_behavior(UndefinedBehavior::Strict);
    let sources =
        [("base.html", BASE), ("hello.html", HELLO), ("broken.html", BROKEN), ("error.html", ERROR)];
    for (name, source) in sources {
        templates.add_template(name, source)?;
    }
    Ok(templates)
}

/// Renders a page.
fn page(
    templates: &Environment<'_>,
    name: &str,
    status: StatusCode,
    values: Value,
) -> Result<Response<Output>, BoxError> {
    let text = templates.get_template(name)?.render(values)?;
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    // Should something unescaped get through after all, no script of it runs.
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'self'"));
    Ok(response)
}

/// The application.
fn app(templates: &Environment<'_>, request: &Request<Input>) -> Result<Response<Output>, BoxError> {
    match request.uri().path() {
        "/hello" => {
            let query = request.uri().query().unwrap_or_default();
            let name = query.split('&').find_map(|pair| pair.strip_prefix("name=")).unwrap_or("nobody");
            let name = percent_decode_str(name).decode_utf8_lossy();
            let headers: Vec<_> = request
                .headers()
                .iter()
                .map(|(name, value)| {
                    vec![name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()]
                })
                .collect();
            page(templates, "hello.html", StatusCode::OK, context! { name, headers })
        }
        "/broken" => page(templates, "broken.html", StatusCode::OK, context! {}),
        _ => failed(templates, StatusCode::NOT_FOUND),
    }
}

/// The page that says what went wrong, but no more than that: an error's own text is for the log.
fn failed(templates: &Environment<'_>, status: StatusCode) -> Result<Response<Output>, BoxError> {
    page(templates, "error.html", status, context! { status => status.to_string() })
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    tracing_subscriber::fmt().with_writer(io::stderr).init();

    let templates = Arc::new(templates()?);
    let for_errors = templates.clone();
    let crossing = WsgiLayer::adapter().on_error(move |error: &Error| {
        // That went wrong, too? Then without a template.
        failed(&for_errors, error.status()).unwrap_or_else(|_| {
            let mut response = Response::new(Output::from("Internal Server Error\n"));
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        })
    });
    let pages = crossing.layer(move |request: Request<Input>| app(&templates, &request));

    let address = std::env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());
    let listener = TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, Router::new().fallback_service(pages)).await?;
    Ok(())
}
