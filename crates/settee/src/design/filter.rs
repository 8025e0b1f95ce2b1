//! Filters: which changes a feed reports.

use super::{Functions, Request, Stub, text_of};
use crate::adapter::{ChangesBatch, ChangesStream};
use futures_util::{StreamExt, TryStreamExt};
use settee_core::options::{ChangesOptions, Filter, FilterFunction, GetOptions, OpenRevs};
use settee_core::wire::RevResult;
use settee_core::{Error, Result, Rev};

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
    /// Of the options, `limit` counts what passes. With [`Style::AllDocs`](settee_core::options::Style::AllDocs), each leaf of a document
    /// passes or does not.
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
        // With nothing to pass, there is nothing to ask.
        inner.limit = options.limit.filter(|limit| *limit == 0);
        if let Filter::Function(_) = inner.filter {
            inner.filter = Filter::None;
        }
        let changes = self.db.changes(&inner).await?;
        let (functions, filter) = (self.clone(), filter.clone());
        let (limit, include_docs) = (options.limit, options.include_docs);
        let filtered = changes.and_then(move |batch| {
            let (functions, filter) = (functions.clone(), filter.clone());
            let (source, request) = (design.source.clone(), request.clone());
            async move {
                let leaves = functions.leaves(&batch).await?;
                let docs = leaves.iter().map(|leaf| leaf.text.clone()).collect();
                let passes = functions.ask(&filter, &source, docs, request).await?;
                let passing = leaves.into_iter().zip(passes);
                let passing = passing.filter(|(_, passes)| *passes).map(|(leaf, _)| leaf);
                Ok((batch, passing.collect()))
            }
        });
        let mut left = limit;
        let batches = filtered.map_ok(move |(mut batch, passing): (_, Vec<Leaf>)| {
            keep(&mut batch, &passing, &mut left);
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

    /// The same for whoever has no request: the owner of the database asks.
    pub(crate) async fn filtered(
        &self,
        function: &FilterFunction,
        options: &ChangesOptions,
    ) -> Result<ChangesStream> {
        let filter = ChangesFilter::parse(&function.name, function.view())?;
        let stub = Stub { query: function.query.clone(), ..Stub::default() };
        let path = vec![self.db.name().to_owned(), "_changes".to_owned()];
        self.changes(&filter, &stub.request(path, "GET")?, options).await
    }

    /// The revisions of a batch that are to be judged, in its order.
    async fn leaves(&self, batch: &ChangesBatch) -> Result<Vec<Leaf>> {
        let mut leaves = Vec::with_capacity(batch.changes.len());
        for (change, at) in batch.changes.iter().zip(0..) {
            if let [_] = &change.revs[..] {
                leaves.push(Leaf { at, rev: None, text: text_of(change.doc.as_deref()) });
                continue;
            }
            let revs = OpenRevs::Revs(change.revs.clone());
            for found in self.db.open_revs(&change.id, &revs, &GetOptions::default()).await? {
                // One that has gone meanwhile comes again as another.
                if let RevResult::Found(doc) = found {
                    leaves.push(Leaf { at, rev: doc.rev.clone(), text: text_of(Some(&doc)) });
                }
            }
        }
        Ok(leaves)
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
                self.db.script()?.filter(source, name, docs, request).await?
            }
            ChangesFilter::View { name, .. } => {
                self.db.script()?.filter_view(source, name, docs).await?
            }
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

/// A revision that a filter judges.
struct Leaf {
    /// Its change's place in the batch.
    at: usize,
    /// Which one it is, unless it is the change's only one.
    rev: Option<Rev>,
    text: String,
}

/// Leaves those changes of which something passes, up to a limit.
fn keep(batch: &mut ChangesBatch, passing: &[Leaf], left: &mut Option<u64>) {
    let changes = std::mem::take(&mut batch.changes);
    let mut behind = changes.len() as u64;
    let mut passing = passing.iter().peekable();
    for (mut change, at) in changes.into_iter().zip(0..) {
        behind -= 1;
        let mut revs = Vec::new();
        let mut passes = false;
        while let Some(leaf) = passing.next_if(|leaf| leaf.at == at) {
            passes = true;
            revs.extend(leaf.rev.clone());
        }
        if !passes {
            continue;
        }
        if !revs.is_empty() {
            change.revs = revs;
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
