// nano: CouchDB's own client for Node.
import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import Nano from 'nano';
import { base, auth, freshName, fullUrl } from './setup.mjs';

let server;
let name;
let db;

beforeEach(async () => {
  server = Nano(fullUrl);
  name = freshName('nano');
  await server.db.create(name);
  db = server.use(name);
});

afterEach(async () => {
  await server.db.destroy(name).catch(() => {});
});

const fails = (promise, statusCode, error) =>
  assert.rejects(promise, (e) => {
    assert.equal(e.statusCode, statusCode);
    assert.equal(e.error, error);
    return true;
  });

test('databases are created, described, listed and destroyed', async () => {
  await fails(server.db.create(name), 412, 'file_exists');
  const info = await server.db.get(name);
  assert.equal(info.db_name, name);
  assert.equal(info.doc_count, 0);
  assert.ok((await server.db.list()).includes(name));
  assert.equal((await server.db.destroy(name)).ok, true);
  await fails(server.db.get(name), 404, 'not_found');
});

test('documents are inserted, read, updated and destroyed', async () => {
  const first = await db.insert({ crazy: true }, 'rabbit');
  assert.equal(first.ok, true);
  assert.match(first.rev, /^1-[0-9a-f]{32}$/);
  await fails(db.insert({ crazy: false }, 'rabbit'), 409, 'conflict');
  const second = await db.insert({ _rev: first.rev, crazy: false }, 'rabbit');
  const doc = await db.get('rabbit', { revs_info: true });
  assert.equal(doc.crazy, false);
  assert.deepEqual(doc._revs_info.map((r) => r.rev), [second.rev, first.rev]);
  const head = await db.head('rabbit');
  assert.equal(head.etag, `"${second.rev}"`);
  await db.destroy('rabbit', second.rev);
  await assert.rejects(db.get('rabbit'), { statusCode: 404, reason: 'deleted' });
});

test('bulk, fetch and list work on many documents', async () => {
  const docs = Array.from({ length: 100 }, (_, n) => ({ _id: `doc${String(n).padStart(3, '0')}`, n }));
  const results = await db.bulk({ docs });
  assert.equal(results.length, 100);
  assert.ok(results.every((result) => result.ok));
  const fetched = await db.fetch({ keys: ['doc007', 'nope', 'doc003'] });
  assert.deepEqual(fetched.rows.map((row) => row.error ?? row.doc.n), [7, 'not_found', 3]);
  const revs = await db.fetchRevs({ keys: ['doc007'] });
  assert.equal(revs.rows[0].value.rev, results[7].rev);
  const listed = await db.list({ startkey: 'doc010', endkey: 'doc019', include_docs: true });
  assert.deepEqual(listed.rows.map((row) => row.doc.n), [10, 11, 12, 13, 14, 15, 16, 17, 18, 19]);
  const down = await db.list({ descending: true, limit: 2, skip: 1 });
  assert.deepEqual(down.rows.map((row) => row.id), ['doc098', 'doc097']);
});

test('attachments go in and out, also as parts of one request', async () => {
  const bytes = Buffer.from(Array.from({ length: 70_000 }, (_, n) => n % 251));
  const put = await db.attachment.insert('rab', 'rabbit.bin', bytes, 'application/octet-stream');
  assert.equal(put.ok, true);
  assert.deepEqual(await db.attachment.get('rab', 'rabbit.bin'), bytes);
  await db.multipart.insert(
    { foo: 'bar' },
    [
      { name: 'one.txt', data: 'first', content_type: 'text/plain' },
      { name: 'two.bin', data: bytes, content_type: 'application/octet-stream' },
    ],
    'multi',
  );
  const doc = await db.get('multi');
  assert.equal(doc.foo, 'bar');
  assert.equal(doc._attachments['two.bin'].length, bytes.length);
  assert.deepEqual(await db.attachment.get('multi', 'two.bin'), bytes);
  assert.equal((await db.attachment.get('multi', 'one.txt')).toString(), 'first');
  const whole = await db.multipart.get('multi');
  assert.ok(whole.includes(bytes), 'the parts hold the bytes as they are stored');
  const gone = await db.attachment.destroy('rab', 'rabbit.bin', { rev: put.rev });
  assert.equal(gone.ok, true);
  await assert.rejects(db.attachment.get('rab', 'rabbit.bin'), { statusCode: 404 });
});

test('changes are listed and followed', async () => {
  await db.bulk({ docs: [{ _id: 'a' }, { _id: 'b' }] });
  const changes = await db.changes({ since: 0 });
  assert.deepEqual(changes.results.map((change) => change.id), ['a', 'b']);
  assert.equal(changes.pending, 0);
  const seen = [];
  const followed = new Promise((resolve, reject) => {
    db.changesReader
      .start({ since: changes.last_seq, wait: false, timeout: 5000 })
      .on('change', (change) => {
        seen.push(change.id);
        if (seen.length === 2) resolve();
      })
      .on('error', reject);
  });
  await db.insert({}, 'c');
  await db.insert({}, 'd');
  await followed;
  db.changesReader.stop();
  assert.deepEqual(seen, ['c', 'd']);
});

test('a session by cookie does what the password does', async () => {
  const client = Nano(base);
  await fails(client.auth(auth.username, 'wrong'), 401, 'unauthorized');
  await client.auth(auth.username, auth.password);
  const { userCtx } = await client.session();
  assert.equal(userCtx.name, auth.username);
  assert.ok(userCtx.roles.includes('_admin'));
});

test('the server answers for itself', async () => {
  const info = await server.info();
  assert.equal(info.couchdb, 'Welcome');
  assert.match(info.version, /^3\.5/);
  assert.equal((await server.uuids(3)).uuids.length, 3);
  const updates = await server.updates({ timeout: 100, since: 0 });
  assert.ok(updates.results.some((update) => update.db_name === name));
});
