// What pages do besides working: copy, live parts, countdowns, passkeys. Everything but passkeys works without.
"use strict";

const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const say = (text) => { document.getElementById("page-status").textContent = text; };
const get = (path) => fetch(path, { headers: { Accept: "text/html" }, redirect: "manual" }).catch(() => null);

// Times are the server's: a browser's clock may be wrong by any amount, and shift what is left of a lease.
let ahead = 0;
const setClock = (server) => { if (!Number.isNaN(server)) ahead = Date.now() - server; };
setClock(Date.parse(document.documentElement.dataset.now));

// Controls that only a script can serve are hidden until one is here.
all("[data-script]").forEach((element) => { element.hidden = false; });

// Errors take the focus, so that they are read first.
document.querySelector("[data-focus]")?.focus();

// The menu is open without scripts, and folds on a small screen; Escape closes what hangs over the page.
const menu = document.querySelector(".menu");
const small = matchMedia("(max-width: 40rem)");
const fold = () => { if (menu) menu.open = !small.matches; };
small.addEventListener("change", fold);
fold();
addEventListener("keydown", (event) => {
  const open = event.key === "Escape" && document.querySelector(".more[open]");
  if (open) { open.open = false; open.querySelector("summary").focus(); }
});

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const source = document.getElementById(button.dataset.copy);
  let answer = "Copied";
  try {
    await navigator.clipboard.writeText(source.textContent);
  } catch {
    answer = "Select and copy by hand";
    source.closest("details")?.setAttribute("open", "");
    getSelection().selectAllChildren(source);
  }
  button.querySelector("span").textContent = answer;
  say(answer);
});

// A form is sent once: the second press of an impatient hand would ask twice.
document.addEventListener("submit", (event) => {
  if (event.target.dataset.sent) { event.preventDefault(); return; }
  event.target.dataset.sent = "yes";
  all("button[type=submit]", event.target).forEach((button) => button.setAttribute("aria-disabled", "true"));
});

// What is shown once came in answer to a form: going back to it, or reloading, leads to a page that says so.
const once = document.querySelector("[data-shown-once]");
if (once) history.replaceState(null, "", once.dataset.shownOnce);

// Secrets leave with the page, whatever the browser keeps for going back.
addEventListener("pagehide", () => all("[data-wipe]").forEach((element) => element.replaceChildren()));
addEventListener("pageshow", (event) => {
  if (!event.persisted) return;
  if (document.querySelector("[data-wipe]")) location.reload();
  all("form").forEach((form) => { delete form.dataset.sent; });
  all("[aria-disabled]").forEach((button) => button.removeAttribute("aria-disabled"));
});

// Live parts: asked for again while the page is looked at; a changed state is announced, a countdown never.
// An abandoned page stops asking, else it would keep its session from idling out.
let touched = Date.now();
let seen = touched;
["pointermove", "keydown", "scroll"].forEach((kind) => addEventListener(kind, () => { touched = Date.now(); }, { passive: true }));
const mark = (element) => element.id || element.getAttribute("href") || element.form?.getAttribute("action");
all("[data-live]").forEach((part) => {
  const stateOf = (within) => within.querySelector("[data-state]")?.dataset.state;
  const silence = document.getElementById("silence").content.firstElementChild.cloneNode(true);
  let misses = 0;
  const show = (fresh) => {
    const changed = stateOf(part) !== stateOf(fresh);
    const focused = part !== document.activeElement && part.contains(document.activeElement) && document.activeElement;
    // Whoever stands inside is not disturbed for a countdown, nor a form that is on its way.
    if (part.querySelector("[data-sent]") || (focused && !changed)) return;
    part.replaceChildren(...fresh.childNodes);
    const again = focused && all("a, button", part).find((element) => mark(element) === mark(focused));
    if (focused) (again ?? Object.assign(part, { tabIndex: -1 })).focus();
    if (changed) say(`Now ${stateOf(part)}`);
  };
  const ask = async () => {
    if (part.querySelector("[data-final]")) { clearInterval(timer); return; }
    if (document.visibilityState !== "visible" || Date.now() - touched > 300_000) return;
    const answer = await get(part.dataset.live);
    misses = answer?.ok ? 0 : misses + 1;
    if (misses === 3) { part.before(silence); say(silence.textContent); }
    if (misses) return;
    silence.remove();
    setClock(Date.parse(answer.headers.get("Date")));
    seen = Date.now();
    show(new DOMParser().parseFromString(await answer.text(), "text/html").body);
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
      : "You will be signed out in two minutes because you have been inactive.";
    stay.hidden = aged;
    idle.hidden = !late;
  }, 1000);
  stay.addEventListener("click", async () => {
    const answer = await get("/live/here");
    if (answer?.ok) { seen = touched = Date.now(); idle.hidden = true; say("You stay signed in"); }
  });
}

// The thresholds are those of `duration` on the server.
const UNITS = [["days", 86400, 129600], ["h", 3600, 3570], ["min", 60, 90]];
const left = (seconds) => {
  const [unit, size] = UNITS.find(([, , least]) => seconds >= least) ?? ["s", 1];
  return `${Math.round(seconds / size)} ${unit}`;
};
setInterval(() => all("[data-until]").forEach((element) => {
  const seconds = Math.round((Date.parse(element.dataset.until) - (Date.now() - ahead)) / 1000);
  element.textContent = seconds > 0 ? `in ${left(seconds)}` : "now";
}), 1000);

// Password managers put objects of their own in the browser's place: what converts them may be missing, or throw.
const CONVERTERS = { create: "parseCreationOptionsFromJSON", get: "parseRequestOptionsFromJSON" };
const encoded = (buffer) => btoa(String.fromCharCode(...new Uint8Array(buffer)))
  .replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
const decoded = (text) => Uint8Array.from(
  atob(text.replaceAll("-", "+").replaceAll("_", "/")), (character) => character.charCodeAt(0));
const attempt = (convert) => { try { return convert(); } catch { return null; } };
const publicKeyOf = (kind, options) => attempt(() => PublicKeyCredential[CONVERTERS[kind]](options)) ?? {
  ...options,
  challenge: decoded(options.challenge),
  ...(options.user ? { user: { ...options.user, id: decoded(options.user.id) } } : {}),
  ...Object.fromEntries(["excludeCredentials", "allowCredentials"].filter((name) => options[name])
    .map((name) => [name, options[name].map((item) => ({ ...item, id: decoded(item.id) }))])),
};
const PARTS = ["clientDataJSON", "attestationObject", "authenticatorData", "signature", "userHandle"];
const jsonOf = (credential) => {
  const own = attempt(() => credential.toJSON());
  if (own?.response) return own;
  const response = Object.fromEntries(PARTS.filter((name) => credential.response[name])
    .map((name) => [name, encoded(credential.response[name])]));
  const rawId = encoded(credential.rawId);
  return { id: rawId, rawId, type: "public-key", response, clientExtensionResults: {} };
};

// Passkeys: the answer of the device goes into the form it is needed for, and the form goes the ordinary way.
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-passkey]");
  if (!button) return;
  const options = JSON.parse(button.dataset.options);
  try {
    const credential = button.dataset.passkey === "create"
      ? await navigator.credentials.create({ publicKey: publicKeyOf("create", options) })
      : await navigator.credentials.get({ publicKey: publicKeyOf("get", options) });
    button.form.elements.passkey.value = JSON.stringify(jsonOf(credential));
    button.form.requestSubmit();
  } catch (error) {
    document.getElementById("passkey-trouble").textContent =
      `The passkey was not used (${error.name}). Try again, or use a code.`;
  }
});

document.addEventListener("click", (event) => { if (event.target.closest("[data-print]")) print(); });
