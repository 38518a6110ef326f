// Models, updates and the table of the graphs (docs/protocol.md, sections 4, 7 and 10). A model is held as a Map
// of name -> { dtype, shape, bytes }.

import { createHash } from "node:crypto";
import { Refusal, isCount, isObject, listOf, objectOf } from "./messages.mjs";

const MAX_HEADER = 2 ** 23, MAX_TENSORS = 20_000;
const WIDTHS = { BOOL: 1, U8: 1, I8: 1, I16: 2, I32: 4, I64: 8, F16: 2, BF16: 2, F32: 4, F64: 8 };
const isOffsets = (v) => listOf(isCount)(v) && v.length === 2;
const isEntry = objectOf({ dtype: (v) => Object.hasOwn(WIDTHS, v), shape: listOf(isCount), data_offsets: isOffsets });

/** Reads a safetensors file; throws a Refusal if its header and its bytes do not fit each other exactly. */
export function readTensors(file) {
  const bad = (reason) => new Refusal("bad_model", `the model is no valid safetensors file: ${reason}`);
  const start = file.length < 8 ? NaN : 8 + Number(file.readBigUInt64LE());
  if (!(start <= Math.min(file.length, 8 + MAX_HEADER))) throw bad("its header is too long or cut off");
  let header = null;
  try {
    header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(file.subarray(8, start)));
  } catch {} // no JSON is no header
  if (!isObject(header)) throw bad("its header is no JSON object");
  const entries = Object.entries(header).filter(([name]) => name !== "__metadata__");
  if (entries.length > MAX_TENSORS) throw bad(`it has ${entries.length} tensors, expected at most ${MAX_TENSORS}`);
  const wrong = entries.find(([, entry]) => !isEntry(entry));
  if (wrong) throw bad(`the entry of tensor ${wrong[0].slice(0, 128)} is malformed`);

  entries.sort(([, { data_offsets: a }], [, { data_offsets: b }]) => a[0] - b[0] || a[1] - b[1]);
  const tensors = new Map();
  let at = start;
  for (const [name, { dtype, shape, data_offsets: [begin, end] }] of entries) {
    const size = shape.reduce((product, length) => product * length, WIDTHS[dtype]);
    if (start + begin !== at || end - begin !== size || at + size > file.length)
      throw bad(`tensor ${name.slice(0, 128)} overlaps, leaves a gap or has the wrong size`);
    tensors.set(name, { dtype, shape, bytes: file.subarray(at, at += size) });
  }
  if (at !== file.length) throw bad("its last tensor does not end where the file ends");
  return tensors;
}

export function writeTensors(tensors) {
  let end = 0;
  const entries = [...tensors].map(([name, { dtype, shape, bytes }]) =>
    [name, { dtype, shape, data_offsets: [end, end += bytes.length] }]);
  const header = Buffer.from(JSON.stringify(Object.fromEntries(entries))), length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  return Buffer.concat([length, header, ...[...tensors.values()].map(({ bytes }) => bytes)]);
}

/** Names a model by its content. UTF-8 sorts by code points, as it must be; JavaScript's own order differs. */
export function modelId(tensors) {
  const hash = createHash("sha256");
  const sorted = [...tensors].sort(([a], [b]) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  for (const [name, { dtype, shape, bytes }] of sorted)
    hash.update(`${name}\0${dtype}\0${JSON.stringify(shape)}\0`).update(bytes).update("\0");
  return hash.digest("hex");
}

/** Reads of the graphs what an update holds: all parameters, and those buffers that the training graph writes. */
export function readGraphs(blob) {
  try {
    const { parameters, buffers, training } = JSON.parse(blob);
    const written = training.nodes.flatMap(({ operator, args }) => {
      if (operator === "aten.batch_norm.default" && args[5] === true) return [args[3], args[4]];
      return operator === "aten.add_.Tensor" ? [args[0]] : [];
    }).filter((argument) => argument?.kind === "state").map((state) => state.name);
    return { parameters, buffers: buffers.filter(({ name }) => written.includes(name)) };
  } catch {
    throw new Refusal("bad_graph", "the graphs are not the JSON object that section 10 of the protocol describes");
  }
}

/** Refuses a model that lacks a tensor of the update, or has it with another dtype or shape. */
export function checkModel(model, { parameters, buffers }) {
  for (const { name, dtype, shape } of [...parameters, ...buffers]) {
    const found = model.get(name);
    if (found?.dtype !== dtype || `${found.shape}` !== `${shape}`)
      throw new Refusal("bad_model", `tensor ${name.slice(0, 128)}: expected ${dtype} [${shape}], as in the graphs`);
  }
}
