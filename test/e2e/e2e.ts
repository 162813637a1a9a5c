/** The whole way: server process, real CLI and scripted model, as somebody would use them. */
/* oxlint-disable import/no-unassigned-import -- each file registers its tests */
import "./answers.ts";
import "./approvals.ts";
import "./console.ts";
import "./conversations.ts";
import "./failures.ts";
import "./hostile.ts";
import "./interruptions.ts";
import "./quickstart.ts";
import "./sessions.ts";
import "./warm.ts";
