import type { CertificateSummary } from "../access/administration.ts";
import { administer, call, type Command, print, UsageError } from "./command.ts";

export const certs: Command = {
  about: "Show and renew the server's certificate",
  usage: ["certs [show]", "certs renew"],
  details: [
    "A renewed certificate has the same key, and so the same fingerprint; the server uses it from",
    "its next start on. It renews its own one by itself, 30 days before it ends.",
  ],
  async run(argv, env) {
    const from = call(argv, env);
    const [action = "show", ...more] = from.words;
    if (more.length > 0 || (action !== "show" && action !== "renew"))
      throw new UsageError("Cannot read the command: see certs --help");
    const result = await administer(`certs.${action}`, {}, from);
    print(from, result, () =>
      [
        show(result),
        ...(action === "renew" ? ["The server uses it from its next start on"] : []),
      ].join("\n"),
    );
    return 0;
  },
};

function show({ fingerprint, certificate, own }: CertificateSummary): string {
  if (!certificate) return `fingerprint  ${fingerprint}\nTLS is off: there is no certificate`;
  const { names, expires, file } = certificate;
  return [
    `fingerprint  ${fingerprint}`,
    `file         ${file}`,
    `made by      ${own ? "this server" : "somebody else (server.tls.cert)"}`,
    `ends         ${expires}`,
    `names        ${names.join(" ")}`,
  ].join("\n");
}
