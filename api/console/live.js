// The jobs this page knows, kept up to date by the stream of all of one's jobs.

import { API, call, ended } from "./http.js";

// domain.jobs.EventType; an EventSource hears only the types it is told
const TYPES = [
  "created", "queued", "stage", "progress", "handed_over", "waiting", "resumed", "retrying", "postponed", "interrupted",
  "succeeded", "failed", "cancelled",
];
const FINAL = ["succeeded", "failed", "cancelled"];
const REOPEN_MS = 2000;
const FOLLOW_MS = 1000;

export const jobs = new Map();
export const changes = new EventTarget(); // "job" with detail {job, before}, "gone" with detail id, "state", "reread"
export let state = "closed"; // connecting, live, reconnecting

let source = null;
let last = "";
let timer = 0;
let generation = 0; // of the session: what was asked for in an earlier one is not for this one

export const isFinal = (job) => FINAL.includes(job.status);

export function know(job) {
  const before = jobs.get(job.id) ?? null;
  jobs.set(job.id, job);
  changes.dispatchEvent(new CustomEvent("job", { detail: { job, before } }));
}

export function forget(id) {
  jobs.delete(id);
  changes.dispatchEvent(new CustomEvent("gone", { detail: id }));
}

export function open() {
  clearTimeout(timer);
  source?.close();
  become(last ? "reconnecting" : "connecting");
  source = new EventSource(`${API}/events${last ? `?after=${encodeURIComponent(last)}` : ""}`);
  const here = source;
  for (const type of TYPES) source.addEventListener(type, (message) => heard(message));
  source.addEventListener("open", () => {
    become("live");
    changes.dispatchEvent(new Event("reread"));
  });
  source.addEventListener("error", () => {
    become("reconnecting");
    // it comes back by itself after a broken connection, and gives up after an answer that is no stream
    if (here.readyState === EventSource.CLOSED) timer = setTimeout(reopen, REOPEN_MS);
  });
}

export function close() {
  clearTimeout(timer);
  source?.close();
  source = null;
  last = "";
  generation += 1;
  jobs.clear();
  become("closed");
}

async function reopen() {
  const here = generation;
  try {
    await call("GET", "/auth/me"); // says whether it was the session that ended
  } catch (error) {
    if (here === generation && error.status !== 401) timer = setTimeout(reopen, REOPEN_MS);
    return;
  }
  if (here === generation) open();
}

function become(now) {
  if (state === now) return;
  state = now;
  changes.dispatchEvent(new Event("state"));
}

async function heard(message) {
  last = message.lastEventId || last;
  const event = JSON.parse(message.data);
  const known = jobs.get(event.job_id);
  // its file may have come with this event
  if (!known || FINAL.includes(event.type) || (known.status === "pending" && known.file === null)) {
    await refresh(event.job_id);
    return;
  }
  if (isFinal(known) || isStale(event, known)) return;
  const { status, stage, progress, message: said } = event.data;
  const moved = event.type !== "progress";
  know({
    ...known,
    status: status ?? known.status,
    stage: stage ?? known.stage,
    progress: Math.max(progress ?? 0, known.progress),
    message: said ?? (moved ? null : known.message),
    eta_seconds: event.data.eta_seconds ?? null,
    updated_at: moved ? event.at : known.updated_at,
  });
}

// What was read of the job after the event knows better. Percentages carry a worker's clock, all else the database's.
function isStale(event, known) {
  if (event.type === "progress") return event.data.progress < known.progress;
  return Date.parse(event.at) < Date.parse(known.updated_at);
}

// A job that is another account's, of which the stream does not tell: read until it has ended, or ``closed``. A stream
// of its own would be one more connection, and a browser has six.
export function follow(id, closed) {
  const look = async () => {
    if (closed.aborted) return;
    await refresh(id);
    if (jobs.has(id) && !isFinal(jobs.get(id))) setTimeout(look, FOLLOW_MS);
  };
  look();
}

async function refresh(id) {
  const here = generation;
  try {
    const job = await call("GET", `/jobs/${id}`);
    if (here === generation) know(job);
  } catch (error) {
    if (here === generation && error.status === 404) forget(id);
    else ended(error.status);
  }
}
