// What edgelm is asked, and whether it can be reached.

import { events } from "./stream.js";

const BASE = "/edgelm/v1";

/** Tells "up" or "down" whenever a request was answered, or could not be sent. */
export const reach = new EventTarget();

/** What edgelm said instead of an answer; status 0: it could not be reached. */
export class ApiError extends Error {
  constructor(message, status, code) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export function isAbort(error) {
  return error instanceof DOMException && error.name === "AbortError";
}

/** The same error, or that the connection is lost where the browser says no more than that. */
export function asApiError(error) {
  if (error instanceof ApiError || isAbort(error)) return error;
  reach.dispatchEvent(new Event("down"));
  return new ApiError("The connection to edgelm is lost.", 0, "unreachable");
}

async function request(path, body, signal) {
  const sent = body === undefined ? {} : {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body),
  };
  let response;
  try {
    response = await fetch(BASE + path, { ...sent, signal, cache: "no-store" });
  } catch (error) {
    throw asApiError(error);
  }
  reach.dispatchEvent(new Event("up"));
  if (response.ok) return response;
  const said = await response.json().catch(() => ({}));
  throw new ApiError(said.error?.message ?? `edgelm answered ${response.status}`, response.status, said.error?.code);
}

async function json(path, body) {
  return (await request(path, body)).json();
}

const talk = (id, what) => `/conversations/${encodeURIComponent(id)}${what}`;

export const api = {
  status: () => json("/status"),
  log: (count, before) => json(`/log?count=${count}${before ? `&before=${before}` : ""}`),
  forget: (body) => json("/forget", body),
  conversation: (id) => json(talk(id, "")),
  why: (id) => json(talk(id, "/why")),
  undo: (id) => json(talk(id, "/undo"), {}),
  good: (id) => json(talk(id, "/good"), {}),
  fix: (id, text) => json(talk(id, "/fix"), { text }),
  ask: (id) => json(talk(id, "/ask"), {}),
  events: () => new EventSource(`${BASE}/events`),

  /** The events of a turn, as they come; aborting the signal ends the answer. */
  async *chat(body, signal) {
    const response = await request("/chat", body, signal);
    try {
      yield* events(response);
    } catch (error) {
      throw asApiError(error);
    }
  },
};
