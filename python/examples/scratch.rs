//! scratch
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tower::Layer;
use tower::Service;
use tower_wsgi::Scope;
use tower_wsgi_python::*;
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
#[derive(Clone)]
struct S<T>(T, bool, std::net::SocketAddr, std::sync::Arc<str>);
impl<T> hyper::service::Service<http::Request<hyper::body::Incoming>> for S<T>
where
    T: Service<http::Request<hyper::body::Incoming>> + Clone,
{
    type Response = T::Response;
    type Error = T::Error;
    type Future = T::Future;
    fn call(&self, mut r: http::Request<hyper::body::Incoming>) -> T::Future {
        if self.1 {
            let s = Scope::of(&r).with_client(self.2).with_server(self.3.clone(), 80);
            r.extensions_mut().insert(s);
        }
        self.0.clone().call(r)
    }
}
fn main() {
    let target = std::env::args().nth(1).unwrap();
    let f = std::env::var("F").unwrap_or_default();
    let app = Import::new(target).load().unwrap_or_else(|e| panic!("{e}"));
    let rt = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut l = tower_wsgi::WsgiLayer::adapter();
    if let Some(n) = std::env::var("W").ok().and_then(|t| t.parse().ok()) {
        l = l.workers(n);
    }
    let service = l.layer(PyWsgi::new(app));
    let (scope, timer, graceful) = (f.contains("s"), f.contains("t"), f.contains("g"));
    rt.block_on(rt.spawn(async move {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:9123").await.unwrap();
        let g = hyper_util::server::graceful::GracefulShutdown::new();
        loop {
            let (s, a) = listener.accept().await.unwrap();
            s.set_nodelay(true).unwrap();
            let svc = S(service.clone(), scope, a, "localhost".into());
            let mut b = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            if timer {
                b.http1().timer(TokioTimer::new()).header_read_timeout(std::time::Duration::from_secs(30));
            }
            let w = g.watcher();
            tokio::spawn(async move {
                let c = b.serve_connection_with_upgrades(TokioIo::new(s), svc);
                if graceful {
                    let _ = w.watch(c).await;
                } else {
                    let _ = c.await;
                }
            });
        }
    }))
    .unwrap();
}
