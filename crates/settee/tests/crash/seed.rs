//! Randomness that can be replayed.

use rand::SeedableRng;
use rand::rngs::StdRng;

/// A number from the environment.
pub(crate) fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect(name))
}

/// The seed of a test: the one given, or a new one. Printed if the test fails.
pub(crate) fn seed() -> u64 {
    let seed = variable("SETTEE_SEED").unwrap_or_else(|| u64::from(rand::random::<u32>()));
    println!("SETTEE_SEED={seed}");
    seed
}

/// How many rounds, unless the environment says otherwise.
pub(crate) fn rounds(default: u64) -> u64 {
    variable("SETTEE_ROUNDS").unwrap_or(default)
}

/// A generator that depends on all of the numbers.
pub(crate) fn rng(numbers: &[u64]) -> StdRng {
    let mix =
        |mix: u64, number: &u64| (mix ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    StdRng::seed_from_u64(numbers.iter().fold(0x5e77_ee00, mix))
}
