// The console's start: language, session, and which panel the address names: #/<word>/<what the panel makes of it>.

import { element, language, put, say, speak } from "./dom.js";
import { askForAccount, isRenewing, leave, maySignedIn, readAccount, signOut, whenChangedElsewhere } from "./account.js";
import { whenSignedOut } from "./http.js";
import * as live from "./live.js";
import { changePassword } from "./password.js";
import { forgetAll, recall, stopAll } from "./sending.js";

const find = (id) => document.getElementById(id);
const main = find("main");
const words = document.body.dataset.panels.split(" ").filter(Boolean);

let account = null;
let shown = []; // the words of the panels this account is shown
let panel = null; // what ends with the panel that is open

// ---------------------------------------------------------------- language

function dress() {
  document.documentElement.lang = language;
  document.title = `Millrace: ${say("title")}`;
  for (const node of document.querySelectorAll("[data-say]")) put(node, say(node.dataset.say));
  for (const node of document.querySelectorAll("[data-say-label]")) node.setAttribute("aria-label", say(node.dataset.sayLabel));
  for (const node of document.querySelectorAll("[data-language]")) node.setAttribute("aria-pressed", String(node.dataset.language === language));
  if (account) put(find("account-name"), account.username);
  find("account-name").title = account ? say("signed_in_as", { name: account.username }) : "";
  const panels = find("panels");
  panels.hidden = !account || shown.length < 2;
  panels.replaceChildren(...shown.map((word) => element("a", { href: `#/${word}`, "data-panel": word }, say(`panel_${word}`))));
  markPanel();
  drawConnection();
}

for (const node of document.querySelectorAll("[data-language]")) {
  node.addEventListener("click", () => {
    speak(node.dataset.language);
    dress();
    if (account) show(false);
    else askForAccount(main, enter);
    node.focus();
  });
}

// ---------------------------------------------------------------- session

async function enter() {
  account = await readAccount();
  shown = await panelsFor(account);
  find("account").hidden = false;
  live.open(account);
  dress();
  await show();
  recall(account.id);
}

// A panel may be of no use to this account; then nothing tells of it.
async function panelsFor(who) {
  const mayOpen = async (word) => (await import(`/console/${word}.js`)).isFor?.(who) ?? true;
  const wanted = await Promise.all(words.map((word) => mayOpen(word).catch(() => false)));
  return words.filter((_, place) => wanted[place]);
}

// The first of what a panel is for may come while the console is open.
live.changes.addEventListener("job", async ({ detail: { job } }) => {
  if (!live.isFinal(job) || !words.includes(job.kind) || shown.includes(job.kind)) return;
  const who = account;
  const now = await panelsFor(who);
  if (account !== who || now.length === shown.length) return;
  shown = now;
  dress();
});

function left(note) {
  if (!account) return;
  account = null;
  leave();
  panel?.abort();
  stopAll();
  live.close();
  find("account").hidden = true;
  dress();
  askForAccount(main, enter, note);
}

whenSignedOut(() => isRenewing() || left(say("session_over")));
find("change-password").addEventListener("click", async () => {
  if (await changePassword(account)) live.open(account);
});
find("sign-out").addEventListener("click", async () => {
  await signOut();
  forgetAll();
  left(say("signed_out"));
});

whenChangedElsewhere(async (signedIn) => {
  if (!signedIn) return left(say("signed_out"));
  const now = await readAccount().catch(() => null);
  if (now && now.id !== account?.id) location.reload();
  return undefined;
});

// ---------------------------------------------------------------- connection

function drawConnection() {
  const place = find("connection");
  place.hidden = !account || live.state === "closed";
  place.dataset.state = live.state;
  put(place, live.state === "closed" ? "" : say(live.state));
}

live.changes.addEventListener("state", drawConnection);

// ---------------------------------------------------------------- panels

const address = () => location.hash.replace(/^#\/?/, "").split("/").filter(Boolean).map(decodeURIComponent);

function wordNow() {
  const [word] = address();
  return shown.includes(word) ? word : shown[0];
}

function markPanel() {
  for (const link of document.querySelectorAll("[data-panel]")) {
    if (link.dataset.panel === wordNow()) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

async function show(focused = true) {
  if (!account) return;
  panel?.abort();
  panel = new AbortController();
  const mine = panel;
  const path = address();
  const word = wordNow();
  markPanel();
  const { open } = await import(`/console/${word}.js`);
  if (mine.signal.aborted) return;
  await open(main, path.slice(1), mine.signal, account);
  if (focused && !mine.signal.aborted) main.querySelector("h1")?.focus();
}

window.addEventListener("hashchange", () => show());
// The address is the panel's: the link must not change it.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});

dress();
if (maySignedIn()) enter().catch(() => askForAccount(main, enter));
else askForAccount(main, enter);
