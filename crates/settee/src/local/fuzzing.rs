//! Rows as a broken disk might hold them: the fuzzer's way to the decoders.

use super::schema::{
    BlobRow, BodyRow, DbEntry, DbState, DocHead, DocRow, LocalRow, PurgeRow, SeqRow, meta,
};
use super::time_seq::TimeSeq;
use bytes::Bytes;
use std::time::SystemTime;

/// Reads a row of some kind. Whatever its bytes are, this returns; what was read reads the same when
/// it is written and read again.
#[doc(hidden)]
pub fn decode_row(kind: u8, row: &[u8]) {
    let row = &Bytes::copy_from_slice(row);
    match kind {
        0 => same(DbEntry::decode(row).ok(), |entry| DbEntry::decode(&entry.encode()).ok()),
        1 => same(DbState::decode(row).ok(), |state| DbState::decode(&state.encode()).ok()),
        2 => {
            let read = DocRow::decode(row).ok();
            if let Some(doc) = &read {
                let head = DocHead::decode(row).ok();
                assert_eq!(head.map(|head| head.winner).as_ref(), Some(&doc.winner));
                if let Ok(tree) = doc.tree() {
                    let _ = tree.winner();
                }
                if let Some(Ok(body)) = doc.body.as_ref().map(BodyRow::decode) {
                    let _ = (body.external(), body.body());
                }
            }
            same(read.map(|doc| Bytes::from(doc.encode())), |bytes| {
                DocRow::decode(bytes).ok().map(|doc| doc.encode().into())
            });
        }
        3 => {
            let read = BodyRow::decode(row).ok();
            if let Some(body) = &read {
                let _ = (body.external(), body.body().to_value());
            }
            same(read.map(|body| body.encode()), |bytes| {
                BodyRow::decode(bytes).ok().map(|body| body.encode())
            });
        }
        4 => {
            let _ = SeqRow::decode(row, false);
            same(SeqRow::decode(row, true).ok(), |seq| SeqRow::decode(&seq.encode(), true).ok());
        }
        5 => {
            let read = BlobRow::decode(row).ok();
            let _ = read.map(|blob| blob.chunks());
            same(read, |blob| BlobRow::decode(&blob.encode()).ok());
        }
        6 => same(LocalRow::decode(row).ok().map(|row| row.encode()), |bytes| {
            LocalRow::decode(&Bytes::copy_from_slice(bytes)).ok().map(|row| row.encode())
        }),
        7 => same(PurgeRow::decode(row).ok().map(|row| row.encode()), |bytes| {
            PurgeRow::decode(bytes).ok().map(|row| row.encode())
        }),
        8 => same(meta::upload_in(row), |&(db, blob)| meta::upload_in(&meta::upload(db, blob))),
        9 => {
            let read = TimeSeq::decode(row).ok();
            if let Some(times) = &read {
                let _ = times.problem(&DbState::default());
                let _ = (times.reached(SystemTime::now()), times.histogram(u64::MAX));
            }
            same(read, |times| TimeSeq::decode(&times.encode()).ok());
        }
        _ => {}
    }
}

fn same<T: PartialEq + std::fmt::Debug>(read: Option<T>, again: impl Fn(&T) -> Option<T>) {
    if let Some(read) = read {
        assert_eq!(again(&read).as_ref(), Some(&read), "another row");
    }
}
