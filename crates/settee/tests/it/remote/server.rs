//! What a server knows beyond its databases; and TLS.

use super::site::Site;
use settee::adapter::Host;
use settee::remote::{ConnectionStatus, Remote, RemoteOptions};
use settee::{Couch, ErrorKind};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_asked_about_itself() {
    let site = Site::start().await;
    let remote = site.remote();
    assert_eq!(remote.connection_status(), ConnectionStatus::Unknown);
    assert!(remote.ping().await);
    assert_eq!(remote.connection_status(), ConnectionStatus::Connected);
    assert!(remote.version().await.unwrap().at_least(3, 0));
    assert_eq!(remote.uuid().await.unwrap(), site.local.uuid().await.unwrap());
    assert_eq!(remote.uuids(3).await.unwrap().len(), 3);
    assert_eq!(remote.active_tasks().await.unwrap().len(), 0);
    assert!(remote.stats(None).await.unwrap().is_object());
    assert_eq!(remote.stats(Some("no/such")).await.unwrap_err().kind(), ErrorKind::NotFound);
    let nobody = Remote::connect("http://127.0.0.1:9", &RemoteOptions::new()).unwrap();
    assert!(!nobody.ping().await);
    assert_eq!(nobody.connection_status(), ConnectionStatus::Disconnected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_is_read_and_changed() {
    let site = Site::start().await;
    let remote = site.remote();
    assert_eq!(remote.set_config("cors", "origins", "*").await.unwrap(), "");
    assert_eq!(remote.config_value("cors", "origins").await.unwrap(), "*");
    assert_eq!(remote.config().await.unwrap()["cors"]["origins"], "*");
    assert_eq!(remote.delete_config("cors", "origins").await.unwrap(), "*");
    let error = remote.config_value("cors", "origins").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_begin_are_verified_and_end() {
    let site = Site::start().await;
    let url = format!("http://{}", site.address);
    let remote = Remote::connect(&url, &RemoteOptions::new()).unwrap();
    assert_eq!(remote.session().await.unwrap().name, None);
    assert_eq!(remote.login("root", "wrong").await.unwrap_err().kind(), ErrorKind::Unauthorized);
    let token = remote.login("root", "secret").await.unwrap();
    assert!(remote.verify_token(&token).await.unwrap());
    assert!(!format!("{token:?}").contains(token.as_str()));
    let options = RemoteOptions::new().session_token(&token);
    let session = Remote::connect(&url, &options).unwrap().session().await.unwrap();
    assert_eq!(
        (session.name.as_deref(), &session.roles[..]),
        (Some("root"), &["_admin".into()][..])
    );
    assert!(remote.logout(&token).await.unwrap());
    let nonsense = settee::remote::SessionToken::new("nonsense");
    assert!(!remote.verify_token(&nonsense).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_spoken_and_certificates_are_checked() {
    let site = Site::over_tls().await;
    let url = site.url().replace("http://", "https://");
    let ca = include_bytes!("tls/ca.pem");
    for options in [
        RemoteOptions::new().ca_pem(&ca[..]),
        RemoteOptions::new().danger_accept_invalid_certs(true),
    ] {
        let remote = Remote::connect(&url, &options).unwrap();
        remote.create("db").await.unwrap();
        remote.delete("db").await.unwrap();
        let port = site.address.port();
        let remote = Remote::connect(&format!("https://localhost:{port}"), &options).unwrap();
        assert!(remote.ping().await);
    }
    // Whom nobody vouches for is nobody.
    let remote = Remote::connect(&url, &RemoteOptions::new().retries(0)).unwrap();
    let error = remote.create("db").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert!(error.reason().contains("certificate"), "{error}");
}

#[test]
fn places_are_named_as_people_do() {
    for (name, shown) in [
        ("http://jan:apple@example.com:5984/", "<Couch 'http://example.com:5984'>"),
        ("example.com", "<Couch 'http://example.com:5984'>"),
        ("https://example.com/couch/", "<Couch 'https://example.com/couch'>"),
    ] {
        let remote = Remote::connect(name, &RemoteOptions::new()).unwrap();
        assert_eq!(format!("{remote:?}"), shown);
        assert!(!format!("{:?}", Couch::connect(name).unwrap()).contains("apple"));
    }
    let db = settee::Database::connect("http://jan:apple@example.com/couch/a%2Fb").unwrap();
    assert_eq!((db.name(), format!("{:?}", db.adapter()).as_str()), ("a/b", "<Database 'a/b'>"));
    let location = settee::adapter::Location::Remote {
        url: "http://example.com/couch/a%2Fb/".into(),
        user: Some("jan".into()),
        headers: vec![],
    };
    assert_eq!(db.adapter().location(), location);
    assert_eq!(db.couch().db("_session").unwrap_err().name(), "illegal_database_name");
}
