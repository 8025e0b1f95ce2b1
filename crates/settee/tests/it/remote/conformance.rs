//! The conformance list, through the client and our server to the embedded engine; and on a real
//! CouchDB, where the environment's `SETTEE_COUCHDB_URL` names one.

use super::site::Site;
use settee::remote::{Remote, RemoteOptions};
use std::sync::Arc;
use std::time::Duration;
use testkit::conformance::{Case, Place};
use testkit::time::within;

/// Longer than any case takes, shorter than anyone waits.
const LIMIT: Duration = Duration::from_secs(120);

fn run(case: Case) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let site = Site::start().await;
        let place = Place::new(Arc::new(site.remote()));
        let done = within(LIMIT, tokio::spawn((case.run)(place))).await;
        done.unwrap_or_else(|| panic!("{} hangs", case.name)).unwrap();
        let local = site.stop().await;
        assert_eq!(local.check().unwrap().problems, Vec::<String>::new());
    });
}

mod own {
    use super::run;
    use testkit::case_tests;
    testkit::for_all_cases!(case_tests);
}

/// A server's own databases are not disturbed: each case has a prefix, and cleans up.
#[test]
fn couchdb() {
    let Ok(url) = std::env::var("SETTEE_COUCHDB_URL") else {
        eprintln!("skipped: SETTEE_COUCHDB_URL names no CouchDB");
        return;
    };
    let remote = Remote::connect(&url, &RemoteOptions::new()).unwrap();
    let mut failed = Vec::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let knows_time = runtime.block_on(remote.version()).unwrap().at_least(3, 6);
    for case in testkit::conformance::all() {
        if case.name.starts_with("aging::") && !knows_time {
            continue;
        }
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let place = Place::in_cluster(Arc::new(remote.clone()));
        let ran = runtime.block_on(async {
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
