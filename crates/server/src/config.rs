//! Configuration: CouchDB's sections, keys and defaults, all values text.
//!
//! Four layers, later ones win: defaults, the configuration file, what was changed over HTTP (kept
//! in a file of its own), and settings of this start (flags and environment). What requests go by
//! is one immutable [`Live`] value, replaced as a whole when something changes.

use crate::auth::password::{PasswordHash, Prf};
use crate::auth::random_hex;
use crate::cors::Cors;
use settee::script::ScriptOptions;
use settee_core::{Error, ErrorKind, Result};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

/// Section, then key, then value.
pub(crate) type Values = BTreeMap<String, BTreeMap<String, String>>;

/// Values that hold unless something else is set. The section `settee` is ours, the others are
/// CouchDB's.
const DEFAULTS: &[(&str, &str, &str)] = &[
    ("chttpd", "bind_address", "127.0.0.1"),
    ("chttpd", "port", "5984"),
    ("chttpd", "admin_only_all_dbs", "true"),
    ("chttpd", "changes_timeout", "60000"),
    ("chttpd", "decode_plus_to_space", "true"),
    ("chttpd", "max_db_number_for_dbs_info_req", "100"),
    ("chttpd", "max_http_request_size", "4294967296"),
    ("chttpd", "max_uri_length", "8000"),
    ("chttpd", "require_valid_user", "false"),
    ("chttpd", "require_valid_user_except_for_up", "false"),
    ("chttpd", "server_header_versions", "true"),
    ("chttpd_auth", "allow_persistent_cookies", "true"),
    ("chttpd_auth", "authentication_db", "_users"),
    ("chttpd_auth", "iterations", "600000"),
    ("chttpd_auth", "password_scheme", "pbkdf2"),
    ("chttpd_auth", "pbkdf2_prf", "sha256"),
    ("chttpd_auth", "same_site", "lax"),
    ("chttpd_auth", "timeout", "600"),
    ("chttpd_auth_lockout", "max_lifetime", "300000"),
    ("chttpd_auth_lockout", "mode", "enforce"),
    ("chttpd_auth_lockout", "threshold", "5"),
    ("cors", "credentials", "false"),
    ("couch_auto_purge_plugin", "repeat", "1_hour"),
    ("couchdb", "default_security", "admin_only"),
    ("couchdb", "max_attachment_size", "1073741824"),
    ("couchdb", "max_document_size", "8000000"),
    ("couchdb", "os_process_timeout", "5000"),
    ("couchdb", "single_node", "true"),
    ("couchdb", "users_db_security_editable", "false"),
    ("csp", "attachments_enable", "true"),
    ("csp", "attachments_header_value", "sandbox"),
    ("csp", "showlist_enable", "true"),
    ("csp", "showlist_header_value", "sandbox"),
    ("httpd", "bind_address", "127.0.0.1"),
    ("log", "level", "info"),
    ("query_server_config", "reduce_limit", "true"),
    ("replicator", "max_jobs", "500"),
    ("replicator", "retry_max_wait", "3600000"),
    ("replicator", "retry_wait", "5000"),
    ("replicator", "update_docs", "true"),
    ("settee", "body_timeout", "60000"),
    ("settee", "compress_replies", "true"),
    ("settee", "header_timeout", "60000"),
    ("settee", "keep_indexed", "false"),
    ("settee", "max_buffered_bytes", "1073741824"),
    ("settee", "max_connections", "65536"),
    ("settee", "replicate_allow", ""),
    ("settee", "replicate_deny", ""),
    ("settee", "replicate_loopback", "false"),
    ("settee", "temp_views", "true"),
    ("settee", "write_timeout", "300000"),
    ("uuids", "algorithm", "sequential"),
    ("uuids", "max_count", "1000"),
    ("vendor", "name", "Settee"),
];

/// Sections that may be changed over HTTP. None of them holds a command, and paths are excepted by
/// [`FIXED_KEYS`]: whoever administers the database does not thereby own the machine.
const WRITABLE_SECTIONS: &[&str] = &[
    "admins",
    "attachments",
    "chttpd",
    "chttpd_auth",
    "chttpd_auth_lockout",
    "cors",
    "couch_auto_purge_plugin",
    "couch_httpd_auth",
    "couch_peruser",
    "couchdb",
    "csp",
    "feature_flags",
    "httpd",
    "log",
    "mango",
    "purge",
    "query_server_config",
    "replicator",
    "smoosh",
    "uuids",
    "vendor",
    "x_frame_options",
];

/// Keys of writable sections that may not be changed over HTTP all the same: paths, addresses,
/// secrets, and what names code.
const FIXED_KEYS: &[(&str, &str)] = &[
    ("chttpd", "authentication_handlers"),
    ("chttpd", "bind_address"),
    ("chttpd", "config_whitelist"),
    ("chttpd", "port"),
    ("chttpd", "server_options"),
    ("chttpd", "socket_options"),
    ("chttpd_auth", "secret"),
    ("couch_httpd_auth", "secret"),
    ("couchdb", "database_dir"),
    ("couchdb", "plugin_dir"),
    ("couchdb", "uri_file"),
    ("couchdb", "util_driver_dir"),
    ("couchdb", "uuid"),
    ("couchdb", "view_index_dir"),
    ("httpd", "authentication_handlers"),
    ("httpd", "bind_address"),
    ("httpd", "config_whitelist"),
    ("httpd", "port"),
    ("httpd", "server_options"),
    ("httpd", "socket_options"),
    ("log", "file"),
    ("log", "writer"),
    ("replicator", "cert_file"),
    ("replicator", "key_file"),
    ("replicator", "password"),
    ("replicator", "ssl_trusted_certificates_file"),
];

/// Never shown over HTTP.
const SECRET_KEYS: &[(&str, &str)] = &[
    ("chttpd_auth", "secret"),
    ("couch_httpd_auth", "secret"),
    ("replicator", "password"),
    ("ssl", "password"),
];

/// The most values that changes over HTTP may add up to, and the longest of them.
const MAX_CHANGED: usize = 1000;
const MAX_VALUE: usize = 8192;

/// The name of the file, in the data directory, that changes over HTTP are kept in.
const FILE: &str = "config.toml";

/// Where configuration comes from.
#[derive(Debug, Clone, Default)]
pub struct ConfigSource {
    /// The configuration file, in TOML; must exist if given.
    pub file: Option<PathBuf>,
    /// The directory that keeps changes made over HTTP; without one they end with the process.
    pub data_dir: Option<PathBuf>,
    /// Settings of this start: section, key, value.
    pub overrides: Vec<(String, String, String)>,
}

impl ConfigSource {
    /// The bounds on functions of design documents that the configuration sets: `os_process_timeout`
    /// of `couchdb`, in milliseconds, and `reduce_limit`, `reduce_limit_threshold` and
    /// `reduce_limit_ratio` of `query_server_config`; for the engine of the place that is served,
    /// [`LocalOptions::script`](settee::local::LocalOptions::script). They hold from the server's start
    /// on. Nothing is written.
    ///
    /// # Errors
    ///
    /// As [`Config::open`].
    pub fn script_options(&self) -> Result<ScriptOptions> {
        Ok(Live::new(&Layers::load(self)?.values, None).script_options())
    }
}

/// The configuration of a running server.
pub struct Config {
    source: ConfigSource,
    layers: Mutex<Layers>,
    live: RwLock<Arc<Live>>,
}

struct Layers {
    /// What is in force.
    values: Values,
    /// What of it was changed over HTTP and is to last.
    changed: Values,
}

/// What requests go by, read from the values once.
#[derive(Debug)]
pub(crate) struct Live {
    pub values: Values,
    pub admins: HashMap<String, Arc<PasswordHash>>,
    /// Signs sessions.
    pub secret: String,
    pub require_valid_user: bool,
    pub require_valid_user_except_for_up: bool,
    pub admin_only_all_dbs: bool,
    pub admin_only_databases: bool,
    pub decode_plus_to_space: bool,
    pub compress_replies: bool,
    pub max_request: u64,
    pub max_document: u64,
    pub max_attachment: u64,
    pub max_buffered: u64,
    pub max_uri: u64,
    pub changes_timeout: Duration,
    pub body_timeout: Duration,
    pub session_timeout: Duration,
    pub cors: Option<Cors>,
}

impl Config {
    /// Reads the configuration.
    ///
    /// # Errors
    ///
    /// `BadRequest` with a reason that names the file, if one cannot be read or understood.
    pub fn open(source: ConfigSource) -> Result<Config> {
        let layers = Layers::load(&source)?;
        let mut live = Live::new(&layers.values, None);
        live.secret = match layers.values.get("chttpd_auth").and_then(|s| s.get("secret")) {
            Some(secret) if !secret.is_empty() => secret.clone(),
            _ => random_hex(16),
        };
        let config = Config { source, layers: Mutex::new(layers), live: RwLock::default() };
        let secret = live.secret.clone();
        config.put_live(live);
        config.remember("chttpd_auth", "secret", &secret)?;
        Ok(config)
    }

    /// What holds now.
    pub(crate) fn live(&self) -> Arc<Live> {
        self.live.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// One value.
    pub fn get(&self, section: &str, key: &str) -> Option<String> {
        self.live().get(section, key).map(str::to_owned)
    }

    /// Creates the admin `admin` with a random password, if there is no admin yet, and returns the
    /// two.
    ///
    /// # Errors
    ///
    /// `Internal`, if this cannot be kept in the data directory.
    pub fn ensure_admin(&self) -> Result<Option<(String, String)>> {
        if !self.live().admins.is_empty() {
            return Ok(None);
        }
        let (name, password) = ("admin", random_hex(12));
        let hash = self.live().hash(&password);
        self.set("admins", name, &hash.to_string(), true)?;
        Ok(Some((name.to_owned(), password)))
    }

    /// Replaces passwords that came from flags or a file by their hashes. Takes a while.
    pub fn hash_plain_admins(&self) {
        let live = self.live();
        for (name, plain) in &live.admins {
            let Some(password) = live.get("admins", name).filter(|_| plain.is_plain()) else {
                continue;
            };
            let hash = live.hash(password).to_string();
            let mut layers = self.lock();
            let value = layers.values.entry("admins".to_owned()).or_default().get_mut(name);
            // It may have been changed over HTTP meanwhile.
            if let Some(value) = value.filter(|value| *value == password) {
                *value = hash;
            }
            self.refresh(&layers);
        }
    }

    /// Sets a value over HTTP's head: no checks. Returns what it was.
    pub(crate) fn set(
        &self,
        section: &str,
        key: &str,
        value: &str,
        persist: bool,
    ) -> Result<Option<String>> {
        let mut layers = self.lock();
        if persist {
            let mut changed = layers.changed.clone();
            changed.entry(section.to_owned()).or_default().insert(key.to_owned(), value.to_owned());
            if changed.values().map(BTreeMap::len).sum::<usize>() > MAX_CHANGED {
                return Err(Error::bad_request("Too many configuration values."));
            }
            self.save(&changed)?;
            layers.changed = changed;
        }
        let values = layers.values.entry(section.to_owned()).or_default();
        let old = values.insert(key.to_owned(), value.to_owned());
        self.refresh(&layers);
        Ok(old)
    }

    /// Removes a value; what a lower layer has comes back. Returns what it was.
    pub(crate) fn remove(&self, section: &str, key: &str, persist: bool) -> Result<Option<String>> {
        let mut layers = self.lock();
        if persist {
            let mut changed = layers.changed.clone();
            if changed.get_mut(section).and_then(|keys| keys.remove(key)).is_some() {
                self.save(&changed)?;
                layers.changed = changed;
            }
        }
        let default = DEFAULTS.iter().find(|row| row.0 == section && row.1 == key);
        let values = layers.values.entry(section.to_owned()).or_default();
        let old = values.remove(key);
        if let Some(&(_, _, value)) = default {
            values.insert(key.to_owned(), value.to_owned());
        }
        self.refresh(&layers);
        Ok(old)
    }

    /// Reads all files again; what was changed without being kept is lost.
    pub(crate) fn reload(&self) -> Result<()> {
        let fresh = Layers::load(&self.source)?;
        let mut layers = self.lock();
        *layers = fresh;
        self.refresh(&layers);
        Ok(())
    }

    /// Keeps a value in the file without anything else happening.
    fn remember(&self, section: &str, key: &str, value: &str) -> Result<()> {
        let mut layers = self.lock();
        let keys = layers.changed.entry(section.to_owned()).or_default();
        if keys.insert(key.to_owned(), value.to_owned()).is_some_and(|old| old == value) {
            return Ok(());
        }
        self.save(&layers.changed)
    }

    fn lock(&self) -> MutexGuard<'_, Layers> {
        self.layers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refresh(&self, layers: &Layers) {
        let before = self.live();
        self.put_live(Live::new(&layers.values, Some(&before)));
    }

    fn put_live(&self, live: Live) {
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(live);
    }

    /// Writes the file of changes: beside it first, then in its place, so that it is always whole.
    fn save(&self, changed: &Values) -> Result<()> {
        let Some(dir) = &self.source.data_dir else { return Ok(()) };
        let failed = |e: std::io::Error| {
            Error::new(ErrorKind::Internal, "Configuration could not be written.").with_source(e)
        };
        let (path, beside) = (dir.join(FILE), dir.join(format!("{FILE}.new")));
        std::fs::create_dir_all(dir).map_err(failed)?;
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&beside).map_err(failed)?;
        file.write_all(to_toml(changed).as_bytes()).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        std::fs::rename(&beside, &path).map_err(failed)?;
        std::fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config").field("source", &self.source.file).finish_non_exhaustive()
    }
}

impl Layers {
    fn load(source: &ConfigSource) -> Result<Layers> {
        let mut values = Values::new();
        let mut put = |section: &str, key: &str, value: &str| {
            values.entry(section.to_owned()).or_default().insert(key.to_owned(), value.to_owned());
        };
        for (section, key, value) in DEFAULTS {
            put(section, key, value);
        }
        let mut changed = Values::new();
        if let Some(path) = &source.file {
            each(&read_toml(path)?, &mut put);
        }
        if let Some(path) = source.data_dir.as_ref().map(|dir| dir.join(FILE))
            && path.exists()
        {
            changed = read_toml(&path)?;
            each(&changed, &mut put);
        }
        for (section, key, value) in &source.overrides {
            put(section, key, value);
        }
        Ok(Layers { values, changed })
    }
}

fn each(values: &Values, put: &mut impl FnMut(&str, &str, &str)) {
    for (section, keys) in values {
        for (key, value) in keys {
            put(section, key, value);
        }
    }
}

impl Default for Live {
    fn default() -> Live {
        Live::new(&Values::new(), None)
    }
}

impl Live {
    fn new(values: &Values, before: Option<&Live>) -> Live {
        let mut live = Live {
            values: values.clone(),
            admins: HashMap::new(),
            secret: before.map(|live| live.secret.clone()).unwrap_or_default(),
            require_valid_user: false,
            require_valid_user_except_for_up: false,
            admin_only_all_dbs: true,
            admin_only_databases: true,
            decode_plus_to_space: true,
            compress_replies: true,
            max_request: 0,
            max_document: 0,
            max_attachment: 0,
            max_buffered: 0,
            max_uri: 0,
            changes_timeout: Duration::ZERO,
            body_timeout: Duration::ZERO,
            session_timeout: Duration::ZERO,
            cors: None,
        };
        live.admins =
            live.section("admins").map(|(name, text)| live.admin(name, text, before)).collect();
        // What guards is on unless it is plainly off, so that a slip of the pen does not open up.
        live.require_valid_user = !live.is_off("require_valid_user");
        live.require_valid_user_except_for_up = !live.is_off("require_valid_user_except_for_up");
        live.admin_only_all_dbs = live.http("admin_only_all_dbs") != Some("false");
        live.admin_only_databases = live.get("couchdb", "default_security") != Some("everyone");
        live.decode_plus_to_space = live.http("decode_plus_to_space") != Some("false");
        live.compress_replies = live.get("settee", "compress_replies") != Some("false");
        live.max_request = live.number("chttpd", "max_http_request_size", 4_294_967_296);
        live.max_document = live.number("couchdb", "max_document_size", 8_000_000);
        live.max_attachment = live.number("couchdb", "max_attachment_size", 1 << 30);
        live.max_buffered = live.number("settee", "max_buffered_bytes", 1 << 30);
        live.max_uri = live.number("chttpd", "max_uri_length", 8000);
        live.changes_timeout = live.millis("chttpd", "changes_timeout", 60_000);
        live.body_timeout = live.millis("settee", "body_timeout", 60_000);
        live.session_timeout = Duration::from_secs(live.number("chttpd_auth", "timeout", 600));
        live.cors = Cors::from_config(&live);
        live
    }

    fn is_off(&self, key: &str) -> bool {
        matches!(self.http(key).map(str::trim), None | Some("false" | ""))
    }

    /// An admin's hash. One that is not hashed keeps its salt as long as its password.
    fn admin(&self, name: &str, text: &str, before: Option<&Live>) -> (String, Arc<PasswordHash>) {
        let kept = || {
            let before = before.filter(|live| live.get("admins", name) == Some(text))?;
            before.admins.get(name).cloned()
        };
        let hash = PasswordHash::parse(text).map(Arc::new).or_else(kept);
        (name.to_owned(), hash.unwrap_or_else(|| Arc::new(PasswordHash::plain(text))))
    }

    /// One value.
    pub(crate) fn get(&self, section: &str, key: &str) -> Option<&str> {
        self.values.get(section)?.get(key).map(String::as_str)
    }

    /// One value of the section `chttpd`, or of `httpd`, its name in older versions.
    pub(crate) fn http(&self, key: &str) -> Option<&str> {
        self.get("chttpd", key).or_else(|| self.get("httpd", key))
    }

    /// One value of the section `chttpd_auth`, or of `couch_httpd_auth`, its name in older versions.
    pub(crate) fn auth(&self, key: &str) -> Option<&str> {
        self.get("chttpd_auth", key).or_else(|| self.get("couch_httpd_auth", key))
    }

    /// The values of a section.
    pub(crate) fn section(&self, name: &str) -> impl Iterator<Item = (&str, &str)> {
        let keys = self.values.get(name).into_iter().flatten();
        keys.map(|(key, value)| (key.as_str(), value.as_str()))
    }

    pub(crate) fn number(&self, section: &str, key: &str, default: u64) -> u64 {
        match self.get(section, key).map(str::trim) {
            Some("infinity") => u64::MAX,
            value => value.and_then(|value| value.parse().ok()).unwrap_or(default),
        }
    }

    pub(crate) fn script_options(&self) -> ScriptOptions {
        let section = "query_server_config";
        let usual = ScriptOptions::default();
        let threshold = self.number(section, "reduce_limit_threshold", 5000);
        let ratio = self.get(section, "reduce_limit_ratio").and_then(|ratio| ratio.parse().ok());
        ScriptOptions {
            timeout: self.millis("couchdb", "os_process_timeout", 5000),
            reduce_limit: self.get(section, "reduce_limit") != Some("false"),
            reduce_limit_threshold: usize::try_from(threshold).unwrap_or(usize::MAX),
            reduce_limit_ratio: ratio.unwrap_or(usual.reduce_limit_ratio),
            ..usual
        }
    }

    pub(crate) fn millis(&self, section: &str, key: &str, default: u64) -> Duration {
        Duration::from_millis(self.number(section, key, default))
    }

    /// Hashes a password as configured. Takes a while.
    pub(crate) fn hash(&self, password: &str) -> PasswordHash {
        let prf = self.auth("pbkdf2_prf").and_then(Prf::parse).unwrap_or(Prf::Sha256);
        let rounds = self.auth("iterations").and_then(|n| n.parse().ok()).unwrap_or(600_000);
        PasswordHash::new(password, prf, rounds)
    }

    /// A value as HTTP may see it; `None` also where it may not.
    pub(crate) fn shown(&self, section: &str, key: &str) -> Option<String> {
        if SECRET_KEYS.contains(&(section, key)) {
            return None;
        }
        match section {
            "admins" => self.admins.get(key).map(|hash| hash.to_string()),
            _ => self.get(section, key).map(str::to_owned),
        }
    }
}

/// Whether HTTP may change a value to this one.
///
/// # Errors
///
/// `Forbidden` for what is not on the list, `BadRequest` for a value that makes no sense.
pub(crate) fn check_change(section: &str, key: &str, value: Option<&str>) -> Result<()> {
    let cors_of_host = section.starts_with("cors:");
    if !cors_of_host && !WRITABLE_SECTIONS.contains(&section) {
        return Err(Error::new(
            ErrorKind::Forbidden,
            "Config section blacklisted for modification over HTTP API.",
        ));
    }
    if FIXED_KEYS.contains(&(section, key)) {
        return Err(Error::new(
            ErrorKind::Forbidden,
            "Config key blacklisted for modification over HTTP API.",
        ));
    }
    let text_is_fine = |text: &str, max| text.len() <= max && !text.chars().any(char::is_control);
    if key.is_empty() || !text_is_fine(section, 128) || !text_is_fine(key, 128) {
        return Err(Error::bad_request("Invalid configuration key"));
    }
    let Some(value) = value else { return Ok(()) };
    if !text_is_fine(value, MAX_VALUE) {
        return Err(Error::bad_request("Invalid configuration value"));
    }
    let default = DEFAULTS.iter().find(|row| row.0 == section && row.1 == key);
    let sensible = match default.map(|row| row.2) {
        Some("true" | "false") => matches!(value, "true" | "false"),
        Some(number) if number.parse::<u64>().is_ok() => {
            value == "infinity" || value.parse::<u64>().is_ok()
        }
        _ => true,
    };
    if section == "admins" && (key.contains(':') || value.is_empty()) {
        return Err(Error::bad_request("Invalid admin name or password"));
    }
    match sensible {
        true => Ok(()),
        false => Err(Error::bad_request(format!("Invalid value for {section}/{key}"))),
    }
}

/// Reads a file of sections. Values may be texts, numbers and booleans, or lists of texts.
fn read_toml(path: &Path) -> Result<Values> {
    let fail = |e: &dyn std::fmt::Display| {
        Error::bad_request(format!("configuration file {}: {e}", path.display()))
    };
    let text = std::fs::read_to_string(path).map_err(|e| fail(&e))?;
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| fail(&e))?;
    let mut values = Values::new();
    for (section, keys) in table {
        let toml::Value::Table(keys) = keys else {
            return Err(fail(&format!("{section} must be a section, [{section}]")));
        };
        for (key, value) in keys {
            let Some(value) = to_text(&value) else {
                return Err(fail(&format!("the value of {section}/{key} must be a text")));
            };
            values.entry(section.clone()).or_default().insert(key, value);
        }
    }
    Ok(values)
}

fn to_text(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(flag) => Some(flag.to_string()),
        toml::Value::Array(items) => {
            let items: Option<Vec<&str>> = items.iter().map(toml::Value::as_str).collect();
            Some(items?.join(","))
        }
        _ => None,
    }
}

fn to_toml(values: &Values) -> String {
    // A JSON string is a TOML string, but for the one control character that JSON lets through.
    let quote = |text: &str| serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f");
    let mut text = String::from("# Written by settee: what was changed over HTTP.\n");
    for (section, keys) in values.iter().filter(|(_, keys)| !keys.is_empty()) {
        // Writing to a String does not fail.
        let _ = write!(text, "\n[{}]\n", quote(section));
        for (key, value) in keys {
            let _ = writeln!(text, "{} = {}", quote(key), quote(value));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_dir(dir: &Path) -> Config {
        let source = ConfigSource { data_dir: Some(dir.to_owned()), ..ConfigSource::default() };
        Config::open(source).unwrap()
    }

    #[test]
    fn changes_outlive_the_process_and_removals_bring_defaults_back() {
        let dir = tempfile::tempdir().unwrap();
        let config = in_dir(dir.path());
        let secret = config.live().secret.clone();
        let odd = "\"quotes\" \\ \u{7f} ünïcode";
        assert_eq!(config.set("cors", "origins", odd, true).unwrap(), None);
        assert_eq!(config.set("chttpd", "port", "1", false).unwrap().as_deref(), Some("5984"));
        assert_eq!(config.set("uuids", "max_count", "5", true).unwrap().as_deref(), Some("1000"));

        let config = in_dir(dir.path());
        assert_eq!(config.live().secret, secret);
        assert_eq!(config.get("cors", "origins").as_deref(), Some(odd));
        assert_eq!(config.get("chttpd", "port").as_deref(), Some("5984"));
        assert_eq!(config.remove("uuids", "max_count", true).unwrap().as_deref(), Some("5"));
        assert_eq!(config.get("uuids", "max_count").as_deref(), Some("1000"));
    }

    #[test]
    fn flags_beat_changes_and_changes_beat_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("settee.toml");
        std::fs::write(
            &file,
            "[cors]\norigins = [\"a\", \"b\"]\nmax_age = 7\n[log]\nlevel = \"warn\"\n",
        )
        .unwrap();
        let source = ConfigSource {
            file: Some(file),
            data_dir: Some(dir.path().join("data")),
            overrides: vec![("log".into(), "level".into(), "debug".into())],
        };
        let config = Config::open(source.clone()).unwrap();
        assert_eq!(config.get("cors", "origins").as_deref(), Some("a,b"));
        config.set("cors", "max_age", "8", true).unwrap();
        config.set("log", "level", "error", true).unwrap();
        let config = Config::open(source).unwrap();
        assert_eq!(config.get("cors", "max_age").as_deref(), Some("8"));
        assert_eq!(config.get("log", "level").as_deref(), Some("debug"));
    }

    #[test]
    fn what_names_code_or_paths_cannot_be_changed_over_http() {
        for (section, key) in [
            ("query_servers", "javascript"),
            ("os_daemons", "evil"),
            ("native_query_servers", "erlang"),
            ("external", "x"),
            ("settee", "max_connections"),
            ("ssl", "cert_file"),
            ("couchdb", "database_dir"),
            ("log", "file"),
            ("chttpd", "bind_address"),
            ("chttpd", "config_whitelist"),
        ] {
            let error = check_change(section, key, Some("x")).unwrap_err();
            assert_eq!(error.status(), 403, "{section}/{key}");
        }
        assert!(check_change("cors", "origins", Some("app://obsidian.md")).is_ok());
        assert!(check_change("chttpd", "require_valid_user", Some("true")).is_ok());
        assert_eq!(
            check_change("chttpd", "require_valid_user", Some("ja")).unwrap_err().status(),
            400
        );
        assert_eq!(check_change("cors", "origins", Some("a\r\nb")).unwrap_err().status(), 400);
    }

    #[test]
    fn plain_passwords_are_hashed_and_never_shown() {
        let overrides = [("chttpd_auth", "iterations", "10"), ("admins", "anna", "secret")]
            .map(|(s, k, v)| (s.to_owned(), k.to_owned(), v.to_owned()))
            .to_vec();
        let config = Config::open(ConfigSource { overrides, ..ConfigSource::default() }).unwrap();
        assert!(!config.live().shown("admins", "anna").unwrap().contains("secret"));
        assert!(config.live().admins["anna"].verify("secret"));
        config.hash_plain_admins();
        assert!(config.live().shown("admins", "anna").unwrap().starts_with("-pbkdf2:sha256-"));
        assert!(config.live().admins["anna"].verify("secret"));
        assert_eq!(config.ensure_admin().unwrap(), None);
        assert_eq!(config.live().shown("chttpd_auth", "secret"), None);
    }
}
