//! The conformance list on every implementation that this crate has.

use settee::adapter::Host;
use settee::local::{Local, LocalOptions};
use std::sync::Arc;
use std::time::Duration;
use testkit::conformance::{Case, Place};
use testkit::time::within;

/// Longer than any case takes, shorter than anyone waits.
const LIMIT: Duration = Duration::from_secs(120);

async fn run(case: Case, host: Arc<dyn Host>) {
    let done = within(LIMIT, (case.run)(Place::new(host))).await;
    assert!(done.is_some(), "{} hangs", case.name);
}

/// Without any async runtime.
mod memory {
    use super::*;
    use testkit::case_tests;

    fn run(case: Case) {
        let local = Local::memory().unwrap();
        futures_executor::block_on(super::run(case, Arc::new(local.clone())));
        let report = local.check().unwrap();
        assert_eq!(report.problems, Vec::<String>::new());
    }

    testkit::for_all_cases!(case_tests);
}

/// Under a runtime with several threads.
mod disk {
    use super::*;
    use testkit::case_tests;

    fn run(case: Case) {
        let dir = tempfile::tempdir().unwrap();
        let local = Local::open(dir.path(), &LocalOptions::default()).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        let host: Arc<dyn Host> = Arc::new(local.clone());
        runtime.block_on(async { tokio::spawn(super::run(case, host)).await.unwrap() });
        drop(runtime);
        assert_eq!(local.check().unwrap().problems, Vec::<String>::new());
    }

    testkit::for_all_cases!(case_tests);
}
