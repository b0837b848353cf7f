// An ordinary Node service: what its http module does by itself, and a few paths that use more of it.
const crypto = require("node:crypto"), http = require("node:http"), zlib = require("node:zlib");

const TEXT = "some words that pack well. ".repeat(200);
const ETAG = `"${crypto.createHash("sha1").update(TEXT).digest("hex")}"`;
let connections = 0;

function collect(request, done) {
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => done(Buffer.concat(parts)));
}

function mirror(request, response, more = {}) {
  collect(request, (body) => {
    const { cookie, range, authorization, accept } = request.headers;
    const seen = { method: request.method, url: request.url, cookie, range, authorization, accept, type: request.headers["content-type"] };
    response.setHeader("content-type", "application/json");
    response.end(JSON.stringify({ ...seen, length: body.length, hash: crypto.createHash("sha256").update(body).digest("hex"), trailers: request.trailers, ...more }));
  });
}

const paths = {
  "/text": (request, response) => {
    response.setHeader("etag", ETAG);
    response.setHeader("vary", "accept-encoding");
    response.setHeader("cache-control", "public, max-age=60");
    if (request.headers["if-none-match"] === ETAG) return response.writeHead(304).end();
    if (!/gzip/.test(request.headers["accept-encoding"] || "")) return response.end(TEXT);
    response.setHeader("content-encoding", "gzip");
    response.end(zlib.gzipSync(TEXT));
  },
  "/pieces": (request, response) => {
    for (let piece = 0; piece < 50; piece++) response.write(`piece ${piece}\n`);
    response.end();
  },
  "/trailers": (request, response) => {
    response.writeHead(200, { trailer: "sum, words" });
    response.write("body");
    response.addTrailers({ sum: "1", words: "a b" });
    response.end();
  },
  "/cookies": (request, response) => {
    response.setHeader("set-cookie", ["a=1; Path=/", "b=2; HttpOnly; Secure", "c=3; SameSite=None; Expires=Wed, 01 Jan 2031 00:00:00 GMT"]);
    response.end("cookies");
  },
  "/moved": (request, response) => response.writeHead(302, { location: "/text?x=1#part" }).end(),
  "/elsewhere": (request, response) => response.writeHead(308, "Gone There", { location: "https://other.invalid/a b" }).end("there"),
  "/empty": (request, response) => response.writeHead(204).end(),
  "/reset": (request, response) => response.writeHead(205).end(),
  "/hints": (request, response) => {
    response.writeEarlyHints({ link: "</style.css>; rel=preload; as=style" }, () => response.end("hinted"));
  },
  "/early": (request, response) => {
    response.writeHead(413, { connection: "close" });
    response.end("too large", () => request.socket.destroySoon());
  },
  "/teapot": (request, response) => response.writeHead(418, "Short And Stout").end("teapot"),
  "/many": (request, response) => {
    for (let number = 0; number < 80; number++) response.setHeader(`x-many-${number}`, `value ${number}`);
    response.setHeader("link", ["</a>; rel=a", "</b>; rel=b"]);
    response.end("many");
  },
  "/connection": (request, response) => response.end(String(request.socket.number)),
};

function serve(request, response) {
  if (request.url === "*") return response.writeHead(200, { allow: "GET, HEAD, POST" }).end();
  const path = paths[request.url.split("?")[0]];
  return path ? path(request, response) : mirror(request, response);
}

const server = http.createServer({ keepAliveTimeout: 20000 }, serve);
server.on("connection", (socket) => (socket.number = ++connections));
server.on("checkContinue", (request, response) => {
  response.writeContinue();
  mirror(request, response, { continued: true });
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
