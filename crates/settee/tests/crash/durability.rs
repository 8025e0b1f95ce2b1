//! What a flush costs and what it covers, by the store's own count.

use crate::block_on;
use crate::power::open;
use futures_util::future::join_all;
use settee::adapter::{Adapter, Host};
use settee::local::{Local, LocalOptions};
use settee_core::options::{Durability, GetOptions, WriteOptions};
use settee_core::{Document, ErrorKind};
use std::sync::Arc;
use std::time::Duration;
use testkit::faultfs::FaultFs;

fn database(local: &Local) -> Arc<dyn Adapter> {
    block_on(local.create("db")).unwrap();
    local.database("db").unwrap()
}

fn deferred() -> WriteOptions {
    WriteOptions { durability: Durability::Deferred, ..WriteOptions::default() }
}

fn put(db: &Arc<dyn Adapter>, id: &str, options: &WriteOptions) -> settee_core::Result<()> {
    block_on(db.put(Document::with_id(id), None, options)).map(|_| ())
}

fn is_there(db: &Arc<dyn Adapter>, id: &str) -> bool {
    match block_on(db.get(id, &GetOptions::default())) {
        Ok(_) => true,
        Err(error) if error.is_not_found() => false,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_lone_writer_costs_one_flush_per_commit() {
    let dir = tempfile::tempdir().unwrap();
    let local = Local::open(dir.path(), &LocalOptions::default()).unwrap();
    let db = database(&local);
    let before = local.store_stats();
    for n in 0..50 {
        put(&db, &format!("{n}"), &WriteOptions::default()).unwrap();
    }
    let docs = (0..500).map(|n| Document::with_id(format!("bulk-{n}"))).collect();
    block_on(db.bulk_docs(docs, &WriteOptions::default())).unwrap();
    let after = local.store_stats();
    assert_eq!(after.transactions - before.transactions, 51);
    assert_eq!(after.commits - before.commits, 51);
    assert_eq!(after.flushes - before.flushes, 51);
}

#[test]
fn writers_who_write_at_once_share_flushes() {
    let dir = tempfile::tempdir().unwrap();
    let local = Local::open(dir.path(), &LocalOptions::default()).unwrap();
    let db = database(&local);
    let before = local.store_stats();
    for turn in 0..20 {
        let writers = (0..64).map(|writer| {
            let doc = Document::with_id(format!("{turn}-{writer}"));
            let db = &db;
            async move { db.put(doc, None, &WriteOptions::default()).await.map(|_| ()) }
        });
        for outcome in block_on(join_all(writers)) {
            outcome.unwrap();
        }
    }
    let after = local.store_stats();
    assert_eq!(after.transactions - before.transactions, 20 * 64);
    let flushes = after.flushes - before.flushes;
    assert_eq!(flushes, after.commits - before.commits);
    assert!(flushes <= 20 * 64 / 4, "{flushes} flushes for 1280 writes");
}

#[test]
fn a_deferred_write_costs_no_flush_and_is_durable_after_the_next_one() {
    let Some(disk) = FaultFs::mount_or_skip() else { return };
    let local = open(disk.path()).unwrap();
    let db = database(&local);
    let before = local.store_stats();
    put(&db, "a", &deferred()).unwrap();
    put(&db, "b", &deferred()).unwrap();
    assert!(is_there(&db, "a"), "it is visible at once");
    block_on(db.ensure_full_commit()).unwrap();
    assert!(local.store_stats().flushes > before.flushes);
    let image = disk.cut_power(1).unwrap();
    let again = open(image.path()).unwrap();
    let db = again.database("db").unwrap();
    assert!(is_there(&db, "a") && is_there(&db, "b"));
}

#[test]
fn a_deferred_write_becomes_durable_by_itself() {
    let Some(disk) = FaultFs::mount_or_skip() else { return };
    let local = open(disk.path()).unwrap();
    let db = database(&local);
    let before = local.store_stats();
    put(&db, "a", &deferred()).unwrap();
    while local.store_stats().flushes == before.flushes {
        std::thread::sleep(Duration::from_millis(10));
    }
    let image = disk.cut_power(1).unwrap();
    let again = open(image.path()).unwrap();
    assert!(is_there(&again.database("db").unwrap(), "a"));
}

#[test]
fn closing_makes_deferred_writes_durable() {
    let Some(disk) = FaultFs::mount_or_skip() else { return };
    let local = open(disk.path()).unwrap();
    let db = database(&local);
    put(&db, "a", &deferred()).unwrap();
    drop((db, local));
    let image = disk.cut_power(1).unwrap();
    let again = open(image.path()).unwrap();
    assert!(is_there(&again.database("db").unwrap(), "a"));
}

#[test]
fn after_a_failed_flush_nothing_is_called_durable_until_reopened() {
    for operation in ["put", "deferred put", "ensure_full_commit"] {
        let Some(disk) = FaultFs::mount_or_skip() else { return };
        let local = open(disk.path()).unwrap();
        let db = database(&local);
        put(&db, "before", &WriteOptions::default()).unwrap();
        let refused = |outcome: settee_core::Result<()>| {
            let error = outcome.expect_err(operation);
            assert_eq!(error.kind(), ErrorKind::Internal, "{operation}: {error}");
            assert!(error.reason().contains("reopen"), "{operation}: {error}");
        };
        match operation {
            "put" => {
                disk.fail_flush(1);
                refused(put(&db, "lost", &WriteOptions::default()));
            }
            "deferred put" => {
                put(&db, "lost", &deferred()).unwrap();
                disk.fail_flush(1);
                refused(put(&db, "also lost", &WriteOptions::default()));
            }
            _ => {
                put(&db, "lost", &deferred()).unwrap();
                disk.fail_flush(1);
                refused(block_on(db.ensure_full_commit()));
            }
        }
        // The disk works again, but nobody knows what it has.
        for _ in 0..2 {
            refused(put(&db, "later", &WriteOptions::default()));
            refused(put(&db, "later", &deferred()));
            refused(block_on(db.ensure_full_commit()));
            refused(block_on(local.create("other")));
        }
        assert!(is_there(&db, "before"), "reads go on");
        drop((db, local));
        let local = open(disk.path()).unwrap();
        let db = local.database("db").unwrap();
        assert!(is_there(&db, "before"));
        assert!(!is_there(&db, "later"));
        put(&db, "later", &WriteOptions::default()).unwrap();
        assert_eq!(local.check().unwrap().problems, Vec::<String>::new());
    }
}
