// Files on their way. ``send`` is the one place that knows how a file gets to the API.

import { announce, language, say } from "./dom.js";
import { API, Problem, ended, newKey } from "./http.js";

const AT_ONCE = 2;

// Send one file as a job: resolves to the job, rejects with a Problem. ``progress(sent, total)`` in bytes. Sent again
// with the same key there is one job, whatever became of the first answer.
export function send(file, fields, { key, progress, signal }) {
  return new Promise((resolve, reject) => {
    const form = new FormData();
    for (const [name, value] of Object.entries(fields)) if (value !== "") form.append(name, value);
    form.append("file", file, file.name);
    const request = new XMLHttpRequest(); // fetch tells nothing of the progress of a body
    request.open("POST", `${API}/jobs`);
    request.setRequestHeader("Accept", "application/json");
    request.setRequestHeader("Accept-Language", language);
    request.setRequestHeader("Idempotency-Key", key);
    request.responseType = "json";
    request.upload.addEventListener("progress", (event) => progress(event.loaded, event.total));
    request.addEventListener("load", () => {
      if (request.status === 202) return resolve(request.response);
      ended(request.status);
      return reject(new Problem(request.status, request.response));
    });
    request.addEventListener("error", () => reject(new Problem(0, null)));
    request.addEventListener("abort", () => reject(new DOMException("stopped", "AbortError")));
    signal.addEventListener("abort", () => request.abort());
    request.send(form);
  });
}

// The files under way, oldest first; they outlive the panel that shows them. {file, fields, key, state, sent, total,
// reason}; state is waiting, sending or failed.
export const sendings = [];
let changed = () => {};
let accepted = () => {};

export function watchSendings(onChange, onAccepted) {
  changed = onChange;
  accepted = onAccepted;
}

export function queue(files, fields) {
  for (const file of files) {
    sendings.push({ file, fields, key: newKey(), state: "waiting", sent: 0, total: file.size, reason: "" });
  }
  changed();
  next();
}

export function again(sending) {
  sending.state = "waiting";
  changed();
  next();
}

export function stop(sending) {
  const running = sending.state === "sending";
  sending.aborting?.abort();
  if (!running) drop(sending);
  announce(say("send_stopped", { name: sending.file.name }));
}

export function stopAll() {
  for (const sending of [...sendings]) {
    sending.aborting?.abort();
    drop(sending);
  }
}

function drop(sending) {
  const place = sendings.indexOf(sending);
  if (place >= 0) sendings.splice(place, 1);
  changed();
}

function next() {
  const running = sendings.filter((one) => one.state === "sending").length;
  for (const one of sendings.filter((one) => one.state === "waiting").slice(0, AT_ONCE - running)) run(one);
}

async function run(sending) {
  sending.aborting = new AbortController();
  sending.state = "sending";
  sending.sent = 0;
  changed();
  const name = sending.file.name;
  try {
    const job = await send(sending.file, sending.fields, {
      key: sending.key,
      signal: sending.aborting.signal,
      progress: (sent, total) => {
        sending.sent = sent;
        sending.total = total;
        changed();
      },
    });
    drop(sending);
    announce(say("sent", { name }));
    accepted(job);
  } catch (error) {
    if (error.name === "AbortError") drop(sending);
    else {
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
