// A server that closes a connection once it has been idle for some milliseconds. GET returns the bodies so far. Prints its
// port. Argument: the time in milliseconds.
import http from "node:http";
import { argv } from "./packages.mjs";

const bodies = [];
const server = http.createServer((request, response) => {
    if (request.method === "GET") {
        response.end(JSON.stringify(bodies));
        return;
    }
    let body = "";
    request.on("data", piece => { body += piece; });
    request.on("end", () => {
        bodies.push(body);
        response.end(body);
    });
});
server.keepAliveTimeout = Number(argv[0]);
// From some version on, Node.js adds a second to the time-out.
server.keepAliveTimeoutBuffer = 0;
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
