// The panel of recordings: the list with its search. The mailboxes they come from are a page of it.

import { button, element, put, say, sayOf } from "./dom.js";
import { call, list } from "./http.js";
import { changes, isFinal } from "./live.js";
import { recordingCard } from "./recording.js";

const SHOWN = 20;
const STATES = ["matched", "unmatched"];
const LISTENED_MS = 2000; // what has just come is listened to some seconds later,
const LISTENED_MOST_MS = 60_000; // or never, where nothing is there to listen with

// Whether an account has anything to see here: an admin sees everybody's.
export async function isFor(account) {
  if (account.role === "admin") return true;
  const [{ items }, { mailboxes }] = await Promise.all([list("/recordings", { limit: 1 }), call("GET", "/recordings/status")]);
  return items.length > 0 || mailboxes.length > 0;
}

// ``path``: nothing, "mailboxes", or "job" and the id of the job whose recordings are wanted.
export async function open(main, path, closed, account) {
  const heard = (type, act) => changes.addEventListener(type, (event) => act(event.detail), { signal: closed });
  if (path[0] === "mailboxes") {
    const { showMailboxes } = await import("./mailboxes.js");
    return closed.aborted ? undefined : showMailboxes(main, { heard, closed, account });
  }
  const standing = await call("GET", "/recordings/status").catch(() => ({ mailboxes: [] }));
  if (closed.aborted) return undefined;
  const boxes = new Map(standing.mailboxes.map((one) => [one.mailbox_id, one.username]));
  const job = path[0] === "job" ? path[1] : null;
  const aside = job
    ? element("a", { href: "#/recordings" }, `← ${say("all_recordings")}`)
    : (account.role === "admin" || boxes.size > 0) && element("a", { href: "#/recordings/mailboxes" }, say("mailboxes"));
  main.replaceChildren(
    element("h1", { tabindex: -1 }, say(job ? "recordings_of_job" : "panel_recordings")),
    element("p", {}, aside || ""),
    listing({ heard, closed, job, boxes }),
  );
  return undefined;
}

function listing({ heard, closed, job, boxes }) {
  const cards = new Map();
  const items = element("ul", { class: "recordings", "aria-label": say("panel_recordings"), tabindex: -1 });
  const empty = element("p", { class: "note", role: "status" });
  const problem = element("p", { class: "problem", role: "alert" });
  const number = element("input", { type: "search", id: "number", maxlength: 40, autocomplete: "off", "aria-describedby": "number-hint" });
  const state = element("select", { id: "match" }, element("option", { value: "" }, say("match_or_not")), ...STATES.map((one) => element("option", { value: one }, sayOf("match", one))));
  const more = button(say("more_recordings"), () => read({ after: oldest }));
  more.hidden = true;
  let oldest; // undefined until the first page has come
  let asked = 0;
  let typing = 0;
  let listening = 0;
  let pause = LISTENED_MS;

  // Newest first: ids are UUIDv7 and sort by the time they were made.
  function show(recording) {
    const known = cards.get(recording.id);
    if (known) return known.update(recording);
    const made = recordingCard(recording, boxes, () => (drop(recording.id), (cards.size ? items : number).focus()));
    const item = element("li", {}, made.node);
    const after = [...cards.keys()].filter((id) => id < recording.id).sort().at(-1);
    items.insertBefore(item, after ? cards.get(after).item : null);
    return cards.set(recording.id, { item, update: made.update });
  }

  function drop(id) {
    cards.get(id).item.remove();
    cards.delete(id);
  }

  // The page after ``after``; ``anew`` once something else is searched for, else what is shown stays, and plays on.
  async function read({ after = null, anew = false } = {}) {
    asked += 1;
    const mine = asked;
    clearTimeout(listening);
    try {
      const page = await list("/recordings", { limit: SHOWN, after, number: number.value.trim(), status: state.value, job_id: job });
      if (mine !== asked || closed.aborted) return;
      put(problem, "");
      const end = page.items.at(-1)?.id ?? "";
      const gone = (id) => after === null && (anew || id >= end) && !page.items.some((one) => one.id === id);
      for (const id of [...cards.keys()].filter(gone)) drop(id);
      for (const one of page.items) show(one);
      if (after !== null || anew || oldest === undefined) oldest = page.next;
      more.hidden = !oldest;
      put(empty, cards.size ? "" : say(number.value || state.value ? "no_recording_fits" : "no_recordings"));
      if (after === null && page.items.some((one) => !one.listened)) {
        listening = setTimeout(read, pause);
        pause = Math.min(2 * pause, LISTENED_MOST_MS);
      }
    } catch (error) {
      if (mine === asked && error.status !== 401) put(problem, say("went_wrong", { reason: error.message }));
    }
  }

  heard("job", ({ job: told }) => {
    if (told.kind !== "recordings" || !isFinal(told)) return;
    pause = LISTENED_MS;
    read();
  });
  heard("reread", () => read());
  closed.addEventListener("abort", () => clearTimeout(listening));
  number.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => read({ anew: true }), 300);
  });
  state.addEventListener("change", () => read({ anew: true }));
  read();
  return element(
    "section",
    { "aria-label": say("panel_recordings") },
    element(
      "div",
      { class: "sieves", role: "search" },
      element("div", { class: "field" }, element("label", { for: "number" }, say("find_number")), number, element("p", { class: "note", id: "number-hint" }, say("find_number_hint"))),
      element("div", { class: "field" }, element("label", { for: "match" }, say("match")), state),
    ),
    problem,
    element("p", { class: "note" }, say("newest_first")),
    items,
    empty,
    more,
  );
}
