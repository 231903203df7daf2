//! A `SQLite` database behind synchronous handlers: a pool of connections, a transaction, and a query whose rows are sent as they are read.
//!
//! ```text
//! cargo run --example sqlite            # or: cargo run --example sqlite -- notes.db
//! printf 'buy milk\ncall Ali\n' | curl --data-binary @- http://127.0.0.1:3000/notes
//! curl http://127.0.0.1:3000/notes.csv
//! curl http://127.0.0.1:3000/pages.csv
//! ```
//!
//! There are as many workers as connections: one more would only wait for a connection. The two downloads differ in what a client who reads slowly holds: see [`rows`] and [`pages`].
//!
//! Environment: `ADDR` (`127.0.0.1:3000`).

use std::io::{self, BufRead, Write};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use axum::Router;
use http::{Method, Request, Response, StatusCode};
use r2d2::event::{CheckinEvent, HandleEvent};
use r2d2::{ManageConnection, Pool};
use rusqlite::{Connection, ErrorCode, Row, TransactionBehavior};
use tokio::net::TcpListener;
use tower::{Layer, ServiceBuilder};
use tower_http::limit::RequestBodyLimitLayer;
use tower_wsgi::{BoxError, Input, Output, WsgiLayer};

const CONNECTIONS: u8 = 4;

/// The longest body that is taken; over it: 413.
const LIMIT: usize = 64 * 1024;

/// How many rows [`pages`] reads at a time.
const PAGE: usize = 500;

/// The first line of the downloads.
const TITLES: &str = "id,text\r\n";

/// Opens connections for the pool. (The crate `r2d2_sqlite` has such a manager ready.)
struct Sqlite(PathBuf);

impl ManageConnection for Sqlite {
    type Connection = Connection;
    type Error = rusqlite::Error;

    fn connect(&self) -> rusqlite::Result<Connection> {
        let connection = Connection::open(&self.0)?;
        // How long one writer waits for another.
        connection.busy_timeout(Duration::from_secs(5))?;
        Ok(connection)
    }

    fn is_valid(&self, connection: &mut Connection) -> rusqlite::Result<()> {
        connection.execute_batch("")
    }

    fn has_broken(&self, _: &mut Connection) -> bool {
        false
    }
}

/// Makes the database, if it is new.
fn migrate(connection: &Connection) -> rusqlite::Result<()> {
    // Readers and the writer do not wait for each other.
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS notes (
             id INTEGER PRIMARY KEY,
             text TEXT NOT NULL CHECK (length(text) BETWEEN 1 AND 1000)
         )",
    )
}

/// The application.
fn app(pool: &Pool<Sqlite>, request: Request<Input>) -> Result<Response<Output>, BoxError> {
    match (request.method(), request.uri().path()) {
        (&Method::POST, "/notes") => add(pool, request),
        (&Method::GET | &Method::HEAD, "/notes.csv") => Ok(rows(pool)),
        (&Method::GET | &Method::HEAD, "/pages.csv") => Ok(pages(pool)),
        _ => Ok(status(StatusCode::NOT_FOUND, "no such page\n")),
    }
}

/// Adds a note for each line of the body: all of them, or none.
fn add(pool: &Pool<Sqlite>, request: Request<Input>) -> Result<Response<Output>, BoxError> {
    // First all is read, then the transaction begins: a slow sender must not hold the lock that writers share. A sender that vanishes is an error here.
    let notes = request.into_body().lines().collect::<io::Result<Vec<_>>>()?;

    let mut connection = pool.get()?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for note in &notes {
        match transaction.execute("INSERT INTO notes (text) VALUES (?1)", [note]) {
            Ok(_) => {}
            // Returning drops the transaction, which rolls it back; then the connection, which goes back to the pool.
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                return Ok(status(StatusCode::UNPROCESSABLE_ENTITY, "a note has 1 to 1000 letters\n"));
            }
            Err(error) => return Err(error.into()),
        }
    }
    transaction.commit()?;
    Ok(status(StatusCode::CREATED, format!("{} notes\n", notes.len())))
}

/// All notes, by one query: the state of one moment, however long the download takes.
///
/// The rows borrow the connection, so that they have to be written from where it is. As long as the client reads, this holds a worker and a connection.
fn rows(pool: &Pool<Sqlite>) -> Response<Output> {
    let pool = pool.clone();
    Response::new(Output::writer(move |w| {
        // Taken here and not before: for a HEAD request, this is never run.
        let connection = pool.get().map_err(io::Error::other)?;
        let mut query =
            connection.prepare("SELECT id, text FROM notes ORDER BY id").map_err(io::Error::other)?;
        let lines = query.query_map([], line).map_err(io::Error::other)?;
        // Small writes are gathered: the head goes out only with some rows behind this, and what fails before is a 500.
        w.write_all(TITLES.as_bytes())?;
        for line in lines {
            // The client left: the write fails, the query ends, and the connection goes back, here on the worker.
            w.write_all(line.map_err(io::Error::other)?.1.as_bytes())?;
        }
        Ok(())
    }))
}

/// All notes, page by page: between two pages nothing is held, neither worker nor connection. What is added meanwhile may be in it.
fn pages(pool: &Pool<Sqlite>) -> Response<Output> {
    let pool = pool.clone();
    let mut next = Some(0);
    Response::new(Output::try_iter(std::iter::from_fn(move || {
        let page = page(&pool, next?);
        next = page.as_ref().ok().and_then(|(last, _)| *last);
        Some(page.map(|(_, text)| text))
    })))
}

/// The notes after this one, and which is the last of them. The first page begins with the titles: by themselves they would take the head with them, and a query that fails would no longer be a 500.
fn page(pool: &Pool<Sqlite>, after: i64) -> Result<(Option<i64>, String), BoxError> {
    let connection = pool.get()?;
    let mut query = connection.prepare("SELECT id, text FROM notes WHERE id > ?1 ORDER BY id LIMIT ?2")?;
    let lines = query.query_map([after, PAGE as i64], line)?;
    let mut last = None;
    let mut text = if after == 0 { TITLES.to_owned() } else { String::new() };
    for row in lines {
        let (id, line) = row?;
        last = Some(id);
        text += &line;
    }
    Ok((last, text))
}

/// A row's id, and the row as CSV.
fn line(row: &Row<'_>) -> rusqlite::Result<(i64, String)> {
    let (id, text) = (row.get(0)?, row.get::<_, String>(1)?);
    Ok((id, format!("{id},\"{}\"\r\n", text.replace('"', "\"\""))))
}

fn status(status: StatusCode, text: impl Into<Output>) -> Response<Output> {
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    response
}

/// Tells on which thread connections go back.
#[derive(Debug)]
struct Told;

impl HandleEvent for Told {
    fn handle_checkin(&self, _: CheckinEvent) {
        let thread = thread::current();
        tracing::info!("a connection came back on {}", thread.name().unwrap_or("a thread"));
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    tracing_subscriber::fmt().with_writer(io::stderr).init();

    let dir = tempfile::tempdir()?;
    let path = std::env::args_os().nth(1).map_or_else(|| dir.path().join("notes.db"), PathBuf::from);
    migrate(&Connection::open(&path)?)?;
    let pool =
        Pool::builder().max_size(CONNECTIONS.into()).event_handler(Box::new(Told)).build(Sqlite(path))?;

    let crossing = WsgiLayer::adapter().workers(CONNECTIONS.into());
    let notes = crossing.layer(move |request: Request<Input>| app(&pool, request));
    let limited = ServiceBuilder::new().layer(RequestBodyLimitLayer::new(LIMIT)).service(notes);

    let address = std::env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());
    let listener = TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, Router::new().fallback_service(limited)).await?;
    Ok(())
}
