// What functions of design documents find around them.
//
// Evaluated once in each new context, before anything else; returns the object through which Rust
// calls in. Everything that functions share is frozen before the first of them is compiled, so what
// runs here may rely on it. Helpers are no globals but parameters of an outer function around each
// source: every call gets its own, and a function that assigns to one harms itself only.
(function (native) {
  'use strict';

  const global = globalThis;
  const evaluate = eval;
  const { parse, stringify } = JSON;
  const { freeze, defineProperty, getOwnPropertyDescriptor, getPrototypeOf, keys } = Object;
  const { ownKeys, apply } = Reflect;

  // `eval` could declare names that outlive the call. `Function` cannot, and stays.
  delete global.eval;
  delete global.SharedArrayBuffer;

  // ---- Freezing

  // An object that inherits a read-only property cannot be assigned one of that name, which would
  // break every `Type.prototype.toString = …`. So these become accessors that let it.
  function overridable(prototype, names) {
    for (const name of names) {
      const property = getOwnPropertyDescriptor(prototype, name);
      if (!property || !('value' in property)) continue;
      const { value, enumerable } = property;
      defineProperty(prototype, name, {
        get() { return value; },
        set(assigned) {
          if (this === prototype || Object(this) !== this) return;
          Reflect.defineProperty(this, name, {
            value: assigned, writable: true, enumerable: true, configurable: true,
          });
        },
        enumerable,
        configurable: false,
      });
    }
  }

  function lockGlobals() {
    const errors = ['Error', 'EvalError', 'RangeError', 'ReferenceError', 'SyntaxError', 'TypeError',
      'URIError', 'AggregateError', 'InternalError'];
    const names = ['constructor', 'name', 'message', 'toString', 'valueOf'];
    overridable(Object.prototype, ownKeys(Object.prototype).filter((name) => name !== '__proto__'));
    overridable(Function.prototype, names);
    overridable(Array.prototype, names);
    for (const name of errors) if (global[name]) overridable(global[name].prototype, names);

    // Reachable through syntax only.
    const hidden = [
      function* () {}, async function () {}, async function* () {}, [].values(), new Map().entries(),
      new Set().values(), ''[Symbol.iterator](), ''.matchAll(/x/g), (function* () {})(),
      (async function* () {})(), [].values().map((x) => x), Iterator.from({ next() {} }),
    ];
    const seen = new Set([global]);
    const todo = hidden.map((object) => getPrototypeOf(object));
    const add = (value) => {
      if (Object(value) === value && !seen.has(value)) {
        seen.add(value);
        todo.push(value);
      }
    };
    for (const name of ownKeys(global)) {
      const property = getOwnPropertyDescriptor(global, name);
      add(property.value);
      if (property.configurable) {
        defineProperty(global, name, 'value' in property
          ? { writable: false, enumerable: false, configurable: false }
          : { enumerable: false, configurable: false });
      }
    }
    while (todo.length > 0) {
      const object = todo.pop();
      add(getPrototypeOf(object));
      for (const name of ownKeys(object)) {
        const property = getOwnPropertyDescriptor(object, name);
        add(property.value);
        add(property.get);
        add(property.set);
      }
      freeze(object);
    }
  }

  function deepFreeze(value) {
    freeze(value);
    for (const name in value) {
      const member = value[name];
      if (typeof member === 'object' && member !== null) deepFreeze(member);
    }
    return value;
  }

  // ---- Globals that functions make, as `for (i in x)` without `var` does

  let globals;
  let allGlobals;

  // Enumerable ones are what such mistakes make, and cheap to look for.
  function clean() {
    const made = keys(global);
    if (made.length === globals) return;
    for (const name of made) delete global[name];
  }

  // Says whether everything is as it was.
  function isClean() {
    clean();
    return ownKeys(global).length === allGlobals && getPrototypeOf(global) === Object.prototype;
  }

  // ---- Errors

  // What is thrown to Rust: the `error` and `reason` of a reply.
  const failure = (name, reason) => ['error', name, reason];

  // When there is not even memory for an error, the engine throws `null`.
  const OUT_OF_MEMORY = ['InternalError', 'out of memory'];

  function describe(error) {
    if (error === null) return OUT_OF_MEMORY.join(': ');
    try {
      if (error instanceof Error) return `${error.name}: ${error.message}`;
      return typeof error === 'object' ? stringify(error) : String(error);
    } catch {
      return 'an error that cannot be shown';
    }
  }

  // The `error` and `reason` that something thrown means: CouchDB's `["error", error, reason]`,
  // `{error, reason}`, or any error.
  function nameAndReason(error) {
    if (error === null) return OUT_OF_MEMORY;
    try {
      if (Array.isArray(error) && (error[0] === 'error' || error[0] === 'fatal')) {
        return [String(error[1]), String(error[2])];
      }
      if (error instanceof Error) return [String(error.name), String(error.message)];
      if (Object(error) === error) {
        if (error.forbidden !== undefined) return ['forbidden', text(error.forbidden)];
        if (error.unauthorized !== undefined) return ['unauthorized', text(error.unauthorized)];
        if (error.error && error.reason) return [String(error.error), String(error.reason)];
        if (error.name) return [String(error.name), String(error.message)];
      }
    } catch {
      // Whatever it is, it is no text.
    }
    return ['unnamed_error', describe(error)];
  }

  const text = (value) => (typeof value === 'string' ? value : stringify(value));
  const reply = (value) => '+' + stringify(value);
  const refuse = (error) => '-' + stringify(nameAndReason(error));

  // ---- Helpers

  const PARAMETERS =
    'emit,sum,log,toJSON,isArray,require,provides,registerType,start,send,getRow';

  const sum = (values) => {
    let total = 0;
    for (const i in values) total += values[i];
    return total;
  };

  const plain = (value) =>
    (value instanceof Error ? { error: value.name, message: value.message } : value);

  const log = (message) => {
    native.log(String(typeof message === 'string' ? message : stringify(plain(message))).toWellFormed());
  };

  const isArray = (value) => Array.isArray(value);

  // What the functions of one call share: modules, types and output. `emit` and `getRow` are given
  // by who makes the call.
  class Session {
    constructor({ emit = nothing, getRow = nothing } = {}) {
      this.emit = emit;
      this.getRow = getRow;
      this.modules = new Map();
      this.require = (path) => require(this, path, null);
      this.reset();
      this.provides = (type, render) => { this.renderers.push([type, render]); };
      this.registerType = (type, ...mimes) => { this.types.set(type, mimes); };
      this.start = (response) => { this.response = response || {}; };
      this.send = (chunk) => {
        this.chunks += chunk.toString();
        if (this.onChunk) this.onChunk();
      };
    }

    reset() {
      this.renderers = [];
      this.types = new Map(TYPES);
      this.mime = null;
      this.response = {};
      this.chunks = '';
    }

    instantiate(factory) {
      return apply(factory, undefined, [this.emit, sum, log, stringify, isArray, this.require,
        this.provides, this.registerType, this.start, this.send, this.getRow]);
    }

    takeChunks() {
      const { chunks } = this;
      this.chunks = '';
      return chunks;
    }
  }

  function nothing() {}

  // ---- Compilation

  // Makes a function of the helpers that returns the function of a source. The source stands between
  // brackets of both kinds once, so it cannot close either and go on outside.
  function factory(prefix, source) {
    evaluate(`(function(${PARAMETERS}){${prefix}\nreturn [${source}\n]})`);
    return evaluate(`(function(${PARAMETERS}){${prefix}\nreturn (${source}\n)})`);
  }

  const TAIL = /^(?:\s|;|\/\*(?:[^*]|\*(?!\/))*\*\/|\/\/[^\n]*(?:\n|$))*$/;

  // How a source may be meant, each as statements and an expression behind them. CouchDB takes an
  // expression with `;` and comments behind it, and statements before it.
  function* readings(source) {
    const expressions = [source];
    for (let at = source.length, tries = 0; at > 0 && tries < 32; tries += 1) {
      at = source.lastIndexOf(';', at - 1);
      if (at < 0) break;
      if (TAIL.test(source.slice(at))) expressions.push(source.slice(0, at));
    }
    for (const expression of expressions) yield ['', expression];
    for (const expression of expressions) {
      let tries = 0;
      for (const { index } of expression.matchAll(/\bfunction\b/g)) {
        if ((tries += 1) > 16) break;
        if (index > 0) yield [expression.slice(0, index), expression.slice(index)];
      }
    }
  }

  function compile(source) {
    let why = '';
    if (typeof source === 'string') {
      for (const [statements, expression] of readings(source)) {
        try {
          const make = factory(statements, expression);
          if (typeof new Session().instantiate(make) === 'function') return make;
          break;
        } catch (error) {
          // The first reading is what was most likely meant.
          why = why || `${describe(error)}. `;
          if (!(error instanceof SyntaxError)) break;
        } finally {
          clean();
        }
      }
    }
    const reason = `${why}Expression does not eval to a function. (${text(source)})`;
    throw failure('compilation_error', reason);
  }

  // ---- Modules

  let design = {};
  const compiledModules = new Map();

  // `from` is the path of what contains the module that asks; `null` for a function.
  function require(session, name, from) {
    const segments = String(name).split('/');
    const relative = segments[0] === '.' || segments[0] === '..';
    const path = relative ? from && from.slice() : [];
    for (const segment of segments) {
      if (segment === '.' || segment === '..') {
        if (!path || (segment === '..' && path.length === 0)) {
          throw failure('invalid_require_path', `Object has no parent ${name}`);
        }
        if (segment === '..') path.pop();
      } else if (segment !== '') {
        path.push(segment);
      }
    }
    let source = design;
    for (const segment of path) {
      if (typeof source !== 'object' || source === null || !Object.hasOwn(source, segment)) {
        throw failure('invalid_require_path',
          `Object has no property "${segment}". ${stringify(source)}`);
      }
      source = source[segment];
    }
    if (typeof source !== 'string') {
      throw failure('invalid_require_path',
        `Must require a JavaScript string, not: ${typeof source}`);
    }
    const id = path.join('/');
    let module = session.modules.get(id);
    if (module) return module.exports;
    module = { id, exports: {} };
    // Before it runs: who requires it meanwhile gets what there is of it.
    session.modules.set(id, module);
    const container = path.slice(0, -1);
    try {
      let run = compiledModules.get(id);
      if (!run) {
        run = evaluate(`(function(${PARAMETERS}){return function(module,exports,require){${source}\n}})`);
        compiledModules.set(id, run);
      }
      apply(session.instantiate(run), global,
        [module, module.exports, (other) => require(session, other, container)]);
    } catch (error) {
      session.modules.delete(id);
      if (Array.isArray(error)) throw error;
      throw failure('compilation_error', `Module require('${name}') raised error ${describe(error)}`);
    }
    return module.exports;
  }

  // ---- Types of responses

  const TYPES = [
    ['all', ['*/*']],
    ['text', ['text/plain; charset=utf-8', 'txt']],
    ['html', ['text/html; charset=utf-8']],
    ['xhtml', ['application/xhtml+xml', 'xhtml']],
    ['xml', ['application/xml', 'text/xml', 'application/x-xml']],
    ['js', ['text/javascript', 'application/javascript', 'application/x-javascript']],
    ['css', ['text/css']],
    ['ics', ['text/calendar']],
    ['csv', ['text/csv']],
    ['rss', ['application/rss+xml']],
    ['atom', ['application/atom+xml']],
    ['yaml', ['application/x-yaml', 'text/yaml']],
    ['multipart_form', ['multipart/form-data']],
    ['url_encoded_form', ['application/x-www-form-urlencoded']],
    ['json', ['application/json', 'text/x-json']],
  ];

  function readRange(range) {
    const [type, ...parameters] = range.split(';').map((part) => part.trim());
    const [main, sub = '*'] = type.toLowerCase().split('/');
    let quality = 1;
    for (const parameter of parameters) {
      const [name, value] = parameter.split('=');
      const number = name.trim() === 'q' ? parseFloat(value) : NaN;
      if (number >= 0 && number <= 1) quality = number;
    }
    return { main, sub, quality };
  }

  // How much a type is wanted: by quality, then by how closely it is named, then by order.
  function wish(mime, ranges) {
    const { main, sub } = readRange(mime);
    let best = { quality: 0, fit: -1 };
    for (const range of ranges) {
      const mainFits = range.main === main || range.main === '*' || main === '*';
      const subFits = range.sub === sub || range.sub === '*' || sub === '*';
      const fit = (range.main === main ? 2 : 0) + (range.sub === sub ? 1 : 0);
      if (mainFits && subFits && fit > best.fit) best = { quality: range.quality, fit };
    }
    return best;
  }

  // Picks a renderer by the request, and remembers the type it renders.
  function negotiate(session, request) {
    const { renderers, types } = session;
    const format = request.query && request.query.format;
    const accept = request.headers && request.headers.Accept;
    if (format) {
      const found = renderers.find(([type]) => type === format);
      if (!found || !types.has(format)) {
        throw failure('render_error', `the format option is set to '${format}' but ` +
          'there is no provider registered for that format.');
      }
      session.mime = types.get(format)[0];
      return found[1];
    }
    if (!accept) {
      const [type, render] = renderers[0];
      session.mime = (types.get(type) || [])[0];
      return render;
    }
    const ranges = accept.split(',').map(readRange);
    let best = { quality: 0, fit: -1 };
    for (const [type, render] of renderers) {
      for (const mime of types.get(type) || []) {
        const { quality, fit } = wish(mime, ranges);
        if (quality > best.quality || (quality > 0 && quality === best.quality && fit > best.fit)) {
          best = { quality, fit, mime, render };
        }
      }
    }
    if (!best.render) {
      const known = renderers.map(([type]) => (types.get(type) || [type]).join(', ')).join(', ');
      throw failure('not_acceptable',
        `Content-Type(s) ${accept} not supported, try one of: ${known}`);
    }
    session.mime = best.mime;
    return best.render;
  }

  // ---- Responses

  const isResponse = (value) =>
    typeof value === 'string' || (typeof value === 'object' && value !== null && !Array.isArray(value));

  const wrap = (value) => (typeof value === 'string' ? { body: value } : value);

  function withType(session, response) {
    response.headers = response.headers || {};
    if (session.mime && !response.headers['Content-Type']) {
      response.headers['Content-Type'] = session.mime;
    }
    return response;
  }

  function show(session, render, doc, request) {
    let response = wrap(apply(render, design, [doc, request]) || {});
    if (session.chunks !== '') {
      const { response: begun } = session;
      const body = session.takeChunks() + (response.body || '');
      response = { ...begun, ...response, headers: { ...begun.headers, ...response.headers }, body };
    }
    if (session.renderers.length > 0) {
      const provided = wrap(apply(negotiate(session, request), design, []) || {});
      if (!isResponse(response)) response = {};
      const body = (response.body || '') + session.takeChunks() + (provided.body || '');
      response = withType(session, { ...provided, ...response, body });
      if (provided.base64 !== undefined) delete response.body;
    }
    if (!isResponse(response)) {
      throw failure('render_error', 'undefined response from show function');
    }
    return response;
  }

  // ---- What Rust calls

  // The function at a path of the design document, compiled once.
  const compiled = new Map();
  function functionAt(path) {
    const id = stringify(path);
    let make = compiled.get(id);
    if (!make) {
      let source = design;
      for (const segment of path) {
        source = typeof source === 'object' && source !== null && Object.hasOwn(source, segment)
          ? source[segment] : undefined;
      }
      if (source === undefined || source === null || source === '') {
        throw failure('not_found',
          `missing ${path[0].replace(/s$/, '')} function ${path[1] || path[0]} on design doc ${design._id}`);
      }
      make = compile(source);
      compiled.set(id, make);
    }
    return make;
  }

  // Calls `run` with a new session, and makes a reply of what it returns or throws.
  function answer(path, run, around) {
    try {
      const session = new Session(around);
      const made = functionAt(path);
      return reply(run(session, session.instantiate(made)));
    } catch (error) {
      return refuse(error);
    } finally {
      clean();
    }
  }

  let rows = [];
  let emitted = false;
  let session;
  let factories = [];
  const mapSession = () => new Session({ emit(key, value) { rows.push(key, plain(value)); } });
  const filterSession = () => new Session({ emit() { emitted = true; } });

  lockGlobals();
  const host = {
    isClean,

    setDesign(value) { design = deepFreeze(value); },

    // Map and reduce functions are known by number.
    load(sources) {
      try {
        factories = sources.map(compile);
        return '+';
      } catch (error) {
        return refuse(error);
      }
    },

    compile(path) {
      try {
        functionAt(path);
        return '+';
      } catch (error) {
        return refuse(error);
      }
    },

    beginMap() { session = mapSession(); },

    freeze: deepFreeze,

    map(number, doc) {
      rows = [];
      try {
        session.instantiate(factories[number])(doc);
        return stringify(rows);
      } catch (error) {
        return '-' + describe(error).toWellFormed();
      } finally {
        rows = [];
        clean();
      }
    },

    reduce(keys, values) {
      try {
        const reduced = new Session().instantiate(factories[0])(keys, values, keys === null);
        return '+' + (stringify(plain(reduced)) ?? 'null');
      } catch (error) {
        return refuse(error);
      } finally {
        clean();
      }
    },

    // Filters and validation come in batches: one session, a new instance for each document.
    beginFilter(path) {
      session = filterSession();
      try {
        factories = [functionAt(path)];
        return '+';
      } catch (error) {
        return refuse(error);
      }
    },

    filter(doc, request) {
      try {
        return apply(session.instantiate(factories[0]), design, [doc, request]) ? '+1' : '+0';
      } catch (error) {
        return refuse(error);
      } finally {
        clean();
      }
    },

    filterView(doc) {
      emitted = false;
      try {
        session.instantiate(factories[0])(doc);
        return emitted ? '+1' : '+0';
      } catch (error) {
        return refuse(error);
      } finally {
        clean();
      }
    },

    validate(newDoc, oldDoc, user, security) {
      try {
        apply(session.instantiate(factories[0]), design, [newDoc, oldDoc, user, security]);
        return '+';
      } catch (error) {
        return refuse(error);
      } finally {
        clean();
      }
    },

    show(name, doc, request) {
      return answer(['shows', name], (session, render) => {
        try {
          return show(session, render, doc, request);
        } catch (error) {
          if (doc === null && request.path && request.path.length > 5) {
            throw failure('not_found', 'document not found');
          }
          throw error;
        }
      });
    },

    update(name, doc, request) {
      return answer(['updates', name], (session, update) => {
        if (request.method === 'GET') {
          throw failure('method_not_allowed', 'Update functions do not allow GET');
        }
        const result = apply(update, design, [doc, request]);
        const [newDoc, response] = Array.isArray(result) ? result : [];
        if (!isResponse(response)) {
          throw failure('render_error', 'undefined response from update function');
        }
        return [newDoc, wrap(response)];
      });
    },

    rewrite(request) {
      return answer(['rewrites'], (session, rewrite) => {
        const result = apply(rewrite, design, [request]);
        if (!result) return null;
        return typeof result === 'string' ? { path: result, method: request.method } : result;
      });
    },

    list(name, head, request) {
      let started = false;
      let ended = false;
      let session;
      // The head goes out with the first output: until then the function may still set it.
      const flush = (end) => {
        if (!started && (end || session.chunks !== '')) {
          started = true;
          native.start(stringify(withType(session, { ...session.response })));
        }
        if (session.chunks !== '') native.send(session.takeChunks().toWellFormed());
      };
      const getRow = () => {
        if (ended) return null;
        flush(false);
        const row = native.row();
        if (row == null) {
          ended = true;
          return null;
        }
        return parse(row);
      };
      return answer(['lists', name], (made, list) => {
        session = made;
        session.onChunk = () => { if (session.chunks.length > 65536) flush(false); };
        let tail = apply(list, design, [head, request]);
        if (session.renderers.length > 0) tail = apply(negotiate(session, request), design, []);
        if (tail !== undefined) session.chunks += typeof tail === 'string' ? tail : String(tail);
        flush(true);
        return null;
      }, { getRow });
    },
  };
  globals = keys(global).length;
  allGlobals = ownKeys(global).length;
  return host;
})
