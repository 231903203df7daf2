//! Several processes on one address.
//!
//! The parent takes the address and starts this program again for each process; a child gets the listening socket over its stdin. So all accept from one queue: a child that dies takes no
//! waiting connection with it, which it would with a socket of its own (`SO_REUSEPORT`), and two servers cannot share a port by accident. A fork would spare the program's start, a few
//! milliseconds beside an import, and cost the promise that nothing here is unsafe.
//!
//! The same stdin tells a child when to stop: when its other end closes, because the parent says so or because there is no parent any more.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use socket2::Socket;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use tokio::runtime;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{error, info, warn};

use crate::args::Args;
use crate::bind;
use crate::failure::{self, Failure};
use crate::serve;
use crate::signals::{Signals, Stop};

/// How long a process that ended is missing: twice as long each time, up to the second of these.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(30)];

/// A process that lived for so long has not failed at its start.
const SETTLED: Duration = Duration::from_secs(30);

/// Serves as one of several.
pub(crate) fn child(args: &Args) -> Result<(), Failure> {
    let stop = Stop::new();
    stop.on_signals().map_err(|error| Failure::other("signals cannot be waited for", error))?;
    let adopted = adopt().and_then(|(socket, control)| Ok((socket, control.try_clone()?, control)));
    let (socket, mut parent, mut control) =
        adopted.map_err(|error| Failure::other("no socket from a parent process", error))?;
    let stopped = stop.clone();
    let wait = move || {
        // Nothing is ever sent: this is the end, or an error that is as good.
        let _ = parent.read(&mut [0]);
        stopped.ask(0);
    };
    let waiting = thread::Builder::new().name("parent".to_owned()).spawn(wait);
    waiting.map_err(|error| Failure::other("no thread", error))?;
    serve::run(args, socket, &stop, move || {
        // A parent that is gone shows in the other thread.
        let _ = control.write_all(b"r");
    })
}

/// Takes the listening socket and the connection to the parent from stdin, and leaves nothing there for the application.
fn adopt() -> io::Result<(Socket, UnixStream)> {
    let control = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(&control, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let mut sockets = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(sockets) => Some(sockets),
        _ => None,
    });
    let socket = sockets.next().and_then(|mut sockets| sockets.next());
    let socket = socket.ok_or_else(|| io::Error::other("stdin is not from a parent"))?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok((Socket::from(socket), control))
}

/// Starts the processes, replaces those that end, and ends when they have all ended.
pub(crate) fn parent(args: &Args) -> Result<(), Failure> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::other("no runtime", error))?;
    let socket = args.bind.bind().map_err(|error| Failure::bind(args, error))?;
    let file = args.bind.file();
    let url = bind::url(&socket).map_err(|error| Failure::bind(args, error))?;
    let kept = runtime.block_on(keep_all(args, socket, &url));
    args.bind.unbind(file);
    kept
}

/// What becomes of a process.
enum Event {
    Ready,
    /// One that was ready has ended.
    Lost,
    /// One has ended that never was ready.
    Failed(ExitStatus),
}

/// The listening socket while there are to be processes that listen. It is kept nowhere else: as long as anybody has it, clients connect.
type Wanted = Option<Arc<Socket>>;

/// A place that is to be filled with a process.
struct Place {
    events: mpsc::Sender<Event>,
    wanted: watch::Receiver<Wanted>,
}

async fn keep_all(args: &Args, socket: Socket, url: &str) -> Result<(), Failure> {
    let mut signals =
        Signals::new().map_err(|error| Failure::other("signals cannot be waited for", error))?;
    let count = args.processes.get();
    let (events, mut happened) = mpsc::channel(1);
    let wanted = watch::Sender::new(Some(Arc::new(socket)));
    let place = || Place { events: events.clone(), wanted: wanted.subscribe() };
    let mut places = JoinSet::new();
    // The first one alone: where the application cannot be imported, that is said once.
    places.spawn(place().keep());
    let (mut ready, mut announced) = (0, false);
    let mut outcome = Ok(());
    loop {
        let event = tokio::select! {
            _ = signals.next() => break,
            Some(event) = happened.recv() => event,
        };
        match event {
            Event::Ready => {
                ready += 1;
                while places.len() < count {
                    places.spawn(place().keep());
                }
                if ready == count && !announced {
                    announced = true;
                    crate::say(&format!("listening on {url}"));
                }
            }
            Event::Lost => ready -= 1,
            // As long as others serve, a replacement that fails is tried again: perhaps somebody is just installing the next version.
            Event::Failed(_) if announced && ready > 0 => {}
            Event::Failed(status) => {
                outcome = Err(match status.code().and_then(|code| u8::try_from(code).ok()) {
                    // It has said why.
                    Some(code) if code != 0 => Failure::silent(code),
                    _ => Failure::new(failure::OTHER, format!("a process ended while it started: {status}")),
                });
                break;
            }
        }
    }
    wanted.send_replace(None);
    info!("stopping");
    loop {
        tokio::select! {
            place = places.join_next() => if place.is_none() {
                return outcome;
            },
            // Nobody reads them any more, but nobody shall wait either.
            Some(_) = happened.recv() => {}
            // Dropping the places kills what is left.
            code = signals.next() => return Err(Failure::silent(code)),
        }
    }
}

impl Place {
    /// Keeps a process running until it is to stop.
    async fn keep(mut self) {
        let mut pause = PAUSES[0];
        loop {
            let start = Instant::now();
            match self.run().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    error!(%error, "a process cannot be started");
                    let _ = self.events.send(Event::Failed(ExitStatus::from_raw(1 << 8))).await;
                }
            }
            if start.elapsed() > SETTLED {
                pause = PAUSES[0];
            }
            tokio::select! {
                () = unwanted(&mut self.wanted) => return,
                () = sleep(pause) => {}
            }
            pause = (pause * 2).min(PAUSES[1]);
        }
    }

    /// Runs one process to its end; returns whether that was asked for.
    async fn run(&mut self) -> io::Result<bool> {
        let socket = self.wanted.borrow().clone();
        let Some(socket) = socket else { return Ok(true) };
        let (mut child, control) = start(&socket)?;
        drop(socket);
        let mut control = tokio::net::UnixStream::from_std(control)?;
        let id = child.id().unwrap_or_default();
        let is_ready = tokio::select! {
            biased;
            () = unwanted(&mut self.wanted) => return end(child, control).await,
            said = control.read_u8() => said.is_ok(),
        };
        if !is_ready {
            let status = child.wait().await?;
            error!("process {id} ended while it started: {status}");
            let _ = self.events.send(Event::Failed(status)).await;
            return Ok(false);
        }
        let _ = self.events.send(Event::Ready).await;
        let status = tokio::select! {
            biased;
            () = unwanted(&mut self.wanted) => return end(child, control).await,
            status = child.wait() => status?,
        };
        warn!("process {id} ended, and is replaced: {status}");
        let _ = self.events.send(Event::Lost).await;
        Ok(false)
    }
}

/// Waits until the end is asked for.
async fn unwanted(wanted: &mut watch::Receiver<Wanted>) {
    // That there is nobody any more who could want it says the same.
    let _ = wanted.wait_for(Option::is_none).await;
}

/// Has a process end in order.
async fn end(mut child: Child, control: tokio::net::UnixStream) -> io::Result<bool> {
    drop(control);
    child.wait().await?;
    Ok(true)
}

/// Starts this program as a child, and hands it the socket.
fn start(socket: &Socket) -> io::Result<(Child, UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    let sockets = [socket.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&sockets));
    sendmsg(&ours, &[IoSlice::new(&[0])], &mut ancillary, SendFlags::empty())?;
    ours.set_nonblocking(true)?;
    let mut arguments = std::env::args_os();
    let mut command = Command::new(program()?);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    command.arg("--child").args(arguments);
    // Whatever ends the parent's interest in a child ends the child.
    let child = command.stdin(Stdio::from(OwnedFd::from(theirs))).kill_on_drop(true).spawn()?;
    Ok((child, ours))
}

/// This program, even if its file was replaced by the next version since, which Linux says in the name.
fn program() -> io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let linux = Path::new("/proc/self/exe");
    if !program.exists() && linux.exists() { Ok(linux.to_owned()) } else { Ok(program) }
}
