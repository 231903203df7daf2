//! A whole crossing on any schedule: an application that follows a script on real threads, and a poller by hand that follows another.
//!
//! Whatever meets whatever: the exact bytes or an error for which there is a reason, a wake for each wait, nothing that runs for somebody who is gone, everything dropped, the pool idle. The threads make their own schedule, so that a case
//! may go another way when it is run again; what has to hold does not depend on it.

mod app;
mod client;
mod shared;

use std::convert::Infallible;
use std::sync::Arc;
use std::thread;

use arbitrary::Arbitrary;
use http::header::CONTENT_LENGTH;
use http::{Request, Response};
use tower::{Layer, Service};
use tower_wsgi::{AsgiHandler, Body, Input, Output, SyncHandler, WorkerPool, WsgiLayer};

use self::app::{Act, Answer, Step};
use self::client::Client;
use self::shared::{Fed, Gate, Occupied, Shared};
use crate::harness::{Ledger, Token, block_on, idle, pool, with_case};
use crate::script::{End, Excess, Size};

#[derive(Arbitrary, Clone, Debug)]
struct Case {
    two_workers: bool,
    shape: Shape,
    /// Whether all workers are busy at first.
    busy: bool,
    queue: Queue,
    prefetch: u8,
    /// How much more than the script feeds is declared, if anything is.
    declared: Option<Excess>,
    steps: Vec<Step>,
    answer: Answer,
    acts: Vec<Act>,
    end: End,
    moves: Vec<Move>,
}

#[derive(Arbitrary, Clone, Copy, Debug, PartialEq)]
enum Shape {
    /// async → sync
    Service,
    /// async → sync → async → sync, on one pool
    Nested,
    /// sync → async → sync
    Host,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Queue {
    One,
    Two,
    Three,
}

/// What the client's side does.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq)]
enum Move {
    Feed(Size),
    /// Ends the request.
    End {
        trailers: bool,
    },
    /// Breaks the request off.
    Fail,
    Poll,
    /// Gives the others time, until a wake comes.
    Wait,
    /// Leaves.
    Drop,
    /// Lets the busy workers go.
    Release,
}

/// Runs the target.
///
/// # Panics
/// If bytes are lost or made up, an end is false, a wake is lost, or something runs or stays that should not.
pub fn check(data: &[u8]) {
    with_case(data, |case: &Case| case.clone().tamed().run());
}

impl Case {
    fn tamed(mut self) -> Self {
        self.steps.truncate(16);
        self.acts.truncate(32);
        self.moves.truncate(48);
        self
    }

    /// What is declared: of what the script feeds before it ends the request.
    fn declared(&self) -> Option<u64> {
        let until = |step: &&Move| !matches!(step, Move::End { .. } | Move::Fail);
        let fed: usize = self
            .moves
            .iter()
            .take_while(until)
            .map(|step| if let Move::Feed(size) = step { size.get() } else { 0 })
            .sum();
        Some(self.declared?.of(fed))
    }

    /// Whether the application gives its client time to leave before it does anything.
    fn lingers(&self) -> bool {
        self.prefetch >= 195
    }

    fn run(&self) {
        let pool = pool(if self.two_workers { 2 } else { 1 });
        let ledger = Ledger::default();
        let gate = self.busy.then(|| Occupied::of(&pool, &ledger));
        let shared = Arc::new(Shared::new(self.declared(), self.shape == Shape::Service));
        self.cross(&pool, &ledger, &shared, gate.as_ref());
        if let Some(gate) = gate {
            gate.end();
        }
        ledger.settle();
        idle(&pool);
        shared.check_whole();
        // What is async by nature may go on the async side.
        let elsewhere: Vec<_> =
            ledger.dropped_elsewhere().into_iter().filter(|name| *name != "body").collect();
        assert!(elsewhere.is_empty(), "not dropped by a worker: {elsewhere:?}");
    }

    fn cross(&self, pool: &WorkerPool, ledger: &Ledger, shared: &Arc<Shared>, gate: Option<&Occupied>) {
        let service = self.layer(pool).layer(self.application(ledger, shared));
        let request = self.request(ledger, shared);
        match self.shape {
            Shape::Service => self.drive(service, request, shared, gate),
            Shape::Nested => {
                let outer = self.layer(pool).layer(AsgiHandler::new(service));
                self.drive(outer, request, shared, gate);
            }
            Shape::Host => self.host(&AsgiHandler::new(service), request, shared, gate),
        }
    }

    fn layer(&self, pool: &WorkerPool) -> WsgiLayer {
        let queue = [1, 2, 3][self.queue as usize];
        let prefetch = usize::from(self.prefetch) % 65;
        WsgiLayer::adapter().pool(pool.clone()).send_queue_size(queue).prefetch(prefetch)
    }

    fn application(&self, ledger: &Ledger, shared: &Arc<Shared>) -> impl SyncHandler {
        let (case, ledger, shared) = (self.clone(), ledger.clone(), shared.clone());
        move |request: Request<Input>| app::answer(&case, &ledger, &shared, request)
    }

    fn request(&self, ledger: &Ledger, shared: &Arc<Shared>) -> Request<Fed> {
        let mut request = Request::post("/").body(Fed::new(shared, ledger.token("body"))).expect("a request");
        if let Some(length) = self.declared() {
            request.headers_mut().insert(CONTENT_LENGTH, length.into());
        }
        // Held for its drop: whatever a request carries goes to a worker.
        request.extensions_mut().insert(Arc::new(ledger.token("request")));
        request
    }

    /// Follows the script of the client's side, and then drives what is left to its end.
    fn drive<S>(&self, mut service: S, request: Request<Fed>, shared: &Shared, gate: Option<&Occupied>)
    where
        S: Service<Request<Fed>, Response = Response<Body>, Error = Infallible, Future: Send + 'static>,
    {
        let mut client = Client::new(service.call(request), shared);
        for step in &self.moves {
            match step {
                Move::Poll => client.poll(),
                Move::Wait => client.wait_a_moment(),
                Move::Drop => {
                    let is_queued = gate.is_some_and(Occupied::is_shut);
                    client.leave();
                    if is_queued {
                        shared.must_not_start();
                    }
                }
                step => self.feed(*step, shared, gate),
            }
        }
        self.feed(Move::Release, shared, gate);
        if !client.has_left() {
            self.feed(Move::End { trailers: false }, shared, gate);
        } else if self.shape == Shape::Nested {
            // One that is between two calls hears of it from the connection.
            self.feed(Move::Fail, shared, gate);
        }
        // Otherwise nothing comes any more: that the client has left has to be enough.
        client.finish();
    }

    /// What the client's side does that does not concern the response.
    fn feed(&self, step: Move, shared: &Shared, gate: Option<&Occupied>) {
        match step {
            Move::Feed(size) => shared.feed(size.get()),
            Move::End { trailers: true } => shared.end(End::Trailers),
            Move::End { trailers: false } => shared.end(End::Clean),
            Move::Fail => shared.end(End::Failure),
            Move::Release => {
                if let Some(gate) = gate {
                    gate.open();
                }
            }
            Move::Poll | Move::Wait | Move::Drop => thread::yield_now(),
        }
    }

    /// Calls from a thread that knows of no runtime; another one follows the script.
    fn host(
        &self,
        handler: &impl SyncHandler,
        request: Request<Fed>,
        shared: &Shared,
        gate: Option<&Occupied>,
    ) {
        let leaves = self.moves.iter().position(|step| *step == Move::Drop);
        let chunks = leaves.map(|at| self.moves[..at].iter().filter(|step| **step == Move::Poll).count());
        thread::scope(|scope| {
            scope.spawn(|| {
                for step in &self.moves {
                    self.feed(*step, shared, gate);
                }
                self.feed(Move::End { trailers: false }, shared, gate);
                self.feed(Move::Release, shared, gate);
            });
            match handler.call(request.map(Input::new)) {
                Ok(response) => client::read(response.map(Output::into_reader), chunks, shared),
                Err(error) => panic!("the service never fails: {error}"),
            }
        });
    }
}

/// Occupies a worker until the gate opens.
fn occupy(pool: &WorkerPool, token: Token, gate: &Gate) -> thread::JoinHandle<()> {
    let token = std::sync::Mutex::new(Some(token));
    let gate = gate.clone();
    let service = WsgiLayer::adapter().pool(pool.clone()).layer(move |_: Request<Input>| {
        gate.pass();
        drop(token.lock().expect("a lock").take());
        Response::new(())
    });
    thread::spawn(move || {
        let mut service = service;
        block_on(service.call(Request::new(Body::empty()))).expect("never an error");
    })
}
