// An HTTP function in JavaScript: a `fetch` event handler, as in a service worker.
import { getEnvironment } from "wasi:cli/environment@0.2.10";

addEventListener("fetch", (event) => {
  const pod = new Map(getEnvironment()).get("POD_NAME") ?? "nobody";
  const { pathname } = new URL(event.request.url);
  event.respondWith(
    new Response(`Hello from JavaScript in ${pod}, you asked for ${pathname}\n`, {
      headers: { "content-type": "text/plain" },
    }),
  );
});
