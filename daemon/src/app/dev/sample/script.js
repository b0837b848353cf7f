"use strict";
const at = id => document.getElementById(id);

new EventSource("/events").onmessage = event => { at("tick").textContent = event.data; };

// Opened with the first message. While it is closed, the next message opens it again.
let socket = null;
const line = text => {
  const item = document.createElement("li");
  item.textContent = text;
  at("echoes").prepend(item);
  while (at("echoes").children.length > 5) at("echoes").lastChild.remove();
};
at("echo").onsubmit = event => {
  event.preventDefault();
  const said = event.target.elements.said.value;
  const send = () => { socket.sent = performance.now(); socket.send(said); };
  if (socket && socket.readyState === WebSocket.OPEN) return send();
  socket = new WebSocket(`wss://${location.host}/socket`);
  socket.onopen = send;
  socket.onmessage = answer => line(`${answer.data} (back after ${(performance.now() - socket.sent).toFixed(1)} ms)`);
  socket.onclose = () => line("the WebSocket is closed");
};

at("upload").onsubmit = event => {
  event.preventDefault();
  const file = event.target.elements.file.files[0];
  const request = new XMLHttpRequest();
  request.open("POST", "/upload");
  request.setRequestHeader("Accept", "application/json");
  request.upload.onprogress = sent => { at("uploaded").textContent = `${sent.loaded} of ${sent.total} bytes are sent`; };
  request.onerror = () => { at("uploaded").textContent = "the upload broke off"; };
  request.onload = () => {
    if (request.status !== 200) return request.onerror();
    const { bytes, seconds, sha256 } = JSON.parse(request.responseText);
    at("uploaded").textContent = `${bytes} bytes arrived in ${seconds} s, SHA-256 ${sha256}`;
  };
  request.send(file);
};
