//! A real CouchDB, where the environment's `SETTEE_COUCHDB_URL` names one: the conformance list, and
//! replications with it. The server's own databases are not disturbed.

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
use testkit::conformance::Place;
use testkit::faults::{Faults, Rates};
use testkit::time::{sleep, within};

/// Longer than any case takes, shorter than anyone waits.
const LIMIT: Duration = Duration::from_secs(120);

/// The server, if there is one.
fn couchdb() -> Option<Remote> {
    let Ok(url) = std::env::var("SETTEE_COUCHDB_URL") else {
        eprintln!("SKIPPED: SETTEE_COUCHDB_URL names no CouchDB");
        return None;
    };
    Some(Remote::connect(&url, &RemoteOptions::new()).unwrap())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

#[test]
fn couchdb_conforms() {
    let Some(remote) = couchdb() else { return };
    let mut failed = Vec::new();
    let knows_time = runtime().block_on(remote.version()).unwrap().at_least(3, 6);
    for case in testkit::conformance::all() {
        if case.name.starts_with("aging::") && !knows_time {
            continue;
        }
        let place = Place::in_cluster(Arc::new(remote.clone()));
        let ran = runtime().block_on(async {
            let ran = within(LIMIT, tokio::spawn((case.run)(place.clone()))).await;
            place.clean_up().await;
            ran
        });
        if !matches!(ran, Some(Ok(()))) {
            failed.push(case.name);
        }
    }
    assert!(failed.is_empty(), "failed on this CouchDB: {failed:#?}");
}

/// Edits in memory, on disk and on CouchDB, with replications between them over lines where anything
/// may fail.
fn converge(remote: &Remote, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let places =
        [Local::memory().unwrap(), Local::open(dir.path(), &LocalOptions::default()).unwrap()];
    let scratch = Place::in_cluster(Arc::new(remote.clone()));
    let far = scratch.couch().db(&scratch.name("db")).unwrap();
    let far = Member { near: far.clone(), reached: far };
    let members = [Member::local(&places[0]), far, Member::local(&places[1])];
    let faults = Faults::new(seed, Rates::all(random.random_range(0.0..0.1)));
    runtime().block_on(async {
        converge_all(&mut random, &members, &faults, |_| {}, || {}).await;
        scratch.clean_up().await;
    });
    for place in &places {
        assert_eq!(place.check().unwrap().problems, Vec::<String>::new());
    }
}

#[test]
fn databases_here_and_on_couchdb_converge() {
    let Some(remote) = couchdb() else { return };
    sequences(4, |seed| converge(&remote, seed));
}

/// Both directions at once, while both sides are edited.
#[test]
fn a_live_sync_with_couchdb_ends_equal() {
    let Some(remote) = couchdb() else { return };
    runtime().block_on(async {
        let mut random = StdRng::seed_from_u64(5);
        let scratch = Place::in_cluster(Arc::new(remote));
        let far = scratch.db().await;
        let near = Couch::memory().unwrap().create("db").await.unwrap();
        let mut options = persistent();
        options.live = true;
        let sync = near.sync(&far).options(options).start().unwrap();
        for round in 0..20 {
            for n in 0..5 {
                edit(&mut random, &near, round * 10 + n).await;
                edit(&mut random, &far, round * 10 + 5 + n).await;
            }
            sleep(Duration::from_millis(random.random_range(0..25))).await;
        }
        near.put(json!({"_id": "last here"})).await.unwrap();
        far.put(json!({"_id": "last there"})).await.unwrap();
        let equal = async {
            while everything(&near).await != everything(&far).await {
                sleep(Duration::from_millis(50)).await;
            }
        };
        within(LIMIT, equal).await.expect("they differ for good");
        assert!(near.contains("last there").await.unwrap());
        for handle in [&sync.push, &sync.pull] {
            assert!(handle.result().is_none(), "{handle:?}");
            handle.cancel();
            handle.wait().await.unwrap();
        }
        scratch.clean_up().await;
    });
}
