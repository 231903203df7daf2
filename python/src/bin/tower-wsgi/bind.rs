//! Where the server listens, and what it accepts there: TCP and Unix sockets.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::task::{Context, Poll};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// Connections that wait for `accept`. The system's own limit (`net.core.somaxconn`) cuts it.
const BACKLOG: i32 = 4096;

/// An address to listen on, as the command line has it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Address {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                "" => Err("expected a path after unix:".to_owned()),
                path => Ok(Self::Unix(path.into())),
            };
        }
        let (host, port) = text.rsplit_once(':').unwrap_or(("127.0.0.1", text));
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        if is_number && port.parse::<u16>().is_err() {
            return Err(format!("a port is at most 65535, not {port}"));
        }
        if is_number && host.is_empty() {
            // Other servers take it for every address, which nobody should get by leaving something out.
            return Err(format!(
                "no host before the colon: {port} is on 127.0.0.1, 0.0.0.0:{port} on all addresses, [::]:{port} on those of IPv6, too"
            ));
        }
        let port = port.parse();
        match (bare.unwrap_or(host), port) {
            (host, Ok(port)) if !host.is_empty() && (bare.is_some() || !host.contains(':')) => {
                Ok(Self::Tcp { host: host.to_owned(), port })
            }
            _ => Err("expected HOST:PORT, [IPV6]:PORT, PORT or unix:PATH".to_owned()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Address {
    /// Takes the address, without accepting connections yet: what is missing shows before the application is imported, and nobody waits for
    /// an application that may never come up.
    pub(crate) fn bind(&self) -> io::Result<Socket> {
        match self {
            Self::Tcp { host, port } => {
                let mut failure = None;
                for address in (host.as_str(), *port).to_socket_addrs()? {
                    match bind_tcp(address) {
                        Ok(socket) => return Ok(socket),
                        Err(error) => failure = Some(error),
                    }
                }
                Err(failure.unwrap_or_else(|| io::Error::other("the name has no address")))
            }
            Self::Unix(path) => bind_unix(path),
        }
    }

    /// The file that binding has made, if it has: its device and its number.
    pub(crate) fn file(&self) -> Option<(u64, u64)> {
        let Self::Unix(path) = self else { return None };
        std::fs::symlink_metadata(path).ok().map(|made| (made.dev(), made.ino()))
    }

    /// Takes away what binding has left behind. By now there may be another server's socket in its place.
    pub(crate) fn unbind(&self, made: Option<(u64, u64)>) {
        if let Self::Unix(path) = self
            && made.is_some()
            && self.file() == made
        {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // Connections of a server that just ended would keep the port otherwise.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn bind_unix(path: &Path) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    let address = SockAddr::unix(path)?;
    match socket.bind(&address) {
        // A server that was killed has left it there: nobody answers. Nobody answers at a file that is no socket either, and it is somebody's.
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_socket(path) => {
            match StdUnixStream::connect(path) {
                Err(refused) if refused.kind() == io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path)?;
                    socket.bind(&address)?;
                }
                _ => return Err(error),
            }
        }
        bound => bound?,
    }
    Ok(socket)
}

fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

/// Where a bound socket is: `http://127.0.0.1:8000`.
pub(crate) fn url(socket: &Socket) -> io::Result<String> {
    let address = socket.local_addr()?;
    Ok(match address.as_socket() {
        Some(address) => format!("http://{address}"),
        None => format!("unix:{}", address.as_pathname().unwrap_or(Path::new("")).display()),
    })
}

/// A listening socket.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Who is connected, and to what.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peer {
    pub(crate) client: Option<SocketAddr>,
    pub(crate) server: Option<(Arc<str>, u16)>,
}

impl Listener {
    /// Listens on a socket that was bound. Must be called in a runtime.
    pub(crate) fn new(socket: Socket) -> io::Result<Self> {
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let is_unix = socket.local_addr()?.is_unix();
        if is_unix {
            UnixListener::from_std(socket.into()).map(Self::Unix)
        } else {
            TcpListener::from_std(socket.into()).map(Self::Tcp)
        }
    }

    pub(crate) async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, client) = listener.accept().await?;
                // hyper writes whole responses: there is nothing to wait for. A connection that is gone again shows soon enough.
                let _ = stream.set_nodelay(true);
                let server = stream.local_addr().ok().map(canonical);
                let server = server.map(|server| (server.ip().to_string().into(), server.port()));
                Ok((Stream::Tcp(stream), Peer { client: Some(canonical(client)), server }))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Stream::Unix(stream), Peer::default()))
            }
        }
    }
}

/// `127.0.0.1` and not `::ffff:127.0.0.1`, where one socket serves both families.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// A connection: one type for both, so that the HTTP machinery is compiled once.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

macro_rules! delegate {
    ($stream:expr, $inner:ident => $call:expr) => {
        match $stream {
            Stream::Tcp($inner) => $call,
            Stream::Unix($inner) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        delegate!(self.get_mut(), inner => Pin::new(inner).poll_read(cx, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        delegate!(self.get_mut(), inner => Pin::new(inner).poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self.get_mut(), inner => Pin::new(inner).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self.get_mut(), inner => Pin::new(inner).poll_shutdown(cx))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        delegate!(self.get_mut(), inner => Pin::new(inner).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        delegate!(self, inner => inner.is_write_vectored())
    }
}

#[cfg(test)]
mod tests {
    use super::Address;

    #[test]
    fn addresses_are_understood_in_each_form() {
        let tcp = |host: &str, port| Ok(Address::Tcp { host: host.to_owned(), port });
        assert_eq!("0.0.0.0:80".parse(), tcp("0.0.0.0", 80));
        assert_eq!("[::1]:0".parse(), tcp("::1", 0));
        assert_eq!("8000".parse(), tcp("127.0.0.1", 8000));
        assert_eq!("localhost:8000".parse(), tcp("localhost", 8000));
        assert_eq!("unix:/run/a:b".parse(), Ok(Address::Unix("/run/a:b".into())));
        for wrong in ["", ":8000", "::1", "::1:80", "host", "host:", "host:65536", "unix:", "[::1]", "[]:80"]
        {
            assert!(wrong.parse::<Address>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_wrong_with_an_address_is_said() {
        for (wrong, said) in [
            (":8000", "0.0.0.0:8000 on all addresses"),
            (":80800", "a port is at most 65535, not 80800"),
            ("127.0.0.1:80800", "a port is at most 65535, not 80800"),
            ("99999999999", "a port is at most 65535"),
            ("::1", "expected HOST:PORT"),
            (":", "expected HOST:PORT"),
        ] {
            let error = wrong.parse::<Address>().expect_err(wrong);
            assert!(error.contains(said), "{wrong:?}: {error}");
        }
    }

    #[test]
    fn an_address_is_shown_as_it_is_written() {
        for text in ["127.0.0.1:80", "[::1]:0", "unix:/run/site.sock"] {
            assert_eq!(text.parse::<Address>().expect(text).to_string(), text);
        }
    }
}
