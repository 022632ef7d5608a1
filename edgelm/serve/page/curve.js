// The curve of the bits that learning gained, added up turn by turn.

import { bits, counted, signed, svg } from "./dom.js";

const WIDTH = 320;
const HEIGHT = 88;
const MARGIN = 5;

/** The sums after each turn, with 0 before the first. */
export function sums(gains) {
  const found = [0];
  for (const gain of gains) found.push(found[found.length - 1] + gain);
  return found;
}

/** Where the sums stand in the picture. */
function places(values) {
  const low = Math.min(0, ...values);
  const high = Math.max(1, ...values);
  const across = (WIDTH - 2 * MARGIN) / Math.max(1, values.length - 1);
  const up = (HEIGHT - 2 * MARGIN) / (high - low);
  return values.map((value, i) => [MARGIN + i * across, HEIGHT - MARGIN - (value - low) * up]);
}

/** Draws the curve, and says in words what it shows. */
export class Curve {
  constructor(picture, total, note) {
    this.picture = picture;
    this.total = total;
    this.note = note;
    this.gains = [];
  }

  show(gains) {
    this.gains = [...gains];
    const values = sums(gains);
    const last = values[values.length - 1];
    this.total.textContent = bits(last);
    this.note.textContent = gains.length
      ? `over ${counted(gains.length, "turn", "turns")}, the last ${signed(gains[gains.length - 1])}`
      : "since the start; nothing was learned yet";
    this.picture.setAttribute("aria-label", `Bits gained: ${bits(last)}, ${this.note.textContent}`);
    this.picture.toggleAttribute("hidden", gains.length === 0);
    this.picture.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    this.picture.replaceChildren(...this.drawn(places(values)));
  }

  add(gain) {
    this.show([...this.gains, gain]);
  }

  drawn(points) {
    const foot = HEIGHT - 0.5;
    const floor = svg("path", { class: "floor", d: `M0 ${foot}H${WIDTH}` });
    if (points.length < 2) return [floor];
    const line = points.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join("L");
    const [x, y] = points[points.length - 1];
    const dots = points.length > 40 ? [] : points.slice(1, -1).map(([cx, cy], i) =>
      svg("circle", { class: "step", cx, cy, r: 1.8 }, this.titleOf(i)));
    return [
      svg("path", { class: "area", d: `M${points[0][0]} ${foot}L${line}V${foot}Z` }), floor,
      svg("path", { class: "line", d: `M${line}` }), ...dots,
      svg("circle", { class: "last", cx: x, cy: y, r: 3.5 }, this.titleOf(points.length - 2)),
    ];
  }

  titleOf(i) {
    return svg("title", {}, `turn ${i + 1}: ${signed(this.gains[i])} bits`);
  }
}
