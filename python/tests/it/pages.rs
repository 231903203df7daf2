//! The README and the guide's page, where no doctest sees them: files that are shown, Python, commands. (Rust in them is compiled by the crate's doctests.)

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use pyo3::prelude::*;

use crate::wsgi::support::{Module, blocking, run, start_interpreter};

const PAGES: [(&str, &str); 2] = [
    ("README.md", include_str!("../../README.md")),
    ("guide/python.md", include_str!("../../../docs/guide/python.md")),
];

/// The interpreter that the crate was linked with.
const PYTHON: &str = env!("TOWER_WSGI_PYTHON");

/// The blocks of code on a page, each with its language and the text in front of it.
fn blocks(page: &'static str) -> Vec<(&'static str, &'static str, &'static str)> {
    let parts: Vec<_> = page.split("```").collect();
    assert_eq!(parts.len() % 2, 1, "a block that does not end");
    let pairs = parts.chunks_exact(2).map(|pair| {
        let (language, code) = pair[1].split_once('\n').expect("a block of several lines");
        (language, code, pair[0])
    });
    pairs.collect()
}

/// The block in the README that follows these words.
fn shown(words: &str) -> &'static str {
    let mut found = blocks(PAGES[0].1).into_iter().filter(|(.., before)| before.trim_end().ends_with(words));
    let (_, code, _) = found.next().unwrap_or_else(|| panic!("no block after {words:?}"));
    code
}

#[test]
fn every_block_is_of_a_kind_that_is_checked() {
    let mut files = 0;
    for (name, page) in PAGES {
        for (language, code, _) in blocks(page) {
            match language {
                // By the crate's doctests; commands and messages below.
                "rust" | "rust,no_run" | "text" => {}
                // Below, one by one.
                "toml" => files += 1,
                "python" => {
                    start_interpreter();
                    let compiled = Python::attach(|py| {
                        py.import("builtins")?.call_method1("compile", (code, name, "exec")).map(drop)
                    });
                    compiled.unwrap_or_else(|error| panic!("{name}: {error}\n{code}"));
                }
                other => panic!("{name}: nobody checks {other:?}"),
            }
        }
    }
    assert_eq!(files, 2, "Cargo.toml and .cargo/config.toml of the first steps");
}

/// The first steps as they are shown, but that this checkout stands for crates.io.
#[test]
fn the_first_steps_compile() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    // Its dependencies are kept from run to run.
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("first-steps");
    let write = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        std::fs::write(path, text).expect("a file");
    };
    let here = format!(
        "\n[workspace]\n\n[patch.crates-io]\ntower-wsgi = {{ path = {root:?} }}\ntower-wsgi-python = {{ path = {:?} }}\n",
        root.join("python")
    );
    write("Cargo.toml", &(shown("`Cargo.toml`:").to_owned() + &here));
    write("build.rs", shown("the Python library that it was linked with:"));
    write("src/main.rs", shown("`src/main.rs`:"));
    let config = shown("`.cargo/config.toml` of a program of your own it stays:");
    let ours = config.replace("/usr/bin/python3.12", PYTHON);
    assert!(ours.contains(PYTHON), "{config}");
    write(".cargo/config.toml", &ours);
    // The versions that are here already.
    write("Cargo.lock", &std::fs::read_to_string(root.join("Cargo.lock")).expect("the workspace's"));

    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["check", "--offline", "--quiet"])
        .current_dir(&dir)
        .env("CARGO_TARGET_DIR", dir.join("target"));
    for ours in ["PYO3_PYTHON", "VIRTUAL_ENV", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET"] {
        cargo.env_remove(ours);
    }
    let output = cargo.output().expect("cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The guide's "Tell Python who the user is", from either side.
#[test]
fn who_the_user_is_in_rust_is_seen_by_python() {
    use axum::extract::Request;
    use axum::middleware::{Next, from_fn};
    use http::Response;
    use tower::{Layer as _, ServiceExt as _};
    use tower_wsgi::{BoxError, Environ, Input, Output, SyncHandler, WsgiService, sync_fn};
    use tower_wsgi_python::PyAsgi;

    const USER: &str = "zoë";

    fn tell<B>(request: &mut http::Request<B>) {
        let mut environ = Environ::of(request);
        environ.set("REMOTE_USER", USER);
        request.extensions_mut().insert(environ);
    }

    fn on_the_worker(
        mut request: http::Request<Input>,
        next: &dyn SyncHandler,
    ) -> Result<Response<Output>, BoxError> {
        tell(&mut request);
        next.call(request)
    }

    run(async {
        let module = Module::new(
            r"
            def wsgi(environ, start_response):
                start_response('200 OK', [])
                return [environ['REMOTE_USER'].encode('latin-1').decode().encode()]
            async def asgi(scope, receive, send):
                user = scope['wsgi_environ']['REMOTE_USER'].encode('latin-1').decode()
                await send({'type': 'http.response.start', 'status': 200})
                await send({'type': 'http.response.body', 'body': user.encode()})
            ",
        );
        let site = module.wsgi("wsgi");
        let api = blocking({
            let api = module.callable("asgi");
            move || PyAsgi::new(api).expect("a start")
        });
        let app = axum::Router::new()
            .nest_service("/api", api.await)
            .fallback_service(WsgiService::new(site.clone()))
            .layer(from_fn(async |mut request: Request, next: Next| {
                tell(&mut request);
                next.run(request).await
            }))
            .nest_service("/worker", WsgiService::new(sync_fn(on_the_worker).layer(site)));
        for path in ["/", "/api", "/worker"] {
            let request = Request::get(path).body(axum::body::Body::empty()).expect("a request");
            let response = app.clone().oneshot(request).await.expect("an answer");
            let body = axum::body::to_bytes(response.into_body(), 1000).await.expect("a body");
            assert_eq!(String::from_utf8_lossy(&body), USER, "{path}");
        }
    });
}

/// The options that a text names.
fn options(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_lowercase() || c == '-'));
    words
        .filter(|word| word.strip_prefix("--").is_some_and(|name| name.starts_with(char::is_alphabetic)))
        .collect()
}

#[test]
fn options_and_examples_that_are_named_exist() {
    /// Those of other programs.
    const OTHERS: [&str; 4] = ["--bench", "--enable-shared", "--example", "--release"];

    let help = Command::new(env!("CARGO_BIN_EXE_tower-wsgi")).arg("--help").output().expect("the server");
    let help = String::from_utf8(help.stdout).expect("text");
    let has: BTreeSet<_> = options(&help).into_iter().chain(OTHERS).collect();
    for (name, page) in PAGES {
        let unknown: Vec<_> = options(page).difference(&has).copied().collect();
        assert!(unknown.is_empty(), "{name} names {unknown:?}");
    }
    let told = options(PAGES[0].1);
    let untold: Vec<_> =
        options(&help).into_iter().filter(|option| !told.contains(option) && *option != "--help").collect();
    assert!(untold.is_empty(), "the README does not name {untold:?}");

    let examples = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/examples")).expect("the examples");
    let examples = examples.map(|entry| entry.expect("an entry").path());
    let examples: BTreeSet<_> =
        examples.map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned()).collect();
    let (_, table) = PAGES[0].1.split_once("| example | shows |").expect("the table of examples");
    let rows = table.lines().skip(2).map_while(|row| row.strip_prefix("| `"));
    let told: BTreeSet<_> = rows.filter_map(|row| Some(row.split_once('`')?.0.to_owned())).collect();
    assert_eq!(told, examples);
}
