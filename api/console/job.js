// One job looked at closely: its card, its facts and attempts, what is in its archive, and its results.

import { bytes, button, element, moment, number, say, sayOf, seconds } from "./dom.js";
import { card } from "./card.js";
import { API, call, list } from "./http.js";
import { isFinal, jobs, know } from "./live.js";
import { table } from "./table.js";

const PROBABILITIES = ["score", "probability_of_pathology", "hazard_probability", "probability_of_anomaly"];

// ``heard(type, act)`` listens to changes for as long as the panel is open. Resolves once the job is shown.
export async function lookAt(main, id, heard) {
  const back = element("p", {}, element("a", { href: "#/" }, `← ${say("back")}`));
  const place = element("div", {}, element("h1", { tabindex: -1 }, say("loading")));
  main.replaceChildren(back, place);
  try {
    if (!/^[0-9a-f-]{36}$/.test(id)) throw Object.assign(new Error(), { status: 404 });
    know(await call("GET", `/jobs/${id}`));
  } catch (error) {
    if (error.status === 401) return;
    const text = error.status === 404 ? say("not_there") : say("went_wrong", { reason: error.message });
    place.replaceChildren(element("h1", { tabindex: -1 }, text), button(say("retry"), () => lookAt(main, id, heard)));
    return;
  }
  const job = jobs.get(id);
  const shown = card(job, { heading: "h1", removed: () => (location.hash = "#/") });
  const parts = { facts: element("section"), archive: element("section"), results: element("section"), attempts: element("section") };
  const drawn = {};
  // A part is drawn once what it shows is there, and again when that has changed.
  const draw = (name, state, make) => {
    if (drawn[name] === state) return;
    drawn[name] = state;
    make(parts[name], jobs.get(id));
  };
  const update = (fresh) => {
    shown.update(fresh);
    draw("facts", `${fresh.status} ${fresh.file?.id}`, drawFacts);
    draw("archive", hasListing(fresh), drawArchive);
    draw("results", fresh.results_parsed_at ?? fresh.status, drawResults);
    draw("attempts", `${fresh.stage} ${fresh.status}`, drawAttempts);
  };
  place.replaceChildren(shown.node, parts.facts, parts.results, parts.archive, parts.attempts);
  heard("job", (told) => told.job.id === id && update(told.job));
  heard("gone", (gone) => gone === id && (location.hash = "#/"));
  heard("reread", () => call("GET", `/jobs/${id}`).then((fresh) => know(fresh), () => {}));
  update(job);
}

// What failed while it was inspected, or was cancelled before, has none.
const hasListing = (job) => job.file?.type === "zip" && job.progress >= 10 && job.error?.stage !== "inspect";

const heading = (word) => element("h2", {}, say(word));

function drawFacts(part, job) {
  const facts = [
    [say("file"), job.file?.name],
    [say("size"), job.file && bytes(job.file.size)],
    [say("content_type"), job.file?.content_type],
    ["SHA-256", job.file && element("code", {}, job.file.sha256)],
    [say("profile"), job.profile],
    [say("threshold").split(",")[0], job.threshold !== null && number(job.threshold)],
    [say("priority"), sayOf("priority", job.priority)],
    [say("created"), moment(job.created_at)],
    [say("completed"), job.completed_at && moment(job.completed_at)],
    [say("took"), job.completed_at && job.started_at && seconds(job.started_at, job.completed_at)],
    [say("rerun_of"), job.parent_id && element("a", { href: `#/jobs/${job.parent_id}` }, job.parent_id)],
    [say("job_id"), element("code", {}, job.id)],
  ];
  part.replaceChildren(
    heading("facts"),
    element("dl", {}, ...facts.filter(([, value]) => value).map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value)))),
    job.file ? element("p", {}, element("a", { class: "button", href: `${API}/jobs/${job.id}/file`, download: "" }, say("download_file"))) : "",
  );
}

async function drawArchive(part, job) {
  if (!hasListing(job)) return part.replaceChildren();
  let info;
  try {
    info = await call("GET", `/jobs/${job.id}/zip-info`);
  } catch {
    return part.replaceChildren(); // it was refused or is not read yet: the job itself says so
  }
  const plain = (key, word, show = (value) => String(value ?? "")) => ({ key, label: say(word), value: (row) => row[key], cell: (row) => show(row[key]) });
  const size = (key, word) => ({ ...plain(key, word, bytes), number: true });
  return part.replaceChildren(
    heading("archive"),
    element("p", {}, say("archive_sum", { entries: number(info.entries), size: bytes(info.size), packed: bytes(info.compressed_size) })),
    table({
      caption: say("archive"),
      total: info.entries,
      columns: [
        { ...plain("name", "entry_name"), cell: (row) => entryName(job, row) },
        size("size", "entry_size"),
        size("compressed_size", "entry_packed"),
        plain("content_type", "entry_type"),
        plain("method", "entry_method"),
        plain("modified_at", "entry_modified", (value) => (value ? element("time", { datetime: value }, value.replace("T", " ")) : "")),
      ],
      fetchPage: async (after, limit) => {
        const page = await list(`/jobs/${job.id}/zip-contents`, { limit, after });
        return { rows: page.items, next: page.next };
      },
    }),
  );
}

function entryName(job, { index, name, is_folder }) {
  if (is_folder) return name;
  return element("a", { href: `${API}/jobs/${job.id}/zip-contents/${index}`, download: "", "aria-label": say("entry_get", { name }) }, name);
}

async function drawResults(part, job) {
  // of a capability that has a panel of its own: what came of it is there
  if (document.querySelector(`[data-panel="${job.kind}"]`)) {
    return part.replaceChildren(element("p", {}, element("a", { class: "button", href: `#/${job.kind}/job/${job.id}` }, say("came_of_it"))));
  }
  if (!job.results_parsed_at) {
    return part.replaceChildren(...(isFinal(job) ? [heading("results"), element("p", { class: "note" }, say("no_results"))] : []));
  }
  const path = `/jobs/${job.id}/results`;
  let head;
  try {
    head = await list(path, { limit: 1 });
  } catch (error) {
    return part.replaceChildren(heading("results"), element("p", { class: "problem", role: "alert" }, say("went_wrong", { reason: error.message })));
  }
  const { summary } = head;
  const flagged = summary.flagged ?? summary.pathologies;
  const sums = [say("results_sum", { rows: number(summary.rows) }), flagged === null ? "" : say("results_flagged", { flagged: number(flagged) })];
  return part.replaceChildren(
    heading("results"),
    element("p", {}, sums.filter(Boolean).join(", ")),
    element("p", {}, element("a", { class: "button", href: `${API}${path}.xlsx`, download: "" }, say("download_results"))),
    warnings(head),
    table({
      caption: say("results"),
      total: summary.rows,
      marked,
      sieve: flagged ? say("only_flagged") : null,
      columns: (rows) => resultColumns(head, rows),
      fetchPage: (after, limit) => list(path, { limit, after }),
    }),
  );
}

const marked = (row) => row.flagged === true || row.pathology === 1;

// What is unknown to Millrace may stand in some rows only: it has a column once such a row has come.
function resultColumns(head, rows) {
  const extra = [...new Set(rows.flatMap((row) => Object.keys(row.extra ?? {})))].map((key) => ({ key, from: (row) => row.extra?.[key], label: key }));
  const known = head.columns.map((key) => ({ key, from: (row) => row[key], label: sayOf("column", key) }));
  // what is flagged is what one has come for: it stands beside the name, whatever the file's order
  known.sort((one, other) => rank(one.key) - rank(other.key));
  return [...known, ...extra].map(({ key, from, label }) => ({
    key,
    label,
    number: key !== "pathology" && typeof rows.map(from).find((value) => (value ?? null) !== null) === "number",
    value: (row) => orNull(from(row)),
    cell: (row) => shownCell(key, from(row), row),
  }));
}

const rank = (key) => ({ path: 0, path_to_study: 0, flagged: 1, pathology: 1 })[key] ?? 2;

function orNull(value) {
  if (value === null || value === undefined) return null;
  return typeof value === "object" ? JSON.stringify(value) : value;
}

function shownCell(key, value, row) {
  if (value === null || value === undefined) return "";
  if (key === "flagged" || key === "pathology") {
    return marked(row) ? element("b", { class: "flag" }, `⚑ ${say("flagged_row")}`) : say("no");
  }
  if (typeof value === "boolean") return say(value ? "yes" : "no");
  if (typeof value === "number") return key === "size" ? bytes(value) : number(value, PROBABILITIES.includes(key) ? 2 : 6);
  return orNull(value);
}

function warnings(head) {
  if (!head.warnings_total) return "";
  const said = head.warnings.slice(0, 20).map((one) => element("li", {}, say("warning_at", one)));
  return element("details", { class: "options" }, element("summary", {}, say("results_warnings", { count: head.warnings_total })), element("ul", {}, ...said));
}

async function drawAttempts(part, job) {
  let page;
  try {
    page = await list(`/jobs/${job.id}/attempts`, { limit: 200 });
  } catch {
    return;
  }
  if (!page.items.length) return part.replaceChildren();
  const words = ["attempt_step", "attempt_number", "attempt_outcome", "attempt_started", "took", "attempt_worker", "attempt_error"];
  const rows = page.items.map((one) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, sayOf("stage", one.step)),
      element("td", { class: "number" }, String(one.attempt)),
      element("td", {}, sayOf("outcome", one.outcome)),
      element("td", {}, moment(one.started_at)),
      element("td", { class: "number" }, one.finished_at ? seconds(one.started_at, one.finished_at) : ""),
      element("td", {}, one.worker ?? ""),
      element("td", {}, one.error ? `${one.error.code}: ${one.error.message}` : ""),
    ),
  );
  const open = part.querySelector("details")?.open ?? false;
  part.replaceChildren(
    element(
      "details",
      { class: "options", open },
      element("summary", {}, say("attempts")),
      element(
        "div",
        { class: "scrolled", tabindex: 0, role: "region", "aria-label": say("attempts") },
        element("table", {}, element("thead", {}, element("tr", {}, ...words.map((word) => element("th", { scope: "col" }, say(word))))), element("tbody", {}, ...rows)),
      ),
    ),
  );
}
