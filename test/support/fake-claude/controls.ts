import type { Agent } from "./agent.ts";
import { initialization, mcpServers, version } from "./identity.ts";
import { isFields, type Fields } from "./record.ts";

/** Takes a `control_request` and answers it, unless it is told to be as mute as old CLIs. */
export async function control(agent: Agent, message: Fields): Promise<void> {
  const request = isFields(message["request"]) ? message["request"] : {};
  const respond = (response: Fields): void => {
    if (agent.quirks.mute) return;
    const { request_id } = message;
    void agent.printer.control({
      type: "control_response",
      response: { ...response, request_id },
    });
  };
  if (request["subtype"] === "interrupt") {
    if (agent.quirks.ignoreInterrupt || agent.quirks.stubborn) return;
    agent.interrupt(() => respond({ subtype: "success" }));
    return;
  }
  try {
    const response = await obey(agent, request);
    respond({ subtype: "success", ...(response ? { response } : {}) });
  } catch (error) {
    respond({ subtype: "error", error: error instanceof Error ? error.message : String(error) });
    return;
  }
  if (request["subtype"] === "set_permission_mode") await agent.reportMode();
  if (request["subtype"] === "end_session") await agent.exit(0);
}

/** Does what a control request asks for; throws the sentence that refuses it. */
async function obey(agent: Agent, request: Fields): Promise<Fields | undefined> {
  const { subtype, mode, model } = request;
  if (subtype === "end_session") return undefined;
  if (subtype === "initialize") return initialization();
  if (subtype === "get_binary_version") return { version: version() };
  if (subtype === "mcp_status") return { mcpServers: mcpServers(agent.given) };
  if (subtype === "stop_task") {
    await agent.stopTask(String(request["task_id"]));
    return {};
  }
  if (subtype === "set_permission_mode") {
    const refusal = agent.permissions.setMode(String(mode));
    if (refusal) throw new Error(refusal);
    return { mode };
  }
  if (subtype === "set_model") {
    agent.setModel(model);
    await agent.printer.line({
      type: "user",
      message: {
        role: "user",
        content: `<local-command-stdout>Set model to ${agent.model}</local-command-stdout>`,
      },
      parent_tool_use_id: null,
      isReplay: true,
    });
    return undefined;
  }
  throw new Error(`Unsupported control request subtype: ${String(subtype)}`);
}
