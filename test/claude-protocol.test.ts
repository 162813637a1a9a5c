import { describe, expect, test } from "bun:test";
import { readLine, userMessage } from "../src/adapters/claude/protocol.ts";
import type { AgentLine } from "../src/core/ports.ts";

function passed(text: string): AgentLine | undefined {
  const incoming = readLine({ text, bytes: Buffer.byteLength(text) });
  return incoming.kind === "pass" ? incoming.line : undefined;
}

describe("readLine", () => {
  test("passes a partial message on as a delta, untouched", () => {
    const text = ` { "type" : "stream_event" , "event":{"x":"\\u2028"}} `;
    expect(passed(text)).toEqual({ kind: "delta", text });
  });

  test("takes nothing for a delta that only begins like one", () => {
    expect(passed(`{"type":"stream_event","event":{"typ`)?.kind).toBe("unreadable");
    expect(passed(`{"type":"stream_event","type":"result"}`)?.kind).toBe("event");
  });

  test("passes types it does not know on as events", () => {
    expect(passed(`{"type":"news","subtype":"s","session_id":"i","x":{"y":1}}`)).toMatchObject({
      kind: "event",
      event: { type: "news", subtype: "s", session_id: "i", x: { y: 1 } },
    });
  });

  test("does not pass on a subtype or session that is no string", () => {
    expect(passed(`{"type":"news","subtype":1,"session_id":null}`)).toMatchObject({
      event: { subtype: undefined, session_id: undefined },
    });
  });

  test("hands out permission requests and their withdrawal", () => {
    const request = { subtype: "can_use_tool", tool_name: "Bash", input: { command: "ls" } };
    const text = JSON.stringify({ type: "control_request", request_id: "r", request });
    expect(passed(text)).toEqual({ kind: "request", requestId: "r", request });
    expect(passed(`{"type":"control_cancel_request","request_id":"r"}`)).toEqual({
      kind: "withdrawal",
      requestId: "r",
    });
  });

  test("refuses requests that it does not know or cannot use", () => {
    const requests = [{ subtype: "hook_callback" }, { subtype: "can_use_tool", input: {} }, null];
    for (const request of requests) {
      const text = JSON.stringify({ type: "control_request", request_id: "r", request });
      expect(readLine({ text, bytes: 1 })).toEqual({ kind: "unsupported", requestId: "r" });
    }
  });

  test("says of an unreadable line how long it is, and nothing of what it says", () => {
    for (const text of ["secret", `"secret"`, "[1]", "null", `{"secret":1}`, `{"type":7}`]) {
      const line = passed(text);
      expect(line).toMatchObject({ kind: "unreadable", bytes: text.length });
      expect(JSON.stringify(line)).not.toContain("secret");
    }
    expect(readLine({ text: null, bytes: 9 })).toMatchObject({
      line: { kind: "unreadable", bytes: 9 },
    });
  });

  test("passes over blank lines and keep-alives", () => {
    for (const text of ["", "  ", "\t", `{"type":"keep_alive"}`]) {
      expect(readLine({ text, bytes: 1 }).kind).toBe("nothing");
    }
  });
});

describe("userMessage", () => {
  test("is one line, whatever the prompt is, with a uuid of its own", () => {
    const line = userMessage("a\nb\u2028", [{ media_type: "image/png", data: "AA==" }]);
    expect(line).not.toContain("\n");
    expect(JSON.parse(line)).toMatchObject({
      type: "user",
      message: {
        role: "user",
        content: [
          { type: "text", text: "a\nb\u2028" },
          { type: "image", source: { type: "base64", media_type: "image/png", data: "AA==" } },
        ],
      },
    });
    expect(JSON.parse(userMessage("a", [])).uuid).not.toBe(JSON.parse(line).uuid);
  });
});
