// The form of one mailbox, in a dialog: a new one, or changes to one that is there.

import { button, element, put, say, sayOf } from "./dom.js";
import { call, newKey } from "./http.js";

const SECURITY = ["tls", "starttls", "none"];
const AFTER = ["none", "seen", "move"];
const PORTS = { tls: 993, starttls: 143, none: 143 };

const inList = (text) => text.split(/[,\n]/).map((one) => one.trim()).filter(Boolean);

// Resolves to the mailbox as it is then, or null. ``mailbox`` null: a new one.
export function changeMailbox(mailbox) {
  return new Promise((resolve) => {
    const was = mailbox ?? { host: "", port: 993, security: "tls", username: "", folder: "INBOX", rules: {}, time_zone: "Europe/Moscow", after_action: "none", move_to: null, poll_seconds: 300, enabled: true };
    const rules = { senders: [], subjects: [], attachment: "*", max_age_days: 30, ...was.rules };
    const inputs = {
      host: input("host", { value: was.host, required: true, maxlength: 253, spellcheck: "false", autocapitalize: "off" }),
      security: select("security", SECURITY, was.security, (one) => sayOf("security", one)),
      port: input("port", { value: was.port, type: "number", min: 1, max: 65535, required: true }),
      username: input("username", { value: was.username, required: true, maxlength: 255, autocomplete: "off", spellcheck: "false", autocapitalize: "off" }),
      secret: input("secret", { type: "password", required: !mailbox, maxlength: 8192, autocomplete: "new-password" }),
      folder: input("folder", { value: was.folder, required: true, maxlength: 255 }),
      senders: input("senders", { value: rules.senders.join(", ") }),
      subjects: input("subjects", { value: rules.subjects.join(", ") }),
      attachment: input("attachment", { value: rules.attachment, required: true, maxlength: 255 }),
      max_age_days: input("max_age_days", { value: rules.max_age_days, type: "number", min: 1, max: 3650, required: true }),
      after_action: select("after_action", AFTER, was.after_action, (one) => sayOf("after", one)),
      move_to: input("move_to", { value: was.move_to ?? "", maxlength: 255 }),
      poll_seconds: input("poll_seconds", { value: was.poll_seconds, type: "number", min: 1, max: 604800, required: true }),
      time_zone: input("time_zone", { value: was.time_zone, required: true, maxlength: 64, spellcheck: "false" }),
      enabled: element("input", { id: "box-enabled", type: "checkbox", checked: was.enabled }),
    };
    const hints = { secret: mailbox ? "secret_kept" : null, senders: "any_of_these", subjects: "any_of_these" };
    const problem = element("p", { class: "problem", role: "alert" });
    const go = element("button", { type: "submit", class: "main" }, say("save"));
    const rows = {};
    for (const [key, one] of Object.entries(inputs)) {
      if (key === "enabled") continue;
      const hint = hints[key] && element("p", { class: "note", id: `${one.id}-hint` }, say(hints[key]));
      if (hint) one.setAttribute("aria-describedby", `${one.id}-hint`);
      rows[key] = element("div", { class: "field" }, element("label", { for: one.id }, say(`box_${key}`)), one, hint);
    }
    const form = element(
      "form",
      {},
      element("h2", { id: "mailbox-heading" }, say(mailbox ? "edit_mailbox" : "add_mailbox")),
      element("div", { class: "fields" }, ...Object.values(rows)),
      element("label", { class: "sieve" }, inputs.enabled, say("box_enabled")),
      problem,
      element("div", { class: "actions" }, button(say("leave_it"), () => dialog.close()), go),
    );
    const dialog = element("dialog", { "aria-labelledby": "mailbox-heading", class: "wide" }, form);
    let saved = null;

    const settle = () => {
      rows.move_to.hidden = inputs.after_action.value !== "move";
      inputs.move_to.required = !rows.move_to.hidden;
    };
    inputs.after_action.addEventListener("change", settle);
    inputs.security.addEventListener("change", () => (inputs.port.value = PORTS[inputs.security.value]));

    function body() {
      const of = (key) => inputs[key].value.trim();
      const whole = {
        host: of("host"),
        security: of("security"),
        port: Number(of("port")),
        username: of("username"),
        folder: of("folder"),
        rules: { senders: inList(of("senders")), subjects: inList(of("subjects")), attachment: of("attachment"), max_age_days: Number(of("max_age_days")) },
        after_action: of("after_action"),
        move_to: of("after_action") === "move" ? of("move_to") : null,
        poll_seconds: Number(of("poll_seconds")),
        time_zone: of("time_zone"),
        enabled: inputs.enabled.checked,
      };
      if (inputs.secret.value) whole.secret = inputs.secret.value;
      if (!mailbox) return whole;
      // only what has changed: another host, user, folder or rule makes the whole folder be looked at again
      return Object.fromEntries(Object.entries(whole).filter(([key, value]) => JSON.stringify(value) !== JSON.stringify(key === "rules" ? rules : was[key])));
    }

    let key = newKey(); // sent twice, it is still one mailbox; another body wants another key
    form.addEventListener("input", () => (key = newKey()));
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      if (go.getAttribute("aria-disabled") === "true") return;
      go.setAttribute("aria-disabled", "true");
      put(problem, "");
      for (const one of Object.values(inputs)) one.removeAttribute("aria-invalid");
      try {
        saved = mailbox ? await call("PUT", `/mailboxes/${mailbox.id}`, { json: body() }) : await call("POST", "/mailboxes", { json: body(), key });
        dialog.close();
      } catch (error) {
        put(problem, error.message);
        const wrong = inputs[error.field?.split(/[.[]/).at(0)] ?? inputs[error.field?.split(".").at(-1)];
        wrong?.setAttribute("aria-invalid", "true");
        wrong?.focus();
      }
      go.removeAttribute("aria-disabled");
    });
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(saved);
    });
    settle();
    document.body.append(dialog);
    dialog.showModal();
  });
}

const input = (name, attributes) => element("input", { id: `box-${name}`, ...attributes });

const select = (name, values, chosen, word) =>
  element("select", { id: `box-${name}` }, ...values.map((one) => element("option", { value: one, selected: one === chosen }, word(one))));
