//! Every path there is, who may use it, and which function answers.
//!
//! One file per chapter of CouchDB's API reference.

mod attachment;
mod bulk;
mod changes;
pub(crate) mod database;
mod design;
mod document;
mod function;
mod local;
pub(crate) mod node;
mod replicate;
mod server;
mod session;
mod view;

use crate::auth::access::{Access, Level};
use crate::call::Call;
use crate::reply::Response;
use axum::http::Method;
use futures_core::future::BoxFuture;
use settee_core::Result;
use std::future::Future;
use std::sync::Arc;

/// The route table. Of several rows that match a path, the first counts, so words come before
/// parameters. `{name}` is one segment, `{name..}` is the rest. The text after the path is what
/// `Allow` says, in CouchDB's order.
fn table() -> Vec<Route> {
    use Method as M;
    let copy = || M::from_bytes(b"COPY").unwrap_or_default();
    vec![
        // The server.
        route("/", "GET,HEAD", [on(M::GET, server::welcome)]),
        route("/favicon.ico", "GET,HEAD", [on(M::GET, server::favicon)]),
        route("/_utils", "GET,HEAD", [on(M::GET, server::utils)]),
        route("/_utils/{path..}", "GET,HEAD", [on(M::GET, server::utils)]),
        route("/_up", "GET,HEAD", [on(M::GET, server::up)]),
        route("/_all_dbs", "GET,HEAD", [on(M::GET, server::all_dbs)]),
        route("/_all_dbs/{path..}", "GET,HEAD", [on(M::GET, server::nothing)]),
        route(
            "/_dbs_info",
            "GET,HEAD,POST",
            [on(M::GET, server::dbs_info), on(M::POST, server::dbs_info_of)],
        ),
        route("/_uuids", "GET", [on(M::GET, server::uuids)]),
        route("/_active_tasks", "GET,HEAD", [on(M::GET, server::active_tasks)]),
        route("/_membership", "GET", [on(M::GET, server::membership)]),
        route(
            "/_cluster_setup",
            "GET,POST",
            [on(M::GET, server::setup_state), on(M::POST, server::setup)],
        ),
        route("/_db_updates", "GET", [on(M::GET, server::db_updates)]),
        route(
            "/_session",
            "GET,HEAD,POST,DELETE",
            [on(M::GET, session::show), on(M::POST, session::begin), on(M::DELETE, session::end)],
        ),
        route("/_reload_query_servers", "POST", [on(M::POST, server::reload_query_servers)]),
        // Replication and sharding.
        route("/_replicate", "POST", [on(M::POST, replicate::start)]),
        route("/_scheduler/jobs", "GET,HEAD", [on(M::GET, replicate::jobs)]),
        route("/_scheduler/jobs/{id}", "GET,HEAD", [on(M::GET, replicate::job)]),
        route("/_scheduler/docs/{path..}", "GET,HEAD", [on(M::GET, replicate::docs)]),
        route("/_scheduler/docs", "GET,HEAD", [on(M::GET, replicate::docs)]),
        route(
            "/_reshard/{path..}",
            "GET,PUT,POST,DELETE",
            [M::GET, M::PUT, M::POST, M::DELETE].map(|method| on(method, design::reshard)),
        ),
        route("/_reshard", "GET", [on(M::GET, design::reshard)]),
        route("/_search_analyze", "POST", [on(M::POST, design::server_search)]),
        route("/_nouveau_analyze", "POST", [on(M::POST, design::server_search)]),
        // This node, and the paths of 1.x.
        route("/_node/{node}", "GET", [on(M::GET, node::name)]),
        route("/_node/{node}/_config", "GET", [on(M::GET, node::config)]),
        route("/_node/{node}/_config/_reload", "POST", [on(M::POST, node::reload)]),
        route("/_node/{node}/_config/{section}", "GET", [on(M::GET, node::section)]),
        route(
            "/_node/{node}/_config/{section}/{key}",
            "GET,PUT,DELETE",
            [on(M::GET, node::value), on(M::PUT, node::set), on(M::DELETE, node::unset)],
        ),
        route("/_node/{node}/_stats", "GET", [on(M::GET, node::stats)]),
        route("/_node/{node}/_stats/{path..}", "GET", [on(M::GET, node::stats)]),
        route("/_node/{node}/_system", "GET", [on(M::GET, node::system)]),
        route("/_node/{node}/_prometheus", "GET", [on(M::GET, node::prometheus)]),
        route("/_node/{node}/_versions", "GET", [on(M::GET, node::versions)]),
        route("/_node/{node}/_smoosh/status", "GET", [on(M::GET, node::smoosh)]),
        route("/_node/{node}/_restart", "POST", [on(M::POST, node::restart)]),
        route("/_config", "GET", [on(M::GET, node::config)]),
        route("/_config/_reload", "POST", [on(M::POST, node::reload)]),
        route("/_config/{section}", "GET", [on(M::GET, node::section)]),
        route(
            "/_config/{section}/{key}",
            "GET,PUT,DELETE",
            [on(M::GET, node::value), on(M::PUT, node::set), on(M::DELETE, node::unset)],
        ),
        route("/_stats", "GET", [on(M::GET, node::stats)]),
        route("/_stats/{path..}", "GET", [on(M::GET, node::stats)]),
        route("/_restart", "POST", [on(M::POST, node::restart)]),
        route("/_node", "GET", [on(M::GET, node::incomplete)]),
        route("/_node/{node}/{path..}", "GET", [on(M::GET, server::nothing)]),
        // A database.
        route(
            "/{db}",
            "DELETE,GET,HEAD,POST,PUT",
            [
                on(M::GET, database::info),
                on(M::PUT, database::create),
                on(M::DELETE, database::delete),
                on(M::POST, document::post),
            ],
        ),
        route(
            "/{db}/_security",
            "PUT,GET",
            [on(M::GET, database::security), on(M::PUT, database::set_security)],
        ),
        route(
            "/{db}/_revs_limit",
            "PUT,GET",
            [on(M::GET, database::revs_limit), on(M::PUT, database::set_revs_limit)],
        ),
        route("/{db}/_compact", "POST", [on(M::POST, database::compact)]),
        route("/{db}/_compact/{ddoc}", "POST", [on(M::POST, view::compact)]),
        route("/{db}/_view_cleanup", "POST", [on(M::POST, database::view_cleanup)]),
        route("/{db}/_ensure_full_commit", "POST", [on(M::POST, database::ensure_full_commit)]),
        route("/{db}/_purge", "POST", [on(M::POST, database::purge)]),
        route("/{db}/_purged_infos", "GET", [on(M::GET, database::purged_infos)]),
        route(
            "/{db}/_purged_infos_limit",
            "GET,PUT",
            [
                on(M::GET, database::purged_infos_limit),
                on(M::PUT, database::set_purged_infos_limit),
            ],
        ),
        route("/{db}/_revs_diff", "POST", [on(M::POST, database::revs_diff)]),
        route("/{db}/_missing_revs", "POST", [on(M::POST, database::missing_revs)]),
        route("/{db}/_shards", "GET", [on(M::GET, database::shards)]),
        route("/{db}/_shards/{id}", "GET", [on(M::GET, database::shard_of)]),
        route("/{db}/_sync_shards", "POST", [on(M::POST, database::sync_shards)]),
        route("/{db}/_bulk_docs", "POST", [on(M::POST, bulk::write)]),
        route("/{db}/_bulk_get", "POST", [on(M::POST, bulk::read)]),
        route(
            "/{db}/_all_docs",
            "GET,HEAD,POST",
            [on(M::GET, bulk::all_docs), on(M::POST, bulk::all_docs)],
        ),
        route("/{db}/_all_docs/queries", "POST", [on(M::POST, bulk::queries)]),
        route(
            "/{db}/_design_docs",
            "GET,HEAD,POST",
            [on(M::GET, bulk::design_docs), on(M::POST, bulk::design_docs)],
        ),
        route("/{db}/_design_docs/queries", "POST", [on(M::POST, bulk::design_queries)]),
        route(
            "/{db}/_local_docs",
            "GET,HEAD,POST",
            [on(M::GET, bulk::local_docs), on(M::POST, bulk::local_docs)],
        ),
        route("/{db}/_local_docs/queries", "POST", [on(M::POST, bulk::local_queries)]),
        route(
            "/{db}/_changes",
            "GET,POST,HEAD",
            [on(M::GET, changes::get), on(M::POST, changes::post)],
        ),
        // Indexes.
        route("/{db}/_find", "POST", [on(M::POST, design::find)]),
        route("/{db}/_explain", "POST", [on(M::POST, design::find)]),
        route("/{db}/_index", "GET,POST", [on(M::GET, design::find), on(M::POST, design::find)]),
        route("/{db}/_index/_bulk_delete", "POST", [on(M::POST, design::find)]),
        route("/{db}/_index/{path..}", "DELETE", [on(M::DELETE, design::find)]),
        route("/{db}/_temp_view", "POST", [on(M::POST, view::temp_view)]),
        route("/{db}/_search_cleanup", "POST", [on(M::POST, design::search)]),
        route("/{db}/_nouveau_cleanup", "POST", [on(M::POST, design::search)]),
        route(
            "/{db}/_partition/{path..}",
            "GET,POST",
            [on(M::GET, design::partition), on(M::POST, design::partition)],
        ),
        route(
            "/{db}/_auto_purge",
            "GET,PUT,HEAD",
            [on(M::GET, database::auto_purge), on(M::PUT, database::set_auto_purge)],
        ),
        route(
            "/{db}/_time_seq",
            "GET,DELETE",
            [on(M::GET, database::time_seq), on(M::DELETE, database::reset_time_seq)],
        ),
        // Local documents.
        route(
            "/{db}/_local",
            DOC_METHODS,
            [M::GET, M::PUT, M::DELETE, M::POST, copy()].map(|method| on(method, local::no_id)),
        ),
        route("/{db}/_local/{local}", DOC_METHODS, doc_endpoints(copy())),
        route(
            "/{db}/_local/{local}/{name..}",
            DOC_METHODS,
            [M::GET, M::PUT, M::DELETE, M::POST, copy()]
                .map(|method| on(method, local::no_attachments)),
        ),
        // Design documents.
        route("/{db}/_design/{ddoc}", DOC_METHODS, doc_endpoints(copy())),
        route("/{db}/_design/{ddoc}/_info", "GET", [on(M::GET, view::info)]),
        route(
            "/{db}/_design/{ddoc}/_view/{path..}",
            "GET,POST,HEAD",
            [on(M::GET, view::view), on(M::POST, view::view)],
        ),
        route(
            "/{db}/_design/{ddoc}/_search/{path..}",
            "GET,POST",
            [on(M::GET, design::search), on(M::POST, design::search)],
        ),
        route("/{db}/_design/{ddoc}/_search_info/{name}", "GET", [on(M::GET, design::search)]),
        route("/{db}/_design/{ddoc}/_search_disk_size/{name}", "GET", [on(M::GET, design::search)]),
        route(
            "/{db}/_design/{ddoc}/_nouveau/{path..}",
            "GET,POST",
            [on(M::GET, design::search), on(M::POST, design::search)],
        ),
        route("/{db}/_design/{ddoc}/_nouveau_info/{name}", "GET", [on(M::GET, design::search)]),
        route(
            "/{db}/_design/{ddoc}/_show/{path..}",
            "GET,POST",
            [on(M::GET, function::show), on(M::POST, function::show)],
        ),
        route(
            "/{db}/_design/{ddoc}/_list/{path..}",
            "GET,POST",
            [on(M::GET, function::list), on(M::POST, function::list)],
        ),
        route(
            "/{db}/_design/{ddoc}/_update/{path..}",
            "POST,PUT",
            [on(M::POST, function::update), on(M::PUT, function::update)],
        ),
        route(
            "/{db}/_design/{ddoc}/_show",
            "GET,POST",
            [on(M::GET, function::nameless), on(M::POST, function::nameless)],
        ),
        route(
            "/{db}/_design/{ddoc}/_list",
            "GET,POST",
            [on(M::GET, function::nameless), on(M::POST, function::nameless)],
        ),
        route(
            "/{db}/_design/{ddoc}/_update",
            "POST,PUT",
            [on(M::POST, function::nameless), on(M::PUT, function::nameless)],
        ),
        route(
            "/{db}/_design/{ddoc}/_rewrite",
            "GET,PUT,POST,DELETE",
            [M::GET, M::PUT, M::POST, M::DELETE].map(|method| on(method, function::rewrite)),
        ),
        route(
            "/{db}/_design/{ddoc}/_rewrite/{path..}",
            "GET,PUT,POST,DELETE",
            [M::GET, M::PUT, M::POST, M::DELETE].map(|method| on(method, function::rewrite)),
        ),
        route("/{db}/_design/{ddoc}/{name..}", ATT_METHODS, attachment_endpoints()),
        // Documents and their attachments.
        route("/{db}/{id}", DOC_METHODS, doc_endpoints(copy())),
        route("/{db}/{id}/{name..}", ATT_METHODS, attachment_endpoints()),
    ]
}

const DOC_METHODS: &str = "DELETE,GET,HEAD,POST,PUT,COPY";
const ATT_METHODS: &str = "DELETE,GET,HEAD,PUT";

fn doc_endpoints(copy: Method) -> [Endpoint; 5] {
    [
        on(Method::GET, document::get),
        on(Method::PUT, document::put),
        on(Method::DELETE, document::delete),
        on(Method::POST, document::upload),
        on(copy, document::copy),
    ]
}

fn attachment_endpoints() -> [Endpoint; 3] {
    [
        on(Method::GET, attachment::get),
        on(Method::PUT, attachment::put),
        on(Method::DELETE, attachment::delete),
    ]
}

type Handler = Box<dyn Fn(Arc<Call>) -> BoxFuture<'static, Result<Response>> + Send + Sync>;

/// A method of a route: who may use it, and the function that answers.
pub(crate) struct Endpoint {
    method: Method,
    level: Level,
    handler: Handler,
}

impl Endpoint {
    pub(crate) fn run(&self, call: Arc<Call>) -> BoxFuture<'static, Result<Response>> {
        (self.handler)(call)
    }
}

/// A handler takes the right that it needs and gets it before it runs, or does not run.
fn on<A, F, R>(method: Method, handler: F) -> Endpoint
where
    A: Access,
    F: Fn(A, Arc<Call>) -> R + Copy + Send + Sync + 'static,
    R: Future<Output = Result<Response>> + Send + 'static,
{
    let handler: Handler = Box::new(move |call: Arc<Call>| {
        Box::pin(async move {
            let right = A::grant(&call).await?;
            handler(right, call).await
        })
    });
    Endpoint { method, level: A::LEVEL, handler }
}

struct Route {
    path: &'static str,
    allow: &'static str,
    pattern: Vec<Segment>,
    endpoints: Vec<Endpoint>,
}

enum Segment {
    Word(&'static str),
    One(&'static str),
    Rest(&'static str),
}

fn route<const N: usize>(
    path: &'static str,
    allow: &'static str,
    endpoints: [Endpoint; N],
) -> Route {
    let segment =
        |text: &'static str| match text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) {
            None => Segment::Word(text),
            Some(name) => match name.strip_suffix("..") {
                Some(name) => Segment::Rest(name),
                None => Segment::One(name),
            },
        };
    let pattern = path.split('/').filter(|text| !text.is_empty()).map(segment).collect();
    Route { path, allow, pattern, endpoints: endpoints.into() }
}

impl Route {
    /// The parameters, if the path is of this form.
    fn matches(&self, path: &[String]) -> Option<Vec<(&'static str, String)>> {
        let mut params = Vec::new();
        let mut path = path;
        for segment in &self.pattern {
            match segment {
                Segment::Rest(name) => {
                    if path.is_empty() {
                        return None;
                    }
                    params.push((*name, path.join("/")));
                    return Some(params);
                }
                Segment::Word(word) => (path.first()? == word).then_some(())?,
                Segment::One(name) => params.push((*name, path.first()?.clone())),
            }
            path = &path[1..];
        }
        path.is_empty().then_some(params)
    }

    /// Whether the path cannot be of this form, at one look.
    fn differs(&self, path: &[String]) -> bool {
        let word = |at: usize| match self.pattern.get(at) {
            Some(Segment::Word(word)) => Some(*word),
            _ => None,
        };
        let differs =
            |at| word(at).is_some_and(|word| path.get(at).is_none_or(|text| text != word));
        differs(0) || differs(1)
    }
}

/// What a path and a method lead to.
pub(crate) enum Found<'a> {
    Endpoint {
        endpoint: &'a Endpoint,
        route: &'static str,
        params: Vec<(&'static str, String)>,
    },
    /// The path is there, but not with this method; these are.
    OtherMethods(&'static str),
    Nothing,
}

/// The table, ready to be asked.
pub(crate) struct Routes(Vec<Route>);

impl Routes {
    pub(crate) fn new() -> Routes {
        Routes(table())
    }

    pub(crate) fn find(&self, path: &[String], method: &Method) -> Found<'_> {
        let candidates = self.0.iter().filter(|route| !route.differs(path));
        let matching = candidates.filter_map(|route| Some((route, route.matches(path)?)));
        let Some((route, params)) = matching.into_iter().next() else { return Found::Nothing };
        match route.endpoints.iter().find(|endpoint| endpoint.method == *method) {
            Some(endpoint) => Found::Endpoint { endpoint, route: route.path, params },
            None => Found::OtherMethods(route.allow),
        }
    }
}

/// One method of one path, for who walks the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteInfo {
    /// The method; `HEAD` works wherever `GET` does and is not listed.
    pub method: String,
    /// The path, with parameters in braces.
    pub path: &'static str,
    /// Who may use it.
    pub level: Level,
    /// What `Allow` says for this path.
    pub allow: &'static str,
}

/// All there is, and who may use it.
pub fn route_table() -> Vec<RouteInfo> {
    let info = |route: &Route| {
        let (path, allow) = (route.path, route.allow);
        let info = move |endpoint: &Endpoint| RouteInfo {
            method: endpoint.method.to_string(),
            path,
            level: endpoint.level,
            allow,
        };
        route.endpoints.iter().map(info).collect::<Vec<_>>()
    };
    table().iter().flat_map(info).collect()
}
