//! PouchDB on leveldb, in a Node process of its own: `peers/pouchdb.mjs` measures and prints JSON.
//!
//! The package comes from the set-up of the real-client tests (`cargo xtask test node`).

use crate::http::Server;
use crate::{Figures, Work, text};
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) fn run(dir: &Path, docs: usize) -> Result<Figures, String> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let packages = root.join("target/clients/node");
    if !packages.join("node_modules/pouchdb").exists() {
        return Err("set it up first: cargo xtask test node".to_owned());
    }
    // Modules are looked for beside the script.
    let script = packages.join("bench-pouchdb.mjs");
    std::fs::copy(root.join("crates/bench/peers/pouchdb.mjs"), &script).map_err(text)?;
    let server = Server::start(&dir.join("server"))?;
    let output = Command::new("node")
        .arg(&script)
        .arg(dir)
        .arg(docs.to_string())
        .arg(format!("http://bench:bench@{}", server.address))
        .output()
        .map_err(|error| format!("node: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let figures: serde_json::Value = serde_json::from_slice(&output.stdout).map_err(text)?;
    let works = [
        ("singlePut", Work::SinglePut),
        ("manyWriters", Work::ManyWriters),
        ("bulk", Work::Bulk),
        ("get", Work::Get),
        ("allDocs", Work::AllDocs),
        ("allDocsWithDocs", Work::AllDocsWithDocs),
        ("changes", Work::Changes),
        ("changesWithDocs", Work::ChangesWithDocs),
        ("sameDocument", Work::SameDocument),
        ("disk", Work::Disk),
        ("replicate", Work::Replicate),
        ("replicateTo", Work::ReplicateTo),
        ("replicateFrom", Work::ReplicateFrom),
        ("viewBuild", Work::ViewBuild),
        ("viewUpdate", Work::ViewUpdate),
        ("viewGroups", Work::ViewGroups),
        ("viewRange", Work::ViewRange),
        ("viewSkip", Work::ViewSkip),
        ("viewSize", Work::ViewSize),
    ];
    let figures =
        works.into_iter().filter_map(|(name, work)| Some((work, figures[name].as_f64()?)));
    Ok(figures.collect())
}
