// Uploads a file in pieces of 1 MB. Stops once a part has arrived, and goes on from what the server has. Prints the
// location. Arguments: the file, the endpoint, the daemon's address and port.
import fs from "node:fs";
import https from "node:https";
import net from "node:net";
import { argv, load } from "./packages.mjs";

const tus = await load("tus-js-client");
const [path, endpoint, address] = argv;
const lookup = (_name, options, done) =>
    options.all ? done(null, [{ address, family: net.isIP(address) }]) : done(null, address, net.isIP(address));
const httpStack = new tus.DefaultHttpStack({ agent: new https.Agent({ keepAlive: true, lookup }) });
const size = fs.statSync(path).size;

const upload = (options, until) => new Promise((resolve, reject) => {
    const one = new tus.Upload(fs.createReadStream(path), {
        endpoint, httpStack, uploadSize: size, chunkSize: 1 << 20, retryDelays: null,
        metadata: { filename: "upload.bin" },
        onError: reject,
        onSuccess: () => resolve(one.url),
        onProgress: async sent => {
            if (sent >= until && !one.stopped) {
                one.stopped = true;
                // Breaks off in the middle of a piece.
                await one.abort();
                resolve(one.url);
            }
        },
        ...options,
    });
    one.start();
});

const url = await upload({}, size / 2);
await upload({ uploadUrl: url }, Infinity);
console.log(url);
process.exit(0);
