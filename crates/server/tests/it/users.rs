//! The database of users.

use crate::{Client, Site, assert_error, put};
use serde_json::json as value;

const ANNA: &str = "/_users/org.couchdb.user:anna";

/// A site with the users `anna`, who has a role, and `bert`.
async fn site() -> Site {
    let site = Site::start().await;
    let root = site.with_db().await;
    assert_eq!(root.put("/_users").send().await.status, 201);
    let anna = r#"{"name":"anna","type":"user","roles":["r"],"password":"a"}"#;
    put(&root, ANNA, anna).await;
    let bert = r#"{"name":"bert","type":"user","roles":[],"password":"b"}"#;
    put(&root, "/_users/org.couchdb.user:bert", bert).await;
    site
}

async fn rev(client: &Client) -> String {
    client.value(ANNA).await["_rev"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn passwords_are_hashed_and_log_in() {
    let site = site().await;
    let doc = site.root().value(ANNA).await;
    assert_eq!(doc["password"], value!(null));
    assert_eq!(
        (&doc["password_scheme"], &doc["pbkdf2_prf"]),
        (&value!("pbkdf2"), &value!("sha256"))
    );
    assert_eq!(doc["iterations"], 10);
    assert_eq!(doc["derived_key"].as_str().unwrap().len(), 64);
    let anna = site.anyone().login("anna", "a");
    let session = anna.value("/_session").await;
    assert_eq!(session["userCtx"], value!({"name": "anna", "roles": ["r"]}));
    assert_eq!(site.anyone().login("anna", "b").get("/").send().await.status, 401);
    let login = r#"{"name":"anna","password":"a"}"#;
    let reply = site.anyone().post("/_session").json(login).send().await;
    let cookie = reply.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let session = site.anyone().cookie(&cookie).value("/_session").await;
    assert_eq!(session["userCtx"]["name"], "anna");
    // In bulk too.
    let bulk = r#"{"docs":[{"_id":"org.couchdb.user:c","name":"c","type":"user","roles":[],"password":"c"}]}"#;
    site.root().post("/_users/_bulk_docs").json(bulk).send().await;
    assert_eq!(site.anyone().login("c", "c").get("/").send().await.status, 200);
}

#[tokio::test]
async fn users_see_and_change_their_own_document_alone() {
    let site = site().await;
    let anna = site.anyone().login("anna", "a");
    let doc = anna.value(ANNA).await;
    assert_eq!(doc["name"], "anna");
    let forbidden = "You are not allowed to access this db.";
    for path in
        ["/_users", "/_users/_all_docs", "/_users/_changes", "/_users/org.couchdb.user:bert"]
    {
        assert_error(&anna.get(path).send().await, 403, "forbidden", forbidden);
    }
    let body = r#"{"docs":[{"id":"org.couchdb.user:bert"}]}"#;
    let reply = anna.post("/_users/_bulk_get").json(body).send().await;
    assert_error(&reply, 403, "forbidden", forbidden);
    let change = |roles: &str, rev: &str| {
        format!(
            r#"{{"_rev":"{rev}","name":"anna","type":"user","roles":{roles},"password":"new"}}"#
        )
    };
    let at = rev(&anna).await;
    for roles in [r#"["r","admin"]"#, "[]", r#"["_admin"]"#] {
        let reply = anna.put(ANNA).json(&change(roles, &at)).send().await;
        assert_error(&reply, 403, "forbidden", "Only _admin may edit roles");
    }
    let reply = anna.put(ANNA).json(&change(r#"["r"]"#, &at)).send().await;
    assert_eq!(reply.status, 201, "{reply:?}");
    assert_eq!(anna.get("/").send().await.status, 401, "the old password is gone");
    let anna = site.anyone().login("anna", "new");
    assert_eq!(anna.put(&format!("{ANNA}/att")).body("x").send().await.status, 403);
    let copy = anna.request("COPY", ANNA).header("destination", "org.couchdb.user:evil");
    let reason = "Doc ID must be of the form org.couchdb.user:name";
    assert_error(&copy.send().await, 403, "forbidden", reason);
    let path = format!("{ANNA}?rev={}", rev(&anna).await);
    assert_eq!(anna.delete(&path).send().await.status, 200);
    assert_eq!(anna.get("/").send().await.status, 401);
}

#[tokio::test]
async fn nobody_becomes_a_server_admin_by_a_document() {
    let site = site().await;
    let root = site.root();
    // The same member twice is read once, and then refused.
    for roles in [r#""roles":["_admin"]"#, r#""roles":[],"roles":["_admin"]"#] {
        let doc = format!(r#"{{"name":"e","type":"user",{roles},"password":"e"}}"#);
        let reply = root.put("/_users/org.couchdb.user:e").json(&doc).send().await;
        let reason = "No system roles (starting with underscore) in users db.";
        assert_error(&reply, 403, "forbidden", reason);
    }
    let twice = r#"{"name":"e","type":"user","roles":["_admin"],"roles":[],"password":"e"}"#;
    put(&root, "/_users/org.couchdb.user:e", twice).await;
    let user = site.anyone().login("e", "e");
    assert_eq!(user.value("/_session").await["userCtx"]["roles"], value!([]));
    assert_eq!(user.get("/_all_dbs").send().await.status, 401);
    // A user of an admin's name does not replace the admin.
    let fake = r#"{"name":"root","type":"user","roles":[],"password":"fake"}"#;
    put(&root, "/_users/org.couchdb.user:root", fake).await;
    assert_eq!(site.anyone().login("root", "fake").get("/").send().await.status, 401);
    assert_eq!(root.get("/_all_dbs").send().await.status, 200);
}

#[tokio::test]
async fn user_documents_are_checked() {
    let site = site().await;
    let root = site.root();
    for (doc, reason) in [
        (r#"{"name":"x"}"#, "doc.type must be user"),
        (r#"{"type":"user"}"#, "doc.name is required"),
        (r#"{"type":"user","name":"x"}"#, "doc.roles must exist"),
        (r#"{"type":"user","name":"x","roles":{}}"#, "doc.roles must be an array"),
        (r#"{"type":"user","name":"x","roles":[1]}"#, "doc.roles can only contain strings"),
        (
            r#"{"type":"user","name":"y","roles":[]}"#,
            "Doc ID must be of the form org.couchdb.user:name",
        ),
    ] {
        let reply = root.put("/_users/org.couchdb.user:x").json(doc).send().await;
        assert_error(&reply, 403, "forbidden", reason);
    }
    for (name, reason) in [
        ("_x", "Username may not start with underscore."),
        ("a:b", "Character `:` is not allowed in usernames."),
    ] {
        let doc = format!(r#"{{"type":"user","name":"{name}","roles":[]}}"#);
        let reply = root.put(&format!("/_users/org.couchdb.user:{name}")).json(&doc).send().await;
        assert_error(&reply, 403, "forbidden", reason);
    }
}

#[tokio::test]
async fn an_open_database_of_users_lets_people_register() {
    let site = Site::with(&[("couchdb", "users_db_security_editable", "true")]).await;
    site.root().put("/_users").send().await;
    site.publish("_users").await;
    let anyone = site.anyone();
    let doc =
        |roles: &str| format!(r#"{{"name":"n","type":"user","roles":{roles},"password":"n"}}"#);
    let path = "/_users/org.couchdb.user:n";
    let reply = anyone.put(path).json(&doc(r#"["r"]"#)).send().await;
    assert_error(&reply, 403, "forbidden", "Only _admin may set roles");
    assert_eq!(anyone.put(path).json(&doc("[]")).send().await.status, 201);
    assert_eq!(site.anyone().login("n", "n").get(path).send().await.status, 200);
    assert_error(&anyone.get(path).send().await, 404, "not_found", "missing");
    let reply = anyone.put(&format!("{path}?rev=1-abc")).json(&doc("[]")).send().await;
    assert_error(&reply, 403, "forbidden", "You may only update your own user document.");
    for path in ["/_users/_all_docs", "/_users/_changes", "/_users/_design_docs"] {
        let reply = anyone.get(path).send().await;
        assert_error(&reply, 401, "unauthorized", "You are not a server admin.");
    }
}

#[tokio::test]
async fn security_objects_decide_by_name_and_role() {
    let site = site().await;
    let root = site.root();
    let (anna, bert) = (site.anyone().login("anna", "a"), site.anyone().login("bert", "b"));
    let set = async |object: &str| root.put("/db/_security").json(object).send().await.status;
    let may = async |client: &Client, path: &str| client.get(path).send().await.status == 200;
    for object in [r#"{"members":{"names":["anna"]}}"#, r#"{"members":{"roles":["r"]}}"#] {
        assert_eq!(set(object).await, 200);
        assert!(may(&anna, "/db").await && !may(&bert, "/db").await, "{object}");
        assert!(may(&anna, "/db/_changes").await && may(&anna, "/db/_security").await);
        let reply = bert.get("/db").send().await;
        assert_error(&reply, 403, "forbidden", "You are not allowed to access this db.");
        let reply = anna.put("/db/_security").json("{}").send().await;
        assert_error(&reply, 403, "forbidden", "You are not a db or server admin.");
        assert_eq!(anna.put("/db/_design/d").json("{}").send().await.status, 403);
        for path in ["/db/_compact", "/db/_compact/d", "/db/_view_cleanup"] {
            let reply = anna.post(path).json("").send().await;
            assert_error(&reply, 401, "unauthorized", "You are not a server or db admin.");
        }
        assert_eq!(anna.delete("/db").send().await.status, 401);
        assert_eq!(anna.post("/db/_purge").json("{}").send().await.status, 401);
    }
    let admin = r#"{"admins":{"names":["bert"]},"members":{"names":["anna"]}}"#;
    assert_eq!(set(admin).await, 200);
    assert!(may(&bert, "/db").await, "admins are members");
    assert_eq!(bert.put("/db/_design/d").json("{}").send().await.status, 201);
    assert_eq!(bert.post("/db/_compact").json("").send().await.status, 202);
    assert_eq!(bert.put("/db/_security").json("{}").send().await.status, 200);
    assert_eq!(bert.delete("/db").send().await.status, 401);
}
