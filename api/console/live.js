// The jobs this page knows, kept up to date by the stream of all of one's jobs.

import { call, ended } from "./http.js";
import { listen } from "./stream.js";

// domain.jobs.EventType; an EventSource hears only the types it is told
const TYPES = [
  "created", "queued", "stage", "progress", "handed_over", "waiting", "resumed", "retrying", "postponed", "interrupted",
  "succeeded", "failed", "cancelled",
];
const FINAL = ["succeeded", "failed", "cancelled"];
const RANKS = { pending: 0, queued: 1, processing: 2 }; // all others are final
const FOLLOW_MS = 1000;

export const jobs = new Map();
export const changes = new EventTarget(); // "job" with detail {job, before}, "gone" with detail id, "state", "reread"
export let state = "closed"; // connecting, live, reconnecting

let leave = () => {};
const gone = new Set(); // ids never come back, but answers about them may come late
let generation = 0; // of the session: what was asked for in an earlier one is not for this one

export const isFinal = (job) => FINAL.includes(job.status);

// Answers come in any order: what is known of a job only moves forward.
export function know(job) {
  const before = jobs.get(job.id) ?? null;
  if (gone.has(job.id) || (before && isOlder(job, before))) return;
  const now = before ? ahead(job, before) : job;
  jobs.set(job.id, now);
  changes.dispatchEvent(new CustomEvent("job", { detail: { job: now, before } }));
}

const rank = (job) => RANKS[job.status] ?? 3;

function isOlder(job, known) {
  if (rank(job) !== rank(known)) return rank(job) < rank(known);
  return instant(job.updated_at) < instant(known.updated_at);
}

// To the microsecond, as text: a Date knows milliseconds, and a job goes on within one.
const instant = (text) => text.replace(/(:\d\d)Z$/, "$1.000000Z");

// The percentage that was heard last may be ahead of the stored one, and with it what the step says.
function ahead(job, known) {
  if (isFinal(job) || job.progress >= known.progress) return job;
  const { progress, message, eta_seconds } = known;
  return job.stage === known.stage ? { ...job, progress, message, eta_seconds } : { ...job, progress };
}

export function forget(id) {
  gone.add(id);
  jobs.delete(id);
  changes.dispatchEvent(new CustomEvent("gone", { detail: id }));
}

export function open(account) {
  leave();
  leave = listen(account.id, { types: TYPES, heard, became: become, opened: reread });
}

export function close() {
  leave();
  leave = () => {};
  generation += 1;
  jobs.clear();
  gone.clear();
  become("closed");
}

function reread(resumed) {
  changes.dispatchEvent(new Event("reread"));
  if (resumed) return;
  for (const job of jobs.values()) if (!isFinal(job)) refresh(job.id);
}

function become(now) {
  if (state === now) return;
  state = now;
  changes.dispatchEvent(new Event("state"));
}

async function heard(data) {
  const event = JSON.parse(data);
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
  return instant(event.at) < instant(known.updated_at);
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
