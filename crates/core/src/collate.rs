//! View collation: CouchDB's order of JSON keys, as bytes that compare with `memcmp`.
