//! Purges documents whose deletion is older than `_auto_purge` of their database, or the
//! configuration, says: CouchDB's auto purge plugin.

use crate::app::App;
use settee::Couch;
use settee_core::Result;
use settee_core::wire::period;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const SECTION: &str = "couch_auto_purge_plugin";

/// Goes through all databases again and again, until it is dropped.
pub(crate) async fn run(app: Arc<App>) {
    let couch = Couch::from_host(app.host.clone());
    loop {
        let live = app.config.live();
        let pause = live.get(SECTION, "repeat").and_then(period).unwrap_or(3600);
        let default = live.get(SECTION, "deleted_document_ttl").and_then(DefaultTtl::parse);
        drop(live);
        if let Err(error) = purge_all(&couch, default).await {
            tracing::warn!(%error, "deleted documents could not be purged");
        }
        tokio::time::sleep(Duration::from_secs(pause)).await;
    }
}

async fn purge_all(couch: &Couch, default: Option<DefaultTtl>) -> Result<()> {
    for name in couch.all_dbs().await? {
        match purge(couch, &name, default).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(database = name, count, "purged deleted documents"),
            // It has been deleted meanwhile.
            Err(error) if error.is_not_found() => {}
            Err(error) => tracing::warn!(database = name, %error, "purging failed"),
        }
    }
    Ok(())
}

async fn purge(couch: &Couch, name: &str, default: Option<DefaultTtl>) -> Result<u64> {
    let db = couch.db(name)?;
    match default {
        Some(default) if db.auto_purge().await?.deleted_document_ttl.is_none() => {
            db.purge_deleted_before(default.before()).await
        }
        _ => db.purge_expired().await,
    }
}

/// For databases that say nothing themselves. As CouchDB's it may begin with a minus sign: then
/// deletions count as older than they are, which makes sense in tests only.
#[derive(Debug, Clone, Copy)]
enum DefaultTtl {
    Ago(Duration),
    Ahead(Duration),
}

impl DefaultTtl {
    fn parse(text: &str) -> Option<DefaultTtl> {
        match text.strip_prefix('-') {
            None => period(text).map(|seconds| DefaultTtl::Ago(Duration::from_secs(seconds))),
            Some(text) => {
                period(text).map(|seconds| DefaultTtl::Ahead(Duration::from_secs(seconds)))
            }
        }
    }

    fn before(self) -> SystemTime {
        let now = SystemTime::now();
        let before = match self {
            DefaultTtl::Ago(ttl) => now.checked_sub(ttl),
            DefaultTtl::Ahead(ttl) => now.checked_add(ttl),
        };
        before.unwrap_or(UNIX_EPOCH)
    }
}
