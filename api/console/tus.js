// One file by tus 1.0.0: begun, sent in pieces, gone on with after whatever broke. docs/http.md has the protocol's page.

import { language } from "./dom.js";
import { API, Problem, ended } from "./http.js";

const PIECE = 20 * 1024 ** 2; // whole parts of the store: they survive even the death of the API
const SILENCE_MS = 30_000; // without a byte taken the connection is as good as gone
const ANSWER_MS = 300_000; // all is sent: a large file is read once more before it is one
const FIRST_MS = 500;
const LONGEST_MS = 10_000;
const CONFLICTS = 5; // in a row; then it is no passing disagreement about the offset

// Resolves to the id of the job that was ordered with the file. ``url`` is that of an upload begun before, else null;
// ``began(url)`` tells of one begun now, ``progress(bytes)`` how much the API has, ``troubled(problem)`` that it is tried
// again by itself. Rejects with a Problem that another try would not change, or with an AbortError.
export async function send(file, { url, fields, key, signal, began, progress, troubled }) {
  let here = url;
  let failures = 0;
  for (;;) {
    try {
      if (!here) {
        here = await begin(file, fields, key(), signal);
        began(here);
      }
      return await goOn(here, file, signal, (sent) => {
        failures = 0;
        progress(sent);
      });
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      if (here && (problem.status === 404 || problem.status === 410)) here = null; // expired: begun anew
      else if (!isPassing(problem, failures)) throw problem;
      failures += 1;
      troubled(problem);
      await pause(Math.max(FIRST_MS * 2 ** Math.min(failures, 6), problem.wait), signal);
    }
  }
}

// How an upload begun before stands: {state, offset, length, job_id}. Rejects with a Problem.
export async function look(url) {
  return (await ask("GET", url)).read;
}

// Delete what was sent.
export async function end(url) {
  await ask("DELETE", url).catch(() => {});
}

async function begin(file, fields, key, signal) {
  const said = { filename: file.name, filetype: file.type, job: "inference", ...fields };
  const metadata = Object.entries(said).filter(([, value]) => value !== "").map(([name, value]) => `${name} ${base64(value)}`);
  const headers = { "Upload-Length": String(file.size), "Upload-Metadata": metadata.join(","), "Idempotency-Key": key };
  return (await ask("POST", `${API}/uploads`, { headers, signal })).header("Location");
}

async function goOn(here, file, signal, progress) {
  let answer = await ask("HEAD", here, { signal });
  let at = Number(answer.header("Upload-Offset"));
  if (at) progress(at);
  while (at < file.size) {
    const from = at;
    const headers = { "Upload-Offset": String(from), "Content-Type": "application/offset+octet-stream" };
    const body = file.slice(from, from + PIECE);
    answer = await ask("PATCH", here, { headers, body, signal, progress: (sent) => progress(from + sent) });
    at = Number(answer.header("Upload-Offset"));
    progress(at);
  }
  return answer.header("Millrace-Job") ?? (await finished(here, signal));
}

// All bytes are there and the file is still being made, perhaps by another process than the one that took them.
async function finished(here, signal) {
  for (;;) {
    const { read } = await ask("GET", here, { signal });
    if (read.job_id) return read.job_id;
    await pause(1000, signal);
  }
}

function isPassing({ status }, failures) {
  if (status === 409) return failures < CONFLICTS;
  return status === 0 || status === 408 || status === 423 || status === 429 || status >= 500;
}

// In ``ms`` at the latest; at once when the network is back.
function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const over = new AbortController();
    const once = (act) => () => (clearTimeout(timer), over.abort(), act());
    const timer = setTimeout(once(resolve), Math.min(ms, LONGEST_MS) * (0.5 + Math.random() / 2));
    window.addEventListener("online", once(resolve), { signal: over.signal });
    signal.addEventListener("abort", once(() => reject(stopped())), { signal: over.signal });
  });
}

function ask(method, url, { headers = {}, body = null, progress = () => {}, signal = null } = {}) {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(stopped());
    const request = new XMLHttpRequest(); // fetch tells nothing of the progress of a body
    request.open(method, url);
    const all = { Accept: "application/json", "Accept-Language": language, "Tus-Resumable": "1.0.0", ...headers };
    for (const [name, value] of Object.entries(all)) request.setRequestHeader(name, value);
    request.responseType = "json";
    let silence = 0;
    const patience = (ms) => {
      clearTimeout(silence);
      silence = setTimeout(() => request.abort(), ms);
    };
    const abort = () => request.abort();
    request.upload.addEventListener("progress", ({ loaded, total }) => {
      patience(loaded < total ? SILENCE_MS : ANSWER_MS);
      progress(loaded);
    });
    request.addEventListener("load", () => {
      const header = (name) => request.getResponseHeader(name);
      if (request.status < 300) return resolve({ header, read: request.response });
      ended(request.status);
      const problem = new Problem(request.status, request.response);
      problem.wait = 1000 * (Number(header("Retry-After")) || 0);
      return reject(problem);
    });
    const broken = () => reject(Object.assign(new Problem(0, null), { wait: 0 }));
    request.addEventListener("error", broken);
    request.addEventListener("abort", () => (signal?.aborted ? reject(stopped()) : broken()));
    request.addEventListener("loadend", () => {
      clearTimeout(silence);
      signal?.removeEventListener("abort", abort);
    });
    signal?.addEventListener("abort", abort);
    patience(body?.size ? SILENCE_MS : ANSWER_MS);
    request.send(body);
    return undefined;
  });
}

const stopped = () => new DOMException("stopped", "AbortError");

function base64(text) {
  return btoa(String.fromCharCode(...new TextEncoder().encode(text)));
}
