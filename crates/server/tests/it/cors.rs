//! Requests of web pages that came from elsewhere.

use crate::Site;

const ON: (&str, &str, &str) = ("chttpd", "enable_cors", "true");

fn preflight(site: &Site, origin: &str) -> crate::client::Request {
    site.anyone()
        .request("OPTIONS", "/db/_changes")
        .header("origin", origin)
        .header("access-control-request-method", "PUT")
        .header("access-control-request-headers", "Content-Type, Authorization")
}

#[tokio::test]
async fn nobody_may_come_unless_allowed() {
    let site = Site::start().await;
    let reply = site.anyone().get("/").header("origin", "http://a").send().await;
    assert_eq!(reply.header("access-control-allow-origin"), None);
    assert_eq!(preflight(&site, "http://a").send().await.status, 405);
    let site = Site::with(&[ON]).await;
    let reply = site.anyone().get("/").header("origin", "http://a").send().await;
    assert_eq!(reply.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn listed_origins_may_come_with_cookies_if_so_configured() {
    let origins = ("cors", "origins", "http://a, app://obsidian.md");
    let site = Site::with(&[ON, origins, ("cors", "credentials", "true")]).await;
    for origin in ["http://a", "app://obsidian.md"] {
        let reply = preflight(&site, origin).send().await;
        assert_eq!((reply.status, reply.body.len()), (204, 0));
        assert_eq!(reply.header("access-control-allow-origin"), Some(origin));
        assert_eq!(reply.header("access-control-allow-credentials"), Some("true"));
        assert_eq!(reply.header("access-control-max-age"), Some("600"));
        assert_eq!(
            reply.header("access-control-allow-headers"),
            Some("Content-Type, Authorization")
        );
        for method in ["GET", "PUT", "POST", "HEAD", "DELETE", "COPY", "OPTIONS"] {
            assert!(reply.header("access-control-allow-methods").unwrap().contains(method));
        }
        let reply = site.anyone().get("/").header("origin", origin).send().await;
        assert_eq!(reply.header("access-control-allow-origin"), Some(origin));
        assert_eq!(reply.header("access-control-allow-credentials"), Some("true"));
        let exposed = reply.header("access-control-expose-headers").unwrap();
        assert!(exposed.contains("etag") && exposed.contains("x-couch-request-id"));
        assert_eq!(reply.header("vary"), Some("Origin"));
        // Errors can be read too.
        let reply = site.anyone().get("/nodb").header("origin", origin).send().await;
        assert_eq!(reply.header("access-control-allow-origin"), Some(origin));
    }
    for origin in ["http://b", "http://a.evil", "null", ""] {
        assert_eq!(preflight(&site, origin).send().await.status, 405, "{origin}");
        let reply = site.anyone().get("/").header("origin", origin).send().await;
        assert_eq!(reply.header("access-control-allow-origin"), None, "{origin}");
    }
}

#[tokio::test]
async fn any_origin_never_comes_with_cookies() {
    let site = Site::with(&[ON, ("cors", "origins", "*"), ("cors", "credentials", "true")]).await;
    let reply = preflight(&site, "http://anywhere").send().await;
    assert_eq!(reply.header("access-control-allow-origin"), Some("http://anywhere"));
    assert_eq!(reply.header("access-control-allow-credentials"), None);
    let reply = site.anyone().get("/").header("origin", "http://anywhere").send().await;
    assert_eq!(reply.header("access-control-allow-credentials"), None);
}

#[tokio::test]
async fn preflights_are_let_through_before_anybody_logs_in() {
    let required = ("chttpd", "require_valid_user", "true");
    let site = Site::with(&[ON, ("cors", "origins", "http://a"), required]).await;
    assert_eq!(preflight(&site, "http://a").send().await.status, 204);
    assert_eq!(preflight(&site, "http://b").send().await.status, 401);
}

#[tokio::test]
async fn odd_methods_and_headers_are_not_allowed() {
    let site = Site::with(&[ON, ("cors", "origins", "http://a")]).await;
    let ask = async |method: &str, headers: &str| {
        let request = site.anyone().request("OPTIONS", "/").header("origin", "http://a");
        let request = request.header("access-control-request-method", method);
        request.header("access-control-request-headers", headers).send().await.status
    };
    assert_eq!(ask("COPY", "destination").await, 204);
    assert_eq!(ask("PATCH", "").await, 405);
    assert_eq!(ask("GET", "x-evil").await, 405);
}
