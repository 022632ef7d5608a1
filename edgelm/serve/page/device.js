// What the device does and how it fares.

import { counted, el, size } from "./dom.js";

const ACTIONS = {
  kept: "what was learned stays", pulled: "pulled back a little", restored: "taken back to the last good point",
};

const HOT = "the device is hot: learning waits";

/** Share by which general text costs more, with its sign. */
function excess(check) {
  if (!check) return "not checked yet";
  if (check.excess === null) return "could not be scored";
  const percent = check.excess * 100;
  return `${percent < 0 ? "\u2212" : "+"}${Math.abs(percent).toFixed(Math.abs(percent) < 1 ? 2 : 1)} %`;
}

function heat(status) {
  const degrees = status.celsius === null ? "" : `${Math.round(status.celsius)} °C`;
  if (status.is_hot) return [degrees || "hot", HOT];
  return [degrees || "not known here", ""];
}

function speed(rate) {
  return rate ? [`${Math.round(rate)} tokens/s`, "of its last own answer"] : ["not known yet", ""];
}

/** Name, value and a word more, of all that is told of the device. */
export function rows(status) {
  const check = status.guardrail;
  return [
    ["Guardrail", excess(check), check ? `on general text; ${ACTIONS[check.action]}` : ""],
    ["Memory", `${Math.round(status.resident_mb)} MB`, "of the whole process"],
    ["Speed", ...speed(status.tokens_per_s)],
    ["Heat", ...heat(status)],
    ["State", size(status.state_bytes), "however long the text"],
    ["Profile", size(status.profile_bytes), counted(status.entries, "entry", "entries")],
  ];
}

/** What it does now: a word for the eye, and one for the dot's colour. */
export function doing(status) {
  if (status.is_hot) return ["hot", HOT];
  if (status.is_learning) return ["learning", "learning"];
  return ["idle", status.learns || status.may_learn ? "idle" : "only reads"];
}

function fact([name, value, more]) {
  const [main, rest] = [el("span", { class: "value" }, value), el("span", { class: "more" }, more)];
  return el("div", {}, el("dt", {}, name), el("dd", {}, main, " ", rest));
}

export class Device {
  constructor(parts) {
    Object.assign(this, parts); // list, model, state
  }

  show(status) {
    const millions = (status.parameters / 1e6).toFixed(1);
    this.model.textContent = `${status.model} \u00b7 ${millions} M parameters \u00b7 profile ${status.profile}`;
    this.setState(...doing(status));
    this.list.replaceChildren(...rows(status).map(fact));
  }

  setState(kind, text) {
    this.state.dataset.kind = kind;
    if (this.state.textContent !== text) this.state.textContent = text;
  }
}

/** What an event of learning comes to, as a line. */
export function told(name, event) {
  if (name === "segment_learned") {
    const blocks = event.blocks_awake ? `, in ${counted(event.blocks_awake, "block", "blocks")} that were awake` : "";
    return `learned ${counted(event.tokens, "token", "tokens")}${blocks}`;
  }
  if (name === "guardrail_checked") return `general text ${excess(event)}: ${ACTIONS[event.action]}`;
  if (name === "consolidated") {
    const what = `${counted(event.entries, "entry", "entries")}, in ${counted(event.steps, "step", "steps")}`;
    return `${event.complete ? "repeated" : "began to repeat"} ${what}`;
  }
  return `forgot ${counted(event.entry_ids.length, "entry", "entries")}`;
}

export const EVENTS = ["segment_learned", "guardrail_checked", "consolidated", "forgotten"];
