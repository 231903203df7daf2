//! Recursions without an end: `RecursionError`, as on CPython's own threads, and not the end of the process.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::support::{hex, unharmed};

/// What each application does; all that is deep enough raises.
const CASES: &[&str] = &[
    "def f(): return f()\nf()",
    "class X:\n def __getattr__(self, name): return getattr(self, name + 'x')\nX().a",
    "class X:\n def __call__(self): return self()\nX()()",
    "class X:\n def __repr__(self): return repr(self)\nrepr(X())",
    "class X:\n def __eq__(self, other): return self == other\nX() == X()",
    "class X:\n def __iter__(self): return iter(self)\niter(X())",
    "class X:\n def __init__(self): X()\nX()",
    "class X:\n def __contains__(self, item): return item in self\n1 in X()",
    "class M(type):\n def __instancecheck__(self, item): return isinstance(item, self)\nclass X(metaclass=M): pass\nisinstance(1, X)",
    "import re\ndef f(m): return re.sub('a', f, 'a')\nf(None)",
    // These take the most of the stack: some 4 KiB for each level.
    "def f(x): return sorted([x, x], key=f)\nf(1)",
    "import functools\ndef f(a, b): return sorted([1, 2], key=functools.cmp_to_key(f))[0]\nf(1, 2)",
    "def f(x): return list(map(f, [x]))\nf(1)",
    "def f(x): return max([x, x], key=f)\nf(1)",
    "def f(): return any(f() for _ in [1])\nf()",
    "def f():\n yield from f()\nlist(f())",
    "import functools\ndef f(): return functools.partial(f)()\nf()",
    "import functools\n@functools.lru_cache(None)\ndef f(n): return f(n + 1)\nf(0)",
    "def f(): return eval('f()', {'f': f})\nf()",
    "import json\njson.loads('[' * 100_000)",
    "import json\njson.loads('{\"a\":' * 100_000)",
    "import json\nx = []\nfor _ in range(10_000): x = [x]\njson.dumps(x)",
    "x = []\nfor _ in range(10_000): x = [x]\nrepr(x)",
    "x, y = [], []\nfor _ in range(10_000): x, y = [x], [y]\nx == y",
    "import copy\nx = []\nfor _ in range(10_000): x = [x]\ncopy.deepcopy(x)",
    "import pickle\nx = []\nfor _ in range(10_000): x = [x]\npickle.dumps(x)",
    "x = (int,)\nfor _ in range(10_000): x = (x,)\nisinstance('', x)",
    "compile('(' * 90 + ')' * 90 + '+1' * 100_000, 'x', 'eval')",
    "import re\nre.compile('(' * 5000 + ')' * 5000)",
    "def f():\n try: 1 / 0\n except ZeroDivisionError: f()\nf()",
];

fn indented(code: &str, by: usize) -> String {
    code.lines().map(|line| format!("{}{line}\n", " ".repeat(by))).collect()
}

fn recursions_are_errors(target: &'static str, frame: fn(&str) -> String) {
    let rounds = AtomicUsize::new(0);
    unharmed(target, move |site, _| {
        // The first round imports what is imported.
        let every = if rounds.fetch_add(1, Ordering::Relaxed) == 0 { 1 } else { 4 };
        for code in CASES.iter().step_by(every) {
            let request = format!(
                "GET /run HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Code: {}\r\n\r\n",
                hex(&frame(code))
            );
            let seen = site.ask(request.as_bytes());
            assert_eq!((seen.status, seen.whole), (500, true), "{code}\n{seen:?}");
            assert_eq!(site.get("/ok").body, b"ok", "{code}");
        }
        let log = site.server.log().text();
        assert!(log.contains("RecursionError: maximum recursion depth exceeded"), "{log}");
    });
}

#[test]
fn a11_a_recursion_without_an_end_is_a_500_on_a_worker() {
    recursions_are_errors("app:wsgi", |code| {
        format!("def app(environ, start_response):\n{}", indented(code, 1))
    });
}

#[test]
fn a11_a_recursion_without_an_end_is_a_500_in_a_step_of_the_response() {
    recursions_are_errors("app:wsgi", |code| {
        format!(
            "def app(environ, start_response):\n start_response('200 OK', [])\n yield b''\n{}",
            indented(code, 1)
        )
    });
}

#[test]
fn a11_a_recursion_without_an_end_is_a_500_on_an_event_loop() {
    recursions_are_errors("app:asgi", |code| {
        format!(
            "async def app(scope, receive, send):\n await receive()\n await asyncio.sleep(0)\n{}",
            indented(code, 1)
        )
    });
}
