// Asking the server, and what a refusal says.

/** An answer that is no success: `status` is 0 when there was no answer at all. */
export class Refusal extends Error {
  constructor(status, body) {
    super(body.message || "The server can't be reached.");
    this.status = status;
    this.problems = body.problems || [];
    this.hint = body.hint || "";
    this.details = body.details || []; // {parameter, code, message} of everything that is wrong
  }
}

/** Ask; gives the JSON of the answer. */
export async function call(path, options) {
  let answer;
  let body = {};
  try {
    answer = await fetch(path, { cache: "no-store", ...options });
    body = await answer.json();
  } catch {
    if (!answer) throw new Refusal(0, { hint: "Is it running? Nothing was lost: try again." });
  }
  if (!answer.ok) throw new Refusal(answer.status, { message: answer.statusText, ...body });
  return body;
}

/** Send JSON; `headers` may add to what is sent. */
export const post = (path, body, headers = {}) =>
  call(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", ...headers },
    body: JSON.stringify(body),
  });
