// Elements, and how numbers are written. Text becomes text nodes: nothing that the server sends is ever read as HTML.

/** An element. Names that begin with "on" are listeners; true sets an empty attribute; false and null set none. */
export function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** The same for SVG. */
export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : String(value));
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

export function byId(id) {
  return document.getElementById(id);
}

/** "1 entry", "2 entries". */
export function counted(n, one, many) {
  return `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
}

/** Whole bits from ten on, tenths below. */
export function bits(value) {
  const shown = Math.abs(value) >= 9.95 ? Math.round(value) : Math.round(value * 10) / 10;
  return (shown === 0 ? 0 : shown).toLocaleString("en");
}

/** Bits with their sign. */
export function signed(value) {
  return `${value < 0 ? "\u2212" : "+"}${bits(Math.abs(value))}`;
}

/** Bytes as kB or MB. */
export function size(bytes) {
  return bytes < 1e6 ? `${Math.round(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

/** The time of day, with the date where that is not today. */
export function moment(seconds) {
  const then = new Date(seconds * 1000);
  const isToday = then.toDateString() === new Date().toDateString();
  const date = isToday ? {} : { month: "short", day: "numeric" };
  return then.toLocaleString("en", { ...date, hour: "2-digit", minute: "2-digit", hour12: false });
}

/** Whether things should keep still. */
export function keepsStill() {
  return matchMedia("(prefers-reduced-motion: reduce)").matches;
}
