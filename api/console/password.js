// A new password, in a dialog. It ends every token, this browser's too: a new session is begun with it at once.

import { announce, button, element, put, say } from "./dom.js";
import { call } from "./http.js";
import { renew } from "./account.js";

// Resolves to whether it was changed.
export function changePassword(account) {
  return new Promise((resolve) => {
    const current = element("input", { id: "current-password", type: "password", autocomplete: "current-password", required: true, maxlength: 128 });
    const fresh = element("input", {
      id: "new-password", type: "password", autocomplete: "new-password", required: true, minlength: 8, maxlength: 128, "aria-describedby": "new-password-hint",
    });
    const problem = element("p", { class: "problem", role: "alert" });
    const field = (input, word, hint) =>
      element("div", { class: "field" }, element("label", { for: input.id }, say(word)), input, hint && element("p", { class: "note", id: `${input.id}-hint` }, say(hint)));
    const form = element(
      "form",
      {},
      element("h2", { id: "password-heading" }, say("change_password")),
      // for password keepers, which want to know whose it is
      element("input", { type: "text", name: "username", autocomplete: "username", value: account.username, readonly: true, hidden: true }),
      field(current, "current_password"),
      field(fresh, "new_password", "password_hint"),
      element("p", { class: "note" }, say("password_ends")),
      problem,
      element("div", { class: "actions" }, button(say("leave_it"), () => dialog.close()), element("button", { type: "submit", class: "main" }, say("save"))),
    );
    const dialog = element("dialog", { "aria-labelledby": "password-heading" }, form);
    let changed = false;
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      if (form.getAttribute("aria-busy")) return;
      form.setAttribute("aria-busy", "true");
      put(problem, "");
      try {
        await renew({ username: account.username, password: fresh.value }, () =>
          call("PUT", `/users/${account.id}`, { json: { password: fresh.value, current_password: current.value }, signingIn: true }),
        );
        changed = true;
        announce(say("password_changed"));
        dialog.close();
      } catch (error) {
        put(problem, say("went_wrong", { reason: error.message }));
        (error.field === "password" ? fresh : current).focus();
      }
      form.removeAttribute("aria-busy");
    });
    dialog.addEventListener("close", () => (dialog.remove(), resolve(changed)));
    document.body.append(dialog);
    dialog.showModal();
  });
}
