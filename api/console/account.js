// Signing in, registering and signing out. The token is the cookie's; no script ever sees it again.

import { announce, button, element, put, say } from "./dom.js";
import { call } from "./http.js";

// Only a hint, so that a visitor who is not signed in is not asked of the API in vain.
const HINT = "millrace.signed-in-until";

export const maySignedIn = () => Number(localStorage.getItem(HINT)) > Date.now();

export const readAccount = () => call("GET", "/auth/me", { signingIn: true });

export function leave() {
  localStorage.removeItem(HINT);
}

export async function signOut() {
  leave();
  await call("DELETE", "/auth/session", { signingIn: true }).catch(() => {});
  announce(say("signed_out"));
}

// What another window of this browser does: signing out here too, or, when somebody else has signed in, that.
export function whenChangedElsewhere(act) {
  window.addEventListener("storage", (event) => event.key === HINT && act(event.newValue !== null));
}

async function signIn(account) {
  const grant = await call("POST", "/auth/login", { json: { ...account, session: true }, signingIn: true });
  localStorage.setItem(HINT, String(Date.now() + grant.expires_in * 1000));
}

let renewing = 0;

// While the session is replaced, an answer that it has ended says nothing new.
export const isRenewing = () => renewing > 0;

// Do what ends the session, and begin another one.
export async function renew(account, work) {
  renewing += 1;
  try {
    await work();
    await signIn(account);
  } finally {
    renewing -= 1;
  }
}

// Show the form; ``done()`` is called once the session is open. ``note`` says why it is shown.
export function askForAccount(main, done, note = "", registering = false) {
  const word = registering ? "register" : "sign_in";
  const problem = element("p", { class: "problem", role: "alert", id: "sign-in-problem" });
  const username = element("input", {
    id: "username", name: "username", autocomplete: "username", autocapitalize: "off", spellcheck: "false",
    required: true, maxlength: 50, minlength: registering ? 3 : null, "aria-describedby": registering ? "username-hint" : null,
    pattern: registering ? "[A-Za-z0-9._\\-]+" : null,
  });
  const password = element("input", {
    id: "password", name: "password", type: "password", autocomplete: registering ? "new-password" : "current-password",
    required: true, maxlength: 128, minlength: registering ? 8 : null, "aria-describedby": registering ? "password-hint" : null,
  });
  const go = element("button", { type: "submit", class: "main" }, say(word));
  const field = (input) =>
    element(
      "div",
      { class: "field" },
      element("label", { for: input.id }, say(input.id)),
      input,
      registering ? element("p", { class: "note", id: `${input.id}-hint` }, say(`${input.id}_hint`)) : null,
    );
  const form = element("form", { class: "sign-in", "aria-labelledby": "sign-in-heading" }, field(username), field(password), problem, go);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (go.getAttribute("aria-disabled") === "true") return;
    go.setAttribute("aria-disabled", "true");
    put(problem, "");
    const account = { username: username.value, password: password.value };
    try {
      if (registering) await call("POST", "/auth/register", { json: account, signingIn: true });
      await signIn(account);
      await done();
    } catch (error) {
      put(problem, error.message);
      const wrong = error.field === "password" || error.status === 401 ? password : username;
      for (const input of [username, password]) input.removeAttribute("aria-invalid");
      if (error.status >= 400 && error.status < 500 && error.status !== 429) {
        wrong.setAttribute("aria-invalid", "true");
        wrong.focus();
      }
    }
    go.removeAttribute("aria-disabled");
  });
  const other = button(say(registering ? "to_sign_in" : "to_register"), () => askForAccount(main, done, "", !registering), { class: "link" });
  main.replaceChildren(
    element("section", { class: "narrow" }, element("h1", { id: "sign-in-heading", tabindex: -1 }, say(word)), element("p", { role: "status" }, note), form, other),
  );
  username.focus();
}
