// Makes build/js-function.wasm of app.js. The engine inside componentize-js speaks 0.2.10 of the interfaces; the WIT files in
// build/wit/deps may say another patch version, which is compatible, so their numbers are set to it.
import { componentize } from "@bytecodealliance/componentize-js";
import { copyFile, readFile, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";

const engineVersion = "0.2.10";

for (const name of await readdir("build/wit/deps")) {
  const path = join("build/wit/deps", name);
  await writeFile(path, (await readFile(path, "utf8")).replace(/0\.2\.\d+/g, engineVersion));
}
await copyFile("function.wit", "build/wit/world.wit");

const { component } = await componentize(await readFile("app.js", "utf8"), {
  sourceName: "app.js",
  witPath: "build/wit",
  worldName: "function",
});
await writeFile("build/js-function.wasm", component);
