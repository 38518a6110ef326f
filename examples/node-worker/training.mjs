// The made-up training, on made-up examples: each round halves the model's parameters. A real worker has its own
// computation here; the rest of the files can stay as they are.

import { setTimeout as sleep } from "node:timers/promises";
import { writeTensors } from "./tensors.mjs";

const STEP_BATCHES = 5, STEP_MS = 20;

/** How the examples are divided (section 7). An epoch's last batch may be smaller, but has at least two examples. */
export function divide(examples, { holdout, batch_size: batchSize }) {
  const numHoldout = Math.floor(examples * holdout + 0.5), numExamples = examples - numHoldout;
  const epochBatches = Math.floor(numExamples / batchSize) + (numExamples % batchSize >= 2 ? 1 : 0);
  return { numHoldout, numExamples, batchSize, epochBatches };
}

/** The same place in the data, where the end of an epoch is the start of the next. */
function normal({ epoch, batch }, { epochBatches }) {
  return batch < epochBatches ? { epoch, batch } : { epoch: epoch + 1, batch: 0 };
}

/** What training leaves: parameters of dtype F32 are halved, all else in the update is as in the model. */
function halve(model, { parameters, buffers }) {
  const trained = new Set(parameters.map(({ name }) => name));
  const update = new Map();
  for (const { name, dtype, shape } of [...parameters, ...buffers]) {
    const bytes = Buffer.from(model.get(name).bytes);
    for (let at = 0; dtype === "F32" && at < bytes.length; at += 4) {
      const value = bytes.readFloatLE(at);
      if (!Number.isFinite(value)) throw new Error(`tensor ${name.slice(0, 128)} has a value that is not finite`);
      if (trained.has(name)) bytes.writeFloatLE(value / 2, at);
    }
    update.set(name, { dtype, shape, bytes });
  }
  return update;
}

/**
 * Trains a round, a few batches at a time; heeds `round.paused` and `round.aborted` between them. Keeps count in the
 * round: losses, examples, seconds and cursor. Each step is reported in the same turn of the event loop, so that no
 * answer overtakes its losses (section 6). Resolves to the update's file, or to null if the round was aborted.
 */
export async function train(round, data, report) {
  Object.assign(round, { losses: [], examples: 0, seconds: 0, next: round.cursor });
  const { losses, num_batches: numBatches } = round;
  while (losses.length < numBatches) {
    await sleep(STEP_MS);
    if (round.aborted) return null;
    if (round.paused) continue;
    const first = losses.length;
    while (losses.length < Math.min(first + STEP_BATCHES, numBatches)) {
      const { epoch, batch } = normal(round.next, data);
      round.examples += Math.min(data.batchSize, data.numExamples - batch * data.batchSize);
      round.next = { epoch, batch: batch + 1 };
      losses.push(2.3 / (1 + losses.length / 50));
    }
    round.seconds += STEP_MS / 1000;
    report({ first, num_batches: numBatches, losses: losses.slice(first) });
  }
  round.next = normal(round.next, data);
  return writeTensors(halve(round.tensors, data.graphs));
}
