// The files under way: a queue that outlives the panel that shows it, and remembers what a reload of the page cut off.

import { announce, say } from "./dom.js";
import { call, newKey } from "./http.js";
import { end, look, send } from "./tus.js";

const AT_ONCE = 2;
const KEPT = "millrace.uploads"; // [{account, url, name, size, modified, fields}] of uploads that are not complete
const PACE_MS = 10_000; // what went out in so long says how long the rest takes

// Oldest first. {file, name, size, modified, fields, key, url, state, sent, left, reason}; ``left`` is in seconds or
// null. State is waiting, sending, troubled (tried again by itself), paused, failed, or kept: begun before this page was
// loaded, and to be gone on with once somebody chooses the file again.
export const sendings = [];
let account = null;
let changed = () => {};
let accepted = () => {};

export function watchSendings(onChange, onAccepted) {
  changed = onChange;
  accepted = onAccepted;
}

export function queue(files, fields) {
  for (const file of files) {
    const before = sendings.find((one) => one.state === "kept" && isSame(one, file));
    if (before) goOnWith(before, file);
    else sendings.push(made({ file, name: file.name, size: file.size, modified: file.lastModified, fields, state: "waiting" }));
  }
  changed();
  next();
}

// Whether it is the file whose upload was begun, as far as a browser tells.
export const isSame = (sending, file) =>
  sending.name === file.name && sending.size === file.size && sending.modified === file.lastModified;

export function goOnWith(sending, file) {
  Object.assign(sending, { file, state: "waiting" });
  changed();
  next();
}

export function again(sending) {
  sending.state = "waiting";
  changed();
  next();
}

export function hold(sending) {
  sending.state = "paused";
  sending.left = null;
  sending.aborting?.abort();
  changed();
  announce(say("send_paused", { name: sending.name }));
  next();
}

// What was sent is deleted.
export function stop(sending) {
  sending.aborting?.abort();
  drop(sending);
  if (sending.url) end(sending.url);
  announce(say("send_stopped", { name: sending.name }));
  next();
}

// The session is over: what was begun can be gone on with in the next one.
export function stopAll() {
  for (const sending of sendings.splice(0)) sending.aborting?.abort();
  account = null;
  changed();
}

// Nothing is to be left on this machine.
export function forgetAll() {
  localStorage.removeItem(KEPT);
}

// Show what this account has begun before.
export async function recall(id) {
  account = id;
  for (const one of kept().filter((each) => each.account === id)) {
    const sending = made({ ...one, state: "kept" });
    try {
      const { state, offset } = await look(one.url);
      if (account !== id) return;
      if (state === "complete") forget(sending);
      else sendings.push(Object.assign(sending, { sent: offset }));
    } catch (problem) {
      if (problem.status === 404 || problem.status === 410) forget(sending);
    }
  }
  changed();
}

function made(given) {
  return { file: null, key: newKey(), url: null, sent: 0, left: null, reason: "", ...given };
}

function kept() {
  try {
    const found = JSON.parse(localStorage.getItem(KEPT) ?? "[]");
    return Array.isArray(found) ? found : [];
  } catch {
    return [];
  }
}

function keep({ url, name, size, modified, fields }) {
  localStorage.setItem(KEPT, JSON.stringify([...kept(), { account, url, name, size, modified, fields }]));
}

function forget({ url }) {
  localStorage.setItem(KEPT, JSON.stringify(kept().filter((one) => one.url !== url)));
}

function drop(sending) {
  const place = sendings.indexOf(sending);
  if (place >= 0) sendings.splice(place, 1);
  if (sending.url) forget(sending);
  changed();
}

function next() {
  const running = sendings.filter((one) => one.state === "sending" || one.state === "troubled").length;
  for (const one of sendings.filter((one) => one.state === "waiting").slice(0, Math.max(0, AT_ONCE - running))) run(one);
}

async function run(sending) {
  const aborting = new AbortController();
  Object.assign(sending, { aborting, state: "sending", left: null });
  changed();
  const { name } = sending;
  const pace = paced(sending);
  try {
    const job = await send(sending.file, {
      url: sending.url,
      fields: sending.fields,
      key: () => sending.key,
      signal: aborting.signal,
      began: (url) => {
        if (sending.url) forget(sending);
        sending.url = url;
        sending.key = newKey(); // should this one expire, the next is another
        keep(sending);
      },
      progress: (sent) => {
        sending.state = "sending";
        pace(sent);
        changed();
      },
      troubled: (problem) => {
        Object.assign(sending, { state: "troubled", reason: problem.message, left: null });
        changed();
      },
    });
    const fresh = await call("GET", `/jobs/${job}`);
    drop(sending);
    announce(say("sent", { name }));
    accepted(fresh);
  } catch (error) {
    if (error.name !== "AbortError" && sending.aborting === aborting) {
      sending.state = "failed";
      sending.reason = error.message;
      // a refusal stands by its key: what is sent after it is a new request
      if (error.status >= 400 && error.status < 500) sending.key = newKey();
      changed();
      announce(say("send_failed", { name, reason: error.message }));
    }
  }
  next();
}

// Keeps ``sent`` and ``left`` by the bytes of the last seconds.
function paced(sending) {
  let points = [];
  return (sent) => {
    const now = performance.now();
    if (sent < sending.sent) points = [];
    sending.sent = sent;
    points = [...points.filter(([at]) => now - at < PACE_MS), [now, sent]];
    const [since, from] = points[0];
    sending.left = now - since >= 1000 && sent > from ? ((sending.size - sent) * (now - since)) / (sent - from) / 1000 : null;
  };
}
