//! Who may do what: the route table, walked as everyone there is.

use crate::Site;
use settee_server::{Level, RouteInfo, route_table};

/// A path that the route matches.
fn path(route: &RouteInfo) -> String {
    let segment = |text: &str| match text {
        "{db}" => "db".to_owned(),
        "{node}" => "_local".to_owned(),
        "{section}" => "cors".to_owned(),
        "{key}" => "walk".to_owned(),
        "{path..}" | "{name..}" => "a/b".to_owned(),
        text if text.starts_with('{') => "x".to_owned(),
        text => text.to_owned(),
    };
    let segments: Vec<String> = route.path.split('/').map(segment).collect();
    segments.join("/")
}

async fn ask(client: &crate::Client, route: &RouteInfo) -> (u16, String) {
    let request = client.request(&route.method, &path(route)).json("{}");
    let reply = request.header("destination", "y").send().await;
    (reply.status, reply.text())
}

/// A refusal for want of rights, which is not one for want of a login.
fn is_refused(status: u16) -> bool {
    status == 401 || status == 403
}

#[tokio::test]
async fn nobody_gets_past_what_a_route_asks_for() {
    for route in route_table() {
        let site = Site::start().await;
        site.with_db().await;
        let (status, text) = ask(&site.anyone(), &route).await;
        match route.level {
            // Logging in is for everyone, and fails here for want of a name.
            Level::Anyone => assert!(!is_refused(status), "{route:?}: {status} {text}"),
            _ => assert_eq!(status, 401, "{route:?}: {text}"),
        }
        // Where everyone must log in, that comes first.
        let site = Site::with(&[("chttpd", "require_valid_user", "true")]).await;
        site.with_db().await;
        site.publish("db").await;
        if (route.path, route.method.as_str()) != ("/_session", "POST") {
            assert_eq!(ask(&site.anyone(), &route).await.0, 401, "{route:?}");
        }
    }
}

#[tokio::test]
async fn a_member_may_not_administer() {
    for route in route_table() {
        let site = Site::start().await;
        site.with_db().await;
        // A database without members is everybody's, and nobody is its admin.
        site.publish("db").await;
        let (status, text) = ask(&site.anyone(), &route).await;
        match route.level {
            Level::Anyone => assert!(!is_refused(status), "{route:?}: {status} {text}"),
            Level::Member => {
                let design = route.path.contains("{ddoc}") && route.method != "GET";
                assert!(!is_refused(status) || design, "{route:?}: {status} {text}");
            }
            _ => assert_eq!(status, 401, "{route:?}: {text}"),
        }
    }
}

#[tokio::test]
async fn an_admin_may_do_everything() {
    for route in route_table() {
        let site = Site::start().await;
        let root = site.with_db().await;
        let (status, text) = ask(&root, &route).await;
        assert!(!is_refused(status), "{route:?}: {status} {text}");
        assert_ne!(status, 405, "{route:?}");
        assert_ne!(status, 500, "{route:?}: {text}");
    }
}

#[tokio::test]
async fn every_method_is_announced_and_others_are_refused() {
    let site = Site::start().await;
    let root = site.with_db().await;
    for route in route_table() {
        assert!(route.allow.split(',').any(|method| method == route.method), "{route:?}");
        let other = RouteInfo { method: "PATCH".to_owned(), ..route.clone() };
        let reply = root.request("PATCH", &path(&other)).send().await;
        assert_eq!((reply.status, reply.header("allow")), (405, Some(route.allow)), "{route:?}");
        let body = format!(
            "{{\"error\":\"method_not_allowed\",\"reason\":\"Only {} allowed\"}}\n",
            route.allow
        );
        assert_eq!(reply.text(), body);
    }
}

#[tokio::test]
async fn only_these_need_no_rights() {
    let mut open: Vec<String> = route_table()
        .into_iter()
        .filter(|route| route.level == Level::Anyone)
        .map(|route| format!("{} {}", route.method, route.path))
        .collect();
    open.sort();
    let expected = [
        "DELETE /_session",
        "GET /",
        "GET /_session",
        "GET /_up",
        "GET /_utils",
        "GET /_utils/{path..}",
        "GET /_uuids",
        "GET /favicon.ico",
        "POST /_session",
    ];
    assert_eq!(open, expected);
}
