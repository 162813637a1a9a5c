import { type Signal, useSignal } from "@preact/signals";
import { del, get, set } from "idb-keyval";
import type { RefObject } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import type { Conversation } from "./conversation.ts";
import { maxPicturesSize, type Picture, pictureOf } from "./picture.ts";
import { useHistory } from "./prompt-history.ts";
import { draftName, type Store } from "./store.ts";

/** Where a prompt is written: with its history, slash commands and images. */
export function PromptBox({ store, conversation }: { store: Store; conversation: Conversation }) {
  const { text, setText, read } = useDraft(store, conversation.id);
  const pictures = useSignal<readonly Picture[]>([]);
  const adding = useSignal(0);
  const area = useRef<HTMLTextAreaElement>(null);
  const history = useHistory(conversation.id);
  const { state } = conversation;
  const refused = store.refused.value.filter(({ projectId }) => projectId === conversation.id);
  useEffect(() => {
    if (refused.length === 0) return;
    read();
    pictures.value = [...refused.flatMap(({ images }) => images), ...pictures.value];
    store.refused.value = store.refused.value.filter((one) => !refused.includes(one));
  }, [refused.length]);
  useHeight(area, text);

  const ready = text.trim() !== "" && adding.value === 0;
  const send = () => {
    if (!ready) return;
    const prompt = { projectId: conversation.id, prompt: text, images: pictures.value };
    history.add(text);
    setText("");
    pictures.value = [];
    store.attempt(async () => await store.outbox.add(prompt));
  };
  const add = (blobs: readonly Blob[]) =>
    store.attempt(async () => {
      adding.value += 1;
      await fill(pictures, blobs).finally(() => (adding.value -= 1));
    });
  const commands = matching(conversation.commands.value, text);
  const busy = state.value.state === "EXECUTING";
  const keys = (event: KeyboardEvent) => {
    if (
      event.key === "Enter" &&
      !event.shiftKey &&
      !event.isComposing &&
      matchMedia("(pointer: fine)").matches
    ) {
      event.preventDefault();
      send();
    } else if (event.key === "Tab" && commands.length > 0 && !event.shiftKey) {
      event.preventDefault();
      setText(`/${commands[0]} `);
    } else if (event.key === "ArrowUp" || event.key === "ArrowDown") {
      const other = history.move(event.key === "ArrowUp" ? 1 : -1, text);
      if (other === undefined) return;
      event.preventDefault();
      setText(other);
    }
  };
  return (
    <form
      class="prompt-box"
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
    >
      <Commands
        commands={commands}
        choose={(command) => {
          setText(`/${command} `);
          area.current?.focus();
        }}
      />
      <Pictures
        pictures={pictures.value}
        remove={(picture) => {
          pictures.value = pictures.value.filter((other) => other !== picture);
        }}
      />
      <div class="row">
        <AddPictures add={add} />
        <textarea
          ref={area}
          rows={1}
          value={text}
          dir="auto"
          aria-label="Prompt"
          placeholder={busy ? "Next…" : "What to do?"}
          onInput={(event) => setText(event.currentTarget.value)}
          onKeyDown={keys}
          onPaste={(event) => {
            const images = [...(event.clipboardData?.files ?? [])].filter(({ type }) =>
              type.startsWith("image/"),
            );
            if (images.length === 0) return;
            event.preventDefault();
            add(images);
          }}
        />
        {busy && <Stop {...{ store, conversation }} />}
        <button type="submit" class="send" disabled={!ready}>
          {busy ? "Queue" : "Send"}
        </button>
      </div>
    </form>
  );
}

/** As high as what is in it, within reason. */
function useHeight(area: RefObject<HTMLTextAreaElement | null>, text: string): void {
  useEffect(() => {
    const element = area.current;
    if (!element) return;
    element.style.height = "auto";
    element.style.height = `${Math.min(element.scrollHeight, innerHeight * 0.4)}px`;
  }, [area, text]);
}

/** What is being written, kept until it is sent: people go and look something up. */
function useDraft(store: Store, projectId: string) {
  const name = draftName(projectId);
  const [text, setText] = useState("");
  const read = () =>
    store.attempt(async () => {
      const kept = await get<string>(name);
      if (kept !== undefined) setText(kept);
    });
  useEffect(read, [name]);
  const write = (next: string) => {
    setText(next);
    store.attempt(async () => await (next === "" ? del(name) : set(name, next)));
  };
  return { text, setText: write, read };
}

function Commands(props: { commands: readonly string[]; choose: (command: string) => void }) {
  if (props.commands.length === 0) return null;
  return (
    <div class="commands" role="group" aria-label="Commands">
      {props.commands.map((command) => (
        <button type="button" key={command} onClick={() => props.choose(command)}>
          /{command}
        </button>
      ))}
    </div>
  );
}

function Pictures(props: { pictures: readonly Picture[]; remove: (picture: Picture) => void }) {
  if (props.pictures.length === 0) return null;
  return (
    <div class="pictures">
      {props.pictures.map((picture) => (
        <button
          type="button"
          key={picture.data}
          aria-label="Take this image away"
          onClick={() => props.remove(picture)}
        >
          <img src={`data:${picture.mediaType};base64,${picture.data}`} alt="" />
        </button>
      ))}
    </div>
  );
}

function AddPictures({ add }: { add: (files: readonly Blob[]) => void }) {
  const files = useRef<HTMLInputElement>(null);
  return (
    <>
      <input
        ref={files}
        type="file"
        accept="image/*"
        multiple
        hidden
        aria-label="Images"
        onChange={({ currentTarget }) => {
          add([...(currentTarget.files ?? [])]);
          currentTarget.value = "";
        }}
      />
      <button
        type="button"
        class="quiet icon"
        aria-label="Add images"
        onClick={() => files.current?.click()}
      >
        +
      </button>
    </>
  );
}

function Stop({ store, conversation }: { store: Store; conversation: Conversation }) {
  const [stopping, setStopping] = useState(false);
  const stop = async () => {
    setStopping(true);
    await store.ask("agent_kill", { project: conversation.id });
    setStopping(false);
  };
  return (
    <button type="button" class="stop" disabled={stopping} onClick={() => store.attempt(stop)}>
      {stopping ? "Stopping" : "Stop"}
    </button>
  );
}

/** The room for each is what those before it have left. */
async function fill(pictures: Signal<readonly Picture[]>, blobs: readonly Blob[]): Promise<void> {
  for (const blob of blobs) {
    const taken = pictures.value.reduce((sum, { data }) => sum + data.length, 0);
    // oxlint-disable-next-line no-await-in-loop -- as said
    const picture = await pictureOf(blob, maxPicturesSize - taken);
    pictures.value = [...pictures.value, picture];
  }
}

function matching(commands: readonly string[], text: string): readonly string[] {
  const [, begun] = /^\/(\S*)$/.exec(text) ?? [];
  if (begun === undefined) return [];
  return commands.filter((command) => command.startsWith(begun)).slice(0, 8);
}
