//! What design documents say of their views.

use super::mapping::{Mapping, NativeMapping, ScriptMapping};
use super::native::NativeView;
use super::reduce::{Reducer, ScriptReduce};
use crate::script::{MapSource, ReduceSource, ScriptEngine, unknown_language};
use settee_core::collate::{self, Collation};
use settee_core::wire::TempView;
use settee_core::{Body, Error, ErrorKind, Result, json};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

/// Changes when the same definition gets other rows, or rows in another form, than before.
const VERSION: u32 = 1;

/// What determines the rows of an index, in few bytes.
pub(crate) type Signature = [u8; 16];

/// One view of a design document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Definition {
    pub(crate) language: String,
    /// The source of the map function, as JSON text of what it is.
    pub(crate) map: String,
    pub(crate) reduce: Option<String>,
    pub(crate) collation: Collation,
    /// Documents come with `_local_seq`.
    pub(crate) local_seq: bool,
    /// Design documents are mapped too.
    pub(crate) include_design: bool,
    /// Modules that the functions may load, as JSON.
    pub(crate) lib: Option<String>,
}

/// The views of a design document.
#[derive(Debug, Clone)]
pub(crate) struct Design {
    pub(crate) language: String,
    pub(crate) views: BTreeMap<String, Definition>,
}

impl Design {
    /// Reads a design document. As in CouchDB, what is no view is not one, and no error.
    pub(crate) fn parse(body: &Body) -> Design {
        let language = body.get("language").and_then(json::string);
        let language = language.map_or_else(|| "javascript".to_owned(), |name| name.into_owned());
        let views = body.get("views").unwrap_or_default();
        let options = body.get("options").unwrap_or_default();
        let lib = member(views, "lib").map(str::to_owned);
        let views = json::members(views).filter(|(name, _)| name != "lib");
        let views = views.filter_map(|(name, view)| {
            let map = member(view, "map")?.to_owned();
            let reduce = member(view, "reduce").and_then(json::string);
            let mut definition = Definition {
                language: language.clone(),
                map,
                reduce: reduce.map(|source| source.into_owned()),
                collation: Collation::Unicode,
                local_seq: false,
                include_design: false,
                lib: lib.clone(),
            };
            definition.read_options(options);
            definition.read_options(member(view, "options").unwrap_or_default());
            Some((name.into_owned(), definition))
        });
        let views = views.collect();
        Design { language, views }
    }

    /// Names the state of all views together.
    pub(crate) fn signature(&self, place: &Functions) -> String {
        let mut hash = Sha256::new();
        for (name, view) in &self.views {
            hash.update(name.as_bytes());
            hash.update(view.signature(place));
        }
        crate::env::hex(&hash.finalize()[..16])
    }
}

fn member<'a>(object: &'a str, name: &str) -> Option<&'a str> {
    // The last one counts, but normalised text has no two.
    json::members(object).find(|member| member.0 == name).map(|member| member.1)
}

impl Definition {
    pub(crate) fn of_temp_view(view: &TempView) -> Result<Definition> {
        let text = |value: &dyn Fn() -> serde_json::Result<String>| {
            value().map_err(|error| Error::bad_request(error.to_string()))
        };
        let mut definition = Definition {
            language: view.language.clone(),
            map: text(&|| serde_json::to_string(&view.map))?,
            reduce: view.reduce.clone(),
            collation: Collation::Unicode,
            local_seq: false,
            include_design: false,
            lib: None,
        };
        definition.read_options(&text(&|| serde_json::to_string(&view.options))?);
        Ok(definition)
    }

    fn read_options(&mut self, options: &str) {
        for (name, value) in json::members(options) {
            match name.as_ref() {
                "collation" => {
                    self.collation = match json::string(value).as_deref() {
                        Some("raw") => Collation::Raw,
                        _ => Collation::Unicode,
                    }
                }
                "local_seq" => self.local_seq = json::boolean(value).unwrap_or(false),
                "include_design" => self.include_design = json::boolean(value).unwrap_or(false),
                _ => {}
            }
        }
    }

    /// The source of the map function, if it is text.
    fn map_source(&self) -> Result<String> {
        let source = json::string(&self.map).map(|source| source.into_owned());
        source.ok_or_else(|| Error::bad_request("`map` must be a string"))
    }

    /// Two views have the same signature if they have the same rows and reduce them in the same way.
    pub(crate) fn signature(&self, place: &Functions) -> Signature {
        let native = |name: &str| place.native(name).map_or(0, |view| view.version);
        let versions = match self.is_native() {
            false => [0, 0],
            true => {
                let map = json::string(&self.map).map_or(0, |name| native(&name));
                [map, self.reduce.as_deref().map_or(0, native)]
            }
        };
        let mut hash = Sha256::new();
        hash.update(VERSION.to_be_bytes());
        hash.update(collate::VERSION.to_be_bytes());
        hash.update([
            matches!(self.collation, Collation::Raw).into(),
            self.local_seq.into(),
            self.include_design.into(),
            self.reduce.is_some().into(),
        ]);
        hash.update(versions[0].to_be_bytes());
        hash.update(versions[1].to_be_bytes());
        for text in [
            self.language.as_str(),
            &self.map,
            self.reduce.as_deref().unwrap_or_default(),
            self.lib.as_deref().unwrap_or_default(),
        ] {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        }
        let mut signature = Signature::default();
        signature.copy_from_slice(&hash.finalize()[..16]);
        signature
    }

    pub(crate) fn is_native(&self) -> bool {
        self.language == "rust"
    }

    /// What runs the map function.
    ///
    /// `database` is the one whose documents it maps.
    pub(crate) fn mapping(&self, place: &Functions, database: &str) -> Result<Arc<dyn Mapping>> {
        if self.is_native() {
            let name = self.map_source()?;
            let view = place.native(&name).ok_or_else(|| unregistered(&name))?;
            return Ok(Arc::new(NativeMapping(view)));
        }
        let source =
            MapSource { database, functions: &[&self.map_source()?], lib: self.lib.as_deref() };
        Ok(Arc::new(ScriptMapping(place.script(&self.language)?.mapper(&source)?)))
    }

    /// What reduces the rows. `name` is what to call it in messages.
    pub(crate) fn reducer(&self, place: &Functions, database: &str, name: &str) -> Result<Reducer> {
        let Some(reduce) = &self.reduce else { return Ok(Reducer::None) };
        if reduce.starts_with('_') {
            return Reducer::built_in(reduce);
        }
        if self.is_native() {
            let view = place.native(reduce).filter(|view| view.reduce.is_some());
            let view = view.ok_or_else(|| unregistered(reduce))?;
            return Ok(Reducer::Function(Arc::new(view)));
        }
        let name = format!("{database}/_design/{name}");
        let source = ReduceSource { database, function: reduce, name: &name };
        let reducer = place.script(&self.language)?.reducer(&source)?;
        Ok(Reducer::Function(Arc::new(ScriptReduce(reducer))))
    }
}

fn unregistered(name: &str) -> Error {
    Error::new(ErrorKind::Internal, format!("no function `{name}` is registered"))
        .with_name("unknown_native_function")
}

/// The functions that views can call, besides those that their design documents bring.
#[derive(Debug, Default)]
pub(crate) struct Functions {
    native: RwLock<BTreeMap<String, NativeView>>,
    script: OnceLock<Arc<dyn ScriptEngine>>,
}

impl Functions {
    pub(crate) fn new(script: Option<Arc<dyn ScriptEngine>>) -> Functions {
        let functions = Functions::default();
        if let Some(script) = script {
            let _ = functions.script.set(script);
        }
        functions
    }

    /// What runs functions in a language.
    pub(crate) fn script(&self, language: &str) -> Result<&Arc<dyn ScriptEngine>> {
        if language != "javascript" {
            return Err(unknown_language(language));
        }
        #[cfg(feature = "js")]
        return Ok(self.script.get_or_init(|| Arc::new(crate::script::JsEngine::default())));
        #[cfg(not(feature = "js"))]
        return self.script.get().ok_or_else(|| unknown_language(language));
    }

    pub(crate) fn register(&self, view: NativeView) {
        let mut native = self.native.write().unwrap_or_else(PoisonError::into_inner);
        native.insert(view.name.clone(), view);
    }

    fn native(&self, name: &str) -> Option<NativeView> {
        self.native.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }
}
