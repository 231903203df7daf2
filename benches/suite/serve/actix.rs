//! actix-web with `web::block`, in its default settings: a worker for each core, and a pool of threads that block for each worker.

use std::error::Error;
use std::io;

use actix_web::body::SizedStream;
use actix_web::{App, HttpResponse, HttpServer, Resource, web};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::mpsc;

use super::announced;
use super::channel::{self, Download, PIECES};
use super::work::{Task, Work};

pub(super) fn run(work: &'static Work) -> Result<(), Box<dyn Error + Send + Sync>> {
    let app = move || {
        let app = App::new()
            .route("/echo", web::post().to(move |body| echo(work, body)))
            .route("/upload", web::post().to(upload));
        let app = Task::ALL.into_iter().fold(app, |app, task| {
            let handler = move || async move {
                let answer = web::block(move || work.run(task)).await;
                HttpResponse::Ok().body(answer.expect("no panic"))
            };
            app.service(Resource::new(task.path()).get(handler))
        });
        Download::ALL.into_iter().fold(app, |app, kind| {
            let handler = move || async move { download(work, kind) };
            app.service(Resource::new(kind.path()).get(handler))
        })
    };
    let server = HttpServer::new(app).disable_signals().tcp_nodelay(true);
    let listener = announced()?;
    Ok(actix_web::rt::System::new().block_on(async { server.listen(listener)?.run().await })?)
}

async fn echo(work: &'static Work, body: Bytes) -> HttpResponse {
    let echo = web::block(move || work.echo(&body).expect("JSON")).await;
    HttpResponse::Ok().body(echo.expect("no panic"))
}

/// A payload stays on its thread, so its pieces go to the thread that blocks through a channel.
async fn upload(mut payload: web::Payload) -> String {
    let (sender, mut receiver) = mpsc::channel::<Bytes>(PIECES);
    let count = web::block(move || {
        let mut length = 0;
        while let Some(piece) = receiver.blocking_recv() {
            length += piece.len();
        }
        length
    });
    while let Some(piece) = payload.next().await {
        sender.send(piece.expect("an upload")).await.expect("a receiver");
    }
    drop(sender);
    count.await.expect("no panic").to_string()
}

fn download(work: &'static Work, kind: Download) -> HttpResponse {
    let (pieces, produce) = channel::body(work, kind);
    drop(web::block(produce));
    let body: SizedStream<_> = SizedStream::new(work.length() as u64, pieces.map(io::Result::from));
    HttpResponse::Ok().body(body)
}
