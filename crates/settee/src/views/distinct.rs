//! `_approx_count_distinct`: how many different keys there are, within about two percent, from two
//! kilobytes whatever their number (HyperLogLog).

use md5::{Digest as _, Md5};

/// Bits of a hash that choose a register.
const PRECISION: u32 = 11;
const REGISTERS: usize = 1 << PRECISION;
/// The highest value of a register: one more than the bits of a hash that are left.
const HIGHEST: usize = 64 - PRECISION as usize + 1;
/// Up to so many registers that are not zero are listed one by one; three bytes each.
const SPARSE: usize = 256;

/// The registers: for each the longest run of zeros, plus one, at the front of the hashes that chose
/// it.
pub(crate) struct Distinct(Box<[u8; REGISTERS]>);

impl Default for Distinct {
    fn default() -> Distinct {
        Distinct(Box::new([0; REGISTERS]))
    }
}

impl Distinct {
    pub(crate) fn insert(&mut self, key: &[u8]) {
        let hash: [u8; 16] = Md5::digest(key).into();
        let hash = u64::from_be_bytes(*hash.first_chunk().unwrap_or(&[0; 8]));
        let register = (hash >> (64 - PRECISION)) as usize;
        // The bit behind the hash bounds the run.
        let run = (hash << PRECISION | 1 << (PRECISION - 1)).leading_zeros() as u8 + 1;
        self.raise(register, run);
    }

    fn raise(&mut self, register: usize, value: u8) {
        if let Some(known) = self.0.get_mut(register) {
            *known = value.max(*known).min(HIGHEST as u8);
        }
    }

    /// Takes what [`Distinct::encode`] wrote.
    pub(crate) fn merge(&mut self, encoded: &[u8]) {
        if encoded.len() == REGISTERS {
            for (register, value) in encoded.iter().enumerate() {
                self.raise(register, *value);
            }
            return;
        }
        for entry in encoded.chunks_exact(3) {
            self.raise(usize::from(u16::from_be_bytes([entry[0], entry[1]])), entry[2]);
        }
    }

    /// Number and value of each register that is not zero, or the values of all.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let used = || self.0.iter().enumerate().filter(|(_, value)| **value > 0);
        if used().count() > SPARSE {
            out.extend_from_slice(&*self.0);
            return;
        }
        for (register, value) in used() {
            out.extend_from_slice(&(register as u16).to_be_bytes());
            out.push(*value);
        }
    }

    /// Ertl's estimate, which is as good for few keys as for many and takes no tables.
    pub(crate) fn estimate(&self) -> u64 {
        let mut counts = [0_u32; HIGHEST + 1];
        for value in self.0.iter() {
            counts[usize::from(*value).min(HIGHEST)] += 1;
        }
        let m = REGISTERS as f64;
        let mut z = m * tau(1.0 - f64::from(counts[HIGHEST]) / m);
        for count in counts[1..HIGHEST].iter().rev() {
            z = 0.5 * (z + f64::from(*count));
        }
        z += m * sigma(f64::from(counts[0]) / m);
        let alpha = 0.5 / std::f64::consts::LN_2;
        (alpha * m * m / z).round() as u64
    }
}

fn sigma(x: f64) -> f64 {
    if x >= 1.0 {
        return f64::INFINITY;
    }
    let (mut x, mut y, mut z) = (x, 1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z == before {
            return z;
        }
    }
}

fn tau(x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return 0.0;
    }
    let (mut x, mut y, mut z) = (x, 1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x).powi(2) * y;
        if z == before {
            return z / 3.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_are_close() {
        assert_eq!(Distinct::default().estimate(), 0);
        let mut distinct = Distinct::default();
        let mut parts = Vec::new();
        let mut part = Distinct::default();
        for n in 1..=200_000_u64 {
            distinct.insert(&n.to_be_bytes());
            // Twice is as good as once.
            distinct.insert(&n.to_be_bytes());
            part.insert(&n.to_be_bytes());
            if n % 777 == 0 || n == 200_000 {
                let mut encoded = Vec::new();
                std::mem::take(&mut part).encode(&mut encoded);
                parts.push(encoded);
            }
            if n <= 20 {
                assert_eq!(distinct.estimate(), n);
            }
            if n % 10_000 == 0 {
                let error = (distinct.estimate() as f64 - n as f64).abs() / n as f64;
                assert!(error < 0.07, "{n}: {}", distinct.estimate());
            }
        }
        let mut merged = Distinct::default();
        parts.iter().for_each(|part| merged.merge(part));
        assert_eq!(merged.estimate(), distinct.estimate());
    }
}
