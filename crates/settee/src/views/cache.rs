//! Nodes that were read before. They never change, so what is here is never out of date.

use super::node::Node;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// Parts that are locked each for itself.
const SHARDS: usize = 8;

type Key = (u32, u64);

/// A bounded set of nodes, by owner and number; those that were not used lately make room first.
#[derive(Debug)]
pub(crate) struct NodeCache {
    shards: [Mutex<Shard>; SHARDS],
    /// Bytes in one shard.
    capacity: usize,
}

#[derive(Debug, Default)]
struct Shard {
    /// The nodes, and whether each was used since it was last looked at for eviction.
    nodes: FxHashMap<Key, (Node, bool)>,
    order: VecDeque<Key>,
    size: usize,
}

impl NodeCache {
    /// A cache of so many bytes.
    pub(crate) fn new(capacity: usize) -> NodeCache {
        NodeCache { shards: Default::default(), capacity: capacity / SHARDS }
    }

    fn shard(&self, key: Key) -> &Mutex<Shard> {
        &self.shards[(key.0 as usize).wrapping_add(key.1 as usize) % SHARDS]
    }

    pub(crate) fn get(&self, owner: u32, id: u64) -> Option<Node> {
        let key = (owner, id);
        let mut shard = self.shard(key).lock().unwrap_or_else(PoisonError::into_inner);
        let (node, used) = shard.nodes.get_mut(&key)?;
        *used = true;
        Some(node.clone())
    }

    pub(crate) fn insert(&self, owner: u32, id: u64, node: Node) {
        let (key, size) = ((owner, id), node.size());
        if size > self.capacity / 4 {
            return;
        }
        let mut shard = self.shard(key).lock().unwrap_or_else(PoisonError::into_inner);
        let shard = &mut *shard;
        if shard.nodes.insert(key, (node, false)).is_some() {
            return;
        }
        shard.order.push_back(key);
        shard.size += size;
        while shard.size > self.capacity {
            let Some(oldest) = shard.order.pop_front() else { return };
            match shard.nodes.get_mut(&oldest) {
                Some((_, used)) if *used => {
                    *used = false;
                    shard.order.push_back(oldest);
                }
                _ => {
                    if let Some((node, _)) = shard.nodes.remove(&oldest) {
                        shard.size -= node.size();
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::node::{Items, Row};
    use super::*;

    #[test]
    fn it_keeps_what_is_used_and_stays_within_bounds() {
        let node = || {
            let mut item = Vec::new();
            Row { sort: b"a", n: 0, key_len: 1, key: b"1", value: &[b'1'; 1000] }.encode(&mut item);
            let mut builder = Items::default();
            builder.push(&item);
            builder.finish(0).unwrap()
        };
        let cache = NodeCache::new(SHARDS * 10_000);
        for id in 0..1000 {
            cache.insert(1, id, node());
            assert!(cache.get(1, 0).is_some(), "{id}");
        }
        let kept = (0..1000).filter(|id| cache.get(1, *id).is_some()).count();
        assert!((SHARDS * 5..SHARDS * 10).contains(&kept), "{kept}");
    }
}
