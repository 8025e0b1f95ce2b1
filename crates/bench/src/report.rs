//! The table: a row per work, a column per subject, and how Settee compares.

use crate::{Work, text};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

/// Where the table goes in `docs/performance.md`.
const BEGIN: &str = "<!-- measured: begin -->";
const END: &str = "<!-- measured: end -->";

/// The medians as a Markdown table.
pub(crate) fn table(
    subjects: &[&'static str],
    measured: &BTreeMap<(&'static str, Work), Vec<f64>>,
) -> String {
    let median = |subject: &'static str, work| -> Option<f64> {
        let mut figures = measured.get(&(subject, work))?.clone();
        figures.sort_by(f64::total_cmp);
        figures.get(figures.len() / 2).copied()
    };
    let mut table = format!("| work | {} | settee : best peer |\n", subjects.join(" | "));
    table.push_str(&"|---".repeat(subjects.len() + 2));
    table.push_str("|\n");
    for work in Work::ALL {
        let figures: Vec<_> = subjects.iter().map(|subject| median(subject, work)).collect();
        let cells: Vec<_> =
            figures.iter().map(|figure| figure.map_or("-".to_owned(), number)).collect();
        let peers = subjects.iter().zip(&figures).filter(|(name, _)| {
            !name.starts_with("settee") && (work == Work::SinglePut || **name != "device")
        });
        let own = subjects.iter().position(|name| *name == "settee").and_then(|at| figures[at]);
        let best = |a: f64, b: f64| if work.is_size() { a.min(b) } else { a.max(b) };
        let peer = peers.filter_map(|(_, figure)| *figure).reduce(best);
        let ratio = match (own, peer) {
            (Some(own), Some(peer)) => format!("{:.2}", own / peer),
            _ => "-".to_owned(),
        };
        // Writing to a string does not fail.
        let _ = writeln!(table, "| {} | {} | {ratio} |", work.title(), cells.join(" | "));
    }
    table
}

fn number(figure: f64) -> String {
    match figure {
        0.0..10.0 => format!("{figure:.2}"),
        10.0..10_000.0 => format!("{figure:.0}"),
        10_000.0..1_000_000.0 => format!("{:.1}k", figure / 1e3),
        _ => format!("{:.2} M", figure / 1e6),
    }
}

/// Puts the table into `docs/performance.md`, with the command that made it.
pub(crate) fn write(table: &str, rounds: usize, docs: usize) -> Result<(), String> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/performance.md");
    let page = std::fs::read_to_string(&path).map_err(text)?;
    let (before, rest) = page.split_once(BEGIN).ok_or("the page has no mark where it begins")?;
    let (_, after) = rest.split_once(END).ok_or("the page has no mark where it ends")?;
    let command = format!("cargo xtask bench --rounds {rounds} --docs {docs} --write");
    let page = format!(
        "{before}{BEGIN}\nMedians of {rounds} rounds, made by `{command}`:\n\n{table}{END}{after}"
    );
    std::fs::write(&path, page).map_err(text)
}
