//! Who is told one's credentials, and who is not.

use super::fake::{Answer, Fake, json, with};
use super::site::Site;
use serde_json::json;
use settee::ErrorKind;
use settee::adapter::Host;
use settee::prelude::*;
use settee::remote::{Remote, RemoteOptions};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use testkit::socks::{Asked, Socks};

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

/// Our own server behind it, which goes by names that only the proxy knows.
#[tokio::test(flavor = "multi_thread")]
async fn a_socks_proxy_looks_names_up_and_is_told_its_own_credentials() {
    let site = Site::start().await;
    site.local.create("db").await.unwrap();
    let proxy = Socks::start(site.address, Some(("guest", "list")));
    let through = |scheme: &str, login: &str| {
        let options = RemoteOptions::new().basic("root", "secret").retries(0);
        options.proxy(format!("{scheme}://{login}@{}", proxy.address))
    };
    for (scheme, url, to) in [
        ("socks5", "http://database.invalid:5984", "database.invalid:5984"),
        ("socks5h", "http://database.invalid", "database.invalid:80"),
        ("SOCKS5", "http://[2001:db8::1]:5984", "2001:db8::1:5984"),
    ] {
        let remote = Remote::connect(url, &through(scheme, "guest:list")).unwrap();
        let db = Couch::from_host(Arc::new(remote)).db("db").unwrap();
        db.put(json!({"_id": to})).await.unwrap();
        assert!(db.contains(to).await.unwrap());
        let user = Some(("guest".to_owned(), "list".to_owned()));
        assert_eq!(proxy.asked().last(), Some(&Asked { user, to: to.to_owned() }));
    }
    // Who may not use the proxy does not get through, and hears no secret.
    let before = site.local.database("db").unwrap().info().await.unwrap().doc_count;
    assert_eq!(before, 3);
    let remote =
        Remote::connect("http://database.invalid", &through("socks5", "guest:wrong")).unwrap();
    let error = get(remote).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert!(!format!("{error:?}").contains("wrong"), "{error:?}");

    // TLS is spoken through it with the server.
    let site = Site::over_tls().await;
    let proxy = Socks::start(site.address, None);
    let options = RemoteOptions::new()
        .ca_pem(&include_bytes!("tls/ca.pem")[..])
        .proxy(format!("socks5://{}", proxy.address));
    assert!(Remote::connect("https://localhost", &options).unwrap().ping().await);
    let asked = Asked { user: None, to: "localhost:443".to_owned() };
    assert_eq!(proxy.asked(), [asked]);
}

/// Of what kind it may be: nothing is said to a proxy whose address is not allowed.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_at_an_address_that_is_not_allowed_hears_nothing() {
    let http = Fake::start(|_| json(200, DOC)).await;
    let socks = Socks::start(http.address, None);
    for (url, proxy) in [
        ("http://database.invalid", format!("http://{}", http.address)),
        ("https://database.invalid", format!("http://{}", http.address)),
        ("http://database.invalid", format!("socks5://{}", socks.address)),
        ("https://database.invalid", format!("socks5://{}", socks.address)),
    ] {
        let options = RemoteOptions::new().proxy(proxy).only_addresses(|_| false);
        let error = get(Remote::connect(url, &options).unwrap()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Forbidden, "{url}: {error}");
    }
    assert_eq!((http.lines().len(), socks.asked().len()), (0, 0));
    for proxy in ["socks4://h:1", "https://h", "h:1080", "socks5://"] {
        let error = Remote::connect("http://h", &RemoteOptions::new().proxy(proxy)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadRequest, "{proxy}");
    }
}

/// Compressing takes longer than sending within one machine.
#[tokio::test(flavor = "multi_thread")]
async fn replies_are_asked_for_compressed_from_elsewhere_or_where_that_is_wanted() {
    let fake = Fake::start(|_| json(200, DOC)).await;
    let proxy = fake.url();
    for (options, url, encoding) in [
        (RemoteOptions::new(), fake.url(), "identity"),
        (RemoteOptions::new().gzip(true), fake.url(), "gzip"),
        (RemoteOptions::new().proxy(&proxy), "http://database.invalid".to_owned(), "gzip"),
        (RemoteOptions::new().proxy(&proxy).gzip(false), "http://h.invalid".to_owned(), "identity"),
    ] {
        get(Remote::connect(&url, &options).unwrap()).await.unwrap();
        let requests = fake.requests();
        assert_eq!(requests.last().unwrap().header("accept-encoding"), Some(encoding), "{url}");
    }
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
