// Loads packages from the folder of the first argument, since the scripts are not in the folder of an installation.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(`${process.argv[2]}/`);

export const load = name => import(pathToFileURL(require.resolve(name)));
export const argv = process.argv.slice(3);
