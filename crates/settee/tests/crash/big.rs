//! Attachments and databases that are larger than the memory they may take.

use crate::block_on;
use crate::child::{Process, memory, say};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use rand::RngCore;
use settee::adapter::Host;
use settee::local::{Local, LocalOptions};
use settee_core::options::{AttachmentHead, AttachmentOptions, GetOptions, WriteOptions};
use settee_core::{Attachment, Document};
use std::path::Path;
use std::task::{Context, Waker};
use std::time::Instant;

const MIB: u64 = 1 << 20;
const PIECE: usize = 64 << 10;

/// Bytes that do not compress, the same for every caller.
fn pieces(count: u64) -> impl Iterator<Item = Bytes> + Send {
    let mut rng = crate::seed::rng(&[count]);
    (0..count / PIECE as u64).map(move |_| {
        let mut piece = vec![0; PIECE];
        rng.fill_bytes(&mut piece);
        piece.into()
    })
}

/// The child: writes an attachment, reads it, and says how much memory that took.
pub(crate) fn attachment(argument: &str) {
    let (dir, size) = argument.split_once(' ').unwrap();
    let size: u64 = size.parse().unwrap();
    let local = Local::open(dir, &LocalOptions::default()).unwrap();
    let began = memory("self", "VmHWM");
    block_on(async {
        local.create("db").await.unwrap();
        let db = local.database("db").unwrap();
        let body = stream::iter(pieces(size).map(Ok)).boxed();
        let head = AttachmentHead::default();
        db.put_attachment("doc", "large", None, head, body).await.unwrap();
        let written = memory("self", "VmHWM");
        let options = AttachmentOptions::default();
        let mut reader = db.attachment("doc", "large", &options).await.unwrap();
        assert_eq!((reader.length, reader.body_length), (size, Some(size)));
        let mut expected = pieces(size);
        let (mut wanted, mut count) = (Bytes::new(), 0);
        while let Some(chunk) = reader.body.next().await {
            let mut chunk = chunk.unwrap();
            count += chunk.len() as u64;
            while !chunk.is_empty() {
                if wanted.is_empty() {
                    wanted = expected.next().unwrap();
                }
                let len = wanted.len().min(chunk.len());
                assert!(wanted.split_to(len) == chunk.split_to(len));
            }
        }
        assert_eq!(count, size);
        let read = memory("self", "VmHWM");
        println!("KiB: {began} at first, {written} after writing, {read} after reading");
    });
    say(&format!("memory {}", memory("self", "VmHWM")));
}

/// Sends an attachment through a process and returns the most memory that it took, in MiB.
fn through(size: u64) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let child = Process::start("attachment", &format!("{} {size}", dir.path().display()));
    let peak: u64 = child.finish("memory").parse().unwrap();
    println!("{} MiB of attachment: at most {} MiB of memory", size / MIB, peak / 1024);
    let local = Local::open(dir.path(), &LocalOptions::default()).unwrap();
    assert_eq!(local.check().unwrap().problems, Vec::<String>::new());
    peak / 1024
}

#[test]
fn an_attachment_goes_in_and_out_without_being_held_in_memory() {
    let peak = through(200 * MIB);
    assert!(peak < 100, "{peak} MiB");
}

#[test]
#[ignore = "writes 1 GiB"]
fn an_attachment_of_1_gib_takes_less_than_100_mib_of_memory() {
    let peak = through(1024 * MIB);
    assert!(peak < 100, "{peak} MiB");
}

/// The child: fills a directory until it holds so many MiB, and waits to be killed.
pub(crate) fn fill(argument: &str) {
    let (dir, size) = argument.split_once(' ').unwrap();
    let size: u64 = size.parse().unwrap();
    let local = Local::open(dir, &LocalOptions::default()).unwrap();
    block_on(async {
        local.create("db").await.unwrap();
        let db = local.database("db").unwrap();
        let (mut rng, mut n, mut written) = (crate::seed::rng(&[size]), 0, 0);
        while written < size * MIB {
            let mut docs = Vec::new();
            for _ in 0..500 {
                n += 1;
                let mut doc = Document::with_id(format!("{n:08}"));
                let mut text = vec![0; 1_000];
                rng.fill_bytes(&mut text);
                doc.set("text", text.iter().map(|b| format!("{b:02x}")).collect::<String>())
                    .unwrap();
                if n % 10 == 0 {
                    let mut content = vec![0; 10_000];
                    rng.fill_bytes(&mut content);
                    doc.attachments.push(Attachment::inline("a", "image/png", content));
                    written += 10_000;
                }
                written += 2_000;
                docs.push(doc);
            }
            for outcome in db.bulk_docs(docs, &WriteOptions::default()).await.unwrap() {
                outcome.unwrap();
            }
        }
        say(&format!("filled {n}"));
    });
    loop {
        std::thread::park();
    }
}

#[test]
#[ignore = "writes 1 GiB"]
fn a_directory_of_1_gib_opens_at_once_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Process::start("fill", &format!("{} 1024", dir.path().display()));
    let documents: u64 = child.line("filled").unwrap().parse().unwrap();
    child.kill();
    let mut took = Vec::new();
    for _ in 0..3 {
        let began = Instant::now();
        let local = Local::open(dir.path(), &LocalOptions::default()).unwrap();
        took.push(began.elapsed());
        let db = local.database("db").unwrap();
        assert_eq!(block_on(db.info()).unwrap().doc_count, documents);
        block_on(db.get(&format!("{documents:08}"), &GetOptions::default())).unwrap();
    }
    println!("{documents} documents opened in {took:?}, first after a kill");
}

#[test]
fn an_upload_that_a_kill_has_cut_off_is_forgotten_when_reopened() {
    let dir = tempfile::tempdir().unwrap();
    let size = 64 * MIB;
    let mut child = Process::start("attachment", &format!("{} {size}", dir.path().display()));
    // In the middle of it, as far as the files tell.
    while disk(dir.path(), true) < 12 * MIB {
        std::thread::yield_now();
    }
    child.kill();
    let local = Local::open(dir.path(), &LocalOptions::default()).unwrap();
    let report = local.check().unwrap();
    assert_eq!(report.problems, Vec::<String>::new());
    if report.attachments == 0 {
        local.compact().unwrap();
        let disk = disk(dir.path(), false);
        assert!(disk < 2 * MIB, "{disk} bytes are still taken");
    }
}

#[test]
fn an_upload_whose_sender_goes_or_whose_document_is_refused_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let local = Local::open(dir.path(), &LocalOptions::default()).unwrap();
    block_on(async {
        local.create("db").await.unwrap();
        let db = local.database("db").unwrap();
        let head = AttachmentHead::default;
        // Some arrives, and then no more ever; whoever waited gives up.
        for count in [1, 3, 40] {
            let body = stream::iter(pieces(8 * MIB).take(count).map(Ok));
            let body = body.chain(stream::pending()).boxed();
            let mut upload = db.put_attachment("doc", "large", None, head(), body);
            let before = local.store_stats().transactions;
            loop {
                let mut context = Context::from_waker(Waker::noop());
                assert!(upload.as_mut().poll(&mut context).is_pending());
                // Two pieces make a chunk, which is written when a third comes.
                if local.store_stats().transactions - before >= (count as u64 - 1) / 2 {
                    break;
                }
            }
            drop(upload);
        }
        // The sender fails.
        let failed = || Err(settee_core::Error::bad_request("connection reset"));
        let body =
            stream::iter(pieces(8 * MIB).map(Ok)).chain(stream::once(async move { failed() }));
        let error = db.put_attachment("doc", "large", None, head(), body.boxed()).await;
        assert_eq!(error.unwrap_err().reason(), "connection reset");
        // The document is there already.
        db.put(Document::with_id("doc"), None, &WriteOptions::default()).await.unwrap();
        let body = stream::iter(pieces(8 * MIB).map(Ok)).boxed();
        let error = db.put_attachment("doc", "large", None, head(), body).await;
        assert!(error.unwrap_err().is_conflict());
        db.ensure_full_commit().await.unwrap();
    });
    local.compact().unwrap();
    let disk = disk(dir.path(), false);
    assert!(disk < MIB, "{disk} bytes are still taken");
    let report = local.check().unwrap();
    assert_eq!((report.attachments, report.problems), (0, Vec::new()));
}

/// Bytes of the journals, or of all other files, in a directory. Journals are given back in their own
/// time, when there is some amount of them.
pub(crate) fn disk(dir: &Path, journals: bool) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => disk(&entry.path(), journals),
        Ok(meta) if entry.path().extension().is_some_and(|e| e == "jnl") == journals => meta.len(),
        _ => 0,
    });
    sizes.sum()
}
