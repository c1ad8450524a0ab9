// Elements, words and numbers as the reader's language has them. No HTML is ever put together from text.

import { words } from "./words.js";

const LANGUAGES = Object.keys(words);
const KEPT = "millrace.language";

export let language = chosen();

function chosen() {
  const wanted = [localStorage.getItem(KEPT), ...navigator.languages.map((one) => one.slice(0, 2).toLowerCase())];
  return wanted.find((one) => LANGUAGES.includes(one)) ?? "en";
}

// For dates and numbers: a reader from Britain who reads English does not want them as in America.
export let locale = locally();

function locally() {
  return navigator.languages.find((one) => one.slice(0, 2).toLowerCase() === language) ?? language;
}

export function speak(wanted) {
  language = wanted;
  locale = locally();
  localStorage.setItem(KEPT, wanted);
}

// The word, with its {places} filled in.
export function say(key, values = {}) {
  return words[language][key].replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
}

// The word for something the API names, or that name where there is none.
export function sayOf(kind, name) {
  return words[language][`${kind}_${name}`] ?? String(name ?? "").replaceAll("_", " ");
}

// What the engine says of a job comes in English. Told in the reader's language where it is one of the sentences that
// stand among the words, else as it came: an ML service says what it likes.
export function retell(message) {
  for (const [key, sentence] of Object.entries(words.en)) {
    if (!key.startsWith("said_")) continue;
    const found = message.match(new RegExp(`^${sentence.replace(/\{(\w+)\}/g, "(?<$1>[\\d ,.]+)")}$`));
    if (found) return say(key, found.groups);
  }
  return message;
}

// element("p", {class: "note", onclick: act}, "text", child): attributes that are null or false are left out.
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export function button(word, act, attributes = {}) {
  return element("button", { type: "button", onclick: act, ...attributes }, word);
}

// Text is only touched where it has changed: a screen reader reads what is touched.
export function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function bytes(count) {
  const units = ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte"];
  const step = count > 0 ? Math.min(units.length - 1, Math.floor(Math.log10(count) / 3)) : 0;
  const format = { style: "unit", unit: units[step], unitDisplay: step ? "short" : "long", maximumFractionDigits: step ? 1 : 0 };
  return new Intl.NumberFormat(locale, format).format(count / 1000 ** step);
}

export function number(value, digits = 4) {
  return new Intl.NumberFormat(locale, { maximumFractionDigits: digits }).format(value);
}

export function percent(value) {
  return new Intl.NumberFormat(locale, { style: "percent" }).format(value / 100);
}

export function moment(text) {
  const format = { dateStyle: "medium", timeStyle: "medium" };
  return element("time", { datetime: text }, new Intl.DateTimeFormat(locale, format).format(new Date(text)));
}

export function seconds(from, to) {
  const format = { style: "unit", unit: "second", unitDisplay: "short", maximumFractionDigits: 1 };
  return new Intl.NumberFormat(locale, format).format(Math.max(0, (new Date(to) - new Date(from)) / 1000));
}

// A time that is only about right: 45 s, 3 min, 2 h.
export function about(count) {
  const [unit, length] = count < 100 ? ["second", 1] : count < 6000 ? ["minute", 60] : ["hour", 3600];
  return new Intl.NumberFormat(locale, { style: "unit", unit, unitDisplay: "short" }).format(Math.ceil(count / length));
}

// How long something plays: 1:05, 1:00:09.
export function clock(count) {
  const whole = Math.round(count);
  const two = (part) => String(part).padStart(2, "0");
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

// A telephone number in the groups it is read in; those of other countries as they are.
export const phone = (e164) => e164.replace(/^\+7(\d{3})(\d{3})(\d{2})(\d{2})$/, "+7 $1 $2-$3-$4");

// ---------------------------------------------------------------- what is said aloud

const waiting = new Map();

// To those who listen and do not see; of several words about one thing only the last within a second.
export function announce(text, about = text) {
  if (!waiting.size) setTimeout(flush, 700);
  waiting.set(about, text);
}

function flush() {
  const log = document.getElementById("announcements");
  for (const text of waiting.values()) log.append(element("p", {}, text));
  while (log.childElementCount > 20) log.firstElementChild.remove();
  waiting.clear();
}

// ---------------------------------------------------------------- asking

// A question with two answers; resolves to whether the first was given. Escape is the second.
export function ask(question, yes, no) {
  return new Promise((resolve) => {
    const dialog = element("dialog", { "aria-labelledby": "question" });
    const answer = (given) => () => (dialog.close(), resolve(given));
    dialog.append(
      element("p", { id: "question" }, question),
      element("div", { class: "actions" }, button(no, answer(false), { autofocus: true }), button(yes, answer(true), { class: "danger" })),
    );
    dialog.addEventListener("cancel", () => resolve(false));
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog);
    dialog.showModal();
  });
}
