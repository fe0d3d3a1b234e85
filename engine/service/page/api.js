// The service's HTTP interface. Addresses are relative to this file, so the page works behind any prefix.

import { events } from "./sse.js";

const ROOT = new URL("../", import.meta.url);
const KEY = "cellscribe-key";

/** An error with the server's sentence; `code` 0 means that no answer came, or that one broke off. */
export class ApiError extends Error {
  constructor(message, { type = "server_error", code = 0, param = null, retryAfter = null } = {}) {
    super(message);
    Object.assign(this, { type, code, param, retryAfter });
  }
}

export const hasKey = () => Boolean(sessionStorage.getItem(KEY));
export const keepKey = (key) => sessionStorage.setItem(KEY, key);
export const forgetKey = () => sessionStorage.removeItem(KEY);

async function failure(response) {
  let error = {};
  try {
    error = (await response.json()).error ?? {};
  } catch {
    // a proxy's page, or nothing: the status is all there is
  }
  const seconds = Number(response.headers.get("Retry-After"));
  return new ApiError(error.message ?? "", {
    type: error.type ?? "server_error",
    code: response.status,
    param: error.param ?? null,
    retryAfter: seconds > 0 ? seconds : null,
  });
}

async function ask(path, { method = "GET", headers = {}, body, signal } = {}) {
  const key = sessionStorage.getItem(KEY);
  const sent = key ? { ...headers, Authorization: `Bearer ${key}` } : headers;
  let response;
  try {
    response = await fetch(new URL(path, ROOT), { method, headers: sent, body, signal, credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("", { type: "unreachable" });
  }
  if (!response.ok) throw await failure(response);
  return response;
}

const json = (value) => ({ method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(value) });

export const models = async () => (await (await ask("v1/models")).json()).data;

export async function cells(source, column, signal) {
  const query = new URLSearchParams(column ? { source, column } : { source });
  return (await ask(`v1/cells?${query}`, { signal })).json();
}

export async function upload(file, signal) {
  const query = new URLSearchParams({ name: file.name });
  const headers = { "Content-Type": "application/x-hdf5" };
  return (await ask(`v1/uploads?${query}`, { method: "POST", headers, body: file, signal })).json();
}

export const forget = (id) => ask(`v1/uploads/${encodeURIComponent(id)}`, { method: "DELETE" });

export const annotate = async (request, signal) =>
  (await ask("v1/annotate", { ...json(request), signal })).json();

/** Yield the events of a description; a stream that ends without `done` raises an ApiError of code 0. */
export async function* describe(request, signal) {
  const response = await ask("v1/describe", { ...json({ ...request, stream: true }), signal });
  try {
    for await (const event of events(response.body)) {
      if (event.name === "error") throw new ApiError(event.data.error.message, event.data.error);
      yield event;
      if (event.name === "done") return;
    }
  } catch (error) {
    if (error.name === "AbortError" || error instanceof ApiError) throw error;
    throw new ApiError("", { type: "broken_off" });
  }
  throw new ApiError("", { type: "broken_off" });
}
