// Makes build/js-function.wasm of app.js. The engine inside componentize-js speaks 0.2.10 of the interfaces; the WIT files in
// build/wit may say another patch version, which is compatible, so their numbers are set to it.
import { componentize } from "@bytecodealliance/componentize-js";
import { readFile, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";

const engineVersion = "0.2.10";

async function setVersions(directory) {
  for (const entry of await readdir(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) await setVersions(path);
    else if (entry.name.endsWith(".wit")) {
      await writeFile(path, (await readFile(path, "utf8")).replace(/0\.2\.\d+/g, engineVersion));
    }
  }
}

await setVersions("build/wit");
const { component } = await componentize(await readFile("app.js", "utf8"), {
  sourceName: "app.js",
  witPath: "build/wit",
  worldName: "wasi:http/proxy",
});
await writeFile("build/js-function.wasm", component);
