// The live state of the cluster: server-sent events, watched over. A connection that stands but
// says nothing is asked for its state now and then, so that a frozen node is noticed; after a loss
// it is tried again until it answers. Knows nothing of what the state means.

const QUIET_MS = 6_000; // no event for so long: ask
const ANSWER_MS = 4_000; // no answer to that: the node is lost
const POLL_MS = 1_000;
const RETRY_MS = [500, 1_000, 2_000, 3_000];

/**
 * Calls `onState(state)` for each state and `onConnection(connection)` when that changes:
 * "live" (events arrive), "polling" (events do not work here, asking does) or "lost".
 */
export function watchCluster({ onState, onConnection }) {
  let connection = "";
  let source = null;
  let timer = 0;
  let nFailures = 0;

  function become(next) {
    if (connection === next) return;
    connection = next;
    onConnection(next);
  }

  function later(delayMs, task) {
    clearTimeout(timer);
    timer = setTimeout(task, delayMs);
  }

  async function ask() {
    try {
      const response = await fetch("/cluster/state", {
        cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS),
      });
      if (!response.ok) throw new Error(`HTTP ${response.status}`);
      onState(await response.json());
    } catch (error) {
      console.info("the node does not answer:", error.message);
      source?.close();
      source = null;
      become("lost");
      later(RETRY_MS[Math.min(nFailures, RETRY_MS.length - 1)], ask);
      nFailures += 1;
      return;
    }
    nFailures = 0;
    if (source === null || source.readyState === EventSource.CLOSED) listen();
    const isOpen = source.readyState === EventSource.OPEN;
    become(isOpen ? "live" : "polling");
    later(isOpen ? QUIET_MS : POLL_MS, ask);
  }

  function listen() {
    source = new EventSource("/cluster/events");
    source.addEventListener("state", (event) => {
      onState(JSON.parse(event.data));
      nFailures = 0;
      become("live");
      later(QUIET_MS, ask);
    });
    // The browser tries again by itself; whether anybody is there is found out at once.
    source.addEventListener("error", () => later(0, ask));
  }

  // A laptop that wakes up, or a network that came back, need not wait for a timer.
  addEventListener("online", () => later(0, ask));
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && connection !== "live") later(0, ask);
  });
  listen();
  later(QUIET_MS, ask);
}
