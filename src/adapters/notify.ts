import { dlopen, FFIType, ptr } from "bun:ffi";

const { i32, u32, u64, ptr: pointer } = FFIType;
const unixFamily = 1;
const datagram = 2;
const closeOnExec = 0o2000000;
const libraries = ["libc.so.6", "libc.musl-x86_64.so.1", "libc.musl-aarch64.so.1"];

/**
 * Tells the service manager how the server is (sd_notify(3)): that it is ready, that it still
 * turns, that it is going down. Without a manager that asked for it, nothing happens.
 */
export class Notifier implements Disposable {
  readonly #send: (text: string) => void;
  readonly #watchdog: Timer | undefined;

  /** Reads NOTIFY_SOCKET and WATCHDOG_USEC as the manager sets them. */
  constructor(env: Readonly<Record<string, string | undefined>>) {
    const { NOTIFY_SOCKET: path, WATCHDOG_USEC: micros, WATCHDOG_PID: pid } = env;
    this.#send = path ? sender(path) : () => undefined;
    const forUs = pid === undefined || Number(pid) === process.pid;
    const everyMs = forUs ? Number(micros ?? 0) / 2_000 : 0;
    if (path && everyMs > 0) this.#watchdog = setInterval(() => this.#send("WATCHDOG=1"), everyMs);
  }

  ready(status: string): void {
    this.#send(`READY=1\nMAINPID=${process.pid}\nSTATUS=${status}`);
  }

  stopping(reason: string): void {
    this.#send(`STOPPING=1\nSTATUS=Stopping: ${reason}`);
  }

  [Symbol.dispose](): void {
    clearInterval(this.#watchdog);
  }
}

/** Sends datagrams to a unix socket; `@` begins the name of an abstract one. */
function sender(path: string): (text: string) => void {
  const symbols = library();
  if (!symbols) throw new Error("Cannot notify the service manager: there is no C library");
  const name = Buffer.from(path.replace(/^@/, "\0"));
  // struct sockaddr_un: the family in the machine's order, and the path.
  const address = Buffer.alloc(2 + name.length + (name[0] === 0 ? 0 : 1));
  address.writeUInt16LE(unixFamily);
  name.copy(address, 2);
  const socket = symbols.socket(unixFamily, datagram | closeOnExec, 0);
  if (socket < 0) throw new Error("Cannot notify the service manager: there is no socket");
  return (text) => {
    const bytes = Buffer.from(text);
    // A manager that is gone needs no news.
    symbols.sendto(socket, ptr(bytes), bytes.length, 0, ptr(address), address.length);
  };
}

function library() {
  for (const name of libraries) {
    try {
      return dlopen(name, {
        socket: { args: [i32, i32, i32], returns: i32 },
        sendto: { args: [i32, pointer, u64, i32, pointer, u32], returns: i32 },
      }).symbols;
    } catch {
      // The next name may be the right one.
    }
  }
  return undefined;
}
