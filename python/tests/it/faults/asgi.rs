//! ASGI applications that fail, at each step of a response and in each way that Python has.

use super::support::{Seen, Site, Wire, hex, responses, show, unharmed};
use crate::support::until;

/// What raises: a statement, and a word of its traceback where it is in the log.
const RAISES: &[(&str, &str)] = &[
    ("1 / 0", "ZeroDivisionError"),
    ("raise SystemExit(3)", "SystemExit"),
    ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    ("raise GeneratorExit", "GeneratorExit"),
    ("raise BaseException('bare')", "BaseException"),
    ("raise MemoryError", "MemoryError"),
    ("bytes(1 << 60)", "MemoryError"),
    ("raise RecursionError", "RecursionError"),
    ("raise asyncio.CancelledError", "CancelledError"),
    // asyncio does not let it out of a task.
    ("raise StopIteration", "StopIteration"),
    ("raise StopAsyncIteration", "StopAsyncIteration"),
    ("raise Mute", "Mute"),
    ("raise Loop", "Loop"),
    ("raise ExceptionGroup('group', [ValueError(), TypeError()])", "ExceptionGroup"),
    ("raise OSError('\\ud800\\x1b[2J')", "OSError"),
    // These are no exceptions, and no ends of a response either.
    ("return", "returned"),
    ("return 5", "returned"),
];

const PRELUDE: &str = "
class Mute(Exception):
 def __str__(self): raise ValueError('no words')
 __repr__ = __str__
class Loop(Exception):
 def __init__(self): self.__cause__ = self
class Del:
 def __del__(self): raise ValueError('in __del__')
START = {'type': 'http.response.start', 'status': 200, 'headers': [(b'a', b'b')]}
def body(text, more=True): return {'type': 'http.response.body', 'body': text, 'more_body': more}
class Awaitable:
 def __init__(self, coroutine): self.coroutine = coroutine
 def __await__(self): return self.coroutine.__await__()
";

#[derive(Clone, Copy, Debug)]
enum Expected {
    /// A 500 without a trace of the application's head.
    Clean,
    /// A 200 whose body ends too early.
    Cut(&'static [u8]),
    Whole(&'static [u8]),
}

/// Where it raises: what comes before, and what the client gets.
const STEPS: &[(&str, Expected)] = &[
    ("", Expected::Clean),
    ("await asyncio.sleep(0)", Expected::Clean),
    ("await receive()", Expected::Clean),
    ("await receive()\n await asyncio.sleep(0)", Expected::Clean),
    ("await send(START)", Expected::Clean),
    // A head goes out when its application pauses.
    ("await send(START)\n await asyncio.sleep(0.001)", Expected::Cut(b"")),
    ("await send(START)\n await send(body(b''))", Expected::Cut(b"")),
    ("await send(START)\n await send(body(b'one'))", Expected::Cut(b"one")),
    ("await send(START)\n await send(body(b'one'))\n await asyncio.sleep(0)", Expected::Cut(b"one")),
    (
        "await send(START)\n await send(body(b'one'))\n await send(body(b'two'))\n await asyncio.sleep(0)\n await send(body(b'three'))",
        Expected::Cut(b"onetwothree"),
    ),
    ("await send(START)\n await send(body(b'whole', False))", Expected::Whole(b"whole")),
    (
        "await send(START)\n await send(body(b'whole', False))\n await asyncio.sleep(0)",
        Expected::Whole(b"whole"),
    ),
    (
        "await send(START)\n await send(body(b'whole', False))\n await receive()\n await receive()",
        Expected::Whole(b"whole"),
    ),
    // Tasks that are left behind end by themselves, or at the server's end.
    ("asyncio.create_task(asyncio.sleep(0.001))", Expected::Clean),
    ("asyncio.ensure_future(receive()).cancel()", Expected::Clean),
    ("gone = Del()", Expected::Clean),
];

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
    let got = (first.status, first.whole, &*first.body);
    match expected {
        Expected::Clean => {
            assert_eq!(got, (500, true, &b"Internal Server Error\n"[..]), "{code}\n{seen:?}");
            assert_eq!(first.header("a"), None, "{code}\n{seen:?}");
        }
        Expected::Cut(body) => {
            assert_eq!(got, (200, false, body), "{code}\n{seen:?}");
            assert_eq!(seen.len(), 1, "{code}\n{seen:?}");
            return;
        }
        Expected::Whole(body) => assert_eq!(got, (200, true, body), "{code}\n{seen:?}"),
    }
    assert_eq!(seen.len(), 2, "{code}\n{seen:?}");
    assert_eq!(seen[1].body, b"ok", "{code}\n{seen:?}");
}

#[test]
fn b6_each_exception_at_each_step_is_a_clean_500_or_a_cut() {
    unharmed("app:asgi", |site, every| {
        for (step, expected) in STEPS.iter().step_by(every) {
            for (raise, word) in RAISES {
                let code = format!("async def app(scope, receive, send):\n {step}\n {raise}");
                let start = site.server.log().text().len();
                check(&code, &run(site, &code), *expected);
                // To return behind a whole response is right.
                if !(matches!(expected, Expected::Whole(_)) && *word == "returned") {
                    site.says(start, word);
                    site.says(
                        start,
                        if *word == "returned" { word } else { "Traceback (most recent call last)" },
                    );
                }
            }
        }
        assert!(!site.server.log().text().contains('\x1b'));
    });
}

/// What an application may be, say or do that is wrong, as a whole application.
const WRONG: &[(&str, Expected)] = &[
    ("app = None", Expected::Clean),
    ("app = 5", Expected::Clean),
    ("app = object()", Expected::Clean),
    ("class app: pass", Expected::Clean),
    ("def app(scope, receive, send): pass", Expected::Clean),
    ("def app(scope, receive, send): return 5", Expected::Clean),
    ("def app(scope, receive, send): 1 / 0", Expected::Clean),
    ("def app(scope): return None", Expected::Clean),
    ("async def app(): pass", Expected::Clean),
    ("async def app(scope, receive, send, more): pass", Expected::Clean),
    ("async def app(scope, receive, send): yield", Expected::Clean),
    ("def app(scope, receive, send): yield", Expected::Clean),
    (
        "async def app(scope, receive, send):\n asyncio.current_task().cancel()\n await asyncio.sleep(1)",
        Expected::Clean,
    ),
    (
        "async def app(scope, receive, send):\n await send(START)\n asyncio.current_task().cancel()\n await asyncio.sleep(1)",
        Expected::Cut(b""),
    ),
    (
        "async def app(scope, receive, send):\n asyncio.current_task().cancel()\n try: await receive()\n except asyncio.CancelledError: pass\n await send(START)\n await send(body(b'x', False))",
        Expected::Whole(b"x"),
    ),
    // An awaitable of whatever kind is one.
    (
        "def app(scope, receive, send):\n async def answer():\n  await send(START)\n  await send(body(b'x', False))\n return Awaitable(answer())",
        Expected::Whole(b"x"),
    ),
    (
        "def app(scope, receive, send):\n class Never:\n  def __await__(self): return self\n return Never()",
        Expected::Clean,
    ),
    (
        "def app(scope, receive, send):\n class Odd:\n  def __await__(self): yield 5\n return Odd()",
        Expected::Clean,
    ),
    (
        "def app(scope, receive, send):\n class Odd:\n  def __await__(self): 1 / 0\n return Odd()",
        Expected::Clean,
    ),
    // It does not wait for what it sends: it is sent.
    ("async def app(scope, receive, send):\n send(START)\n send(body(b'x', False))", Expected::Whole(b"x")),
    (
        "async def app(scope, receive, send):\n receive()\n send(START)\n send(body(b'x', False))",
        Expected::Whole(b"x"),
    ),
    // It sends from other tasks and other threads' calls.
    (
        "async def app(scope, receive, send):\n async def answer():\n  await send(START)\n  await send(body(b'x', False))\n await asyncio.create_task(answer())",
        Expected::Whole(b"x"),
    ),
    (
        "async def app(scope, receive, send):\n task = asyncio.create_task(receive())\n await task\n task = asyncio.create_task(receive())\n await asyncio.sleep(0)\n await send(START)\n await send(body(b'x', False))\n await task",
        Expected::Whole(b"x"),
    ),
    // What is wrong is told, and what was right before it stays so.
    (
        "async def app(scope, receive, send):\n wrong = [None, 5, [], '', b'', {}, {'type': None}, {'type': b'http.response.start'}, {'type': 'http.response.start'}, {'type': 'http.response.body'}, {'type': 'http.response.trailers'}, {'type': 'websocket.accept'}, {'type': 'lifespan.startup.complete'}, {'type': ''}, {'type': '\\ud800'}, {'type': 'http.response.start', 'status': None}, {'type': 'http.response.start', 'status': 200.0}, {'type': 'http.response.start', 'status': True}, {'type': 'http.response.start', 'status': 10 ** 100}, {'type': 'http.response.start', 'status': 200, 'headers': None}, {'type': 'http.response.start', 'status': 200, 'headers': {b'a': b'b'}}, {'type': 'http.response.start', 'status': 200, 'headers': [None]}, {'type': 'http.response.start', 'status': 200, 'headers': [(b'a', b'b', b'c')]}, {'type': 'http.response.start', 'status': 200, 'headers': [(b'a', bytearray(b'b'))]}, {'type': 'http.response.start', 'status': 200, 'headers': 5}]\n for message in wrong:\n  try: await send(message)\n  except (TypeError, ValueError, RuntimeError): continue\n  note('taken', message)\n await send(START)\n for message in wrong + [START]:\n  if message in ({'type': 'http.response.body'},): continue\n  try: await send(message)\n  except (TypeError, ValueError, RuntimeError): continue\n  note('taken', message)\n for text in [None, 5, '', [], {}, object()]:\n  try: await send(body(text))\n  except TypeError: continue\n  note('taken', text)\n await send(body(b'x', False))",
        Expected::Whole(b"x"),
    ),
    (
        "async def app(scope, receive, send):\n await send(START)\n await send(body(b'x', False))\n for message in [START, body(b'y'), body(b''), {'type': 'http.response.trailers'}]:\n  try: await send(message)\n  except RuntimeError: continue\n  note('taken', message)",
        Expected::Whole(b"x"),
    ),
    (
        "async def app(scope, receive, send):\n await send(START)\n await send(body(b'x', False))\n for _ in range(3):\n  message = await receive()\n note('taken') if message != {'type': 'http.disconnect'} else None",
        Expected::Whole(b"x"),
    ),
    // Objects that answer in odd ways.
    (
        "class Odd:\n def __bool__(self): 1 / 0\n def __str__(self): 1 / 0\n __repr__ = __len__ = __iter__ = __bool__\nasync def app(scope, receive, send):\n for message in [{'type': 'http.response.start', 'status': Odd()}, {'type': 'http.response.start', 'status': 200, 'headers': Odd()}, {'type': 'http.response.start', 'status': 200, 'trailers': Odd()}, {'type': Odd()}, Odd()]:\n  try: await send(message)\n  except (TypeError, ValueError, ZeroDivisionError): continue\n  note('taken')\n await send(START)\n for message in [body(Odd()), body(b'y', Odd())]:\n  try: await send(message)\n  except (TypeError, ZeroDivisionError): continue\n  note('taken')\n await send(body(b'x', False))",
        Expected::Whole(b"x"),
    ),
    (
        "class Dict(dict):\n def __getitem__(self, key): 1 / 0\n get = keys = items = __iter__ = __contains__ = __getitem__\nasync def app(scope, receive, send):\n await send(Dict(START))\n await send(Dict(body(b'x', False)))",
        Expected::Whole(b"x"),
    ),
    (
        "async def app(scope, receive, send):\n scope.clear()\n await send(START)\n await send(body(b'x', False))",
        Expected::Whole(b"x"),
    ),
    // It stops its own loop, or closes it: the loop is the server's.
    (
        "async def app(scope, receive, send):\n asyncio.get_running_loop().stop()\n await send(START)\n await send(body(b'x', False))",
        Expected::Whole(b"x"),
    ),
    (
        "async def app(scope, receive, send):\n try: asyncio.get_running_loop().close()\n except RuntimeError: pass\n await send(START)\n await send(body(b'x', False))",
        Expected::Whole(b"x"),
    ),
    (
        "async def app(scope, receive, send):\n try: asyncio.run(asyncio.sleep(0))\n except RuntimeError: pass\n await send(START)\n await send(body(b'x', False))",
        Expected::Whole(b"x"),
    ),
    (
        "async def app(scope, receive, send):\n await send(START)\n await send(body(b'x', False))\n gone = Del()",
        Expected::Whole(b"x"),
    ),
    // Callbacks of the loop that raise are the loop's business.
    (
        "async def app(scope, receive, send):\n def late(): 1 / 0\n asyncio.get_running_loop().call_soon(late)\n await asyncio.sleep(0)\n await send(START)\n await send(body(b'x', False))",
        Expected::Whole(b"x"),
    ),
    (
        "async def app(scope, receive, send):\n def late(): raise SystemExit(3)\n asyncio.get_running_loop().call_soon(late)\n await asyncio.sleep(0.001)\n await send(START)\n await send(body(b'x', False))",
        Expected::Whole(b"x"),
    ),
    (
        "async def app(scope, receive, send):\n async def late(): raise KeyboardInterrupt\n asyncio.create_task(late())\n await asyncio.sleep(0.001)\n await send(START)\n await send(body(b'x', False))",
        Expected::Whole(b"x"),
    ),
];

#[test]
fn b6_what_breaks_the_rules_is_told_and_a_clean_500_or_a_cut() {
    // The first of them may import something: all are there in both rounds.
    unharmed("app:asgi", |site, _| {
        for (code, expected) in WRONG {
            check(code, &run(site, code), *expected);
            let notes = site.notes();
            assert!(notes.keys().all(|name| !name.starts_with("taken")), "{code}\n{notes:?}");
        }
    });
}

/// The same at each step of a WebSocket: the client sees an HTTP error, or a close with 1011, or with 1000.
#[test]
fn b6_a_websocket_whose_application_fails_is_refused_or_closed() {
    const ACCEPT: &str = "await receive()\n await send({'type': 'websocket.accept'})";
    let steps: [(&str, &[u8]); 6] = [
        ("", b""),
        ("await receive()", b""),
        ("await receive()\n await asyncio.sleep(0)", b""),
        (ACCEPT, b""),
        ("await receive()\n await send({'type': 'websocket.accept'})\n await asyncio.sleep(0)", b""),
        (
            "await receive()\n await send({'type': 'websocket.accept'})\n await send({'type': 'websocket.send', 'text': 'one'})",
            b"\x81\x03one",
        ),
    ];
    unharmed("app:asgi", move |site, every| {
        for (number, (step, before)) in steps.iter().enumerate().step_by(every) {
            for (raise, _) in RAISES {
                let code = format!("{PRELUDE}async def app(scope, receive, send):\n {step}\n {raise}");
                let mut wire = Wire::open(site.addr);
                wire.send(&upgrade("/run", &format!("X-Code: {}\r\n", hex(&code))));
                let seen = responses(&take_close(&mut wire), "GET").remove(0);
                if number < 3 {
                    assert_eq!((seen.status, seen.whole), (500, true), "{code}\n{seen:?}");
                } else {
                    let close: &[u8] =
                        if raise.starts_with("return") { b"\x88\x02\x03\xe8" } else { b"\x88\x02\x03\xf3" };
                    assert_eq!(seen.status, 101, "{code}\n{seen:?}");
                    assert_eq!(seen.body, [before, close].concat(), "{code}\n{seen:?}");
                }
            }
        }
    });
}

/// The handshake of a WebSocket.
pub(crate) fn upgrade(path: &str, more: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n{more}\r\n"
    )
    .into_bytes()
}

/// Reads up to a close frame, answers it, and reads the end.
pub(crate) fn take_close(wire: &mut Wire) -> Vec<u8> {
    let mut bytes = wire.head();
    if !bytes.starts_with(b"HTTP/1.1 101") {
        wire.send(b"GET /ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        bytes.extend(wire.rest());
        return bytes;
    }
    loop {
        let mut frame = vec![wire.byte().expect("a frame"), wire.byte().expect("a length")];
        assert!(frame[1] < 126, "a short frame that is not masked");
        for _ in 0..frame[1] {
            frame.push(wire.byte().expect("a payload"));
        }
        let closes = frame[0] == 0x88;
        bytes.extend(frame);
        if closes {
            wire.send(b"\x88\x80\0\0\0\0");
            bytes.extend(wire.rest());
            return bytes;
        }
    }
}

/// An application that neither answers nor looks whether somebody waits keeps its task, as it does elsewhere, and nothing of its client.
#[test]
fn a8_an_application_that_hangs_keeps_nothing_of_clients_that_leave() {
    const HANGS: &str = "async def app(scope, receive, send):\n import sys\n gate = sys.modules.setdefault('gate', asyncio.Event())\n note('opened')\n await gate.wait()\n note('closed')";
    const OPENS: &str = "async def app(scope, receive, send):\n import sys\n sys.modules.pop('gate').set()\n await send({'type': 'http.response.start', 'status': 200})\n await send({'type': 'http.response.body', 'body': b'open'})";
    unharmed("app:asgi", |site, every| {
        let crowd = 100 / every;
        let files =
            || std::fs::read_dir(format!("/proc/{}/fd", site.server.pid())).expect("a process").count();
        let request = |code: &str, more: &str| {
            format!("GET /run HTTP/1.1\r\nHost: a\r\n{more}X-Code: {}\r\n\r\n", hex(code))
        };
        let clients: Vec<_> = (0..crowd)
            .map(|_| {
                let mut wire = Wire::open(site.addr);
                wire.send(request(HANGS, "").as_bytes());
                wire
            })
            .collect();
        site.notes_become("all hang", |notes| notes.get("opened") == Some(&(crowd as u64)));
        let most = files();
        drop(clients);
        until("the connections are gone", || files() <= most - crowd);
        let seen = site.ask(request(OPENS, "Connection: close\r\n").as_bytes());
        assert_eq!(seen.body, b"open");
        site.notes_become("all have ended", |notes| notes.get("closed") == Some(&(crowd as u64)));
    });
}
