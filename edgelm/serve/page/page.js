// Puts the page together, and keeps it up to date while it is seen.

import { api, reach } from "./api.js";
import { Awake } from "./awake.js";
import { Chat } from "./chat.js";
import { Curve } from "./curve.js";
import { Device, EVENTS, told } from "./device.js";
import { byId } from "./dom.js";
import { Log } from "./log.js";

const POLL_MS = 4000;
const SOON_MS = 300;
const LEARN = "edgelm.learn";
const LOST = "The connection to edgelm is lost. Trying again\u2026";

const trouble = byId("trouble");
let isLost = false;
let isKnown = false;
let failures = 0;
let entries = -1;
let timer = 0;

function say(text) {
  trouble.textContent = text;
  trouble.hidden = text === "";
}

const page = {
  trouble: (text) => isLost || say(text),
  onAwake: (data) => awake.show(data),
  onLearned: (data) => {
    if (data.tokens) curve.add(data.bits_gained);
    soon();
  },
  onChanged: () => soon(),
  onForgotten: () => {
    chat.sync();
    soon();
  },
};

const device = new Device({ list: byId("facts"), model: byId("model"), state: byId("state") });
const curve = new Curve(byId("curve"), byId("gained"), byId("gained-note"));
const awake = new Awake(byId("awake"), byId("blocks"), byId("caption"), byId("token"), byId("replay"));
const chat = new Chat({
  turns: byId("turns"), empty: byId("empty"), form: byId("composer"), area: byId("text"), send: byId("send"),
  stop: byId("stop"), fresh: byId("fresh"), learn: byId("learn"),
}, page);
const log = new Log({
  list: byId("entries"), more: byId("more"), form: byId("forget"), match: byId("match"), button: byId("forget-words"),
  ask: byId("ask-words"), said: byId("forgot"),
}, page);

/** What a newcomer is told of their words. */
function promise(status) {
  if (!status.may_learn) return "It answers. This server only reads: whatever you write, nothing of it is learned.";
  const learns = status.learns
    ? "It answers, and learns from your words while you write; a minute later you can ask it what you said."
    : "It answers, and learns from your words where the switch below is on.";
  const forgets = "whatever it learned can be forgotten again, entry by entry, in the log.";
  return `${learns} Everything stays on this device, and ${forgets}`;
}

/** What the server can do decides what the page offers. */
function learnStatus(status) {
  chat.abilities = status;
  log.mayForget = status.may_learn;
  byId("forget").hidden = !status.may_learn;
  const kept = localStorage.getItem(LEARN);
  chat.learn.checked = status.may_learn && (kept === null ? status.learns : kept === "true");
  chat.learn.disabled = !status.may_learn;
  byId("promise").textContent = promise(status);
  awake.begin(status.layers, status.blocks);
  isKnown = true;
}

async function update() {
  clearTimeout(timer);
  try {
    const status = await api.status();
    const isFirst = !isKnown;
    if (isFirst) learnStatus(status);
    device.show(status);
    curve.show(status.gains);
    if (status.entries !== entries) await log.refresh();
    entries = status.entries;
    if (isFirst) await chat.restore();
    failures = 0;
  } catch (error) {
    failures += 1;
    if (error.status !== 0) page.trouble(error.message);
  }
  later();
}

/** The next look: after a few seconds, and later and later while nothing answers. */
function later(wait = Math.min(30_000, POLL_MS * 2 ** Math.min(3, Math.max(0, failures - 1)))) {
  clearTimeout(timer);
  if (document.visibilityState === "visible") timer = setTimeout(update, wait);
}

/** Something has changed: the log is read again, and all else. */
function soon() {
  entries = -1;
  if (!isLost) later(SOON_MS);
}

function listen() {
  const source = api.events();
  for (const name of EVENTS) {
    source.addEventListener(name, (event) => {
      const data = JSON.parse(event.data);
      byId("activity").textContent = told(name, data);
      if (name === "forgotten") {
        log.remove(data.entry_ids);
        chat.sync();
      }
      soon();
    });
  }
  source.addEventListener("error", () => {
    // Closed: it was refused, since too many listen. Otherwise the browser tries again by itself.
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, 30_000);
    else reach.dispatchEvent(new Event("down"));
  });
}

reach.addEventListener("down", () => {
  if (!isLost) {
    isLost = true;
    later(SOON_MS);
  }
  say(LOST);
  device.setState("lost", "not connected");
});
reach.addEventListener("up", () => {
  if (isLost) say("");
  isLost = false;
});
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible") update();
  else clearTimeout(timer);
});
chat.learn.addEventListener("change", () => localStorage.setItem(LEARN, String(chat.learn.checked)));
for (const button of document.querySelectorAll("nav button")) {
  button.addEventListener("click", () => {
    document.body.dataset.view = button.value;
    for (const one of document.querySelectorAll("nav button")) one.setAttribute("aria-current", String(one === button));
    awake.draw();
  });
}
update();
listen();
if (matchMedia("(hover: hover)").matches) chat.focus();
