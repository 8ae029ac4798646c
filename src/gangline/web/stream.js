// Server-sent events from a fetch body. A chunk may end anywhere: within a line, a line end or a
// UTF-8 character; what is not complete is kept for the next one. Knows nothing of chat.

const LINE_END = /[\r\n]/g;

/** A parser of `text/event-stream`: `push(text)` returns the events that are complete by now. */
export function eventParser() {
  let rest = "";
  let data = [];
  let type = "";
  let started = false;

  function* lines(text) {
    if (!started && text.length > 0) {
      started = true;
      if (text.startsWith("\uFEFF")) text = text.slice(1);
    }
    rest += text;
    let start = 0;
    for (;;) {
      LINE_END.lastIndex = start;
      const at = LINE_END.exec(rest)?.index;
      if (at === undefined) break;
      // "\r" at the very end may be half of "\r\n": wait for what follows.
      if (rest[at] === "\r" && at + 1 === rest.length) break;
      yield rest.slice(start, at);
      start = at + (rest.startsWith("\r\n", at) ? 2 : 1);
    }
    rest = rest.slice(start);
  }

  function push(text) {
    const events = [];
    for (const line of lines(text)) {
      if (line === "") {
        if (data.length > 0) events.push({ type: type || "message", data: data.join("\n") });
        data = [];
        type = "";
        continue;
      }
      const colon = line.indexOf(":");
      const field = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
      if (field === "data") data.push(value);
      else if (field === "event") type = value;
    }
    return events;
  }

  return { push };
}

/** The events of a response, as they arrive. Leaving the loop early cancels the response. */
export async function* events(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  const parser = eventParser();
  try {
    for (;;) {
      const { value, done } = await reader.read();
      yield* parser.push(done ? decoder.decode() : decoder.decode(value, { stream: true }));
      if (done) return;
    }
  } finally {
    // The reader may have failed already; there is nothing left to cancel then.
    reader.cancel().catch(() => {});
  }
}
