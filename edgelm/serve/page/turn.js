// One exchange on the page: what the person wrote, what was answered, and what it taught.

import { el } from "./dom.js";
import { ShadedWords, sentence, total } from "./words.js";

/** Where answers come from, in plain words, and what that means. */
const SOURCES = {
  told: ["from what you told", "Looked up in what you wrote, or in its not being there."],
  bank: ["from the bank", "An exchange that came with edgelm, or that you approved or corrected."],
  model: ["the model\u2019s own words", "Made by the model, word after word."],
  nothing: ["no fitting answer", "Neither the model nor the bank had an answer that fits."],
  heard: ["heard", "Nothing fits what you said, so it says that it has heard you."],
  friend: ["from the friend", "A larger model was asked."],
};
const SLOW_MS = 4000;

/** The view of a turn. What belongs to the conversation is kept by the chat. */
export class TurnView {
  constructor(text) {
    this.text = text;
    this.entries = [];
    this.about = null;
    this.words = new ShadedWords(text);
    this.taught = el("div", { class: "taught", hidden: true });
    this.notes = el("div", { class: "notes" });
    this.source = el("span", { class: "source", hidden: true });
    this.reply = el("p", { class: "reply waiting", "aria-busy": "true" });
    this.extra = el("div", { class: "extra" });
    this.node = el("article", { class: "turn" },
      el("div", { class: "said" }, el("h3", { class: "who" }, "You"),
        el("div", { class: "body" }, this.words.node, this.taught, this.notes)),
      el("div", { class: "answered" }, el("h3", { class: "who" }, "edgelm"),
        el("div", { class: "body" }, this.reply, this.extra)));
    this.slow = setTimeout(() => this.isSlow(), SLOW_MS);
  }

  isSlow() {
    if (this.reply.textContent) return;
    this.reply.dataset.wait = "still working; the first answer after a start takes longest";
  }

  /** What the words cost before they are learned. */
  showWords(tokens) {
    if (!tokens.length) return;
    this.words.showBefore(tokens);
    this.taught.hidden = false;
    this.taught.replaceChildren(el("span", { class: "sum" }, `${sentence(this.words.before)} it is learned`));
  }

  addPiece(text) {
    this.reply.classList.remove("waiting");
    this.reply.append(text);
  }

  /** The whole answer is there. */
  finish(about) {
    this.about = about;
    this.entries = about.entries;
    this.setReply(about.reply);
    this.setSource(about.source);
    if (about.secrets_skipped > 0) this.note("looks like a secret: not learned");
    if (about.entries.length === 0 && !this.words.after) this.leaveUnlearned();
  }

  leaveUnlearned() {
    if (this.words.before) {
      const cost = Math.round(total(this.words.before));
      this.taught.replaceChildren(el("span", { class: "sum" }, `${cost} bits; not learned`));
    }
  }

  setReply(text) {
    this.settle();
    this.reply.textContent = text;
  }

  setSource(source) {
    const [label, title] = SOURCES[source] ?? [source, ""];
    this.source.textContent = label;
    this.source.title = title;
    this.source.dataset.source = source;
    this.source.hidden = false;
  }

  /** The answer was given up, and why. */
  giveUp(why) {
    this.settle();
    this.extra.append(el("p", { class: "note" }, why));
    if (!this.reply.textContent) this.reply.hidden = true;
    if (this.words.before) this.taught.replaceChildren(el("span", { class: "sum" }, sentence(this.words.before)));
  }

  settle() {
    clearTimeout(this.slow);
    this.reply.hidden = false;
    this.reply.classList.remove("waiting", "gone");
    this.reply.removeAttribute("aria-busy");
  }

  /** What the turn taught. */
  showLearned(learned) {
    if (learned.words.length === 0 || !this.words.before) return;
    this.words.showAfter(learned.words);
    const { before, after } = this.words;
    const left = Math.min(1, total(after) / Math.max(0.1, total(before)));
    const meter = el("span", { class: "meter", "aria-hidden": "true" });
    meter.style.setProperty("--left", left.toFixed(3));
    this.taught.hidden = false;
    this.taught.replaceChildren(meter, this.toggle(sentence(before, after).split(", ")));
  }

  /** Two buttons, which say what the words cost: shaded as it was before, or as it is after. */
  toggle(costs) {
    const times = ["before", "after"];
    const buttons = costs.map((cost, i) =>
      el("button", { type: "button", "aria-pressed": String(i === 1), onclick: () => press(i) }, cost));
    const press = (chosen) => {
      this.words.show(times[chosen]);
      buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(i === chosen)));
    };
    return el("span", { class: "toggle", role: "group", "aria-label": "Shade the words as they were" }, ...buttons);
  }

  note(text) {
    this.notes.append(el("p", { class: "note warn" }, text));
  }

  /** What it said was forgotten, since it came after words that were. */
  forgetReply() {
    this.settle();
    this.reply.textContent = "This answer went with what was forgotten.";
    this.reply.classList.add("gone");
    this.source.hidden = true;
    this.extra.replaceChildren();
  }
}
