// A call of the telephone exchange as it is shown, and the choice of the one a recording is of.

import { button, clock, element, moment, phone, put, say, sayOf } from "./dom.js";
import { list } from "./http.js";

const AROUND_MS = 12 * 3600 * 1000; // wide: a mailbox with the wrong time zone is hours off
const AROUND_ANY_MS = 3600 * 1000; // whatever the numbers
const PAGES = 5;
const OFFERED = 50;

const side = ({ number, raw, extension }) => [number ? phone(number) : null, extension].filter(Boolean).join(", ") || raw || say("number_unknown");

// What is known of a call, as a list of facts.
export function describeCall(one) {
  const facts = [
    [say("call_began"), one.began_at && moment(one.began_at)],
    [say("call_from"), side(one.from)],
    [say("call_to"), side(one.to)],
    [say("call_line"), one.line.number && phone(one.line.number)],
    [say("call_direction"), one.direction && sayOf("direction", one.direction)],
    [say("call_outcome"), sayOf("was", one.outcome) + (one.reason ? `: ${sayOf("reason", one.reason)}` : "")],
    [say("call_talk"), one.talk_seconds === null ? null : clock(one.talk_seconds)],
  ];
  return element("dl", {}, ...facts.filter(([, value]) => value).map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))));
}

// Resolves to the call that was chosen among those near the recording in time, or null.
export function chooseCall(recording) {
  return new Promise((resolve) => {
    const note = element("p", { class: "note", role: "status" });
    const choices = element("div", { class: "choices" });
    const any = element("input", { type: "checkbox", onchange: () => fill() });
    const go = element("button", { type: "submit", class: "main" }, say("link_this"));
    const form = element(
      "form",
      { method: "dialog" },
      element("h2", { id: "choose-heading", tabindex: -1 }, say("choose_call")),
      element("label", { class: "sieve" }, any, say("any_numbers")),
      note,
      element("fieldset", {}, element("legend", { class: "unseen" }, say("calls_near")), choices),
      element("div", { class: "actions" }, button(say("leave_it"), () => dialog.close()), go),
    );
    const dialog = element("dialog", { "aria-labelledby": "choose-heading", class: "wide" }, form);
    let offered = [];
    let asked = 0;
    let chosen = null;

    async function fill() {
      asked += 1;
      const mine = asked;
      put(note, say("loading"));
      try {
        const anything = any.checked || !(recording.from_number && recording.to_number);
        const found = await near(recording, anything);
        if (mine !== asked) return;
        offered = found;
        choices.replaceChildren(...offered.map((one) => choice(one, recording)));
        put(note, offered.length ? say("calls_found", { count: offered.length }) : say(anything ? "no_calls_at_all" : "no_calls"));
        go.hidden = !offered.length;
      } catch (error) {
        if (mine === asked) put(note, say("went_wrong", { reason: error.message }));
      }
    }

    form.addEventListener("submit", () => {
      const picked = form.querySelector("input[type=radio]:checked");
      chosen = offered.find((one) => one.id === picked?.value) ?? null;
    });
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(chosen);
    });
    document.body.append(dialog);
    go.hidden = true;
    dialog.showModal();
    fill();
  });
}

// The calls around the recording, the nearest first: with its two numbers, or with any.
async function near(recording, any) {
  const at = Date.parse(recording.started_at ?? recording.received_at);
  const around = any && recording.started_at ? AROUND_ANY_MS : AROUND_MS;
  const time = (moved) => new Date(at + moved).toISOString();
  const all = (number) => everyPage({ number, since: time(-around), until: time(around), limit: 100 });
  let found = await all(any ? null : recording.from_number);
  if (!any) {
    const other = new Set((await all(recording.to_number)).map((one) => one.id));
    found = found.filter((one) => other.has(one.id));
  }
  const distance = (one) => Math.abs(Date.parse(one.began_at) - at);
  return found.sort((one, other) => distance(one) - distance(other)).slice(0, OFFERED);
}

async function everyPage(query) {
  const found = [];
  let after = null;
  for (let pages = 0; pages < PAGES; pages += 1) {
    const page = await list("/calls", { ...query, after });
    found.push(...page.items);
    after = page.next;
    if (!after) break;
  }
  return found;
}

function choice(one, recording) {
  const facts = [
    one.direction && sayOf("direction", one.direction),
    sayOf("was", one.outcome),
    one.line.number && `${say("call_line")} ${phone(one.line.number)}`,
    one.talk_seconds ? `${say("call_talk")} ${clock(one.talk_seconds)}` : null,
    one.recordings.some(({ id }) => id === recording.id) ? say("call_is_its_own") : one.recordings.length ? say("call_has_one") : null,
  ];
  return element(
    "label",
    { class: "choice" },
    element("input", { type: "radio", name: "call", value: one.id, required: true }),
    element(
      "span",
      {},
      element("b", {}, moment(one.began_at)),
      ` ${side(one.from)} → ${side(one.to)}`,
      element("span", { class: "note" }, facts.filter(Boolean).join(" · ")),
    ),
  );
}
