// A worker of the training protocol that is neither Python nor PyTorch: lease, run and rounds (docs/protocol.md,
// sections 5 to 8; "section" means that document in all files here).

import { randomUUID } from "node:crypto";
import { readFileSync, renameSync, writeFileSync } from "node:fs";
import os from "node:os";
import { resolve } from "node:path";
import { parseArgs } from "node:util";
import { links, listen, receive, sha256 } from "./link.mjs";
import { PREPARE, Refusal } from "./messages.mjs";
import { checkModel, modelId, readGraphs, readTensors } from "./tensors.mjs";
import { divide, train } from "./training.mjs";

const MAX_GRAPHS = 2 ** 24, MAX_MODEL = 2 ** 28, MAX_ANSWERS = 64, LEASE_MS = 15_000, UPDATE_MS = 600_000;
const OK = { type: "ok" };

const { values: options } = parseArgs({ options: { port: { type: "string", default: "10002" },
  name: { type: "string", default: "nora" }, examples: { type: "string", default: "100" } } });
const examples = Number(options.examples);
const isUsable = { port: /^\d{1,5}$/, name: /^[\w-]{1,64}$/, examples: /^[1-9]\d{0,8}$/ };
if (Object.keys(isUsable).some((option) => !isUsable[option].test(options[option]))) {
  console.error("usage: node worker.mjs [--port PORT] [--name LETTERS_AND_DIGITS] [--examples COUNT]");
  process.exit(2);
}
const card = { name: "digits", sample_shape: [8, 8], sample_dtype: "uint8", target_dtype: "int64", num_classes: 10,
  num_examples: examples, sha256: sha256(`${options.name} ${examples}`), label_counts: null };
const capabilities = { torch: null, operators: null, machine: os.machine(), num_cpus: os.availableParallelism(),
  memory_bytes: os.totalmem(), max_model_bytes: MAX_MODEL };
const hello = { type: "hello", proto: 1, min_proto: 1, id: `node-worker-${options.name}`, name: options.name,
  boot_id: randomUUID(), build: "node-worker 1.0.0", role: null, capabilities, datasets: [card] };

// The highest fence and its run outlive the process (section 5); all else may be lost with it.
const fenceFile = resolve(`${options.name}.fence`);
let highest = { fence: 0, run: null };
try {
  highest = JSON.parse(readFileSync(fenceFile, "utf8"));
} catch (error) {
  if (error.code !== "ENOENT") throw error;
}
const answers = new Map(); // cmd_id -> promise of the answer, for the commands under the present fence
let lease = null, preparing = false, prepared = null, model = null, round = null, published = "";

function status() {
  const inHand = round?.update ? "delivering" : !round?.tensors ? "receiving" : round.paused ? "paused" : "training";
  const state = round ? inHand : preparing ? "preparing" : prepared ? "ready" : "idle";
  return { state, highest_fence: highest.fence, holder: lease?.until > Date.now() ? lease.holder.name : null,
    run: lease?.run ?? null, round: round?.round ?? null, model_id: model?.id ?? null };
}

function publish() {
  const message = { type: "status", status: status() }, now = JSON.stringify(message);
  if (now !== published) for (const link of links) link.send(message);
  published = now;
}

function forgetRound() {
  if (round) round.aborted = true;
  round = null;
}

function forgetRun() {
  forgetRound();
  prepared = model = null;
}

function authorize(link, { type, run, fence }) {
  if (link.hello.role !== "controller") throw new Refusal("not_controller", "a viewer only listens");
  if (fence < highest.fence) throw new Refusal("stale_fence", `fence ${fence}, expected ${highest.fence} or more`);
  if (type !== "lease.take" && (lease?.link !== link || lease.run !== run || lease.fence !== fence))
    throw new Refusal("not_controller", "take the lease first, on this link, for this run and with this fence");
}

async function receiveModel(link, message, incoming) {
  const id = message.model_id;
  if (!incoming && model?.id !== id) throw new Refusal("no_model", `model ${id} is not here: send it`);
  if (!incoming) return model.tensors;
  const file = await receive(incoming, MAX_MODEL, "bad_model");
  authorize(link, message); // another console may have taken the device meanwhile
  const tensors = readTensors(file), found = modelId(tensors);
  if (found !== id) throw new Refusal("bad_model", `found model ${found}, expected ${id}`);
  checkModel(tensors, prepared.graphs);
  model = { id, tensors };
  return tensors;
}

/** Each command's work: returns the answer, without cmd_id, or throws a Refusal. */
const handlers = {
  async "lease.take"({ run, fence, take_over: takeOver }, link) {
    const again = fence === highest.fence; // a reconnect
    if (again && run !== highest.run) throw new Refusal("stale_fence", `fence ${fence} was taken for another run`);
    if (!again && !takeOver && lease?.until > Date.now() && lease.holder.id !== link.hello.id)
      throw new Refusal("held", `held by ${lease.holder.name} for run ${lease.run}`);
    if (!again) {
      writeFileSync(`${fenceFile}.new`, JSON.stringify({ fence, run }), { flush: true });
      renameSync(`${fenceFile}.new`, fenceFile);
      highest = { fence, run };
      answers.clear();
    }
    if (lease?.run !== run) forgetRun();
    lease = { link, holder: link.hello, run, fence, until: Date.now() + LEASE_MS };
    setImmediate(deliver); // an update that waited for its console goes out after the answer
    return OK;
  },
  async "lease.renew"() {
    lease.until = Date.now() + LEASE_MS;
    return OK;
  },
  async "lease.release"() {
    forgetRun();
    lease = null;
    return OK;
  },

  async "run.prepare"(message, link, incoming) {
    const fields = [message.run, ...Object.keys(PREPARE).map((field) => message[field])];
    const content = JSON.stringify(fields, (key, value) => (key === "transfer" ? undefined : value));
    const again = prepared?.content === content;
    if (round && !again) throw new Refusal("wrong_state", `round ${round.round} is in hand: abort it first`);
    if (message.dataset !== card.name) throw new Refusal("no_dataset", `found only ${card.name} here`);
    for (const field of ["sample_shape", "sample_dtype", "num_classes"])
      if (`${message[field]}` !== `${card[field]}`)
        throw new Refusal("dataset_mismatch", `${field}: found ${card[field]}, expected ${message[field]}`);
    const data = divide(examples, message), { numExamples, numHoldout } = data;
    if (!data.epochBatches) throw new Refusal("dataset_mismatch", `${numExamples} examples make no batch`);
    preparing = true;
    try {
      const graphs = readGraphs(await receive(incoming, MAX_GRAPHS, "bad_graph"));
      authorize(link, message); // another console may have taken the device meanwhile
      if (!again) prepared = { content, graphs, ...data };
    } finally {
      preparing = false;
    }
    return { type: "run.prepared", num_examples: numExamples, num_holdout: numHoldout, batch_seconds: 0.004,
      memory_bytes: 0 };
  },

  async "round.start"(message, link, incoming) {
    if (!prepared) throw new Refusal("wrong_state", "not prepared: send run.prepare before the first round");
    if (round) {
      const again = round.round === message.round && round.model_id === message.model_id
        && round.cursor.epoch === message.cursor.epoch && round.cursor.batch === message.cursor.batch;
      if (!again) throw new Refusal("wrong_state", `round ${round.round} is in hand: abort it first`);
      Object.assign(round, { attempt: message.attempt, paused: false });
      await round.begun;
      setImmediate(deliver);
      return OK;
    }
    const mine = round = { ...message };
    mine.begun = receiveModel(link, message, incoming);
    try {
      mine.tensors = await mine.begun;
    } catch (error) {
      if (round === mine) forgetRound();
      throw error;
    }
    if (mine.aborted) throw new Refusal("wrong_state", "the round was aborted");
    carryOut(mine);
    return OK;
  },
  async "round.pause"(message) {
    if (round?.round === message.round) round.paused = true;
    return OK;
  },
  async "round.resume"(message) {
    if (round?.round !== message.round) throw new Refusal("no_state", `round ${message.round} is not here`);
    round.paused = false;
    return OK;
  },
  async "round.abort"(message, link) {
    if (round?.round === message.round) forgetRound();
    for (const incoming of link.incoming.values())
      if (incoming.message.type === "round.start" && incoming.message.round === message.round)
        link.breakOff(incoming, "the round was aborted");
    return OK;
  },
  async "update.accept"(message) {
    if (round?.update && round.round === message.round) round = null;
    return OK;
  },
  async "update.refuse"(message) {
    return handlers["update.accept"](message);
  },
  async "evaluate"() {
    throw new Refusal("wrong_state", "this worker runs no graphs and cannot evaluate");
  },
};

async function carryOut(mine) {
  const { run, round: number } = mine;
  const report = (message) => lease?.link?.send({ ...message, run, round: number, attempt: mine.attempt });
  try {
    const update = await train(mine, prepared, (batches) => report({ type: "round.batches", ...batches }));
    if (!update) return; // aborted
    Object.assign(mine, { update, finished: Date.now() });
    deliver();
  } catch (error) {
    report({ type: "round.failed", reason: error.message });
    forgetRound();
  }
  publish();
}

/** Sends the finished update, if there is one, to the controller, if it is here; on each of its links again. */
async function deliver() {
  const mine = round, link = lease?.link;
  if (!mine?.update || !link) return;
  const { run, attempt, model_id, num_batches, losses, seconds, update } = mine;
  const transfer = ++link.lastTransfer;
  link.send({ type: "round.update", run, round: mine.round, attempt, model_id, num_batches, cursor: mine.next,
    num_examples: mine.examples, seconds, loss: losses.reduce((sum, loss) => sum + loss) / losses.length,
    parameters: { transfer, size: update.length, sha256: sha256(update) } });
  await link.sendBlob(transfer, update, () => mine.aborted);
}

/** Answers a command; one that comes again, with a cmd_id that is known, gets the answer of the first. */
async function obey(link, message, incoming) {
  const { type, cmd_id: id } = message, remembered = type !== "lease.take"; // it must act on each new link
  let answer;
  try {
    authorize(link, message);
    const acting = (remembered && answers.get(id)) || handlers[type](message, link, incoming);
    if (remembered) answers.set(id, acting);
    if (answers.size > MAX_ANSWERS) answers.delete(answers.keys().next().value);
    publish();
    answer = await acting;
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    answer = { type: "refused", code: error.code, reason: error.message };
  }
  link.send({ ...answer, cmd_id: id });
  publish();
}

/** Losing the link ends neither lease nor training (section 5), only what was on its way here. */
function lost(link) {
  for (const incoming of link.incoming.values()) {
    answers.delete(incoming.message.cmd_id); // the command may come again, on another link
    link.breakOff(incoming, "the link was lost");
  }
  if (lease?.link === link) Object.assign(lease, { link: null, lost: Date.now() });
}

setInterval(() => {
  if (round?.update && !lease.link && Date.now() - Math.max(lease.lost, round.finished) > UPDATE_MS) forgetRound();
  publish(); // the lease may have expired
}, 1_000);

const greeting = () => ({ ...hello, status: status() });
const listener = listen(Number(options.port), { greeting, obey, lost });
listener.on("listening", () => {
  console.log(`${options.name} listens on ws://127.0.0.1:${listener.address().port}`);
});
listener.on("error", (error) => {
  console.error(`${options.name} cannot listen on port ${options.port}: ${error.message}`);
  process.exit(1);
});
