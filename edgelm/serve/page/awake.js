// Which blocks of neurons were awake for each token of an answer.

import { keepsStill } from "./dom.js";

const STEP_MS = 80;
const FADE = 0.72;
const GAP = 1;

/** How often each block of each layer woke, from 0 to 1. */
export function heatMap(data) {
  const counts = new Float32Array(data.layers * data.blocks);
  for (const token of data.tokens) {
    token.forEach((row, layer) => row.forEach((block) => (counts[layer * data.blocks + block] += 1)));
  }
  return counts.map((count) => count / Math.max(1, data.tokens.length));
}

/** Blocks that were awake for a token, over all layers. */
export function awakeCount(token) {
  return token.reduce((sum, row) => sum + row.length, 0);
}

/** A picture of layers x blocks, with a slider over the tokens. */
export class Awake {
  constructor(section, canvas, caption, slider, button) {
    Object.assign(this, { section, canvas, caption, slider, button });
    this.data = null;
    this.glow = new Float32Array(0);
    this.timer = 0;
    slider.addEventListener("input", () => this.pick(Number(slider.value)));
    button.addEventListener("click", () => this.play());
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  /** A model whose blocks are not known yet: all asleep; one without blocks has no such picture. */
  begin(layers, blocks) {
    this.section.hidden = blocks === 0;
    if (this.data || blocks === 0) return;
    this.data = { layers, blocks, tokens: [], texts: [] };
    this.caption.textContent = `${layers} layers of ${blocks} blocks; a few wake for each word`;
    this.rest();
  }

  /** Shows the blocks of an answer, token after token, where things may move. */
  show(data) {
    this.section.hidden = data.blocks === 0 || data.tokens.length === 0;
    if (this.section.hidden) return;
    this.data = data;
    this.slider.max = String(data.tokens.length);
    this.slider.disabled = this.button.disabled = false;
    if (keepsStill()) this.rest();
    else this.play();
  }

  play() {
    this.stop();
    this.glow = new Float32Array(this.data.layers * this.data.blocks);
    let i = 0;
    this.timer = setInterval(() => {
      if (i === this.data.tokens.length) return this.rest();
      this.step(i);
      this.slider.value = String((i += 1));
    }, STEP_MS);
  }

  stop() {
    clearInterval(this.timer);
    this.timer = 0;
  }

  /** The slider was moved: 0 is the whole answer, the others are its tokens. */
  pick(place) {
    this.stop();
    if (place === 0) return this.rest();
    this.glow = new Float32Array(this.data.layers * this.data.blocks);
    this.step(place - 1);
  }

  step(i) {
    const { layers, blocks, tokens, texts } = this.data;
    this.glow = this.glow.map((value) => value * FADE * 0.5);
    tokens[i].forEach((row, layer) => row.forEach((block) => (this.glow[layer * blocks + block] = 1)));
    const text = (texts?.[i] ?? "").trim() || "\u23ce";
    const place = `\u201c${text}\u201d, token ${i + 1} of ${tokens.length}`;
    this.say(`${place}: ${awakeCount(tokens[i])} of ${layers * blocks} blocks awake`);
    this.draw();
  }

  /** The whole answer: the more often a block woke, the stronger it is. */
  rest() {
    this.stop();
    const { layers, blocks, tokens } = this.data;
    this.glow = heatMap(this.data);
    this.slider.value = "0";
    if (tokens.length) {
      const mean = Math.round(tokens.reduce((sum, token) => sum + awakeCount(token), 0) / tokens.length);
      const all = tokens.length === 1 ? "The one token" : `All ${tokens.length} tokens`;
      this.say(`${all}: ${mean} of ${layers * blocks} blocks awake in each`);
    }
    this.draw();
  }

  say(text) {
    this.caption.textContent = text;
    this.slider.setAttribute("aria-valuetext", this.caption.textContent);
    this.canvas.setAttribute("aria-label", `Awake blocks. ${this.caption.textContent}`);
  }

  draw() {
    if (!this.data || !this.canvas.clientWidth) return;
    const { layers, blocks } = this.data;
    const ratio = Math.min(3, devicePixelRatio || 1);
    const [width, height] = [this.canvas.clientWidth * ratio, this.canvas.clientHeight * ratio].map(Math.round);
    if (this.canvas.width !== width) this.canvas.width = width;
    if (this.canvas.height !== height) this.canvas.height = height;
    const pen = this.canvas.getContext("2d");
    const style = getComputedStyle(this.canvas);
    const [asleep, awake] = [style.getPropertyValue("--asleep"), style.getPropertyValue("--awake")];
    pen.clearRect(0, 0, width, height);
    const gap = Math.max(1, Math.round(GAP * ratio));
    for (let i = 0; i < layers * blocks; i += 1) {
      const [left, right] = edges(i % blocks, blocks, width, gap);
      const [top, bottom] = edges(Math.floor(i / blocks), layers, height, gap);
      paint(pen, [left, top, right - left, bottom - top], asleep, awake, this.glow[i] ?? 0);
    }
  }
}

/** Where a cell begins and ends, in whole pixels, so that all gaps look alike. */
function edges(i, n, length, gap) {
  return [Math.round((i * (length + gap)) / n), Math.round(((i + 1) * (length + gap)) / n) - gap];
}

function paint(pen, box, asleep, awake, glow) {
  pen.globalAlpha = 1;
  pen.fillStyle = asleep;
  pen.fillRect(...box);
  if (glow < 0.02) return;
  pen.globalAlpha = Math.min(1, glow);
  pen.fillStyle = awake;
  pen.fillRect(...box);
}
