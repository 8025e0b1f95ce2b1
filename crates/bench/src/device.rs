//! What the device can do at best: append a document's bytes to a file and flush it.

use crate::{Figures, Work, document, rate, text};
use std::fs::File;
use std::io::Write;
use std::path::Path;

pub(crate) fn run(dir: &Path, _docs: usize) -> Result<Figures, String> {
    const FLUSHES: usize = 2000;
    let mut file = File::create(dir.join("log")).map_err(text)?;
    let bytes = document(0);
    // The first writes of a file are slower than the rest.
    for _ in 0..100 {
        file.write_all(bytes.as_bytes()).map_err(text)?;
        file.sync_data().map_err(text)?;
    }
    let flushes = rate(FLUSHES, || {
        for _ in 0..FLUSHES {
            file.write_all(bytes.as_bytes()).map_err(text)?;
            file.sync_data().map_err(text)?;
        }
        Ok(())
    })?;
    Ok(Figures::from([(Work::SinglePut, flushes)]))
}
