//! Counters: what `_stats` and `_prometheus` tell.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

const METHODS: [&str; 7] = ["COPY", "DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT"];

/// Statuses that are counted: those that are sent.
const STATUSES: [u16; 26] = [
    200, 201, 202, 204, 206, 301, 302, 304, 400, 401, 403, 404, 405, 406, 409, 410, 412, 413, 414,
    415, 416, 417, 500, 501, 503, 507,
];

/// What happened so far.
#[derive(Default)]
pub(crate) struct Stats {
    requests: AtomicU64,
    methods: [AtomicU64; METHODS.len()],
    statuses: [AtomicU64; STATUSES.len()],
    bulk_requests: AtomicU64,
    document_writes: AtomicU64,
    database_reads: AtomicU64,
    /// How many feeds are open now.
    feeds: Arc<AtomicI64>,
}

/// An open feed, as long as it lives.
pub(crate) struct OpenFeed(Arc<AtomicI64>);

impl Drop for OpenFeed {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Stats {
    pub(crate) fn request(&self, method: &Method) {
        self.requests.fetch_add(1, Relaxed);
        if let Some(at) = METHODS.iter().position(|name| *name == method.as_str()) {
            self.methods[at].fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn reply(&self, status: StatusCode) {
        if let Ok(at) = STATUSES.binary_search(&status.as_u16()) {
            self.statuses[at].fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn bulk_request(&self) {
        self.bulk_requests.fetch_add(1, Relaxed);
    }

    pub(crate) fn document_writes(&self, count: u64) {
        self.document_writes.fetch_add(count, Relaxed);
    }

    pub(crate) fn document_reads(&self, count: u64) {
        self.database_reads.fetch_add(count, Relaxed);
    }

    pub(crate) fn open_feed(&self) -> OpenFeed {
        self.feeds.fetch_add(1, Relaxed);
        OpenFeed(self.feeds.clone())
    }

    /// The tree that `_stats` shows.
    pub(crate) fn to_json(&self) -> Value {
        let counter = |value: &AtomicU64, desc: &str| json!({"value": value.load(Relaxed), "type": "counter", "desc": desc});
        let methods = METHODS.iter().zip(&self.methods).map(|(name, count)| {
            (name.to_string(), counter(count, &format!("number of HTTP {name} requests")))
        });
        let statuses = STATUSES.iter().zip(&self.statuses).map(|(status, count)| {
            (status.to_string(), counter(count, &format!("number of HTTP {status} responses")))
        });
        let feeds = self.feeds.load(Relaxed);
        json!({
            "couchdb": {
                "database_reads": counter(
                    &self.database_reads, "number of times a document was read from a database"),
                "document_writes": counter(
                    &self.document_writes, "number of document write operations"),
                "httpd": {
                    "bulk_requests": counter(&self.bulk_requests, "number of bulk requests"),
                    "clients_requesting_changes": {
                        "value": feeds,
                        "type": "gauge",
                        "desc": "number of clients for continuous _changes",
                    },
                    "requests": counter(&self.requests, "number of HTTP requests"),
                },
                "httpd_request_methods": methods.collect::<serde_json::Map<_, _>>(),
                "httpd_status_codes": statuses.collect::<serde_json::Map<_, _>>(),
            }
        })
    }

    /// The same for Prometheus.
    pub(crate) fn to_prometheus(&self, uptime: u64) -> String {
        let mut text = String::new();
        let mut put = |name: &str, kind: &str, label: Option<(&str, &str)>, value: i128| {
            // Writing to a String does not fail.
            let _ = match label {
                None => writeln!(text, "# TYPE {name} {kind}\n{name} {value}"),
                Some((key, label)) => writeln!(text, "{name}{{{key}=\"{label}\"}} {value}"),
            };
        };
        let load = |value: &AtomicU64| i128::from(value.load(Relaxed));
        put("couchdb_uptime_seconds", "counter", None, i128::from(uptime));
        put("couchdb_httpd_requests_total", "counter", None, load(&self.requests));
        put("couchdb_httpd_bulk_requests_total", "counter", None, load(&self.bulk_requests));
        put("couchdb_document_writes_total", "counter", None, load(&self.document_writes));
        put("couchdb_database_reads_total", "counter", None, load(&self.database_reads));
        let feeds = i128::from(self.feeds.load(Relaxed));
        put("couchdb_httpd_clients_requesting_changes", "gauge", None, feeds);
        for (name, count) in METHODS.iter().zip(&self.methods) {
            put("couchdb_httpd_request_methods", "counter", Some(("method", name)), load(count));
        }
        for (status, count) in STATUSES.iter().zip(&self.statuses) {
            let label = status.to_string();
            put("couchdb_httpd_status_codes", "counter", Some(("code", &label)), load(count));
        }
        text
    }
}
