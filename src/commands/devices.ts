import type { DeviceSummary } from "../contract/messages.ts";
import { administer, call, type Command, print, UsageError } from "./command.ts";
import { table } from "./table.ts";

export const devices: Command = {
  about: "List, rename and revoke the devices that may come in",
  usage: ["devices [list]", "devices rename DEVICE NAME", "devices revoke DEVICE [--keep-runs]"],
  details: [
    "DEVICE is an id, the beginning of one, or a name. Revoking ends its connections and tokens",
    "at once, cancels its queued prompts, and stops its runs unless --keep-runs is given.",
  ],
  async run(argv, env) {
    const from = call(argv, env, { "keep-runs": "switch" });
    const [action = "list", device, name, ...more] = from.words;
    if (action === "list" && device === undefined) {
      const result = await administer("devices.list", {}, from);
      print(from, result, () => list(result.devices));
    } else if (action === "rename" && device && name && more.length === 0) {
      const result = await administer("devices.rename", { device, name }, from);
      print(from, result, () => `${result.device.id} is called "${result.device.name}" now`);
    } else if (action === "revoke" && device && name === undefined) {
      const keepRuns = from.flags.has("keep-runs");
      const result = await administer("devices.revoke", { device, keepRuns }, from);
      print(from, result, () => `"${result.device.name}" (${result.device.id}) is shut out`);
    } else throw new UsageError("Cannot read the command: see devices --help");
    return 0;
  },
};

function list(all: readonly DeviceSummary[]): string {
  if (all.length === 0) return 'Nobody may come in yet; "pair" lets a device in';
  return table(
    ["ID", "NAME", "SCOPE", "KIND", "CREATED", "LAST SEEN", "ADDRESS"],
    all.map(({ id, name, scope, kind, created_at, last_seen, address, connected }) => [
      id,
      name,
      scope,
      kind,
      created_at.slice(0, 16),
      connected ? "connected" : (last_seen?.slice(0, 16) ?? "never"),
      address ?? "",
    ]),
  );
}
