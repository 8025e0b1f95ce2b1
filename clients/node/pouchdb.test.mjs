// PouchDB: over HTTP, and replicating with a database of its own, which it drives.
import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import PouchDB from 'pouchdb';
import memory from 'pouchdb-adapter-memory';
import { auth, base, freshName, until } from './setup.mjs';

PouchDB.plugin(memory);

let name;
let remote;
let local;

beforeEach(() => {
  name = freshName('pouch');
  remote = new PouchDB(`${base}/${name}`, { auth });
  local = new PouchDB(name, { adapter: 'memory' });
});

afterEach(async () => {
  await local.destroy();
  await remote.destroy();
});

test('documents live over HTTP', async () => {
  const put = await remote.put({ _id: 'a', n: 1 });
  assert.match(put.rev, /^1-/);
  await assert.rejects(remote.put({ _id: 'a', n: 2 }), { status: 409, name: 'conflict' });
  const doc = await remote.get('a');
  doc.n = 2;
  await remote.put(doc);
  const read = await remote.get('a', { revs: true, revs_info: true, conflicts: true });
  assert.equal(read.n, 2);
  assert.equal(read._revisions.ids.length, 2);
  await remote.remove(read);
  await assert.rejects(remote.get('a'), { status: 404, reason: 'deleted' });
  const posted = await remote.post({ n: 3 });
  assert.equal((await remote.get(posted.id)).n, 3);
  const info = await remote.info();
  assert.equal(info.doc_count, 1);
});

test('bulk reads and writes answer one by one', async () => {
  const docs = Array.from({ length: 50 }, (_, n) => ({ _id: `d${n}`, n }));
  const written = await remote.bulkDocs(docs);
  assert.ok(written.every((result) => result.ok));
  const again = await remote.bulkDocs([{ _id: 'd1' }, { _id: 'new' }]);
  assert.equal(again[0].status, 409);
  assert.equal(again[1].ok, true);
  const got = await remote.bulkGet({ docs: [{ id: 'd3', rev: written[3].rev }, { id: 'nope', rev: '1-a' }] });
  assert.equal(got.results[0].docs[0].ok.n, 3);
  assert.equal(got.results[1].docs[0].error.error, 'not_found');
  const listed = await remote.allDocs({ keys: ['d2', 'nope'], include_docs: true });
  assert.equal(listed.rows[0].doc.n, 2);
  assert.equal(listed.rows[1].error, 'not_found');
  const diff = await remote.revsDiff({ d3: [written[3].rev, '2-abc'], other: ['1-x'] });
  assert.deepEqual(diff.d3.missing, ['2-abc']);
  assert.deepEqual(diff.other.missing, ['1-x']);
});

test('attachments keep their bytes', async () => {
  const bytes = Buffer.from(Array.from({ length: 300_000 }, (_, n) => (n * 7) % 256));
  await remote.putAttachment('doc', 'a/b c.bin', bytes, 'application/octet-stream');
  assert.ok(bytes.equals(await remote.getAttachment('doc', 'a/b c.bin')));
  const doc = await remote.get('doc', { attachments: true, binary: true });
  assert.ok(bytes.equals(doc._attachments['a/b c.bin'].data));
  await remote.removeAttachment('doc', 'a/b c.bin', doc._rev);
  await assert.rejects(remote.getAttachment('doc', 'a/b c.bin'), { status: 404 });
});

test('a live feed brings changes as they happen', async () => {
  const seen = [];
  const feed = remote.changes({ live: true, since: 'now', include_docs: true });
  feed.on('change', (change) => seen.push([change.id, change.doc.n]));
  await new Promise((resolve) => setTimeout(resolve, 200));
  await remote.put({ _id: 'x', n: 1 });
  await remote.put({ _id: 'y', n: 2 });
  await until(() => seen.length === 2);
  feed.cancel();
  assert.deepEqual(seen, [['x', 1], ['y', 2]]);
  const some = await remote.changes({ doc_ids: ['y'] });
  assert.deepEqual(some.results.map((change) => change.id), ['y']);
  const selected = await remote.changes({ selector: { n: { $gt: 1 } }, filter: '_selector' });
  assert.deepEqual(selected.results.map((change) => change.id), ['y']);
});

/** Everything a database holds: each leaf of each document, with its attachments' digests. */
async function contents(db) {
  const all = new Map();
  const changes = await db.changes({ style: 'all_docs' });
  const leaves = changes.results.flatMap(({ id, changes: revs }) => revs.map(({ rev }) => ({ id, rev })));
  for (let at = 0; at < leaves.length; at += 500) {
    const { results } = await db.bulkGet({ docs: leaves.slice(at, at + 500), attachments: true });
    for (const { id, docs } of results) {
      for (const { ok, error } of docs) {
        assert.equal(error, undefined, `${id}: ${JSON.stringify(error)}`);
        // The digest is of the bytes as stored, which for text differs between the two.
        const attachments = Object.entries(ok._attachments ?? {}).map(([key, { data }]) => [key, data]);
        attachments.sort();
        all.set(`${id} ${ok._rev}`, JSON.stringify({ ...ok, _attachments: attachments }, Object.keys({ ...ok, _attachments: 1 }).sort()));
      }
    }
  }
  return all;
}

test('live replication both ways ends equal: 5,000 documents, attachments, conflicts, deletions', { timeout: 300_000 }, async () => {
  const sync = local.sync(remote, { live: true, retry: true, batch_size: 250 });
  const failed = new Promise((_, reject) => sync.on('error', reject).on('denied', reject));
  const work = (async () => {
    const text = Buffer.from('some text that is long enough to be compressed '.repeat(20));
    const side = (n) => (n % 2 ? local : remote);
    for (const parity of [0, 1]) {
      for (let start = parity; start < 5000; start += 500) {
        const docs = [];
        for (let n = start; n < Math.min(start + 500, 5000); n += 2) {
          const doc = { _id: `doc-${String(n).padStart(5, '0')}`, n, text: 'x'.repeat(n % 300) };
          if (n % 10 < 2) {
            doc._attachments = {
              'data.bin': { content_type: 'application/octet-stream', data: Buffer.alloc(100 + n, n % 256) },
              'note.txt': { content_type: 'text/plain', data: text },
            };
          }
          docs.push(doc);
        }
        const results = await side(parity).bulkDocs(docs);
        assert.ok(results.every((result) => result.ok), JSON.stringify(results.find((result) => !result.ok)));
      }
    }
    const count = async (db) => (await db.info()).doc_count;
    await until(async () => (await count(local)) === 5000 && (await count(remote)) === 5000, 200_000);

    // The same edits on both sides at once, so that they conflict; then deletions.
    sync.cancel();
    for (const [db, mark] of [[local, 'here'], [remote, 'there']]) {
      const { rows } = await db.allDocs({ include_docs: true, startkey: 'doc-01000', endkey: 'doc-01199' });
      await db.bulkDocs(rows.map(({ doc }) => ({ ...doc, mark })));
    }
    const { rows: gone } = await local.allDocs({ startkey: 'doc-02000', endkey: 'doc-02499' });
    await local.bulkDocs(gone.map(({ id, value }) => ({ _id: id, _rev: value.rev, _deleted: true })));
    const { rows: later } = await remote.allDocs({ startkey: 'doc-03000', endkey: 'doc-03099' });
    for (const { id, value } of later.slice(0, 20)) await remote.remove(id, value.rev);

    const end = await local.sync(remote, { batch_size: 250 });
    assert.deepEqual([end.push.errors, end.pull.errors], [[], []]);
    assert.deepEqual([end.push.doc_write_failures, end.pull.doc_write_failures], [0, 0]);
  })();
  await Promise.race([work, failed]);

  const [here, there] = [await contents(local), await contents(remote)];
  assert.equal(here.size, there.size);
  for (const [key, value] of here) assert.equal(there.get(key), value, key);
  assert.ok(here.size > 5000 + 150, 'there are conflicts');
  const winner = await local.get('doc-01000', { conflicts: true });
  const other = await remote.get('doc-01000', { conflicts: true });
  assert.equal(winner._conflicts.length, 1);
  assert.deepEqual([other._rev, other._conflicts], [winner._rev, winner._conflicts]);
});

test('replication resumes from its checkpoint', async () => {
  await remote.bulkDocs(Array.from({ length: 300 }, (_, n) => ({ _id: `a${n}` })));
  const first = await local.replicate.from(remote, { batch_size: 50 });
  assert.equal(first.docs_written, 300);
  await remote.put({ _id: 'one-more' });
  const second = await local.replicate.from(remote, { batch_size: 50 });
  assert.equal(second.docs_read, 1);
  assert.equal((await local.replicate.to(remote)).docs_written, 0);
});

test('a database that is gone says so', async () => {
  const gone = new PouchDB(`${base}/${freshName('gone')}`, { auth, skip_setup: true });
  await assert.rejects(gone.get('x'), { status: 404 });
});
