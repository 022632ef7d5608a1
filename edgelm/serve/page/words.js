// The person's words, and what each of them cost the model.

import { bits, el } from "./dom.js";

/** Bits from which on a word is shaded in full. */
export const MOST_BITS = 14;

/** Tokens as words: a word begins with white space, and costs what its tokens cost together. */
export function joinTokens(tokens) {
  const words = [];
  for (const token of tokens) {
    const begins = words.length === 0 || /^\s/.test(token.text);
    if (begins) words.push({ text: token.text, bits: token.bits });
    else {
      const word = words[words.length - 1];
      word.text += token.text;
      word.bits += token.bits;
    }
  }
  return words;
}

/** How strongly a word is shaded, from 0 to 1. */
export function shade(cost) {
  return Math.min(1, Math.max(0, cost) / MOST_BITS);
}

/** What all words cost together. */
export function total(words) {
  return words.reduce((sum, word) => sum + word.bits, 0);
}

/** A sentence of what words cost before and after, for those who do not see the shading. */
export function sentence(before, after) {
  const cost = `${Math.round(total(before))} bits before`;
  return after ? `${cost}, ${Math.round(total(after))} after` : cost;
}

/** A paragraph whose words are shaded by what they cost. */
export class ShadedWords {
  constructor(text) {
    this.node = el("p", { class: "words" }, text);
    this.text = text;
    this.before = null;
    this.after = null;
    this.spans = [];
  }

  /** Shows what each token cost before it was learned. */
  showBefore(tokens) {
    const words = joinTokens(tokens);
    const spelled = words.map((word) => word.text).join("");
    // Where the template changed what was written, the words stand as they were written, without shading.
    this.before = words;
    if (squeeze(spelled) !== squeeze(this.text)) return;
    this.spans = words.map((word) => el("span", { class: "word" }, word.text.trimStart()));
    const gaps = words.map((word, i) => (i === 0 ? "" : /^\s*/.exec(word.text)[0]));
    this.node.replaceChildren(...this.spans.flatMap((span, i) => [gaps[i], span]));
    this.show("before");
  }

  /** Keeps what each token costs now, and shows that. */
  showAfter(tokens) {
    this.after = joinTokens(tokens);
    this.show("after");
  }

  /** Shades by what words cost "before" or "after". */
  show(when) {
    const words = when === "after" && this.after ? this.after : this.before;
    this.node.dataset.when = when;
    this.spans.forEach((span, i) => {
      span.style.setProperty("--heat", shade(words[i]?.bits ?? 0).toFixed(3));
      span.style.setProperty("--was", shade(this.before[i].bits).toFixed(3));
      span.title = this.title(i);
    });
  }

  title(i) {
    const after = this.after?.[i];
    return `${bits(this.before[i].bits)} bits before${after ? `, ${bits(after.bits)} after` : ""}`;
  }
}

function squeeze(text) {
  return text.replace(/\s+/g, " ").trim();
}
