// Vite's development server for the site in the folder of its argument. Prints its port. It takes any host, unless another
// argument says `--strict`.
import { argv, load } from "./packages.mjs";

const { createServer } = await load("vite");
const server = await createServer({
    root: argv[0], configFile: false, logLevel: "warn",
    server: { host: "127.0.0.1", port: 0, strictPort: false, allowedHosts: argv[1] === "--strict" ? [] : true },
});
await server.listen();
console.log(server.httpServer.address().port);
