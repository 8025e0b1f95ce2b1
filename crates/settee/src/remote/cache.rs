//! Documents that were read before, which a server need not send again while they have not changed:
//! row CP-78.

use bytes::Bytes;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// A document as it came.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) etag: String,
    pub(crate) body: Bytes,
}

/// Documents by their paths, in a bounded number of bytes; those that came first make room first.
#[derive(Debug)]
pub(crate) struct DocCache {
    capacity: usize,
    kept: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    by_path: FxHashMap<String, Kept>,
    order: VecDeque<String>,
    size: usize,
}

impl DocCache {
    /// A cache of so many bytes.
    pub(crate) fn new(capacity: usize) -> DocCache {
        DocCache { capacity, kept: Mutex::default() }
    }

    pub(crate) fn get(&self, path: &str) -> Option<Kept> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.by_path.get(path).cloned()
    }

    pub(crate) fn insert(&self, path: &str, kept: Kept) {
        let size = |path: &str, kept: &Kept| path.len() + kept.etag.len() + kept.body.len();
        let added = size(path, &kept);
        // One document must not displace all others.
        if added > self.capacity / 4 {
            return;
        }
        let mut entries = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let entries = &mut *entries;
        match entries.by_path.insert(path.to_owned(), kept) {
            Some(old) => entries.size -= size(path, &old),
            None => entries.order.push_back(path.to_owned()),
        }
        entries.size += added;
        while entries.size > self.capacity {
            let Some(oldest) = entries.order.pop_front() else { return };
            if let Some(old) = entries.by_path.remove(&oldest) {
                entries.size -= size(&oldest, &old);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(etag: &str, length: usize) -> Kept {
        Kept { etag: etag.to_owned(), body: vec![b' '; length].into() }
    }

    #[test]
    fn it_stays_within_bounds_and_keeps_what_came_last() {
        let cache = DocCache::new(10_000);
        for n in 0..100 {
            cache.insert(&n.to_string(), kept("1", 990));
        }
        let found: Vec<_> = (0..100).filter(|n| cache.get(&n.to_string()).is_some()).collect();
        assert_eq!(found, (90..100).collect::<Vec<_>>());
        cache.insert("large", kept("1", 5000));
        assert!(cache.get("large").is_none());
        for _ in 0..100 {
            cache.insert("99", kept("2", 990));
        }
        assert_eq!(cache.get("99").unwrap().etag, "2");
        assert!(cache.get("90").is_some(), "the same one again takes no more room");
    }
}
