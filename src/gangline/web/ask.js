// One question to POST /v1/chat/completions: streams its answer and measures it. Also the other
// calls to the node, and errors as the node describes them. Knows no DOM and keeps no history.

import { events } from "./stream.js";

/** What the node (or the way to it) says is wrong; `hint` says what to do about it. */
export class NodeError extends Error {
  constructor({ message, hint = "", code = "" }) {
    super(message);
    this.name = "NodeError";
    this.hint = hint;
    this.code = code;
  }
}

const UNREACHABLE = {
  code: "unreachable",
  message: "The node that this page came from does not answer.",
  hint: "Try again once it is back, or open the page of another node.",
};

const BROKEN_OFF = {
  code: "broken_off",
  message: "The answer broke off: the connection to the node was lost.",
  hint: "Try again.",
};

async function errorOf(response) {
  const text = await response.text();
  try {
    const { error } = JSON.parse(text);
    if (typeof error?.message === "string") return new NodeError(error);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
  }
  return new NodeError({
    message: `The node answered with status ${response.status}.`,
    hint: text.slice(0, 200),
    code: String(response.status),
  });
}

/** Calls the node; returns the decoded body or throws a `NodeError`. */
export async function call(method, path, body) {
  let response;
  try {
    response = await fetch(path, {
      method,
      headers: body === undefined ? {} : { "content-type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    console.info("no answer:", error.message);
    throw new NodeError(UNREACHABLE);
  }
  if (!response.ok) throw await errorOf(response);
  const text = await response.text();
  return text ? JSON.parse(text) : null;
}

/** The messages to send: turns that were answered, then the question. */
export function messagesFor(system, turns, question) {
  const messages = system ? [{ role: "system", content: system }] : [];
  for (const turn of turns) {
    // A turn without an answer is left out as a whole: templates want the roles to alternate.
    if (!turn.answer || turn.error) continue;
    messages.push({ role: "user", content: turn.question });
    messages.push({ role: "assistant", content: turn.answer });
  }
  return [...messages, { role: "user", content: question }];
}

/** The body of the request; settings that are left empty are not sent. */
export function requestFor(model, messages, { temperature, maxTokens }) {
  return {
    model,
    messages,
    stream: true,
    stream_options: { include_usage: true },
    ...(temperature === null ? {} : { temperature }),
    ...(maxTokens === null ? {} : { max_tokens: maxTokens }),
  };
}

/**
 * Asks, calls `onText(text so far)` as it grows, and returns
 * `{finishReason, nTokens, ttftMs, tokensPerS, nodes}`. The node's own numbers are preferred where
 * it gives them; otherwise they are measured here, from the request on. Throws `NodeError`, or an
 * `AbortError` when `signal` says stop.
 */
export async function ask(request, { signal, onText, now = () => performance.now() }) {
  const startMs = now();
  let response;
  try {
    response = await fetch("/v1/chat/completions", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(request),
      signal,
    });
  } catch (error) {
    if (signal.aborted) throw error;
    throw new NodeError(UNREACHABLE);
  }
  if (!response.ok) throw await errorOf(response);

  let text = "";
  let nPieces = 0;
  let firstMs = null;
  let lastMs = null;
  let isDone = false;
  const end = { finishReason: null, usage: null, gangline: null };
  try {
    for await (const { data } of events(response.body)) {
      if (data === "[DONE]") {
        isDone = true; // read on to the end: leaving now would abort the request
        continue;
      }
      const chunk = JSON.parse(data);
      if (chunk.error) throw new NodeError(chunk.error);
      const choice = chunk.choices?.[0];
      const piece = choice?.delta?.content;
      if (piece) {
        lastMs = now();
        firstMs ??= lastMs;
        nPieces += 1;
        text += piece;
        onText(text);
      }
      end.finishReason = choice?.finish_reason ?? end.finishReason;
      end.usage = chunk.usage ?? end.usage;
      end.gangline = chunk.gangline ?? end.gangline;
    }
  } catch (error) {
    if (signal.aborted || error instanceof NodeError) throw error;
    throw new NodeError(error instanceof SyntaxError
      ? { message: "The node sent something that is not JSON.", hint: "Reload the page." }
      : BROKEN_OFF);
  }
  if (!isDone) throw new NodeError(BROKEN_OFF);

  const spanMs = firstMs === null ? 0 : lastMs - firstMs;
  return {
    finishReason: end.finishReason,
    nTokens: end.usage?.completion_tokens ?? nPieces,
    ttftMs: end.gangline?.ttft_ms ?? (firstMs === null ? null : firstMs - startMs),
    tokensPerS: end.gangline?.tokens_per_s ?? (spanMs > 0 ? (nPieces - 1) * 1000 / spanMs : null),
    nodes: end.gangline?.nodes ?? null,
  };
}
