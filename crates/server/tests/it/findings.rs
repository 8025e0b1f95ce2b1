//! The fuzzer's inputs for what this crate reads: those it begins with, and those it once found.

use std::path::Path;

#[test]
fn multipart_bodies_are_the_same_in_whatever_pieces_they_come() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let mut count = 0;
    for directory in ["seeds/multipart", "findings/multipart"] {
        for file in std::fs::read_dir(fuzz.join(directory)).into_iter().flatten() {
            settee_server::fuzzing::multipart(&std::fs::read(file.unwrap().path()).unwrap());
            count += 1;
        }
    }
    assert!(count > 0, "there are no inputs");
}
