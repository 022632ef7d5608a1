// The log of what was learned: newest first, with forgetting by entry and by words.

import { api } from "./api.js";
import { counted, el, moment } from "./dom.js";

const PAGE = 40;
const MOST = 500;
const KINDS = {
  chat: "you wrote", text: "from a file", good: "approved answer", fix: "corrected answer",
  consolidation: "repeated what was told", checkpoint: "kept the weights", import: "imported",
  unlogged: "learned unseen",
};
const WORDED = ["chat", "text", "good", "fix"];

/** The panel of the log. `page` is told what happens: onForgotten, trouble; `mayForget` says whether it can. */
export class Log {
  constructor(parts, page) {
    Object.assign(this, parts); // list, more, form, match, ask, said, count
    this.page = page;
    this.mayForget = true;
    this.rows = new Map();
    this.wanted = PAGE;
    this.more.addEventListener("click", () => this.loadMore());
    this.match.addEventListener("input", () => this.filter());
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.askAboutWords();
    });
  }

  /** Reads the newest entries again; rows that stay are left as they are. */
  async refresh() {
    let found;
    try {
      found = await api.log(Math.min(MOST, this.wanted));
    } catch {
      return; // That the connection is lost is said elsewhere.
    }
    this.show(found.entries, found.entries[0]?.id ?? 0);
    this.more.hidden = !found.more;
  }

  async loadMore() {
    const oldest = Math.min(...this.rows.keys());
    const found = await api.log(PAGE, oldest).catch(() => null);
    if (!found) return;
    this.wanted += PAGE;
    for (const entry of found.entries) this.put(entry);
    this.more.hidden = !found.more;
    this.filter();
  }

  /** Entries from the id `since` on are these, and no others. */
  show(entries, since) {
    const ids = new Set(entries.map((entry) => entry.id));
    for (const [id, row] of [...this.rows]) {
      if (ids.has(id) || (id < since && entries.length)) continue;
      row.node.remove();
      this.rows.delete(id);
    }
    for (const entry of entries) {
      if (!this.rows.has(entry.id)) this.put(entry);
    }
    this.list.classList.toggle("bare", this.rows.size === 0);
    this.filter();
  }

  /** Puts an entry into the list, the newest first. */
  put(entry) {
    const older = [...this.list.children].find((node) => Number(node.dataset.id) < entry.id);
    this.list.insertBefore(this.row(entry), older ?? null);
  }

  row(entry) {
    const place = el("div", { class: "confirm" });
    const head = el("div", { class: "head" },
      el("span", { class: "id" }, `#${entry.id}`), el("span", { class: "kind" }, KINDS[entry.kind] ?? entry.kind),
      el("time", { datetime: new Date(entry.time * 1000).toISOString() }, moment(entry.time)));
    const node = el("li", { class: `entry ${entry.kind}`, "data-id": entry.id, tabindex: "-1" }, head);
    if (entry.text) node.append(el("p", { class: "text" }, entry.text));
    if (entry.note) node.append(el("p", { class: "note" }, entry.note));
    if (this.mayForget && WORDED.includes(entry.kind)) {
      const name = { type: "button", class: "quiet forget", "aria-label": `Forget entry ${entry.id}` };
      const question = `Forget #${entry.id} for good?`;
      const button = el("button", name, "Forget");
      button.addEventListener("click", () => this.confirm(place, button, question, { ids: [entry.id] }));
      head.append(button);
      node.append(place);
    }
    this.rows.set(entry.id, { node, text: entry.text.toLowerCase() });
    return node;
  }

  /** Asks in the page whether it is meant; Escape says no. */
  confirm(place, button, question, body) {
    const leave = () => {
      place.replaceChildren();
      button.hidden = false;
      button.focus();
    };
    const yes = el("button", { type: "button", class: "danger", onclick: () => this.forget(body, leave) }, "Forget");
    const no = el("button", { type: "button", class: "quiet", onclick: leave }, "Keep");
    const name = { class: "sure", role: "group", "aria-label": question };
    const group = el("div", name, el("span", {}, question), yes, no);
    group.addEventListener("keydown", (event) => event.key === "Escape" && leave());
    button.hidden = true;
    place.replaceChildren(group);
    yes.focus();
  }

  askAboutWords() {
    const words = this.match.value.trim();
    if (!words) return this.match.focus();
    const n = this.filter();
    const shown = this.more.hidden ? counted(n, "entry holds", "entries hold") : `${n} or more entries hold`;
    if (n === 0 && this.more.hidden) return this.say(`No entry holds \u201c${words}\u201d.`);
    this.confirm(this.ask, this.button, `${shown} \u201c${words}\u201d.`, { match: words });
    return null;
  }

  async forget(body, leave) {
    try {
      const { removed, entries } = await api.forget(body);
      leave();
      this.say(`Forgot ${counted(removed, "entry", "entries")}.`);
      this.remove(entries);
      if (body.match) this.match.value = "";
      this.filter();
      this.page.onForgotten();
    } catch (error) {
      leave();
      this.page.trouble(error.message);
    }
  }

  /** Takes rows away; the keyboard goes on with the next one. */
  remove(ids) {
    for (const id of ids) {
      const row = this.rows.get(id);
      if (!row) continue;
      const next = row.node.nextElementSibling ?? row.node.previousElementSibling;
      if (row.node.contains(document.activeElement)) (next ?? this.match).focus();
      row.node.remove();
      this.rows.delete(id);
    }
    this.list.classList.toggle("bare", this.rows.size === 0);
  }

  /** Shows only entries that hold the words; returns how many there are. */
  filter() {
    const words = this.match.value.trim().toLowerCase();
    let n = 0;
    for (const row of this.rows.values()) {
      row.node.hidden = words !== "" && !row.text.includes(words);
      n += row.node.hidden ? 0 : 1;
    }
    return n;
  }

  say(text) {
    this.said.textContent = text;
  }
}
