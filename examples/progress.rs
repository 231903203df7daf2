//! An image that takes its time, and a page that shows how far it is: server-sent events from a synchronous handler.
//!
//! ```text
//! cargo run --release --example progress
//! xdg-open http://127.0.0.1:3000/                      # in a browser
//! curl -N http://127.0.0.1:3000/render                 # or as it is on the wire
//! ```
//!
//! The events *are* the work: an iterator of which each item computes some rows of the image. There is no job queue, no thread of its own, no channel. If the client leaves, the
//! iterator is dropped and the work is over; if it does not read, the work is put aside, and its worker is free for others.
//!
//! Environment: `ADDR` (`127.0.0.1:3000`).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use axum::Router;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use png::{BitDepth, ColorType, Encoder};
use tokio::net::TcpListener;
use tower::Layer;
use tower_wsgi::{BoxError, Input, Output, WsgiLayer};

const WIDTH: u32 = 480;
const HEIGHT: u32 = 320;

/// How many rows are computed between two events.
const BAND: u32 = 16;

/// How many images are kept.
const KEPT: usize = 16;

const PAGE: &str = r#"<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Progress</title></head>
<body>
<progress max="100" value="0"></progress> <span id="state">starting</span>
<p><img id="image" alt=""></p>
<script>
const state = document.getElementById("state");
const events = new EventSource("/render");
events.addEventListener("progress", event => {
  document.querySelector("progress").value = event.data;
  state.textContent = event.data + " %";
});
events.addEventListener("done", event => {
  // An event source that is not closed asks again when its stream ends.
  events.close();
  const image = document.getElementById("image");
  image.onload = () => state.textContent = "done";
  image.src = event.data;
});
</script>
</body>
</html>
"#;

/// The images that are ready, the newest last.
#[derive(Clone, Default)]
struct Gallery(Arc<Mutex<VecDeque<(u64, Bytes)>>>);

impl Gallery {
    fn keep(&self, image: Vec<u8>) -> u64 {
        let mut images = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let id = images.back().map_or(1, |(last, _)| last + 1);
        if images.len() == KEPT {
            images.pop_front();
        }
        images.push_back((id, image.into()));
        id
    }

    fn find(&self, id: u64) -> Option<Bytes> {
        let images = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        images.iter().find(|(other, _)| *other == id).map(|(_, image)| image.clone())
    }
}

/// An image that is being computed. Each item is an event.
struct Rendering {
    gallery: Gallery,
    /// A byte per pixel, of the rows that are done.
    pixels: Vec<u8>,
    is_over: bool,
}

impl Iterator for Rendering {
    type Item = Result<String, png::EncodingError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let done = self.pixels.len() as u32 / WIDTH;
        if done < HEIGHT {
            let band = done..(done + BAND).min(HEIGHT);
            self.pixels.extend(band.flat_map(|y| (0..WIDTH).map(move |x| shade(x, y))));
            let percent = self.pixels.len() as u32 / WIDTH * 100 / HEIGHT;
            return Some(Ok(format!("event: progress\ndata: {percent}\n\n")));
        }
        self.is_over = true;
        Some(encode(&self.pixels).map(|image| {
            let id = self.gallery.keep(image);
            format!("event: done\ndata: /image/{id}\n\n")
        }))
    }
}

/// How soon a point leaves the Mandelbrot set.
fn shade(x: u32, y: u32) -> u8 {
    let (a, b) = (f64::from(x) * 3.0 / f64::from(WIDTH) - 2.2, f64::from(y) * 2.0 / f64::from(HEIGHT) - 1.0);
    let (mut re, mut im) = (a, b);
    for step in 0..=254 {
        if re * re + im * im > 4.0 {
            return step;
        }
        (re, im) = (re * re - im * im + a, 2.0 * re * im + b);
    }
    255
}

fn encode(pixels: &[u8]) -> Result<Vec<u8>, png::EncodingError> {
    let mut image = Vec::new();
    let mut encoder = Encoder::new(&mut image, WIDTH, HEIGHT);
    encoder.set_color(ColorType::Grayscale);
    encoder.set_depth(BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    Ok(image)
}

/// The application.
fn app(gallery: &Gallery, request: &Request<Input>) -> Response<Output> {
    let path = request.uri().path();
    match (request.method(), path) {
        (&Method::GET, "/") => answer("text/html; charset=utf-8", PAGE),
        (&Method::GET, "/render") => {
            let rendering = Rendering { gallery: gallery.clone(), pixels: Vec::new(), is_over: false };
            answer("text/event-stream", Output::try_iter(rendering))
        }
        _ => {
            let id = path.strip_prefix("/image/").and_then(|id| id.parse().ok());
            match id.and_then(|id| gallery.find(id)) {
                Some(image) => answer("image/png", image),
                None => {
                    let mut response = answer("text/plain", "no such image\n");
                    *response.status_mut() = StatusCode::NOT_FOUND;
                    response
                }
            }
        }
    }
}

fn answer(kind: &'static str, body: impl Into<Output>) -> Response<Output> {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // Work that computes gains nothing by more threads than there are cores.
    let cores = thread::available_parallelism().map_or(1, Into::into);
    let gallery = Gallery::default();
    let images =
        WsgiLayer::adapter().workers(cores).layer(move |request: Request<Input>| app(&gallery, &request));

    let address = std::env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());
    let listener = TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, Router::new().fallback_service(images)).await?;
    Ok(())
}
