import { compare, type Figure, type Pair } from "./figure.ts";
import type { Lab } from "./lab.ts";
import { LogMaker } from "./log-maker.ts";

const rounds = 7;
const projects = 100;
const holeBytes = 100 * 1024 * 1024;

/** How long it takes to listen, with a long history and with none. */
export async function startup(lab: Lab): Promise<Figure[]> {
  const [none, much] = [lab.folder(), lab.folder()];
  await fill(lab, much);
  const start = async (home: string) => {
    await using server = await lab.server({}, home);
    return server.startMs;
  };
  // The first start takes the files in: their numbers are new to the metadata.
  await start(much);
  await start(none);
  const pairs: Pair[] = [];
  for (let round = 0; round < rounds; round += 1)
    pairs.push({ floor: await start(none), ours: await start(much) });
  return [
    compare(pairs, "difference", {
      what: "start with 100 projects and 10 GB of logs, beside none",
      unit: "ms",
      budget: { most: 30 },
    }),
  ];
}

async function fill(lab: Lab, home: string): Promise<void> {
  const made: string[] = [];
  let dataDir = "";
  let last;
  {
    await using server = await lab.server({ PA_MAX_PROJECTS: String(projects) }, home);
    ({ dataDir } = server);
    for (let count = 0; count < projects; count += 1) made.push(await server.project());
    const client = await server.client();
    const { data } = await client.expect("project_list_response", "project_list");
    last = data.projects[0];
  }
  if (!last) throw new Error("Cannot measure: there are no projects");
  for (const id of made)
    new LogMaker(dataDir, id).sparse(holeBytes, { type: "project_state", data: { ...last, id } });
}
