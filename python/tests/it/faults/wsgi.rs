//! WSGI applications that fail, at each step of a response and in each way that Python has.

use super::support::{Seen, Site, Wire, hex, responses, show, unharmed};

/// What raises: an expression, a word of its traceback.
const RAISES: &[(&str, &str)] = &[
    ("1 / 0", "ZeroDivisionError"),
    ("fail(SystemExit(3))", "SystemExit"),
    ("fail(KeyboardInterrupt())", "KeyboardInterrupt"),
    ("fail(GeneratorExit())", "GeneratorExit"),
    ("fail(BaseException('bare'))", "BaseException"),
    ("fail(MemoryError())", "MemoryError"),
    ("bytes(1 << 60)", "MemoryError"),
    ("fail(RecursionError())", "RecursionError"),
    ("fail(asyncio.CancelledError())", "CancelledError"),
    ("fail(StopAsyncIteration())", "StopAsyncIteration"),
    ("fail(BrokenPipeError())", "BrokenPipeError"),
    ("fail(TimeoutError())", "TimeoutError"),
    ("fail(Mute())", "Mute"),
    ("fail(Loop())", "Loop"),
    ("fail(ExceptionGroup('group', [ValueError(), TypeError()]))", "ExceptionGroup"),
    ("fail(UnicodeEncodeError('latin-1', '\\ud800', 0, 1, 'odd'))", "UnicodeEncodeError"),
    ("fail(OSError('\\ud800\\x1b[2J\\r\\n2026-01-01 INFO all is well'))", "OSError"),
    ("fail(5)", "TypeError"),
];

/// What all applications may use.
const PRELUDE: &str = "
class Mute(Exception):
 def __str__(self): raise ValueError('no words')
 __repr__ = __str__
class Loop(Exception):
 def __init__(self): self.__cause__ = self
class Del:
 def __del__(self): raise ValueError('in __del__')
def fail(error): raise error
";

/// Where it raises: the application, with `{}` for what raises, and what its client gets.
const STEPS: &[(&str, Expected)] = &[
    ("def app(environ, start_response):\n {}", Expected::Clean),
    ("def app(environ, start_response):\n start_response({}, [])\n return [b'x']", Expected::Clean),
    ("def app(environ, start_response):\n start_response('200 OK', {})\n return [b'x']", Expected::Clean),
    ("def app(environ, start_response):\n start_response('200 OK', [('a', 'b')])\n {}", Expected::Clean),
    ("def app(environ, start_response):\n start_response('200 OK', [])(b'')\n {}", Expected::Clean),
    ("def app(environ, start_response):\n start_response('200 OK', [])(b'one')\n {}", Expected::Cut(b"one")),
    ("def app(environ, start_response):\n start_response('200 OK', [])({})", Expected::Clean),
    (
        "def app(environ, start_response):\n write = start_response('200 OK', [])\n write(b'one')\n write({})",
        Expected::Cut(b"one"),
    ),
    ("def app(environ, start_response):\n {}\n yield b'x'", Expected::Clean),
    ("def app(environ, start_response):\n start_response('200 OK', [])\n {}\n yield b'x'", Expected::Clean),
    (
        "def app(environ, start_response):\n start_response('200 OK', [])\n yield b''\n yield b''\n {}\n yield b'x'",
        Expected::Clean,
    ),
    (
        "def app(environ, start_response):\n start_response('200 OK', [])\n yield b'one'\n {}\n yield b'x'",
        Expected::Cut(b"one"),
    ),
    (
        "def app(environ, start_response):\n start_response('200 OK', [])\n yield b'one'\n yield b'two'\n yield b'three'\n {}",
        Expected::Cut(b"onetwothree"),
    ),
    (
        "def app(environ, start_response):\n start_response('200 OK', [])\n yield b'one'\n try: yield b'two'\n finally: {}",
        Expected::Cut(b"onetwo"),
    ),
    (
        "def app(environ, start_response):\n start_response('200 OK', [])\n return map(lambda i: {}, [1])",
        Expected::Clean,
    ),
    (
        "def app(environ, start_response):\n start_response('200 OK', [])\n return map(lambda i: i and {} or b'one', range(2))",
        Expected::Cut(b"one"),
    ),
    (
        "class app:\n def __init__(self, environ, start_response): start_response('200 OK', [])\n def __iter__(self): {}",
        Expected::Clean,
    ),
    (
        "class app:\n def __init__(self, environ, start_response): {}\n def __iter__(self): return iter([b'x'])",
        Expected::Clean,
    ),
    (
        "class app:\n def __init__(self, environ, start_response): start_response('200 OK', [])\n def __iter__(self): return self\n def __next__(self): {}",
        Expected::Clean,
    ),
    (
        "class app:\n def __init__(self, environ, start_response): start_response('200 OK', [])\n def __iter__(self): return iter([b'one'])\n @property\n def close(self): {}",
        Expected::Clean,
    ),
    // The response is over by then: its client has it, and the log has the rest.
    (
        "class app:\n def __init__(self, environ, start_response): start_response('200 OK', [])\n def __iter__(self): return iter([b'whole'])\n def close(self): {}",
        Expected::Whole(b"whole"),
    ),
    (
        "class app:\n def __init__(self, environ, start_response): self.start = start_response\n def __iter__(self):\n  self.start('200 OK', [])\n  yield b'one'\n  1 / 0\n def close(self): {}",
        Expected::Cut(b"one"),
    ),
    (
        "def app(environ, start_response):\n start_response('200 OK', [])\n try: 1 / 0\n except ZeroDivisionError:\n  import sys\n  start_response('500 Oops', [('x', 'y')], sys.exc_info())\n  {}",
        Expected::Clean,
    ),
    (
        "def app(environ, start_response):\n class Input:\n  def read(self): {}\n environ['wsgi.input'] = Input()\n start_response('200 OK', [])\n return [environ['wsgi.input'].read()]",
        Expected::Clean,
    ),
    (
        "def app(environ, start_response):\n class File:\n  def read(self, size): {}\n  def close(self): note('closed')\n start_response('200 OK', [])\n return environ['wsgi.file_wrapper'](File())",
        Expected::Clean,
    ),
];

#[derive(Clone, Copy, Debug)]
enum Expected {
    /// A 500 without a trace of the application's head.
    Clean,
    /// A 200 whose body ends too early.
    Cut(&'static [u8]),
    Whole(&'static [u8]),
}

/// Runs an application on a connection on which another request waits behind it; what came for both.
fn run(site: &Site, code: &str) -> Vec<Seen> {
    let mut wire = Wire::open(site.addr);
    let run = format!("GET /run HTTP/1.1\r\nHost: a\r\nX-Code: {}\r\n\r\n", hex(&format!("{PRELUDE}{code}")));
    wire.send(&[run.as_bytes(), b"GET /ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"].concat());
    let bytes = wire.rest();
    let seen = responses(&bytes, "GET");
    assert!(!seen.is_empty(), "{code}\n{}", show(&bytes));
    seen
}

fn check(code: &str, seen: &[Seen], expected: Expected) {
    let first = &seen[0];
    match expected {
        Expected::Clean => {
            assert_eq!(
                (first.status, first.whole, &*first.body),
                (500, true, &b"Internal Server Error\n"[..]),
                "{code}\n{seen:?}"
            );
            assert_eq!(first.header("a"), None, "{code}\n{seen:?}");
        }
        Expected::Cut(body) => {
            assert_eq!((first.status, first.whole, &*first.body), (200, false, body), "{code}\n{seen:?}");
            assert_eq!(seen.len(), 1, "{code}\n{seen:?}");
            return;
        }
        Expected::Whole(body) => {
            assert_eq!((first.status, first.whole, &*first.body), (200, true, body), "{code}\n{seen:?}");
        }
    }
    // A failure that nobody sees half of costs the connection nothing.
    assert_eq!(seen.len(), 2, "{code}\n{seen:?}");
    assert_eq!(seen[1].body, b"ok", "{code}\n{seen:?}");
}

#[test]
fn a6_each_exception_at_each_step_is_a_clean_500_or_a_cut() {
    unharmed("app:wsgi", |site, every| {
        for (step, expected) in STEPS.iter().step_by(every) {
            for (raise, word) in RAISES {
                let code = step.replace("{}", raise);
                let start = site.server.log().text().len();
                check(&code, &run(site, &code), *expected);
                site.says(
                    start,
                    if step.contains(
                        "
  1 / 0
 def close",
                    ) {
                        "ZeroDivisionError"
                    } else {
                        word
                    },
                );
                site.says(start, "Traceback (most recent call last)");
            }
        }
        // Nothing that an exception says moves a terminal's cursor.
        assert!(!site.server.log().text().contains('\x1b'));
    });
}

/// What an application may return or say that is wrong, as a whole application.
const WRONG: &[(&str, Expected)] = &[
    ("def app(environ, start_response):\n start_response('200 OK', [])", Expected::Clean),
    ("def app(environ, start_response):\n start_response('200 OK', [])\n return 5", Expected::Clean),
    ("def app(environ, start_response):\n start_response('200 OK', [])\n return object()", Expected::Clean),
    ("def app(environ, start_response):\n start_response('200 OK', [])\n return 'text'", Expected::Clean),
    ("def app(environ, start_response):\n start_response('200 OK', [])\n return b'bytes'", Expected::Clean),
    (
        "def app(environ, start_response):\n start_response('200 OK', [])\n return bytearray(b'bytes')",
        Expected::Clean,
    ),
    ("def app(environ, start_response):\n start_response('200 OK', [])\n return {'a': 1}", Expected::Clean),
    ("def app(environ, start_response):\n start_response('200 OK', [])\n return [None]", Expected::Clean),
    ("def app(environ, start_response):\n start_response('200 OK', [])\n return ['text']", Expected::Clean),
    (
        "def app(environ, start_response):\n start_response('200 OK', [])\n return [b'one', 'two']",
        Expected::Clean,
    ),
    (
        "def app(environ, start_response):\n start_response('200 OK', [])\n return (b'one', None)",
        Expected::Clean,
    ),
    (
        "def app(environ, start_response):\n start_response('200 OK', [])\n return [bytearray(b'x')]",
        Expected::Clean,
    ),
    (
        "def app(environ, start_response):\n start_response('200 OK', [])\n return [memoryview(b'x')]",
        Expected::Clean,
    ),
    (
        "def app(environ, start_response):\n start_response('200 OK', [])\n return iter([b'one', None])",
        Expected::Cut(b"one"),
    ),
    (
        "def app(environ, start_response):\n start_response('200 OK', [])\n yield b'one'\n yield 'two'",
        Expected::Cut(b"one"),
    ),
    (
        "def app(environ, start_response):\n start_response('200 OK', [])\n yield b'one'\n yield 2",
        Expected::Cut(b"one"),
    ),
    (
        "async def app(environ, start_response):\n start_response('200 OK', [])\n return [b'x']",
        Expected::Clean,
    ),
    ("async def app(environ, start_response):\n start_response('200 OK', [])\n yield b'x'", Expected::Clean),
    ("def app(environ, start_response): return [b'x']", Expected::Clean),
    ("def app(environ, start_response): return iter([b'x'])", Expected::Clean),
    ("def app(environ, start_response): return []", Expected::Clean),
    ("def app(environ, start_response): return None", Expected::Clean),
    ("def app(): pass", Expected::Clean),
    ("def app(environ): pass", Expected::Clean),
    ("def app(environ, start_response, more): pass", Expected::Clean),
    ("app = None", Expected::Clean),
    ("app = 5", Expected::Clean),
    ("app = object()", Expected::Clean),
    ("app = (i for i in ())", Expected::Clean),
    ("class app: pass", Expected::Clean),
    (
        "class app:\n def __init__(self, environ, start_response): start_response('200 OK', [])",
        Expected::Clean,
    ),
    (
        "class app:\n def __init__(self, environ, start_response): start_response('200 OK', [])\n __iter__ = None",
        Expected::Clean,
    ),
    (
        "class app:\n def __init__(self, environ, start_response): start_response('200 OK', [])\n def __iter__(self): return 5",
        Expected::Clean,
    ),
    (
        "class app:\n def __init__(self, environ, start_response): start_response('200 OK', [])\n def __iter__(self): return iter([b'x'])\n close = 5",
        Expected::Whole(b"x"),
    ),
    // What exc_info must not be.
    (
        "def app(environ, start_response):\n start_response('200 OK', [], 5)\n return [b'x']",
        Expected::Whole(b"x"),
    ),
    (
        "def app(environ, start_response):\n start_response('200 OK', [], (None, None, None))\n return [b'x']",
        Expected::Whole(b"x"),
    ),
    (
        "def app(environ, start_response):\n start_response('200 OK', [])(b'one')\n start_response('200 OK', [], 5)\n return [b'x']",
        Expected::Cut(b"one"),
    ),
    (
        "def app(environ, start_response):\n start_response('200 OK', [])(b'one')\n start_response('200 OK', [], (None, None, None))\n return [b'x']",
        Expected::Cut(b"one"),
    ),
    (
        "def app(environ, start_response):\n start_response('200 OK', [])(b'one')\n start_response('200 OK', [], (1, 2))\n return [b'x']",
        Expected::Cut(b"one"),
    ),
    (
        "def app(environ, start_response):\n start_response('200 OK', [])(b'one')\n start_response('200 OK', [], ())\n return [b'x']",
        Expected::Cut(b"one"),
    ),
    (
        "def app(environ, start_response):\n start_response('200 OK', [])(b'one')\n start_response('200 OK', [], (Mute, Mute(), None))\n return [b'x']",
        Expected::Cut(b"one"),
    ),
    // What is thrown away raises.
    (
        "def app(environ, start_response):\n start_response('200 OK', [])\n gone = Del()\n return [b'x']",
        Expected::Whole(b"x"),
    ),
    (
        "def app(environ, start_response):\n environ['kept'] = Del()\n start_response('200 OK', [])\n return [b'x']",
        Expected::Whole(b"x"),
    ),
    (
        "def app(environ, start_response):\n start_response('200 OK', [])\n gone = Del()\n yield b'x'",
        Expected::Whole(b"x"),
    ),
    ("def app(environ, start_response):\n gone = Del()\n 1 / 0", Expected::Clean),
    // What is not the application's.
    (
        "def app(environ, start_response):\n environ.clear()\n start_response('200 OK', [])\n return [b'x']",
        Expected::Whole(b"x"),
    ),
    (
        "def app(environ, start_response):\n environ['wsgi.input'] = environ['asgi.scope'] = None\n start_response('200 OK', [])\n return [b'x']",
        Expected::Whole(b"x"),
    ),
    (
        "def app(environ, start_response):\n import contextvars\n start_response('200 OK', [])\n contextvars.copy_context().run(lambda: None)\n return [b'x']",
        Expected::Whole(b"x"),
    ),
    (
        "def app(environ, start_response):\n import sys\n sys.setrecursionlimit(sys.getrecursionlimit())\n sys.settrace(None)\n start_response('200 OK', [])\n return [b'x']",
        Expected::Whole(b"x"),
    ),
    (
        "def app(environ, start_response):\n import asyncio\n asyncio.run(asyncio.sleep(0))\n start_response('200 OK', [])\n return [b'x']",
        Expected::Whole(b"x"),
    ),
    (
        "def app(environ, start_response):\n class Str(str):\n  def __str__(self): 1 / 0\n  __len__ = __iter__ = __hash__ = __eq__ = encode = __str__\n start_response(Str('200 OK'), [(Str('a'), Str('b'))])\n return [b'x']",
        Expected::Whole(b"x"),
    ),
    (
        "def app(environ, start_response):\n class List(list):\n  def __iter__(self): 1 / 0\n  __len__ = __getitem__ = __iter__\n start_response('200 OK', List([('a', 'b')]))\n return [b'x']",
        Expected::Whole(b"x"),
    ),
    (
        "def app(environ, start_response):\n class Bytes(bytes):\n  def __len__(self): return 10 ** 9\n  def __bytes__(self): 1 / 0\n start_response('200 OK', [])\n return [Bytes(b'x')]",
        Expected::Whole(b"x"),
    ),
    // A list that changes while it is sent: what is read of it was there.
    (
        "def app(environ, start_response):\n headers = [('a', 'b')]\n class Tuple(tuple):\n  def __len__(self): headers.clear(); return 2\n headers.append(Tuple(('c', 'd')))\n start_response('200 OK', headers)\n return [b'x']",
        Expected::Whole(b"x"),
    ),
];

#[test]
fn pep3333_what_breaks_the_rules_is_a_clean_500_or_a_cut() {
    // The first of them may import something: all are there in both rounds.
    unharmed("app:wsgi", |site, _| {
        for (code, expected) in WRONG {
            check(code, &run(site, code), *expected);
        }
    });
}

/// A client leaves bodies that do not want to end: they raise where they are closed, or go on.
#[test]
fn a9_a_body_that_fails_when_its_client_leaves_is_in_the_log_and_is_gone() {
    const BODIES: &[(&str, &str)] = &[
        ("try:\n  while True: yield b'x' * 16384\n finally: 1 / 0", "ZeroDivisionError"),
        (
            "try:\n  while True: yield b'x' * 16384\n finally: yield b'again'",
            "generator ignored GeneratorExit",
        ),
        ("try:\n  while True: yield b'x' * 16384\n finally: raise SystemExit(3)", "SystemExit"),
        ("try:\n  while True: yield b'x' * 16384\n finally: raise Mute", "Mute"),
        ("try:\n  while True: yield b'x' * 16384\n finally: note('closed')", ""),
        ("with open('/dev/null') as file:\n  while True: yield b'x' * 16384", ""),
    ];
    unharmed("app:wsgi", |site, every| {
        for (body, word) in BODIES {
            for _ in (0..20).step_by(every) {
                let code = format!(
                    "{PRELUDE}def app(environ, start_response):\n start_response('200 OK', [])\n {body}"
                );
                let start = site.server.log().text().len();
                let mut wire = Wire::open(site.addr);
                wire.send(
                    format!("GET /run HTTP/1.1\r\nHost: a\r\nX-Code: {}\r\n\r\n", hex(&code)).as_bytes(),
                );
                wire.head();
                drop(wire);
                site.says(start, word);
            }
        }
        site.notes_become("those that say so are closed", |notes| {
            notes.get("closed").is_some_and(|closed| *closed >= 3)
        });
    });
}
