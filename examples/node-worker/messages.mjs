// What a console may send (docs/protocol.md, sections 3 and 8): for each type its fields and their kinds.

/** The other side broke the protocol: its link is closed with `closeCode`. */
export class Broken extends Error {
  constructor(reason, closeCode = 4400) {
    super(reason);
    this.closeCode = closeCode;
  }
}

/** A command that is not carried out: its answer is `refused` with this code. */
export class Refusal extends Error {
  constructor(code, reason) {
    super(reason);
    this.code = code;
  }
}

export const isObject = (v) => typeof v === "object" && v !== null && !Array.isArray(v);
export const isCount = (v) => Number.isSafeInteger(v) && v >= 0;
const isPositive = (v) => isCount(v) && v > 0;
const isBoolean = (v) => typeof v === "boolean";
const isText = (v) => typeof v === "string" && [...v].length <= 4096;
const isName = (v) => typeof v === "string" && v !== "" && [...v].length <= 128;
const isDigest = (v) => typeof v === "string" && /^[0-9a-f]{64}$/.test(v);
const isSeed = (v) => typeof v === "string" && /^\d{1,19}$/.test(v) && BigInt(v) < 2n ** 63n;
const isShare = (v) => Number.isFinite(v) && v >= 0 && v < 1;
const oneOf = (...values) => (v) => values.includes(v);
const orNull = (kind) => (v) => v === null || kind(v);
const optional = (kind) => (v) => v === undefined || kind(v);
const wrongField = (fields, v) => Object.keys(fields).find((field) => !fields[field](v[field]));
export const listOf = (kind) => (v) => Array.isArray(v) && v.every(kind);
export const objectOf = (fields) => (v) => isObject(v) && wrongField(fields, v) === undefined;

const isTransfer = (v) => isCount(v) && v < 2 ** 32;
const isBlob = objectOf({ transfer: isTransfer, size: isPositive, sha256: isDigest });
const isCursor = objectOf({ epoch: isCount, batch: isCount });
const isOptimizer = objectOf({ name: oneOf("sgd", "adam", "adamw"), lr: Number.isFinite,
  momentum: optional(Number.isFinite), weight_decay: optional(Number.isFinite), nesterov: optional(isBoolean) });

export const PREPARE = { worker_id: isName, dataset: isName, sample_shape: listOf(isCount), sample_dtype: isName,
  num_classes: orNull(isPositive), batch_size: isPositive, holdout: isShare, order_seed: isSeed,
  optimizer: isOptimizer, graphs: isBlob };
const COMMANDS = {
  "lease.take": { take_over: optional(isBoolean) },
  "lease.renew": {},
  "lease.release": {},
  "run.prepare": PREPARE,
  "round.start": { round: isPositive, attempt: isPositive, model_id: isDigest, model: orNull(isBlob),
    cursor: isCursor, num_batches: isPositive, torch_seed: isSeed },
  "round.pause": { round: isPositive },
  "round.resume": { round: isPositive },
  "round.abort": { round: isPositive },
  "update.accept": { round: isPositive, attempt: isPositive },
  "update.refuse": { round: isPositive, attempt: isPositive, reason: isText },
  "evaluate": { round: isCount, model_id: isDigest, model: orNull(isBlob) },
};
const HELLO = { proto: isCount, min_proto: isCount, id: isName, name: isName, boot_id: isName, build: isName,
  role: oneOf("controller", "viewer") };

/** Reads a text frame: a message, or null for a type that only a later version has. */
export function readMessage(frame) {
  let message = null;
  try {
    message = JSON.parse(frame);
  } catch {} // no JSON is no message
  if (!isObject(message) || typeof message.type !== "string") throw new Broken("a text frame that is no message");
  if (message.type !== "hello" && !Object.hasOwn(COMMANDS, message.type)) return null;
  const fields = message.type === "hello" ? HELLO
    : { cmd_id: isName, run: isName, fence: isCount, ...COMMANDS[message.type] };
  const wrong = wrongField(fields, message);
  if (wrong) throw new Broken(`${message.type}: field ${wrong} is missing, of the wrong kind or out of its range`);
  return message;
}
