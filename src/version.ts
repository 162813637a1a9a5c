import { version as packageVersion } from "../package.json";

/** Set by `scripts/compile.ts`; not there when the sources run as they are. */
declare const BUILD_COMMIT: string | undefined;

/** The version of this server. */
export const version: string = packageVersion;

/** The git commit an executable was built from, or "source". */
export const commit: string = typeof BUILD_COMMIT === "string" ? BUILD_COMMIT : "source";
