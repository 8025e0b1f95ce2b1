//! What makes guessing passwords slow for who guesses and cheap for the server.

use crate::auth::password::PasswordHash;
use crate::auth::random_hex;
use crate::config::Live;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The most entries either table holds.
const MAX_ENTRIES: usize = 10_000;

/// How long a password stays right without being asked for.
const MAX_IDLE: Duration = Duration::from_secs(600);

/// Passwords that were right a moment ago, so that not every request costs a PBKDF2. Kept as
/// keyed hashes over name, password and the stored hash: a changed password is not found.
pub(super) struct Verified {
    secret: String,
    entries: Mutex<HashMap<[u8; 32], Instant>>,
}

impl Verified {
    pub(super) fn new() -> Verified {
        Verified { secret: random_hex(32), entries: Mutex::default() }
    }

    pub(super) fn key(&self, name: &str, password: &str, hash: &PasswordHash) -> [u8; 32] {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.secret.as_bytes()) else {
            // HMAC takes keys of any length.
            return [0; 32];
        };
        for part in [name, password, &hash.to_string()] {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        mac.finalize().into_bytes().into()
    }

    pub(super) fn contains(&self, key: &[u8; 32]) -> bool {
        let now = Instant::now();
        let mut entries = lock(&self.entries);
        match entries.get_mut(key) {
            Some(used) if now.duration_since(*used) < MAX_IDLE => {
                *used = now;
                true
            }
            _ => false,
        }
    }

    pub(super) fn insert(&self, key: [u8; 32]) {
        let now = Instant::now();
        let mut entries = lock(&self.entries);
        make_room(&mut entries, |used| now.duration_since(*used) < MAX_IDLE);
        entries.insert(key, now);
    }

    pub(super) fn clear(&self) {
        lock(&self.entries).clear();
    }
}

/// Failed logins by name and address, CouchDB's `[chttpd_auth_lockout]`.
#[derive(Default)]
pub(super) struct Lockout {
    failures: Mutex<HashMap<(IpAddr, String), Failures>>,
}

struct Failures {
    count: u64,
    since: Instant,
}

/// One login.
pub(super) struct Attempt<'a> {
    lockout: &'a Lockout,
    /// `None` where there is no lock-out.
    key: Option<(IpAddr, String)>,
    lifetime: Duration,
    locked: bool,
}

impl Lockout {
    pub(super) fn attempt(&self, live: &Live, peer: Option<IpAddr>, name: &str) -> Attempt<'_> {
        let section = "chttpd_auth_lockout";
        let mode = live.get(section, "mode");
        let lifetime = live.millis(section, "max_lifetime", 300_000);
        let threshold = live.number(section, "threshold", 5);
        let peer = peer.filter(|_| mode != Some("off"));
        let key = peer.map(|peer| (network(peer), name.to_owned()));
        let failures = lock(&self.failures);
        let locked = key.as_ref().and_then(|key| failures.get(key)).is_some_and(|failures| {
            failures.count >= threshold
                && failures.since.elapsed() < lifetime
                && mode != Some("warn")
        });
        drop(failures);
        Attempt { lockout: self, key, lifetime, locked }
    }

    pub(super) fn clear(&self) {
        lock(&self.failures).clear();
    }
}

impl Attempt<'_> {
    pub(super) fn is_locked(&self) -> bool {
        self.locked
    }

    pub(super) fn failed(self) {
        let Some(key) = self.key else { return };
        let (now, lifetime) = (Instant::now(), self.lifetime);
        let mut table = lock(&self.lockout.failures);
        make_room(&mut table, |failures| now.duration_since(failures.since) < lifetime);
        let failures = table.entry(key).or_insert(Failures { count: 0, since: now });
        if now.duration_since(failures.since) >= lifetime {
            *failures = Failures { count: 0, since: now };
        }
        failures.count += 1;
    }
}

/// What one client has to itself: an IPv4 address, or the half of an IPv6 address that it is given.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => IpAddr::V4(v4),
            None => IpAddr::V6(Ipv6Addr::from(u128::from(v6) >> 64 << 64)),
        },
    }
}

/// Drops what is out of date from a full table, and if nothing is, everything.
fn make_room<K: Eq + std::hash::Hash, V>(table: &mut HashMap<K, V>, is_fresh: impl Fn(&V) -> bool) {
    if table.len() >= MAX_ENTRIES {
        table.retain(|_, value| is_fresh(value));
    }
    if table.len() >= MAX_ENTRIES {
        table.clear();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
