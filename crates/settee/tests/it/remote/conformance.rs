//! The conformance list, through the client and our server to the embedded engine.

use super::site::Site;
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
