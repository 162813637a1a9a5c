import type { Frame } from "../support/client.ts";

/** The lines of the agent, without deltas. */
export function lines(frames: readonly Frame[], type: string): Line[] {
  return agentLines(frames.filter(({ seq }) => seq !== undefined)).filter(
    (line) => line.type === type,
  );
}

/** The text of every text delta, in order. */
export function tokens(frames: readonly Frame[]): string[] {
  return deltas(frames).flatMap(({ text }) => text ?? []);
}

/** The text of every thinking delta, in order. */
export function thoughts(frames: readonly Frame[]): string[] {
  return deltas(frames).flatMap(({ thinking }) => thinking ?? []);
}

/** The errors that ended runs. */
export function errors(frames: readonly Frame[]): Frame<"error">["data"][] {
  return frames.flatMap(({ type, data }) => (type === "error" ? [data] : []));
}

/** The blocks of the agent's messages. */
export function blocks(frames: readonly Frame[]): Block[] {
  return lines(frames, "assistant").flatMap(({ message }) => message?.content ?? []);
}

export interface Block {
  readonly type: string;
  readonly text?: string;
  readonly thinking?: string;
  readonly id?: string;
  readonly name?: string;
}

/** A line of the agent, as far as the scenarios look at it. */
export interface Line {
  readonly type: string;
  readonly parent_tool_use_id?: string | null;
  readonly message?: { readonly content: readonly Block[] };
  readonly event?: { readonly delta?: Delta };
}

interface Delta {
  readonly text?: string;
  readonly thinking?: string;
}

function deltas(frames: readonly Frame[]): Delta[] {
  return agentLines(frames).flatMap(({ event }) => event?.delta ?? []);
}

function agentLines(frames: readonly Frame[]): Line[] {
  // The one cast: the CLI is what decides the format of its lines.
  return frames.flatMap(({ type, data }) => (type === "agent_message" ? [data as Line] : []));
}
