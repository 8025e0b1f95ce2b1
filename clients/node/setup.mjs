// Where the server is, and fresh names for databases on it.
import { randomUUID } from 'node:crypto';

export const base = process.env.SETTEE_URL;
export const auth = { username: process.env.SETTEE_NAME, password: process.env.SETTEE_PASSWORD };

const url = new URL(base);
url.username = auth.username;
url.password = auth.password;

/** The server's address with the credentials in it. */
export const fullUrl = url.href.replace(/\/$/, '');

/** A database name that nobody has used. */
export const freshName = (prefix) => `${prefix}-${randomUUID()}`;

/** Waits until `done` returns something true, at most ten seconds or `limit` milliseconds. */
export async function until(done, limit = 10_000) {
  const end = Date.now() + limit;
  for (;;) {
    const value = await done();
    if (value) return value;
    if (Date.now() > end) throw new Error(`waited ${limit} ms for ${done}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
