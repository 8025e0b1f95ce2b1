//! When a database's changes were made, roughly: which sequence it had reached when an interval
//! began.
//!
//! There are at most [`MOST`] intervals. The newest are three hours long; when there are too many,
//! old ones are joined, the more the longer ago they are. So what is kept is small for ever, and
//! days, months and years can still be told apart. A time is always taken for the beginning of its
//! interval: who asks for what is newer than a time gets some that is older, and never misses any.

use super::Result;
use super::codec::{Reader, put_uint};
use super::schema::{DbId, DbState, side};
use super::write::Writer;
use settee_core::wire::TimeBin;
use settee_store::{Snapshot, Table};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The shortest interval, in seconds.
const RESOLUTION: u64 = 3 * 3600;

/// The most intervals.
const MOST: usize = 60;

/// 2025-01-01. A clock that says less has not been set yet, and nothing is learned from it.
const EARLIEST: u64 = 1_735_689_600;

/// The intervals, oldest first: when each began, in seconds since 1970, and the update sequence
/// before its first change.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct TimeSeq(Vec<(u64, u64)>);

impl TimeSeq {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for &(start, seq) in &self.0 {
            put_uint(&mut out, start);
            put_uint(&mut out, seq);
        }
        out
    }

    pub(crate) fn decode(row: &[u8]) -> Result<TimeSeq> {
        let mut row = Reader(row);
        let mut bins = Vec::new();
        while !row.0.is_empty() {
            bins.push((row.uint()?, row.uint()?));
        }
        Ok(TimeSeq(bins))
    }

    /// Begins an interval, unless time or sequence have not moved on.
    fn begin(&mut self, start: u64, seq: u64) {
        if self.0.last().is_some_and(|&(last, reached)| start <= last || seq <= reached) {
            return;
        }
        self.0.push((start, seq));
        while self.0.len() > MOST {
            self.join(start);
        }
    }

    /// Joins the two neighbours whose common length is the least for their age.
    fn join(&mut self, now: u64) {
        let cost = |triple: &[(u64, u64)]| match triple {
            [(start, _), _, (end, _)] => {
                end.saturating_sub(*start) as f64 / (now.saturating_sub(*end) + RESOLUTION) as f64
            }
            _ => f64::INFINITY,
        };
        let costs = self.0.windows(3).map(cost).enumerate();
        if let Some((place, _)) = costs.min_by(|(_, a), (_, b)| a.total_cmp(b)) {
            self.0.remove(place + 1);
        }
    }

    /// The highest sequence that is known to have been reached by then; `None` is the newest of all.
    pub(crate) fn reached(&self, time: SystemTime) -> Option<u64> {
        let time = seconds(time);
        match self.0.last() {
            Some((newest, _)) if time >= newest.saturating_add(RESOLUTION) => None,
            _ => Some(self.0.iter().rfind(|(start, _)| *start <= time).map_or(0, |&(_, seq)| seq)),
        }
    }

    /// How many sequences were given out in each interval. What was before the first of them counts
    /// as of 1970.
    pub(crate) fn histogram(&self, update_seq: u64) -> Vec<TimeBin> {
        let before = self.0.first().filter(|(_, seq)| *seq > 0).map(|_| (0, 0));
        let bins: Vec<_> = before.into_iter().chain(self.0.iter().copied()).collect();
        let ends = bins.iter().skip(1).map(|&(_, seq)| seq).chain([update_seq]);
        let bin = |(&(start, seq), end): (&(u64, u64), u64)| TimeBin {
            start: UNIX_EPOCH.checked_add(Duration::from_secs(start)).unwrap_or(UNIX_EPOCH),
            changes: end.saturating_sub(seq),
        };
        bins.iter().zip(ends).map(bin).collect()
    }

    /// What cannot be, if anything: intervals are in order, and end where the database is.
    pub(crate) fn problem(&self, state: &DbState) -> Option<&'static str> {
        let ordered = self.0.windows(2).all(|pair| match pair {
            [(start, seq), (next, higher)] => start < next && seq < higher,
            _ => true,
        });
        let (start, seq) = self.0.last().copied().unwrap_or_default();
        if !ordered || self.0.len() > MOST {
            Some("its intervals of time are not in order")
        } else if start != state.newest_interval || seq > state.update_seq {
            Some("its intervals of time do not agree with its state")
        } else {
            None
        }
    }
}

/// Reads what is known.
pub(crate) fn read(snapshot: &Snapshot, db: DbId) -> Result<TimeSeq> {
    let row = snapshot.get(Table::Side, &side::time_seq(db))?;
    row.map_or_else(|| Ok(TimeSeq::default()), |row| TimeSeq::decode(&row))
}

impl Writer<'_, '_> {
    /// Notes that sequences behind `before` have been given out now.
    pub(crate) fn note_time(&mut self, before: u64) -> Result<()> {
        let now = seconds(SystemTime::now());
        let start = now - now % RESOLUTION;
        if now < EARLIEST || start <= self.state.newest_interval {
            return Ok(());
        }
        let key = side::time_seq(self.db);
        let mut times = match self.tx.get(Table::Side, &key)? {
            None => TimeSeq::default(),
            Some(row) => TimeSeq::decode(&row)?,
        };
        times.begin(start, before);
        self.state.newest_interval = times.0.last().map_or(0, |&(start, _)| start);
        self.tx.put(Table::Side, key, times.encode());
        Ok(())
    }

    /// Forgets when changes were made.
    pub(crate) fn forget_times(&mut self) {
        self.state.newest_interval = 0;
        self.tx.delete(Table::Side, side::time_seq(self.db));
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    proptest! {
        /// Writes at random times: whatever moment is asked about, no change that was made since is
        /// left out, and the rows survive their encoding.
        #[test]
        fn what_was_changed_since_a_time_is_never_missed(
            steps in prop::collection::vec((1u64..400_000, 1u64..50), 1..400),
            asked in prop::collection::vec(0.0f64..1.1, 20),
        ) {
            let (mut times, mut now, mut seq) = (TimeSeq::default(), EARLIEST, 0);
            let mut made = Vec::new();
            for (wait, changes) in steps {
                now += wait;
                times.begin(now - now % RESOLUTION, seq);
                seq += changes;
                made.push((now, seq));
            }
            prop_assert!(times.0.len() <= MOST);
            prop_assert_eq!(&TimeSeq::decode(&times.encode()).unwrap(), &times);
            let newest = times.0.last().map_or(0, |&(start, _)| start);
            let state = DbState { newest_interval: newest, update_seq: seq, ..DbState::default() };
            prop_assert_eq!(times.problem(&state), None);
            let histogram = times.histogram(seq);
            prop_assert_eq!(histogram.iter().map(|bin| bin.changes).sum::<u64>(), seq);
            for part in asked {
                let time = EARLIEST + ((now - EARLIEST) as f64 * part) as u64;
                let really = made.iter().rfind(|(at, _)| *at < time).map_or(0, |&(_, seq)| seq);
                prop_assert!(times.reached(at(time)).unwrap_or(seq) <= really);
            }
        }
    }

    #[test]
    fn recent_times_are_told_apart_better_than_old_ones() {
        let mut times = TimeSeq::default();
        let years = 20;
        let hours = years * 365 * 24;
        for hour in 0..hours {
            let now = EARLIEST + hour * 3600;
            times.begin(now - now % RESOLUTION, hour);
        }
        let now = EARLIEST + hours * 3600;
        for age in [86_400, 7 * 86_400, 30 * 86_400, 365 * 86_400, 10 * 365 * 86_400] {
            let reached = times.reached(at(now - age)).unwrap() * 3600 + EARLIEST;
            let off = now - age - reached;
            assert!(off <= RESOLUTION.max(age / 4), "{off} s off after {age} s");
        }
        assert_eq!(times.reached(at(now + RESOLUTION)), None, "nothing is newer than that");
        assert_eq!(times.reached(at(EARLIEST - 1)), Some(0));
    }

    #[test]
    fn a_clock_that_goes_back_begins_no_interval() {
        let mut times = TimeSeq::default();
        times.begin(5 * RESOLUTION, 3);
        times.begin(4 * RESOLUTION, 9);
        times.begin(6 * RESOLUTION, 3);
        assert_eq!(times.0, [(5 * RESOLUTION, 3)]);
    }
}
