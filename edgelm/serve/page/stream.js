// Server-sent events out of a response to POST, which EventSource cannot make.

/** Takes text in any pieces, and returns the events that are whole. */
export class EventParser {
  constructor() {
    this.rest = "";
    this.name = "";
    this.data = [];
  }

  /** The events, as {name, data}, that end within all that was fed so far. */
  feed(text) {
    const found = [];
    const lines = (this.rest + text).split(/\r\n|\n|\r(?!$)/);
    this.rest = lines.pop();
    for (const line of lines) {
      const event = this.line(line);
      if (event) found.push(event);
    }
    return found;
  }

  line(line) {
    if (line === "") return this.dispatch();
    const colon = line.indexOf(":");
    if (colon === 0) return null; // A comment, sent so that the connection is seen to live.
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "event") this.name = value;
    if (field === "data") this.data.push(value);
    return null;
  }

  dispatch() {
    const event = this.data.length ? { name: this.name || "message", data: this.data.join("\n") } : null;
    this.name = "";
    this.data = [];
    return event;
  }
}

/** The events of a response, their data read as JSON, as they come. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const parser = new EventParser();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      for (const event of parser.feed(value)) yield { name: event.name, data: JSON.parse(event.data) };
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
