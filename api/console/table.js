// A table of a list that comes in pages: paged through, sorted by any column. The API gives the list's own order, so
// before the first sorting (or sieving) the rest of it is fetched; what is shown is then sorted whole, not a page of it.

import { announce, button, element, language, put, say } from "./dom.js";

const SHOWN = 25;
const AT_ONCE = 1000; // what the API gives in one page at most

// columns: [{key, label, value(row), cell(row)}], or what makes them of the rows that have come; fetchPage(after, limit) resolves to {rows, next}; total is how many
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
  const start = button(say("first_page"), () => turn(-Infinity));
  const back = button(say("previous"), () => turn(-SHOWN));
  const on = button(say("next"), () => turn(SHOWN));
  const end = button(say("last_page"), () => turn(Infinity));
  const head = element("tr");
  let shownColumns = [];
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
      element("table", {}, element("caption", { class: "unseen" }, caption), element("thead", {}, head), body),
    ),
    element("div", { class: "pages", role: "group", "aria-label": say("pages_of", { caption }) }, start, back, place, on, end, note),
  );

  const atStart = () => first === 0;
  const atEnd = () => next === null && first + SHOWN >= shown.length;

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
      const last = Math.max(0, Math.ceil(shown.length / SHOWN) - 1) * SHOWN;
      first = Math.min(last, Math.max(0, first + by));
    });

  const sort = (column) =>
    attempt(async () => {
      await fetchUpTo(Infinity);
      order = { column, down: order?.column.key === column.key && !order.down };
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

  function drawHeads() {
    const fresh = typeof columns === "function" ? columns(rows.map(({ row }) => row)) : columns;
    if (fresh.map(({ key }) => key).join() !== shownColumns.map(({ key }) => key).join()) {
      const focused = [...head.children].findIndex((one) => one.contains(document.activeElement));
      shownColumns = fresh;
      head.replaceChildren(...fresh.map((column) => element("th", { scope: "col", class: column.number ? "number" : null }, button(column.label, () => sort(column)))));
      head.children[focused]?.firstElementChild.focus();
    }
    shownColumns.forEach(({ key }, index) => {
      if (order?.column.key === key) head.children[index].setAttribute("aria-sort", order.down ? "descending" : "ascending");
      else head.children[index].removeAttribute("aria-sort");
    });
  }

  function draw() {
    drawHeads();
    const page = shown.slice(first, first + SHOWN);
    body.replaceChildren(
      ...page.map(({ row }) =>
        element(
          "tr",
          { class: marked(row) ? "marked" : null },
          ...shownColumns.map((column, index) =>
            element(index ? "td" : "th", { scope: index ? null : "row", class: column.number ? "number" : null }, column.cell(row)),
          ),
        ),
      ),
    );
    const all = next === null ? shown.length : Math.max(total ?? 0, shown.length);
    put(place, say("place", { from: page.length ? first + 1 : 0, to: first + page.length, total: all }));
    // Not "disabled": what has the focus must not lose it because the list has ended.
    for (const one of [start, back]) one.setAttribute("aria-disabled", String(atStart()));
    for (const one of [on, end]) one.setAttribute("aria-disabled", String(atEnd()));
  }

  for (const [one, ends] of [[start, atStart], [back, atStart], [on, atEnd], [end, atEnd]]) {
    one.addEventListener("click", (event) => ends() && event.stopImmediatePropagation(), { capture: true });
  }
  attempt(() => fetchUpTo(SHOWN));
  return whole;
}
