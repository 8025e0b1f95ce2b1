//! The tree of a document's revisions.
//!
//! Every edit names the revision it was based on, so a document's revisions form a tree; when the
//! oldest ancestors have been dropped, a forest. The leaves are the document's current versions:
//! one of them is the winner, the others are conflicts, and every replica that knows the same
//! leaves picks the same winner without asking anybody.
//!
//! # Layout
//!
//! Nearly every document has a single leaf and a linear history, and every edit of it reads the
//! tree, appends one revision, drops one at the other end and writes the tree. So the tree is cut
//! into one *branch* per leaf, a branch is a plain array of hashes, and those four steps are copies
//! of memory.
//!
//! Branches are kept in the order of their leaves, winner first. Each owns the revisions from its
//! leaf down to the first that an earlier branch owns already (its *base*), or down to a root. That
//! makes the layout a function of the tree: equal trees have equal bytes.

use crate::document::Revisions;
use crate::error::{Error, ErrorKind, Result};
use crate::rev::{Rev, RevId};
use crate::wire::MissingRevs;
use std::cmp::Ordering;

/// What is known of a revision whose body is stored.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Whether the revision is a deletion.
    pub deleted: bool,
    /// The write that brought the body: what the body is filed under. Less than 2^62.
    pub seq: u64,
}

/// A revision without children: a current version of the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The revision.
    pub rev: Rev,
    /// Its body; leaves always have one.
    pub stored: Stored,
}

/// What the tree knows of one revision.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its body, if that has come and has not been forgotten.
    pub stored: Option<Stored>,
    /// Whether it has no children.
    pub leaf: bool,
}

/// What a [merge](RevTree::merge) did.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Merged {
    /// The revision extends what was a leaf, or is the first of all.
    NewLeaf,
    /// The revision is a new leaf beside the others: a conflict.
    NewBranch,
    /// The revision was known. What is new is its body, or ancestors of it; two trees may have
    /// become one, and a leaf of the older an ancestor.
    Learnt,
    /// The tree is as it was.
    Known,
}

impl Merged {
    /// Whether the tree has to be written again.
    pub fn changed(self) -> bool {
        self != Merged::Known
    }
}

/// A document's revisions.
///
/// ```
/// use settee_core::rev_tree::{Merged, RevTree, Stored};
/// use settee_core::Revisions;
///
/// let path = |start, ids: &[&str]| -> settee_core::Result<Revisions> {
///     Ok(Revisions { start, ids: ids.iter().map(|id| id.parse()).collect::<Result<_, _>>()? })
/// };
/// let mut tree = RevTree::new();
/// assert_eq!(tree.merge(&path(1, &["a"])?, Stored { deleted: false, seq: 1 }), Merged::NewLeaf);
/// assert_eq!(tree.merge(&path(2, &["b", "a"])?, Stored { deleted: false, seq: 2 }), Merged::NewLeaf);
/// assert_eq!(tree.merge(&path(2, &["c", "a"])?, Stored { deleted: false, seq: 3 }), Merged::NewBranch);
///
/// assert_eq!(tree.winner().map(|leaf| leaf.rev.to_string()).as_deref(), Some("2-c"));
/// assert!(tree.is_conflicted());
///
/// let mut bytes = Vec::new();
/// tree.encode(&mut bytes);
/// assert_eq!(RevTree::decode(&bytes)?, tree);
/// # Ok::<(), settee_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RevTree {
    branches: Vec<Branch>,
}

/// A leaf and those of its ancestors that no earlier branch owns.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Branch {
    /// The branch that owns the parent of this one's oldest revision.
    base: Option<usize>,
    /// The generation of the oldest revision.
    first: u64,
    /// Oldest first; at least one.
    ids: Ids,
    /// The bodies of the newest so many revisions, oldest first, as [words](Stored::to_word). The
    /// first is never [`NO_BODY`]; neither is the last, which is the leaf's.
    words: Vec<u64>,
}

/// The word of a revision whose body is not stored.
const NO_BODY: u64 = 0;

impl Stored {
    fn to_word(self) -> u64 {
        self.seq << 2 | u64::from(self.deleted) << 1 | 1
    }

    fn from_word(word: u64) -> Option<Stored> {
        (word != NO_BODY).then_some(Stored { deleted: word & 2 != 0, seq: word >> 2 })
    }
}

/// The ids of consecutive generations.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Ids {
    /// What CouchDB and Settee make: bare hashes.
    Hashes(Vec<[u8; 16]>),
    /// At least one is a text.
    Mixed(Vec<RevId>),
}

impl Ids {
    fn with_capacity(capacity: usize) -> Ids {
        Ids::Hashes(Vec::with_capacity(capacity))
    }

    fn len(&self) -> usize {
        match self {
            Ids::Hashes(hashes) => hashes.len(),
            Ids::Mixed(ids) => ids.len(),
        }
    }

    fn get(&self, index: usize) -> RevId {
        match self {
            Ids::Hashes(hashes) => RevId::Hash(hashes[index]),
            Ids::Mixed(ids) => ids[index].clone(),
        }
    }

    fn is(&self, index: usize, id: &RevId) -> bool {
        match (self, id) {
            (Ids::Hashes(hashes), RevId::Hash(hash)) => hashes[index] == *hash,
            (Ids::Hashes(_), RevId::Text(_)) => false,
            (Ids::Mixed(ids), id) => ids[index] == *id,
        }
    }

    /// What two ids are ordered by. A text may have the bytes of a hash, but is another id.
    fn rank(&self, index: usize) -> (&[u8], bool) {
        match self {
            Ids::Hashes(hashes) => (&hashes[index], false),
            Ids::Mixed(ids) => (ids[index].as_bytes(), matches!(ids[index], RevId::Text(_))),
        }
    }

    fn push(&mut self, id: RevId) {
        match (&mut *self, id) {
            (Ids::Hashes(hashes), RevId::Hash(hash)) => hashes.push(hash),
            (Ids::Hashes(hashes), id) => {
                let ids = hashes.drain(..).map(RevId::Hash).chain([id]).collect();
                *self = Ids::Mixed(ids);
            }
            (Ids::Mixed(ids), id) => ids.push(id),
        }
    }

    /// Appends a part of another array.
    fn extend(&mut self, other: &Ids, range: std::ops::Range<usize>) {
        match (&mut *self, other) {
            (Ids::Hashes(to), Ids::Hashes(from)) => to.extend_from_slice(&from[range]),
            _ => range.for_each(|index| self.push(other.get(index))),
        }
    }

    /// Drops the oldest.
    fn drop_front(&mut self, count: usize) {
        match self {
            Ids::Hashes(hashes) => drop(hashes.drain(..count)),
            Ids::Mixed(_) => {
                let mut rest = Ids::with_capacity(self.len() - count);
                rest.extend(self, count..self.len());
                *self = rest;
            }
        }
    }
}

impl Branch {
    /// The generation of the leaf.
    fn end(&self) -> u64 {
        self.first + self.ids.len() as u64 - 1
    }

    fn has(&self, pos: u64) -> bool {
        self.first <= pos && pos <= self.end()
    }

    /// Where a generation is in `ids`.
    fn index(&self, pos: u64) -> usize {
        (pos - self.first) as usize
    }

    fn rev(&self, pos: u64) -> Rev {
        Rev { pos, id: self.ids.get(self.index(pos)) }
    }

    /// How many of the oldest revisions have no word.
    fn bare(&self) -> usize {
        self.ids.len() - self.words.len()
    }

    fn word(&self, pos: u64) -> u64 {
        self.index(pos).checked_sub(self.bare()).map_or(NO_BODY, |index| self.words[index])
    }

    fn set_word(&mut self, pos: u64, word: u64) {
        let index = self.index(pos);
        let bare = self.bare();
        if index < bare {
            self.words.splice(..0, std::iter::repeat_n(NO_BODY, bare - index));
        }
        let bare = self.bare();
        self.words[index - bare] = word;
    }

    fn push(&mut self, id: RevId, word: u64) {
        self.ids.push(id);
        if !self.words.is_empty() || word != NO_BODY {
            self.words.push(word);
        }
    }

    /// Drops the oldest revisions, and adds the bodies they had to `dropped`.
    fn drop_front(&mut self, count: usize, dropped: &mut Vec<u64>) {
        let bodies = count.saturating_sub(self.bare());
        self.ids.drop_front(count);
        self.first += count as u64;
        // What is in front now may have no body either.
        let rest = self.words[bodies..].iter().take_while(|&&word| word == NO_BODY).count();
        dropped.extend(seqs(self.words.drain(..bodies + rest)));
    }

    fn leaf_word(&self) -> u64 {
        self.words.last().copied().unwrap_or(NO_BODY)
    }

    fn is_live(&self) -> bool {
        self.leaf_word() & 2 == 0
    }

    fn leaf(&self) -> Leaf {
        let stored = Stored { deleted: !self.is_live(), seq: self.leaf_word() >> 2 };
        Leaf { rev: self.rev(self.end()), stored }
    }

    /// The order of leaves, winner first.
    fn cmp(&self, other: &Branch) -> Ordering {
        let rank = |branch: &Branch| (branch.is_live(), branch.end());
        let last = |branch: &Branch| branch.ids.len() - 1;
        rank(other)
            .cmp(&rank(self))
            .then_with(|| other.ids.rank(last(other)).cmp(&self.ids.rank(last(self))))
    }
}

/// The sequences in words.
fn seqs(words: impl Iterator<Item = u64>) -> impl Iterator<Item = u64> {
    words.filter_map(Stored::from_word).map(|stored| stored.seq)
}

/// A revision's place: the branch that owns it, and its generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct At {
    branch: usize,
    pos: u64,
}

impl RevTree {
    /// The longest history that is taken from a peer. CouchDB keeps 1000 revisions of a document
    /// unless told otherwise.
    pub const MAX_PATH: usize = 10_000;

    /// A tree without revisions.
    pub fn new() -> RevTree {
        RevTree::default()
    }

    /// Whether there are no revisions.
    pub fn is_empty(&self) -> bool {
        self.branches.is_empty()
    }

    /// The number of revisions, with and without bodies.
    pub fn len(&self) -> usize {
        self.branches.iter().map(|branch| branch.ids.len()).sum()
    }

    /// Refuses a history that came from outside and cannot be one, or is too long to be kept.
    pub fn check(path: &Revisions) -> Result<()> {
        if path.ids.is_empty() || path.ids.len() as u64 > path.start.max(1) {
            return Err(Error::bad_request("_revisions.ids do not fit _revisions.start"));
        }
        if path.ids.len() > RevTree::MAX_PATH {
            return Err(Error::bad_request("_revisions.ids has too many revisions"));
        }
        Ok(())
    }

    /// [Checks](RevTree::check) a history, then [merges](RevTree::merge) it.
    pub fn merge_checked(&mut self, path: &Revisions, node: Stored) -> Result<Merged> {
        RevTree::check(path)?;
        Ok(self.merge(path, node))
    }

    /// Adds a revision, the first of `path`, with its ancestors. The tree joins with it where they
    /// share a revision, whichever of them reaches further back.
    ///
    /// The result does not depend on the order in which histories are merged, as long as none says
    /// of a revision that it has another parent than the others say. (Ids are hashes that cover the
    /// parent, so honest ones do not.) If one does, the parent that was known first stays.
    ///
    /// A body that is known already stays too.
    pub fn merge(&mut self, path: &Revisions, node: Stored) -> Merged {
        self.merge_ids(path.start, &path.ids, node)
    }

    /// [Merges](RevTree::merge) a history given as its newest generation and its ids, newest first.
    pub fn merge_ids(&mut self, start: u64, ids: &[RevId], node: Stored) -> Merged {
        // There is nothing before generation 0.
        let ids =
            &ids[..ids.len().min(usize::try_from(start).unwrap_or(usize::MAX).saturating_add(1))];
        let known = self.find_newest(start, ids);
        // How many of the ids are new at the front of the path.
        let fresh = known.map_or(ids.len(), |at| (start - at.pos) as usize);
        if fresh == 0 && known.is_none() {
            return Merged::Known;
        }
        let mut merged = match known {
            Some(at) if fresh == 0 => self.fill(at, node),
            Some(at) if at.pos == self.branches[at.branch].end() => {
                self.branches[at.branch].append(&ids[..fresh], node);
                Merged::NewLeaf
            }
            _ => {
                let merged = if self.is_empty() { Merged::NewLeaf } else { Merged::NewBranch };
                let mut branch = Branch {
                    base: known.map(|at| at.branch),
                    first: start - (fresh as u64 - 1),
                    ids: Ids::with_capacity(fresh),
                    words: Vec::with_capacity(1),
                };
                branch.append(&ids[..fresh], node);
                self.branches.push(branch);
                merged
            }
        };
        let mut swallowed = Vec::new();
        if let Some(at) = known {
            let older = &ids[fresh + 1..];
            if self.learn(at, older, &mut swallowed) && merged == Merged::Known {
                merged = Merged::Learnt;
            }
        }
        if !swallowed.is_empty() || !self.is_ordered() {
            let leaves = (0..self.branches.len()).filter(|i| !swallowed.contains(i)).collect();
            self.rebuild(leaves, u64::MAX);
        }
        merged
    }

    /// The newest revision of a path that is known.
    fn find_newest(&self, start: u64, ids: &[RevId]) -> Option<At> {
        ids.iter().zip((0..=start).rev()).find_map(|(id, pos)| self.find(pos, id))
    }

    fn find(&self, pos: u64, id: &RevId) -> Option<At> {
        let is_it = |branch: &Branch| branch.has(pos) && branch.ids.is(branch.index(pos), id);
        self.branches.iter().position(is_it).map(|branch| At { branch, pos })
    }

    /// The place of a revision's parent.
    fn parent(&self, at: At) -> Option<At> {
        let branch = &self.branches[at.branch];
        if at.pos > branch.first {
            return Some(At { pos: at.pos - 1, ..at });
        }
        branch.base.map(|base| At { branch: base, pos: at.pos - 1 })
    }

    /// Files the body of a known revision, if it has none.
    fn fill(&mut self, at: At, node: Stored) -> Merged {
        let branch = &mut self.branches[at.branch];
        if branch.word(at.pos) != NO_BODY {
            return Merged::Known;
        }
        branch.set_word(at.pos, node.to_word());
        Merged::Learnt
    }

    /// Takes over the ancestors of a known revision, newest first, that the tree lacks. Says
    /// whether there were any, and which branches end in one of them, and so in no leaf any more.
    fn learn(&mut self, mut at: At, mut older: &[RevId], swallowed: &mut Vec<usize>) -> bool {
        let mut learnt = false;
        while let Some(id) = older.first() {
            if let Some(parent) = self.parent(at) {
                let branch = &self.branches[parent.branch];
                if !branch.ids.is(branch.index(parent.pos), id) {
                    break;
                }
                (at, older) = (parent, &older[1..]);
                continue;
            }
            // This is a root: what the path has below it goes on the branch, until the path meets
            // another tree of the forest.
            learnt = true;
            let joint = self.find_newest(at.pos - 1, older);
            let fresh = joint.map_or(older.len(), |joint| (at.pos - 1 - joint.pos) as usize);
            let branch = &mut self.branches[at.branch];
            branch.prepend(&older[..fresh]);
            let Some(joint) = joint else { break };
            branch.base = Some(joint.branch);
            if self.branches[joint.branch].end() == joint.pos {
                swallowed.push(joint.branch);
            }
            (at, older) = (joint, &older[fresh + 1..]);
        }
        learnt
    }

    /// Whether the branches are in the order of their leaves, and each one's base precedes it.
    fn is_ordered(&self) -> bool {
        let bases = |(i, branch): (usize, &Branch)| branch.base.is_none_or(|base| base < i);
        self.branches.is_sorted_by(|a, b| a.cmp(b).is_lt())
            && self.branches.iter().enumerate().all(bases)
    }

    /// Lays the tree out anew for these leaves, given by their branches, and of each only so many
    /// of the newest revisions. Returns the sequences of the bodies of the revisions that went.
    fn rebuild(&mut self, mut leaves: Vec<usize>, limit: u64) -> Vec<u64> {
        let old = std::mem::take(&mut self.branches);
        leaves.sort_by(|&a, &b| old[a].cmp(&old[b]));
        let kept = kept(&old, &leaves, limit);

        // The parts of each old branch that have a new owner: (lowest, highest, owner).
        let mut taken: Vec<Vec<(u64, u64, usize)>> = vec![Vec::new(); old.len()];
        for leaf in leaves {
            let owner = self.branches.len();
            let mut parts = Vec::new();
            let mut base = None;
            let mut next = Some(At { branch: leaf, pos: old[leaf].end() });
            while let Some(At { branch, pos }) = next.take() {
                let span = kept[branch].iter().find(|&&(low, high)| low <= pos && pos <= high);
                let Some(&(mut low, _)) = span else { break };
                let met = taken[branch].iter().filter(|part| part.0 <= pos && low <= part.1);
                if let Some(&(_, high, other)) = met.max_by_key(|part| part.1) {
                    base = Some(other);
                    if high >= pos {
                        break;
                    }
                    low = high + 1;
                } else if low == old[branch].first {
                    next = old[branch].base.map(|base| At { branch: base, pos: low - 1 });
                }
                taken[branch].push((low, pos, owner));
                parts.push((branch, low, pos));
            }
            let first = parts.last().map_or(0, |part| part.1);
            let len = parts.iter().map(|(_, low, high)| (high - low + 1) as usize).sum();
            let mut ids = Ids::with_capacity(len);
            let mut words = Vec::new();
            for &(branch, low, high) in parts.iter().rev() {
                let branch = &old[branch];
                ids.extend(&branch.ids, branch.index(low)..branch.index(high) + 1);
                let bodies = (low..=high).map(|pos| branch.word(pos));
                let skip = words.is_empty();
                words.extend(bodies.skip_while(|&word| skip && word == NO_BODY));
            }
            self.branches.push(Branch { base, first, ids, words });
        }

        let mut dropped = Vec::new();
        for (branch, taken) in old.iter().zip(&taken) {
            let is_taken = |pos| taken.iter().any(|&(low, high, _)| low <= pos && pos <= high);
            let bodies = branch.words.iter().rev().zip((branch.first..=branch.end()).rev());
            dropped.extend(seqs(bodies.filter(|&(_, pos)| !is_taken(pos)).map(|(&word, _)| word)));
        }
        dropped
    }

    /// The winner: a leaf that is not deleted before one that is, then the highest generation, then
    /// the highest id.
    pub fn winner(&self) -> Option<Leaf> {
        self.branches.first().map(Branch::leaf)
    }

    /// The leaves, best first.
    pub fn leaves(&self) -> Vec<Leaf> {
        self.branches.iter().map(Branch::leaf).collect()
    }

    /// Whether more than one leaf is alive.
    pub fn is_conflicted(&self) -> bool {
        self.branches.get(1).is_some_and(Branch::is_live)
    }

    /// The leaves beside the winner that are alive, best first.
    pub fn conflicts(&self) -> Vec<Rev> {
        self.losers(true)
    }

    /// The leaves beside the winner that are deleted, best first.
    pub fn deleted_conflicts(&self) -> Vec<Rev> {
        self.losers(false)
    }

    fn losers(&self, live: bool) -> Vec<Rev> {
        let losers = self.branches.iter().skip(1).filter(|branch| branch.is_live() == live);
        losers.map(|branch| branch.rev(branch.end())).collect()
    }

    /// What is known of a revision.
    pub fn get(&self, rev: &Rev) -> Option<Node> {
        let at = self.find(rev.pos, &rev.id)?;
        let branch = &self.branches[at.branch];
        let stored = Stored::from_word(branch.word(at.pos));
        Some(Node { stored, leaf: at.pos == branch.end() })
    }

    /// Files the body that a revision has under another sequence. Says whether it has one.
    pub fn set_seq(&mut self, rev: &Rev, seq: u64) -> bool {
        let Some(at) = self.find(rev.pos, &rev.id) else { return false };
        let branch = &mut self.branches[at.branch];
        let stored = Stored::from_word(branch.word(at.pos));
        if let Some(stored) = stored {
            branch.set_word(at.pos, Stored { seq, ..stored }.to_word());
        }
        stored.is_some()
    }

    /// A revision and its ancestors, newest first.
    pub fn ancestry(&self, rev: &Rev) -> Option<Revisions> {
        let at = self.find(rev.pos, &rev.id)?;
        let ids = self.walk(Some(at)).map(|at| {
            let branch = &self.branches[at.branch];
            branch.ids.get(branch.index(at.pos))
        });
        Some(Revisions { start: rev.pos, ids: ids.collect() })
    }

    /// A revision and its ancestors, newest first, with what is stored of each. Nothing if the
    /// revision is unknown.
    pub fn ancestry_stored(&self, rev: &Rev) -> impl Iterator<Item = (Rev, Option<Stored>)> + '_ {
        self.walk(self.find(rev.pos, &rev.id)).map(|at| {
            let branch = &self.branches[at.branch];
            (branch.rev(at.pos), Stored::from_word(branch.word(at.pos)))
        })
    }

    fn walk(&self, from: Option<At>) -> impl Iterator<Item = At> + '_ {
        std::iter::successors(from, |&at| self.parent(at))
    }

    /// The leaves that descend from a revision, or are it; best first.
    pub fn latest(&self, rev: &Rev) -> Vec<Leaf> {
        let Some(at) = self.find(rev.pos, &rev.id) else { return Vec::new() };
        // A base precedes what grows from it, so one pass sees all that descends.
        let mut descends = vec![false; self.branches.len()];
        for (i, branch) in self.branches.iter().enumerate() {
            descends[i] = match branch.base {
                _ if i == at.branch => true,
                Some(base) if base == at.branch => branch.first > at.pos,
                Some(base) => descends[base],
                None => false,
            };
        }
        let branches = self.branches.iter().zip(descends).filter(|(_, descends)| *descends);
        branches.map(|(branch, _)| branch.leaf()).collect()
    }

    /// Which of these revisions are unknown, in order, and which leaves they may descend from:
    /// those of a lower generation than the highest of them. `None` if all are known.
    pub fn missing(&self, revs: &[Rev]) -> Option<MissingRevs> {
        let mut missing: Vec<Rev> =
            revs.iter().filter(|rev| self.find(rev.pos, &rev.id).is_none()).cloned().collect();
        missing.sort();
        missing.dedup();
        let highest = missing.last()?.pos;
        let older = self.branches.iter().filter(|branch| branch.end() < highest);
        let possible_ancestors = older.map(|branch| branch.rev(branch.end())).collect();
        Some(MissingRevs { missing, possible_ancestors })
    }

    /// Keeps of each leaf's history only so many of the newest revisions, the leaf included.
    /// Returns the sequences of the bodies of those dropped.
    pub fn stem(&mut self, limit: u64) -> Vec<u64> {
        let limit = limit.max(1);
        if let [branch] = &mut self.branches[..] {
            let mut dropped = Vec::new();
            let excess = (branch.ids.len() as u64).saturating_sub(limit);
            if excess > 0 {
                branch.drop_front(excess as usize, &mut dropped);
            }
            return dropped;
        }
        // Where each branch's history begins; a base precedes what grows from it.
        let mut roots: Vec<u64> = Vec::with_capacity(self.branches.len());
        for branch in &self.branches {
            roots.push(branch.base.map_or(branch.first, |base| roots[base]));
        }
        if self.branches.iter().zip(roots).all(|(branch, root)| branch.end() - root < limit) {
            return Vec::new();
        }
        self.rebuild((0..self.branches.len()).collect(), limit)
    }

    /// Forgets the bodies of revisions that are no leaves. Returns their sequences.
    pub fn forget_bodies(&mut self) -> Vec<u64> {
        let mut dropped = Vec::new();
        for branch in &mut self.branches {
            let inner = branch.words.len().saturating_sub(1);
            dropped.extend(seqs(branch.words.drain(..inner)));
        }
        dropped
    }

    /// Removes leaves, and those of their ancestors that no other leaf shares, without a trace.
    /// Revisions that are no leaves stay. Returns what was removed of `revs`, and the sequences of
    /// the bodies that went.
    pub fn purge(&mut self, revs: &[Rev]) -> (Vec<Rev>, Vec<u64>) {
        let mut purged = Vec::new();
        let mut leaves = Vec::new();
        for (i, branch) in self.branches.iter().enumerate() {
            let leaf = branch.rev(branch.end());
            if revs.contains(&leaf) {
                purged.push(leaf);
            } else {
                leaves.push(i);
            }
        }
        if purged.is_empty() {
            return (purged, Vec::new());
        }
        let dropped = self.rebuild(leaves, u64::MAX);
        (purged, dropped)
    }

    /// The revisions whose bodies are stored, in no particular order.
    pub fn stored(&self) -> impl Iterator<Item = (Rev, Stored)> + '_ {
        self.branches.iter().flat_map(|branch| {
            let from = branch.first + branch.bare() as u64;
            let words = branch.words.iter().zip(from..);
            words.filter_map(|(&word, pos)| {
                Stored::from_word(word).map(|stored| (branch.rev(pos), stored))
            })
        })
    }
}

impl Branch {
    /// Adds revisions at the leaf's end, given newest first; the newest has a body.
    fn append(&mut self, ids: &[RevId], node: Stored) {
        for (i, id) in ids.iter().enumerate().rev() {
            self.push(id.clone(), if i == 0 { node.to_word() } else { NO_BODY });
        }
    }

    /// Adds ancestors without bodies, given newest first.
    fn prepend(&mut self, ids: &[RevId]) {
        let mut all = Ids::with_capacity(ids.len() + self.ids.len() + 1);
        ids.iter().rev().for_each(|id| all.push(id.clone()));
        all.extend(&self.ids, 0..self.ids.len());
        self.ids = all;
        self.first -= ids.len() as u64;
    }
}

/// Which generations of each branch are among the newest `limit` of one of the leaves that grow
/// from it: disjoint spans, lowest and highest.
fn kept(branches: &[Branch], leaves: &[usize], limit: u64) -> Vec<Vec<(u64, u64)>> {
    let mut kept = vec![Vec::new(); branches.len()];
    for &leaf in leaves {
        let end = branches[leaf].end();
        kept[leaf].push((end.saturating_sub(limit - 1), end));
    }
    // What grows from a branch begins behind it, so it has been seen before.
    let mut order: Vec<usize> = (0..branches.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(branches[i].first));
    for i in order {
        let branch = &branches[i];
        let mut spans: Vec<(u64, u64)> = std::mem::take(&mut kept[i]);
        if let (Some(base), Some(&(low, _))) = (branch.base, spans.iter().min())
            && low < branch.first
        {
            kept[base].push((low, branch.first - 1));
        }
        spans.sort_by_key(|&(_, high)| std::cmp::Reverse(high));
        for (low, high) in spans {
            let low = low.max(branch.first);
            match kept[i].last_mut() {
                Some((lowest, _)) if high + 1 >= *lowest => *lowest = low.min(*lowest),
                _ => kept[i].push((low, high)),
            }
        }
    }
    kept
}

/// In a branch's header: some of the ids are texts.
const MIXED: u64 = 1;
/// In a branch's header: the words have eight bytes, not four.
const WIDE: u64 = 2;

/// Storing, as: the number of branches, then of each: 1 + its base or 0, its first generation, the
/// number of its ids, the number of its words with two flags below, the ids, the words. Numbers are
/// varints, words are little endian. An id is its 16 bytes; in a mixed branch the length of its
/// text (0: a hash) precedes.
impl RevTree {
    /// Appends the tree in its binary form. Equal trees have equal bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let size = |b: &Branch| 16 * b.ids.len() + 8 * b.words.len() + 20;
        out.reserve(8 + self.branches.iter().map(size).sum::<usize>());
        put_varint(out, self.branches.len() as u64);
        for branch in &self.branches {
            let mixed = if matches!(branch.ids, Ids::Mixed(_)) { MIXED } else { 0 };
            let is_narrow = branch.words.iter().fold(0, |all, word| all | word) <= u32::MAX.into();
            let wide = if is_narrow { 0 } else { WIDE };
            put_varint(out, branch.base.map_or(0, |base| base as u64 + 1));
            put_varint(out, branch.first);
            put_varint(out, branch.ids.len() as u64);
            put_varint(out, (branch.words.len() as u64) << 2 | wide | mixed);
            match &branch.ids {
                Ids::Hashes(hashes) => out.extend_from_slice(hashes.as_flattened()),
                Ids::Mixed(ids) => ids.iter().for_each(|id| {
                    let hash = matches!(id, RevId::Hash(_));
                    put_varint(out, if hash { 0 } else { id.as_bytes().len() as u64 });
                    out.extend_from_slice(id.as_bytes());
                }),
            }
            if is_narrow {
                out.extend(branch.words.iter().flat_map(|&word| (word as u32).to_le_bytes()));
            } else {
                out.extend(branch.words.iter().flat_map(|word| word.to_le_bytes()));
            }
        }
    }

    /// Reads what [`encode`](RevTree::encode) wrote. Bytes that it cannot have written are an
    /// error, and never take more memory than a small multiple of their length.
    pub fn decode(bytes: &[u8]) -> Result<RevTree> {
        RevTree::read(bytes).ok_or_else(|| Error::new(ErrorKind::Internal, "corrupt revision tree"))
    }

    fn read(mut bytes: &[u8]) -> Option<RevTree> {
        let bytes = &mut bytes;
        let count = take_varint(bytes)?;
        // A branch has more bytes than one.
        let count = usize::try_from(count).ok().filter(|&count| count <= bytes.len())?;
        let mut branches: Vec<Branch> = Vec::with_capacity(count.min(64));
        for index in 0..count {
            let base = match take_varint(bytes)? {
                0 => None,
                base => Some(usize::try_from(base - 1).ok().filter(|&base| base < index)?),
            };
            let first = take_varint(bytes).filter(|&first| first < 1 << 60)?;
            let len = take_varint(bytes).filter(|&len| 0 < len && len <= bytes.len() as u64)?;
            let header = take_varint(bytes)?;
            let len = len as usize;
            let ids = if header & MIXED == 0 {
                let (hashes, _) = take(bytes, len.checked_mul(16)?)?.as_chunks();
                let mut ids = Vec::with_capacity(len + 1);
                ids.extend_from_slice(hashes);
                Ids::Hashes(ids)
            } else {
                let mut ids = Ids::with_capacity(0);
                for _ in 0..len {
                    ids.push(match take_varint(bytes)? {
                        0 => RevId::Hash(*take(bytes, 16)?.first_chunk()?),
                        len => {
                            let text = take(bytes, usize::try_from(len).ok()?)?;
                            std::str::from_utf8(text).ok()?.parse().ok()?
                        }
                    });
                }
                ids
            };
            let bodies = usize::try_from(header >> 2).ok().filter(|n| 0 < *n && *n <= len)?;
            let mut words = Vec::with_capacity(bodies + 1);
            if header & WIDE == 0 {
                let (narrow, _) = take(bytes, bodies * 4)?.as_chunks();
                words.extend(narrow.iter().map(|word| u64::from(u32::from_le_bytes(*word))));
            } else {
                let (wide, _) = take(bytes, bodies.checked_mul(8)?)?.as_chunks();
                words.extend(wide.iter().map(|word| u64::from_le_bytes(*word)));
            }
            let branch = Branch { base, first, ids, words };
            // From an inner revision: what grew from a leaf would be more of the same branch.
            let grows = |base: usize| {
                let base = &branches[base];
                base.has(first) && base.first < first
            };
            let is_word = |word: &u64| *word == NO_BODY || word & 1 == 1;
            let ends = [branch.words.first()?, branch.words.last()?];
            if !base.is_none_or(grows)
                || ends.contains(&&NO_BODY)
                || !branch.words.iter().all(is_word)
                || branches.last().is_some_and(|last| last.cmp(&branch).is_ge())
            {
                return None;
            }
            branches.push(branch);
        }
        bytes.is_empty().then_some(RevTree { branches })
    }
}

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        if shift == 63 && byte > 1 {
            return None;
        }
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn rev(text: &str) -> Rev {
        text.parse().unwrap()
    }

    /// A history from text: the newest revision and its ancestors, `3-c b a`.
    fn path(text: &str) -> Revisions {
        let (start, ids) = text.split_once('-').unwrap();
        let ids = ids.split(' ').map(|id| id.parse().unwrap()).collect();
        Revisions { start: start.parse().unwrap(), ids }
    }

    fn live(seq: u64) -> Stored {
        Stored { deleted: false, seq }
    }

    fn gone(seq: u64) -> Stored {
        Stored { deleted: true, seq }
    }

    fn tree(paths: &[&str]) -> RevTree {
        let mut tree = RevTree::new();
        for (text, seq) in paths.iter().zip(1..) {
            tree.merge(&path(text), live(seq));
        }
        check(&tree);
        tree
    }

    fn revs(leaves: &[Leaf]) -> Vec<String> {
        leaves.iter().map(|leaf| leaf.rev.to_string()).collect()
    }

    fn encoded(tree: &RevTree) -> Vec<u8> {
        let mut bytes = Vec::new();
        tree.encode(&mut bytes);
        bytes
    }

    /// What every tree fulfils.
    fn check(tree: &RevTree) {
        assert!(tree.is_ordered());
        for branch in &tree.branches {
            assert!(branch.words.len() <= branch.ids.len());
            assert_ne!(*branch.words.first().unwrap(), NO_BODY);
            assert_ne!(*branch.words.last().unwrap(), NO_BODY);
            assert!(branch.base.is_none_or(|base| tree.branches[base].has(branch.first - 1)));
        }
        assert_eq!(&RevTree::decode(&encoded(tree)).unwrap(), tree);
    }

    #[test]
    fn an_edit_extends_a_leaf_or_makes_a_branch() {
        let mut tree = RevTree::new();
        assert_eq!(tree.merge(&path("1-a"), live(1)), Merged::NewLeaf);
        assert_eq!(tree.merge(&path("1-a"), live(2)), Merged::Known);
        assert_eq!(tree.merge(&path("2-b a"), live(2)), Merged::NewLeaf);
        assert_eq!(tree.merge(&path("2-c a"), live(3)), Merged::NewBranch);
        assert_eq!(tree.merge(&path("1-x"), live(4)), Merged::NewBranch);
        assert_eq!(tree.merge(&path("5-f e d c"), live(5)), Merged::NewLeaf);
        assert_eq!(tree.merge(&path("4-e d"), live(6)), Merged::Learnt, "its body is new");
        assert_eq!(tree.merge(&path("4-e d"), live(7)), Merged::Known, "and then it is not");
        assert_eq!(revs(&tree.leaves()), ["5-f", "2-b", "1-x"]);
        assert_eq!(tree.len(), 7);
        assert_eq!(tree.get(&rev("4-e")), Some(Node { stored: Some(live(6)), leaf: false }));
        assert_eq!(tree.get(&rev("3-d")), Some(Node { stored: None, leaf: false }));
        assert_eq!(tree.get(&rev("2-b")), Some(Node { stored: Some(live(2)), leaf: true }));
        assert_eq!(tree.get(&rev("2-d")), None);
        check(&tree);
    }

    #[test]
    fn an_empty_history_changes_nothing() {
        let mut tree = RevTree::new();
        assert_eq!(tree.merge_ids(3, &[], live(1)), Merged::Known);
        assert_eq!(tree, RevTree::new());
        assert_eq!(tree.winner(), None);
        check(&tree);
    }

    #[test]
    fn longer_and_shorter_histories_join() {
        // The path reaches further back than the tree.
        let mut stemmed = tree(&["4-d c"]);
        assert_eq!(stemmed.merge(&path("5-e d c b a"), live(2)), Merged::NewLeaf);
        assert_eq!(stemmed.ancestry(&rev("5-e")), Some(path("5-e d c b a")));
        // Just ancestors.
        assert_eq!(stemmed.merge(&path("5-e d c b a"), live(3)), Merged::Known);
        let mut stemmed = tree(&["4-d c"]);
        assert_eq!(stemmed.merge(&path("4-d c b"), live(2)), Merged::Learnt);
        // The tree reaches further back than the path.
        let mut whole = tree(&["3-c b a"]);
        assert_eq!(whole.merge(&path("5-e d c"), live(2)), Merged::NewLeaf);
        assert_eq!(whole.merge(&path("4-x c"), live(3)), Merged::NewBranch);
        assert_eq!(whole.ancestry(&rev("4-x")), Some(path("4-x c b a")));
        // They share no revision.
        let mut apart = tree(&["3-c b"]);
        assert_eq!(apart.merge(&path("5-e d"), live(2)), Merged::NewBranch);
        assert_eq!(revs(&apart.leaves()), ["5-e", "3-c"]);
        // Until a third says how they hang together; 3-c is then no leaf any more.
        assert_eq!(apart.merge(&path("5-e d c"), live(3)), Merged::Learnt);
        assert_eq!(apart.ancestry(&rev("5-e")), Some(path("5-e d c b")));
        assert_eq!(revs(&apart.leaves()), ["5-e"]);
        assert_eq!(apart, tree(&["3-c b", "5-e d c b"]).tap(|t| t.set_seq(&rev("5-e"), 2)));
        check(&apart);
    }

    trait Tap: Sized {
        fn tap<R>(mut self, change: impl FnOnce(&mut Self) -> R) -> Self {
            change(&mut self);
            self
        }
    }
    impl Tap for RevTree {}

    #[test]
    fn a_history_with_another_parent_does_not_move_a_revision() {
        let mut tree = tree(&["3-c b a"]);
        assert_eq!(tree.merge(&path("4-d c b x"), live(2)), Merged::NewLeaf);
        assert_eq!(tree.ancestry(&rev("4-d")), Some(path("4-d c b a")));
        assert_eq!(tree.get(&rev("1-x")), None);
        check(&tree);
    }

    #[test]
    fn the_winner_is_alive_then_high_then_last() {
        let winner = |leaves: &[(&str, bool)]| {
            let mut tree = RevTree::new();
            for (&(text, deleted), seq) in leaves.iter().zip(1..) {
                tree.merge(&path(text), Stored { deleted, seq });
            }
            check(&tree);
            tree.winner().unwrap().rev.to_string()
        };
        assert_eq!(winner(&[("1-a", false), ("1-b", false)]), "1-b");
        assert_eq!(winner(&[("2-a x", false), ("1-b", false)]), "2-a");
        assert_eq!(winner(&[("10-a", false), ("9-b", false)]), "10-a");
        assert_eq!(winner(&[("1-a", false), ("3-b", true)]), "1-a");
        assert_eq!(winner(&[("2-a", true), ("3-b", true)]), "3-b");
        assert_eq!(winner(&[("2-a", true), ("2-b", true), ("1-c", false)]), "1-c");
        let (low, high) =
            ("1-0aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "1-f0000000000000000000000000000000");
        assert_eq!(winner(&[(high, false), (low, false)]), high);
    }

    #[test]
    fn conflicts_are_the_other_leaves() {
        let mut tree = tree(&["2-b a", "2-c a", "2-d a"]);
        tree.merge(&path("3-e c"), gone(9));
        assert_eq!(tree.winner().unwrap().rev, rev("2-d"));
        assert!(tree.is_conflicted());
        assert_eq!(tree.conflicts(), [rev("2-b")]);
        assert_eq!(tree.deleted_conflicts(), [rev("3-e")]);
        tree.merge(&path("3-f b"), gone(10));
        assert!(!tree.is_conflicted());
        assert_eq!(tree.deleted_conflicts(), [rev("3-f"), rev("3-e")]);
        check(&tree);
    }

    #[test]
    fn latest_are_the_leaves_that_descend() {
        let tree = tree(&["3-c b a", "3-d b a", "2-x a", "4-e d", "1-z"]);
        let latest = |text: &str| revs(&tree.latest(&rev(text)));
        assert_eq!(latest("1-a"), ["4-e", "3-c", "2-x"]);
        assert_eq!(latest("2-b"), ["4-e", "3-c"]);
        assert_eq!(latest("3-d"), ["4-e"]);
        assert_eq!(latest("3-c"), ["3-c"]);
        assert_eq!(latest("1-z"), ["1-z"]);
        assert!(latest("9-q").is_empty());
    }

    #[test]
    fn revisions_that_are_missing_may_descend_from_leaves() {
        let tree = tree(&["3-c b a", "2-x a", "5-z"]);
        assert_eq!(tree.missing(&[rev("2-b"), rev("3-c")]), None);
        assert_eq!(tree.missing(&[]), None);
        let missing = tree.missing(&[rev("4-q"), rev("2-b"), rev("3-p"), rev("4-q")]).unwrap();
        assert_eq!(missing.missing, [rev("3-p"), rev("4-q")]);
        // Leaves only, each below the highest that is missing.
        assert_eq!(missing.possible_ancestors, [rev("3-c"), rev("2-x")]);
        assert!(tree.missing(&[rev("2-q")]).unwrap().possible_ancestors.is_empty());
        assert!(RevTree::new().missing(&[rev("2-q")]).unwrap().possible_ancestors.is_empty());
    }

    #[test]
    fn stemming_keeps_the_newest_of_each_leaf() {
        let mut linear = RevTree::new();
        for pos in 1..=10 {
            let ids: Vec<RevId> = (1..=pos).rev().map(|p| RevId::Hash([p as u8; 16])).collect();
            linear.merge_ids(pos, &ids, live(pos));
        }
        assert_eq!(linear.stem(10), Vec::<u64>::new());
        assert_eq!(linear.stem(7), [1, 2, 3]);
        assert_eq!(linear.len(), 7);
        assert_eq!(linear.get(&Rev::new(4, [4; 16])).unwrap().stored, Some(live(4)));
        assert_eq!(linear.get(&Rev::new(3, [3; 16])), None);
        assert_eq!(linear.forget_bodies(), [4, 5, 6, 7, 8, 9]);
        assert_eq!(linear.stem(2), Vec::<u64>::new());
        assert_eq!(linear.stem(0), Vec::<u64>::new(), "the leaf stays");
        assert_eq!((linear.len(), linear.winner().unwrap().stored), (1, live(10)));
        check(&linear);

        // A conflict needs ancestors that the winner no longer does: they move to the winner ...
        let mut tree = tree(&["6-f e d c b a", "3-x b"]);
        tree.stem(4);
        assert_eq!(tree.ancestry(&rev("6-f")), Some(path("6-f e d c b a")));
        // ... as long as nothing is missing in between.
        tree.stem(2);
        assert_eq!(tree.ancestry(&rev("6-f")), Some(path("6-f e")));
        assert_eq!(tree.ancestry(&rev("3-x")), Some(path("3-x b")));
        assert_eq!(tree.len(), 4);
        check(&tree);
    }

    #[test]
    fn a_purge_removes_leaves_and_what_only_they_had() {
        let mut tree = tree(&["2-b a", "4-d c b", "4-x c b", "1-z"]);
        assert_eq!(tree.purge(&[rev("2-b"), rev("9-q")]), (vec![], vec![]), "no leaf");
        assert_eq!(tree.purge(&[rev("4-d")]), (vec![rev("4-d")], vec![2]));
        assert_eq!(revs(&tree.leaves()), ["4-x", "1-z"]);
        check(&tree);
        assert_eq!(tree.purge(&[rev("4-x")]), (vec![rev("4-x")], vec![3, 1]));
        assert_eq!(revs(&tree.leaves()), ["1-z"]);
        assert_eq!(tree.purge(&[rev("1-z")]), (vec![rev("1-z")], vec![4]));
        assert!(tree.is_empty());
        check(&tree);
    }

    #[test]
    fn bodies_are_listed_and_moved() {
        let mut tree = tree(&["2-b a", "3-c b", "3-d b"]);
        let stored: BTreeMap<String, u64> =
            tree.stored().map(|(rev, stored)| (rev.to_string(), stored.seq)).collect();
        assert_eq!(
            stored,
            BTreeMap::from([("2-b", 1), ("3-c", 2), ("3-d", 3)].map(|(r, s)| (r.to_owned(), s)))
        );
        assert!(tree.set_seq(&rev("3-c"), 70));
        assert!(!tree.set_seq(&rev("1-a"), 71));
        let info: Vec<_> = tree.ancestry_stored(&rev("3-c")).collect();
        assert_eq!(
            info,
            [(rev("3-c"), Some(live(70))), (rev("2-b"), Some(live(1))), (rev("1-a"), None)]
        );
        assert_eq!(tree.forget_bodies(), [1]);
        check(&tree);
    }

    #[test]
    fn histories_from_outside_are_checked() {
        let long = |len: usize| Revisions {
            start: 20_000,
            ids: (0..len).map(|i| RevId::Text(i.to_string().into())).collect(),
        };
        assert!(RevTree::check(&long(RevTree::MAX_PATH)).is_ok());
        for path in [long(RevTree::MAX_PATH + 1), long(0), path("1-b a"), path("0-b a")] {
            let mut tree = RevTree::new();
            assert_eq!(tree.merge_checked(&path, live(1)).unwrap_err().status(), 400);
            assert!(tree.is_empty());
        }
        let mut tree = tree(&["1-b a z"]);
        assert_eq!(tree.ancestry(&rev("1-b")), Some(path("1-b a")), "nothing precedes 0");
        assert_eq!(tree.merge_checked(&path("0-a"), live(2)).unwrap(), Merged::Learnt);
        check(&tree);
    }

    #[test]
    fn the_bytes_are_small_and_stay_as_they_are() {
        let mut tree = RevTree::new();
        tree.merge_ids(1, &[RevId::Hash([7; 16])], live(5));
        let mut one = vec![1, 0, 1, 1, 4];
        one.extend([7; 16]);
        one.extend([21, 0, 0, 0]);
        assert_eq!(encoded(&tree), one);
        let mut wide = tree.clone();
        wide.set_seq(&Rev::new(1, [7; 16]), 1 << 40);
        check(&wide);
    }

    /// What one edit of a document costs: `cargo test --release -p settee-core -- --ignored edits`.
    #[test]
    #[ignore = "a measurement"]
    fn edits_cost_little_more_than_copying() {
        for (revs, compacted) in [(1, true), (300, true), (300, false), (1000, true), (1000, false)]
        {
            let hash = |pos: u64| {
                let mut hash = [7; 16];
                hash[..8].copy_from_slice(&(pos.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes());
                RevId::Hash(hash)
            };
            let mut tree = RevTree::new();
            for pos in 1..=revs {
                tree.merge_ids(pos, &[hash(pos), hash(pos - 1)][..pos.min(2) as usize], live(pos));
            }
            if compacted {
                tree.forget_bodies();
            }
            let bytes = encoded(&tree);
            let mut out = Vec::new();
            let rounds = 200_000_000 / (1000 + 40 * bytes.len() as u32);
            let start = std::time::Instant::now();
            for _ in 0..rounds {
                let mut tree = RevTree::decode(std::hint::black_box(&bytes)).unwrap();
                tree.merge_ids(revs + 1, &[hash(revs + 1), hash(revs)], live(9_000));
                tree.stem(revs);
                out.clear();
                tree.encode(&mut out);
                std::hint::black_box(&out);
            }
            let each = start.elapsed() / rounds;
            println!("{revs} revisions, compacted {compacted}: {} bytes, {each:?}", bytes.len());
        }
    }

    /// A node of a history that everybody agrees on: its parent, if any, comes before it.
    #[derive(Debug, Clone)]
    struct Origin {
        rev: Rev,
        parent: Option<usize>,
    }

    fn origins() -> impl Strategy<Value = Vec<Origin>> {
        let node = (any::<proptest::sample::Index>(), 0..10u8, 1..4u64, any::<bool>());
        proptest::collection::vec(node, 1..30).prop_map(|nodes| {
            let mut origins: Vec<Origin> = Vec::new();
            for (i, (parent, root, pos, text)) in nodes.into_iter().enumerate() {
                // Mostly the newest, so that long histories occur.
                let parent = match root {
                    _ if i == 0 => None,
                    0 => None,
                    1..6 => Some(i - 1),
                    _ => Some(parent.index(i)),
                };
                let pos = parent.map_or(pos, |parent| origins[parent].rev.pos + 1);
                let byte = (i as u8).wrapping_mul(83);
                let id = match text && i % 7 == 0 {
                    true => RevId::Text(format!("t{byte}").into()),
                    false => RevId::Hash([byte; 16]),
                };
                origins.push(Origin { rev: Rev { pos, id }, parent });
            }
            origins
        })
    }

    /// Histories out of one origin: its node, how many ids, whether the revision is deleted.
    fn histories() -> impl Strategy<Value = Vec<(Revisions, Stored)>> {
        let pick = (any::<proptest::sample::Index>(), 1..12usize);
        (origins(), proptest::collection::vec(pick, 0..12)).prop_map(|(origins, picks)| {
            let history = |(node, len): (proptest::sample::Index, usize)| {
                let node = node.index(origins.len());
                let ids = std::iter::successors(Some(node), |&node| origins[node].parent)
                    .take(len)
                    .map(|node| origins[node].rev.id.clone());
                let path = Revisions { start: origins[node].rev.pos, ids: ids.collect() };
                (path, Stored { deleted: node % 3 == 0, seq: node as u64 + 1 })
            };
            picks.into_iter().map(history).collect()
        })
    }

    /// The same tree, as plainly as can be.
    #[derive(Debug, Default)]
    struct Model {
        nodes: BTreeMap<Rev, (Option<Rev>, Option<Stored>)>,
    }

    impl Model {
        fn merge(&mut self, path: &Revisions, node: Stored) {
            let revs: Vec<Rev> = path
                .ids
                .iter()
                .zip((0..=path.start).rev())
                .map(|(id, pos)| Rev { pos, id: id.clone() })
                .collect();
            for (i, rev) in revs.iter().enumerate() {
                let entry = self.nodes.entry(rev.clone()).or_default();
                entry.0 = entry.0.take().or(revs.get(i + 1).cloned());
                if i == 0 {
                    entry.1 = entry.1.or(Some(node));
                }
            }
        }

        fn leaves(&self) -> Vec<Rev> {
            let parents: BTreeSet<&Rev> =
                self.nodes.values().filter_map(|node| node.0.as_ref()).collect();
            let mut leaves: Vec<&Rev> =
                self.nodes.keys().filter(|rev| !parents.contains(rev)).collect();
            leaves.sort_by_key(|rev| (!self.nodes[rev].1.unwrap().deleted, *rev));
            leaves.into_iter().rev().cloned().collect()
        }

        fn ancestry(&self, rev: &Rev) -> Vec<Rev> {
            std::iter::successors(Some(rev), |&rev| self.nodes[rev].0.as_ref()).cloned().collect()
        }

        fn keep(&mut self, kept: &BTreeSet<Rev>) -> BTreeSet<u64> {
            let mut dropped = BTreeSet::new();
            self.nodes.retain(|rev, node| {
                node.0 = node.0.take().filter(|parent| kept.contains(parent));
                if !kept.contains(rev) {
                    dropped.extend(node.1.map(|stored| stored.seq));
                }
                kept.contains(rev)
            });
            dropped
        }
    }

    fn same(tree: &RevTree, model: &Model) {
        check(tree);
        assert_eq!(tree.len(), model.nodes.len());
        let leaves = model.leaves();
        assert_eq!(tree.leaves().into_iter().map(|l| l.rev).collect::<Vec<_>>(), leaves);
        for (rev, (_, stored)) in &model.nodes {
            let node = Node { stored: *stored, leaf: leaves.contains(rev) };
            assert_eq!(tree.get(rev), Some(node));
            let ancestry: Vec<Rev> = tree.ancestry_stored(rev).map(|(rev, _)| rev).collect();
            assert_eq!(ancestry, model.ancestry(rev));
            let latest: Vec<Rev> =
                leaves.iter().filter(|leaf| model.ancestry(leaf).contains(rev)).cloned().collect();
            assert_eq!(tree.latest(rev).into_iter().map(|l| l.rev).collect::<Vec<_>>(), latest);
        }
        let stored = model.nodes.values().filter(|node| node.1.is_some()).count();
        assert_eq!(tree.stored().count(), stored);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn trees_do_not_depend_on_the_order_of_merges(
            (histories, shuffled) in histories().prop_flat_map(|histories| {
                (Just(histories.clone()), Just(histories).prop_shuffle())
            })
        ) {
            let (mut one, mut other, mut model) = (RevTree::new(), RevTree::new(), Model::default());
            for (path, node) in &histories {
                let before = one.clone();
                let merged = one.merge(path, *node);
                prop_assert_eq!(merged.changed(), one != before);
                model.merge(path, *node);
                same(&one, &model);
            }
            for (path, node) in &shuffled {
                other.merge(path, *node);
            }
            prop_assert_eq!(&one, &other);
            prop_assert_eq!(encoded(&one), encoded(&other));
        }

        #[test]
        fn stems_and_purges_are_those_of_the_model(
            histories in histories(),
            limit in 1..6usize,
            purge in 0..u32::MAX,
        ) {
            let (mut tree, mut model) = (RevTree::new(), Model::default());
            for (path, node) in &histories {
                tree.merge(path, *node);
                model.merge(path, *node);
            }
            let newest = |leaf: &Rev| model.ancestry(leaf).into_iter().take(limit).collect::<Vec<_>>();
            let kept = model.leaves().iter().flat_map(newest).collect();
            let dropped = tree.stem(limit as u64);
            prop_assert_eq!(dropped.iter().copied().collect::<BTreeSet<u64>>(), model.keep(&kept));
            same(&tree, &model);

            let leaves = model.leaves();
            let (purged, rest): (Vec<_>, Vec<_>) =
                leaves.into_iter().enumerate().partition(|(i, _)| purge >> (i % 32) & 1 == 1);
            let purged: Vec<Rev> = purged.into_iter().map(|(_, rev)| rev).collect();
            let kept = rest.iter().flat_map(|(_, leaf)| model.ancestry(leaf)).collect();
            let (gone, dropped) = tree.purge(&purged);
            prop_assert_eq!(gone, purged);
            prop_assert_eq!(dropped.iter().copied().collect::<BTreeSet<u64>>(), model.keep(&kept));
            same(&tree, &model);
        }

        #[test]
        fn corrupt_bytes_are_an_error_or_a_sound_tree(
            histories in histories(),
            cut in any::<proptest::sample::Index>(),
            flips in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let mut tree = RevTree::new();
            for (path, node) in &histories {
                tree.merge(path, *node);
            }
            let mut bytes = encoded(&tree);
            prop_assert!(RevTree::decode(&bytes[..cut.index(bytes.len())]).is_err());
            for (at, byte) in flips {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if let Ok(mut tree) = RevTree::decode(&bytes) {
                let leaf = tree.winner();
                if let Some(leaf) = leaf {
                    tree.latest(&leaf.rev);
                    tree.ancestry(&leaf.rev);
                    tree.merge_ids(leaf.rev.pos, &[leaf.rev.id, RevId::Hash([9; 16])], live(1));
                }
                tree.stem(3);
                tree.purge(&[Rev::new(1, [0; 16])]);
                tree.forget_bodies();
            }
        }

        #[test]
        fn any_bytes_decode_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = RevTree::decode(&bytes);
        }
    }
}
