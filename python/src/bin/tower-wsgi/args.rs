//! The command line.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Parser, ValueEnum};
use tower_wsgi_python::{EventLoop, Import};
use tracing::level_filters::LevelFilter;

use crate::bind::Address;

const EXAMPLES: &str = "\
Examples:
  tower-wsgi mysite.wsgi:application
  tower-wsgi --bind 0.0.0.0:8000 --workers 20 mysite.wsgi:application
  tower-wsgi --factory 'shop:create_app'         the same as  tower-wsgi 'shop:create_app()'
  tower-wsgi --loop uvloop --processes 4 api.main:app
  tower-wsgi --chdir /srv/site --venv /srv/site/.venv --access-log site:app
  tower-wsgi --bind unix:/run/site.sock --root-path /shop site:app

Signals:
  SIGTERM or SIGINT  stop accepting, finish what runs, shut the application down, exit with 0
  the same again     end at once

Exit codes:
  0  stopped by a signal, in order
  1  something else went wrong, or exit handlers took too long
  2  the arguments cannot be understood
  3  the application could not be imported, or speaks the other interface
  4  the application refused to start: its lifespan's startup failed
  5  the Python interpreter could not be started, or not with that virtual environment
  6  the address cannot be listened on
  128 + N  ended at once by signal N: while starting, or by the second signal";

/// Serves a Python WSGI or ASGI application over HTTP/1.1, HTTP/2 and WebSocket.
#[derive(Debug, Parser)]
#[expect(clippy::doc_markdown, reason = "the help is printed, and not rendered")]
#[command(name = "tower-wsgi", after_help = EXAMPLES, disable_version_flag = true, max_term_width = 110)]
pub(crate) struct Args {
    /// The application, like mysite.wsgi:application; the attribute may have dots, and may be a call without arguments
    #[arg(value_name = "MODULE:ATTR", required_unless_present = "version")]
    target: Option<String>,

    /// ATTR is a function that makes the application
    #[arg(long, help_heading = "Application")]
    factory: bool,

    /// What the application speaks
    #[arg(long, value_enum, value_name = "WHICH", default_value_t, help_heading = "Application")]
    pub(crate) interface: Interface,

    /// Make DIR the working directory before the import; the directory of --venv is seen from the old one
    #[arg(long, value_name = "DIR", help_heading = "Application")]
    chdir: Option<PathBuf>,

    /// Use the packages of the virtual environment DIR [default: the active one, VIRTUAL_ENV]
    #[arg(long, value_name = "DIR", help_heading = "Application")]
    venv: Option<PathBuf>,

    /// Path that a proxy in front has taken off each request's path: SCRIPT_NAME (WSGI), root_path (ASGI)
    #[arg(long, value_name = "PATH", value_parser = root_path, help_heading = "Application")]
    pub(crate) root_path: Option<String>,

    /// HOST:PORT, [IPV6]:PORT, PORT on 127.0.0.1, or unix:PATH, which knows no REMOTE_ADDR; port 0 takes a free one, which the line "listening on" on stdout tells
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8000", help_heading = "Server")]
    pub(crate) bind: Address,

    /// Processes that share the address, each with an interpreter of its own
    #[arg(long, value_name = "N", default_value = "1", help_heading = "Server")]
    pub(crate) processes: NonZeroUsize,

    /// Threads that run the application, in each process (WSGI)
    #[arg(long, value_name = "N", default_value = "10", help_heading = "Server")]
    pub(crate) workers: NonZeroUsize,

    /// Event loop; auto takes uvloop if it is installed (ASGI)
    #[arg(long = "loop", value_enum, value_name = "WHICH", default_value_t, help_heading = "Server")]
    event_loop: Loop,

    /// How long requests may go on after SIGTERM; then as long again for the lifespan's shutdown, and for exit handlers
    #[arg(
        long,
        value_name = "SECONDS",
        default_value = "30",
        value_parser = seconds,
        help_heading = "Server"
    )]
    pub(crate) graceful_timeout: Duration,

    /// What goes to stderr; Python's logging is the application's own
    #[arg(long, value_enum, value_name = "LEVEL", default_value_t, help_heading = "Log")]
    log_level: Level,

    /// Write each request to stdout: the combined log format, and the seconds it took
    #[arg(long, help_heading = "Log")]
    pub(crate) access_log: bool,

    /// Print the versions of this program and of the Python in it
    #[arg(short = 'V', long, action = ArgAction::SetTrue)]
    pub(crate) version: bool,

    /// One of several: the listening socket comes over stdin.
    #[arg(long, hide = true)]
    pub(crate) child: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Interface {
    #[default]
    Auto,
    Wsgi,
    Asgi,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Loop {
    #[default]
    Auto,
    Asyncio,
    Uvloop,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Level {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

impl Args {
    /// The name of the application.
    pub(crate) fn target(&self) -> &str {
        self.target.as_deref().unwrap_or_default()
    }

    pub(crate) fn import(&self) -> Import {
        let mut import = Import::new(self.target()).factory(self.factory);
        if let Some(dir) = &self.chdir {
            import = import.chdir(dir);
        }
        if let Some(dir) = &self.venv {
            import = import.venv(dir);
        }
        import
    }

    pub(crate) fn event_loop(&self) -> EventLoop {
        match self.event_loop {
            Loop::Auto => EventLoop::Auto,
            Loop::Asyncio => EventLoop::Asyncio,
            Loop::Uvloop => EventLoop::Uvloop,
        }
    }

    pub(crate) fn log_level(&self) -> LevelFilter {
        match self.log_level {
            Level::Error => LevelFilter::ERROR,
            Level::Warn => LevelFilter::WARN,
            Level::Info => LevelFilter::INFO,
            Level::Debug => LevelFilter::DEBUG,
            Level::Trace => LevelFilter::TRACE,
        }
    }
}

/// Of a path in a URI; without the slash at its end.
fn root_path(path: &str) -> Result<String, String> {
    let uri: Result<http::uri::PathAndQuery, _> = path.parse();
    match uri {
        Ok(uri) if uri.path() == path && path.starts_with('/') => Ok(path.trim_end_matches('/').to_owned()),
        _ => Err("expected a path that starts with a slash, percent-encoded, like /shop".to_owned()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "expected a number".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}
