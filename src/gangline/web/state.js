// From the state of the cluster (the body of GET /cluster/state, see facts.py) to what the page
// shows. Pure functions: no DOM, no clock, no network. "Not measured" stays null.

const N_TONES = 8;

/** Nodes in the order in which people number them: node-2 before node-10. */
function inNameOrder(nodes) {
  const collator = new Intl.Collator("en", { numeric: true });
  const { compare } = collator;
  return [...nodes].sort((a, b) => compare(a.name, b.name) || compare(a.id, b.id));
}

/** Node id → index of its colour; the same wherever the node appears. */
export function tones(state) {
  return new Map(inNameOrder(state.nodes).map((node, index) => [node.id, index % N_TONES]));
}

/** Node id → name; an id that is not known stands for itself. */
export function nodeName(state, id) {
  return state.nodes.find((node) => node.id === id)?.name ?? id;
}

/** The model that the page follows: the one asked for if it is there, else the liveliest. */
export function followed(state, wanted) {
  const rank = { ready: 0, recovering: 1, loading: 2, unloading: 3, failed: 4 };
  const byRank = [...state.models].sort((a, b) => (rank[a.state] ?? 5) - (rank[b.state] ?? 5));
  return state.models.find((model) => model.id === wanted) ?? byRank[0] ?? null;
}

function layerCount(model) {
  return model.n_layers || Math.max(0, ...model.stages.map((stage) => stage.span[1]));
}

/** Who holds which layers of a model: one entry per layer, a node id or null. */
export function owners(model) {
  const held = new Array(layerCount(model)).fill(null);
  for (const { node, span: [start, end] } of model.stages) held.fill(node, start, end);
  return held;
}

/** Runs of equal owners: `{node, tone, start, end}`; tone is null where nobody holds the layers. */
export function segments(model, toneOf) {
  const runs = [];
  owners(model).forEach((node, layer) => {
    const last = runs.at(-1);
    if (last && last.node === node) last.end = layer + 1;
    else runs.push({ node, tone: toneOf.get(node) ?? null, start: layer, end: layer + 1 });
  });
  return runs;
}

function workerView(worker, state, toneOf) {
  const model = state.models.find((one) => one.id === worker.model);
  return {
    id: worker.id,
    model: worker.model,
    role: worker.role,
    span: worker.span,
    nHeld: worker.span[1] - worker.span[0],
    nLayers: model ? layerCount(model) : worker.span[1],
    segments: model ? segments(model, toneOf) : [],
    state: worker.state,
    backend: worker.backend,
    progress: worker.progress,
    heldBytes: worker.weight_bytes + worker.cache_bytes,
    stats: worker.stats,
    reason: worker.reason,
  };
}

const NODE_STATES = ["failed", "starting", "loading", "stopping", "ready"];

function nodeView(node, state, toneOf) {
  const workers = node.workers.map((worker) => workerView(worker, state, toneOf));
  const states = workers.map((worker) => worker.state);
  const { hardware } = node;
  const ours = workers.reduce((sum, worker) => sum + worker.heldBytes, 0);
  const used = Math.max(0, hardware.memory_bytes - hardware.free_bytes);
  return {
    id: node.id,
    name: node.name,
    api: webAddress(node.api),
    isHere: node.id === state.node,
    alive: node.alive,
    tone: toneOf.get(node.id),
    machine: [hardware.chip, `${hardware.cores} core${hardware.cores === 1 ? "" : "s"}`,
      hardware.vector, ...(hardware.gpus ?? []).map((gpu) => gpu.name)].filter(Boolean).join(" · "),
    readBytesPerS: hardware.read_bytes_per_s ?? null,
    operationsPerS: hardware.operations_per_s ?? null,
    measuredAt: hardware.measured_at ?? null,
    memory: {
      totalBytes: hardware.memory_bytes,
      freeBytes: hardware.free_bytes,
      usedBytes: used,
      oursBytes: Math.min(ours, used),
    },
    state: node.alive ? NODE_STATES.find((name) => states.includes(name)) ?? "idle" : "gone",
    workers: node.alive ? workers : [],
  };
}

/** A node's word for its address, or "" where it is not one that a link may lead to. */
function webAddress(api) {
  return URL.canParse(api) && /^https?:$/.test(new URL(api).protocol) ? api : "";
}

function linkBetween(state, from, to) {
  const forward = state.nodes.find((node) => node.id === from)?.links.find((one) => one.to === to);
  // A round trip is the same seen from the other end; bandwidth is directed, so it is not borrowed.
  const back = state.nodes.find((node) => node.id === to)?.links.find((one) => one.to === from);
  return { rttUs: forward?.rtt_us ?? back?.rtt_us ?? null, gbps: forward?.gbps ?? null };
}

function hopViews(model, state) {
  const ring = model.stages.map((stage) => stage.node);
  if (ring.length < 2) return [];
  const alive = new Map(state.nodes.map((node) => [node.id, node.alive]));
  return ring.map((from, index) => {
    const to = ring[(index + 1) % ring.length];
    return {
      from,
      to,
      isReturn: index === ring.length - 1,
      broken: !alive.get(from) || !alive.get(to),
      ...linkBetween(state, from, to),
    };
  });
}

/** Free memory of all machines; nodes at one address share one machine, as in `gangline demo`. */
export function freeBytes(state) {
  const byMachine = new Map();
  for (const node of state.nodes.filter((one) => one.alive)) {
    const machine = webAddress(node.api) ? new URL(node.api).hostname : node.id;
    const known = byMachine.get(machine) ?? Infinity;
    byMachine.set(machine, Math.min(known, node.hardware.free_bytes));
  }
  return [...byMachine.values()].reduce((sum, bytes) => sum + bytes, 0);
}

/** A node that a plan names but that nobody has facts of any more. */
function unknownNode(id) {
  return {
    id, name: id, api: "", isHere: false, alive: false, tone: null, machine: "", workers: [],
    readBytesPerS: null, operationsPerS: null, measuredAt: null, memory: null, state: "gone",
  };
}

/**
 * What the drawing shows for the followed model (which may be null): `hitched` nodes in stage
 * order, the `hops` between them, nodes `apart` with the reason why, and the live numbers.
 */
export function clusterView(state, model) {
  const toneOf = tones(state);
  const views = new Map(inNameOrder(state.nodes).map((node) => (
    [node.id, { ...nodeView(node, state, toneOf), role: null, place: null, note: "" }])));
  const hitched = (model?.stages ?? []).map((stage, index) => ({
    ...views.get(stage.node) ?? unknownNode(stage.node),
    role: stage.role,
    place: index,
    planned: stage.span,
    note: views.get(stage.node)?.alive ? "" : "Does not answer any more",
  }));
  const onRope = new Set(hitched.map((node) => node.id));
  const why = new Map((model?.left_out ?? []).map((one) => [one.node, one.why]));
  const apart = [...views.values()].filter((node) => !onRope.has(node.id)).map((node) => ({
    ...node,
    note: node.alive ? why.get(node.id) ?? "" : "Does not answer any more",
  }));
  const stats = model?.stats ?? null;
  const isLive = model?.state === "ready" && stats !== null;
  return {
    hitched,
    apart,
    hops: model ? hopViews(model, state) : [],
    isTaut: hitched.length > 0 && model.state === "ready",
    isFlowing: isLive && stats.lanes_active > 0,
    tokensPerS: isLive ? stats.tokens_per_s : null,
    lanesActive: isLive ? stats.lanes_active : null,
    lanesWaiting: isLive ? stats.lanes_waiting : null,
    nAlive: state.nodes.filter((node) => node.alive).length,
    nGone: state.nodes.filter((node) => !node.alive).length,
    freeBytes: freeBytes(state),
  };
}

/** The stages of a plan, or of a model that runs by one, and the nodes it leaves out. */
export function planView(state, { stages, left_out: leftOut }) {
  const toneOf = tones(state);
  return {
    stages: stages.map((stage) => ({
      name: nodeName(state, stage.node),
      tone: toneOf.get(stage.node) ?? null,
      role: stage.role,
      span: stage.span,
      why: stage.why,
    })),
    leftOut: leftOut.map((one) => ({ name: nodeName(state, one.node), why: one.why })),
  };
}

/** The models that the cluster runs or tries to run. */
export function modelViews(state) {
  const toneOf = tones(state);
  return state.models.map((model) => ({
    id: model.id,
    state: model.state,
    progress: model.progress,
    reason: model.reason,
    context: model.context,
    lanes: model.lanes,
    nLayers: layerCount(model),
    steward: nodeName(state, model.steward),
    epoch: model.epoch,
    stats: model.stats ?? null,
    prediction: model.prediction ?? null,
    segments: segments(model, toneOf),
    ...planView(state, model),
  }));
}

/** Models whose files lie on a live node and that do not run: what could be loaded. */
export function loadable(state) {
  const running = new Set(state.models.map((model) => model.id));
  const found = new Map();
  for (const node of state.nodes.filter((one) => one.alive)) {
    for (const stored of node.stored) {
      if (running.has(stored.id)) continue;
      const entry = found.get(stored.id) ?? {
        id: stored.id, sizeBytes: stored.size_bytes, nLayers: stored.n_layers,
        family: stored.family, supported: stored.supported, reason: stored.reason, on: [],
      };
      entry.on.push(node.name);
      found.set(stored.id, entry);
    }
  }
  const collator = new Intl.Collator("en", { numeric: true });
  for (const entry of found.values()) entry.on.sort(collator.compare);
  return [...found.values()].sort((a, b) => collator.compare(a.id, b.id));
}

const LOOPBACK = new Set(["127.0.0.1", "localhost", "[::1]"]);

/** Other live nodes at which this page can be opened, seen from a page at `origin`. */
export function otherDoors(state, origin) {
  const here = new URL(origin);
  return state.nodes.filter((node) => {
    if (!node.alive || node.id === state.node || !webAddress(node.api)) return false;
    const there = new URL(node.api);
    if (there.origin === here.origin) return false;
    // Another machine's loopback address leads nowhere from here.
    return !LOOPBACK.has(there.hostname) || LOOPBACK.has(here.hostname);
  }).map((node) => ({ name: node.name, api: node.api }));
}
