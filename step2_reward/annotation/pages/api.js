// Calls of the server, and the exchange of a personal link for a cookie.

/** The server was not reached, or not able to answer: the same call may be made again. */
export class Unreached extends Error {}

/** The server's answer is no. `kind` and `status` are the server's. */
export class Refused extends Error {
  constructor(status, kind, text) {
    super(text);
    this.status = status;
    this.kind = kind;
  }
}

/** Whom a page that changes something believes to be signed in. */
let who = "";
export function signedInAs(name) {
  who = name;
}

/** `seconds`: how long to wait; a page of long responses takes its time on a slow line. */
export async function call(path, body, seconds = 90) {
  const request = { credentials: "same-origin", cache: "no-store" };
  if (body !== undefined) {
    request.method = "POST";
    request.headers = {
      "content-type": "application/json",
      "x-annotate": encodeURIComponent(who).replace(
        /[!'()*]/g,
        (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`,
      ),
    };
    request.body = JSON.stringify(body);
  }
  request.signal = AbortSignal.timeout(1000 * seconds);
  let response;
  let content;
  try {
    response = await fetch(path, request);
    content = await response.json();
  } catch {
    throw new Unreached("no connection to the server");
  }
  if (response.status >= 500 || response.status === 408) {
    throw new Unreached("the server cannot save at the moment");
  }
  if (!response.ok) throw new Refused(response.status, content.kind ?? "", content.error ?? "");
  return content;
}

/** The secret of a personal link leaves the address bar (and the history) for a cookie. */
export async function signIn(page) {
  const token = location.hash.slice(1);
  if (token.length < 20) return;
  await call("/api/session", { page, token });
  history.replaceState(null, "", location.pathname);
}
