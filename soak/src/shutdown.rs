//! Orderly ends under load: every request that the server took up gets its whole response.

use std::time::Duration;

use tokio::task::JoinSet;
use tower_wsgi::BoxError;

use crate::child::Server;
use crate::client::{Connection, FalseEnd, Refusal};
use crate::visits::{self, Site, sites};

/// Starts and stops a server so often, while so many clients are at it.
pub(crate) async fn run(rounds: u32, clients: usize) -> Result<(), BoxError> {
    for round in 1..=rounds {
        let server = Server::start()?;
        // The synchronous host has no orderly end.
        let sites: Vec<Site> =
            sites(server.address, server.host).into_iter().filter(|site| site.speaks_all).collect();
        let mut crowd = JoinSet::new();
        for client in 0..clients {
            let site = sites[client % sites.len()];
            crowd.spawn(client_of(site, client / sites.len() % 2 == 1));
        }
        tokio::time::sleep(Duration::from_millis(fastrand::u64(100..600))).await;
        let taken_up =
            tokio::task::spawn_blocking(move || server.stop().map_err(|error| error.to_string())).await??;
        let mut answered = 0;
        while let Some(result) = crowd.join_next().await {
            answered += result??;
        }
        println!("end {round:3}: {taken_up} requests taken up, {answered} answered in full");
        if answered != taken_up {
            return Err(format!("{} requests were lost", taken_up - answered).into());
        }
    }
    Ok(())
}

/// Sends requests until the server takes no more, and says how many were answered.
async fn client_of(site: Site, is_http2: bool) -> Result<u64, BoxError> {
    let mut answered = 0;
    while let Ok(mut connection) = Connection::open(site.address, is_http2).await {
        for _ in 0..fastrand::u8(1..20) {
            match visits::request(&mut connection, &site).await {
                Ok(()) => answered += 1,
                Err(error) if error.is::<FalseEnd>() || error.is::<Refusal>() => return Err(error),
                // The connection has ended between two requests, or else one is missing in the sum.
                Err(_) => break,
            }
        }
    }
    Ok(answered)
}
