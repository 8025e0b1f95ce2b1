//! Logging in, staying logged in, logging out.

use crate::{Site, assert_error};
use serde_json::json as value;
use std::time::Duration;

/// The cookie of a reply, without its attributes.
fn cookie(reply: &crate::Reply) -> String {
    reply.header("set-cookie").unwrap().split(';').next().unwrap().to_owned()
}

#[tokio::test]
async fn a_session_begins_and_ends() {
    let site = Site::start().await;
    let anyone = site.anyone();
    let session = anyone.value("/_session").await;
    assert_eq!(session["userCtx"], value!({"name": null, "roles": []}));
    assert_eq!(session["info"]["authentication_handlers"], value!(["cookie", "default"]));
    assert_eq!(session["info"]["authenticated"], value!(null));

    let form = "application/x-www-form-urlencoded";
    let login =
        anyone.post("/_session").header("content-type", form).body("name=root&password=secret");
    let reply = login.send().await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.value(), value!({"ok": true, "name": "root", "roles": ["_admin"]}));
    let attributes = reply.header("set-cookie").unwrap();
    for attribute in ["AuthSession=", "; Path=/", "; HttpOnly", "; Max-Age=600", "; SameSite=Lax"] {
        assert!(attributes.contains(attribute), "{attribute}: {attributes}");
    }
    assert!(!attributes.contains("Secure"));
    let root = anyone.clone().cookie(&format!("other=1; {}", cookie(&reply)));
    let session = root.value("/_session").await;
    assert_eq!(session["userCtx"], value!({"name": "root", "roles": ["_admin"]}));
    assert_eq!(session["info"]["authenticated"], "cookie");
    assert_eq!(root.get("/_all_dbs").send().await.status, 200);
    assert_eq!(site.root().value("/_session").await["info"]["authenticated"], "default");

    let reply = root.delete("/_session").send().await;
    assert_eq!((reply.status, reply.value()), (200, value!({"ok": true})));
    assert!(reply.header("set-cookie").unwrap().starts_with("AuthSession=; "));
    assert!(reply.header("set-cookie").unwrap().contains("Max-Age=0"));
}

#[tokio::test]
async fn logins_come_as_json_and_fail_with_couchdbs_words() {
    let site = Site::start().await;
    let login = async |body: &str| site.anyone().post("/_session").json(body).send().await;
    assert_eq!(login(r#"{"name":"root","password":"secret"}"#).await.status, 200);
    assert_eq!(login(r#"{"username":"root","password":"secret"}"#).await.status, 200);
    for body in [
        r#"{"name":"root","password":"wrong"}"#,
        r#"{"name":"root"}"#,
        r#"{"name":"nobody","password":"secret"}"#,
    ] {
        let reply = login(body).await;
        assert_error(&reply, 401, "unauthorized", "Name or password is incorrect.");
        assert!(reply.header("set-cookie").unwrap().starts_with("AuthSession=;"));
        assert_eq!(reply.header("www-authenticate"), None);
    }
    let reply = login(r#"{"password":"x"}"#).await;
    assert_error(&reply, 400, "bad_request", "request body must contain a username");
    let reply = login(r#"{"name":"a","username":"b"}"#).await;
    assert_error(&reply, 400, "bad_request", "request body contains different usernames");
    assert_eq!(login("[]").await.status, 400);
    assert_eq!(login("{").await.status, 400);
    assert_eq!(site.anyone().post("/_session").body("x").send().await.status, 415);
    let reply = site.anyone().get("/_session?basic=true").send().await;
    assert_error(&reply, 401, "unauthorized", "Please login.");
}

#[tokio::test]
async fn a_login_leads_on_but_never_away() {
    let site = Site::start().await;
    let login = async |next: &str| {
        let path = format!("/_session?next={next}");
        site.anyone().post(&path).json(r#"{"name":"root","password":"secret"}"#).send().await
    };
    let reply = login("/db/_design/app/index.html").await;
    assert_eq!(reply.status, 302);
    assert_eq!(reply.header("location"), Some("http://test/db/_design/app/index.html"));
    assert!(reply.header("set-cookie").is_some());
    for away in ["http://evil/", "//evil/", "/%5Cevil", "evil", "/a%0D%0Ax:y"] {
        assert_eq!(login(away).await.status, 400, "{away}");
    }
}

#[tokio::test]
async fn sessions_are_signed_timed_and_tied_to_the_password() {
    let site = Site::with(&[("chttpd_auth", "timeout", "6")]).await;
    let login = r#"{"name":"root","password":"secret"}"#;
    let reply = site.anyone().post("/_session").json(login).send().await;
    let good = cookie(&reply);
    let name = async |cookie: &str| {
        let client = site.anyone().cookie(cookie);
        client.value("/_session").await["userCtx"]["name"].clone()
    };
    assert_eq!(name(&good).await, "root");
    let half = &good[..good.len() - 10];
    assert_eq!(name(half).await, value!(null));
    let mut forged: Vec<char> = good.chars().collect();
    let at = forged.len() - 10;
    forged[at] = if forged[at] == 'A' { 'B' } else { 'A' };
    let forged: String = forged.into_iter().collect();
    assert_eq!(name(&forged).await, value!(null));
    for nonsense in ["AuthSession=x", "AuthSession=%%%", "AuthSession=YQ"] {
        let reply = site.anyone().cookie(nonsense).get("/").send().await;
        let reason = "Malformed AuthSession cookie. Please clear your cookies.";
        assert_error(&reply, 400, "bad_request", reason);
    }
    // Past its first tenth, a session is renewed.
    tokio::time::sleep(Duration::from_millis(2000)).await;
    let reply = site.anyone().cookie(&good).get("/").send().await;
    let renewed = cookie(&reply);
    assert_ne!(renewed, good);
    tokio::time::sleep(Duration::from_millis(4200)).await;
    assert_eq!(name(&good).await, value!(null), "the first session has ended");
    assert_eq!(name(&renewed).await, "root");

    let path = "/_node/_local/_config/admins/root";
    assert_eq!(site.root().put(path).json("\"changed\"").send().await.status, 200);
    assert_eq!(name(&renewed).await, value!(null), "a new password ends old sessions");
    let reply = site.root().get("/").send().await;
    assert_error(&reply, 401, "unauthorized", "Name or password is incorrect.");
    let changed = site.anyone().login("root", "changed");
    assert_eq!(changed.get("/_all_dbs").send().await.status, 200);
}

#[tokio::test]
async fn bad_credentials_are_refused_everywhere() {
    let site = Site::start().await;
    for path in ["/", "/_up", "/_all_dbs", "/nodb"] {
        let reply = site.anyone().login("root", "wrong").get(path).send().await;
        let status = reply.status;
        assert!(status == 401 || status == 403, "{path}: {status}");
    }
    let site = Site::start().await;
    let reply = site.anyone().get("/").header("authorization", "Basic ***").send().await;
    let reason = "Authorization header has invalid base64 value";
    assert_error(&reply, 400, "bad_request", reason);
    for other in ["Bearer x", "Basic", "", "Basic Xzpf"] {
        let reply = site.anyone().get("/").header("authorization", other).send().await;
        assert_eq!(reply.status, 200, "{other}");
    }
    let long = site.anyone().login(&"x".repeat(5000), "y").get("/").send().await;
    assert_eq!(long.status, 401);
}

#[tokio::test]
async fn guessing_locks_out_who_guesses() {
    let site = Site::start().await;
    let guess = site.anyone().login("root", "wrong");
    for _ in 0..5 {
        assert_eq!(guess.get("/").send().await.status, 401);
    }
    let reason = "Account is temporarily locked due to multiple authentication failures";
    assert_error(&guess.get("/").send().await, 403, "forbidden", reason);
    // Even the right password, for it might be the sixth guess.
    assert_error(&site.root().get("/").send().await, 403, "forbidden", reason);
    assert_eq!(site.anyone().login("other", "x").get("/").send().await.status, 401);
    let site = Site::with(&[("chttpd_auth_lockout", "mode", "off")]).await;
    for _ in 0..10 {
        let guess = site.anyone().login("root", "wrong").get("/").send().await;
        assert_eq!(guess.status, 401);
    }
}

#[tokio::test]
async fn everyone_must_log_in_where_that_is_required() {
    for key in ["require_valid_user", "require_valid_user_except_for_up"] {
        let site = Site::with(&[("chttpd", key, "true")]).await;
        site.with_db().await;
        site.publish("db").await;
        let anyone = site.anyone();
        for path in ["/", "/db", "/db/x", "/_uuids", "/_session", "/_utils/", "/favicon.ico"] {
            let reply = anyone.get(path).send().await;
            assert_error(&reply, 401, "unauthorized", "Authentication required.");
            assert_eq!(reply.header("www-authenticate"), Some("Basic realm=\"server\""));
        }
        assert_eq!(anyone.put("/db/x").json("{}").send().await.status, 401);
        let up = anyone.get("/_up").send().await.status;
        assert_eq!(up, if key == "require_valid_user" { 401 } else { 200 }, "{key}");
        let login = anyone.post("/_session").json(r#"{"name":"root","password":"secret"}"#);
        assert_eq!(login.send().await.status, 200);
        assert_eq!(site.root().get("/db").send().await.status, 200);
    }
}
