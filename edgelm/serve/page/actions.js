// What can be done about an answer: why, good, fix, ask, undo.

import { api } from "./api.js";
import { bits, el, signed } from "./dom.js";

/** Below so many bits an entry is not named among those that moved an answer. */
const LEAST_BITS = 0.2;

/** The row of buttons below an answer; all but "why" are for the last answer alone. */
export class Actions {
  constructor(turn, chat) {
    this.turn = turn;
    this.chat = chat;
    this.place = el("div", { class: "detail" });
    this.done = el("span", { class: "done", role: "status" });
    turn.extra.replaceChildren(this.row(), this.place);
  }

  row() {
    const { may_learn: mayLearn, friend } = this.chat.abilities;
    const button = (name, title, act, only) =>
      el("button", { type: "button", class: only ? "quiet only-last" : "quiet", title, onclick: act }, name);
    this.whyButton = button("Why", "What this answer rests on", () => this.why(), false);
    this.whyButton.setAttribute("aria-expanded", "false");
    const buttons = [this.turn.source, this.whyButton];
    if (mayLearn) {
      buttons.push(button("Good", "Learn this answer too", () => this.good(), true));
      buttons.push(button("Fix", "Say what it should have answered", () => this.edit(), true));
    }
    if (friend) buttons.push(button("Ask", "Ask the larger model that was named", () => this.ask(), true));
    if (mayLearn) buttons.push(button("Undo", "Take this turn back, and what it taught", () => this.undo(), true));
    return el("div", { class: "actions" }, ...buttons, this.done);
  }

  get isLast() {
    return this.chat.isLast(this.turn);
  }

  close() {
    this.place.replaceChildren();
    this.whyButton.setAttribute("aria-expanded", "false");
  }

  async why() {
    const wasOpen = this.whyButton.getAttribute("aria-expanded") === "true";
    this.close();
    if (wasOpen) return;
    this.whyButton.setAttribute("aria-expanded", "true");
    let found = this.known ?? { sources: this.turn.about.sources, influences: null };
    if (this.isLast) found = this.known = await this.chat.ask((id) => api.why(id));
    if (!found || this.whyButton.getAttribute("aria-expanded") !== "true") return;
    this.place.replaceChildren(explained(found));
    this.place.scrollIntoView({ block: "nearest" });
  }

  async good() {
    const said = await this.chat.ask((id) => api.good(id));
    if (said) this.finish("learned as a good answer");
  }

  edit() {
    this.close();
    const area = el("textarea", { rows: "2", "aria-label": "What it should have answered", required: true });
    area.value = this.turn.reply.textContent;
    const leave = () => {
      this.close();
      this.chat.focus();
    };
    const save = () => area.value.trim() && this.fix(area.value.trim());
    const form = el("form", { class: "fix" }, area,
      el("div", { class: "row" }, el("button", { type: "submit", class: "main" }, "Learn this instead"),
        el("button", { type: "button", class: "quiet", onclick: leave }, "Cancel")));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      save();
    });
    area.addEventListener("keydown", (event) => {
      if (event.key === "Escape") leave();
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      save();
    });
    this.place.replaceChildren(form);
    this.place.scrollIntoView({ block: "nearest" });
    area.select();
    area.focus();
  }

  async fix(text) {
    const said = await this.chat.ask((id) => api.fix(id, text));
    if (!said) return;
    this.turn.setReply(said.learned);
    this.close();
    this.finish("corrected, and learned");
    this.chat.focus();
  }

  async ask() {
    this.done.textContent = "asking\u2026";
    const said = await this.chat.ask((id) => api.ask(id));
    this.done.textContent = "";
    if (!said) return;
    this.turn.setReply(said.reply);
    this.turn.setSource("friend");
  }

  async undo() {
    const said = await this.chat.ask((id) => api.undo(id));
    if (said) this.chat.takeBack(this.turn);
  }

  finish(text) {
    this.done.textContent = text;
    this.chat.changed();
  }
}

/** What an answer rests on, and which of the person's words moved it. */
function explained({ sources, influences }) {
  const parts = [];
  if (sources.length) {
    const lines = sources.map((line) => el("li", {}, line));
    parts.push(el("h4", {}, "It rests on"), el("ul", { class: "sources" }, ...lines));
  }
  const moved = influences?.filter((one) => Math.abs(one.bits) >= LEAST_BITS);
  if (moved?.length) {
    parts.push(el("h4", {}, "Your words that moved it"), el("ul", { class: "influences" }, ...moved.map(influence)));
  }
  const note = (text) => parts.push(el("p", { class: "note" }, text));
  if (!parts.length) note("Nothing that you told, and no exchange of the bank: it is the model\u2019s own.");
  if (influences === null) note("Which of your words moved it can be told for the last answer only.");
  return el("div", { class: "why" }, ...parts);
}

function influence(one) {
  const bar = el("span", { class: one.bits < 0 ? "bar against" : "bar", "aria-hidden": "true" });
  bar.style.setProperty("--share", Math.min(1, Math.abs(one.bits) / 12).toFixed(3));
  return el("li", { title: `words ${signed(one.words)}, weights ${signed(one.weights)} bits` },
    el("span", { class: "amount" }, `${signed(one.bits)} ${bits(one.bits) === "1" ? "bit" : "bits"}`), bar,
    el("span", { class: "cause" }, el("span", { class: "id" }, `#${one.id}`), ` ${one.text}`));
}
