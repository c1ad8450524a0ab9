// Requests to the API. The browser sends the session's cookie by itself; answers are asked for in the page's language.

import { language, say } from "./dom.js";

export const API = "/api/v1";

// What the API says is wrong (RFC 9457), or that it did not answer at all: then status is 0.
export class Problem extends Error {
  constructor(status, body) {
    super(body?.detail ?? (status ? String(status) : say("connection_lost")));
    this.status = status;
    this.code = body?.code ?? null;
    this.field = body?.field ?? null;
  }
}

let signedOut = () => {};

// To be called once the session has ended, whoever notices it first.
export function whenSignedOut(act) {
  signedOut = act;
}

export async function call(method, path, { json, key, signal, signingIn = false } = {}) {
  const headers = { Accept: "application/json", "Accept-Language": language };
  if (json !== undefined) headers["Content-Type"] = "application/json";
  if (key) headers["Idempotency-Key"] = key;
  const body = json === undefined ? undefined : JSON.stringify(json);
  let answer;
  try {
    answer = await fetch(API + path, { method, headers, body, signal, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, null);
  }
  const read = answer.status === 204 ? null : await answer.json().catch(() => null);
  if (answer.ok) return read;
  const problem = new Problem(answer.status, read);
  if (answer.status === 401 && !signingIn) signedOut();
  throw problem;
}

// A page of a list: only what is given goes into the query.
export function list(path, query) {
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return call("GET", `${path}?${new URLSearchParams(given)}`);
}

// crypto.randomUUID is there only on HTTPS and on this machine; an Idempotency-Key is wanted everywhere.
export function newKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((one) => one.toString(16).padStart(2, "0")).join("");
}

export function ended(status) {
  if (status === 401) signedOut();
}
