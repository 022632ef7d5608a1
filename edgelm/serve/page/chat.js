// The conversation: sends turns, shows answers as they come, and goes on where it was.

import { Actions } from "./actions.js";
import { api, isAbort } from "./api.js";
import { el } from "./dom.js";
import { TurnView } from "./turn.js";

const KEPT = "edgelm.conversation";
const LOST = "The earlier conversation is not kept any more; this begins a new one.";

/** The chat. `page` is told what happens: onAwake, onLearned, onChanged, trouble. */
export class Chat {
  constructor(parts, page) {
    Object.assign(this, parts); // turns, empty, form, area, send, stop, fresh, learn
    this.page = page;
    this.abilities = { may_learn: false, friend: false };
    this.views = [];
    this.conversation = "";
    this.abort = null;
    this.listen();
  }

  listen() {
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit();
    });
    this.area.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.abort?.abort();
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.submit();
    });
    this.stop.addEventListener("click", () => this.abort?.abort());
    this.fresh.addEventListener("click", () => this.begin());
    for (const button of this.empty.querySelectorAll("button")) {
      button.addEventListener("click", () => {
        this.area.value = button.textContent;
        this.focus();
      });
    }
  }

  focus() {
    this.area.focus();
  }

  isLast(view) {
    return this.views[this.views.length - 1] === view;
  }

  /** Shows a conversation that is kept from before the page was loaded. */
  async restore() {
    const id = sessionStorage.getItem(KEPT);
    if (!id) return;
    try {
      const { turns } = await api.conversation(id);
      this.keep(id);
      for (const turn of turns) this.restored(turn);
    } catch {
      sessionStorage.removeItem(KEPT);
    }
  }

  restored({ text, reply }) {
    const view = this.add(text);
    view.setReply(reply);
    view.about = { sources: [] };
    new Actions(view, this);
  }

  keep(id) {
    this.conversation = id;
    if (id) sessionStorage.setItem(KEPT, id);
    else sessionStorage.removeItem(KEPT);
  }

  /** A new conversation; what was learned stays. */
  begin() {
    this.abort?.abort();
    this.keep("");
    this.views = [];
    this.turns.replaceChildren(this.empty);
    this.empty.hidden = false;
    this.focus();
  }

  /** The conversation is not there any more: what is on the page stays, and a new one begins below it. */
  lose() {
    this.keep("");
    this.views.forEach((view) => view.node.classList.add("past"));
    this.views = [];
    this.turns.append(el("p", { class: "divider" }, LOST));
  }

  add(text) {
    const view = new TurnView(text);
    this.empty.hidden = true;
    this.views.push(view);
    this.turns.append(view.node);
    this.scroll();
    return view;
  }

  scroll() {
    this.turns.scrollTop = this.turns.scrollHeight;
  }

  /** Keeps the end in sight, unless the person has scrolled up to read. */
  follow(change) {
    const { scrollTop, scrollHeight, clientHeight } = this.turns;
    const wasAtEnd = scrollHeight - scrollTop - clientHeight < 80;
    change();
    if (wasAtEnd) this.scroll();
  }

  async submit() {
    const text = this.area.value.trim();
    if (!text || this.abort) return;
    this.area.value = "";
    this.page.trouble("");
    const view = this.add(text);
    this.streaming(new AbortController());
    const abort = this.abort;
    try {
      await this.answer(view, text, abort);
    } catch (error) {
      this.failed(view, text, error);
    } finally {
      if (this.abort === abort) this.streaming(null);
    }
  }

  /** Shows "Stop" while an answer streams. */
  streaming(abort) {
    this.abort = abort;
    this.stop.hidden = abort === null;
    this.send.hidden = abort !== null;
  }

  async answer(view, text, abort) {
    const asked = { text, conversation: this.conversation, details: true };
    if (this.abilities.may_learn) asked.learn = this.learn.checked;
    try {
      await this.read(view, api.chat(asked, abort.signal), abort);
    } catch (error) {
      if (error.code !== "no_conversation") throw error;
      view.node.remove();
      this.views.pop();
      this.lose();
      this.views.push(view);
      this.turns.append(view.node);
      await this.read(view, api.chat({ ...asked, conversation: "" }, abort.signal), abort);
    }
  }

  async read(view, events, abort) {
    for await (const { name, data } of events) {
      // What comes after another conversation was begun changes only what the page shows of learning.
      this.follow(() => this.happened(view, name, data, abort));
    }
  }

  happened(view, name, data, abort) {
    const isHere = this.views.includes(view);
    if (name === "words") {
      if (isHere) this.keep(data.conversation);
      view.showWords(data.words);
    } else if (name === "piece") view.addPiece(data.text);
    else if (name === "answer") {
      if (isHere) this.keep(data.conversation);
      view.finish(data);
      new Actions(view, this);
      if (this.abort === abort) this.streaming(null);
      this.page.onChanged();
    } else if (name === "awake") this.page.onAwake(data);
    else if (name === "learned") {
      view.showLearned(data);
      this.page.onLearned(data);
    } else if (name === "error") {
      view.giveUp(data.error.message);
      this.page.onChanged();
    }
  }

  failed(view, text, error) {
    if (view.about) return; // The answer is there; only what it taught is not known.
    if (isAbort(error)) {
      view.giveUp("Stopped. If your words were learned, the log has them.");
      this.page.onChanged();
      return;
    }
    this.page.trouble(error.message);
    view.node.remove();
    this.views = this.views.filter((one) => one !== view);
    this.empty.hidden = this.turns.childElementCount > 1;
    if (!this.area.value) this.area.value = text;
  }

  /** Does something with the conversation; null, with a word of why, where that cannot be done. */
  async ask(act) {
    this.page.trouble("");
    try {
      return await act(this.conversation);
    } catch (error) {
      if (error.code === "no_conversation") this.lose();
      else this.page.trouble(error.message);
      return null;
    }
  }

  /** The last turn was undone. */
  takeBack(view) {
    view.node.remove();
    this.views = this.views.filter((one) => one !== view);
    this.empty.hidden = this.turns.childElementCount > 1;
    this.changed();
    this.focus();
  }

  changed() {
    this.page.onChanged();
  }

  /** Entries were forgotten: the turns that held them go from the page, as they did from the conversation. */
  async sync() {
    if (!this.conversation || this.abort || !this.views.length) return;
    const found = await api.conversation(this.conversation).catch((error) => error);
    if (found.code === "no_conversation") this.lose();
    if (!found.turns) return;
    const left = [...found.turns];
    for (const view of [...this.views]) {
      if (left[0]?.text !== view.text) this.drop(view);
      else if (!left.shift().reply && view.reply.textContent) view.forgetReply();
    }
    this.empty.hidden = this.turns.childElementCount > 1;
  }

  drop(view) {
    view.node.remove();
    this.views = this.views.filter((one) => one !== view);
  }
}
