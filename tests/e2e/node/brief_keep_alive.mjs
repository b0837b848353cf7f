// A server that closes a connection once it has been idle for some milliseconds. GET returns the bodies so far. Prints its
// port. Arguments: the time in milliseconds, and `silent` if responses don't mention it.
import http from "node:http";
import { argv } from "./packages.mjs";

const [timeout, hint] = argv;
const bodies = [];
const server = http.createServer((request, response) => {
    if (hint === "silent") {
        // With a Connection field of the program, Node.js adds no Keep-Alive field.
        response.setHeader("connection", "keep-alive");
    }
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
server.keepAliveTimeout = Number(timeout);
// From some version on, Node.js adds a second to the time-out.
server.keepAliveTimeoutBuffer = 0;
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
