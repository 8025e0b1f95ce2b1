//! Who is told one's credentials, and who is not.

use super::fake::{Answer, Fake, json, with};
use super::site::Site;
use serde_json::json;
use settee::adapter::Host;
use settee::prelude::*;
use settee::remote::{Remote, RemoteOptions};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const DOC: &str = r#"{"_id":"a","_rev":"1-a"}"#;

async fn get(remote: Remote) -> Result<Document> {
    Couch::from_host(Arc::new(remote)).db("db").unwrap().get("a").await
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_do_not_follow_a_redirect_to_another_server() {
    let other = Fake::start(|_| json(200, DOC)).await;
    let location = format!("Location: http://not:mine@{}/elsewhere?x=1\r\n", other.address);
    let first = Fake::start(move |request| match request.path.as_str() {
        "/db/a" => with(301, "Location: /moved\r\n", ""),
        _ => with(302, &location, ""),
    })
    .await;
    let url = first.url().replace("http://", "http://jan:apple@");
    let options = RemoteOptions::new().header("X-Api-Key", "pear");
    assert_eq!(get(Remote::connect(&url, &options).unwrap()).await.unwrap().id.unwrap(), "a");
    assert_eq!(first.lines(), ["GET /db/a", "GET /moved"]);
    for request in first.requests() {
        assert_eq!(request.header("authorization"), Some("Basic amFuOmFwcGxl"));
        assert_eq!(request.header("x-api-key"), Some("pear"));
    }
    let [request] = &other.requests()[..] else { panic!() };
    assert_eq!(request.path, "/elsewhere?x=1");
    for name in ["authorization", "cookie", "x-api-key"] {
        assert_eq!(request.header(name), None);
    }
    let agent = format!("settee/{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(request.header("user-agent"), Some(agent.as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_follow_no_redirect() {
    let fake = Fake::start(|_| with(307, "Location: /b\r\n", "")).await;
    let couch = Couch::connect(&fake.url()).unwrap();
    let error = couch.db("db").unwrap().put(json!({"_id": "a"})).await.unwrap_err();
    assert_eq!(error.name(), "redirect");
    assert_eq!(fake.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_opened_once_and_renewed_when_it_is_not_known() {
    let logins = Arc::new(AtomicUsize::new(0));
    let count = logins.clone();
    let fake = Fake::start(move |request| match request.path.as_str() {
        "/_session" => {
            assert_eq!(request.body, b"name=jan&password=app%26le");
            let number = count.fetch_add(1, Ordering::SeqCst);
            let cookie = format!("Set-Cookie: AuthSession=token{number}; Path=/; HttpOnly\r\n");
            with(200, &format!("Set-Cookie: Other=x\r\n{cookie}"), r#"{"ok":true}"#)
        }
        // The first session has been forgotten, say, in a restart.
        _ if request.header("cookie") == Some("AuthSession=token0") => {
            json(401, r#"{"error":"unauthorized","reason":"Expired"}"#)
        }
        _ => json(200, DOC),
    })
    .await;
    let options = RemoteOptions::new().session("jan", "app&le");
    let remote = Remote::connect(&fake.url(), &options).unwrap();
    let gets = (0..5).map(|_| get(remote.clone()));
    for got in futures_util::future::join_all(gets).await {
        got.unwrap();
    }
    assert_eq!(logins.load(Ordering::SeqCst), 2);
    assert!(fake.requests().iter().all(|request| request.header("authorization").is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_refused_is_told_so() {
    let site = Site::start().await;
    for options in [
        RemoteOptions::new().session("root", "wrong"),
        RemoteOptions::new().basic("root", "wrong"),
        RemoteOptions::new(),
    ] {
        let remote = Remote::connect(&format!("http://{}", site.address), &options).unwrap();
        let error = remote.create("db").await.unwrap_err();
        assert_eq!((error.status(), error.name()), (401, "unauthorized"), "{options:?}");
    }
    let url = site.url();
    for options in [RemoteOptions::new(), RemoteOptions::new().use_session(true)] {
        let remote = Remote::connect(&url, &options).unwrap();
        remote.create("db").await.unwrap();
        remote.delete("db").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_is_handed_the_whole_url_and_its_own_credentials() {
    let proxy = Fake::start(|_| json(200, DOC)).await;
    let url = proxy.url().replace("http://", "http://guest:list@");
    let options = RemoteOptions::new().proxy(url).basic("jan", "apple");
    get(Remote::connect("http://database.invalid:5984", &options).unwrap()).await.unwrap();
    let [request] = &proxy.requests()[..] else { panic!() };
    assert_eq!(request.path, "http://database.invalid:5984/db/a");
    assert_eq!(request.header("proxy-authorization"), Some("Basic Z3Vlc3Q6bGlzdA=="));
    assert_eq!(request.header("authorization"), Some("Basic amFuOmFwcGxl"));

    // With TLS it is asked for a tunnel, and sees nothing else.
    let proxy = Fake::start(|_| Answer::Bytes(b"HTTP/1.1 403 No\r\n\r\n".to_vec())).await;
    let url = proxy.url().replace("http://", "http://guest:list@");
    let options = RemoteOptions::new().proxy(url).basic("jan", "apple").retries(0);
    get(Remote::connect("https://database.invalid", &options).unwrap()).await.unwrap_err();
    let [request] = &proxy.requests()[..] else { panic!() };
    assert_eq!(
        (request.method.as_str(), request.path.as_str()),
        ("CONNECT", "database.invalid:443")
    );
    assert_eq!(request.header("proxy-authorization"), Some("Basic Z3Vlc3Q6bGlzdA=="));
    assert_eq!(request.header("authorization"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_and_headers_are_sent_as_they_are_given() {
    let fake = Fake::start(|_| json(200, DOC)).await;
    let options = RemoteOptions::new().bearer("ey.J.x").user_agent("me/1").full_commit(false);
    get(Remote::connect(&fake.url(), &options).unwrap()).await.unwrap();
    let request = fake.requests().remove(0);
    assert_eq!(request.header("authorization"), Some("Bearer ey.J.x"));
    assert_eq!(request.header("user-agent"), Some("me/1"));
    assert_eq!(request.header("x-couch-full-commit"), Some("false"));
    assert_eq!(request.header("accept"), Some("application/json"));
    let bad = RemoteOptions::new().header("a b", "c");
    assert_eq!(Remote::connect(&fake.url(), &bad).unwrap_err().status(), 400);
    let bad = RemoteOptions::new().bearer("a\nb");
    assert_eq!(Remote::connect(&fake.url(), &bad).unwrap_err().status(), 400);
    let bad = RemoteOptions::new().ca_pem("no certificate");
    assert_eq!(Remote::connect("https://h", &bad).unwrap_err().status(), 400);
}
