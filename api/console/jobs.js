// The panel of jobs: sending files, the list with its search, and one job looked at closely.

import { about, announce, button, bytes, element, percent, put, say, sayOf } from "./dom.js";
import { card, isScheduled } from "./card.js";
import { list } from "./http.js";
import { changes, isFinal, jobs, know } from "./live.js";
import { lookAt } from "./job.js";
import { again, goOnWith, hold, isSame, queue, sendings, stop, watchSendings } from "./sending.js";

const SHOWN = 20;
const STATES = ["pending", "queued", "processing", "succeeded", "failed", "cancelled"];
const PRIORITIES = ["low", "normal", "high"];

// Show the panel in ``main``; ``path`` is what follows #/jobs. ``closed`` is a signal that ends with the panel.
export function open(main, path, closed) {
  const heard = (type, act) => changes.addEventListener(type, (event) => act(event.detail), { signal: closed });
  heard("job", ({ job, before }) => before && tell(job, before));
  if (path[0]) return lookAt(main, path[0], heard);
  const jobsList = listing(heard);
  main.replaceChildren(
    element("h1", { tabindex: -1 }, say("panel_jobs")),
    sender(closed),
    jobsList,
  );
  return undefined;
}

// Percentages are not read aloud, changes are, however they became known.
function tell(job, before) {
  const { title } = job;
  if (isScheduled(job)) return;
  if (isFinal(job)) {
    if (!isFinal(before)) announce(say("job_ended", { title, status: sayOf("status", job.status) }), job.id);
  } else if (job.stage && job.stage !== before.stage) {
    announce(say("job_stage", { title, stage: sayOf("stage", job.stage) }), job.id);
  }
}

// ---------------------------------------------------------------- sending

function sender(closed) {
  const files = element("input", { type: "file", multiple: true, id: "files", "aria-describedby": "drop-note" });
  const threshold = element("input", { id: "threshold", type: "number", min: 0, max: 1, step: "any", "aria-describedby": "threshold-hint" });
  const profile = element("input", { id: "profile", maxlength: 100, "aria-describedby": "profile-hint", autocapitalize: "off" });
  const priority = element("select", { id: "priority" }, ...PRIORITIES.map((one) => element("option", { value: one, selected: one === "normal" }, say(`priority_${one}`))));
  const take = (chosen) => {
    const found = [...chosen];
    if (!found.length) return;
    if (!threshold.reportValidity()) return;
    queue(found, { threshold: threshold.value, profile: profile.value.trim(), priority: priority.value });
  };
  files.addEventListener("change", () => {
    take(files.files);
    files.value = ""; // the same file may be chosen again
  });
  const zone = element(
    "div",
    { class: "drop" },
    files,
    element("label", { for: "files", class: "button" }, say("choose_files")),
    element("span", { id: "drop-note" }, say("or_drop")),
  );
  // A file dropped beside the zone must not make the browser leave the page.
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    zone.classList.toggle("over", zone.contains(event.target));
  }, { signal: closed });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    if (zone.contains(event.target)) take(event.dataTransfer.files);
  }, { signal: closed });
  const field = (input, word, hint) =>
    element("div", { class: "field" }, element("label", { for: input.id }, say(word)), input, hint && element("p", { class: "note", id: `${input.id}-hint` }, say(hint)));
  return element(
    "section",
    { "aria-labelledby": "send-heading" },
    element("h2", { id: "send-heading" }, say("send_files")),
    zone,
    element(
      "details",
      { class: "options" },
      element("summary", {}, say("options")),
      field(threshold, "threshold", "threshold_hint"),
      field(profile, "profile", "profile_hint"),
      field(priority, "priority"),
    ),
    underWay(files),
  );
}

function underWay(files) {
  const rows = new Map();
  const whole = element("ul", { class: "sendings", "aria-label": say("sending") });
  const draw = () => {
    for (const [sending, row] of rows) {
      if (sendings.includes(sending)) continue;
      if (row.node.contains(document.activeElement)) files.focus();
      row.node.remove();
      rows.delete(sending);
    }
    for (const sending of sendings) {
      if (!rows.has(sending)) {
        rows.set(sending, sendingRow(sending));
        whole.append(rows.get(sending).node);
      }
      rows.get(sending).update();
    }
    whole.hidden = !sendings.length;
  };
  watchSendings(draw, (job) => know(job));
  draw();
  return whole;
}

function sendingRow(sending) {
  const { name } = sending;
  const bar = element("progress", { max: 1, "aria-label": say("sending_file", { name }) });
  const note = element("span", { class: "note" });
  const does = (word, act) => button(say(word), () => act(sending), { "aria-label": `${say(word)}: ${name}` });
  const actions = {
    choose: does("choose_again", () => chooseAgain(sending, note)),
    retry: does("send_again", again),
    pause: does("pause", hold),
    resume: does("go_on", again),
    leave: does("stop", stop),
  };
  const shown = { kept: ["choose"], failed: ["retry"], paused: ["resume"], sending: ["pause"], troubled: ["pause"], waiting: ["pause"] };
  const node = element("li", {}, element("span", { class: "name" }, name), bar, note, element("span", { class: "actions" }, ...Object.values(actions)));
  const update = () => {
    const { state, sent, size } = sending;
    const share = size ? sent / size : 0;
    const focused = document.activeElement;
    node.dataset.state = state;
    bar.value = share;
    bar.hidden = state === "failed";
    for (const [key, one] of Object.entries(actions)) one.hidden = key !== "leave" && !shown[state].includes(key);
    // the button that was pressed has made room for its counterpart
    if (focused?.hidden && node.contains(focused)) actions[shown[state][0]].focus();
    put(actions.leave, say(state === "failed" ? "dismiss" : "stop"));
    put(note, noteOf(sending, share));
  };
  return { node, update };
}

function noteOf(sending, share) {
  const { state, size, sent, left, reason } = sending;
  if (state === "failed") return reason;
  if (state === "waiting") return say("send_waits");
  const whole = `${percent(Math.floor(share * 100))} · ${say("of_bytes", { sent: bytes(sent), size: bytes(size) })}`;
  if (state === "kept") return `${whole} · ${say("send_kept")}`;
  if (state === "paused") return `${whole} · ${say("send_held")}`;
  if (state === "troubled") return `${whole} · ${say("send_troubled", { reason })}`;
  if (share >= 1) return say("send_checks");
  return left === null ? whole : `${whole} · ${say("time_left", { time: about(left) })}`;
}

// A page that was loaded anew has no hold of the file any more.
function chooseAgain(sending, note) {
  const input = element("input", { type: "file" });
  input.addEventListener("change", () => {
    const [file] = input.files;
    if (!file) return;
    if (isSame(sending, file)) goOnWith(sending, file);
    else put(note, say("another_file", { name: sending.name }));
  });
  input.click();
}

// ---------------------------------------------------------------- the list

function listing(heard) {
  const cards = new Map();
  const items = element("ul", { class: "jobs", "aria-labelledby": "jobs-heading" });
  const empty = element("p", { class: "note", role: "status" });
  const problem = element("p", { class: "problem", role: "alert" });
  const find = element("input", { type: "search", id: "find", maxlength: 255 });
  const state = element("select", { id: "state" }, element("option", { value: "" }, say("any")), ...STATES.map((one) => element("option", { value: one }, sayOf("status", one))));
  const heading = element("h2", { id: "jobs-heading", tabindex: -1 }, say("your_jobs"));
  const more = button(say("more_jobs"), () => read({ after: oldest }));
  more.hidden = true;
  let oldest; // undefined until the first page has come
  let asked = 0;

  // Newest first: ids are UUIDv7 and sort by the time they were made.
  function show(job) {
    if (cards.has(job.id)) return cards.get(job.id).update(job);
    const made = card(job, { heading: "h3", removed: () => heading.focus() });
    const item = element("li", {}, made.node);
    const after = [...cards.keys()].filter((id) => id < job.id).sort().at(-1);
    items.insertBefore(item, after ? cards.get(after).item : null);
    cards.set(job.id, { item, update: made.update });
    return settle();
  }

  function drop(id) {
    cards.get(id)?.item.remove();
    cards.delete(id);
    settle();
  }

  function settle() {
    const sieved = find.value || state.value;
    put(empty, cards.size ? "" : say(sieved ? "none_found" : "no_jobs"));
  }

  // The page after ``after``; ``anew`` once something else is searched for, else what is shown stays.
  async function read({ after = null, anew = false } = {}) {
    asked += 1;
    const mine = asked;
    try {
      const page = await list("/jobs", { limit: SHOWN, after, text: find.value, status: state.value });
      if (mine !== asked) return;
      put(problem, "");
      const end = page.items.at(-1)?.id ?? "";
      const gone = (id) => after === null && (anew || id >= end) && !page.items.some((job) => job.id === id);
      for (const id of [...cards.keys()].filter(gone)) drop(id);
      for (const job of page.items) {
        know(job);
        if (jobs.has(job.id)) show(jobs.get(job.id));
      }
      if (after !== null || anew || oldest === undefined) oldest = page.next;
      more.hidden = !oldest;
      settle();
    } catch (error) {
      if (mine === asked && error.status !== 401) put(problem, say("went_wrong", { reason: error.message }));
    }
  }

  const fits = (job) => (!state.value || job.status === state.value) && (!find.value || job.title.toLowerCase().includes(find.value.toLowerCase()));
  heard("job", ({ job }) => (cards.has(job.id) || fits(job)) && show(job));
  heard("gone", drop);
  heard("reread", () => read());
  let typing = 0;
  find.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => read({ anew: true }), 300);
  });
  state.addEventListener("change", () => read({ anew: true }));
  read();
  return element(
    "section",
    { "aria-labelledby": "jobs-heading" },
    heading,
    element(
      "div",
      { class: "sieves", role: "search" },
      element("div", { class: "field" }, element("label", { for: "find" }, say("find")), find),
      element("div", { class: "field" }, element("label", { for: "state" }, say("state")), state),
    ),
    problem,
    items,
    empty,
    more,
  );
}
