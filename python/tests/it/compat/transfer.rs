//! Bodies that do not fit in a hand, in both directions.

use super::host::{Site, download};
use crate::support::client::{Browser, Connection, Payload};
use crate::support::until;

const UPLOAD: usize = 20 << 20;

/// The digest of [`pattern`] at that length, as `sha256sum` has it.
const UPLOAD_SHA256: &str = "1154ac4ad25c1afe12ea6cb32c594b3be4beafc7807dcbe2547268e4656939e4";

/// Bytes that are not the same at any two places that buffers would be likely to mix up.
pub(super) fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|place| (place ^ (place >> 8) ^ (place >> 16)) as u8).collect()
}

const MULTIPART: &str = "multipart/form-data; boundary=--a-boundary";

fn multipart(file: &[u8]) -> Vec<u8> {
    let comment =
        "----a-boundary\r\nContent-Disposition: form-data; name=\"comment\"\r\n\r\nmind the gap\r\n";
    let head = "----a-boundary\r\nContent-Disposition: form-data; name=\"file\"; filename=\"file.bin\"\r\n\
                Content-Type: application/octet-stream\r\n\r\n";
    [comment.as_bytes(), head.as_bytes(), file, b"\r\n----a-boundary--\r\n"].concat()
}

pub(super) fn takes_large_uploads(browser: &mut Browser) {
    let reply = browser.post("/upload", MULTIPART, &multipart(&pattern(UPLOAD)));
    let expected = serde_json::json!({
        "filename": "file.bin", "length": UPLOAD, "sha256": UPLOAD_SHA256, "comment": "mind the gap"
    });
    assert_eq!(reply.json(), expected);
}

/// Not every framework takes them. What one does not take it must refuse, and the next request must not suffer.
pub(super) fn takes_bodies_without_a_length(site: &Site, browser: &mut Browser) {
    let json = br#"{"name": "chunked", "numbers": [20, 22]}"#;
    let kind = [("Content-Type", "application/json")];
    let reply = browser.send("POST", "/json", &kind, &Payload::Chunked(json, 7));
    assert_eq!(reply.status == 200, site.app.chunked_json, "{reply:?}");
    if site.app.chunked_json {
        assert_eq!(reply.json()["sum"], 42);
    }

    let kind = [("Content-Type", MULTIPART)];
    let body = multipart(&pattern(UPLOAD));
    // On a connection of its own: what was refused before it was read has ended the other one, of which its client may not know yet.
    let reply = site.browser().send("POST", "/upload", &kind, &Payload::Chunked(&body, 100_000));
    assert_eq!(reply.status == 200, site.app.chunked_multipart, "{reply:?}");
    if site.app.chunked_multipart {
        assert_eq!(reply.json()["sha256"], UPLOAD_SHA256);
    }
    assert_eq!(browser.get("/").status, 200);
}

pub(super) fn sends_large_files(site: &Site, browser: &mut Browser) {
    let expected = download();
    let reply = browser.get("/download");
    assert_eq!(reply.status, 200, "{reply:?}");
    if site.app.lengths || reply.header("content-length").is_some() {
        assert_eq!(reply.header("content-length"), Some(&*expected.len().to_string()));
    }
    assert!(reply.body == expected, "other bytes");
}

pub(super) fn streams(browser: &mut Browser) {
    let reply = browser.get("/stream?chunks=1000&size=0");
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-length"), None, "a streamed response has no length");
    let expected: String = (0..1000).map(|number| format!("chunk {number}\n")).collect();
    assert!(reply.text() == expected, "other chunks");
    until("the whole stream is closed", || browser.get("/streamed").json()["closed"] == 1);
}

/// Nothing is made for a client that is gone, and little for one that does not read.
pub(super) fn stops_for_leavers(site: &Site, browser: &mut Browser) {
    // More than all buffers on the way can hold: 256 MiB.
    let chunks = 4096;
    let mut stream = Connection::open(site.server.addr);
    let path = format!("{}/stream?chunks={chunks}&size=65536", site.hosting.prefix());
    stream.send("GET", &path, &[], &Payload::None).expect("a connection");
    assert_eq!(stream.head().expect("a response").status, 200);
    let first = stream.chunk().expect("a chunk").expect("not the end");
    assert!(first.starts_with(b"chunk 0\n.."), "{first:?}");
    let so_far = browser.get("/streamed").json();
    assert!(so_far["produced"].as_u64() < Some(chunks), "made ahead of its reader: {so_far}");
    assert_eq!(so_far["closed"], 0);

    drop(stream);
    until("the stream is closed", || browser.get("/streamed").json()["closed"] == 1);
    assert!(browser.get("/streamed").json()["produced"].as_u64() < Some(chunks), "made for nobody");
}
