//! The example whose events are the work, on the wire and in a browser.

use std::io::Cursor;
use std::time::Instant;

use serde_json::json;

use super::browser::{self, Browser};
use super::example::{with, with_patience};

#[test]
fn progress_is_told_before_the_work_is_done() {
    with("progress", &[], |example| {
        assert_eq!(example.ask("GET", "/image/1", &[], "").status, 404);
        let mut client = example.begin("/render");
        assert_eq!(client.head().expect("a head").header("content-type"), Some("text/event-stream"));
        let mut events = Vec::new();
        while let Some(chunk) = client.chunk().expect("a chunk") {
            events.push(String::from_utf8(chunk).expect("text"));
        }
        assert_eq!(events.len(), 21, "an event is a chunk: {events:?}");
        assert_eq!(events[0], "event: progress\ndata: 5\n\n");
        assert_eq!(events[19], "event: progress\ndata: 100\n\n");
        assert_eq!(events[20], "event: done\ndata: /image/1\n\n");

        let image = example.ask("GET", "/image/1", &[], "");
        assert_eq!(image.header("content-type"), Some("image/png"));
        let mut png = png::Decoder::new(Cursor::new(image.body)).read_info().expect("an image");
        assert_eq!((png.info().width, png.info().height), (480, 320));
        let mut pixels = vec![0; 480 * 320];
        png.next_frame(&mut pixels).expect("a whole image");
        // In the middle of the set, and outside of it.
        assert_eq!((pixels[160 * 480 + 320], pixels[0]), (255, 0));
    });
}

#[test]
fn progress_is_shown_by_a_browser() {
    // A start, a page, an end, and what the machine does meanwhile.
    with_patience("progress", 4 * browser::PATIENCE, |example| {
        let Some(browser) = Browser::start() else { return };
        browser.open(&format!("http://{}/", example.addr));
        let deadline = Instant::now() + browser::PATIENCE;
        let state = loop {
            let state = browser.run(
                "const image = document.getElementById('image');
                 return [document.getElementById('state').textContent, document.querySelector('progress').value,
                         image.naturalWidth, image.naturalHeight, new URL(image.src || '/', location).pathname, events.readyState]",
            );
            if state[0] == "done" {
                break state;
            }
            assert!(Instant::now() < deadline, "the page says {state}");
        };
        // Two is closed: else it would ask again, for another image.
        assert_eq!(state, json!(["done", 100, 480, 320, "/image/1", 2]));
    });
}
