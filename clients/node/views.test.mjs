// Views and functions of design documents, through PouchDB. What it answers of a database of its own
// with the same documents is what the server must answer.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import PouchDB from 'pouchdb';
import memory from 'pouchdb-adapter-memory';
import { auth, base, freshName } from './setup.mjs';

PouchDB.plugin(memory);

const name = freshName('views');
let remote;
let local;

const design = {
  _id: '_design/d',
  views: {
    kinds: { map: 'function (doc) { if (doc.kind) emit([doc.kind, doc.n], doc.n); }', reduce: '_stats' },
    counts: { map: 'function (doc) { emit(doc.kind, 1); }', reduce: '_count' },
    own: {
      map: 'function (doc) { emit(doc.kind, doc.n || 0); }',
      reduce: 'function (keys, values) { return Math.max.apply(null, values); }',
    },
    mixed: {
      map: `function (doc) {
        emit(null, 0); emit(false, 0); emit(true, 0); emit(doc.n || 0, 0); emit(doc._id, 0);
        emit([doc.kind], 0); emit({ k: doc.kind }, 0);
      }`,
    },
    links: { map: 'function (doc) { if (doc.to) emit(doc._id, { _id: doc.to }); }' },
    throws: { map: 'function (doc) { if (doc.n % 2) throw new Error("odd"); emit(doc.n); }' },
  },
  shows: { hello: 'function (doc, req) { return "Hello " + (doc ? doc.kind : req.query.who); }' },
  lists: {
    keys: `function (head, req) {
      start({ headers: { 'Content-Type': 'text/plain' } });
      var row, keys = [];
      while (row = getRow()) keys.push(row.key);
      return keys.join();
    }`,
  },
  updates: { touch: 'function (doc, req) { doc.touched = req.body; return [doc, "touched " + doc._id]; }' },
  filters: { even: 'function (doc, req) { return doc.n % 2 === Number(req.query.rest || 0); }' },
};

const docs = Array.from({ length: 60 }, (_, n) => ({
  _id: `doc-${String(n).padStart(2, '0')}`,
  n,
  kind: ['apple', 'banana', 'cherry', 'damson'][n % 4],
  to: n % 5 === 0 ? `doc-${String((n + 1) % 60).padStart(2, '0')}` : undefined,
}));

before(async () => {
  remote = new PouchDB(`${base}/${name}`, { auth });
  local = new PouchDB(name, { adapter: 'memory' });
  for (const db of [remote, local]) {
    await db.put({ ...design });
    await db.bulkDocs(docs.map((doc) => ({ ...doc })));
  }
});

after(async () => {
  await local.destroy();
  await remote.destroy();
});

// Keys are lower-case letters: of others PouchDB has an order of its own, which is not CouchDB's.
for (const [view, options] of [
  ['kinds', { reduce: false }],
  ['kinds', {}],
  ['kinds', { group: true, limit: 7, skip: 3 }],
  ['kinds', { group_level: 1, descending: true }],
  ['kinds', { reduce: false, startkey: ['cherry'], endkey: ['cherry', {}] }],
  ['kinds', { reduce: false, startkey: ['cherry', 30], endkey: ['cherry', 10], descending: true }],
  ['kinds', { reduce: false, startkey: ['apple', 4], endkey: ['apple', 12], inclusive_end: false }],
  ['counts', { group: true }],
  ['counts', { key: 'apple' }],
  ['counts', { keys: ['cherry', 'none', 'apple'], group: true }],
  ['counts', { keys: ['cherry', 'none', 'apple'], reduce: false }],
  ['own', { group: true }],
  ['own', {}],
  ['mixed', { limit: 200 }],
  ['mixed', { startkey: 'doc-5', endkey: ['a'] }],
  ['mixed', { key: { k: 'apple' } }],
  ['mixed', { skip: 400, limit: 10 }],
  ['links', { include_docs: true }],
  ['links', { include_docs: true, key: 'doc-10' }],
  ['throws', {}],
]) {
  test(`${view} ${JSON.stringify(options)} is what PouchDB answers by itself`, async () => {
    const [there, here] = [await remote.query(`d/${view}`, options), await local.query(`d/${view}`, options)];
    const plain = ({ id, key, value, doc, error }) => ({ id, key, value, error, doc: doc && { ...doc, _rev: undefined } });
    assert.deepEqual(there.rows.map(plain), here.rows.map(plain));
    assert.equal(there.total_rows, here.total_rows);
  });
}

test('a view sees what was written before it was asked, and cleans up', async () => {
  const { rev } = await remote.put({ _id: 'late', kind: 'late', n: 99 });
  assert.equal((await remote.query('d/counts', { key: 'late' })).rows[0].value, 1);
  await remote.remove('late', rev);
  assert.equal((await remote.query('d/counts', { key: 'late' })).rows.length, 0);
  assert.deepEqual(await remote.viewCleanup(), { ok: true });
  await assert.rejects(remote.query('d/none'), { status: 404 });
  await assert.rejects(remote.query('none/none'), { status: 404 });
});

test('temporary views are for administrators', async () => {
  const reply = await remote.fetch('_temp_view', {
    method: 'POST',
    headers: new Headers({ 'Content-Type': 'application/json' }),
    body: JSON.stringify({ map: 'function (doc) { if (doc.n < 3) emit(doc.n); }' }),
  });
  assert.deepEqual((await reply.json()).rows.map((row) => row.key), [0, 1, 2]);
});

test('shows, lists and updates answer', async () => {
  const text = async (path, options) => {
    const reply = await remote.fetch(path, options);
    assert.ok(reply.ok, `${path}: ${reply.status}`);
    return reply.text();
  };
  assert.equal(await text('_design/d/_show/hello/doc-01'), 'Hello banana');
  assert.equal(await text('_design/d/_show/hello?who=Ada'), 'Hello Ada');
  assert.equal(await text('_design/d/_list/keys/counts?reduce=false&limit=2'), 'apple,apple');
  assert.equal(await text('_design/d/_update/touch/doc-07', { method: 'PUT', body: 'gently' }), 'touched doc-07');
  assert.equal((await remote.get('doc-07')).touched, 'gently');
});

test('a filter function chooses what is replicated', async () => {
  const target = new PouchDB(`${name}-even`, { adapter: 'memory' });
  const result = await target.replicate.from(remote, { filter: 'd/even', query_params: { rest: 1 } });
  assert.equal(result.docs_written, 30);
  const rows = (await target.allDocs({ include_docs: true })).rows;
  assert.ok(rows.every(({ doc }) => doc.n % 2 === 1));
  await target.destroy();
});
