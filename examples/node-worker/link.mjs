// One console's connection (docs/protocol.md, sections 1 to 4): frames, hello, and the blobs that commands announce.

import { createHash } from "node:crypto";
import { WebSocketServer } from "ws";
import { Broken, Refusal, readMessage } from "./messages.mjs";

const SUBPROTOCOL = "fedconsole.v1";
const MAX_FRAME = 2 ** 20, MAX_CHUNK = 2 ** 18, MAX_BLOBS = 4, MAX_LINKS = 8;
const PING_MS = 5_000, PONG_MS = 10_000, HELLO_MS = 5_000;
export const sha256 = (content) => createHash("sha256").update(content).digest("hex");

export const links = new Set();

class Link {
  hello = null; // the console's
  incoming = new Map(); // transfer -> blob on its way
  transfers = new Set(); // all that the console has used
  lastTransfer = 0; // of the worker's own
  lastPong = Date.now();

  /** `worker` has greeting(), which returns its hello, obey(link, message, incoming) and lost(link). */
  constructor(socket, worker) {
    Object.assign(this, { socket, worker });
  }

  send(message) {
    this.sendFrame(JSON.stringify(message));
  }

  /** Resolves when the frame has left or the link is gone, so that a long blob does not pile up in memory. */
  sendFrame(frame) {
    return new Promise((resolve) => this.socket.send(frame, resolve));
  }

  /** Sends the content of a blob that was announced, until `isBrokenOff()`. */
  async sendBlob(transfer, content, isBrokenOff) {
    for (let offset = 0; offset < content.length && !isBrokenOff(); offset += MAX_CHUNK) {
      const header = Buffer.alloc(12);
      header.writeUInt32BE(transfer, 0);
      header.writeBigUInt64BE(BigInt(offset), 4);
      await this.sendFrame(Buffer.concat([header, content.subarray(offset, offset + MAX_CHUNK)]));
    }
  }

  close(error) {
    const reason = Buffer.from(error.message).subarray(0, 120).toString(); // a close frame has no room for more
    this.socket.close(error.closeCode ?? 1011, reason);
  }

  takeFrame(frame, isBinary) {
    if (frame.length > MAX_FRAME) throw new Broken(`a frame of ${frame.length} bytes, expected at most ${MAX_FRAME}`);
    if (isBinary) return this.takeChunk(frame);
    const message = readMessage(frame);
    if (!this.hello && message?.type !== "hello") throw new Broken("the first message was not hello");
    if (message?.type === "hello") this.takeHello(message);
    else if (message) this.worker.obey(this, message, this.announced(message)).catch((error) => this.close(error));
  }

  takeHello(message) {
    if (message.min_proto > 1 || message.proto < 1)
      throw new Broken(`console speaks ${message.min_proto} to ${message.proto}, worker 1 to 1`, 4406);
    this.hello ??= message;
  }

  /** The blob that a command announces, or null. Its chunks come even if the command is refused. */
  announced(message) {
    const field = { "run.prepare": "graphs", "round.start": "model", "evaluate": "model" }[message.type];
    const blob = field ? message[field] : null;
    if (!blob) return null;
    if (this.transfers.has(blob.transfer)) throw new Broken(`transfer ${blob.transfer} was used before`);
    if (this.incoming.size === MAX_BLOBS) throw new Broken(`more than ${MAX_BLOBS} blobs are under way`);
    const incoming = { ...blob, message, received: 0, room: null };
    this.transfers.add(blob.transfer);
    this.incoming.set(blob.transfer, incoming);
    return incoming;
  }

  takeChunk(frame) {
    const length = frame.length - 12;
    if (length < 1 || length > MAX_CHUNK) throw new Broken(`a chunk of ${length} bytes, expected 1 to ${MAX_CHUNK}`);
    const incoming = this.incoming.get(frame.readUInt32BE(0)), offset = frame.readBigUInt64BE(4);
    if (!incoming || offset !== BigInt(incoming.received) || incoming.received + length > incoming.size)
      throw new Broken("a chunk that fits no announced blob");
    incoming.room?.set(frame.subarray(12), incoming.received); // without room it is thrown away
    incoming.received += length;
    if (incoming.received < incoming.size) return;
    this.incoming.delete(incoming.transfer);
    incoming.resolve?.();
  }

  breakOff(incoming, reason) {
    this.incoming.delete(incoming.transfer);
    incoming.reject?.(new Refusal("wrong_state", reason));
  }
}

/** Resolves to a blob's content. A command calls it before it awaits anything: the chunks may follow at once. */
export async function receive(incoming, limit, badCode) {
  if (incoming.size > limit) throw new Refusal("too_large", `${incoming.size} bytes, expected at most ${limit}`);
  incoming.room = Buffer.allocUnsafe(incoming.size);
  await new Promise((resolve, reject) => Object.assign(incoming, { resolve, reject }));
  const found = sha256(incoming.room);
  if (found !== incoming.sha256) throw new Refusal(badCode, `found SHA-256 ${found}, expected ${incoming.sha256}`);
  return incoming.room;
}

function accept(socket, worker) {
  const link = new Link(socket, worker);
  socket.on("error", () => {}); // "close" follows
  link.send(worker.greeting());
  if (socket.protocol !== SUBPROTOCOL) return link.close(new Broken(`expected the subprotocol ${SUBPROTOCOL}`));
  if (links.size === MAX_LINKS) return link.close(new Broken(`${MAX_LINKS} links are open already`, 4429));
  links.add(link);
  socket.on("message", (frame, isBinary) => {
    if (socket.readyState !== socket.OPEN) return; // it is being closed
    try {
      link.takeFrame(frame, isBinary);
    } catch (error) {
      link.close(error);
    }
  });
  const silence = setTimeout(() => {
    if (!link.hello) link.close(new Broken("no hello came"));
  }, HELLO_MS);
  const pings = setInterval(() => {
    if (Date.now() - link.lastPong > PONG_MS) socket.terminate();
    else socket.ping();
  }, PING_MS);
  socket.on("pong", () => {
    link.lastPong = Date.now();
  });
  socket.on("close", () => {
    clearTimeout(silence);
    clearInterval(pings);
    links.delete(link);
    worker.lost(link);
  });
}

export function listen(port, worker) {
  const listener = new WebSocketServer({
    host: "127.0.0.1",
    port,
    perMessageDeflate: false,
    maxPayload: 2 * MAX_FRAME, // ws closes with a code of its own; takeFrame comes first with the protocol's
    handleProtocols: (offered) => offered.has(SUBPROTOCOL) && SUBPROTOCOL,
    verifyClient: ({ req: request }, decide) => decide(request.headers.origin === undefined, 403),
  });
  listener.on("connection", (socket) => accept(socket, worker));
  return listener;
}
