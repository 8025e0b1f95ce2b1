//! Password hashes, in the text forms CouchDB keeps in its `[admins]` section.

use crate::auth::random_hex;
use sha1::Sha1;
use sha2::{Digest as _, Sha256, Sha512};
use std::fmt;
use subtle::ConstantTimeEq as _;

/// The most PBKDF2 rounds that a stored hash may ask for: what a login costs is bounded.
const MAX_ROUNDS: u32 = 10_000_000;

/// What a password is checked against.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    scheme: Scheme,
    /// Part of the key that signs a user's session, so that a new password ends old sessions.
    salt: String,
    expected: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    /// The password itself, as it came from a flag or a file. Never leaves the process.
    Plain,
    /// SHA-1 over password and salt (`-hashed-`), of CouchDB 1.2 and older.
    Simple,
    /// PBKDF2 with so many rounds.
    Pbkdf2(Prf, u32),
}

/// The hash within PBKDF2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prf {
    /// SHA-1.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Prf {
    /// Reads CouchDB's name.
    pub fn parse(name: &str) -> Option<Prf> {
        match name {
            "sha" => Some(Prf::Sha1),
            "sha256" => Some(Prf::Sha256),
            "sha512" => Some(Prf::Sha512),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Prf::Sha1 => "sha",
            Prf::Sha256 => "sha256",
            Prf::Sha512 => "sha512",
        }
    }

    fn derive(self, password: &[u8], salt: &[u8], rounds: u32) -> Vec<u8> {
        fn out<const N: usize>(fill: impl FnOnce(&mut [u8])) -> Vec<u8> {
            let mut key = [0; N];
            fill(&mut key);
            key.to_vec()
        }
        match self {
            Prf::Sha1 => out::<20>(|k| pbkdf2::pbkdf2_hmac::<Sha1>(password, salt, rounds, k)),
            Prf::Sha256 => out::<32>(|k| pbkdf2::pbkdf2_hmac::<Sha256>(password, salt, rounds, k)),
            Prf::Sha512 => out::<64>(|k| pbkdf2::pbkdf2_hmac::<Sha512>(password, salt, rounds, k)),
        }
    }
}

impl PasswordHash {
    /// Hashes a password with a fresh salt. Takes as long as `rounds` make it take.
    pub fn new(password: &str, prf: Prf, rounds: u32) -> PasswordHash {
        PasswordHash::derive(password, random_hex(16), prf, rounds)
    }

    fn derive(password: &str, salt: String, prf: Prf, rounds: u32) -> PasswordHash {
        let rounds = rounds.clamp(1, MAX_ROUNDS);
        let expected = prf.derive(password.as_bytes(), salt.as_bytes(), rounds);
        PasswordHash { scheme: Scheme::Pbkdf2(prf, rounds), salt, expected }
    }

    /// A password that is not hashed yet.
    pub(crate) fn plain(password: &str) -> PasswordHash {
        PasswordHash {
            scheme: Scheme::Plain,
            salt: random_hex(16),
            expected: password.as_bytes().to_vec(),
        }
    }

    /// The hash of a user document: `derived_key`, `salt`, `iterations` and `pbkdf2_prf`.
    pub fn from_parts(key: &str, salt: &str, rounds: u32, prf: Prf) -> Option<PasswordHash> {
        if rounds == 0 || rounds > MAX_ROUNDS {
            return None;
        }
        let scheme = Scheme::Pbkdf2(prf, rounds);
        Some(PasswordHash { scheme, salt: salt.to_owned(), expected: unhex(key)? })
    }

    /// Reads `-pbkdf2:PRF-KEY,SALT,ROUNDS`, `-pbkdf2-KEY,SALT,ROUNDS` and `-hashed-HASH,SALT`.
    /// `None` for any other text, which then is a password itself.
    pub fn parse(text: &str) -> Option<PasswordHash> {
        if let Some(rest) = text.strip_prefix("-hashed-") {
            let (hash, salt) = rest.split_once(',')?;
            let expected = unhex(hash)?;
            return Some(PasswordHash { scheme: Scheme::Simple, salt: salt.to_owned(), expected });
        }
        let (prf, rest) = match text.strip_prefix("-pbkdf2:") {
            Some(rest) => {
                let (prf, rest) = rest.split_once('-')?;
                (Prf::parse(prf)?, rest)
            }
            None => (Prf::Sha1, text.strip_prefix("-pbkdf2-")?),
        };
        let mut parts = rest.split(',');
        let (key, salt, rounds) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        PasswordHash::from_parts(key, salt, rounds.parse().ok()?, prf)
    }

    /// Whether this is a password that is not hashed yet.
    pub(crate) fn is_plain(&self) -> bool {
        self.scheme == Scheme::Plain
    }

    /// Whether checking a password takes long.
    pub(crate) fn is_slow(&self) -> bool {
        matches!(self.scheme, Scheme::Pbkdf2(..))
    }

    /// The salt.
    pub fn salt(&self) -> &str {
        &self.salt
    }

    /// What a user document keeps of a PBKDF2 hash: the hash within, the rounds, and the key in hex.
    pub(crate) fn parts(&self) -> Option<(&'static str, u32, String)> {
        match self.scheme {
            Scheme::Pbkdf2(prf, rounds) => Some((prf.name(), rounds, hex(&self.expected))),
            Scheme::Plain | Scheme::Simple => None,
        }
    }

    /// Whether this is the password. Takes the same time either way.
    pub fn verify(&self, password: &str) -> bool {
        let given = match self.scheme {
            // Hashed first, so that comparing takes no longer the more of it is right.
            Scheme::Plain => {
                let (given, expected) = (Sha256::digest(password), Sha256::digest(&self.expected));
                return given.ct_eq(&expected).into();
            }
            Scheme::Simple => {
                let mut hash = Sha1::new();
                hash.update(password.as_bytes());
                hash.update(self.salt.as_bytes());
                hash.finalize().to_vec()
            }
            Scheme::Pbkdf2(prf, rounds) => {
                prf.derive(password.as_bytes(), self.salt.as_bytes(), rounds)
            }
        };
        given.ct_eq(&self.expected).into()
    }
}

impl fmt::Display for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (hash, salt) = (hex(&self.expected), &self.salt);
        match self.scheme {
            Scheme::Plain => f.write_str("-pending-"),
            Scheme::Simple => write!(f, "-hashed-{hash},{salt}"),
            Scheme::Pbkdf2(Prf::Sha1, rounds) => write!(f, "-pbkdf2-{hash},{salt},{rounds}"),
            Scheme::Pbkdf2(prf, rounds) => {
                write!(f, "-pbkdf2:{}-{hash},{salt},{rounds}", prf.name())
            }
        }
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordHash").field("scheme", &self.scheme).finish_non_exhaustive()
    }
}

/// Lowercase hex digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if text.is_empty() || !text.len().is_multiple_of(2) {
        return None;
    }
    let digit = |c: u8| char::from(c).to_digit(16);
    text.as_bytes()
        .chunks_exact(2)
        .map(|pair| Some((digit(pair[0])? << 4 | digit(pair[1])?) as u8))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_prints_as_it_was_read() {
        for prf in [Prf::Sha1, Prf::Sha256, Prf::Sha512] {
            let hash = PasswordHash::new("secret", prf, 10);
            let read = PasswordHash::parse(&hash.to_string()).unwrap();
            assert_eq!(read, hash);
            assert!(read.verify("secret"));
            assert!(!read.verify("Secret"));
            assert!(!read.verify(""));
        }
    }

    #[test]
    fn hashes_made_by_couchdb_are_read() {
        // The second test vector of RFC 6070.
        let known = PasswordHash::derive("password", "salt".into(), Prf::Sha1, 2);
        assert_eq!(hex(&known.expected), "ea6c014dc72d6f8ccd1ed92ace1d41f0d8de8957");
        let legacy = PasswordHash::parse(&format!("-hashed-{},salt", hex(&Sha1::digest("pwsalt"))));
        assert!(legacy.unwrap().verify("pw"));
    }

    #[test]
    fn other_texts_are_passwords() {
        for text in ["secret", "-pbkdf2-", "-pbkdf2-zz,s,1", "-pbkdf2:md5-aa,s,1", "-hashed-aa"] {
            assert!(PasswordHash::parse(text).is_none(), "{text}");
        }
        let plain = PasswordHash::plain("secret");
        assert!(plain.verify("secret") && !plain.verify("secre"));
        assert!(!plain.to_string().contains("secret"));
    }
}
