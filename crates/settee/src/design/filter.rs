//! Filters: which changes a feed reports.

use super::{Functions, Request, text_of};
use crate::adapter::{ChangesBatch, ChangesStream};
use futures_util::{StreamExt, TryStreamExt};
use settee_core::options::ChangesOptions;
use settee_core::{Error, Result};

/// A filter that is a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangesFilter {
    /// `filter=ddoc/name`.
    Function {
        /// The design document, without `_design/`.
        ddoc: String,
        /// The filter's name.
        name: String,
    },
    /// `filter=_view&view=ddoc/name`: documents for which the view's map function emits something.
    View {
        /// The design document, without `_design/`.
        ddoc: String,
        /// The view's name.
        name: String,
    },
}

impl ChangesFilter {
    /// Reads the parameters `filter` and `view`.
    ///
    /// ```
    /// use settee::design::ChangesFilter;
    ///
    /// let filter = ChangesFilter::parse("people/adults", None)?;
    /// let (ddoc, name) = ("people".to_owned(), "adults".to_owned());
    /// assert_eq!(filter, ChangesFilter::Function { ddoc, name });
    /// # Ok::<(), settee::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `BadRequest` if they are not of the form `ddoc/name`.
    pub fn parse(filter: &str, view: Option<&str>) -> Result<ChangesFilter> {
        let split = |text: &str, what: &str| {
            let (ddoc, name) = text.split_once('/')?;
            let fine = !ddoc.is_empty() && !name.is_empty() && !name.contains('/');
            fine.then(|| (ddoc.to_owned(), name.to_owned())).ok_or(what).ok()
        };
        let wrong = |what: &str| {
            Error::bad_request(format!("`{what}` must be of the form `designname/{what}name`"))
        };
        if filter == "_view" {
            let found = view.and_then(|view| split(view, "view"));
            let (ddoc, name) = found.ok_or_else(|| wrong("view"))?;
            return Ok(ChangesFilter::View { ddoc, name });
        }
        let (ddoc, name) = split(filter, "filter").ok_or_else(|| wrong("filter"))?;
        Ok(ChangesFilter::Function { ddoc, name })
    }
}

impl Functions {
    /// The changes that a function lets pass. Where it fails, the change does not.
    ///
    /// Of the options, `limit` counts what passes.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such design document or function, and as
    /// [`Adapter::changes`](crate::adapter::Adapter::changes).
    pub async fn changes(
        &self,
        filter: &ChangesFilter,
        request: &Request,
        options: &ChangesOptions,
    ) -> Result<ChangesStream> {
        let (ChangesFilter::Function { ddoc, .. } | ChangesFilter::View { ddoc, .. }) = filter;
        let design = self.open(ddoc).await?;
        let request = self.request_object(request, None).await?;
        // Whether the function is there is known before the first change.
        self.ask(filter, &design.source, Vec::new(), request.clone()).await?;
        let mut inner = options.clone();
        inner.include_docs = true;
        inner.limit = None;
        let changes = self.db.changes(&inner).await?;
        let (functions, filter) = (self.clone(), filter.clone());
        let (limit, include_docs) = (options.limit.map(|limit| limit.max(1)), options.include_docs);
        let filtered = changes.and_then(move |batch| {
            let (functions, filter) = (functions.clone(), filter.clone());
            let (source, request) = (design.source.clone(), request.clone());
            async move {
                let docs = batch.changes.iter().map(|change| text_of(change.doc.as_deref()));
                let passes = functions.ask(&filter, &source, docs.collect(), request).await?;
                Ok((batch, passes))
            }
        });
        let mut left = limit;
        let batches = filtered.map_ok(move |(mut batch, passes)| {
            keep(&mut batch, &passes, &mut left);
            if !include_docs {
                batch.changes.iter_mut().for_each(|change| change.doc = None);
            }
            (batch, left == Some(0))
        });
        // The batch in which the limit is reached is the last.
        let batches = batches.scan(false, |done, batch| {
            let item = (!*done).then(|| {
                batch.map(|(batch, last)| {
                    *done = last;
                    batch
                })
            });
            std::future::ready(item)
        });
        Ok(batches.boxed())
    }

    async fn ask(
        &self,
        filter: &ChangesFilter,
        source: &crate::script::DesignSource,
        docs: Vec<String>,
        request: String,
    ) -> Result<Vec<bool>> {
        let results = match filter {
            ChangesFilter::Function { name, .. } => {
                self.engine.filter(source, name, docs, request).await?
            }
            ChangesFilter::View { name, .. } => self.engine.filter_view(source, name, docs).await?,
        };
        let passes = results.into_iter().map(|passes| {
            passes.unwrap_or_else(|error| {
                tracing::warn!("a filter failed, and the change does not pass: {error}");
                false
            })
        });
        Ok(passes.collect())
    }
}

/// Leaves those changes that pass, up to a limit.
fn keep(batch: &mut ChangesBatch, passes: &[bool], left: &mut Option<u64>) {
    let changes = std::mem::take(&mut batch.changes);
    let mut behind = changes.len() as u64;
    for (change, passes) in changes.into_iter().zip(passes) {
        behind -= 1;
        if !passes {
            continue;
        }
        let seq = change.seq.clone();
        batch.changes.push(change);
        if let Some(left) = left {
            *left -= 1;
            if *left == 0 {
                batch.last_seq = seq;
                batch.pending += behind;
                return;
            }
        }
    }
}
