//! Replication with databases on servers, over real connections that are cut.

use super::line::Line;
use super::site::Site;
use crate::random::sequences;
use crate::replicate_faults::{Member, converge_all, edit, everything, persistent};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use settee::local::{Local, LocalOptions};
use settee::prelude::*;
use settee::remote::{Remote, RemoteOptions};
use std::sync::Arc;
use std::time::Duration;
use testkit::faults::{Faults, Rates};
use testkit::time::{sleep, soon};

/// A database behind a server and a line to it.
async fn behind(place: Local) -> (Site, Line, Member) {
    let site = Site::over(place.clone(), "127.0.0.1:0").await;
    let line = Line::to(site.address).await;
    let options = RemoteOptions::new()
        .retries(1)
        .request_timeout(Duration::from_secs(20))
        .heartbeat(Duration::from_millis(200));
    let remote = Remote::connect(&line.url(), &options).unwrap();
    let reached = Couch::from_host(Arc::new(remote)).db("db").unwrap();
    let member = Member { near: Member::local(&place).near, reached };
    (site, line, member)
}

/// In memory, on disk, and behind servers in front of both.
fn converge(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let disk = |n: usize| Local::open(dirs[n].path(), &LocalOptions::default()).unwrap();
    let places = [Local::memory().unwrap(), disk(0), Local::memory().unwrap(), disk(1)];
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (_one, line, first) = behind(places[2].clone()).await;
        let (_two, other_line, second) = behind(places[3].clone()).await;
        let members = [Member::local(&places[0]), Member::local(&places[1]), first, second];
        let faults = Faults::new(seed, Rates::all(random.random_range(0.0..0.1)));
        // Connections break after some bytes, in the middle of whatever is said.
        let disturb = |random: &mut StdRng| {
            for line in [&line, &other_line] {
                line.cut();
                match random.random_range(0..3) {
                    0 => line.hold(),
                    _ => line.break_within(2_000_000),
                }
            }
        };
        let calm = || {
            line.hold();
            other_line.hold();
        };
        converge_all(&mut random, &members, &faults, disturb, calm).await;
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
    for place in &places {
        assert_eq!(place.check().unwrap().problems, Vec::<String>::new());
    }
}

#[test]
fn databases_in_memory_on_disk_and_on_servers_converge() {
    sequences(4, converge);
}

/// Both directions, while the connections are cut all the time and the line is down now and then.
#[tokio::test(flavor = "multi_thread")]
async fn a_live_sync_over_a_line_that_is_cut_ends_equal() {
    let mut random = StdRng::seed_from_u64(11);
    let (_site, line, far) = behind(Local::memory().unwrap()).await;
    let near = Couch::memory().unwrap().create("db").await.unwrap();
    far.near.create().await.unwrap();
    let mut options = persistent();
    options.live = true;
    options.checkpoint_interval = Duration::from_millis(20);
    let sync = near.sync(&far.reached).options(options).start().unwrap();
    for round in 0..40 {
        for n in 0..5 {
            edit(&mut random, &near, round * 10 + n).await;
            edit(&mut random, &far.near, round * 10 + 5 + n).await;
        }
        match round % 4 {
            0 => line.cut(),
            1 => line.break_within(1_500_000),
            2 => line.hold(),
            _ => {
                line.set_down(true);
                sleep(Duration::from_millis(random.random_range(0..30))).await;
                line.set_down(false);
            }
        }
        sleep(Duration::from_millis(random.random_range(0..25))).await;
    }
    line.hold();
    line.cut();
    assert!(line.connections() > 40);
    // What comes last has come across when everything has.
    near.put(json!({"_id": "last here"})).await.unwrap();
    far.near.put(json!({"_id": "last there"})).await.unwrap();
    soon(async {
        while everything(&near).await != everything(&far.near).await {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(near.contains("last there").await.unwrap());
    for handle in [&sync.push, &sync.pull] {
        assert!(handle.result().is_none(), "{handle:?}");
        handle.cancel();
        soon(handle.wait()).await.unwrap();
    }
}
