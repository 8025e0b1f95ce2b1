// Measures PouchDB on leveldb: node pouchdb.mjs DIRECTORY DOCUMENTS SERVER. Prints figures as JSON.
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import PouchDB from 'pouchdb';

const [dir, count] = [process.argv[2], Number(process.argv[3])];
const figures = {};

// The same documents as the other subjects write.
const id = (n) => BigInt.asUintN(64, (BigInt(n) + 1n) * 0x9e3779b97f4a7c15n).toString(16).padStart(16, '0');
function doc(n) {
  const body = { _id: id(n), type: 'person', name: `John Doe ${n}`, number: n, tags: ['a', 'b', 'c'], score: 1.5, text: '' };
  const missing = 300 - JSON.stringify(body).length;
  return { ...body, text: 'abcdefghijklmnopqrstuvwxyz'.repeat(20).slice(0, Math.max(missing, 0)) };
}

async function measure(name, amount, work) {
  const began = process.hrtime.bigint();
  await work();
  figures[name] = amount / (Number(process.hrtime.bigint() - began) / 1e9);
}

const single = new PouchDB(join(dir, 'single'));
const bulk = new PouchDB(join(dir, 'bulk'));
await measure('singlePut', 2000, async () => {
  for (let n = 0; n < 2000; n++) await single.put(doc(n));
});
await measure('manyWriters', 64 * 50, () =>
  Promise.all(Array.from({ length: 64 }, async (_, writer) => {
    for (let n = 0; n < 50; n++) await single.put(doc((writer + 1) * 10_000 + n));
  })));
await measure('sameDocument', 300, async () => {
  let _rev;
  for (let n = 0; n < 300; n++) _rev = (await single.put({ _id: 'same', _rev, number: n })).rev;
});
const docs = Array.from({ length: count }, (_, n) => doc(n));
const json = docs.reduce((sum, each) => sum + JSON.stringify(each).length, 0);
await measure('bulk', count, async () => {
  for (let n = 0; n < count; n += 1000) await bulk.bulkDocs(docs.slice(n, n + 1000));
});
const gets = Math.min(count, 20_000);
await measure('get', gets, async () => {
  for (let n = 0; n < gets; n++) await bulk.get(id((n * 7919) % count));
});
await measure('allDocs', count, () => bulk.allDocs());
await measure('allDocsWithDocs', count, () => bulk.allDocs({ include_docs: true }));
await measure('changes', count, () => bulk.changes());
await measure('changesWithDocs', count, () => bulk.changes({ include_docs: true }));
await bulk.compact();
const usage = (path) =>
  readdirSync(path, { withFileTypes: true }).reduce(
    (sum, entry) => sum + (entry.isDirectory() ? usage(join(path, entry.name)) : statSync(join(path, entry.name)).size), 0);
figures.disk = usage(join(dir, 'bulk')) / json;
// To a database beside it, to a server, and back. Batches of 1,000, which suits it better than the
// usual 100.
const server = process.argv[4];
for (const [name, source, target] of [
  ['replicate', bulk, new PouchDB(join(dir, 'copy'))],
  ['replicateTo', bulk, new PouchDB(`${server}/pushed`)],
  ['replicateFrom', new PouchDB(`${server}/pushed`), new PouchDB(join(dir, 'pulled'))],
]) {
  await measure(name, count, async () => {
    const { docs_written } = await PouchDB.replicate(source, target, { batch_size: 1000 });
    if (docs_written !== count) throw new Error(`${docs_written} documents written of ${count}`);
  });
  await target.close();
}
// Views, of a tenth of the documents: it takes its time.
const few = Math.ceil(count / 10);
const viewed = new PouchDB(join(dir, 'viewed'));
for (let n = 0; n < few; n += 1000) await viewed.bulkDocs(docs.slice(n, Math.min(n + 1000, few)));
await viewed.put({ _id: '_design/names', views: { names: { map: 'function(doc) { emit(doc.name, 1) }' } } });
await viewed.put({
  _id: '_design/numbers',
  views: { numbers: { map: 'function(doc) { emit([doc.number % 1000, doc.number], doc.number) }', reduce: '_sum' } },
});
await measure('viewBuild', few, () => viewed.query('names', { limit: 1 }));
const indexes = readdirSync(dir).filter((name) => name.startsWith('viewed-mrview-'));
figures.viewSize = indexes.reduce((sum, name) => sum + usage(join(dir, name)), 0) / few;
await measure('viewUpdate', 50, async () => {
  for (let n = few; n < few + 50; n++) {
    await viewed.put(doc(n));
    const { rows } = await viewed.query('names', { key: `John Doe ${n}` });
    if (rows.length !== 1) throw new Error(`${rows.length} rows`);
  }
});
await viewed.query('numbers');
await measure('viewGroups', 5, async () => {
  for (let n = 0; n < 5; n++) await viewed.query('numbers', { group_level: 1 });
});
await measure('viewRange', 5, async () => {
  for (let n = 0; n < 5; n++) await viewed.query('numbers', { startkey: [n, 0], endkey: [n + 333, 0] });
});
await measure('viewSkip', 5, async () => {
  for (let n = 0; n < 5; n++) await viewed.query('names', { skip: Math.floor(few / 2) + n, limit: 1 });
});
await viewed.close();
await single.close();
await bulk.close();
console.log(JSON.stringify(figures));
