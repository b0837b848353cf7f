// A server for resumable uploads, into the folder of its argument. Prints its port.
import { argv, load } from "./packages.mjs";

const { Server } = await load("@tus/server");
const { FileStore } = await load("@tus/file-store");
const [directory] = argv;
// Behind a proxy, locations carry the scheme and the host that the visitor used.
const tus = new Server({ path: "/files", respectForwardedHeaders: true, datastore: new FileStore({ directory }) });
const server = tus.listen({ host: "127.0.0.1", port: 0 }, () => console.log(server.address().port));
