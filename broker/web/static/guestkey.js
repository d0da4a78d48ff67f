// What pages do besides working: copy, tabs, live parts, countdowns, passkeys. Everything but passkeys works without.
"use strict";

const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const say = (text) => { document.getElementById("status").textContent = text; };

// Controls that only a script can serve are hidden until one is here.
all("[data-script]").forEach((element) => { element.hidden = false; });

// Errors take the focus, so that they are read first.
document.querySelector("[data-focus]")?.focus();

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
  say("Copied");
  button.querySelector("span").textContent = "Copied";
});

// A form is sent once: the second press of an impatient hand would ask twice.
document.addEventListener("submit", (event) => {
  if (event.target.dataset.sent) { event.preventDefault(); return; }
  event.target.dataset.sent = "yes";
  all("button[type=submit]", event.target).forEach((button) => button.setAttribute("aria-disabled", "true"));
});

// Secrets leave with the page, whatever the browser keeps for going back.
addEventListener("pagehide", () => all("[data-wipe]").forEach((element) => element.replaceChildren()));
addEventListener("pageshow", (event) => {
  if (!event.persisted) return;
  if (document.querySelector("[data-wipe]")) location.reload();
  all("form").forEach((form) => {
    delete form.dataset.sent;
    all("[aria-disabled]", form).forEach((button) => button.removeAttribute("aria-disabled"));
  });
});

// Tabs (WAI-ARIA): sections one below the other become panels, one at a time.
all("[data-tabs]").forEach((group) => {
  const panels = all(":scope > section", group);
  const list = Object.assign(document.createElement("div"), { className: "tabs" });
  list.setAttribute("role", "tablist");
  list.setAttribute("aria-label", group.dataset.tabs);
  const select = (chosen) => tabs.forEach((tab, at) => {
    tab.setAttribute("aria-selected", String(at === chosen));
    tab.tabIndex = at === chosen ? 0 : -1;
    panels[at].hidden = at !== chosen;
  });
  const tabs = panels.map((panel, at) => {
    const heading = panel.querySelector("h2");
    const tab = Object.assign(document.createElement("button"), { type: "button", id: `${panel.id}-tab` });
    tab.textContent = heading.textContent;
    tab.setAttribute("role", "tab");
    tab.setAttribute("aria-controls", panel.id);
    tab.addEventListener("click", () => select(at));
    heading.hidden = true;
    panel.setAttribute("role", "tabpanel");
    panel.setAttribute("aria-labelledby", tab.id);
    return tab;
  });
  list.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = (tabs.indexOf(document.activeElement) + step + tabs.length) % tabs.length;
    select(next);
    tabs[next].focus();
  });
  list.append(...tabs);
  group.prepend(list);
  select(0);
});

// Live parts: asked for again while the page is looked at; a changed state is announced, a countdown never.
// An abandoned page stops asking, else it would keep its session from idling out.
let touched = Date.now();
let seen = touched;
["pointermove", "keydown", "scroll"].forEach((kind) => addEventListener(kind, () => { touched = Date.now(); }, { passive: true }));
all("[data-live]").forEach((part) => {
  const ask = async () => {
    if (document.visibilityState !== "visible" || Date.now() - touched > 300_000) return;
    const answer = await fetch(part.dataset.live, { headers: { Accept: "text/html" }, redirect: "manual" }).catch(() => null);
    if (!answer?.ok) return;
    seen = Date.now();
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").body;
    const before = part.querySelector("[data-state]")?.dataset.state;
    const after = fresh.querySelector("[data-state]")?.dataset.state;
    if (!part.contains(document.activeElement)) part.replaceChildren(...fresh.childNodes);
    if (before !== after) say(`Now ${after}`);
    if (part.querySelector("[data-final]")) clearInterval(timer);
  };
  const timer = setInterval(ask, Number(part.dataset.every));
});

// Two minutes before the session ends, idle or by its age, it is said, so that nothing typed is lost.
const idle = document.getElementById("idle");
if (idle) {
  const began = Date.now();
  const stay = document.getElementById("idle-stay");
  setInterval(() => {
    const until = { idle: seen + idle.dataset.idle * 1000, age: began + idle.dataset.left * 1000 };
    const aged = until.age <= until.idle;
    const late = Math.min(until.age, until.idle) - Date.now() < 120_000;
    if (late === !idle.hidden) return;
    document.getElementById("idle-text").textContent = aged
      ? "Your session ends in two minutes. Send or copy what you are writing, then sign in again."
      : "You will be signed out in two minutes, because nothing happened here.";
    stay.hidden = aged;
    idle.hidden = !late;
  }, 1000);
  stay.addEventListener("click", async () => {
    const answer = await fetch("/live/here", { redirect: "manual" }).catch(() => null);
    if (answer?.ok) { seen = touched = Date.now(); idle.hidden = true; say("You stay signed in"); }
  });
}

const UNITS = [["days", 86400], ["h", 3600], ["min", 60]];
const left = (seconds) => {
  const [unit, size] = UNITS.find(([, size]) => seconds >= 1.5 * size) ?? ["s", 1];
  return `${Math.round(seconds / size)} ${unit}`;
};
setInterval(() => all("[data-until]").forEach((element) => {
  const seconds = Math.round((Date.parse(element.dataset.until) - Date.now()) / 1000);
  element.textContent = seconds > 0 ? `in ${left(seconds)}` : "now";
}), 1000);

// Passkeys: the answer of the device goes into the form it is needed for, and the form goes the ordinary way.
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-passkey]");
  if (!button) return;
  const options = JSON.parse(button.dataset.options);
  const making = button.dataset.passkey === "create";
  try {
    const credential = making
      ? await navigator.credentials.create({ publicKey: PublicKeyCredential.parseCreationOptionsFromJSON(options) })
      : await navigator.credentials.get({ publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(options) });
    button.form.elements.passkey.value = JSON.stringify(credential.toJSON());
    button.form.requestSubmit();
  } catch (error) {
    document.getElementById("passkey-trouble").textContent =
      `The passkey was not used (${error.name}). Try again, or use a code.`;
  }
});
