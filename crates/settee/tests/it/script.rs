//! The script engine: what functions can do, and what they cannot.

use settee::script::{
    JsEngine, MapSource, Mapped, ReduceCall, ReduceSource, ScriptEngine, ScriptOptions,
};
use settee_core::{Error, ErrorKind};
use std::time::{Duration, Instant};

fn engine() -> JsEngine {
    JsEngine::default()
}

/// An engine whose limits are reached soon.
fn strict() -> JsEngine {
    JsEngine::new(ScriptOptions {
        timeout: Duration::from_millis(200),
        memory: 8 << 20,
        stack: 256 << 10,
        output: 1 << 20,
        threads: Some(1),
        ..ScriptOptions::default()
    })
}

fn map(engine: &JsEngine, functions: &[&str], docs: &[&str]) -> Mapped {
    let source = MapSource { database: "db", functions, lib: None };
    engine.mapper(&source).unwrap().map(docs).unwrap()
}

/// The rows that one function emits for one document, or how it fails.
fn emits(function: &str, doc: &str) -> String {
    emits_in(&engine(), function, doc)
}

fn emits_in(engine: &JsEngine, function: &str, doc: &str) -> String {
    show(&map(engine, &[function], &[doc]), 0, 0)
}

fn show(mapped: &Mapped, doc: usize, function: usize) -> String {
    match mapped.get(doc, function) {
        Ok(rows) => rows.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" "),
        Err(failure) => format!("!{failure}"),
    }
}

fn check(function: &str) -> Result<(), Error> {
    futures_executor::block_on(engine().check(function))
}

mod maps {
    use super::*;

    #[test]
    fn functions_are_read_however_they_are_written() {
        for source in [
            "function(doc) { emit(doc.n, 1) }",
            "function(doc) { emit(doc.n, 1) };",
            "function (doc) { emit(doc.n, 1); } ; // done; really",
            "  function(doc) { emit(doc.n, 1) } // a comment",
            "function(doc) { emit(doc.n, 1) }; /* a * comment */ ;\n\n",
            "/* first */ function(doc) { emit(doc.n, 1) }",
            "// first\nfunction(doc) { emit(doc.n, 1) }",
            "(function(doc) { emit(doc.n, 1) })",
            "(function(doc) { emit(doc.n, 1) });",
            "function named(doc) { emit(doc.n, 1) }",
            "doc => emit(doc.n, 1)",
            "doc => { emit(doc.n, 1); };",
            "(doc) => { const { n, m = 1 } = doc; emit(n, m ?? 2); }",
            "(function() { var one = 1; return function(doc) { emit(doc.n, one) } })()",
            "var one = 1;\nfunction(doc) { emit(doc.n, one) }",
            "function one() { return 1 }\nfunction(doc) { emit(doc.n, one()) }",
            "var s = '; // no comment'; function(doc) { emit(doc.n, s.length - 14) };",
        ] {
            assert_eq!(emits(source, r#"{"_id":"x","n":"a"}"#), "\"a\"=1", "{source}");
        }
    }

    #[test]
    fn what_is_no_function_is_a_compilation_error() {
        for source in [
            "",
            "1 + 1",
            "function(doc) { emit(",
            "function(doc) {}) garbage",
            "function(doc) {} garbage",
            "}); (function() {",
            "1]}); (function() { [1",
            "\"function(doc) {}\"",
            "nothing",
        ] {
            let error = check(source).unwrap_err();
            assert_eq!((error.status(), error.name()), (500, "compilation_error"), "{source}");
            let wanted = format!("Expression does not eval to a function. ({source})");
            assert!(error.reason().ends_with(&wanted), "{error}");
        }
        check("function(doc) {}").unwrap();
    }

    #[test]
    fn keys_and_values_are_json() {
        let emits = |body: &str| emits(&format!("function(doc) {{ {body} }}"), r#"{"_id":"x"}"#);
        assert_eq!(emits("emit(doc._id)"), "\"x\"=null");
        assert_eq!(emits("emit()"), "null=null");
        assert_eq!(emits("emit(undefined, function() {})"), "null=null");
        assert_eq!(emits("emit([1, undefined], {a: undefined, b: NaN})"), "[1,null]={\"b\":null}");
        assert_eq!(emits("emit(1.0, 1e21); emit(-0, 0.1 + 0.2)"), "1=1e+21 0=0.30000000000000004");
        assert_eq!(emits("emit('a\\nb\"', '\\ud83d\\ude00')"), "\"a\\nb\\\"\"=\"\u{1f600}\"");
        assert_eq!(emits("emit('\\ud83d', '\\\\ud83d')"), "\"\u{fffd}\"=\"\\\\ud83d\"");
        assert_eq!(emits("emit(new Date(0), 1)"), "\"1970-01-01T00:00:00.000Z\"=1");
        assert_eq!(
            emits("emit(1, new TypeError('odd'))"),
            "1={\"error\":\"TypeError\",\"message\":\"odd\"}"
        );
        assert_eq!(emits(""), "");
        assert_eq!(emits("emit({toJSON: function() { return 'a,b' }}, 2)"), "\"a,b\"=2");
    }

    #[test]
    fn helpers_are_there() {
        let emits = |body: &str| emits(&format!("function(doc) {{ {body} }}"), r#"{"_id":"x"}"#);
        assert_eq!(emits("emit(sum([1, 2, 3]), isArray([]) && !isArray({}))"), "6=true");
        assert_eq!(
            emits("log('hello'); log({a: 1}); emit(toJSON({a: [1]}), null)"),
            r#""{\"a\":[1]}"=null"#
        );
        assert_eq!(emits("emit(typeof JSON.parse, typeof Math.max)"), "\"function\"=\"function\"");
        for gone in ["eval", "setTimeout", "print", "readline", "std", "os", "SharedArrayBuffer"] {
            assert_eq!(emits(&format!("emit(typeof {gone})")), "\"undefined\"=null");
        }
    }

    #[test]
    fn a_throw_skips_the_document_for_that_function() {
        let functions =
            ["function(doc) { emit(doc.a.b, 1) }", "function(doc) { emit(doc._id, 2) }"];
        let docs = [r#"{"_id":"x"}"#, r#"{"_id":"y","a":{"b":3}}"#];
        let mapped = map(&engine(), &functions, &docs);
        assert_eq!(mapped.len(), 2);
        assert!(show(&mapped, 0, 0).starts_with("!TypeError: "), "{mapped:?}");
        assert_eq!(show(&mapped, 0, 1), "\"x\"=2");
        assert_eq!(show(&mapped, 1, 0), "3=1");
        assert_eq!(show(&mapped, 1, 1), "\"y\"=2");
        // What was emitted before counts for nothing.
        assert_eq!(emits("function(doc) { emit(1, 1); throw 'no'; }", "{}"), "!no");
        assert_eq!(emits("function(doc) { throw {a: 1}; }", "{}"), "!{\"a\":1}");
        assert_eq!(
            emits("function(doc) { emit(1, 10n) }", "{}"),
            "!TypeError: BigInt are forbidden in JSON.stringify"
        );
    }

    #[test]
    fn functions_cannot_change_the_document_for_one_another() {
        let functions = [
            "function(doc) { doc.n = 2; doc.list.x = 1; delete doc.list; emit(doc.n, doc.list); }",
            "function(doc) { doc.list.push(3); emit(1, 1) }",
            "function(doc) { emit(doc.n, doc.list) }",
        ];
        let mapped = map(&engine(), &functions, &[r#"{"n":1,"list":[1,{"a":2}]}"#]);
        assert_eq!(show(&mapped, 0, 0), r#"1=[1,{"a":2}]"#);
        assert!(show(&mapped, 0, 1).starts_with("!TypeError"), "{mapped:?}");
        assert_eq!(show(&mapped, 0, 2), r#"1=[1,{"a":2}]"#);
    }

    #[test]
    fn functions_require_modules_of_the_lib() {
        let lib = r#"{
            "double": "exports.run = function(n) { return n * two.n }; var two = require('./two');",
            "two": "exports.n = 2; exports.id = module.id;",
            "shout": "module.exports = function(s) { return s.toUpperCase() }",
            "deep": {"er": "exports.two = require('../two').n; exports.four = require('views/lib/double').run(2)"},
            "ping": "exports.before = 1; exports.pong = require('./pong'); exports.after = 2;",
            "pong": "exports.before = require('./ping').before; exports.after = require('./ping').after;",
            "bad": "throw new Error('broken')",
            "worse": "syntax error",
            "number": 7
        }"#;
        let run = |body: &str| {
            let function = format!("function(doc) {{ {body} }}");
            let source = MapSource { database: "db", functions: &[&function], lib: Some(lib) };
            show(&engine().mapper(&source).unwrap().map(&["{}"]).unwrap(), 0, 0)
        };
        assert_eq!(run("emit(require('views/lib/double').run(21))"), "42=null");
        assert_eq!(run("emit(require('views/lib/two').id)"), "\"views/lib/two\"=null");
        assert_eq!(run("emit(require('views/lib/shout')('a'))"), "\"A\"=null");
        assert_eq!(run("var d = require('views/lib/deep/er'); emit(d.two, d.four)"), "2=4");
        assert_eq!(
            run("emit(require('views/lib/ping'))"),
            r#"{"before":1,"pong":{"before":1},"after":2}=null"#
        );
        assert_eq!(run("emit(require('views/lib/two') === require('views/lib/two'))"), "true=null");
        let error = run("require('views/lib/bad')");
        assert!(
            error.contains("Module require('views/lib/bad') raised error Error: broken"),
            "{error}"
        );
        assert!(run("require('views/lib/worse')").contains("raised error SyntaxError"));
        assert!(run("require('views/lib/none')").contains("Object has no property \\\"none\\\""));
        assert!(
            run("require('views/lib/number')")
                .contains("Must require a JavaScript string, not: number")
        );
        assert!(run("require('./two')").contains("Object has no parent"));
    }

    #[test]
    fn documents_may_nest_deep() {
        let deep = |n: usize| format!(r#"{{"a":{}1{}}}"#, "[".repeat(n), "]".repeat(n));
        let function = "function(doc) { emit(JSON.stringify(doc.a).length, doc.a) }";
        let rows = emits(function, &deep(499));
        assert!(rows.starts_with("999=[["), "{}", &rows[..50]);
        assert!(emits(function, &deep(1_000_000)).starts_with('!'));
    }

    #[test]
    fn large_integers_are_those_of_javascript() {
        assert_eq!(
            emits("function(doc) { emit(doc.n) }", r#"{"n":9007199254740993}"#),
            "9007199254740992=null"
        );
    }
}

mod reductions {
    use super::*;

    fn reduce(
        engine: &JsEngine,
        function: &str,
        calls: &[(Option<&str>, &str)],
    ) -> Vec<Result<String, Error>> {
        let source = ReduceSource { database: "db", function, name: "db/_design/d/v" };
        let calls: Vec<_> =
            calls.iter().map(|&(keys, values)| ReduceCall { keys, values }).collect();
        engine.reducer(&source).unwrap().reduce(&calls)
    }

    #[test]
    fn keys_values_and_rereduce_arrive() {
        let function = "function(keys, values, rereduce) { return [keys, values, rereduce] }";
        let results = reduce(
            &engine(),
            function,
            &[(Some(r#"[["k","id1"],["k","id2"]]"#), "[1,2]"), (None, "[3,4]")],
        );
        assert_eq!(results[0].as_ref().unwrap(), r#"[[["k","id1"],["k","id2"]],[1,2],false]"#);
        assert_eq!(results[1].as_ref().unwrap(), "[null,[3,4],true]");
    }

    #[test]
    fn results_are_json() {
        let run = |body: &str| {
            let function = format!("function(keys, values) {{ {body} }}");
            reduce(&engine(), &function, &[(None, "[1,2]")]).remove(0)
        };
        assert_eq!(run("return sum(values)").unwrap(), "3");
        assert_eq!(run("return undefined").unwrap(), "null");
        assert_eq!(run("return 1e300 * 10").unwrap(), "1e+301");
        // Common enough: what should be a variable is a global.
        assert_eq!(run("sum = 0; for (i in values) sum += values[i]; return sum").unwrap(), "3");
        let error = run("return nothing").unwrap_err();
        assert_eq!((error.status(), error.name()), (500, "ReferenceError"));
        assert!(run("return require('x')").is_err());
    }

    #[test]
    fn a_reduction_must_reduce() {
        let values = format!("[{}]", ["\"0123456789\""; 1000].join(","));
        let error = reduce(&engine(), "function(k, values) { return values }", &[(None, &values)])
            .remove(0);
        let error = error.unwrap_err();
        assert_eq!((error.status(), error.name()), (500, "reduce_overflow_error"));
        assert_eq!(
            error.reason(),
            "Reduce output must shrink more rapidly: input size: 13001 output size: 13003 \
             context: db/_design/d/v"
        );
        let lax = JsEngine::new(ScriptOptions { reduce_limit: false, ..ScriptOptions::default() });
        assert!(
            reduce(&lax, "function(k, values) { return values }", &[(None, &values)])[0].is_ok()
        );
        // Small ones may grow.
        assert!(
            reduce(&engine(), "function(k, v) { return [v, v, v, v] }", &[(None, "[1]")])[0]
                .is_ok()
        );
    }
}

mod hostile {
    use super::*;

    /// Runs a function over three documents with small limits. It must fail for the second, within
    /// bounded time; the others, and other functions, must not notice.
    fn fails(body: &str) -> String {
        fails_in(&strict(), body)
    }

    fn fails_in(engine: &JsEngine, body: &str) -> String {
        let bad = format!("function(doc) {{ if (doc.bad) {{ {body} }} emit(doc.n, 1) }}");
        let good =
            "function(doc) { emit([doc.n].concat([1, 2].map(function(x) { return x })), {}) }";
        let docs = [r#"{"n":1}"#, r#"{"n":2,"bad":true}"#, r#"{"n":3}"#];
        let began = Instant::now();
        let mapped = map(engine, &[&bad, good], &docs);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        for n in [0, 2] {
            assert_eq!(show(&mapped, n, 0), format!("{}=1", n + 1), "{body}: {mapped:?}");
        }
        for n in 0..3 {
            assert_eq!(show(&mapped, n, 1), format!("[{},1,2]={{}}", n + 1), "{body}: {mapped:?}");
        }
        // The engine serves on, with the same function too.
        assert_eq!(show(&map(engine, &[&bad], &[r#"{"n":4}"#]), 0, 0), "4=1");
        show(&mapped, 1, 0)
    }

    fn time(body: &str) {
        let failure = fails(body);
        assert!(failure.contains("ran longer than 200ms"), "{body}: {failure}");
    }

    fn memory(body: &str) {
        // Time enough to use it up.
        let options = ScriptOptions { memory: 8 << 20, ..ScriptOptions::default() };
        let failure = fails_in(&JsEngine::new(options), body);
        let known = [
            "out of memory",
            "string too long",
            "invalid array buffer length",
            "invalid string length",
        ]
        .iter()
        .any(|text| failure.contains(text));
        assert!(known, "{body}: {failure}");
    }

    #[test]
    fn endless_loops_end() {
        time("while (1);");
        time("for (;;) { try { throw 1 } catch (e) {} finally { continue } }");
        time("for (;;) try { while (1); } finally { while (1); }");
        time("var f = function() { for (;;) yield_(); }; var yield_ = function() {}; f();");
        time("[...(function* () { for (;;) yield* [] })()]");
        time("var o = { get x() { for (;;); } }; o.x");
        time("emit({ toJSON: function() { for (;;); } }, 1)");
        time("emit({ get x() { for (;;); } }, 1)");
        time("emit(1, new Proxy({}, { ownKeys: function() { for (;;); } }))");
        time("[3, 2, 1].sort(function() { for (;;); })");
        time("'a'.replace(/a/, function() { for (;;); })");
        time("throw { toString: function() { for (;;); }, toJSON: function() { for (;;); } }");
        time(
            "var e = new Error('x'); e.__defineGetter__('name', function() { for (;;); }); throw e",
        );
    }

    #[test]
    fn catastrophic_expressions_end() {
        time("/^(a+)+$/.test(Array(40).join('a') + 'b')");
        time("/(x+x+)+y/.exec('xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx')");
    }

    #[test]
    fn memory_is_bounded() {
        memory("for (;;) emit(doc, 'a long enough value')");
        memory("var s = 'x'; for (;;) s += s");
        memory("var a = []; for (;;) a.push({ a: a })");
        memory("'x'.repeat(1 << 29)");
        memory("new ArrayBuffer(1 << 30)");
        memory("new Uint8Array(1 << 28)");
        memory("new Array(1 << 20).join('xxxxxxxxxx')");
        memory("JSON.stringify(new Array(1 << 18).fill('xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'))");
        memory("var m = new Map(); for (var i = 0; ; i++) m.set(i, {})");
        memory("try { var s = 'x'; for (;;) s += s } catch (e) { throw e }");
    }

    /// Whatever was being done when memory ran out, and whatever the engine had not put in order yet.
    #[test]
    fn memory_may_run_out_anywhere() {
        let rounds = std::env::var("SETTEE_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(40);
        let body = "
            var kept = [], lib = require('views/lib/m');
            for (var i = 0; ; i++) {
              try {
                kept.push({ i: i, s: 'x' + i, f: function() { return kept }, d: new Date(), r: /a+/g });
                kept.push(JSON.parse(JSON.stringify(doc)), new Map([[i, doc]]), lib.make(i));
                kept.push((function* () { yield* [1, 2, i] })(), `${i}`.split(''), [3, 1].sort());
                kept.push(class { #x = i; get x() { return this.#x } }, Symbol('s' + i), 10n ** 20n);
                kept.push(new Proxy({}, {}), new Uint8Array(8), Promise.resolve(i), 'aXa'.replace(/X/, i));
                kept.push(Function('return ' + i), (async function() { await 1 })(), new Error('e'));
                emit(i, kept.slice(0, 3));
              } catch (e) { if (doc.n % 2) throw e; kept.length = doc.n % 3 ? kept.length : 0; if (i > 1e4) throw e; }
            }";
        let function = format!("function(doc) {{ {body} }}");
        let lib = r#"{"m": "exports.make = function(i) { return [i, {}, exports] }"}"#;
        for round in 0..rounds {
            let engine = JsEngine::new(ScriptOptions {
                timeout: Duration::from_millis(300),
                memory: (700 << 10) + round * 7919,
                threads: Some(1),
                ..ScriptOptions::default()
            });
            let functions = [function.as_str(), "function(doc) { emit(doc.n, 1) }"];
            let source = MapSource { database: "db", functions: &functions, lib: Some(lib) };
            let Ok(mapper) = engine.mapper(&source) else { continue };
            let docs: Vec<String> =
                (0..3).map(|n| format!(r#"{{"n":{n},"a":[1,{{}}]}}"#)).collect();
            let docs: Vec<&str> = docs.iter().map(String::as_str).collect();
            let mapped = mapper.map(&docs).unwrap();
            for n in 0..docs.len() {
                assert!(mapped.get(n, 0).is_err());
                assert_eq!(show(&mapped, n, 1), format!("{n}=1"));
            }
        }
    }

    #[test]
    fn recursion_is_bounded() {
        for body in [
            "(function f() { f() })()",
            "var f = function() { return [1].map(f) }; f()",
            "var o = {}; o.toString = function() { return '' + o }; '' + o",
            "var a = []; for (var i = 0, b = a; i < 100000; i++) { b[0] = []; b = b[0] } emit(a)",
            "new RegExp(Array(100000).join('(') + Array(100000).join(')'))",
            "JSON.parse(Array(200000).join('[') + Array(200000).join(']'))",
            "eval_ = Function(Array(100000).join('(') + 1 + Array(100000).join(')'))",
            "var p = {}; for (var i = 0; i < 100000; i++) p = new Proxy(p, {}); p.x",
        ] {
            let failure = fails(body);
            assert!(failure.starts_with('!'), "{body}: {failure}");
        }
    }

    #[test]
    fn too_much_output_is_refused() {
        let failure = fails(
            "for (var i = 0; i < 40000; i++) emit(i, '0123456789012345678901234567890123456789')",
        );
        assert_eq!(failure, "!the function emitted more than 1048576 bytes");
    }

    #[test]
    fn a_function_that_keeps_failing_is_given_up() {
        let engine = strict();
        let docs = [r#"{"n":1}"#; 50];
        let began = Instant::now();
        let mapped =
            map(&engine, &["function(doc) { for (;;); }", "function(doc) { emit(1, 1) }"], &docs);
        assert!(began.elapsed() < Duration::from_secs(3));
        assert!(!mapped.get(0, 0).unwrap_err().gave_up);
        assert!(mapped.get(49, 0).unwrap_err().gave_up);
        assert_eq!(show(&mapped, 49, 1), "1=1");
    }

    #[test]
    fn what_is_built_in_cannot_be_changed() {
        let tamper = "
            function(doc) {
              Object.prototype.leak = 1;
              Array.prototype.push = function() {};
              Array.prototype.leak = 2;
              String.prototype.leak = 3;
              Object.prototype.__defineSetter__('n', function() {});
            }";
        let tricks = [
            "Array.prototype.push = function() {}; Object.prototype.leak = 1; Array.prototype.leak = 1;",
            "JSON.stringify = function() { return '[]' }; JSON = null; Object = null; Array = null;",
            "Object.freeze = function() {}; Reflect.apply = null; Error.prototype.name = 'x';",
            "try { Object.defineProperty(Object.prototype, 'toJSON', { value: function() { return 1 } }) } catch (e) {}",
            "try { Object.defineProperty(Array.prototype, '0', { set: function() {} }) } catch (e) {}",
            "try { Object.prototype.__defineSetter__('n', function() {}) } catch (e) {}",
            "try { Object.setPrototypeOf(Array.prototype, { leak: 1 }) } catch (e) {}",
            "[].__proto__.__proto__.leak = 1; (function() {}).constructor.prototype.leak = 1;",
            "(function*() {}).constructor.prototype.leak = 1; [].values().__proto__.next = null;",
            "Function.prototype.call = Function.prototype.apply = null; RegExp.prototype.exec = null;",
            "Symbol.prototype.leak = 1; Promise.prototype.leak = 1; Date.now = null; Math.max = null;",
            "delete JSON.parse; delete Array.prototype.push; delete Object.prototype.hasOwnProperty;",
            "globalThis.leak = 1; this.leak = 1; leak = 1; Function('leak = 1')();",
            "emit = null; sum = null; toJSON = null; isArray = null; log = null; require = null;",
            "globalThis.emit = 1; globalThis.doc = 1; globalThis.hidden = 1;",
            "try { Object.defineProperty(globalThis, 'JSON', { value: 1 }) } catch (e) {}",
        ];
        let probe = "
            function(doc) {
              emit([1, 2].concat(3), [typeof leak, [].leak, ({}).leak, 'a'.leak, (function() {}).leak,
                typeof hidden, Math.max(1, 2), new Error('x').name, typeof JSON.parse, sum([1, 2]),
                Object.keys({ a: 1 }), /a/.test('a'), [3, 1].sort()]);
            }";
        let wanted = r#"[1,2,3]=["undefined",null,null,null,null,"undefined",2,"Error","function",3,["a"],true,[1,3]]"#;
        let engine = strict();
        let sources: Vec<String> = [tamper.to_owned()]
            .into_iter()
            .chain(tricks.iter().map(|trick| format!("function(doc) {{ {trick} }}")))
            .flat_map(|trick| [trick, probe.to_owned()])
            .collect();
        let sources: Vec<&str> = sources.iter().map(String::as_str).collect();
        let mapped = map(&engine, &sources, &["{}", "{}"]);
        for doc in 0..2 {
            for n in (1..sources.len()).step_by(2) {
                assert_eq!(show(&mapped, doc, n), wanted, "behind {}", sources[n - 1]);
            }
        }
    }

    #[test]
    fn nothing_is_left_for_the_next_document() {
        let counts = [
            "function(doc) { n = typeof n === 'undefined' ? 1 : n + 1; emit(n, 1) }",
            "(function() { var n = 0; return function(doc) { n += 1; emit(n, 1) } })()",
            "function(doc) { this.n = (this.n || 0) + 1; emit(this.n, 1) }",
            "function f(doc) { f.n = (f.n || 0) + 1; emit(f.n, 1) }",
            "function(doc) { emit.n = (emit.x || 0) + 1; emit(1, 1) }",
            "function(doc) { for (i = 0; i < 1; i++) { emit(i + 1, 1) } }",
            "var n = 0; function(doc) { n++; emit(n, 1) }",
        ];
        let docs = ["{}"; 4];
        let mapped = map(&strict(), &counts, &docs);
        for doc in 0..docs.len() {
            for (n, source) in counts.iter().enumerate() {
                assert_eq!(show(&mapped, doc, n), "1=1", "{source}");
            }
        }
    }

    #[test]
    fn nothing_is_left_for_the_next_batch() {
        let engine = strict();
        for source in [
            "function(doc) { var had = 'h' in globalThis; Object.defineProperty(globalThis, 'h', { value: 1 }); emit(had, 1) }",
            "function(doc) { var had = globalThis.h !== undefined; Object.setPrototypeOf(globalThis, { h: 1 }); emit(had, 1) }",
            "function(doc) { var had = Symbol.for('h') in globalThis; globalThis[Symbol.for('h')] = 1; emit(had, 1) }",
        ] {
            for _ in 0..3 {
                assert_eq!(show(&map(&engine, &[source], &["{}"]), 0, 0), "false=1", "{source}");
            }
        }
        let lib = r#"{"count": "var n = 0; exports.next = function() { n += 1; return n }"}"#;
        let function = "function(doc) { emit(require('views/lib/count').next(), 1) }";
        let source = MapSource { database: "db", functions: &[function], lib: Some(lib) };
        let mapper = engine.mapper(&source).unwrap();
        for _ in 0..2 {
            assert_eq!(show(&mapper.map(&["{}"]).unwrap(), 0, 0), "1=1");
        }
    }

    #[test]
    fn promises_and_jobs_leave_nothing() {
        let engine = strict();
        for body in [
            "Promise.resolve().then(function() { globalThis.leak = 1 }); emit(typeof leak, 1)",
            "(async function() { await 1; globalThis.leak = 1; })(); emit(typeof leak, 1)",
            "(async function() { for (;;) await 1 })(); emit(typeof leak, 1)",
        ] {
            for _ in 0..2 {
                let function = format!("function(doc) {{ {body} }}");
                assert_eq!(show(&map(&engine, &[&function], &["{}"]), 0, 0), "\"undefined\"=1");
            }
        }
    }

    #[test]
    fn overriding_what_is_inherited_works_as_ever() {
        for body in [
            "function T() {} T.prototype.toString = function() { return 'T' }; emit('' + new T())",
            "function E(m) { this.message = m } E.prototype = new Error(); E.prototype.name = 'T'; emit(new E('x').name)",
            "var o = {}; o.constructor = 'T'; emit(o.constructor)",
            "var o = {}; o.hasOwnProperty = 'T'; emit(o.hasOwnProperty)",
            "class A extends Error { constructor() { super('m'); this.name = 'T' } } emit(new A().name)",
            "var e = new Error('x'); e.message = 'T'; emit(e.message)",
            "emit(Object.assign({}, { toString: 'T' }).toString)",
        ] {
            let rows = emits(&format!("function(doc) {{ {body} }}"), "{}");
            assert_eq!(rows, "\"T\"=null", "{body}");
        }
    }

    #[test]
    fn one_step_that_takes_forever_holds_nobody_up() {
        // The engine cannot interrupt a search within a string.
        let engine = JsEngine::new(ScriptOptions {
            timeout: Duration::from_millis(200),
            memory: 16 << 20,
            threads: Some(1),
            ..ScriptOptions::default()
        });
        let slow = "function(doc) { if (!doc.ok) { var a = 'a'.repeat(400000); (a + a).indexOf(a + 'b') } emit(1, 1) }";
        let began = Instant::now();
        let source = MapSource { database: "db", functions: &[slow], lib: None };
        let mapper = engine.mapper(&source).unwrap();
        let error = mapper.map(&["{}"]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(began.elapsed() < Duration::from_secs(3));
        // Another function gets a new thread; the same one is refused while it is stuck.
        assert_eq!(emits_in(&engine, "function(doc) { emit(2, 2) }", "{}"), "2=2");
        assert_eq!(mapper.map(&[r#"{"ok":true}"#]).unwrap_err().kind(), ErrorKind::Timeout);
    }

    #[test]
    fn reductions_fail_alone() {
        let engine = strict();
        let run = |function: &str, calls: &[&str]| {
            let source = ReduceSource { database: "db", function, name: "v" };
            let calls: Vec<_> =
                calls.iter().map(|values| ReduceCall { keys: None, values }).collect();
            engine.reducer(&source).unwrap().reduce(&calls)
        };
        let results =
            run("function(k, v) { while (v[0] === 1); return v[0] }", &["[0]", "[1]", "[2]"]);
        assert_eq!(results[0].as_ref().unwrap(), "0");
        assert_eq!(results[1].as_ref().unwrap_err().kind(), ErrorKind::Timeout);
        assert_eq!(results[2].as_ref().unwrap(), "2");
        let results = run(
            "function(k, v) { var s = 'x'; while (v[0]) s += s; return v[0] }",
            &["[1]", "[0]"],
        );
        assert!(results[0].as_ref().unwrap_err().reason().contains("string too long"));
        assert_eq!(results[1].as_ref().unwrap(), "0");
        let began = Instant::now();
        run("function(k, v) { for (;;); }", &["[0]"; 30]);
        assert!(began.elapsed() < Duration::from_secs(3));
    }
}
