//! The fuzzer's functions, with every input it once found and with those it begins with. See
//! `docs/testing.md`.

#![allow(missing_docs, unreachable_pub, reason = "the fuzzer's functions are shared")]

#[path = "../../../fuzz/targets.rs"]
mod targets;

use std::path::Path;

#[test]
fn what_the_fuzzer_found_is_handled() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    for (name, target) in targets::TARGETS {
        let mut count = 0;
        for directory in ["seeds", "findings"] {
            let directory = fuzz.join(directory).join(name);
            for file in std::fs::read_dir(&directory).into_iter().flatten() {
                let path = file.unwrap().path();
                println!("{}", path.display());
                target(&std::fs::read(&path).unwrap());
                count += 1;
            }
        }
        assert!(count > 0, "there are no inputs for {name}");
    }
}
