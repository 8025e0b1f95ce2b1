// PouchDB's replicator against the server, a document with an attachment at a time many thousand
// times, in either direction. SETTEE_PEER_DOCS says how many; 2,000 if it does not.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import PouchDB from 'pouchdb';
import memory from 'pouchdb-adapter-memory';
import { auth, base, freshName } from './setup.mjs';

PouchDB.plugin(memory);

const count = Number(process.env.SETTEE_PEER_DOCS ?? 2000);
const id = (n) => `doc-${String(n).padStart(6, '0')}`;
const name = (n) => (n % 3 ? 'data.bin' : 'note.txt');
const bytes = (n) => (n % 3 ? Buffer.alloc(20 + (n % 400), n % 251) : Buffer.from(`note ${n} `.repeat(30)));
const doc = (n) => ({
  _id: id(n),
  n,
  _attachments: {
    [name(n)]: { content_type: n % 3 ? 'application/octet-stream' : 'text/plain', data: bytes(n) },
  },
});

async function fill(db) {
  for (let from = 0; from < count; from += 500) {
    const docs = Array.from({ length: Math.min(500, count - from) }, (_, n) => doc(from + n));
    const results = await db.bulkDocs(docs);
    assert.ok(results.every((result) => result.ok));
  }
}

/** That every document is there, in the same revision, and every attachment with its bytes. */
async function same(db, other) {
  const [here, there] = await Promise.all([db.allDocs(), other.allDocs()]);
  assert.equal(there.rows.length, count);
  assert.deepEqual(there.rows, here.rows);
  for (let from = 0; from < count; from += 500) {
    const docs = there.rows.slice(from, from + 500).map(({ id, value }) => ({ id, rev: value.rev }));
    const { results } = await other.bulkGet({ docs, attachments: true });
    for (const { docs: [{ ok }] } of results) {
      const data = ok._attachments[name(ok.n)].data;
      assert.equal(data, bytes(ok.n).toString('base64'), ok._id);
    }
  }
}

for (const direction of ['push', 'pull']) {
  test(`${direction} of ${count} documents with attachments`, { timeout: 3_600_000 }, async () => {
    const database = freshName(direction);
    const remote = new PouchDB(`${base}/${database}`, { auth });
    const local = new PouchDB(database, { adapter: 'memory' });
    const [source, target] = direction === 'push' ? [local, remote] : [remote, local];
    await fill(source);
    const began = Date.now();
    const result = await PouchDB.replicate(source, target, { batch_size: 500 });
    const rate = Math.round(count / ((Date.now() - began) / 1000));
    console.log(`${direction}: ${count} documents with attachments, ${rate} a second`);
    assert.deepEqual([result.ok, result.docs_written, result.errors], [true, count, []]);
    await same(source, target);
    assert.equal((await PouchDB.replicate(source, target)).docs_written, 0);
    await Promise.all([local.destroy(), remote.destroy()]);
  });
}
