// The mailboxes recordings come from: how each stands, a try, a fetch whose job is watched here, and what an admin changes.

import { announce, ask, button, bytes, element, moment, number, put, say, sayOf } from "./dom.js";
import { card } from "./card.js";
import { Problem, call, newKey } from "./http.js";
import { follow, isFinal, jobs, know } from "./live.js";
import { changeMailbox } from "./mailbox.js";

const COUNTS = ["found", "waiting", "stored", "duplicates", "skipped", "errors", "matched", "unmatched"];
const OFTEN_MS = 15_000; // the schedule looks without being asked

// ``heard(type, act)`` listens for as long as the panel is open, ``closed`` is the signal of its end.
export function showMailboxes(main, { heard, closed, account }) {
  const cards = new Map();
  const items = element("ul", { class: "mailboxes", "aria-label": say("mailboxes") });
  const empty = element("p", { class: "note", role: "status" });
  const problem = element("p", { class: "problem", role: "alert" });
  const admin = account.role === "admin";
  let timer = 0;

  async function read() {
    clearTimeout(timer);
    try {
      const standing = await call("GET", "/recordings/status");
      if (closed.aborted) return;
      put(problem, "");
      for (const id of [...cards.keys()].filter((one) => !standing.mailboxes.some(({ mailbox_id }) => mailbox_id === one))) {
        cards.get(id).node.remove();
        cards.delete(id);
      }
      for (const one of standing.mailboxes) {
        if (cards.has(one.mailbox_id)) cards.get(one.mailbox_id).update(one);
        else cards.set(one.mailbox_id, mailboxCard(one, { admin, closed, read }));
        if (!cards.get(one.mailbox_id).node.parentNode) items.append(cards.get(one.mailbox_id).node);
      }
      put(empty, cards.size ? "" : say("no_mailboxes"));
    } catch (error) {
      if (error.status !== 401) put(problem, say("went_wrong", { reason: error.message }));
    }
    if (!closed.aborted) timer = setTimeout(read, OFTEN_MS);
  }

  async function add() {
    const made = await changeMailbox(null);
    if (!made) return;
    announce(say("mailbox_added", { name: made.username }));
    await read();
    cards.get(made.id)?.node.querySelector("h2").focus();
  }

  heard("job", ({ job, before }) => {
    for (const one of cards.values()) one.updateJob(job, before);
    if (job.kind === "recordings" && isFinal(job) && before && !isFinal(before)) read();
  });
  closed.addEventListener("abort", () => clearTimeout(timer));
  main.replaceChildren(
    element("h1", { tabindex: -1 }, say("mailboxes")),
    element("p", {}, element("a", { href: "#/recordings" }, `← ${say("panel_recordings")}`)),
    ...(admin ? [element("p", {}, button(say("add_mailbox"), add))] : []),
    problem,
    items,
    empty,
  );
  return read();
}

function mailboxCard(standing, { admin, closed, read }) {
  const id = standing.mailbox_id;
  const badge = element("span", { class: "badge" });
  const heading = element("h2", { id: `mailbox-${id}`, tabindex: -1 });
  const looks = element("p", { class: "note" });
  const counts = element("dl", { class: "counts" });
  const reason = element("div", { class: "reason" });
  const problem = element("p", { class: "problem", role: "alert" });
  const told = element("p", { role: "status" });
  const seen = element("div");
  const place = element("div", { class: "fetching" });
  const named = (word, work, attributes = {}) => button(say(word), () => act(work), { "aria-describedby": heading.id, ...attributes });
  const actions = {
    fetch: named("fetch_now", fetchNow),
    check: named("check", check),
    enable: named("enable", enable),
    schedule: named("schedule_off", schedule),
    edit: named("edit", edit),
    remove: named("remove_mailbox", remove, { class: "danger" }),
  };
  const back = element("input", { type: "number", id: `back-${id}`, min: 1, max: 3650, step: 1, "aria-describedby": `back-hint-${id}` });
  const further = element(
    "details",
    { class: "options" },
    element("summary", { "aria-describedby": heading.id }, say("fetch_further")),
    element("div", { class: "field" }, element("label", { for: back.id }, say("fetch_back")), back, element("p", { class: "note", id: `back-hint-${id}` }, say("fetch_back_hint"))),
  );
  const node = element(
    "li",
    {},
    element(
      "article",
      { class: "mailbox", "data-mailbox": id, "aria-labelledby": heading.id },
      element("div", { class: "top" }, heading, badge),
      looks,
      reason,
      counts,
      element("div", { class: "actions" }, ...Object.values(actions)),
      further,
      problem,
      place,
      told,
      seen,
    ),
  );
  const whole = node.firstElementChild;
  let now = standing;
  let fetching = null; // {id, update} of the job that is shown

  function update(fresh) {
    now = fresh;
    const state = !fresh.enabled ? "off" : fresh.error_code ? "failing" : "on";
    whole.dataset.state = state;
    put(heading, `${fresh.username} · ${fresh.folder}`);
    put(badge, sayOf("mailbox", state) + (fresh.enabled && !fresh.scheduled ? ` · ${say("unscheduled")}` : ""));
    looks.replaceChildren(
      fresh.host,
      " · ",
      ...(fresh.checked_at ? [`${say("last_look")} `, moment(fresh.checked_at)] : [say("never_looked")]),
      ...(fresh.next_poll_at ? [" · ", `${say("next_look")} `, moment(fresh.next_poll_at)] : []),
      ...(fresh.job_id ? [" · ", element("a", { href: `#/jobs/${fresh.job_id}`, "aria-describedby": heading.id }, say("last_job"))] : []),
    );
    counts.replaceChildren(...COUNTS.map((one) => element("div", { "data-count": one }, element("dt", {}, sayOf("count", one)), element("dd", {}, number(fresh[one])))));
    drawReason(reason, fresh);
    const focused = document.activeElement;
    actions.fetch.hidden = !fresh.enabled;
    actions.check.hidden = !admin;
    actions.enable.hidden = !admin || fresh.enabled;
    further.hidden = !fresh.enabled;
    actions.schedule.hidden = !admin || !fresh.enabled;
    put(actions.schedule, say(fresh.scheduled ? "schedule_off" : "schedule_on"));
    actions.edit.hidden = !admin;
    actions.remove.hidden = !admin;
    if (focused?.hidden && node.contains(focused)) Object.values(actions).find((one) => !one.hidden)?.focus();
  }

  async function act(work) {
    put(problem, "");
    whole.setAttribute("aria-busy", "true");
    try {
      await work();
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      put(problem, say("went_wrong", { reason: error.message }));
      await read();
    } finally {
      whole.removeAttribute("aria-busy");
    }
  }

  async function fetchNow() {
    if (!back.reportValidity()) return;
    const query = new URLSearchParams({ mailbox_id: id, ...(back.value && { days_back: back.value }) });
    const answer = await call("POST", `/recordings/download?${query}`, { key: newKey() });
    const [job] = answer.jobs;
    announce(say("fetch_begun", { name: now.username }));
    know(job);
    watch(jobs.get(job.id));
    follow(job.id, closed);
  }

  function watch(job) {
    const made = card(job, { heading: "h3", removed: () => (place.replaceChildren(), (fetching = null), heading.focus()) });
    fetching = { id: job.id, update: made.update };
    place.replaceChildren(made.node);
  }

  function updateJob(job, before) {
    if (fetching?.id !== job.id) return;
    fetching.update(job);
    if (isFinal(job) && !isFinal(before ?? job)) announce(say("job_ended", { title: job.title, status: sayOf("status", job.status) }), job.id);
  }

  async function check() {
    put(told, say("checking"));
    seen.replaceChildren();
    try {
      const found = await call("POST", `/mailboxes/${id}/check`);
      put(told, say("check_found", { messages: number(found.messages), matching: number(found.matching) }));
      seen.replaceChildren(...drawCheck(found, heading.textContent));
    } catch (error) {
      put(told, "");
      throw error;
    }
  }

  async function enable() {
    await call("POST", `/mailboxes/${id}/enable`);
    announce(say("mailbox_enabled", { name: now.username }));
    await read();
  }

  async function schedule() {
    const wanted = !now.scheduled;
    await call("POST", `/recordings/${wanted ? "start" : "stop"}?${new URLSearchParams({ mailbox_id: id })}`);
    announce(say(wanted ? "scheduled_on" : "scheduled_off", { name: now.username }));
    await read();
  }

  async function remove() {
    const { username: name } = now;
    if (!(await ask(say("remove_mailbox_question", { name }), say("remove_mailbox"), say("keep")))) return;
    await call("DELETE", `/mailboxes/${id}`);
    announce(say("mailbox_removed", { name }));
    await read();
    document.querySelector("h1").focus();
  }

  async function edit() {
    const changed = await changeMailbox(await call("GET", `/mailboxes/${id}`));
    if (!changed) return;
    announce(say("mailbox_changed", { name: changed.username }));
    await read();
  }

  update(standing);
  return { node, update, updateJob };
}

// What the server itself said stands behind the error's own sentence, which is told in the reader's language.
const reasonIn = (message) => message.split(": ").slice(1).join(": ");

function drawReason(place, { enabled, disabled_reason, error_code, error_message, failures }) {
  const said = `${enabled} ${disabled_reason} ${error_message} ${failures}`;
  if (place.dataset.said === said) return;
  place.dataset.said = said;
  place.hidden = enabled && !error_code;
  place.replaceChildren(
    ...(enabled ? [] : [element("strong", {}, disabled_reason ? sayOf("disabled", disabled_reason) : say("mailbox_off"))]),
    ...(error_code
      ? [
          element("p", { class: "message" }, sayOf("fault", error_code), failures > 1 ? ` (${say("in_a_row", { count: number(failures) })})` : ""),
          element("p", { class: "note" }, element("span", { lang: "en" }, reasonIn(error_message)), " ", element("a", { href: `/docs/errors#${error_code}` }, element("code", {}, error_code))),
        ]
      : []),
  );
}

function drawCheck({ folders, candidates }, name) {
  const heads = ["candidate_subject", "candidate_sender", "candidate_received", "candidate_names", "size"];
  const rows = candidates.map((one) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, one.subject || "—"),
      element("td", {}, one.sender),
      element("td", {}, one.received_at ? moment(one.received_at) : ""),
      element("td", {}, one.attachments.join(", ")),
      element("td", { class: "number" }, bytes(one.size)),
    ),
  );
  return [
    rows.length
      ? element(
          "div",
          { class: "scrolled", tabindex: 0, role: "region", "aria-label": `${say("candidates")}: ${name}` },
          element("table", {}, element("caption", { class: "unseen" }, say("candidates")), element("thead", {}, element("tr", {}, ...heads.map((word) => element("th", { scope: "col" }, say(word))))), element("tbody", {}, ...rows)),
        )
      : element("p", { class: "note" }, say("no_candidates")),
    element("details", { class: "options" }, element("summary", {}, say("folders", { count: number(folders.length) })), element("ul", {}, ...folders.map((one) => element("li", {}, one)))),
  ];
}
