//! A form that uploads files, taken by a synchronous handler part by part.
//!
//! ```text
//! cargo run --example upload            # or: cargo run --example upload -- DIRECTORY
//! curl -F title=Notes -F file=@README.md -F file=@Cargo.toml http://127.0.0.1:3000/
//! curl -i -F file=@/bin/bash -F file=@Cargo.lock http://127.0.0.1:3000/    # too much: 413
//! ```
//!
//! The parser of forms is async: axum's. The handler's worker polls it in place, with the runtime that it is in, and does between two chunks what blocks: it writes files.
//!
//! All files of a form are kept, or none: one that broke off, or went over the limit, leaves nothing behind. A client's name for a file is text and never a path.
//!
//! Environment: `ADDR` (`127.0.0.1:3000`).

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use axum::extract::multipart::{Field, MultipartError};
use axum::extract::{DefaultBodyLimit, FromRequest, Multipart};
use axum::response::Html;
use axum::routing::get;
use http::{Request, Response, StatusCode};
use tempfile::NamedTempFile;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tower::{Layer, ServiceBuilder};
use tower_http::limit::RequestBodyLimitLayer;
use tower_wsgi::{BoxError, Input, Output, WsgiLayer};

/// The longest form that is taken; over it: 413.
const LIMIT: usize = 1024 * 1024;

/// How many files one form may have.
const FILES: usize = 10;

const FORM: &str = r#"<!doctype html>
<title>Upload</title>
<form method="post" enctype="multipart/form-data">
<input name="title"> <input type="file" name="file" multiple> <button>Upload</button>
</form>
"#;

/// The application. What is wrong with a form is a 4xx that its parser chooses; what is wrong with the request's body, one that the crossing chooses: 413 over the limit.
fn app(dir: &Path, request: Request<Input>) -> Result<Response<Output>, BoxError> {
    upload(dir, request).or_else(|error| match error.downcast_ref::<MultipartError>() {
        Some(wrong) if wrong.status().is_client_error() => Ok(status(wrong.status(), wrong.body_text())),
        _ => Err(error),
    })
}

/// Takes a form.
fn upload(dir: &Path, request: Request<Input>) -> Result<Response<Output>, BoxError> {
    let runtime = Handle::current();
    let request = request.map(|input| axum::body::Body::from(input.into_body()));
    let mut form = match runtime.block_on(Multipart::from_request(request, &())) {
        Ok(form) => form,
        Err(error) => return Ok(status(error.status(), error.body_text())),
    };
    let (mut title, mut files) = (None, Vec::new());
    while let Some(part) = runtime.block_on(form.next_field())? {
        if part.file_name().is_some_and(|name| !name.is_empty()) {
            if files.len() == FILES {
                return Ok(status(StatusCode::PAYLOAD_TOO_LARGE, format!("{FILES} files at most")));
            }
            files.push(receive(dir, &runtime, part)?);
        } else if part.name() == Some("title") {
            title = Some(runtime.block_on(part.text())?);
        }
    }
    // The form is here to its end. Until now the files had no names that would last.
    let mut text = title.map(|title| format!("{title:?}\n")).unwrap_or_default();
    for (called, file) in files {
        let size = file.as_file().metadata()?.len();
        let kept = keep(dir, file, &called)?;
        text += &format!("{called:?}, {size} bytes, is {kept}\n");
    }
    Ok(status(StatusCode::CREATED, text))
}

/// Writes a part to a file that is gone when it is dropped.
fn receive(dir: &Path, runtime: &Handle, mut part: Field<'_>) -> Result<(String, NamedTempFile), BoxError> {
    let called = part.file_name().unwrap_or_default().to_owned();
    let mut file = tempfile::Builder::new().prefix(".incoming-").tempfile_in(dir)?;
    while let Some(chunk) = runtime.block_on(part.chunk())? {
        file.write_all(&chunk)?;
    }
    Ok((called, file))
}

/// Gives a file a name of ours: of the client's only the ending, and that only if it is harmless.
fn keep(dir: &Path, file: NamedTempFile, called: &str) -> io::Result<String> {
    let unique = file.path().to_string_lossy();
    let mut name = format!("upload-{}", unique.rsplit("/.incoming-").next().unwrap_or_default());
    if let Some((_, ending)) = called.rsplit_once('.')
        && (1..=8).contains(&ending.len())
        && ending.bytes().all(|byte| byte.is_ascii_alphanumeric())
    {
        name = format!("{name}.{ending}");
    }
    file.persist_noclobber(dir.join(&name))?;
    Ok(name)
}

fn status(status: StatusCode, text: String) -> Response<Output> {
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    response
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let dir = match std::env::args_os().nth(1) {
        Some(dir) => PathBuf::from(dir),
        None => tempfile::tempdir()?.keep(),
    };
    eprintln!("uploads are stored in {}", dir.display());

    // A sender who stalls in the middle must not hold a worker for ever.
    let crossing = WsgiLayer::adapter().read_timeout(Duration::from_secs(30));
    let form = crossing.layer(move |request: Request<Input>| app(&dir, request));
    let form = ServiceBuilder::new()
        .layer(RequestBodyLimitLayer::new(LIMIT))
        // axum's own limit, of 2 MB, does not come on top.
        .layer(DefaultBodyLimit::disable())
        .service(form);
    let app = Router::new().route("/", get(async || Html(FORM)).post_service(form));

    let address = std::env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());
    let listener = TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}
