// One job as a card: its state, its stages and its percentage, why it failed, and what can be done with it. Updated in
// place, so that the focus stays where it is.

import { about, announce, ask, button, bytes, element, moment, percent, put, retell, say, sayOf } from "./dom.js";
import { Problem, call, newKey } from "./http.js";
import { forget, isFinal, know } from "./live.js";

// The way of a kind of job as its owner sees it; of a kind that is not named here only the present stage is shown.
const STAGES = {
  inference: ["inspect", "submit", "waiting", "parse", "finish"],
  recordings: ["poll", "fetch", "match"],
};
const WITHOUT_FILE = ["recordings"]; // kinds that have none

// A schedule orders it, every few minutes: nobody waits to be told of it.
export const isScheduled = (job) => WITHOUT_FILE.includes(job.kind);
const ASIDE = { ask: "waiting" }; // a stage that is part of another one, for who looks on

// ``heading`` is h1 or h3; ``removed()`` is called once the job is deleted.
export function card(job, { heading, removed }) {
  const title = element(heading === "h1" ? "span" : "a", { href: heading === "h1" ? null : `#/jobs/${job.id}` });
  const badge = element("span", { class: "badge" });
  const stages = element("ol", { class: "stages", "aria-label": say("stages") });
  const bar = element("progress", { max: 100 });
  const share = element("span", { class: "share" });
  const left = element("span", { class: "left" });
  const said = element("p", { class: "said" });
  const reason = element("div", { class: "reason" });
  const facts = element("p", { class: "note" });
  const problem = element("p", { class: "problem", role: "alert" });
  const actions = {
    cancel: button(say("cancel"), () => act(cancel)),
    rerun: button(say("rerun"), () => act(rerun)),
    remove: button(say("remove"), () => act(remove), { class: "danger" }),
  };
  const whole = element(
    "article",
    { class: "job", "data-job": job.id },
    element("div", { class: "top" }, element(heading, { tabindex: heading === "h1" ? -1 : null }, title), badge),
    stages,
    element("div", { class: "progress" }, bar, share, left),
    said,
    reason,
    facts,
    element("div", { class: "actions" }, ...Object.values(actions)),
    problem,
  );
  let now = job;
  let stale = 0;

  function update(fresh) {
    const before = now;
    now = fresh;
    whole.dataset.status = fresh.status;
    put(title, fresh.title);
    put(badge, sayOf("status", fresh.status));
    drawStages(stages, fresh);
    bar.value = fresh.progress;
    bar.setAttribute("aria-label", say("progress_of", { title: fresh.title }));
    put(share, percent(fresh.progress));
    const known = fresh.eta_seconds && !isFinal(fresh);
    put(left, known ? say("time_left", { time: about(fresh.eta_seconds) }) : "");
    clearTimeout(stale); // when the time is up and nothing has come, it was wrong
    if (known) stale = setTimeout(() => put(left, ""), (fresh.eta_seconds + 2) * 1000);
    put(said, fresh.status === "failed" ? "" : retell(fresh.message ?? ""));
    if (fresh.error && !reason.childElementCount) reason.append(...why(fresh.error));
    if (!facts.childElementCount || before.file !== fresh.file) {
      facts.replaceChildren(fresh.file && fresh.file.name !== fresh.title ? `${fresh.file.name} · ` : "");
      if (fresh.file) facts.append(`${bytes(fresh.file.size)} · `);
      facts.append(moment(fresh.created_at));
    }
    const focused = document.activeElement;
    actions.cancel.hidden = isFinal(fresh);
    actions.rerun.hidden = !isFinal(fresh) || (fresh.file === null && !isScheduled(fresh));
    for (const key of Object.keys(actions)) actions[key].setAttribute("aria-label", `${say(key)}: ${fresh.title}`);
    if (focused === actions.cancel && actions.cancel.hidden) (actions.rerun.hidden ? actions.remove : actions.rerun).focus();
  }

  async function act(work) {
    put(problem, "");
    whole.setAttribute("aria-busy", "true");
    try {
      await work();
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      put(problem, say("went_wrong", { reason: error.message }));
    } finally {
      whole.removeAttribute("aria-busy");
    }
  }

  async function cancel() {
    const answered = await call("POST", `/jobs/${now.id}/cancel`);
    announce(say("cancel_asked", { title: now.title }));
    know(answered);
  }

  async function rerun() {
    const made = await call("POST", `/jobs/${now.id}/retry`, { key: newKey() });
    announce(say("rerun_done", { title: made.title }));
    know(made);
    if (heading === "h1") location.hash = `#/jobs/${made.id}`;
  }

  async function remove() {
    if (!(await ask(say("remove_question", { title: now.title }), say("remove"), say("keep")))) return;
    await call("DELETE", `/jobs/${now.id}`);
    announce(say("removed", { title: now.title }));
    removed();
    forget(now.id);
  }

  update(job);
  return { node: whole, update };
}

function drawStages(list, job) {
  const way = STAGES[job.kind] ?? (job.stage ? [job.stage] : []);
  const at = job.status === "succeeded" ? way.length : way.indexOf(ASIDE[job.stage] ?? job.stage);
  const over = isFinal(job);
  const standing = way.map((stage, index) => {
    if (index < at) return "done";
    if (index > at || job.status === "queued" || job.status === "pending" || job.status === "cancelled") return "next";
    return over ? "failed" : "now";
  });
  const drawn = standing.join(" ");
  if (list.dataset.drawn === drawn) return;
  list.dataset.drawn = drawn;
  list.replaceChildren(
    ...way.map((stage, index) =>
      element(
        "li",
        { class: standing[index], "data-stage": stage, "aria-current": standing[index] === "now" ? "step" : null },
        sayOf("stage", stage),
        element("span", { class: "unseen" }, ` (${say(`stage_${standing[index]}`)})`),
      ),
    ),
  );
}

function why(error) {
  return [
    element("strong", {}, say("why_failed")),
    element("p", { class: "message" }, error.message),
    element(
      "p",
      { class: "note" },
      `${say("code")} `,
      element("a", { href: `/docs/errors#${error.code}` }, element("code", {}, error.code)),
      error.stage ? ` · ${say("in_stage")} ` : "",
      error.stage ? element("b", {}, sayOf("stage", error.stage)) : "",
    ),
    error.retryable ? element("p", { class: "note" }, say("may_succeed")) : "",
  ];
}
