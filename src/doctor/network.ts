import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { machineAddresses, machineNames } from "../access/machine-names.ts";
import { fail, type Finding, ok, type Patient } from "./finding.ts";

/** Whether the port can be had, and where clients would find the server. */
export function checkNetwork({ config, running }: Patient): Finding[] {
  const { host, port, tlsEnabled } = config;
  const everywhere = host === "0.0.0.0" || host === "::";
  const hosts = everywhere ? [...machineNames(), ...machineAddresses()] : [host];
  const scheme = tlsEnabled ? "https" : "http";
  const places = hosts.map(
    (name) => `${scheme}://${name.includes(":") ? `[${name}]` : name}:${port}`,
  );
  const addresses = ok("addresses", places.join(" "));
  if (running !== undefined) return [ok("server", `it runs, as process ${running}`), addresses];
  const refusal = tryPort(host, port);
  if (refusal === undefined) return [ok("port", `${port} is free`), addresses];
  const by = holderOf(port);
  return [
    fail(
      "port",
      `cannot listen on ${host}:${port}: ${refusal}${by === undefined ? "" : `, by ${by}`}`,
      "Stop that program, or choose another server.port",
    ),
    addresses,
  ];
}

/** Why a port cannot be listened on; undefined if it can. */
function tryPort(hostname: string, port: number): string | undefined {
  try {
    Bun.listen({ hostname, port, exclusive: true, socket: { data: () => undefined } }).stop(true);
    return undefined;
  } catch (cause) {
    const code = cause instanceof Error && "code" in cause ? String(cause.code) : String(cause);
    return code === "EADDRINUSE" ? "it is in use" : code;
  }
}

/** The program that listens on a port, where the system says so (Linux). */
function holderOf(port: number): string | undefined {
  const inodes = new Set(["tcp", "tcp6"].flatMap((family) => listening(family, port)));
  for (const pid of namesIn("/proc").filter((name) => /^\d+$/.test(name)))
    for (const descriptor of namesIn(`/proc/${pid}/fd`)) {
      const target = linkOf(`/proc/${pid}/fd/${descriptor}`);
      const inode = /^socket:\[(\d+)\]$/.exec(target)?.[1];
      if (inode && inodes.has(inode))
        return `process ${pid} (${textOf(`/proc/${pid}/comm`).trim()})`;
    }
  return undefined;
}

/** Inodes of the sockets that listen on a port. The table is documented in proc(5). */
function listening(family: string, port: number): string[] {
  const wanted = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  return textOf(`/proc/net/${family}`)
    .split("\n")
    .map((line) => line.trim().split(/\s+/))
    .filter(([, local = "", , state]) => local.endsWith(wanted) && state === "0A")
    .flatMap((fields) => fields[9] ?? []);
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    // Somebody else's, or gone: then it is not this account that can name the holder.
    return [];
  }
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    // Gone in the meantime.
    return "";
  }
}

function textOf(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    // Not on this system.
    return "";
  }
}
