//! Indexes that follow their database by themselves, so that who queries a view rarely waits.

use crate::adapter::{Adapter, DbUpdateKind};
use crate::couch::Couch;
use crate::env::Sleep;
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use serde_json::Value;
use settee_core::id::design_name;
use settee_core::options::{AllDocsOptions, DocSet, Update, ViewOptions};
use settee_core::{Document, Result};
use std::collections::BTreeSet;
use std::time::Duration;

/// How long writers have to pause, at most, before indexes follow them: many writes cost one update.
const PAUSE: Duration = Duration::from_millis(500);

impl Couch {
    /// Brings the views of databases up to date whenever something is written, from now on, until the
    /// future is dropped. Views that nobody has asked for yet are indexed too. Design documents with
    /// `"autoupdate": false` are left alone.
    ///
    /// What CouchDB does by itself is a choice here: it costs work for views that nobody reads.
    ///
    /// ```no_run
    /// # async fn example() -> settee::Result<()> {
    /// let couch = settee::Couch::open("data")?;
    /// tokio::spawn({
    ///     let couch = couch.clone();
    ///     async move { couch.keep_indexed().await }
    /// });
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`db_updates`](Couch::db_updates). A view that cannot be made is logged and left.
    pub async fn keep_indexed(&self) -> Result<()> {
        let mut updates = self.db_updates(None, true).await?;
        while let Some(update) = updates.try_next().await? {
            let mut changed = BTreeSet::new();
            let mut note = |update: crate::adapter::DbUpdate| match update.kind {
                DbUpdateKind::Deleted => _ = changed.remove(&update.db_name),
                DbUpdateKind::Created | DbUpdateKind::Updated => _ = changed.insert(update.db_name),
            };
            note(update);
            Sleep::new(PAUSE).await;
            while let Some(Some(more)) = updates.next().now_or_never() {
                note(more?);
            }
            for name in changed {
                if let Err(error) = index(&**self.db(&name)?.adapter()).await
                    && !error.is_not_found()
                {
                    tracing::warn!(database = name, %error, "views cannot be kept up to date");
                }
            }
        }
        Ok(())
    }
}

/// Starts to bring all views of a database up to date.
async fn index(db: &dyn Adapter) -> Result<()> {
    let options =
        AllDocsOptions { set: DocSet::Design, include_docs: true, ..AllDocsOptions::default() };
    let mut rows = db.all_docs(&options).await?.rows;
    while let Some(batch) = rows.try_next().await? {
        for doc in batch.into_iter().filter_map(|row| row.doc) {
            let id = doc.id.as_deref().unwrap_or_default();
            let ddoc = design_name(id).to_owned();
            for view in views(&doc) {
                let options = ViewOptions {
                    update: Update::After,
                    limit: Some(0),
                    reduce: Some(false),
                    ..ViewOptions::default()
                };
                if let Err(error) = db.view(&ddoc, &view, &options).await {
                    tracing::debug!(database = db.name(), ddoc, view, %error, "no index");
                }
            }
        }
    }
    Ok(())
}

/// The names of the views that are to follow.
fn views(doc: &Document) -> Vec<String> {
    let members = doc.body.to_value();
    if members.get("autoupdate") == Some(&Value::Bool(false)) {
        return Vec::new();
    }
    let views = members.get("views").and_then(Value::as_object);
    let has_map = |view: &Value| view.get("map").is_some();
    let views = views.into_iter().flatten().filter(|(_, view)| has_map(view));
    views.map(|(name, _)| name.clone()).collect()
}
