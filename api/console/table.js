// A table of a list that comes in pages: paged through, sorted by any column. The API gives the list's own order, so
// before the first sorting (or sieving) the rest of it is fetched; what is shown is then sorted whole, not a page of it.

import { announce, button, element, language, put, say } from "./dom.js";

const SHOWN = 25;
const AT_ONCE = 1000; // what the API gives in one page at most

// columns: [{key, label, value(row), cell(row)}]; fetchPage(after, limit) resolves to {rows, next}; total is how many
// there are in all, marked(row) whether one stands out.
export function table({ caption, columns, fetchPage, total, marked = () => false, sieve = null }) {
  let rows = [];
  let next = null;
  let begun = false;
  let first = 0;
  let order = null; // {column, down}
  let sieved = false;
  let shown = [];

  const body = element("tbody");
  const place = element("span", { class: "place" });
  const note = element("span", { class: "note", role: "status" });
  const back = button(say("previous"), () => turn(-SHOWN));
  const on = button(say("next"), () => turn(SHOWN));
  const heads = columns.map((column) =>
    element("th", { scope: "col", class: column.number ? "number" : null }, button(column.label, () => sort(column))),
  );
  const whole = element(
    "div",
    { class: "table" },
    sieve &&
      element(
        "label",
        { class: "sieve" },
        element("input", { type: "checkbox", onchange: (event) => choose(event.target.checked) }),
        sieve,
      ),
    element(
      "div",
      { class: "scrolled", tabindex: 0, role: "region", "aria-label": caption },
      element("table", {}, element("caption", { class: "unseen" }, caption), element("thead", {}, element("tr", {}, ...heads)), body),
    ),
    element("div", { class: "pages", role: "group", "aria-label": say("pages_of", { caption }) }, back, place, on, note),
  );

  async function fetchUpTo(count) {
    while ((!begun || next !== null) && rows.length < count) {
      const wanted = count === Infinity ? AT_ONCE : SHOWN * 4;
      const page = await fetchPage(begun ? next : null, wanted);
      rows = rows.concat(page.rows.map((row, index) => ({ row, index: rows.length + index })));
      next = page.next;
      begun = true;
      if (next !== null && count === Infinity) put(note, say("loading_rows", { count: rows.length }));
    }
    put(note, "");
    arrange();
  }

  function arrange() {
    shown = sieved ? rows.filter(({ row }) => marked(row)) : [...rows];
    if (!order) return;
    const { column, down } = order;
    const collator = new Intl.Collator(language, { numeric: true });
    shown.sort((one, other) => {
      const [a, b] = [column.value(one.row), column.value(other.row)];
      if (a === null || b === null) return (a === null) - (b === null) || one.index - other.index; // what is missing comes last
      const found = typeof a === "string" || typeof b === "string" ? collator.compare(a, b) : a - b;
      return (down ? -found : found) || one.index - other.index;
    });
  }

  async function attempt(work) {
    whole.setAttribute("aria-busy", "true");
    try {
      await work();
      draw();
    } catch (error) {
      if (error.name !== "AbortError") put(note, say("went_wrong", { reason: error.message }));
    }
    whole.removeAttribute("aria-busy");
  }

  const turn = (by) =>
    attempt(async () => {
      await fetchUpTo(first + by + SHOWN);
      first = Math.max(0, first + by);
    });

  const sort = (column) =>
    attempt(async () => {
      await fetchUpTo(Infinity);
      order = { column, down: order?.column === column && !order.down };
      arrange();
      first = 0;
      announce(say(order.down ? "sorted_down" : "sorted_up", { caption, column: column.label }));
    });

  const choose = (only) =>
    attempt(async () => {
      await fetchUpTo(Infinity);
      sieved = only;
      arrange();
      first = 0;
    });

  function draw() {
    heads.forEach((head, index) => {
      const sorted = order?.column === columns[index];
      if (sorted) head.setAttribute("aria-sort", order.down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    const page = shown.slice(first, first + SHOWN);
    body.replaceChildren(
      ...page.map(({ row }) =>
        element(
          "tr",
          { class: marked(row) ? "marked" : null },
          ...columns.map((column, index) =>
            element(index ? "td" : "th", { scope: index ? null : "row", class: column.number ? "number" : null }, column.cell(row)),
          ),
        ),
      ),
    );
    const all = next === null ? shown.length : Math.max(total ?? 0, shown.length);
    put(place, say("place", { from: page.length ? first + 1 : 0, to: first + page.length, total: all }));
    // Not "disabled": what has the focus must not lose it because the list has ended.
    back.setAttribute("aria-disabled", String(first === 0));
    on.setAttribute("aria-disabled", String(next === null && first + SHOWN >= shown.length));
  }

  for (const [one, ends] of [[back, () => first === 0], [on, () => next === null && first + SHOWN >= shown.length]]) {
    one.addEventListener("click", (event) => ends() && event.stopImmediatePropagation(), { capture: true });
  }
  attempt(() => fetchUpTo(SHOWN));
  return whole;
}
