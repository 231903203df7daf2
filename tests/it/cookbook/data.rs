//! The examples that keep something: rows, files, pages.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use rusqlite::Connection;
use tempfile::TempDir;

use super::example::{Example, head, until, with};

/// Runs a test against the `SQLite` example and its database.
fn with_notes(test: impl FnOnce(&Example, &Path) + Send + 'static) {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("notes.db");
    let argument = path.to_str().expect("text").to_owned();
    with("sqlite", &[&argument], move |example| test(example, &path));
}

#[test]
fn sqlite_keeps_all_notes_of_a_request_or_none() {
    with_notes(|example, _| {
        let mut client = example.connect();
        let reply = client.ask("POST", "/notes", &[], "buy milk\nsay \"hello\"\n");
        assert_eq!((reply.status, reply.text()), (201, "2 notes\n"));

        // The second of these is none.
        let reply = client.ask("POST", "/notes", &[], "good\n\nnever seen\n");
        assert_eq!(reply.status, 422, "{}", reply.text());
        // Nor is half an upload a whole one.
        let mut gone = example.connect();
        gone.send(head("POST", "/notes", &["Content-Length: 100"]) + "\r\nhalf\nof them\n");
        gone.finish();
        assert_eq!(gone.reply("POST").expect("a response").status, 400);
        assert_eq!(example.ask("POST", "/notes", &[], &"x\n".repeat(40_000)).status, 413);

        for path in ["/notes.csv", "/pages.csv"] {
            let reply = client.ask("GET", path, &[], "");
            assert_eq!(reply.text(), "id,text\r\n1,\"buy milk\"\r\n2,\"say \"\"hello\"\"\"\r\n", "{path}");
        }
    });
}

#[test]
fn sqlite_answers_a_query_that_fails_with_a_500() {
    with_notes(|example, path| {
        let database = Connection::open(path).expect("a database");
        for path in ["/notes.csv", "/pages.csv"] {
            assert_eq!(example.ask("GET", path, &[], "").text(), "id,text\r\n", "{path}");
        }
        database.execute("DROP TABLE notes", []).expect("no table");
        for path in ["/notes.csv", "/pages.csv"] {
            assert_eq!(example.ask("GET", path, &[], "").status, 500, "{path}");
        }
    });
}

#[test]
fn sqlite_writers_take_turns() {
    with_notes(|example, path| {
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..5 {
                        assert_eq!(example.ask("POST", "/notes", &[], &"x\n".repeat(30)).status, 201);
                    }
                });
            }
        });
        // What was answered is on disk, also when the process ends without a word.
        example.kill();
        let database = Connection::open(path).expect("a database");
        let count = database.query_row("SELECT count(*) FROM notes", [], |row| row.get::<_, u32>(0));
        assert_eq!(count.expect("a number"), 8 * 5 * 30);
    });
}

/// Adds more than the sockets' buffers hold: a download cannot be over before its client has read, or is gone.
fn fill(path: &Path) {
    let database = Connection::open(path).expect("a database");
    let notes =
        "INSERT INTO notes (text) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 20000)
                 SELECT hex(zeroblob(490)) FROM n";
    database.execute(notes, []).expect("notes");
}

#[test]
fn sqlite_pages_hold_nothing_while_nobody_reads() {
    with_notes(|example, path| {
        fill(path);
        // Twice as many as there are workers and connections.
        let mut clients: Vec<_> = (0..8).map(|_| example.begin("/pages.csv")).collect();
        for client in &mut clients {
            assert_eq!(client.head().expect("a head").status, 200);
        }
        assert_eq!(example.ask("POST", "/notes", &[], "one more\n").status, 201);
    });
}

#[test]
fn sqlite_connections_come_back_on_workers() {
    with_notes(|example, path| {
        fill(path);
        // More than there are connections.
        for _ in 0..6 {
            for path in ["/notes.csv", "/pages.csv"] {
                let mut client = example.begin(path);
                assert_eq!(client.head().expect("a head").status, 200);
                client.chunk().expect("a chunk").expect("more");
            }
        }
        let whole = example.ask("GET", "/notes.csv", &[], "");
        let paged = example.ask("GET", "/pages.csv", &[], "");
        assert_eq!(whole.body.iter().filter(|byte| **byte == b'\n').count(), 20_001);
        assert!(whole.body == paged.body, "the same notes");

        assert_eq!(example.ask("HEAD", "/notes.csv", &[], "").status, 200);

        let back = |log: &str| log.lines().filter(|line| line.contains("came back on")).count();
        // Six downloads, a whole one, and 41 pages.
        let log = until("all connections are back", || Some(example.log()).filter(|log| back(log) >= 48));
        assert!(
            log.lines().all(|line| !line.contains("came back on") || line.ends_with(" tower-wsgi-worker")),
            "{log}"
        );
    });
}

#[test]
fn templates_escape_what_they_show() {
    with("templates", &[], |example| {
        let mut client = example.connect();
        let reply = client.ask("GET", "/hello?name=Ali", &["X-Mark: a < b"], "");
        assert_eq!(reply.header("content-type"), Some("text/html; charset=utf-8"));
        assert!(reply.text().contains("<title>Hello Ali</title>"), "{}", reply.text());
        assert!(reply.text().contains("<li>x-mark: a &lt; b</li>"), "{}", reply.text());

        let reply = client.ask("GET", "/hello?name=%3Cscript%3Ealert(1)%3C/script%3E", &[], "");
        assert!(reply.text().contains("Hello &lt;script&gt;"), "{}", reply.text());
        assert!(!reply.text().contains("<script>"), "{}", reply.text());
    });
}

#[test]
fn templates_that_fail_are_a_clean_500() {
    with("templates", &[], |example| {
        let mut client = example.connect();
        let reply = client.ask("GET", "/broken", &[], "");
        assert_eq!(reply.status, 500);
        assert!(reply.text().contains("<h1>500 Internal Server Error</h1>"), "{}", reply.text());
        assert!(!reply.text().contains("customer") && !reply.text().contains("Dear"), "{}", reply.text());
        assert_eq!(client.ask("GET", "/elsewhere", &[], "").status, 404);
    });
}

/// A form of parts, each with a name, a file's name, and its content.
fn form(parts: &[(&str, Option<&str>, &str)]) -> String {
    let parts = parts.iter().map(|(name, file, content)| {
        let file = file.map(|file| format!("; filename=\"{file}\"")).unwrap_or_default();
        format!("--X\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n{content}\r\n")
    });
    parts.collect::<String>() + "--X--\r\n"
}

const FORM: &str = "Content-Type: multipart/form-data; boundary=X";

/// Runs a test against the upload example and its directory.
fn with_uploads(test: impl FnOnce(&Example, &Path) + Send + 'static) {
    let dir = Arc::new(TempDir::new().expect("a directory"));
    let inside = dir.path().join("uploads");
    fs::create_dir(&inside).expect("a directory");
    let argument = inside.to_str().expect("text").to_owned();
    with("upload", &[&argument], move |example| {
        test(example, &inside);
        assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 1, "nothing is outside");
    });
}

/// Names and contents of the files in a directory, in the order of their contents.
fn files(dir: &Path) -> Vec<(String, String)> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .expect("a directory")
        .map(|file| {
            let file = file.expect("a file");
            let content = fs::read_to_string(file.path()).unwrap_or_default();
            (file.file_name().into_string().expect("text"), content)
        })
        .collect();
    files.sort_by(|(_, one), (_, other)| one.cmp(other));
    files
}

#[test]
fn upload_keeps_files_under_safe_names() {
    with_uploads(|example, dir| {
        assert!(example.ask("GET", "/", &[], "").text().contains("multipart/form-data"));
        let large = "z".repeat(200_000);
        let form = form(&[
            ("title", None, "My files"),
            ("file", Some("notes.txt"), "a note"),
            ("file", Some("../../../etc/passwd"), "b root"),
            ("file", Some(".../x.t/xt"), "c"),
            ("file", Some("large.bin"), &large),
            // What browsers send for a field that was left empty.
            ("file", Some(""), ""),
        ]);
        let reply = example.ask("POST", "/", &[FORM], &form);
        assert_eq!(reply.status, 201, "{}", reply.text());
        assert!(
            reply.text().starts_with("\"My files\"\n\"notes.txt\", 6 bytes, is upload-"),
            "{}",
            reply.text()
        );

        let files = files(dir);
        let contents: Vec<_> = files.iter().map(|(_, content)| content.as_str()).collect();
        assert_eq!(contents, ["a note", "b root", "c", &large]);
        for ((name, _), ending) in files.iter().zip([".txt", "", "", ".bin"]) {
            let middle = name.strip_prefix("upload-").and_then(|name| name.strip_suffix(ending));
            assert!(
                middle.is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_alphanumeric())),
                "{name}"
            );
            assert!(reply.text().contains(name));
        }
    });
}

#[test]
fn upload_leaves_nothing_of_half_a_form() {
    with_uploads(|example, dir| {
        let whole = form(&[("file", Some("a.txt"), "first"), ("file", Some("b.txt"), &"x".repeat(100_000))]);
        // The connection breaks off.
        let mut client = example.connect();
        let length = format!("Content-Length: {}", whole.len());
        client.send(head("POST", "/", &[FORM, &length]) + "\r\n" + &whole[..90_000]);
        client.finish();
        assert_eq!(client.reply("POST").expect("a response").status, 400);
        // The request is whole, and its form is not.
        assert_eq!(example.ask("POST", "/", &[FORM], &whole[..90_000]).status, 400);
        // No form.
        assert_eq!(example.ask("POST", "/", &[], "a=b").status, 400);

        // Too much, as it declares, and as the handler finds out.
        let large =
            form(&[("file", Some("a.txt"), "first"), ("file", Some("b.txt"), &"x".repeat(2_000_000))]);
        // No more is sent than the server reads before it answers: it closes the connection then, and what comes later would fail to be sent.
        let mut client = example.connect();
        let length = format!("Content-Length: {}", large.len());
        client.send(head("POST", "/", &[FORM, &length]) + "\r\n");
        assert_eq!(client.reply("POST").expect("a response").status, 413);
        let mut client = example.connect();
        client.send(head("POST", "/", &[FORM, "Transfer-Encoding: chunked"]) + "\r\n");
        client.send(format!("{:x}\r\n{}", 1_100_000, &large[..=1024 * 1024]));
        assert_eq!(client.reply("POST").expect("a response").status, 413);
        let many = form(&[("file", Some("a.txt"), "first"); 11]);
        assert_eq!(example.ask("POST", "/", &[FORM], &many).status, 413);

        until("nothing is left", || files(dir).is_empty().then_some(()));
    });
}
