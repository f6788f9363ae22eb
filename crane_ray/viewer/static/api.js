// Requests to the viewer; what goes wrong is an Error whose message can be shown as it is.

export class Problem extends Error {
  constructor(words, status) {
    super(words);
    this.status = status;
  }
}

/** Address of something of a slide; settings that are null or "" are left out. */
export function slideUrl(slideId, rest = "", settings = {}) {
  return `/api/slides/${encodeURIComponent(slideId)}${rest}${query(settings)}`;
}

export function query(settings) {
  const kept = Object.entries(settings).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return kept.length ? `?${new URLSearchParams(kept)}` : "";
}

export async function json(url, signal) {
  return (await answer(url, signal)).json();
}

export async function buffer(url, signal) {
  const response = await answer(url, signal);
  return { data: await response.arrayBuffer(), headers: response.headers };
}

async function answer(url, signal) {
  let response;
  try {
    response = await fetch(url, { signal, headers: { Accept: "application/json" } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The viewer does not answer. Is crane-ray view still running?", 0);
  }
  if (response.ok) return response;
  if (response.status === 401) {
    throw new Problem("The viewer asks for its token. Open the address that crane-ray view printed.", 401);
  }
  const told = await response.json().catch(() => ({}));
  throw new Problem(told.problem || `The viewer could not answer (status ${response.status}).`, response.status);
}
