//! Nothing is left of a storm of faults: descriptors, threads and memory of a process that is there for that alone.
#![cfg(target_os = "linux")]

use tokio::io::AsyncWriteExt as _;

use super::alone::{alone, descriptors, is_long, resident, threads};
use super::frames::{CANCEL, Client, data, head, reset};
use super::site::{SHAPES, Shape, Site};
use super::wire::{LEAVES, Leave, connect, leave};
use crate::support::eventually;

/// One of each fault: whole and broken uploads, downloads that are left, streams that are reset.
async fn storm(sites: &[(Shape, Site)]) {
    for (shape, site) in sites {
        let paths: &[_] = if matches!(shape, Shape::Nested) {
            &["/body"]
        } else {
            &["/iter", "/reader", "/writer", "/body"]
        };
        for how in LEAVES {
            for path in paths.iter().chain(&["/echo", "/relay", "/full"]) {
                for header in ["content-length:5\r\n\r\nhe", "transfer-encoding:chunked\r\n\r\n5\r\nhe"] {
                    let mut client = connect(site.addr).await;
                    let request = format!("POST {path} HTTP/1.1\r\nhost:h\r\n{header}");
                    client.write_all(request.as_bytes()).await.expect("to send");
                    // What has no end is not read to it.
                    let is_endless = paths.contains(path);
                    leave(client, if is_endless && how == Leave::HalfThenRead { Leave::Reset } else { how })
                        .await;
                }
                let mut client = Client::new(site.addr, 100).await;
                client.send(head(1, path, Some(None))).await;
                client.send(data(1, b"he", false)).await;
                client.send(reset(1, CANCEL)).await;
            }
        }
        site.cleared(&format!("{shape:?}")).await;
    }
}

#[test]
fn a8_a_storm_of_faults_leaves_a_process_as_it_was() {
    if !alone("faults::levels::a8_a_storm_of_faults_leaves_a_process_as_it_was", "") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let own = threads();
        // One after the other: each counts all tasks of the runtime.
        for shape in SHAPES {
            let site = [(shape, Site::new(shape, |layer| layer.prefetch(0)).await)];
            // What is allocated once, or grows to what it needs, has done so by then.
            for _ in 0..3 {
                storm(&site).await;
            }
            let before = (descriptors(), threads(), resident());
            for _ in 0..if is_long() { 100 } else { 5 } {
                storm(&site).await;
            }
            let after = (descriptors(), threads(), resident());
            let what = format!("{shape:?}: descriptors, threads, KiB: {before:?}, and then {after:?}");
            assert_eq!(before.0, after.0, "{what}");
            // Those that lend their place come on top of two.
            assert!(after.1 <= own + 2 * 5, "{what}");
            assert!(after.2 < before.2 + 2048, "{what}");
            // The threads end with their pool.
            drop(site);
            eventually("no thread is left", || threads() == own).await;
        }
    });
}
