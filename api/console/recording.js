// One recording as a card: who spoke with whom, the player, what is known of it, and the call it is of. Updated in place,
// so that what plays goes on.

import { announce, ask, button, bytes, clock, element, moment, percent, phone, put, say, sayOf } from "./dom.js";
import { chooseCall, describeCall } from "./calls.js";
import { API, Problem, call } from "./http.js";

// ``boxes``: the names of mailboxes by id; ``removed()`` is called once the recording is deleted.
export function recordingCard(recording, boxes, removed) {
  const { id } = recording;
  const heading = element("h2", { id: `recording-${id}` }, ...parties(recording));
  const badge = element("span", { class: "badge" });
  const facts = element("p", { class: "note facts" });
  const warning = element("p", { class: "warning" });
  const problem = element("p", { class: "problem", role: "alert" });
  const known = element("div", {});
  const shown = element("details", { class: "options" }, element("summary", {}, say("call")), known);
  const link = button("", () => act(choose));
  const unlink = button(say("unlink"), () => act(takeOff), { "aria-describedby": heading.id });
  const away = button(say("remove_recording"), () => act(remove), { class: "danger", "aria-describedby": heading.id });
  link.setAttribute("aria-describedby", heading.id);
  const whole = element(
    "article",
    { class: "recording", "data-recording": id, "aria-labelledby": heading.id },
    element("div", { class: "top" }, heading, badge),
    player(recording, problem),
    facts,
    warning,
    shown,
    element("div", { class: "actions" }, link, unlink, away),
    problem,
  );
  let now = recording;
  let described = null; // the call that is shown, or on its way

  function update(fresh) {
    now = fresh;
    const matched = fresh.call_id !== null;
    whole.dataset.match = fresh.status;
    put(badge, sayOf("match", fresh.status) + (matched ? ` · ${sayOf("by", fresh.matched_by)}` : ""));
    facts.replaceChildren(...factsOf(fresh, boxes));
    put(warning, fresh.warning ? sayOf("warning", fresh.warning) : "");
    put(link, say(matched ? "link_another" : "link"));
    if (document.activeElement === unlink && !matched) link.focus();
    unlink.hidden = !matched;
    shown.hidden = !matched;
    if (shown.open) describe();
  }

  async function describe() {
    if (!shown.open || described === now.call_id) return;
    described = now.call_id;
    const mine = described;
    put(known, say("loading"));
    try {
      const found = await call("GET", `/calls/${mine}`);
      if (mine === now.call_id) known.replaceChildren(describeCall(found));
    } catch (error) {
      described = null;
      put(known, say("went_wrong", { reason: error.message }));
    }
  }

  async function act(work) {
    put(problem, "");
    try {
      await work();
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      put(problem, say("went_wrong", { reason: error.message }));
    }
  }

  async function choose() {
    const chosen = await chooseCall(now);
    if (chosen) await putTo(chosen.id);
  }

  // Asked, because an owner who is no admin may not see the call any more once it has no recording of theirs.
  async function takeOff() {
    if (await ask(say("unlink_question"), say("unlink"), say("keep"))) await putTo(null);
  }

  async function remove() {
    if (!(await ask(say("remove_recording_question"), say("remove_recording"), say("keep")))) return;
    await call("DELETE", `/recordings/${id}`);
    announce(say("recording_removed"));
    removed();
  }

  async function putTo(call_id) {
    await call("POST", `/recordings/${id}/link`, { json: { call_id } });
    update(await call("GET", `/recordings/${id}`));
    announce(say(call_id ? "linked" : "unlinked"));
  }

  shown.addEventListener("toggle", describe);
  update(recording);
  return { node: whole, update };
}

function parties({ from_number, to_number, name }) {
  if (!from_number && !to_number) return [name];
  const side = (number) => element("span", { class: "phone" }, number ? phone(number) : say("number_unknown"));
  const arrow = element("span", { "aria-hidden": "true" }, " → ");
  return [side(from_number), arrow, element("span", { class: "unseen" }, ` ${say("calls_to")} `), side(to_number)];
}

function player({ id, name, from_number, to_number, warning }, problem) {
  const source = `${API}/recordings/${id}/audio`;
  const file = element("p", {}, element("a", { class: "button", href: source, download: name }, say("download_recording")));
  if (warning === "not_audio") return file;
  const who = from_number || to_number ? `${from_number ?? ""} → ${to_number ?? ""}` : name;
  const audio = element("audio", { controls: true, preload: "none", src: source, "aria-label": say("recording_of", { who }) });
  // two voices at once are none
  audio.addEventListener("play", () => {
    for (const other of document.querySelectorAll("audio")) if (other !== audio) other.pause();
  });
  // The element does not say whether it was the audio, the connection or the session: a HEAD does, and counts as no listening.
  audio.addEventListener("error", async () => {
    const [at, code] = [audio.currentTime, audio.error?.code];
    audio.load(); // it can be started again, from there
    audio.currentTime = at;
    try {
      await call("HEAD", `/recordings/${id}/audio`);
      if (code === MediaError.MEDIA_ERR_NETWORK) throw new Problem(0, null);
      file.hidden = false;
      put(problem, say("not_playable"));
    } catch (error) {
      put(problem, say("went_wrong", { reason: error.message }));
    }
  });
  audio.addEventListener("playing", () => {
    file.hidden = true;
    put(problem, "");
  });
  file.hidden = true;
  return element("div", {}, audio, file);
}

function factsOf({ started_at, received_at, duration_seconds, speech_share, listened, size, mailbox_id }, boxes) {
  const facts = [
    started_at ? moment(started_at) : element("span", {}, say("received"), " ", moment(received_at)),
    duration_seconds === null ? "" : element("span", { class: "duration" }, `${say("duration")} ${clock(duration_seconds)}`),
    speech_share === null ? "" : element("span", { class: "speech" }, say("speech", { share: percent(Math.round(speech_share * 100)) })),
    listened ? "" : say("not_listened"),
    element("span", {}, bytes(size)),
    boxes.get(mailbox_id) ?? "",
  ].filter(Boolean);
  return facts.flatMap((one, place) => (place ? [" · ", one] : [one]));
}
