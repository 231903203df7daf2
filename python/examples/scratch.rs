//! scratch
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tower::Layer;
use tower_wsgi_python::*;
fn main() {
    let target = std::env::args().nth(1).unwrap();
    let threads: usize = std::env::var("T").ok().and_then(|t| t.parse().ok()).unwrap_or(1);
    let app = Import::new(target).load().unwrap_or_else(|e| panic!("{e}"));
    tracing_subscriber::fmt().init();
    let rt = if threads == 0 {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    } else {
        tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap()
    };
    let mut l = tower_wsgi::WsgiLayer::adapter();
    if let Some(n) = std::env::var("W").ok().and_then(|t| t.parse().ok()) {
        l = l.workers(n);
    }
    let service = l.layer(PyWsgi::new(app));
    rt.block_on(async move {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:9123").await.unwrap();
        loop {
            let (s, _) = listener.accept().await.unwrap();
            s.set_nodelay(true).unwrap();
            let svc = service.clone();
            tokio::spawn(async move {
                let _ = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
                    .serve_connection_with_upgrades(TokioIo::new(s), TowerToHyperService::new(svc))
                    .await;
            });
        }
    });
}
