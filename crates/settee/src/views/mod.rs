//! Views: indexes of what map functions emit for documents.
//!
//! A query goes [`view`] → [`update::reach`], which brings the index forward if it is behind →
//! [`query::answer`], which reads it. An index has rows of three kinds, told apart by their owners:
//!
//! - the nodes of a tree ([`node`]), read by [`tree`] and written by [`edit`];
//! - for each document the keys that it emitted ([`mapping`]), to find its old rows again;
//! - while the index is being made, sorted runs of rows ([`build`]).
//!
//! What is known of the index as a whole is one row of `Meta` ([`state`]). It is replaced in the
//! transaction that changes any of the others, so they never disagree.

mod build;
mod cache;
mod check;
mod definition;
mod distinct;
mod edit;
mod mapping;
mod native;
mod node;
mod number;
mod query;
pub(crate) mod reduce;
pub(crate) mod state;
mod tasks;
mod tree;
mod update;
mod upkeep;

pub(crate) use build::MEMORY;
pub(crate) use check::check;
pub use native::{Emitter, NativeView};
pub(crate) use upkeep::{cleanup, compact, info};

use crate::adapter::ViewRows;
use crate::local::Result;
use crate::local::databases::{Inner, Shared};
use crate::local::read;
use definition::{Definition, Design, Signature};
use query::Plan;
use rustc_hash::FxHashMap;
use settee_core::options::{GetOptions, Update, ViewOptions};
use settee_core::wire::TempView;
use settee_core::{Error, ErrorKind};
use settee_store::{Durability, Table};
use state::{IndexState, new_owner};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use update::{Goal, Index};

/// Indexes of temporary views that are kept for the case that they are asked again.
const TEMPORARY: usize = 8;

/// The indexes of one database, as this process knows them.
#[derive(Debug, Default)]
pub(crate) struct ViewSet {
    indexes: Mutex<FxHashMap<Signature, Arc<Index>>>,
    /// Those of temporary views, the one that was not used for the longest time first.
    temporary: Mutex<VecDeque<Signature>>,
    /// Design documents whose indexes are being compacted.
    compacting: Mutex<Vec<String>>,
}

impl ViewSet {
    fn get(&self, signature: &Signature) -> Option<Arc<Index>> {
        self.indexes.lock().unwrap_or_else(PoisonError::into_inner).get(signature).cloned()
    }

    fn remove(&self, signature: &Signature) {
        self.indexes.lock().unwrap_or_else(PoisonError::into_inner).remove(signature);
    }
}

/// Queries a view of a design document.
pub(crate) async fn view(
    inner: &Arc<Inner>,
    shared: &Arc<Shared>,
    ddoc: &str,
    view: &str,
    options: &ViewOptions,
) -> Result<ViewRows> {
    let mut design = design(inner, shared, ddoc)?;
    let definition = design.views.remove(view);
    let missing = || Error::new(ErrorKind::NotFound, "missing_named_view");
    ask(inner, shared, ddoc, definition.ok_or_else(missing)?, options, false).await
}

/// Queries a view that belongs to no design document.
pub(crate) async fn temp_view(
    inner: &Arc<Inner>,
    shared: &Arc<Shared>,
    view: &TempView,
    options: &ViewOptions,
) -> Result<ViewRows> {
    let definition = Definition::of_temp_view(view)?;
    ask(inner, shared, "_temp", definition, options, true).await
}

async fn ask(
    inner: &Arc<Inner>,
    shared: &Arc<Shared>,
    design: &str,
    definition: Definition,
    options: &ViewOptions,
    temporary: bool,
) -> Result<ViewRows> {
    let plan = Plan::new(options.clone(), definition.reduce.is_some(), definition.collation)?;
    let index = open(inner, shared, design, definition, temporary).await?;
    let goal = Goal::now(inner, shared.id)?;
    if options.update == Update::Before {
        update::reach(inner, shared, &index, goal).await?;
    }
    let snapshot = inner.store.snapshot();
    let state = index.state(&snapshot)?.ok_or_else(state::dropped)?;
    let rows = query::answer(inner, shared.id, snapshot, &state, &index.reducer, plan)?;
    if options.update == Update::After {
        update::start(inner, shared, &index, goal)?;
    }
    Ok(rows)
}

/// The views of a design document.
fn design(inner: &Inner, shared: &Shared, ddoc: &str) -> Result<Design> {
    let id = format!("_design/{ddoc}");
    let doc = read::get(&inner.store, shared.id, &id, &GetOptions::default())?;
    Ok(Design::parse(&doc.body))
}

/// The index of a view, which is begun if there is none.
async fn open(
    inner: &Arc<Inner>,
    shared: &Arc<Shared>,
    design: &str,
    definition: Definition,
    temporary: bool,
) -> Result<Arc<Index>> {
    let functions = &inner.views.functions;
    let signature = definition.signature(functions);
    let known = shared.views.get(&signature);
    let index = match known {
        Some(index) => index,
        None => {
            let mapping = definition.mapping(functions, &shared.name)?;
            let reducer = definition.reducer(functions, &shared.name, design)?;
            let index = Index::new(shared.id, signature, definition, design, mapping, reducer);
            let mut indexes = shared.views.indexes.lock().unwrap_or_else(PoisonError::into_inner);
            indexes.entry(signature).or_insert_with(|| Arc::new(index)).clone()
        }
    };
    let key = index.state_key();
    let row = inner.store.get(Table::Meta, &key)?;
    let state = row.as_ref().map(IndexState::decode).transpose()?;
    // Who asks for a view of a design document that was a temporary one before, keeps it.
    if state.is_none_or(|state| state.temporary && !temporary) {
        let (db, native) = (shared.id, index.definition.is_native());
        inner
            .transact(Durability::Deferred, move |tx| {
                let db = crate::local::databases::state(tx, db)?;
                let state = match tx.get(Table::Meta, &key)? {
                    Some(row) => {
                        let state = IndexState::decode(&row)?;
                        IndexState { temporary: state.temporary && temporary, ..state }
                    }
                    None => IndexState {
                        temporary,
                        native,
                        docs: new_owner(tx)?,
                        tree: new_owner(tx)?,
                        seq: db.update_seq,
                        purge_seq: db.purge_seq,
                        ..IndexState::default()
                    },
                };
                tx.put(Table::Meta, key, state.encode());
                Ok(())
            })
            .await?;
    }
    if temporary {
        let old = {
            let mut used = shared.views.temporary.lock().unwrap_or_else(PoisonError::into_inner);
            used.retain(|other| *other != signature);
            used.push_back(signature);
            if used.len() > TEMPORARY { used.pop_front() } else { None }
        };
        if let Some(old) = old {
            upkeep::drop_index(inner, shared, old, true).await?;
        }
    }
    Ok(index)
}
